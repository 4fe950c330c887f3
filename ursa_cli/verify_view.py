"""How `verify` tells what it found: recording by recording, as it goes."""

from __future__ import annotations

import logging
import shlex
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ursa.errors import InterruptedRunError, UsageError
from ursa.policies import Level, Mark
from ursa_cli.ingest_view import refuse_roots
from ursa_cli.session import Session

if TYPE_CHECKING:
    from ursa import FileCheck, RecordingCheck

_EXIT_DIFFERENT = 6
_NAMES = {
    Mark.SAME: "same",
    Mark.MISSING: "missing",
    Mark.UNREGISTERED: "not in the catalog",
    Mark.DIFFERENT: "different",
    Mark.ERROR: "not checked",
}


def run(
    session: Session, refs: list[str], everything: bool, level: Level | None, subset: str | None, dask: str | None
) -> None:
    """Verify and print; raises ``typer.Exit(6)`` where something is wrong."""
    from ursa.cluster import executor

    if bool(refs) == everything:
        raise UsageError("name recordings, or say --all", hint="See `ursa verify --help`.")
    directories = _directories(refs)
    refuse_roots(list(map(Path, directories.values())), "`ursa verify {}/rec_*/` looks at each of them.")
    told = _Told(session, several=everything or len(refs) > 1, directories=directories)
    session.out.totals = told.counts
    data = session.data()
    try:
        with executor(dask) as workers:
            for check in data.verify_each(
                refs, everything=everything, level=level, subset=subset, executor=workers, on_file=told.file
            ):
                told.recording(check)
    except KeyboardInterrupt:
        raise InterruptedRunError(
            f"interrupted: {told.in_all()} until then; nothing was changed",
            hint="Run it again from the start; --subset 1/7 and so on looks at a part each time.",
        ) from None
    told.end()


def _directories(refs: list[str]) -> dict[str, str]:
    from ursa.verify import looks_like_directory

    return {Path(ref).absolute().name: ref for ref in refs if looks_like_directory(ref)}


@dataclass
class _Told:
    """What has been told so far; nothing of a recording is kept. ``directories``: those that were named, by rec_id."""

    session: Session
    several: bool
    directories: dict[str, str]
    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(
            ("recordings", "wrong", "not_checked", "seen", "files", "not_proven", "left_out"), 0
        )
    )
    _headed: str | None = None

    def file(self, rec_id: str, check: FileCheck) -> None:
        """A file's line."""
        if self.several and self._headed != rec_id:
            self._headed = rec_id
            self.session.out.line(rec_id)
        detail = f"  ({check.detail})" if check.detail else ""
        self.session.out.line(f"{check.mark} {check.evidence or '-':<7} {check.path}{detail}")
        if check.mark is not Mark.SAME:
            self.session.out.log(logging.WARNING, f"{rec_id}: {check.mark} {check.path}{detail}")

    def recording(self, check: RecordingCheck) -> None:
        """A recording's verdict, and what to do where it is bad."""
        right = "seen" if check.seen_only else "ok"
        status = "fail" if not check.ok else right if check.files else "none"
        if status == "none" and not check.left_out:
            status = "fail"  # a recording without a file: there is nothing that could be right
        mend = _mend(check, self.directories.get(check.rec_id)) if status == "fail" else None
        self.counts["recordings"] += 1
        self.counts["wrong"] += status == "fail"
        self.counts["not_checked"] += status == "none"
        self.counts["seen"] += status == "seen"
        self.counts["not_proven"] += check.not_proven
        self.counts["files"] += len(check.files)
        self.counts["left_out"] += check.left_out
        self.session.out.record(
            "recording",
            rec_id=check.rec_id,
            recording_hash=check.recording_hash,
            status=status,
            files=[_file(item) for item in check.files],
            level=str(check.level),
            not_proven=check.not_proven,
            left_out=check.left_out,
            hint=mend,
        )
        found = Counter(file.mark for file in check.files)
        words = ", ".join(f"{found[mark]} {name}" for mark, name in _NAMES.items() if found[mark])
        words += f"{'; ' if words else ''}{check.left_out} left out by --subset" if check.left_out else ""
        words += f", {check.not_proven} not proven" if check.not_proven else ""
        words += f"; {_seen(check)}" if status == "seen" else ""
        level = logging.ERROR if status == "fail" else logging.INFO
        label = {"ok": "OK  ", "seen": "SEEN", "fail": "FAIL", "none": "NONE"}[status]
        self.session.out.outcome(f"{label} {check.rec_id}: {words or 'no files to check'}", hint=mend, level=level)
        if mend:
            self.session.out.advice(mend)

    def in_all(self) -> str:
        """The counts, in words."""
        counts = self.counts
        right = counts["recordings"] - counts["wrong"] - counts["not_checked"]
        told = [f"{right} right", f"{counts['wrong']} wrong"]
        told += [f"{counts['not_checked']} not looked at"] if counts["not_checked"] else []
        told += [f"{counts['seen']} of them only seen"] if counts["seen"] else []
        left = f", {counts['not_proven']} not proven" if counts["not_proven"] else ""
        left += f", {counts['left_out']} left out by --subset" if counts["left_out"] else ""
        what = "1 recording" if counts["recordings"] == 1 else f"{counts['recordings']} recordings"
        return f"{what}: {', '.join(told)}; {counts['files']} files checked{left}"

    def end(self) -> None:
        """The summary. Raises ``typer.Exit``."""
        counts = self.counts
        code = _EXIT_DIFFERENT if counts["wrong"] else 0
        self.session.out.record("summary", **counts, exit_code=code)
        if self.several:
            self.session.out.outcome(self.in_all())
        if not counts["recordings"]:
            self.session.out.note(
                "Nothing was verified: this catalog has no recordings. Is it the right one? `ursa config show` and"
                " `ursa catalog location` say which it is."
            )
        elif not counts["files"] and not code:
            self.session.out.note("Nothing was checked: --subset left out every file.")
        if code:
            raise typer.Exit(code)


def _seen(check: RecordingCheck) -> str:
    """What a verdict lacks that is no proof."""
    if check.on_disk and check.level is not Level.FULL:
        return "no object was read back: before this disk is wiped, run it without --level"
    if check.left_out:
        return "before this disk is wiped, run it without --subset"
    return "by size only: `--level full` reads them"


def _file(check: FileCheck) -> dict[str, Any]:
    """A file's verdict as JSON."""
    return {name: getattr(check, name) for name in ("path", "mark", "size_bytes", "evidence", "detail")}


def _has_manifest(rec_dir: Path) -> bool:
    return (rec_dir / "manifest.json").exists() or any(rec_dir.glob("_node_manifests/*.json"))


def _mend(check: RecordingCheck, directory: str | None) -> str:
    """The next step where something is wrong."""
    from ursa.verify import UNREAD

    rec_dir = shlex.quote(directory) if directory else "REC_DIR"
    marks = {file.mark for file in check.files}
    if check.on_disk and check.recording_hash is None:
        if marks == {Mark.ERROR}:
            return "It could not be looked at, and is not registered as far as this tells."
        if directory and not _has_manifest(Path(directory)):
            return f"It is not registered, and has no manifest. `ursa reconstruct {rec_dir} --yes` makes one; ingest it then."
        return f"It is not registered. `ursa ingest {rec_dir}` uploads what is missing, and registers it."
    steps = []
    different = {file.detail for file in check.files if file.mark is Mark.DIFFERENT}
    if different == {UNREAD}:
        ref = rec_dir if directory else check.rec_id
        steps.append(
            f"`ursa verify {ref} --level full` reads what was uploaded again; until then nothing is known of it."
        )
    elif different:
        steps.append(
            "Find out which copy is right before anything is deleted. Where the disk is:"
            f" `ursa ingest {rec_dir} --overwrite --replace-objects`."
        )
    elif Mark.MISSING in marks:
        where = "" if directory else ", on a disk that has it,"
        steps.append(f"`ursa ingest {rec_dir} --overwrite`{where} uploads what the bucket lacks.")
    elif check.on_disk and Mark.UNREGISTERED in marks:
        steps.append(f"`ursa ingest {rec_dir}` registers what is not in the catalog.")
    if Mark.ERROR in marks:
        steps.append("What could not be checked is neither right nor wrong: run it again, or `ursa doctor`.")
    return " ".join(steps) or f"`ursa show {check.rec_id} --files` lists what is registered."
