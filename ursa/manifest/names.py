"""Names in a recording: the rec_id, worker directories, junk, unfinished copies, and paths that manifests state."""

from __future__ import annotations

import re
import unicodedata

from ursa.errors import InvalidRecordingError

JUNK_FILES = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})
JUNK_DIRS = frozenset({".Spotlight-V100", ".Trashes", ".fseventsd", "@eaDir", "#recycle"})
UNKNOWN_PARTICIPANT = "__unknown__"
"""What a reconstructed manifest says where nobody recorded a name. Never a participant."""
UNFINISHED_SUFFIXES = (".part", ".tmp")

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
    """Whether a direct child directory of this name holds raw data (it starts with neither ``_`` nor ``.``)."""
    return bool(name) and name[0] not in "_."


def split_worker_dir(name: str) -> tuple[str, str]:
    """(modality, worker_id) of a worker directory: ``eeg_a`` is ("eeg", "a"), a bare ``eeg`` is ("eeg", "").

    Raises:
        ValueError: the name is not that of a worker directory.
    """
    if not is_worker_dir(name):
        raise ValueError(f"{shown(name)} is not a worker directory: it is empty or starts with '_' or '.'")
    modality, _, worker_id = name.partition("_")
    return modality, worker_id


def is_junk(relpath: str) -> bool:
    """Whether a '/'-separated path is litter of an operating system or a NAS, which never uploads."""
    *parents, name = relpath.split("/")
    if name in JUNK_FILES or name.startswith("._") or name in JUNK_DIRS:
        return True
    return not JUNK_DIRS.isdisjoint(parents)


def is_unfinished(relpath: str) -> bool:
    """Whether a '/'-separated path is a copy in progress: it, or a directory above it, is ``*.part`` or ``*.tmp``."""
    return any(part.endswith(UNFINISHED_SUFFIXES) for part in relpath.split("/"))


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
    path = unicodedata.normalize("NFC", text).replace("\\", "/")
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
