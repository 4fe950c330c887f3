"""A recording directory on disk: what is in it, its participant, its manifests. Nothing here touches a network."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import stat
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from ursa.disk.sighting import Sighting
from ursa.errors import InvalidRecordingError, ManifestError, ManifestNotFoundError, UsageError
from ursa.manifest.merge import merge_manifests
from ursa.manifest.models import FileEntry, Manifest, identity_clash
from ursa.manifest.names import (
    JUNK_DIRS,
    UNKNOWN_PARTICIPANT,
    check_rec_id,
    has_control,
    is_junk,
    is_unfinished_itself,
    is_unicode,
    is_worker_dir,
    looks_temporary,
    matches,
    shown,
    split_worker_dir,
)
from ursa.manifest.reader import MAX_MANIFEST_BYTES, check_identity, parse_manifest
from ursa.names import disk_name, nfc, on_disk

MANIFEST_NAME = "manifest.json"
NODE_MANIFESTS_DIR = "_node_manifests"
PARTICIPANT_NAME = "participant.txt"

MAX_KEY_BYTES = 1024
"""UTF-8 bytes of an object key; the limit of S3 and R2."""

MAX_PARTICIPANT_CHARS = 200

MAX_PARTICIPANT_BYTES = 64 * 1024

_NAMED_OFFENDERS = 20
_MAX_LINKS = 8  # directory links inside of linked directories; more is a maze, not a recording

FileKind = Literal["raw", "auxiliary", "manifest", "participant"]
ScanDir = Callable[[str], AbstractContextManager[Iterable["os.DirEntry[str]"]]]


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file of a recording.

    ``path``: NFC, '/'-separated, relative to the recording. ``source``: as it is called on disk. ``worker``: the worker
    directory that a raw file belongs to, "" for any other kind. ``sighting``: which file this is.
    """

    path: str
    source: Path
    size_bytes: int
    mtime_ns: int
    kind: FileKind
    worker: str
    sighting: Sighting | None = None


@dataclass(frozen=True)
class RecordingDir:
    """What a scan found: files sorted by path, junk (never uploaded, counted), and warnings in words."""

    rec_id: str
    root: Path
    files: tuple[LocalFile, ...]
    junk: tuple[str, ...]
    warnings: tuple[str, ...]

    @cached_property
    def raw(self) -> tuple[LocalFile, ...]:
        """The raw data files, which are what recording_hash is about."""
        return tuple(file for file in self.files if file.kind == "raw")

    @cached_property
    def by_path(self) -> Mapping[str, LocalFile]:
        """Files by their NFC path."""
        return {file.path: file for file in self.files}


@dataclass(frozen=True, slots=True)
class ManifestSource:
    """A manifest as a file. ``path`` is its key below the recording's prefix, ``data`` the bytes that the rig wrote.
    ``left_aside``: nobody can read it, ``manifest`` is empty.
    """

    path: str
    source: Path
    data: bytes
    manifest: Manifest
    left_aside: bool = False


@dataclass(frozen=True, slots=True)
class LoadedManifest:
    """The manifest that counts, and the files it came from (sorted by path), which upload as they are.

    ``warnings``: in words, node manifests that can't be read beside a ``manifest.json`` that can.
    """

    manifest: Manifest
    sources: tuple[ManifestSource, ...]
    warnings: tuple[str, ...] = ()


def scan_recording(
    root: Path,
    *,
    manifest: Manifest | None = None,
    key_prefix: str = "recordings/",
    not_unfinished: Collection[str] = (),
    registered: Collection[str] = (),
    scandir: ScanDir = os.scandir,
) -> RecordingDir:
    """Everything in a recording directory, with one stat a file.

    Args:
        root: the directory; its own name is the rec_id, also when it is a symlink.
        manifest: what the rig lists; a listed file is never junk and never unfinished.
        key_prefix: what object keys start with, for the check of their length.
        not_unfinished: globs of files that are data although they are called as unfinished copies are; on the path in
            the recording, and on the bare name.
        registered: paths that are never taken for unfinished copies.
        scandir: lists a directory, as ``os.scandir``.

    Raises:
        InvalidRecordingError: there is no such directory, or something in it can't be uploaded as it is. All of it is
            found first: ``paths`` has every offender, the message names the first twenty.
    """
    rec_id = _check_root(root)
    scan = _Scan(root, f"{key_prefix}{rec_id}/", manifest, scandir, not_unfinished, frozenset(registered))
    scan.walk()
    scan.check_workers()
    scan.raise_offenders(rec_id)
    files = tuple(scan.files[path] for path in sorted(scan.files))
    warnings = (*_case_warnings(files), *_temporary_warnings(scan.temporary))
    return RecordingDir(rec_id, root, files, tuple(sorted(scan.junk)), warnings)


def read_participant(root: Path) -> str | None:
    """The name in the recording's participant.txt; None when there is no such file or it is empty.

    Raises:
        InvalidRecordingError: it can't be read, or is not one short line of UTF-8.
    """
    path = root / PARTICIPANT_NAME
    data = _read_file(path, MAX_PARTICIPANT_BYTES)
    if data is None:
        return None
    if len(data) > MAX_PARTICIPANT_BYTES:
        raise _bad_participant(str(path), f"it has more than {MAX_PARTICIPANT_CHARS} characters")
    return parse_participant(data, source=str(path))


def parse_participant(data: bytes, *, source: str) -> str | None:
    """The name in the bytes of a participant.txt, without a BOM and surrounding whitespace; None for an empty one.

    ``__unknown__``, which stands for nobody in a reconstructed manifest, is None too.

    Raises:
        InvalidRecordingError: not UTF-8, several lines, over 200 characters, or control characters; names ``source``.
    """
    try:
        name = data.decode().removeprefix("\ufeff").strip()
    except UnicodeDecodeError:
        raise _bad_participant(source, "it is not UTF-8 text") from None
    if len(name.splitlines()) > 1:
        raise _bad_participant(source, "it has more than one line")
    if len(name) > MAX_PARTICIPANT_CHARS:
        raise _bad_participant(source, f"it has {len(name):,} characters, more than {MAX_PARTICIPANT_CHARS}")
    # A tab is white space, which names that are the same may differ in.
    if has_control(name.replace("\t", " ")):
        raise _bad_participant(source, f"it has control characters: {shown(name, 80)}")
    return None if name in ("", UNKNOWN_PARTICIPANT) else name


def clean_participant(name: str | None) -> str | None:
    """A name that a caller passes: as given, but for whitespace; None and the empty name are unknown.

    Raises:
        InvalidRecordingError: as ``parse_participant``. UsageError: it is no text.
    """
    if name is not None and not isinstance(name, str):
        raise UsageError(f"participant is {name!r:.80}; it is a display name, or None")
    return parse_participant(name.encode("utf-8", "surrogatepass"), source="participant") if name else None


def load_manifest(root: Path, manifest_path: Path | None = None, *, rig_timezone: str | None = None) -> LoadedManifest:
    """The manifest of a recording directory, and every manifest file that belongs to it.

    ``manifest.json`` wins when it lists files, and the node manifests beside it are read along. When it is absent or a
    placeholder, ``_node_manifests/*.json`` are merged. A node manifest given as ``manifest_path`` counts alone.

    Args:
        root: the recording directory.
        manifest_path: ``manifest.json`` or a node manifest, in ``root`` or elsewhere; None is ``root/manifest.json``.
        rig_timezone: the zone of naive times where a manifest names none, for merging.

    Raises:
        ManifestNotFoundError: there is none, or only placeholders.
        ManifestError: one can't be read, belongs to another recording, or contradicts another.
        InvalidRecordingError: no such directory, an unreadable file, or a ``manifest_path`` that is out of place.
    """
    rec_id = _check_root(root)
    path = root / MANIFEST_NAME if manifest_path is None else manifest_path
    key = _manifest_key(root, path)
    if key != MANIFEST_NAME:
        return _load_node(root, path, key, rec_id, rig_timezone)
    aggregate = _load_source(path, key, rec_id)
    if aggregate is None and (root / MANIFEST_NAME).exists():
        raise _no_such_manifest(rec_id, path)
    wins = aggregate is not None and not aggregate.manifest.is_placeholder
    warnings: list[str] = []
    nodes = _node_sources(root, rec_id, warnings if wins else None)
    sources = (*nodes, aggregate) if aggregate else nodes
    merged = effective_manifest(
        aggregate.manifest if aggregate else None,
        {node.path: node.manifest for node in nodes},
        rig_timezone=rig_timezone,
    )
    if merged is None:
        stub = f"{MANIFEST_NAME} is a placeholder without files" if aggregate else f"there is no {MANIFEST_NAME}"
        raise _no_manifest(root, rec_id, f"{stub} and no node manifest that lists files")
    return LoadedManifest(merged, sources, tuple(warnings))


def effective_manifest(
    aggregate: Manifest | None, nodes: Mapping[str, Manifest], *, rig_timezone: str | None = None
) -> Manifest | None:
    """The manifest that counts, of ``manifest.json`` (None where there is none) and node manifests by their path.

    ``manifest.json`` wins where it lists files; else the node manifests are merged. None where nobody lists a file.

    Raises:
        ManifestError: node manifests contradict each other.
    """
    if aggregate and not aggregate.is_placeholder:
        return _with_nodes(aggregate, nodes)
    if all(manifest.is_placeholder for manifest in nodes.values()):
        return None
    return merge_manifests(nodes, rig_timezone=rig_timezone)


def _load_node(root: Path, path: Path, key: str, rec_id: str, rig_timezone: str | None) -> LoadedManifest:
    """One node manifest, alone; merging it with nothing fills in the nodes."""
    source = _load_source(path, key, rec_id)
    if source is None:
        raise _no_such_manifest(rec_id, path)
    if source.manifest.is_placeholder:
        raise _no_manifest(root, rec_id, f"{shown(str(path), 400)} is a placeholder without files")
    return LoadedManifest(merge_manifests({key: source.manifest}, rig_timezone=rig_timezone), (source,))


def os_error_in_words(exc: OSError) -> str:
    """Why the operating system refused, in words that say what to do about it."""
    words = {
        errno.EACCES: "permission denied",
        errno.EPERM: "permission denied",
        errno.EIO: "the disk or the NAS failed to read it (input/output error)",
        errno.ESTALE: "the NAS has lost track of it (stale file handle): mount the share again",
        errno.ENOENT: "it vanished while it was looked at",
        errno.ELOOP: "a symlink that loops",
    }
    return words.get(exc.errno or 0) or shown(exc.strerror or type(exc).__name__)


@dataclass(frozen=True, slots=True)
class _Dir:
    """A directory to scan. ``rel`` as on disk, ``path`` in NFC (both with a trailing '/', "" for the root), ``real``
    without symlinks, ``trail`` the real directories in which a symlink was followed on the way here. ``unfinished``: it
    is a copy in progress, or lies in one."""

    disk: str
    rel: str
    path: str
    real: str
    trail: tuple[str, ...] = ()
    unfinished: bool = False


@dataclass(slots=True)
class _Scan:
    """One walk. Offenders are gathered, not raised, so that a person sees all of them at once."""

    root: Path
    key_prefix: str
    manifest: Manifest | None
    scandir: ScanDir
    not_unfinished: Collection[str] = ()
    registered: Collection[str] = ()
    files: dict[str, LocalFile] = field(default_factory=dict)
    junk: list[str] = field(default_factory=list)
    temporary: list[str] = field(default_factory=list)
    offenders: list[tuple[str, str]] = field(default_factory=list)
    listed: Mapping[str, FileEntry] = field(default_factory=dict)
    listed_junk: tuple[str, ...] | None = None
    here: Sequence[os.DirEntry[str]] = ()
    names: frozenset[str] | None = None
    real_root: str = ""

    def walk(self) -> None:
        self.listed = self.manifest.files_by_path if self.manifest else {}
        self.real_root = os.path.realpath(self.root)
        todo = [_Dir(str(self.root), "", "", self.real_root)]
        while todo:
            todo.extend(self._scan_dir(todo.pop()))

    def check_workers(self) -> None:
        """Two directories that are the same (modality, worker_id) would be one row of the catalog."""
        names = dict.fromkeys(file.worker for file in self.files.values() if file.kind == "raw")
        clash = identity_clash((name, self._identity(name)) for name in names)
        if clash:
            self._refuse(clash[1], f"the same modality and worker_id as {shown(clash[0])}")

    def raise_offenders(self, rec_id: str) -> None:
        if not self.offenders:
            return
        offenders = sorted(self.offenders)
        named = "; ".join(f"{shown(path)}: {why}" for path, why in offenders[:_NAMED_OFFENDERS])
        more = len(offenders) - _NAMED_OFFENDERS
        things = "1 thing" if len(offenders) == 1 else f"{len(offenders):,} things"
        raise InvalidRecordingError(
            f"{rec_id}: {things} can't be taken: {named}{f'; and {more:,} more' if more > 0 else ''}",
            hint=f"Mend them or move them out of {shown(str(self.root))}, then run the same command again",
            path=shown(offenders[0][0], MAX_KEY_BYTES),
            paths=tuple(shown(path, MAX_KEY_BYTES) for path, _ in offenders),
        )

    def _identity(self, worker: str) -> tuple[str, str]:
        if self.manifest is None:
            return split_worker_dir(worker)
        identity = self.manifest.worker_identity(worker)
        return identity.modality, identity.worker_id

    def _refuse(self, path: str, why: str) -> None:
        self.offenders.append((path, why))

    def _scan_dir(self, parent: _Dir) -> list[_Dir]:
        """Take the files of one directory; the directories in it are returned."""
        try:
            with self.scandir(parent.disk) as entries:
                found = list(entries)
        except OSError as exc:
            self._refuse(parent.rel or ".", os_error_in_words(exc))
            return []
        self.here, self.names = found, None
        below = []
        for entry in found:
            try:
                directory = self._take(entry, parent)
            except OSError as exc:
                self._refuse(parent.rel + disk_name(entry.name), os_error_in_words(exc))
                continue
            if directory:
                below.append(directory)
        return below

    def _take(self, entry: os.DirEntry[str], parent: _Dir) -> _Dir | None:
        """Sort one entry: junk, an offender, a file (kept), or a directory (returned)."""
        name = disk_name(entry.name)
        rel, path = parent.rel + name, parent.path + nfc(name)
        if self._is_junk(entry, path):
            return None
        fault = _name_fault(name)
        if fault:
            self._refuse(rel, fault)
            return None
        if entry.is_symlink():
            return self._follow(entry, parent, rel, path)
        if entry.is_dir(follow_symlinks=False):
            return self._dir(entry, parent, rel, path, f"{parent.real}/{entry.name}", parent.trail)
        self._keep(entry.path, parent, rel, path, entry.stat(follow_symlinks=False), f"{parent.real}/{entry.name}")
        return None

    def _dir(
        self, entry: os.DirEntry[str], parent: _Dir, rel: str, path: str, real: str, trail: tuple[str, ...]
    ) -> _Dir:
        unfinished = parent.unfinished or self._is_unfinished(f"{path}/", parent)
        return _Dir(entry.path, f"{rel}/", f"{path}/", real, trail, unfinished)

    def _is_unfinished(self, path: str, parent: _Dir) -> bool:
        """Of the last name of the path alone; ``parent`` is where it lies."""

        def beside(other: str) -> bool:
            if self.names is None:  # few directories have a name that asks
                self.names = frozenset(map(_name_beside, self.here))
            return other in self.listed or other[len(parent.path) :] in self.names

        return is_unfinished_itself(path, beside, self.not_unfinished)

    def _is_junk(self, entry: os.DirEntry[str], path: str) -> bool:
        """Count an entry as junk, files in a junk directory one by one, unless the manifest lists it or one in it."""
        if not is_junk(path) or path in self.listed:
            return False
        if not entry.is_dir(follow_symlinks=False):
            self.junk.append(path)
            return True
        if JUNK_DIRS.isdisjoint(path.split("/")):
            return False  # a directory called ._something is not what ._* means
        if self.listed_junk is None:
            self.listed_junk = tuple(listed for listed in self.listed if is_junk(listed))
        if any(listed.startswith(f"{path}/") for listed in self.listed_junk):
            return False
        self.junk.extend(_files_below(entry.path, path))
        return True

    def _follow(self, entry: os.DirEntry[str], parent: _Dir, rel: str, path: str) -> _Dir | None:
        try:
            target = os.path.realpath(entry.path, strict=True)
        except (FileNotFoundError, NotADirectoryError):
            self._refuse(rel, "a symlink to nothing")
            return None
        if target != self.real_root and not target.startswith(self.real_root.rstrip("/") + "/"):
            self._refuse(rel, "a symlink that leaves the recording directory")
            return None
        status = Path(target).stat()
        if not stat.S_ISDIR(status.st_mode):
            self._keep(entry.path, parent, rel, path, status, target)
            return None
        trail = (*parent.trail, parent.real)
        if len(trail) > _MAX_LINKS or any(f"{above}/".startswith(f"{target}/") for above in trail):
            self._refuse(rel, "a symlink that loops")
            return None
        return self._dir(entry, parent, rel, path, target, trail)

    def _keep(self, disk: str, parent: _Dir, rel: str, path: str, status: os.stat_result, real: str) -> None:
        fault = self._file_fault(disk, parent, path, status)
        if fault:
            self._refuse(rel, fault)
            return
        kind, worker = self._kind(path)
        beneath = real.removeprefix(self.real_root.rstrip("/") + "/")
        sighting = Sighting(self.root, beneath, status.st_dev, status.st_ino, status.st_ctime_ns)
        file = LocalFile(path, Path(disk), status.st_size, status.st_mtime_ns, kind, worker, sighting)
        other = self.files.setdefault(path, file)
        if other is not file:
            other_name = _escaped_unicode(disk_name(other.source.name))
            self._refuse(rel, f"the same name as {shown(other_name)} once both are in NFC")

    def _file_fault(self, disk: str, parent: _Dir, path: str, status: os.stat_result) -> str | None:
        if not stat.S_ISREG(status.st_mode):
            return _special(status.st_mode)
        if path not in self.listed and path not in self.registered and not matches(path, self.not_unfinished):
            if parent.unfinished or self._is_unfinished(path, parent):
                return "an unfinished copy, which no manifest lists"
            if looks_temporary(path):
                self.temporary.append(path)
        if status.st_mode & 0o444 != 0o444 and not os.access(disk, os.R_OK):
            return "permission denied"
        key_bytes = len((self.key_prefix + path).encode())
        return f"a key of {key_bytes:,} bytes, over {MAX_KEY_BYTES:,}" if key_bytes > MAX_KEY_BYTES else None

    def _kind(self, path: str) -> tuple[FileKind, str]:
        return classify(path, self.listed)


def classify(path: str, listed: Mapping[str, FileEntry]) -> tuple[FileKind, str]:
    """What a file of a recording is, by its path, on a disk as in a bucket; and a raw file's worker directory.

    ``listed``: the manifest's entries by path; where one states a worker, that counts.
    """
    first, _, rest = path.partition("/")
    if path == MANIFEST_NAME or (first == NODE_MANIFESTS_DIR and "/" not in rest and rest.endswith(".json")):
        return "manifest", ""
    if path == PARTICIPANT_NAME:
        return "participant", ""
    entry = listed.get(path)
    if entry and entry.worker:
        return "raw", entry.worker
    if rest and is_worker_dir(first):
        return "raw", first
    return "auxiliary", ""


def is_sidecar(path: str) -> bool:
    """Whether a path below a recording is a manifest or participant.txt, which no modality's row lists."""
    return path in (MANIFEST_NAME, PARTICIPANT_NAME) or (
        path.startswith(f"{NODE_MANIFESTS_DIR}/") and classify(path, {})[0] == "manifest"
    )


def _check_root(root: Path) -> str:
    """The rec_id of a recording directory that is there."""
    absolute = _absolute(root)
    try:
        is_dir = stat.S_ISDIR(root.stat().st_mode)
    except FileNotFoundError:
        raise InvalidRecordingError(
            f"{shown(absolute)}: there is no such directory",
            hint="Check the path, and that the NAS or the disk is mounted",
            path=absolute,
        ) from None
    except (OSError, ValueError) as exc:
        why = os_error_in_words(exc) if isinstance(exc, OSError) else "not a path"
        raise InvalidRecordingError(f"{shown(absolute)}: {why}", path=absolute) from None
    if not is_dir:
        raise InvalidRecordingError(
            f"{shown(absolute)}: not a directory",
            hint="Point ursa at the recording directory, rec_<YYYYMMDD>_<HHMMSS>_<hex>",
            path=absolute,
        )
    return check_rec_id(Path(absolute).name)


def _absolute(path: Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100 (resolve() would follow a symlink, and lose the name that it has)


def _name_fault(name: str) -> str | None:
    if not is_unicode(name):
        return "a name that is not UTF-8"
    if has_control(name):
        return "a name with control characters"
    if "\\" in name:
        return "a name with a backslash"
    return None


def _special(mode: int) -> str:
    if stat.S_ISSOCK(mode):
        return "a socket"
    if stat.S_ISFIFO(mode):
        return "a FIFO"
    return "a device"


def _name_beside(entry: os.DirEntry[str]) -> str:
    """What an entry is called to its neighbours, in NFC; a directory ends in a slash."""
    name = nfc(disk_name(entry.name))
    with contextlib.suppress(OSError):  # what can't be looked at is refused in its turn
        return f"{name}/" if entry.is_dir(follow_symlinks=False) else name
    return name


def _files_below(directory: str, path: str) -> list[str]:
    """Paths in a junk directory; one that can't be read counts as one piece of junk."""
    unreadable: list[OSError] = []
    below = [
        f"{path}{disk_name(folder[len(directory) :])}/{disk_name(name)}"
        for folder, _, names in os.walk(directory, onerror=unreadable.append)
        for name in names
    ]
    return below + [f"{path}/"] * bool(unreadable)


def _escaped_unicode(text: str) -> str:
    """ASCII, so that two names which look the same can be told apart."""
    return text.encode("ascii", "backslashreplace").decode("ascii")


def _case_warnings(files: tuple[LocalFile, ...]) -> tuple[str, ...]:
    """A warning for each group of paths that a case-insensitive disk can't hold side by side."""
    groups: dict[str, list[str]] = defaultdict(list)
    for file in files:
        groups[nfc(file.path.casefold())].append(file.path)
    return tuple(
        f"{', '.join(shown(path) for path in group[:_NAMED_OFFENDERS])}: names that differ only in case, "
        "which a case-insensitive disk can't hold side by side"
        for group in groups.values()
        if len(group) > 1
    )


def _temporary_warnings(paths: list[str]) -> tuple[str, ...]:
    """One warning for all the files that may be rsync's, since a directory may have thousands."""
    if not paths:
        return ()
    named = ", ".join(shown(path) for path in sorted(paths)[:_NAMED_OFFENDERS])
    more = f" and {len(paths) - _NAMED_OFFENDERS:,} more" if len(paths) > _NAMED_OFFENDERS else ""
    return (f"{named}{more}: called as rsync calls its unfinished copies, taken as they are",)


def _bad_participant(source: str, why: str) -> InvalidRecordingError:
    return InvalidRecordingError(
        f"{shown(source, 400)}: {why}",
        hint=f"Write the name alone, on one line of at most {MAX_PARTICIPANT_CHARS} characters, as UTF-8",
        path=source,
    )


def _read_file(path: Path, limit_bytes: int) -> bytes | None:
    """A small file's bytes, at most one more than the limit; None when it is not there.

    Raises:
        InvalidRecordingError: it is no regular file, or can't be read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a FIFO would wait for ever
            raise InvalidRecordingError(f"{shown(str(path), 400)}: not a regular file", path=str(path))
        with path.open("rb") as file:
            return file.read(limit_bytes + 1)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise _unreadable(path, exc) from exc


def _unreadable(path: Path, exc: OSError) -> InvalidRecordingError:
    return InvalidRecordingError(f"{shown(str(path), 400)}: {os_error_in_words(exc)}", path=str(path))


def _load_source(path: Path, key: str, rec_id: str) -> ManifestSource | None:
    data = _read_file(path, MAX_MANIFEST_BYTES)
    if data is None:
        return None
    manifest = parse_manifest(data, source=str(path))
    if not manifest.is_placeholder:
        check_identity(manifest, rec_id, source=str(path))
    return ManifestSource(key, path, data, manifest)


def refuse_large_manifest(size_bytes: int, *, source: str) -> None:
    """Look at a manifest's size before it is read.

    Raises:
        ManifestError: it is over ``MAX_MANIFEST_BYTES``.
    """
    if size_bytes > MAX_MANIFEST_BYTES:
        raise ManifestError(
            f"{shown(source, 400)}: found {size_bytes:,} bytes, expected at most 64 MiB of JSON",
            hint="No rig writes such a manifest. Put the rig's own back, then run the same command again.",
            path=source,
            found=f"{size_bytes:,} bytes",
            expected="at most 64 MiB of JSON",
        )


def _node_sources(root: Path, rec_id: str, warnings: list[str] | None) -> tuple[ManifestSource, ...]:
    """The node manifests. One that can't be read refuses; with ``warnings`` it is told there, and counts as empty.

    One over the limit always refuses: it could not be sent as it is.
    """
    directory = root / NODE_MANIFESTS_DIR
    try:
        paths = sorted(path for path in directory.iterdir() if path.name.endswith(".json") and not is_junk(path.name))
    except FileNotFoundError:
        return ()
    except OSError as exc:
        raise _unreadable(directory, exc) from exc
    keys = {path: f"{NODE_MANIFESTS_DIR}/{nfc(disk_name(path.name))}" for path in paths}
    sources: list[ManifestSource] = []
    for path, key in keys.items():
        try:
            source = _load_source(path, key, rec_id)
        except ManifestError as error:
            data = _read_file(path, MAX_MANIFEST_BYTES)
            if warnings is None or (data is not None and len(data) > MAX_MANIFEST_BYTES):
                raise
            warnings.append(f"left aside, since {MANIFEST_NAME} lists the files: {error.message}")
            source = ManifestSource(key, path, data, Manifest(), left_aside=True) if data is not None else None
        sources += [source] if source else []
    return tuple(sources)


def _manifest_key(root: Path, path: Path) -> str:
    """The key, below the recording's prefix, that a manifest file has or gets."""
    name = nfc(disk_name(path.name))
    in_nodes = Path(_absolute(path)).parent.name == NODE_MANIFESTS_DIR
    key = f"{NODE_MANIFESTS_DIR}/{name}" if in_nodes else MANIFEST_NAME
    real_root, real_dir = os.path.realpath(root), os.path.realpath(path.parent)
    inside = real_dir == real_root or real_dir.startswith(f"{real_root}/")
    in_place = real_dir == os.path.realpath((root / key).parent) and (in_nodes or name == MANIFEST_NAME)
    if _name_fault(name) or (in_nodes and not name.endswith(".json")) or (inside and not in_place):
        raise InvalidRecordingError(
            f"{shown(str(path), 400)}: not the recording's {MANIFEST_NAME}, nor a {NODE_MANIFESTS_DIR}/<hostname>.json",
            hint=f"Pass {shown(str(root / MANIFEST_NAME), 400)} or one of its node manifests",
            path=str(path),
        )
    if not in_place:
        _check_same(path, root / on_disk(key))
    return key


def _check_same(path: Path, there: Path) -> None:
    """A manifest from elsewhere may not stand in for another one in the recording."""
    ours, theirs = _read_file(path, MAX_MANIFEST_BYTES), _read_file(there, MAX_MANIFEST_BYTES)
    if ours is not None and theirs is not None and ours != theirs:
        raise InvalidRecordingError(
            f"{shown(str(path), 400)}: the recording has another one, {shown(str(there), 400)}, and both want one key",
            hint="Remove the wrong one of the two, or leave the manifest path out",
            path=str(path),
        )


def _with_nodes(aggregate: Manifest, nodes: Mapping[str, Manifest]) -> Manifest:
    """The aggregate, with the node of a file that only a node manifest tells."""
    known: dict[str, str] = {}
    for path, node in nodes.items():
        for entry in node.files:
            known.setdefault(entry.path, node.node_of(entry) or Path(path).stem)
    if not known:
        return aggregate
    files = tuple(
        entry.model_copy(update={"node": known[entry.path]})
        if entry.path in known and aggregate.stated_node_of(entry) is None
        else entry
        for entry in aggregate.files
    )
    return aggregate.model_copy(update={"files": files})


def _no_such_manifest(rec_id: str, path: Path) -> ManifestNotFoundError:
    return ManifestNotFoundError(
        f"{rec_id}: there is no {shown(str(path), 400)}",
        hint="Check the path, or leave it out: the recording's own manifests are then read",
        rec_id=rec_id,
    )


def _no_manifest(root: Path, rec_id: str, why: str) -> ManifestNotFoundError:
    return ManifestNotFoundError(
        f"{rec_id}: {why}",
        hint=f"Nothing was uploaded. Copy the rig's {MANIFEST_NAME} or {NODE_MANIFESTS_DIR}/ into {shown(str(root), 400)};"
        f" where the rig has none, run `ursa reconstruct {shlex.quote(shown(str(root), 400))}` first.",
        rec_id=rec_id,
    )
