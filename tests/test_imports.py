"""What is loaded when, what is exported, and the table of exit codes."""

from __future__ import annotations

import inspect
import json
import os
import pickle
import subprocess
import sys

import pytest

import ursa
from ursa import errors

HEAVY = {"boto3", "botocore", "pydantic", "deltalake", "urllib3", "yaml", "orjson", "tenacity", "arro3"}
TERMINAL = {"typer", "rich", "click"}
EXIT_CODES = {
    "UrsaError": 1,
    "UsageError": 2,
    "ConfigError": 2,
    "CredentialsError": 4,
    "WritesNotEnabledError": 2,
    "InvalidRecordingError": 1,
    "ManifestError": 1,
    "ManifestNotFoundError": 1,
    "RecordingExistsError": 5,
    "RecordingNotFoundError": 1,
    "MissingFilesError": 6,
    "CatalogDamagedError": 6,
    "ChecksumMismatchError": 6,
    "FileChangedError": 1,
    "ObjectConflictError": 5,
    "ConflictError": 5,
    "StorageError": 1,
    "LockHeldError": 11,
    "InterruptedRunError": 130,
}
# Kinds of the others, which no caller needs to tell from them.
OWN_EXIT_CODES = {"UnexpectedError": 1, "UnknownOutcomeError": 1}
ERRORS = sorted(
    (kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.UrsaError)),
    key=lambda kind: kind.__name__,
)


def loaded(script: str, **env: str) -> set[str]:
    """Top-level modules that a fresh interpreter has after ``script``."""
    tell = "import atexit, json, sys; atexit.register(lambda: print('\\n' + json.dumps(sorted(sys.modules))))\n"
    done = subprocess.run(
        [sys.executable, "-c", tell + script], env=os.environ | env, capture_output=True, text=True, timeout=60
    )
    assert "Traceback" not in done.stderr, done.stderr
    return {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


def test_import_ursa_loads_nothing_heavy() -> None:
    assert not loaded("import ursa") & (HEAVY | TERMINAL)


def test_the_library_never_loads_the_terminal() -> None:
    assert not loaded("import ursa\nfor name in ursa.__all__: getattr(ursa, name)") & TERMINAL


def test_the_local_profile_needs_no_client_of_a_server() -> None:
    names = loaded("from ursa import DataInterface\nDataInterface('local').list_recordings()")
    assert not names & {"boto3", "botocore", "urllib3"}


@pytest.mark.parametrize("words", [["--help"], ["--version"], []])
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    names = loaded(f"from ursa_cli.app import run\nrun({words!r})")
    assert not names & (HEAVY | {"rich"})


@pytest.mark.parametrize(
    "env",
    [
        {"_URSA_COMPLETE": "complete_bash", "COMP_WORDS": "ursa sh", "COMP_CWORD": "1"},
        {"_URSA_COMPLETE": "complete_bash", "COMP_WORDS": "ursa show rec", "COMP_CWORD": "2"},
        {"_URSA_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "ursa show rec"},
        {
            "_URSA_COMPLETE": "complete_fish",
            "_TYPER_COMPLETE_ARGS": "ursa ls -p ",
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        },
    ],
)
def test_completion_loads_nothing_heavy(env: dict[str, str]) -> None:
    names = loaded("from ursa_cli.__main__ import main\nmain()", **env)
    assert not names & (HEAVY | TERMINAL)


def test_every_public_name_is_there() -> None:
    assert all(getattr(ursa, name) is not None for name in ursa.__all__)
    assert set(ursa.__all__) <= set(dir(ursa))
    assert sorted(ursa.__all__) == list(dict.fromkeys(sorted(ursa.__all__)))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = ursa.no_such_name


def test_every_error_of_the_contract_is_exported() -> None:
    assert set(EXIT_CODES) <= set(ursa.__all__)


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_errors_have_their_exit_code_and_pickle_with_their_fields(kind: type[errors.UrsaError]) -> None:
    assert kind.exit_code == (EXIT_CODES | OWN_EXIT_CODES)[kind.__name__]
    fields = {name: f"a {name}" for name in inspect.get_annotations(kind) if name not in ("exit_code", "hint")}
    again = pickle.loads(pickle.dumps(kind("what happened", hint="what to type", **fields)))
    assert type(again) is kind
    assert (again.message, str(again), again.hint) == ("what happened", "what happened", "what to type")
    assert all(getattr(again, name) == value for name, value in fields.items())
    bare = kind("what happened")
    assert bare.hint is None
    assert all(hasattr(bare, name) for name in fields), "a field is there also when nobody gave it"


def test_errors_of_the_store_pickle_too() -> None:
    from ursa.store import NoSuchUploadError, NotFoundError, PreconditionFailedError, TransientError

    for kind in (NotFoundError, PreconditionFailedError, NoSuchUploadError, TransientError):
        again = pickle.loads(pickle.dumps(kind("what happened", key="a/key", operation="write")))
        assert isinstance(again, errors.StorageError)
        assert (type(again), again.key, again.exit_code) == (kind, "a/key", 1)
