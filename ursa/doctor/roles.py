"""Each role: whether its secret can be read, and whether it may do what ursa will ask of it.

A writing role's probe is an object ``<prefix>.ursa-doctor/<host>-<random>``. No recording is called so: a rec_id begins
with ``rec_``, and whoever lists the prefix takes only what ``check_rec_id`` lets through.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ursa.beside import at_once
from ursa.config import Role
from ursa.doctor.patient import Patient
from ursa.doctor.results import Finding, fail, failed, ok, warn
from ursa.errors import CredentialsError, UrsaError
from ursa.names import host_in_key
from ursa.store import NoSuchUploadError, NotFoundError, Part, PreconditionFailedError, Store

PROBE_DIR = ".ursa-doctor/"
_MEND_CONDITIONS = (
    "Do not ingest here from more than one place. Use a server that honours If-Match and If-None-Match: R2 does,"
    " `rclone serve s3` does not; or find the proxy on the way that drops them."
)


@dataclass
class Trace:
    """The key of the probe object while it may be there."""

    key: str | None = None

    def words(self) -> str | None:
        """What may be left behind."""
        return f"the probe object {self.key} may be left behind" if self.key else None


class _BrokenError(Exception):
    """The server did something else than it must. ``mend``: what to do."""

    def __init__(self, words: str, mend: str) -> None:
        super().__init__(words)
        self.mend = mend


def role(patient: Patient, name: Role, trace: Trace) -> Finding:
    """Read the role's secret and use it."""
    if patient.is_local:
        return _local(patient, name, trace)
    if patient.profile.credentials.provider != "aws" and patient.profile.credentials.refs(name) is None:
        return _unset(patient, name)
    patient.credentials.get(name)
    return _used(patient, name, trace, patient.credentials.describe(name))


def _unset(patient: Patient, name: Role) -> Finding:
    key = f"profiles.{patient.profile.name}.credentials.roles.{name}"
    mend = f"Add {key}: {{access_key_id: …, secret_access_key: …}} to {patient.profile.source or 'the config file'}."
    if name.endswith("_ro"):
        return fail(f"{key} isn't set, nor that of the writing role: nothing can be read", mend, exit_code=4)
    return warn(f"{key} isn't set: reading works, nothing can be ingested with this profile", mend)


def _local(patient: Patient, name: Role, trace: Trace) -> Finding:
    directory = (patient.profile.root or Path()) / patient.bucket(name).bucket
    if directory.is_dir():
        return _used(patient, name, trace, f"the directory {directory}")
    above = next(parent for parent in directory.parents if parent.exists())
    if above.is_dir() and os.access(above, os.W_OK | os.X_OK):
        return ok(f"{directory} is made on first use; {above} is writable")
    return fail(f"{directory} is not there, and can't be made in {above}", f"`ls -ld {above}`; or set another `root`.")


def _used(patient: Patient, name: Role, trace: Trace, source: str) -> Finding:
    store, at = patient.store(name), patient.bucket(name)
    # Before a write, too: some servers make a bucket that is not there, by a name that was mistyped.
    any_key = _lists(patient, name, store)
    if name.endswith("_ro"):
        return ok(f"lists {store.uri}/{at.prefix}{'' if any_key else ' (empty)'}; key from {source}")
    checks = ""
    try:
        if not patient.is_local:
            # First: where conditions are ignored nothing else may be written.
            conduct = patient.conduct(name)
            checks = f", {'checks' if conduct and conduct.checks_sha256 else 'does not check'} sha256"
        _writes(store, at.prefix, trace, parts=name == "raw_rw")
    except _BrokenError as error:
        return _with_left(fail(str(error), error.mend), trace)
    except UrsaError as error:
        return _with_left(failed(error), trace)
    finally:
        if patient.is_local:
            _tidy(patient, name)
    did = "lists, writes, reads back, refuses stale writes, deletes" + (", sends parts" if name == "raw_rw" else "")
    return ok(f"{did}{checks} below {store.uri}/{at.prefix}; key from {source}")


def _lists(patient: Patient, name: Role, store: Store) -> bool:
    prefix = patient.bucket(name).prefix
    if patient.is_local:
        return next(iter(store.list_prefixes(prefix)), None) is not None
    return patient.s3(name).has_keys(prefix)


def _with_left(finding: Finding, trace: Trace) -> Finding:
    left = trace.words()
    return Finding(finding.status, f"{finding.detail}; {left}", finding.mend, finding.exit_code) if left else finding


def _writes(store: Store, prefix: str, trace: Trace, *, parts: bool) -> None:
    key = f"{prefix}{PROBE_DIR}{host_in_key()}-{secrets.token_hex(6)}"
    with _deleted(store, key, trace):
        first = _first(store, key, trace)
        rewrites = partial(_rewrites, store, key, first)
        second = _beside_parts(store, key, rewrites) if parts else rewrites()
        if _expect(store, key, b"ursa doctor 2", "refused a write and did it all the same") != second:
            raise _BrokenError("the probe object's ETag changed by itself", _MEND_CONDITIONS)
    if _is_there(store, key):
        trace.key = key
        raise _BrokenError("a deleted object is still there", "Look at the bucket's versioning, locks and lifecycle.")


def _rewrites(store: Store, key: str, first: str) -> str:
    """Read the object back, replace it under If-Match, then try under the ETag that is stale now; returns its new one."""
    _expect(store, key, b"ursa doctor 1", "gives back other bytes than were written")
    second = _rewritten(store, key, first)
    _must_refuse("If-Match of an older ETag", lambda: _put(store, key, b"ursa doctor 3", if_match=first))
    return second


@contextlib.contextmanager
def _deleted(store: Store, key: str, trace: Trace) -> Iterator[None]:
    """Delete the probe object whatever happens; ``trace`` names it as long as that has not worked."""
    trace.key = key
    try:
        yield
    except BaseException:
        # What went wrong first is what to tell; whether the object is left, `trace` knows.
        if trace.key:
            with contextlib.suppress(UrsaError):
                store.delete(key)
            with contextlib.suppress(UrsaError):
                trace.key = key if _is_there(store, key) else None
        raise
    store.delete(key)
    trace.key = None


def _is_there(store: Store, key: str) -> bool:
    try:
        store.head(key)
    except NotFoundError:
        return False
    return True


def _first(store: Store, key: str, trace: Trace) -> str:
    try:
        return _put(store, key, b"ursa doctor 1", if_absent=True)
    except CredentialsError:
        trace.key = None  # refused: nothing was written, and a delete would be refused as well
        raise


def _rewritten(store: Store, key: str, etag: str) -> str:
    try:
        return _put(store, key, b"ursa doctor 2", if_match=etag)
    except PreconditionFailedError:
        words = "this server refuses a write under If-Match with the right ETag: the catalog's pointer could not change"
        raise _BrokenError(words, "Try again; if it stays so, find the server or proxy that changes ETags.") from None


def _beside_parts(store: Store, key: str, rewrites: Callable[[], str]) -> str:
    """A multipart upload over the probe object: a part arrives, completing it is refused, aborting drops it.

    The part goes beside ``rewrites``, whose result is returned. Completing waits for them: R2 takes one write a second to
    a key.
    """
    upload_id = store.create_upload(key)
    try:
        second, part = at_once(rewrites, partial(_sent_part, store, key, upload_id))
        _must_refuse(
            "If-None-Match: * on CompleteMultipartUpload",
            lambda: store.complete_upload(key, upload_id, [part], if_absent=True),
        )
    finally:
        store.abort_upload(key, upload_id)
    with contextlib.suppress(NoSuchUploadError, NotFoundError):
        store.list_parts(key, upload_id)
        raise _BrokenError("an aborted multipart upload is still there", "`ursa gc-uploads --older-than 0s`")
    return second


def _sent_part(store: Store, key: str, upload_id: str) -> Part:
    body = b"ursa doctor part"
    part = store.upload_part(key, upload_id, 1, body, md5=hashlib.md5(body, usedforsecurity=False).hexdigest())
    if [item.number for item in store.list_parts(key, upload_id)] != [1]:
        raise _BrokenError("a part that was sent is not listed", "Resuming would not work: ask the server's admin.")
    return part


def _must_refuse(condition: str, write: Callable[[], object]) -> None:
    try:
        write()
    except PreconditionFailedError:
        return
    raise _BrokenError(
        f"this server ignores conditions ({condition}): two writers could overwrite each other", _MEND_CONDITIONS
    )


def _put(store: Store, key: str, body: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
    digest = hashlib.sha256(body).hexdigest()
    return store.put(key, body, sha256=digest, if_absent=if_absent, if_match=if_match).etag


def _expect(store: Store, key: str, body: bytes, otherwise: str) -> str:
    """Read the probe object, which must be ``body``; returns its ETag."""
    data, info = store.read(key)
    if data != body:
        raise _BrokenError(f"the server {otherwise}", "Do not ingest here. Ask whoever runs the server.")
    return info.etag


def _tidy(patient: Patient, name: Role) -> None:
    """A directory store keeps the directories of a deleted object and of its record."""
    root, at = patient.profile.root or Path(), patient.bucket(name)
    for directory in (root / at.bucket, root / ".ursa" / at.bucket / "metadata"):
        with contextlib.suppress(OSError):
            (directory / at.prefix / PROBE_DIR).rmdir()
