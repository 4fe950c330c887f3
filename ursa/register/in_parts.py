"""What a dry run can say of large files that an earlier run began to send."""

from __future__ import annotations

from dataclasses import replace

from ursa.register.results import IngestPlan
from ursa.store import NoSuchUploadError, Store
from ursa.transfer.parts import SINGLE_PUT_BYTES


def with_parts(store: Store, raw_prefix: str, plan: IngestPlan) -> IngestPlan:
    """The plan, with the bytes that are in open uploads; asks only where there is a large file to send.

    An ingest compares each of these parts with the disk before it takes it over.
    """
    large = {item.key: item.file.size_bytes for item in plan.sends if item.file.size_bytes > SINGLE_PUT_BYTES}
    most: dict[str, int] = {}
    for upload in store.list_uploads(f"{raw_prefix}{plan.rec_id}/") if large else ():
        if upload.key not in large:
            continue
        try:
            arrived = sum(part.size_bytes for part in store.list_parts(upload.key, upload.upload_id))
        except NoSuchUploadError:
            continue
        most[upload.key] = max(most.get(upload.key, 0), min(arrived, large[upload.key]))
    return replace(plan, bytes_in_parts=sum(most.values()))
