"""Which probes there are, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NoReturn

from ursa.config import ROLES, Config, Profile, Role
from ursa.doctor import catalog, house, mounts, provider, recordings, roles, server
from ursa.doctor.patient import Patient
from ursa.doctor.results import Finding, ProbeResult
from ursa.doctor.runner import Probe, run_all
from ursa.errors import ConfigError

_SERVER = ("server",)
_OP_S = 75.0  # `op read` waits a minute for a fingerprint


def diagnose(
    profile: str = "r2",
    config_path: Path | str | None = None,
    *,
    config: Config | None = None,
    paths: Iterable[Path | str] = (),
    on_probe: Callable[[ProbeResult], object] | None = None,
) -> list[ProbeResult]:
    """Probe everything that an ingest with this profile needs, and ``paths`` (NAS roots, recording directories).

    Never raises for what it finds, a broken config included; ends within two minutes. The writing roles write a small
    object of their own beside the recordings and delete it: this needs no ``enable_writes``.

    Args:
        config_path, config: as of ``DataInterface``.
        on_probe: called in this thread with each result, in the same order every time, as soon as those before it are
            known: what does not depend on each other is probed side by side.
    """
    patient: Patient | None = None
    problem: ConfigError | None = None
    try:
        patient = Patient(profile, config_path, config=config)
    except ConfigError as error:
        problem = error
    probes = [
        Probe("version", house.version),
        Probe("config", partial(house.config, patient, problem, config_path)),
        *(_of_profile(patient) if patient else _unasked()),
        Probe("disk", partial(house.disk, patient.profile if patient else None)),
        *_of_paths([Path(path) for path in paths], patient.profile if patient else None),
    ]
    try:
        return run_all(probes, on_probe or _nobody, patient.hide if patient else str)
    finally:
        if patient:
            patient.close()


def _nobody(_result: ProbeResult) -> None:
    return None


def _unasked() -> list[Probe]:
    """What can't be asked without a profile, by name."""
    names = [
        "timezone",
        "provider",
        "certificates",
        "server",
        "clock",
        *(f"role {role}" for role in ROLES),
        "catalog",
        "uploads",
    ]
    return [Probe(name, _never, needs=("config",)) for name in names]


def _never() -> NoReturn:
    raise AssertionError("the config probe has failed")


def _of_profile(patient: Patient) -> list[Probe]:
    local = patient.profile.kind == "local"
    outside = [
        Probe("provider", partial(provider.provider, patient), limit_s=_OP_S),
        Probe("certificates", partial(server.certificates, patient)),
        Probe("server", partial(server.reachable, patient), needs=("certificates",)),
        Probe("clock", partial(server.clock, patient), needs=_SERVER),
    ]
    needs = () if local else ("provider", "server")
    return [
        Probe("timezone", partial(house.timezone, patient.profile)),
        *([] if local else outside),
        *(_of_role(patient, role, needs) for role in ROLES),
        Probe("catalog", partial(catalog.catalog, patient), needs=("role assets_ro",), limit_s=60),
        Probe("uploads", partial(catalog.uploads, patient), needs=("role raw_ro",)),
    ]


def _of_role(patient: Patient, role: Role, needs: tuple[str, ...]) -> Probe:
    trace = roles.Trace()
    run: Callable[[], Finding] = partial(roles.role, patient, role, trace)
    return Probe(f"role {role}", run, needs=needs, limit_s=_OP_S, left=trace.words, after=_roles_before(patient, role))


def _roles_before(patient: Patient, role: Role) -> tuple[str, ...]:
    """Whoever lists a bucket must not see what another role's probe writes there; in a directory, nor its removal."""
    disturbing = ROLES[: ROLES.index(role)] if patient.is_local else (role.replace("_rw", "_ro"),)
    return tuple(f"role {other}" for other in disturbing if other != role)


def _of_paths(paths: list[Path], profile: Profile | None) -> list[Probe]:
    """One path after another, and one probe of it: two that read from one NAS would measure each other."""
    probes: list[Probe] = []
    for path in paths:
        for probe in _of_path(path, profile):
            probes.append(replace(probe, after=tuple(before.name for before in probes[-1:])))
    return probes


def _of_path(path: Path, profile: Profile | None) -> list[Probe]:
    mount = f"mount {path}"
    settings = (profile.raw.prefix, profile.rig_timezone) if profile else ("recordings/", None)
    return [
        Probe(mount, partial(mounts.mount, path), limit_s=20),
        Probe(f"read {path}", partial(mounts.read_speed, path), needs=(mount,)),
        Probe(f"recordings {path}", partial(recordings.recordings, path, *settings), needs=(mount,), limit_s=45),
    ]
