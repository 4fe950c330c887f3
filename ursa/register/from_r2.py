"""Path B: the bytes are in the bucket; write only the rows, after proving that every file is there."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace

from ursa.beside import begin
from ursa.errors import MissingFilesError, UrsaError, named
from ursa.events import UploadCallback
from ursa.manifest import shown
from ursa.parallel import in_order
from ursa.register.build import Registration, registration
from ursa.register.commit import Registered, register_all
from ursa.register.committer import MOST_AT_ONCE
from ursa.register.from_r2_plan import BucketPlan, Planned, guarded, make_plan, plan_several
from ursa.register.progress import Progress
from ursa.register.results import IngestResult
from ursa.register.services import Services
from ursa.register.several import Outcome


def ingest_from_r2(
    services: Services,
    rec_id: str,
    participant: str | None,
    *,
    overwrite: bool,
    progress: Progress,
) -> IngestResult:
    """Path B for one recording. Raises what ``make_plan`` raises; then nothing is registered."""
    before = services.counter.snapshot()
    plan = make_plan(services, rec_id, participant, overwrite=overwrite, progress=progress)
    progress.phase("prove")
    ready_at = time.monotonic()
    begin(services.catalog.refresh_if_idle)
    look_again(services, plan)
    progress.phase("register")
    if services.stop.is_set():
        raise KeyboardInterrupt
    done = services.register(replace(wanted(services, plan), ready_at=ready_at))
    progress.done()
    return result(plan, done, services.counter.since(before), progress.seconds)


def ingest_several(
    services: Services,
    rec_ids: Sequence[str],
    participant: str | None,
    *,
    overwrite: bool,
    callback: UploadCallback | None,
) -> list[Outcome]:
    """Path B for several recordings: read side by side, registered in groups while the next are read. An outcome each, in
    order.
    """
    told = {rec_id: Progress(rec_id, callback) for rec_id in rec_ids}
    outcomes: dict[str, Outcome] = {}
    before = services.counter.snapshot()
    planned = plan_several(services, list(told), participant, overwrite=overwrite, told=told, together=MOST_AT_ONCE)
    with closing(planned) as groups:
        for plans in groups:
            done = _register(services, plans, told)
            requests = services.counter.since(before)
            before = services.counter.snapshot()
            outcomes |= {
                rec_id: _outcome(rec_id, plan, done[rec_id], requests, told[rec_id]) for rec_id, plan in plans.items()
            }
    return [outcomes[rec_id] for rec_id in rec_ids]


def _register(
    services: Services, plans: Mapping[str, Planned], told: Mapping[str, Progress]
) -> Mapping[str, Registered | UrsaError]:
    """Write the rows of what is still there: the last ones were read just now, the first ones perhaps an hour ago."""
    good = {rec_id: plan for rec_id, plan in plans.items() if isinstance(plan, BucketPlan)}
    failed = {rec_id: plan for rec_id, plan in plans.items() if isinstance(plan, UrsaError)}
    ready_at = time.monotonic()
    if good:
        begin(services.catalog.refresh_if_idle)
    changed = in_order(
        services.stop,
        lambda plan: guarded(plan.recording.rec_id, lambda: look_again(services, plan)),
        good.values(),
        services.engine.recordings_at_once,
    )
    failed |= {rec_id: error for rec_id, error in zip(good, changed, strict=True) if error is not None}
    there = {rec_id: plan for rec_id, plan in good.items() if rec_id not in failed}
    for rec_id in there:
        told[rec_id].phase("register")
    if services.stop.is_set():
        raise KeyboardInterrupt
    rows = [replace(wanted(services, plan), ready_at=ready_at) for plan in there.values()]
    return {**failed, **dict(zip(there, register_all(services.catalog, rows) if rows else (), strict=True))}


def _outcome(
    rec_id: str, plan: Planned, done: Registered | UrsaError, requests: Mapping[str, int], progress: Progress
) -> Outcome:
    if isinstance(done, UrsaError):
        return Outcome(None, rec_id, "fail", error=done)
    assert isinstance(plan, BucketPlan)
    progress.done()
    return Outcome(None, rec_id, "ok", result=result(plan, done, requests, progress.seconds))


def look_again(services: Services, plan: BucketPlan) -> None:
    """Before the rows: list once more, and find every object as it was read.

    Raises:
        MissingFilesError: some are gone or were replaced meanwhile. All of them are named.
    """
    recording = plan.recording
    prefix = f"{services.raw_prefix}{recording.rec_id}/"
    now = {info.key: (info.size_bytes, info.etag) for info in services.raw.list(prefix)}
    changed = [
        item.path for item in recording.objects if now.get(item.info.key) != (item.info.size_bytes, item.info.etag)
    ]
    if changed:
        raise MissingFilesError(
            f"{recording.rec_id}: gone or replaced while the recording was read: {named([shown(p) for p in changed])}",
            hint="Nothing was registered. Somebody deletes or replaces objects there: find out who, then run this again.",
            paths=tuple(changed),
        )


def wanted(services: Services, plan: BucketPlan) -> Registration:
    """The rows of a plan."""
    return registration(
        plan.contents,
        recording_hash=plan.recording_hash,
        overwrite=plan.overwrite,
        by=services.catalog.home.author.by,
    )


def result(plan: BucketPlan, done: Registered, requests: Mapping[str, int], seconds: float) -> IngestResult:
    """What Path B did: nothing was uploaded, everything that is there counts as skipped."""
    return IngestResult(
        recording=done.row,
        files_uploaded=0,
        files_skipped=len(plan.recording.objects),
        bytes_uploaded=0,
        action=done.action,
        bytes_skipped=plan.bytes,
        unlisted=len(plan.recording.unlisted),
        junk=len(plan.recording.junk),
        requests=requests,
        seconds=seconds,
        evidence=dict(Counter(str(row.evidence) for row in plan.rows)),
        unlisted_files=plan.recording.unlisted,
        warnings=plan.recording.warnings,
    )
