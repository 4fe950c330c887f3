"""Whether the bucket still lists what recordings were made from, told by a short print of each one's listing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from ursa.beside import each
from ursa.store import ObjectInfo, Store

_DAY = len("rec_20260520_")


def listing_print(infos: Iterable[ObjectInfo]) -> str:
    """Changes with any object's key, size or ETag."""
    lines = sorted(f"{info.key}\0{info.size_bytes}\0{info.etag}" for info in infos)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def list_again(store: Store, raw_prefix: str, made: Mapping[str, str], stopped: Callable[[], object]) -> list[str]:
    """Those of ``made`` (rec_id → ``listing_print``) whose objects are others now, sorted; and those without a print.

    One LIST has room for the recordings of a day: far fewer requests than recordings.
    """
    found: dict[str, str] = {}
    for prints in each(partial(_listed, store, raw_prefix, stopped), sorted({name[:_DAY] for name in made})):
        found |= prints
    nothing = listing_print(())
    return sorted(name for name, known in made.items() if known != found.get(name, nothing))


def _listed(store: Store, raw_prefix: str, stopped: Callable[[], object], start: str) -> dict[str, str]:
    """rec_id → print, for those whose rec_id starts so."""
    stopped()
    objects: dict[str, list[ObjectInfo]] = {}
    for info in store.list(raw_prefix + start):
        objects.setdefault(info.key.removeprefix(raw_prefix).partition("/")[0], []).append(info)
    return {name: listing_print(infos) for name, infos in objects.items()}
