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
    "ls": Entry("List recordings in the catalog."),
    "show": Entry("Show one recording: times, nodes, modalities, files.", recordings=True),
    "download": Entry("Fetch a recording's files, verified.", recordings=True),
    "verify": Entry("Compare catalog, bucket and disk, file by file.", recordings=True),
    "gc-uploads": Entry("List or abort uploads that nobody completed."),
    "catalog": Entry("Make the catalog, or say where its tables are.", subcommands=("init", "location")),
    "config": Entry("Write a commented config file, or show what is in force.", subcommands=("init", "show")),
}
