"""Object stores: one small protocol, an S3 server and a local directory behind it, wrappers around it."""

from ursa.store.protocol import (
    NoSuchUploadError,
    NotFoundError,
    ObjectInfo,
    OpenUpload,
    Page,
    Part,
    PreconditionFailedError,
    PutResult,
    Store,
    TransientError,
)

__all__ = [
    "NoSuchUploadError",
    "NotFoundError",
    "ObjectInfo",
    "OpenUpload",
    "Page",
    "Part",
    "PreconditionFailedError",
    "PutResult",
    "Store",
    "TransientError",
]
