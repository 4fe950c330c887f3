"""What is on this machine before anything connects: versions, the config file, the time zone, the disks."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import stat
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from pathlib import Path

import platformdirs

from ursa.config import Profile, default_config_path
from ursa.doctor.patient import Patient
from ursa.doctor.results import Finding, fail, ok, skip, warn
from ursa.errors import ConfigError

GIB = 1 << 30
LEAST_BYTES = 5 * GIB
LEAST_SHARE = 0.05
_PACKAGES = ("deltalake", "boto3", "truststore", "pydantic")


def version() -> Finding:
    """ursa, Python and what matters below it."""
    told = ", ".join(f"{name} {_version(name)}" for name in _PACKAGES)
    return ok(f"ursa {_version('ursa')}, Python {platform.python_version()} on {platform.system()}; {told}")


def config(patient: Patient | None, problem: ConfigError | None, given: Path | str | None) -> Finding:
    """Which file is in force, whether the profile is whole, and whether others may write the file."""
    if problem is not None or patient is None:
        raise problem or ConfigError("no profile was opened")
    profile = patient.profile
    if profile.source is None:
        there = given or default_config_path()
        return ok(f"no file ({there} isn't there); the built-in profile {profile.name}: {_target(profile)}")
    told = f"{profile.source}: profile {profile.name}: {_target(profile)}"
    if profile.source.stat().st_mode & stat.S_IWOTH:
        mend = f"chmod o-w {profile.source}"
        return warn(f"{told}; anybody on this machine may write the file, and send recordings elsewhere", mend)
    return ok(told)


def timezone(profile: Profile) -> Finding:
    """The zone of times whose manifest states none."""
    if profile.rig_timezone:
        return ok(f"rig_timezone {profile.rig_timezone}, for times in manifests that state no zone")
    mend = f"Add rig_timezone: Europe/Berlin (or yours) under profiles.{profile.name} in the config file."
    return warn("rig_timezone isn't set: a manifest's times without a zone are read as UTC, and flagged", mend)


def disk(profile: Profile | None) -> Finding:
    """Free space, and whether we may write, where ursa keeps things on this machine."""
    found = [_existing(path) for path in _kept_in(profile)]
    if not found:
        return skip("no home directory is known", "Set HOME in the job's environment.")
    places = {place.stat().st_dev: place for place in found}
    locked = [place for place in found if not os.access(place, os.W_OK | os.X_OK)]
    told = "; ".join(_space(place) for place in places.values())
    if locked:
        return fail(f"{told}; {locked[0]} can't be written by this user", f"`ls -ld {locked[0]}`, and `id`")
    if any(is_low(*_usage(place)) for place in places.values()):
        return warn(f"{told}: under 5 GiB or 5 %", "Free some space: downloads and a local store stop when it is full.")
    return ok(told)


def is_low(free_bytes: int, total_bytes: int) -> bool:
    """Whether a disk is nearly full."""
    return free_bytes < LEAST_BYTES or free_bytes < LEAST_SHARE * total_bytes


def _kept_in(profile: Profile | None) -> list[Path]:
    """The user's cache and state directories, and a local profile's root; there or not."""
    paths = [profile.root] if profile and profile.root else []
    with contextlib.suppress(RuntimeError):  # no home directory: a container's cron
        paths += [platformdirs.user_cache_path("ursa"), platformdirs.user_state_path("ursa")]
    return [path for path in paths if path.is_absolute()]


def _usage(place: Path) -> tuple[int, int]:
    usage = shutil.disk_usage(place)
    return usage.free, usage.total


def _space(place: Path) -> str:
    free, total = _usage(place)
    return f"{place}: {free / GIB:,.1f} GiB free of {total / GIB:,.1f}"


def _existing(path: Path) -> Path:
    """The path, or the nearest directory above it that is there."""
    return next(place for place in (path, *path.absolute().parents) if place.exists())


def _target(profile: Profile) -> str:
    raw, assets = profile.raw, profile.assets
    buckets = f"{raw.bucket}/{raw.prefix} and {assets.bucket}/{assets.prefix}"
    return f"{profile.endpoint_url or profile.root}, {buckets}"


def _version(package: str) -> str:
    try:
        return version_of(package)
    except PackageNotFoundError:
        return "(not found)"
