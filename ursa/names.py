"""Texts that mean the same everywhere: sha256s as others spell them, Unicode's normal form, names of files on a disk."""

from __future__ import annotations

import base64
import binascii
import os
import re
import socket
import sys
import unicodedata

_SHA256 = re.compile(r"[0-9a-f]{64}")
_UTF8_NAMES = sys.getfilesystemencoding().lower().replace("-", "") == "utf8"


def is_sha256(text: object) -> bool:
    """Whether a text is 64 lower-case hex digits: a sha256, or a recording_hash."""
    return isinstance(text, str) and _SHA256.fullmatch(text) is not None


def parse_sha256(text: object) -> str | None:
    """The sha256 that a text states, as 64 lower-case hex digits; None where it states none.

    Uploaders spell it as hex digits in any case, with ``sha256:`` before them, or as base64 of the 32 bytes.
    """
    if not isinstance(text, str):
        return None
    digits = text.strip().lower().removeprefix("sha256:")
    if is_sha256(digits):
        return digits
    try:
        decoded = base64.b64decode(text.strip().encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error, ValueError):
        return None
    return decoded.hex() if len(decoded) == 32 else None


def nfc(text: str) -> str:
    """The text in NFC, as keys are spelt."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def disk_name(name: str) -> str:
    """A file's name as UTF-8, whatever the locale says: names are bytes, and a locale must not make keys of them.

    Bytes that are no UTF-8 come out as lone surrogates, which no name of a recording may have.
    """
    if _UTF8_NAMES or name.isascii():
        return name
    return os.fsencode(name).decode("utf-8", "surrogateescape")


def on_disk(path: str) -> str:
    """The reverse: what to hand to the operating system so that the name on the disk is ``path`` in UTF-8."""
    if _UTF8_NAMES or path.isascii():
        return path
    return os.fsdecode(path.encode("utf-8", "surrogateescape"))


def host_in_key() -> str:
    """This machine's name, as a part of an object's key: letters, digits and hyphens, 40 at most."""
    return re.sub(r"[^A-Za-z0-9-]+", "-", socket.gethostname()).strip("-")[:40] or "host"
