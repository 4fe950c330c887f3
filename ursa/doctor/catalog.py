"""The catalog: its pointer, its tables, how many files they have; and uploads that nobody completed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from ursa.beside import each
from ursa.catalog._pointer import no_pointer, read_pointer
from ursa.catalog.arrow import TableKind
from ursa.catalog.home import KINDS, CatalogHome
from ursa.catalog.tables import CatalogTable
from ursa.doctor.patient import Patient
from ursa.doctor.results import Finding, ok, warn
from ursa.doctor.roles import PROBE_DIR

MANY_FILES = 100
"""Data files of one table. A writer compacts every 20 commits, so more mean that nobody's compaction gets through."""

OLD_UPLOAD = timedelta(days=3)


@dataclass(frozen=True, slots=True)
class _Table:
    name: str
    version: int
    rows: int
    files: int
    frozen: str | None


def catalog(patient: Patient) -> Finding:
    """Read the pointer, open the three tables, count. Nothing is made."""
    home = patient.home
    pointer = read_pointer(home.store, home.assets_prefix)
    if pointer is None:
        if patient.is_local:
            return ok("none yet; made on first use")
        raise no_pointer(home.store, home.assets_prefix, patient.profile.name)
    tables = each(lambda kind: _open(home, kind, pointer.prefix), KINDS)
    return judge_clean_up(judge(tables, pointer.prefix, patient.profile.name), patient.clean_up_refused)


def judge(tables: list[_Table], prefix: str, profile: str) -> Finding:
    """What the tables' numbers mean."""
    numbers = "; ".join(f"{t.rows:,} {t.name} (version {t.version}, {t.files:,} files)" for t in tables)
    told = f"{prefix}: {numbers}"
    frozen = next((table.frozen for table in tables if table.frozen), None)
    if frozen:
        mend = (
            f"`ursa catalog rebuild --profile {profile}` goes on with it; `ursa catalog rebuild --abort` gives it up."
        )
        return warn(f"{told}; frozen by a rebuild that has not finished ({frozen}): nothing can be registered", mend)
    if any(table.files > MANY_FILES for table in tables):
        return warn(f"{told}: many small files make every query slow", f"`ursa catalog compact --profile {profile}`")
    return ok(told)


def judge_clean_up(finding: Finding, refused: tuple[datetime, str] | None) -> Finding:
    """What was found of the catalog, with since when clean-up has been refused."""
    if refused is None:
        return finding
    since, why = refused
    mend = (
        finding.mend or "Set the clock (see `clock`); then `ursa catalog compact` deletes what is past the retention."
    )
    return warn(f"{finding.detail}; clean-up has been refused since {since:%Y-%m-%d}: {why}", mend)


def uploads(patient: Patient) -> Finding:
    """Multipart uploads of the raw bucket that were begun long ago."""
    limit = datetime.now(UTC) - OLD_UPLOAD
    found = list(patient.store("raw_ro").list_uploads(patient.profile.raw.prefix))
    old = sorted((item for item in found if item.initiated_at and item.initiated_at <= limit), key=lambda x: x.key)
    days = OLD_UPLOAD.days
    if old:
        mend = f"`ursa gc-uploads --older-than {days}d --profile {patient.profile.name}`, unless somebody will re-run them."
        return warn(f"{len(old)} begun over {days} days ago and not completed, such as {old[0].key}", mend)
    # The doctor's own upload is of this very minute.
    begun = [item for item in found if not item.key.startswith(patient.profile.raw.prefix + PROBE_DIR)]
    return ok(f"none older than {days} days" + (f"; {len(begun)} in progress" if begun else ""))


def _open(home: CatalogHome, kind: TableKind[Any], prefix: str) -> _Table:
    table = CatalogTable(kind, home.table_uri(prefix, kind.name), home.replica(prefix, kind.name), home.author)
    table.refresh()
    files = table.files()
    return _Table(kind.name, table.version, sum(file.rows for file in files), len(files), table.frozen)
