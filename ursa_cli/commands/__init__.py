"""The commands: one module each, named as it is typed, loaded when it is called."""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """A command's line in `ursa --help`, and what completion knows of it without loading its module.

    ``recordings``: its arguments are recordings of the catalog.
    """

    summary: str
    recordings: bool = False
    subcommands: tuple[str, ...] = ()


COMMANDS = {
    "ingest": Entry("Upload recordings, prove that they arrived, register them."),
    "batch": Entry("Ingest everything below a NAS or USB drive; for cron."),
    "ingest-r2": Entry("Register recordings whose bytes are in the bucket already."),
    "reconstruct": Entry("Make the manifest of recordings that have none."),
    "ls": Entry("List recordings in the catalog."),
    "show": Entry("Show one recording: times, nodes, modalities, files.", recordings=True),
    "download": Entry("Fetch a recording's files, verified.", recordings=True),
    "verify": Entry("Compare catalog, bucket and disk, file by file.", recordings=True),
    "gc-uploads": Entry("List or abort uploads that nobody completed."),
    "participants": Entry("List participants, or attach names from the bucket.", subcommands=("list", "backfill")),
    "catalog": Entry(
        "Make, look into, mend and rebuild the catalog.",
        subcommands=("init", "location", "history", "undo", "rebuild", "compact"),
    ),
    "cache": Entry("Show or clear this machine's copies of the catalog.", subcommands=("path", "clear")),
    "doctor": Entry("Probe config, credentials, buckets, clock and disks."),
    "schedule": Entry(
        "Print a cron, systemd or launchd unit for a nightly batch.", subcommands=("cron", "systemd", "launchd")
    ),
    "config": Entry("Write a commented config file, or show what is in force.", subcommands=("init", "show")),
}
