"""Names in a recording: the rec_id, worker directories, junk, unfinished copies, and paths that manifests state."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from fnmatch import fnmatchcase

from ursa.errors import InvalidRecordingError
from ursa.names import nfc

JUNK_FILES = frozenset(
    {
        *(".DS_Store", ".apdisk", ".localized", ".directory"),
        # A Mac's folder icon; a NAS that may have no control character in a name keeps this one as U+F00D.
        *("Icon\r", "Icon\uf00d"),
    }
)
"""Files that a desktop or a NAS leaves behind, called exactly so."""
JUNK_FILES_ANY_CASE = frozenset(
    # A stream of Thumbs.db as SMB clients copy it; with U+F022 where a name may have no colon.
    {"thumbs.db", "thumbs.db:encryptable", "thumbs.db\uf022encryptable", "desktop.ini", "ehthumbs.db"}
)
"""Files that Windows leaves behind, which are the same in upper and lower case."""
JUNK_PREFIXES = ("._", ".nfs", ".smbdelete", ".fuse_hidden", "~$")
"""Starts of files' names: AppleDouble, files deleted while open, lock files of office programs."""
JUNK_DIRS = frozenset(
    {
        *(".Spotlight-V100", ".Trashes", ".fseventsd", ".AppleDouble", ".TemporaryItems", ".DocumentRevisions-V100"),
        *("$RECYCLE.BIN", "$Recycle.Bin", "System Volume Information", "lost+found"),
        *("@eaDir", "#recycle", "#snapshot", ".snapshot", ".stfolder"),
    }
)
"""Directories of an operating system, a NAS or a file system: with all that is in them they are no data."""
UNKNOWN_PARTICIPANT = "__unknown__"
"""What a reconstructed manifest says where nobody recorded a name. Never a participant."""
UNFINISHED_SUFFIXES = (".part", ".tmp", ".partial", ".filepart", ".crdownload", ".aria2")
"""Ends of names, in any case, of what copy programs and browsers write until it is whole."""
UNFINISHED_PREFIXES = (".syncthing.", ".unison.", ".ursa-")
UNFINISHED_DIRS = frozenset({".rsync-partial"})
UNFINISHED_MARKS = (".sb-", ".ursa-mismatch")
"""In the middle of a name: what a Mac's programs write before they replace a file by it, and what a download kept since it
was not what is registered."""

_OFFICE_LOCK = re.compile(r"\.~lock\..*#", re.DOTALL)
# rsync's name for a copy of NAME until it is whole.
_RSYNC = re.compile(r"\.(?P<name>.+)\.(?P<random>[A-Za-z0-9]{6})", re.DOTALL)
_WORD = re.compile(r"[a-z]+")  # as in .camera.config; of six random characters one in two hundred is such a word
_REC_ID = re.compile(r"rec_[0-9]{8}_[0-9]{6}_[0-9a-f]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # exactly Unicode's category Cc
_DRIVE = re.compile(r"[A-Za-z]:/")


def check_rec_id(name: str) -> str:
    """The name itself, when it fits ``rec_<8 digits>_<6 digits>_<lowercase hex>``; the calendar is not checked.

    Raises:
        InvalidRecordingError: it does not fit.
    """
    if not isinstance(name, str) or not _REC_ID.fullmatch(name):
        raise InvalidRecordingError(
            f"{shown(str(name))}: not the name of a recording, which is rec_<YYYYMMDD>_<HHMMSS>_<hex> in lower case",
            hint="Point ursa at the recording directory itself, or rename it back to what the rig called it",
            path=str(name),
        )
    return name


def is_worker_dir(name: str) -> bool:
    """Whether a direct child directory of this name holds raw data: no ``_`` or ``.`` in front, and not what junk is called."""
    return bool(name) and name[0] not in "_." and not is_junk(name)


def split_worker_dir(name: str) -> tuple[str, str]:
    """(modality, worker_id) of a worker directory: ``eeg_a`` is ("eeg", "a"), a bare ``eeg`` is ("eeg", "").

    Raises:
        ValueError: the name is not that of a worker directory.
    """
    if not is_worker_dir(name):
        raise ValueError(f"{shown(name)} is not a worker directory: it is empty, junk, or starts with '_' or '.'")
    modality, _, worker_id = name.partition("_")
    return modality, worker_id


def is_junk(relpath: str) -> bool:
    """Whether a '/'-separated path is litter of an operating system or a NAS, which never uploads.

    The path is a file's, or a junk directory's own. A file that a manifest lists is never junk: callers ask that first.
    """
    *parents, name = relpath.split("/")
    return name in JUNK_DIRS or _is_junk_file(name) or not JUNK_DIRS.isdisjoint(parents)


def _is_junk_file(name: str) -> bool:
    return (
        name in JUNK_FILES
        or name.startswith(JUNK_PREFIXES)
        or name.lower() in JUNK_FILES_ANY_CASE
        or _OFFICE_LOCK.fullmatch(name) is not None
    )


Beside = Callable[[str], bool]
"""Whether a recording has a file of this path (on the disk, in the bucket or in its manifest), or, where the path ends
in a slash, a directory."""


def nothing_beside(_path: str) -> bool:
    """A ``Beside`` where nothing but the path itself is known."""
    return False


def beside_in(paths: Iterable[str]) -> Beside:
    """A ``Beside`` of all the files' paths that there are."""
    known = set(paths)
    for path in tuple(known):
        # The directories above it, up to one that is known, whose own are then known too.
        while (slash := path.rfind("/", 0, -1)) >= 0 and (path := path[: slash + 1]) not in known:
            known.add(path)
    return known.__contains__


def is_unfinished(relpath: str, beside: Beside = nothing_beside, spared: Collection[str] = ()) -> bool:
    """Whether a '/'-separated path is a copy in progress: it, or a directory above it, is called as those are.

    A file that a manifest lists is never one: callers ask that first.

    Args:
        relpath: a file's path in the recording.
        beside: what else the recording has; tells rsync's ``.NAME.XXXXXX`` from a file that is called so.
        spared: globs of what is no such copy, on a path or a bare name (``--not-unfinished``).
    """
    if matches(relpath, spared):
        return False
    slash = -1
    while (slash := relpath.find("/", slash + 1)) >= 0:
        if is_unfinished_itself(relpath[: slash + 1], beside, spared):
            return True
    return is_unfinished_itself(relpath, beside, spared)


def is_unfinished_itself(path: str, beside: Beside, spared: Collection[str] = ()) -> bool:
    """As ``is_unfinished``, of the last name alone; the path of a directory ends in a slash."""
    is_dir = path.endswith("/")
    above, _, name = path.removesuffix("/").rpartition("/")
    marked = any(mark in name for mark in UNFINISHED_MARKS)
    if marked or name.lower().endswith(UNFINISHED_SUFFIXES) or name.startswith(UNFINISHED_PREFIXES):
        return not matches(path, spared)
    if is_dir and name in UNFINISHED_DIRS:
        return not matches(path, spared)
    rsync = _RSYNC.fullmatch(name)
    if rsync is None:
        return False
    # rsync makes files of this name, no directories: those need another sign.
    random = not is_dir and _WORD.fullmatch(rsync["random"]) is None
    whole = f"{above}/{rsync['name']}" if above else rsync["name"]
    return (random or beside(f"{whole}/" if is_dir else whole)) and not matches(path, spared)


def looks_temporary(relpath: str) -> bool:
    """Whether a file or a directory above it is called as rsync's copies are; worth a warning where it is none."""
    return any(_RSYNC.fullmatch(name) for name in relpath.split("/"))


def matches(path: str, globs: Collection[str]) -> bool:
    """Whether a glob fits a path or its last name; ``*`` takes slashes as well, and case counts."""
    if not globs:
        return False
    path = path.removesuffix("/")
    name = path.rpartition("/")[2]
    return any(fnmatchcase(text, nfc(glob)) for text in (path, name) for glob in globs)


def has_control(text: str) -> bool:
    """Whether a text has control characters (Unicode category Cc, NUL and newlines included)."""
    return _CONTROL.search(text) is not None


def is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8: no lone surrogates (``os.fsdecode`` makes them of other bytes)."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def normalize_path(text: str) -> str:
    """A file's path as keys spell it: NFC, '/'-separated, relative to the recording, without './' and '//'.

    Raises:
        ValueError: in plain words, why it can't be a path inside a recording.
    """
    if not is_unicode(text):
        raise ValueError("it has a lone surrogate, which is not Unicode text")
    path = nfc(text).replace("\\", "/")
    if has_control(path):
        raise ValueError("it has a control character")
    if path.startswith("/") or _DRIVE.match(path):
        raise ValueError("it is absolute")
    parts = path.split("/")
    if ".." in parts:
        raise ValueError("it has a '..', which escapes")
    kept = [part for part in parts if part not in ("", ".")]
    if not kept:
        raise ValueError("it is empty")
    if parts[-1] in ("", "."):
        raise ValueError("it ends in a slash, which names a directory")
    return "/".join(kept)


def shown(text: str, limit: int = 200) -> str:
    """A text from a file or a disk, made fit for a message: nothing unprintable, at most about ``limit`` characters.

    Bytes of a file name that are not UTF-8 show as ``\\xff``.
    """
    if len(text) > limit:
        head, tail = limit * 2 // 3, limit // 3
        text = f"{text[:head]}…{text[-tail:]}"
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # os.fsdecode's stand-in for a byte that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")
