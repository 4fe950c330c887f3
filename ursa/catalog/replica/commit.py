"""A commit: made by deltalake in a private scratch, then put to the bucket, where the name of its version decides.

Data files go up first. ``N.json`` goes up if it is absent, and that PUT is the compare-and-swap: of two writers of the
same version one gets a 412. While its reply is in doubt, the same bytes are put to the same name again until the server
tells: a PUT that was late, not lost, must not meet another decision of ours.
"""

from __future__ import annotations

import contextlib
import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import orjson
from deltalake import DeltaTable, PostCommitHookProperties

from ursa.beside import each
from ursa.catalog.files import TableFiles
from ursa.catalog.foreign import foreign
from ursa.catalog.layout import DataFile
from ursa.catalog.replica.log import (
    LOG,
    PREVIOUS_KEY,
    Commit,
    NotWholeError,
    commit_name,
    local_name,
    parse_commit,
)
from ursa.catalog.replica.sums import sha256
from ursa.catalog.replica.table import TableReplica
from ursa.catalog.replica.words import damaged
from ursa.errors import StorageError, UnknownOutcomeError, UrsaError
from ursa.store import PreconditionFailedError, TransientError

HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)
"""What deltalake does after a commit in a scratch: nothing."""
GIVE_UP_AFTER_S = 120.0
PAUSE_S = 0.2
_LONGEST_PAUSE_S = 10.0
_REBASABLE = {"commitInfo", "add"}
_log = logging.getLogger("ursa.catalog")


@dataclass(frozen=True)
class Prepared:
    """A commit that is made and not put. ``new``: the data files that it brings, name → where they are on this disk;
    ``uploaded``: those that are in the bucket already, with their sha256.
    """

    commit: Commit
    new: Mapping[str, Path]
    uploaded: dict[str, str] = field(default_factory=dict)

    def rebased(self, replica: TableReplica, attempt: int, attempt_key: str) -> Prepared | None:
        """The same rows appended after the version that the replica has now; None where that can't be said.

        The commits in between must have changed neither the table's schema nor its properties or protocol.
        """
        if any(not action.keys() <= _REBASABLE for action in self.commit.actions):
            return None
        if replica.shaped >= self.commit.version:
            return None
        about = {attempt_key: str(attempt)} | ({PREVIOUS_KEY: replica.head_sha256} if replica.head_sha256 else {})
        lines = [_described(action, about) for action in self.commit.actions]
        data = b"".join(orjson.dumps(line) + b"\n" for line in lines)
        return replace(self, commit=parse_commit(replica.version + 1, data))


def _described(action: Mapping[str, Any], about: Mapping[str, str]) -> Mapping[str, Any]:
    if "commitInfo" not in action:
        return action
    info = {name: value for name, value in action["commitInfo"].items() if name != PREVIOUS_KEY}
    return {"commitInfo": {**info, **about}}


@contextlib.contextmanager
def prepared(
    replica: TableReplica, version: int, files: list[DataFile], action: Callable[[DeltaTable, Path], object]
) -> Iterator[Prepared | None]:
    """Let ``action`` commit to a private copy of the table at ``version``; None where it committed nothing.

    Args:
        files: data files that it reads; they are fetched where they are not here.

    Raises:
        StorageError, CatalogDamagedError: they can't be. What deltalake raises: the commit can't be made.
    """
    replica.need(files, again=True)
    with replica.scratch(version, files) as made:
        known = _files(made)
        with foreign():
            action(DeltaTable(str(made), version=version), made)
        new = _files(made) - known
        log = sorted(name for name in new if name.startswith(LOG))
        if not log:
            yield None
            return
        if log != [LOG + commit_name(version + 1)]:
            raise StorageError(
                f"can't write {replica.files.uri}: deltalake made {', '.join(log)[:200]} of version {version}",
                operation="commit",
            )
        data = (made / log[0]).read_bytes()
        commit = parse_commit(version + 1, data if data.endswith(b"\n") else data + b"\n")
        yield Prepared(commit, {name: made / name for name in new - {*log}})


def created(files: TableFiles, action: Callable[[str], object], made: Path) -> bool:
    """Put the first commit of a table that ``action`` makes in the directory ``made``; False where one is there."""
    with foreign():
        action(str(made))
    data = (made / LOG / commit_name(0)).read_bytes()
    commit = parse_commit(0, _located(data, files.uri))
    return not isinstance(put_commit(files, commit), Commit)


def push(replica: TableReplica, wanted: Prepared) -> Commit | None:
    """Put a commit to the bucket and into the replica; returns the other one that has its version already, or None.

    Raises:
        UnknownOutcomeError: the server does not tell whether it is there.
        StorageError, CredentialsError: it is not there.
    """
    _refuse_lacking(wanted)
    each(
        lambda name: _put_data(replica.files, wanted, name),
        [name for name in wanted.new if name not in wanted.uploaded],
    )
    answer = put_commit(replica.files, wanted.commit)
    if isinstance(answer, Commit):
        return answer
    try:
        for name, path in wanted.new.items():
            replica.keep(name, path, wanted.uploaded[name])
        replica.advance(wanted.commit, answer)
    except OSError as error:
        # It is committed, whatever this disk says: the replica catches up when it is asked again.
        _log.warning(
            "%s: the copy of version %d could not be kept: %s", replica.files.uri, wanted.commit.version, error
        )
    return None


def put_commit(files: TableFiles, commit: Commit) -> Commit | str | None:
    """Put ``N.json`` if it is absent; returns the commit that is there in its place, or the ETag of this one, None where
    it is there and nobody told it. Raises as ``push``.
    """
    name = LOG + commit_name(commit.version)
    deadline = time.monotonic() + GIVE_UP_AFTER_S
    doubtful, tries = False, 0
    while True:
        try:
            return files.once.put(files.prefix + name, commit.data, sha256=commit.sha256, if_absent=True).etag
        except PreconditionFailedError as error:
            problem: UrsaError = error
            doubtful = True
            if (found := _look(files, commit.version)) is not None:
                return None if found.data == commit.data else found
        except TransientError as error:
            doubtful, problem = True, error
        except UrsaError as error:
            problem = error
            if (found := _look(files, commit.version)) is not None:
                return None if found.data == commit.data else found
            if not doubtful:
                raise
        if time.monotonic() > deadline:
            raise _unknown(problem) from problem
        time.sleep(random.uniform(0.5, 1.0) * min(PAUSE_S * 2 ** min(tries, 8), _LONGEST_PAUSE_S))
        tries += 1


def _look(files: TableFiles, version: int) -> Commit | None:
    """The commit that is there; None where none is, or the server does not tell. Raises ``CatalogDamagedError``."""
    name = LOG + commit_name(version)
    try:
        return replace(files, store=files.once).read_checked(name, partial(parse_commit, version))
    except NotWholeError as error:
        raise damaged(files, str(error), name, version) from None
    except UrsaError:
        return None


def _unknown(problem: UrsaError) -> UnknownOutcomeError:
    return UnknownOutcomeError(
        f"not known whether this was registered; the same command finds out ({problem.message})",
        hint="Run the same command again when the server answers (`ursa doctor`): what is registered is found, and nothing"
        " is registered twice.",
        operation="commit",
    )


def _put_data(files: TableFiles, wanted: Prepared, name: str) -> None:
    data = wanted.new[name].read_bytes()
    try:
        files.put(name, data, if_absent=True)
    except PreconditionFailedError:
        # Its name is random: what is there is ours, and its reply was lost.
        if files.store.head(files.prefix + name).size_bytes != len(data):
            raise
    wanted.uploaded[name] = sha256(data)


def _refuse_lacking(wanted: Prepared) -> None:
    """Every file that the commit adds is brought by it: what others have put may be deleted meanwhile."""
    added = {local_name(action["add"]["path"]) for action in wanted.commit.actions if "add" in action}
    if lacking := added - wanted.new.keys():
        raise StorageError(f"a commit adds {sorted(lacking)[0]}, which it does not bring", operation="commit")


def _located(data: bytes, uri: str) -> bytes:
    """The first commit tells where the table was made: in the bucket, not on this disk."""
    lines = [orjson.loads(line) for line in data.splitlines() if line.strip()]
    for line in lines:
        with contextlib.suppress(KeyError, TypeError):
            line["commitInfo"]["operationParameters"]["location"] = uri
    return b"".join(orjson.dumps(line) + b"\n" for line in lines)


def _files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}
