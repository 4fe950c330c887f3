"""Bytes to a Manifest. Somebody else wrote them: whatever they are, they end as a Manifest or as a ManifestError."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import ValidationError

from ursa.errors import ManifestError
from ursa.manifest import models
from ursa.manifest.models import FILE_ALIASES, MANIFEST_ALIASES, SCHEMA_VERSION, Manifest
from ursa.manifest.names import is_unicode, shown
from ursa.manifest.times import TIME_EXPECTED, ZONE_EXPECTED

MAX_MANIFEST_BYTES = 64 * 2**20
"""The largest manifest that is read; some 400,000 files."""

MAX_DEPTH = 100
"""Levels of nesting; beyond some 250 neither reader nor writer would hold."""

_BOM = b"\xef\xbb\xbf"
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_HINT = (
    "Nothing was uploaded. Copy the manifest from the rig again, then run the same command; where the rig has no better one,"
    " move it away and run `ursa reconstruct REC_DIR` first."
)

_EXPECTED = {
    "schema_version": "a whole number, 1 or more",
    "recording_id": models.REC_ID_EXPECTED,
    "recording_hash": models.HASH_EXPECTED,
    "started_at": TIME_EXPECTED,
    "ended_at": TIME_EXPECTED,
    "timezone": ZONE_EXPECTED,
    "duration_s": "seconds, a number of 0 or more",
    "nodes": "a list of nodes",
    "workers": "a list of workers",
    "files": "a list of files",
    "hostname": "a hostname",
    "dir": models.DIR_EXPECTED,
    "path": models.PATH_EXPECTED,
    "size_bytes": "a whole number of bytes, 0 or more",
    "sha256": models.SHA256_EXPECTED,
    "reconstruction": "an object",
    "node": "a hostname, or an object with one",
}
_EXPECTED_BY_TYPE = {"string_type": "text", "model_type": "an object", "dict_type": "an object"}


def parse_manifest(data: bytes, *, source: str) -> Manifest:
    """The manifest in ``data``.

    Args:
        data: UTF-8 JSON, with or without a BOM.
        source: the file or key it came from, for messages.

    Raises:
        ManifestError: it is no manifest that ursa can read; nothing else is ever raised.
    """
    document = _Json(source).load(data)
    _check_version(document, source)
    try:
        manifest = Manifest.model_validate(document)
    except ValidationError as exc:
        raise _from_validation(exc, document, source) from None
    spelling = {MANIFEST_ALIASES[key]: key for key in document if key in MANIFEST_ALIASES}
    return manifest.read_from(source, spelling)


def check_identity(manifest: Manifest, rec_id: str, *, source: str) -> None:
    """Hold a manifest against the recording it lies in.

    Raises:
        ManifestError: its recording_id is another.
    """
    if manifest.recording_id == rec_id:
        return
    raise _refused(
        source,
        manifest.pointer_to("recording_id"),
        _in_words(manifest.recording_id),
        f"{shown(rec_id)}, as the recording is called",
        hint="Was the directory renamed, or a manifest copied from another recording? Put the right one back",
    )


class _Json:
    """The strict JSON of one file: what the standard library lets pass and we don't is found here."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.duplicates: list[tuple[dict[str, Any], str]] = []
        self.nonfinite = False

    def load(self, data: bytes) -> dict[str, Any]:
        text = self._text(data)
        top = self._parse(text)
        if not isinstance(top, dict):
            raise self._no(found=_in_words(top), expected="one JSON object")
        self._check_depth(top)
        if self.duplicates:
            owner, key = self.duplicates[-1]
            pointer = next(path for path, value in _walk(top) if value is owner)
            raise self._no((*pointer, key), "the key twice", "each key once")
        if self.nonfinite:
            self._refuse_first(top, _is_nonfinite, "a finite number")
        if _SURROGATE.search(text):
            self._refuse_first(top, _has_surrogate, "Unicode text without lone surrogates")
        return top

    def _text(self, data: bytes) -> str:
        if len(data) > MAX_MANIFEST_BYTES:
            raise self._no(found=f"more than {MAX_MANIFEST_BYTES:,} bytes", expected="at most 64 MiB of JSON")
        try:
            return data.removeprefix(_BOM).decode()
        except UnicodeDecodeError as exc:
            raise self._no(found=f"byte 0x{data[exc.start]:02x} that is not UTF-8", expected="UTF-8 JSON") from None

    def _parse(self, text: str) -> Any:
        try:
            return json.loads(
                text,
                object_pairs_hook=self._object,
                parse_float=self._float,
                parse_constant=self._float,
            )
        except json.JSONDecodeError as exc:
            raise self._no(found=_json_fault(text, exc), expected="one JSON object") from None
        except RecursionError:
            raise self._no(found="thousands of nested levels", expected=f"at most {MAX_DEPTH} levels") from None
        except ValueError:  # int() of more digits than sys.get_int_max_str_digits()
            raise self._no(found="a number of thousands of digits", expected="numbers that fit 64 bits") from None

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            counts = Counter(key for key, _ in pairs)
            self.duplicates.append((made, next(key for key, count in counts.items() if count > 1)))
        return made

    def _float(self, text: str) -> float:
        value = float(text)
        if not math.isfinite(value):
            self.nonfinite = True
        return value

    def _check_depth(self, top: dict[str, Any]) -> None:
        level: list[Any] = [top]
        for _ in range(MAX_DEPTH):
            level = [
                child
                for holder in level
                for child in (holder.values() if isinstance(holder, dict) else holder)
                if isinstance(child, dict | list)
            ]
            if not level:
                return
        raise self._no(found=f"more than {MAX_DEPTH} nested levels", expected=f"at most {MAX_DEPTH} levels")

    def _refuse_first(self, top: dict[str, Any], is_bad: Callable[[Any], bool], expected: str) -> None:
        """Refuse the first value that is bad; none is left when a duplicate key or a surrogate pair hid it."""
        for pointer, value in _walk(top):
            if is_bad(value):
                raise self._no(pointer, _in_words(value), expected)

    def _no(self, pointer: tuple[str | int, ...] = (), found: str = "", expected: str = "") -> ManifestError:
        return _refused(self.source, _pointer(pointer), found, expected)


def _walk(top: Any) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Every value below and including ``top`` with its way there; slow, for use when something is wrong."""
    stack: list[tuple[tuple[str | int, ...], Any]] = [((), top)]
    while stack:
        path, value = stack.pop()
        yield path, value
        if isinstance(value, dict):
            stack.extend(((*path, key), child) for key, child in reversed(value.items()))
        elif isinstance(value, list):
            stack.extend(((*path, index), child) for index, child in reversed(list(enumerate(value))))


def _is_nonfinite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _has_surrogate(value: Any) -> bool:
    if isinstance(value, dict):
        return not all(is_unicode(key) for key in value)
    return isinstance(value, str) and not is_unicode(value)


def _json_fault(text: str, exc: json.JSONDecodeError) -> str:
    if not text.strip():
        return "an empty file"
    if exc.pos >= len(text.rstrip()) or exc.msg.startswith("Unterminated string"):
        return f"truncated JSON, which ends in the middle at line {exc.lineno}"
    return f"no JSON at line {exc.lineno} column {exc.colno} ({exc.msg})"


def _check_version(document: dict[str, Any], source: str) -> None:
    version = document.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise _refused(
            source,
            "/schema_version",
            _in_words(version),
            f"at most {SCHEMA_VERSION}, the newest that this ursa knows",
            hint="Upgrade ursa, for example with `uv lock --upgrade-package ursa` or `pip install --upgrade ursa`",
        )


def _from_validation(exc: ValidationError, document: dict[str, Any], source: str) -> ManifestError:
    """The first of pydantic's complaints, in our words."""
    fault = exc.errors(include_url=False)[0]
    context = fault.get("ctx", {})
    location = (*fault["loc"], *context.get("at", ()))
    pointer, value = _as_spelled(document, location)
    field = location[-1] if location else ""
    expected = context.get("expected") if fault["type"] == "refused" else _EXPECTED.get(str(field))
    return _refused(
        source,
        _pointer(pointer),
        context.get("found") or value,
        expected or _EXPECTED_BY_TYPE.get(fault["type"]) or fault["msg"],
    )


def _as_spelled(document: dict[str, Any], location: tuple[str | int, ...]) -> tuple[tuple[str | int, ...], str]:
    """(way to the field as the file spells it, what is there in words) for a way in canonical names."""
    value: Any = document
    path: list[str | int] = []
    for step in location:
        spelled = _spelled(value, step)
        path.append(spelled)
        try:
            value = value[spelled]
        except (KeyError, IndexError, TypeError):
            return tuple(path), "nothing"
    return tuple(path), _in_words(value)


def _spelled(holder: Any, step: str | int) -> str | int:
    """The alias that a canonical name has in this object, or the name itself."""
    if not isinstance(holder, dict) or holder.get(str(step)) is not None:
        return step
    aliases = FILE_ALIASES | MANIFEST_ALIASES
    return next((alias for alias, name in aliases.items() if name == step and holder.get(alias) is not None), step)


def _pointer(path: tuple[str | int, ...]) -> str:
    """An RFC 6901 pointer, shortened and printable."""
    return "".join("/" + shown(str(step).replace("~", "~0").replace("/", "~1"), 60) for step in path)


def _in_words(value: Any) -> str:
    """A JSON value, short enough for a message and printable."""
    if isinstance(value, str):
        return f'"{shown(value, 80)}"'
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return f"an object of {len(value)} fields"
    if value is None or isinstance(value, bool | float):
        return json.dumps(value)
    return shown(str(value), 40)


def _refused(source: str, pointer: str, found: str, expected: str, hint: str = _HINT) -> ManifestError:
    where = f"{shown(source, 400)}: {pointer}" if pointer else shown(source, 400)
    return ManifestError(
        f"{where}: found {found}, expected {expected}",
        hint=hint,
        path=source,
        pointer=pointer,
        found=found,
        expected=expected,
    )
