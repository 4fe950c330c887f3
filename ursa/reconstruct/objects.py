"""What lies under a recording's prefix: raw and auxiliary objects, manifests, junk; and what can't be taken as it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ursa.errors import InvalidRecordingError
from ursa.manifest import beside_in, is_junk, is_unfinished, normalize_path, shown, split_worker_dir
from ursa.manifest.models import identity_clash
from ursa.reconstruct.document import nfc
from ursa.recording import MANIFEST_NAME, classify
from ursa.store import ObjectInfo

_NAMED_OFFENDERS = 20


@dataclass(frozen=True, slots=True)
class Found:
    """An object of the recording. ``path`` is NFC, ``key`` its own; ``worker``: of a raw one, else ""."""

    path: str
    key: str
    size_bytes: int
    etag: str
    worker: str = ""

    @property
    def info(self) -> ObjectInfo:
        """As a store lists it."""
        return ObjectInfo(self.key, self.size_bytes, self.etag)


@dataclass(frozen=True, slots=True)
class Contents:
    """The objects by what they are. ``manifests``: by path, ``manifest.json`` among them."""

    data: tuple[Found, ...]
    manifests: Mapping[str, Found]
    participant: Found | None
    junk: int

    @property
    def state(self) -> Mapping[str, tuple[int, str]]:
        """Size and ETag of everything that a manifest is made from, by key."""
        counted = (*self.data, self.participant) if self.participant else self.data
        return {found.key: (found.size_bytes, found.etag) for found in counted}


def read_contents(rec_id: str, prefix: str, objects: Iterable[ObjectInfo]) -> Contents:
    """Sort a listing.

    Raises:
        InvalidRecordingError: names that no manifest could list, unfinished copies, two keys that are one path; all named.
    """
    sorting = _Sorting(prefix)
    for info in objects:
        sorting.take(info)
    sorting.check_unfinished()
    sorting.check_workers()
    sorting.raise_offenders(rec_id)
    data = tuple(sorting.data[path] for path in sorted(sorting.data))
    return Contents(data, sorting.manifests, sorting.participant, sorting.junk)


def check_raw(rec_id: str, contents: Contents) -> None:
    """Refuse a recording without raw data.

    Raises:
        InvalidRecordingError: there is none.
    """
    if any(found.worker for found in contents.data):
        return
    there = f"only {len(contents.data)} auxiliary objects" if contents.data else "nothing else of a recording either"
    raise InvalidRecordingError(
        f"{rec_id}: there is no raw data under its prefix in the bucket, {there}; no manifest was written",
        hint="Check the rec_id and the profile's raw.bucket and raw.prefix (`ursa config show`).",
        path=rec_id,
    )


@dataclass(slots=True)
class _Sorting:
    """Offenders are gathered, not raised, so that a person sees all of them at once."""

    prefix: str
    data: dict[str, Found] = field(default_factory=dict)
    manifests: dict[str, Found] = field(default_factory=dict)
    participant: Found | None = None
    junk: int = 0
    offenders: list[tuple[str, str]] = field(default_factory=list)
    _taken: dict[str, str] = field(default_factory=dict)

    def take(self, info: ObjectInfo) -> None:
        name = info.key.removeprefix(self.prefix)
        path = nfc(name)
        # A console's "folder": an empty object whose key ends with a slash.
        if is_junk(path) or ((name.endswith("/") or not name) and not info.size_bytes):
            self.junk += 1
            return
        fault = self._fault(path, info.key)
        if fault:
            self.offenders.append((name, fault))
            return
        kind, worker = classify(path, {})
        found = Found(path, info.key, info.size_bytes, info.etag, worker)
        if kind == "manifest":
            self.manifests[path] = found
        elif kind == "participant":
            self.participant = found
        else:
            self.data[path] = found

    def _fault(self, path: str, key: str) -> str | None:
        """Why a path can't be in a manifest."""
        other = self._taken.setdefault(path, key)
        if other != key:
            return f"the same name as {_escaped(other)} once both are in NFC"
        try:
            if normalize_path(path) != path:
                return "a name that a manifest can't spell (a backslash, or an empty or '.' part)"
        except ValueError as error:
            return f"a name that a manifest can't list: {error}"
        return None

    def check_unfinished(self) -> None:
        """Once all names are known, since one may be called after another."""
        beside = beside_in(self._taken)
        for path, found in self.data.items():
            if is_unfinished(path, beside):
                self.offenders.append(
                    (found.key.removeprefix(self.prefix), "an unfinished copy, which no manifest lists")
                )

    def check_workers(self) -> None:
        """Two directories that are the same (modality, worker_id) would be one row of the catalog."""
        names = dict.fromkeys(found.worker for found in self.data.values() if found.worker)
        clash = identity_clash((name, split_worker_dir(name)) for name in names)
        if clash:
            self.offenders.append((clash[1], f"the same modality and worker_id as {shown(clash[0])}"))

    def raise_offenders(self, rec_id: str) -> None:
        if not self.offenders:
            return
        offenders = sorted(self.offenders)
        named = "; ".join(f"{shown(path)}: {why}" for path, why in offenders[:_NAMED_OFFENDERS])
        more = len(offenders) - _NAMED_OFFENDERS
        things = "1 object" if len(offenders) == 1 else f"{len(offenders):,} objects"
        raise InvalidRecordingError(
            f"{rec_id}: {things} can't be taken: {named}{f'; and {more:,} more' if more > 0 else ''};"
            f" no {MANIFEST_NAME} was written",
            hint="Finish the upload, or rename or remove them in the bucket, then run the same command again.",
            path=shown(offenders[0][0], 1024),
            paths=tuple(shown(path, 1024) for path, _ in offenders),
        )


def _escaped(text: str) -> str:
    """ASCII, so that two names which look the same can be told apart."""
    return shown(text, 1024).encode("ascii", "backslashreplace").decode("ascii")
