"""What a registration works with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

from ursa.bucket.proof import Proofs
from ursa.bucket.record import Entry
from ursa.catalog.catalog import Catalog
from ursa.disk.cache import FilesCache
from ursa.register.build import Registration
from ursa.register.commit import Registered
from ursa.store import Store
from ursa.store.counting import RequestCounter
from ursa.transfer.engine import Engine, Stop


@dataclass(frozen=True)
class Services:
    """Made by ``ursa.interface``. ``raw_prefix`` ends with '/'; ``rig_timezone`` is the zone of naive times;
    ``register`` commits a recording's rows, together with others that are ready at the same time, and ``upgrade`` what
    was measured of rows that are there, an ``Upgrade`` a recording; it does nothing where the catalog may not be written.
    ``files``: what this machine has read; ``proofs``: what it has measured of objects; ``hashes``: what a reconstruct of a
    rec_id has measured. ``admitted``: entered before the first write: both buckets are asked whether they take any, beside
    each other.
    """

    raw: Store
    raw_prefix: str
    rig_timezone: str | None
    catalog: Catalog
    register: Callable[[Registration], Registered]
    upgrade: Callable[..., None]
    files: FilesCache
    proofs: Proofs
    hashes: Callable[[str], Mapping[str, Entry]]
    admitted: Callable[[], AbstractContextManager[None]]
    reread_after_s: float
    engine: Engine
    counter: RequestCounter
    stop: Stop
