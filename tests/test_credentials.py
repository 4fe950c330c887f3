"""Credentials from an ``op`` script on the PATH, from variables, from boto3's chain; and where they never show."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ursa import config as config_module
from ursa.config import BucketRef, CredentialsConfig, Profile, Role, RoleRefs
from ursa.credentials import ROLES, Credentials, CredentialsProvider, provider_for
from ursa.errors import CredentialsError

KEY_ID = "0a1b2c3d4e5f60718293a4b5c6d7e8f9"
SECRET = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
RAW = RoleRefs("op://Eng/raw rw/id", "op://Eng/raw rw/secret")
ASSETS = RoleRefs("op://Eng/assets rw/id", "op://Eng/raw rw/secret")  # one field in common with RAW
ANSWERS = f"""case "$2" in
*/id) echo {KEY_ID};;
*/secret) echo {SECRET};;
*/token) echo token-{SECRET};;
esac"""


def profile_of(provider: Any = "1password", roles: Mapping[Role, RoleRefs] | None = None, **more: Any) -> Profile:
    return Profile(
        name="r2",
        kind="s3",
        root=None,
        endpoint_url="https://h",
        region="auto",
        raw=BucketRef("raw-data", ""),
        assets=BucketRef("assets-data", ""),
        credentials=CredentialsConfig(provider, roles or {}, **more),
        source=Path("/etc/ursa.yaml"),
    )


class FakeOp:
    """A shell script called ``op`` that logs every call: its arguments, then what it finds on stdin."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = directory / "log"
        self.environ = {"PATH": f"{directory}{os.pathsep}/usr/bin{os.pathsep}/bin", "HOME": str(directory)}

    def says(self, body: str) -> None:
        script = self.directory / "op"
        script.write_text(
            f'#!/bin/sh\nline=$(printf \'%s|\' "$@" "stdin=$(cat)"); echo "$line" >> \'{self.log}\'\n{body}\n'
        )
        script.chmod(0o755)

    def calls(self) -> list[list[str]]:
        return [line.split("|")[:-1] for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def provider(
        self, roles: Mapping[Role, RoleRefs], timeout_s: float = 20, run: Callable[..., Any] = subprocess.run
    ) -> CredentialsProvider:
        return provider_for(profile_of(roles=roles), run=run, environ=self.environ, timeout_s=timeout_s)


@pytest.fixture
def op(tmp_path: Path) -> FakeOp:
    fake = FakeOp(tmp_path)
    fake.says(ANSWERS)
    return fake


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """stdin is a terminal."""
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "r") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield
    os.close(ours)


def failed(provider: CredentialsProvider, role: Role = "raw_rw") -> CredentialsError:
    """The error of ``get``; no secret is in it, nor in anything that hangs on it."""
    with pytest.raises(CredentialsError) as caught:
        provider.get(role)
    error = caught.value
    assert error.role == role and error.exit_code == 4 and error.provider
    assert error.__cause__ is None and error.__context__ is None
    for text in (
        str(error),
        repr(error),
        error.hint or "",
        str(error.fields),
        "".join(traceback.format_exception(error)),
    ):
        assert SECRET not in text
    pickle.dumps(error)
    return error


# --- the value -------------------------------------------------------------------------------------------------------


def test_credentials_show_nothing() -> None:
    credentials = Credentials(KEY_ID, SECRET, "token")
    for text in (repr(credentials), str(credentials), f"{credentials}", f"{credentials!r}", str([credentials])):
        assert KEY_ID not in text and SECRET not in text and "token" not in text


@pytest.mark.parametrize("copier", [pickle.dumps, copy.copy, copy.deepcopy])
def test_credentials_do_not_pickle(copier: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match="provider_for"):
        copier(Credentials(KEY_ID, SECRET))


def test_credentials_are_frozen_and_equal_by_value() -> None:
    credentials = Credentials(KEY_ID, SECRET)
    with pytest.raises(AttributeError):
        credentials.access_key_id = "x"  # type: ignore[misc]
    assert credentials == Credentials(KEY_ID, SECRET)


# --- 1password -------------------------------------------------------------------------------------------------------


def test_op_reads_both_values_once(op: FakeOp) -> None:
    provider = op.provider({"raw_rw": RAW})
    assert op.calls() == []  # nothing runs until it is needed
    assert provider.get("raw_rw") == provider.get("raw_rw") == Credentials(KEY_ID, SECRET)
    assert sorted(op.calls()) == [["read", RAW.access_key_id, "stdin="], ["read", RAW.secret_access_key, "stdin="]]


def test_op_is_called_with_exactly_these_arguments_and_no_secret(op: FakeOp) -> None:
    seen: list[Any] = []

    def run(args: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        seen.append(args)
        assert options["stdin"] is subprocess.DEVNULL
        assert SECRET not in str(options["env"])
        done: subprocess.CompletedProcess[str] = subprocess.run(args, **options)
        return done

    provider = op.provider({"raw_rw": RAW}, run=run)
    provider.get("raw_rw")
    provider.refresh("raw_rw")
    assert len(seen) == 4
    assert {tuple(args) for args in seen} == {("op", "read", ref) for ref in (RAW.access_key_id, RAW.secret_access_key)}


def test_a_value_that_roles_share_is_read_once(op: FakeOp) -> None:
    provider = op.provider({"raw_rw": RAW, "assets_rw": ASSETS})
    provider.get("raw_rw")
    provider.get("assets_rw")
    assert len(op.calls()) == 3


def test_session_token(op: FakeOp) -> None:
    refs = RoleRefs("op://Eng/x/id", "op://Eng/x/secret", "op://Eng/x/token")
    assert op.provider({"raw_rw": refs}).get("raw_rw").session_token == f"token-{SECRET}"


def test_the_values_of_a_role_are_read_in_parallel(op: FakeOp, tmp_path: Path) -> None:
    """Each call waits until both have begun: one after the other would end in the failure branch."""
    wait = f"""touch '{tmp_path}'/began.$$; n=0
    while [ $(ls '{tmp_path}'/began.* | wc -l) -lt 2 ]; do n=$((n+1)); [ $n -gt 200 ] && exit 1; sleep 0.05; done"""
    op.says(f"{wait}\n{ANSWERS}")
    assert op.provider({"raw_rw": RAW}).get("raw_rw") == Credentials(KEY_ID, SECRET)


def test_threads_that_ask_at_once_share_the_reads(op: FakeOp) -> None:
    op.says(f"sleep 0.3\n{ANSWERS}")
    provider = op.provider({"raw_rw": RAW})
    gate = threading.Barrier(8)

    def ask(_: int) -> Credentials:
        gate.wait()
        return provider.get("raw_rw")

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(8))) == {Credentials(KEY_ID, SECRET)}
    assert len(op.calls()) == 2


def test_refresh_reads_again(op: FakeOp) -> None:
    provider = op.provider({"raw_rw": RAW})
    provider.get("raw_rw")
    op.says("echo rotated")
    assert provider.get("raw_rw").access_key_id == KEY_ID
    assert provider.refresh("raw_rw") == provider.get("raw_rw") == Credentials("rotated", "rotated")
    assert len(op.calls()) == 4


def test_a_failure_is_not_remembered(op: FakeOp) -> None:
    provider = op.provider({"raw_rw": RAW})
    op.says("echo 'session expired, sign in to create a new session' >&2; exit 1")
    failed(provider)
    op.says(ANSWERS)
    assert provider.get("raw_rw") == Credentials(KEY_ID, SECRET)


@pytest.mark.parametrize(("reading", "writing"), [("raw_ro", "raw_rw"), ("assets_ro", "assets_rw")])
def test_reading_falls_back_to_writing_and_never_the_other_way(op: FakeOp, reading: Role, writing: Role) -> None:
    provider = op.provider({writing: RAW})
    assert provider.get(reading) == Credentials(KEY_ID, SECRET)
    assert provider.describe(reading) == f"1password (through {writing}): {RAW.access_key_id}, {RAW.secret_access_key}"
    error = failed(op.provider({reading: RAW}), writing)
    assert f"profiles.r2.credentials.roles.{writing} isn't set" in str(error)
    assert "/etc/ursa.yaml" in (error.hint or "")


def test_a_role_of_its_own_wins(op: FakeOp) -> None:
    own = RoleRefs("op://Eng/raw ro/id", "op://Eng/raw ro/secret")
    op.provider({"raw_rw": RAW, "raw_ro": own}).get("raw_ro")
    assert {call[1] for call in op.calls()} == {own.access_key_id, own.secret_access_key}


def test_unknown_role(op: FakeOp) -> None:
    with pytest.raises(CredentialsError, match="no role 'raw'"):
        op.provider({"raw_rw": RAW}).get("raw")  # type: ignore[arg-type]


def test_describe_runs_nothing(op: FakeOp) -> None:
    op.provider({"raw_rw": RAW}).describe("raw_rw")
    assert op.calls() == []


def test_op_is_not_installed(op: FakeOp) -> None:
    op.environ["PATH"] = str(op.directory / "nowhere")
    error = failed(op.provider({"raw_rw": RAW}))
    assert "isn't on the PATH" in str(error) and "provider: env" in (error.hint or "")


def test_op_is_not_executable(op: FakeOp) -> None:
    (op.directory / "op").chmod(0o644)
    op.environ["PATH"] = str(op.directory)
    assert "`op` can't be run: Permission denied" in str(failed(op.provider({"raw_rw": RAW})))


SIGNED_OUT = [
    "[ERROR] 2026/05/20 19:56:28 You are not currently signed in. Please run `op signin --help` for instructions",
    "[ERROR] session expired, sign in to create a new session",
    "[ERROR] account is not signed in",
    "[ERROR] error initializing client: authorization prompt dismissed, please try again",
    "[ERROR] authorization timeout",
    "[ERROR] error initializing client: connecting to desktop app: cannot connect",
    "[ERROR] No accounts configured for use with 1Password CLI.",
]


@pytest.mark.parametrize("said", SIGNED_OUT)
def test_signed_out_at_a_terminal(op: FakeOp, terminal: None, said: str) -> None:
    op.says(f"cat >&2 <<'END'\n{said}\nEND\nexit 1")
    error = failed(op.provider({"raw_rw": RAW}))
    assert "locked or not signed in" in str(error) and "cron" not in str(error)
    assert "op signin" in (error.hint or "") and "Integrate with 1Password CLI" in (error.hint or "")


def test_signed_out_under_cron(op: FakeOp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    op.says("echo 'account is not signed in' >&2; exit 1")
    error = failed(op.provider({"raw_rw": RAW}))
    assert "OP_SERVICE_ACCOUNT_TOKEN" in str(error) and "OP_SERVICE_ACCOUNT_TOKEN" in (error.hint or "")
    op.environ["OP_SERVICE_ACCOUNT_TOKEN"] = "ops_token"
    assert "cron" not in str(failed(op.provider({"raw_rw": RAW})))


def test_no_such_item(op: FakeOp) -> None:
    op.says("""echo '[ERROR] could not read secret: "raw rw" isn'"'"'t an item in the "Eng" vault' >&2; exit 1""")
    error = failed(op.provider({"raw_rw": RAW}))
    assert f"1Password has nothing at {RAW.access_key_id}" in str(error)


def test_other_failures_are_quoted_on_one_short_line(op: FakeOp) -> None:
    op.says(r"""printf '\033[31m[ERROR]\033[0m dial tcp:\r\n\a no such \033]0;title\007host\n' >&2
    i=0; while [ $i -lt 99 ]; do i=$((i+1)); printf 'more and more ' >&2; done; exit 7""")
    said = str(failed(op.provider({"raw_rw": RAW}))).partition("op said: ")[2]
    assert said.startswith("[ERROR] dial tcp: no such host more and more")
    assert said.isprintable() and len(said) < 210


def test_silent_failure(op: FakeOp) -> None:
    op.says("exit 7")
    assert "exit status 7" in str(failed(op.provider({"raw_rw": RAW})))


def test_secrets_in_what_op_says_are_masked(op: FakeOp) -> None:
    """The other value of the same role, read at the same time, and the service account's token."""
    op.environ["OP_SERVICE_ACCOUNT_TOKEN"] = "ops_verysecret"
    op.says(f"""case "$2" in */secret) echo {SECRET};;
    *) printf 'broken after {SECRET[:9]}\\033[0m{SECRET[9:]} %s {SECRET} end' ops_verysecret >&2; exit 1;; esac""")
    error = failed(op.provider({"raw_rw": RAW}))
    assert "broken after *** *** *** end" in str(error)


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("", "is empty"),
        (r"\n", "is empty"),
        ("  ", "is empty"),
        (f"{SECRET} ", "holds blanks"),
        (r"a\nb", "holds blanks"),
        (r"a\377b", "holds blanks, line breaks or other characters"),
    ],
)
def test_unusable_values(op: FakeOp, output: str, words: str) -> None:
    op.says(f"printf '{output}'")
    error = failed(op.provider({"raw_rw": RAW}))
    assert f"the value at {RAW.access_key_id} {words}" in str(error)


def test_value_without_a_newline_at_its_end(op: FakeOp) -> None:
    op.says(f"printf %s {SECRET}")
    assert op.provider({"raw_rw": RAW}).get("raw_rw").secret_access_key == SECRET


def test_op_that_never_answers(op: FakeOp, terminal: None) -> None:
    op.says(f"echo {SECRET}; exec sleep 30")
    began = time.monotonic()
    error = failed(op.provider({"raw_rw": RAW}, timeout_s=0.5))
    assert "gave no answer in 0.5 s" in str(error) and "op signin" in (error.hint or "")
    assert time.monotonic() - began < 10


# --- env -------------------------------------------------------------------------------------------------------------


def test_env_reads_the_named_variables() -> None:
    environ = {"RAW_KEY": KEY_ID, "RAW_SECRET": SECRET}
    provider = provider_for(profile_of("env", {"raw_rw": RoleRefs("RAW_KEY", "RAW_SECRET")}), environ=environ)
    assert provider.get("raw_ro") == Credentials(KEY_ID, SECRET)
    environ["RAW_SECRET"] = "rotated"
    assert provider.refresh("raw_rw").secret_access_key == "rotated"
    assert provider.describe("raw_ro") == "env (through raw_rw): RAW_KEY, RAW_SECRET"
    assert SECRET not in repr(provider)
    assert "credentials.roles.assets_rw isn't set" in str(failed(provider, "assets_rw"))


def test_env_defaults_serve_all_roles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    provider = provider_for(profile_of("env"))
    assert {provider.get(role) for role in ROLES} == {Credentials(KEY_ID, SECRET)}
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    assert provider.get("raw_ro").session_token == "token"


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({}, "variable K isn't set"),
        ({"K": KEY_ID}, "variable S isn't set"),
        ({"K": KEY_ID, "S": ""}, "variable S is empty"),
        ({"K": KEY_ID, "S": SECRET + "\r"}, "variable S holds blanks"),
        ({"K": KEY_ID, "S": SECRET}, "variable T isn't set"),
    ],
)
def test_env_names_the_variable_and_the_role(environ: dict[str, str], words: str) -> None:
    provider = provider_for(profile_of("env", {"raw_rw": RoleRefs("K", "S", "T")}), environ=environ)
    error = failed(provider)
    assert words in str(error) and "raw_rw" in str(error) and error.provider == "env"


# --- aws -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """boto3's chain with nothing in it: no variables, no files, no metadata service. Returns the credentials file."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    return tmp_path / "credentials"


def test_aws_from_variables(chain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    provider = provider_for(profile_of("aws"))
    assert {provider.get(role) for role in ROLES} == {Credentials(KEY_ID, SECRET, "token")}


def test_aws_from_a_file_with_a_profile(chain: Path) -> None:
    chain.write_text(f"[lab]\naws_access_key_id = {KEY_ID}\naws_secret_access_key = {SECRET}\n")
    provider = provider_for(profile_of("aws", aws_profile="lab"))
    assert provider.get("raw_rw") == Credentials(KEY_ID, SECRET)
    chain.write_text("[lab]\naws_access_key_id = new\naws_secret_access_key = rotated\n")
    assert provider.get("raw_rw").access_key_id == KEY_ID
    assert provider.refresh("raw_rw") == Credentials("new", "rotated")
    assert "profile lab" in provider.describe("raw_rw")


def test_aws_has_none(chain: Path) -> None:
    error = failed(provider_for(profile_of("aws")))
    assert "the AWS chain" in str(error) and "aws configure list" in (error.hint or "") and error.provider == "aws"


def test_aws_profile_that_is_not_there(chain: Path) -> None:
    error = failed(provider_for(profile_of("aws", aws_profile="lab")))
    assert "lab" in str(error) and "--profile lab" in (error.hint or "")


@pytest.mark.parametrize("process", [f"echo {SECRET}", "no-such-program", "false"])
def test_aws_credential_process_that_fails(chain: Path, process: str) -> None:
    chain.with_name("config").write_text(f"[default]\ncredential_process = {process}\n")
    assert "the AWS chain failed" in str(failed(provider_for(profile_of("aws"))))


# --- local, and what is imported -------------------------------------------------------------------------------------


def test_local_is_never_asked_for_any() -> None:
    local = Profile(
        "local", "local", Path("/x"), None, "auto", BucketRef("raw"), BucketRef("assets"), CredentialsConfig()
    )
    provider = provider_for(local)
    assert "directory" in provider.describe("raw_rw")
    assert "local directory" in str(failed(provider))


def test_boto3_is_imported_by_the_aws_provider_only() -> None:
    program = """
import sys
from ursa.config import load_config
from ursa.credentials import provider_for
provider_for(load_config().profile("local")).describe("raw_ro")
print(sorted({"boto3", "botocore", "rich", "typer"} & set(sys.modules)))
"""
    environ = os.environ | {
        "PYTHONPATH": str(Path(config_module.__file__).parents[2]),
        "XDG_CONFIG_HOME": "/nonexistent",
    }
    done = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr
