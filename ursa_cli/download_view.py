"""How `download` tells what it fetched."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from ursa_cli.render import size
from ursa_cli.session import Session

if TYPE_CHECKING:
    from ursa import DownloadResult

_EXIT_DIFFERENT = 6


def finish(session: Session, result: DownloadResult) -> None:
    """Print the result; raises ``typer.Exit(6)`` where files are not what their manifest states."""
    out = session.out
    code = _EXIT_DIFFERENT if result.not_as_stated else 0
    counts = {
        "files_downloaded": result.files_downloaded,
        "files_skipped": result.files_skipped,
        "bytes_downloaded": result.bytes_downloaded,
    }
    out.record("download", dest=result.dest.absolute(), **counts, paths=[path.absolute() for path in result.paths])
    for file in result.not_as_stated:
        out.outcome(
            f"FAIL {file.rec_id}/{file.path}: not as its manifest states: sha256 {file.sha256}, stated {file.stated}",
            level=logging.ERROR,
        )
    out.record(
        "summary",
        **counts,
        files_not_compared=result.files_not_compared,
        not_as_stated=[asdict(file) for file in result.not_as_stated],
        exit_code=code,
    )
    fetched = f"{result.files_downloaded} fetched ({size(result.bytes_downloaded)}), {result.files_skipped} were there"
    out.line(f"{'FAIL' if code else 'OK  '} {fetched}, {_verified(result)}, below {result.dest}")
    if code:
        out.advice(
            "They are here as they are in the bucket: whether that is what their manifest states had never been compared."
        )
        raise typer.Exit(code)


def _verified(result: DownloadResult) -> str:
    """What is known of the bytes, in words."""
    if result.not_as_stated:
        return f"{len(result.not_as_stated)} not as stated"
    if result.files_not_compared:
        return f"{result.files_not_compared} by size only, as no sha256 is stated"
    return "all verified"
