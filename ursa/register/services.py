"""What a registration works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ursa.catalog.catalog import Catalog
from ursa.register.build import Registration
from ursa.register.commit import Registered
from ursa.store import Store
from ursa.store.counting import RequestCounter
from ursa.transfer.engine import Engine, Stop


@dataclass(frozen=True)
class Services:
    """Made by ``ursa.interface``. ``raw_prefix`` ends with '/'; ``rig_timezone`` is the zone of naive times;
    ``register`` commits a recording's rows, together with others that are ready at the same time.
    """

    raw: Store
    raw_prefix: str
    rig_timezone: str | None
    catalog: Catalog
    register: Callable[[Registration], Registered]
    engine: Engine
    counter: RequestCounter
    stop: Stop
