"""``ACTIVE.json``: which prefix of the assets bucket is the live catalog.

Changed only under If-Match (or put-if-absent the first time), so that a rebuild can fill a new prefix and flip to it
in one step, and two administrators never both win.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson

from ursa.errors import ConfigError, StorageError
from ursa.store import NotFoundError, Store

POINTER_NAME = "ACTIVE.json"
FIRST_PREFIX = "catalog/v1"
_VERSION = 1
_RELATIVE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")


def is_catalog_prefix(prefix: object) -> bool:
    """Whether it is ``catalog/v<digits>``: nothing below any other prefix is ever deleted."""
    return isinstance(prefix, str) and re.fullmatch(r"catalog/v[0-9]+", prefix) is not None


def overlap(one: str, other: str) -> bool:
    """Whether two prefixes are the same, or one lies within the other."""
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")


@dataclass(frozen=True, slots=True)
class Pointer:
    """The live catalog's prefix, relative to ``assets.prefix``; who made it so, and what was live before.

    ``back``: it had been live before that, and was gone back to.
    """

    prefix: str
    activated_at: str
    activated_by: str
    previous: str | None
    etag: str = ""
    back: bool = False


def read_pointer(store: Store, assets_prefix: str) -> Pointer | None:
    """The pointer, or None where the bucket has none. Raises ``StorageError`` where it is no pointer."""
    key = assets_prefix + POINTER_NAME
    try:
        data, info = store.read(key)
    except NotFoundError:
        return None
    try:
        content = orjson.loads(data)
        version, prefix = content["schema_version"], content["prefix"]
        previous = content.get("previous")
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise _broken(store, key, "it is not a pointer") from None
    if version != _VERSION:
        raise _broken(store, key, f"its schema_version is {version!r}, this ursa knows {_VERSION}; upgrade ursa")
    for name, path in (("prefix", prefix), ("previous", prefix if previous is None else previous)):
        if not isinstance(path, str) or not _RELATIVE.fullmatch(path):
            raise _broken(store, key, f"its {name} is not a relative path")
    return Pointer(
        prefix,
        str(content.get("activated_at")),
        str(content.get("activated_by")),
        previous,
        info.etag,
        content.get("back") is True,
    )


def write_pointer(
    store: Store, assets_prefix: str, prefix: str, *, by: str, replacing: Pointer | None, back: bool = False
) -> None:
    """Make ``prefix`` live. Raises ``PreconditionFailedError`` where the pointer is no longer ``replacing``."""
    data = orjson.dumps(
        {
            "schema_version": _VERSION,
            "prefix": prefix,
            "activated_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "activated_by": by,
            "previous": replacing.prefix if replacing else None,
            **({"back": True} if back else {}),
        },
        option=orjson.OPT_INDENT_2,
    )
    store.put(
        assets_prefix + POINTER_NAME,
        data,
        sha256=hashlib.sha256(data).hexdigest(),
        if_absent=replacing is None,
        if_match=replacing.etag if replacing else None,
    )


def no_pointer(store: Store, assets_prefix: str, profile: str) -> ConfigError:
    """The error for a bucket without a catalog."""
    return ConfigError(
        f"there is no catalog yet: {store.uri}/{assets_prefix}{POINTER_NAME} does not exist",
        hint=f"An admin makes it once, with `ursa catalog init --yes --profile {profile}`.",
        key="assets",
    )


def _broken(store: Store, key: str, why: str) -> StorageError:
    return StorageError(f"can't use {store.uri}/{key}: {why}", key=key, operation="read")
