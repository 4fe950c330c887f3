"""Access keys by role, read when they are needed and kept in memory only.

Three providers: ``1password`` runs ``op read``, ``env`` reads environment variables, ``aws`` asks boto3's own chain.
A secret is never part of a command line, a repr, a pickle, a message, or the cause or context of an error.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol

from ursa.config import ENV_DEFAULTS, ROLES, CredentialsConfig, Profile, Role, RoleRefs
from ursa.errors import CredentialsError

__all__ = ["OP_TIMEOUT_S", "ROLES", "Credentials", "CredentialsProvider", "Role", "provider_for"]

OP_TIMEOUT_S = 60.0  # a read takes about a second; the rest is for a fingerprint at the prompt
_QUOTED = 200  # characters of somebody else's message that are worth quoting

Runner = Callable[..., "subprocess.CompletedProcess[str]"]


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """An access key. Its repr shows nothing, and it doesn't pickle: secrets don't leave this process by accident."""

    access_key_id: str
    secret_access_key: str
    session_token: str | None = None

    def __repr__(self) -> str:
        return "Credentials(hidden)"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("Credentials don't pickle: have the other process read its own through provider_for(profile).")


class CredentialsProvider(Protocol):
    """Where credentials come from. All methods are thread-safe and raise CredentialsError."""

    def get(self, role: Role) -> Credentials:
        """The role's credentials, from memory when they were read before."""

    def refresh(self, role: Role) -> Credentials:
        """The role's credentials, read again: after a 401 or 403 in a long run."""

    def describe(self, role: Role) -> str:
        """Where the role's credentials come from, in words; reads nothing and shows no value."""


def provider_for(
    profile: Profile,
    *,
    run: Runner = subprocess.run,
    environ: Mapping[str, str] | None = None,
    timeout_s: float = OP_TIMEOUT_S,
) -> CredentialsProvider:
    """The provider that the profile names. Nothing is run or read until ``get``.

    Args:
        run: what starts ``op``.
        environ: the environment that ``env`` reads and ``op`` gets; by default the process's own, as it then is.
            boto3's chain always reads the process's own.
        timeout_s: how long one ``op read`` may take, in seconds.
    """
    if profile.kind == "local":
        return _Local(profile)
    environ = os.environ if environ is None else environ
    match profile.credentials.provider:
        case "1password":
            return _OnePassword(profile, run, environ, timeout_s)
        case "env":
            return _Environment(profile, environ)
        case "aws":
            return _BotoChain(profile)


@dataclass(frozen=True)
class _Local:
    profile: Profile

    def get(self, role: Role) -> Credentials:
        raise CredentialsError(
            f"Profile {self.profile.name!r} is a local directory: there are no credentials for {role}.",
            hint="This is a bug in ursa: a local store needs no credentials.",
            role=role,
            provider="local",
        )

    refresh = get

    def describe(self, role: Role) -> str:
        return f"local: a directory needs no credentials for {role}"


def _refs(profile: Profile, role: Role) -> tuple[Role, RoleRefs]:
    """The references that serve the role, and the role they are configured for."""
    config = profile.credentials
    if role not in ROLES:
        raise CredentialsError(
            f"There is no role {role!r}.", hint=f"Roles: {', '.join(ROLES)}.", role=role, provider=config.provider
        )
    found = config.refs(role)
    if found is None:
        key = f"profiles.{profile.name}.credentials.roles.{role}"
        raise CredentialsError(
            f"Profile {profile.name!r} has no credentials for {role}: {key} isn't set.",
            hint=f"Add {key}: {{access_key_id: …, secret_access_key: …}} to {profile.source or 'the config file'}.",
            role=role,
            provider=config.provider,
        )
    return found


def _names(refs: RoleRefs) -> list[str]:
    return [ref for ref in (refs.access_key_id, refs.secret_access_key, refs.session_token) if ref is not None]


def _describe(config: CredentialsConfig, role: Role, owner: Role, refs: RoleRefs) -> str:
    through = f" (through {owner})" if owner != role else ""
    return f"{config.provider}{through}: {', '.join(_names(refs))}"


def _unusable(value: str) -> str | None:
    """Why this can't be a key, in words without the value; None when it can."""
    if not value.strip():
        return "is empty"
    if any(letter.isspace() or not letter.isprintable() or letter == "\ufffd" for letter in value):
        return "holds blanks, line breaks or other characters that no key has"
    return None


_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)?", re.DOTALL)


def _quote(text: str, secrets: Iterable[str]) -> str:
    """Somebody else's message on one line, without control characters and with every secret masked, then shortened."""
    hidden = sorted({secret for secret in secrets if secret}, key=len, reverse=True)
    for secret in hidden:
        text = text.replace(secret, "***")
    text = _ESCAPES.sub("", text)
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    for secret in hidden:  # again: an escape sequence may have cut one in two
        text = text.replace(secret, "***")
    return text if len(text) <= _QUOTED else text[:_QUOTED] + "…"


# --- 1password -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Failure:
    """Why ``op`` gave no value. ``said`` is its stderr as it came, to be quoted when the secrets to mask are known."""

    ref: str
    kind: str  # a key of _EXPLAIN
    said: str = field(default="", repr=False)


_SIGNED_OUT = re.compile(
    r"not (?:currently )?signed in|session expired|sign in to create|no accounts? (?:is |are )?configured"
    r"|authorization (?:prompt|timeout|timed out|denied)|prompt dismissed|connecting to desktop app|locked",
    re.IGNORECASE,
)
_NO_ITEM = re.compile(
    r"isn't an? (?:item|vault|field|section)|(?:could not|couldn't) (?:find|get) (?:item|vault|field)"
    r"|does not have a field|\b(?:item|vault|field|section|secret)\b.*not found",
    re.IGNORECASE,
)


class _OnePassword:
    """``op read``, once for every distinct reference; the values of a role in parallel, for each takes a second."""

    def __init__(self, profile: Profile, run: Runner, environ: Mapping[str, str], timeout_s: float) -> None:
        self._profile = profile
        self._run = run
        self._environ = environ
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._reads: dict[str, Future[str | _Failure]] = {}
        self._secrets: set[str] = set()

    def get(self, role: Role) -> Credentials:
        return self._get(role, again=False)

    def refresh(self, role: Role) -> Credentials:
        return self._get(role, again=True)

    def describe(self, role: Role) -> str:
        return _describe(self._profile.credentials, role, *_refs(self._profile, role))

    def _get(self, role: Role, *, again: bool) -> Credentials:
        _, refs = _refs(self._profile, role)
        reads = self._start(_names(refs), again=again)
        results = {ref: read.result() for ref, read in reads.items()}
        self._keep(reads, results)
        values = {ref: value for ref, value in results.items() if isinstance(value, str)}
        for failure in results.values():
            if isinstance(failure, _Failure):
                raise self._error(failure, role)
        token = values[refs.session_token] if refs.session_token else None
        return Credentials(values[refs.access_key_id], values[refs.secret_access_key], token)

    def _start(self, refs: list[str], *, again: bool) -> dict[str, Future[str | _Failure]]:
        """The reads of these references, started where there is none yet; a read that is under way is joined."""
        with self._lock:
            stale = [
                ref for ref in dict.fromkeys(refs) if ref not in self._reads or (again and self._reads[ref].done())
            ]
            if stale:
                pool = ThreadPoolExecutor(len(stale), thread_name_prefix="ursa-op")
                self._reads |= {ref: pool.submit(self._read, ref) for ref in stale}
                pool.shutdown(wait=False)  # its threads end with their read
            return {ref: self._reads[ref] for ref in refs}

    def _keep(self, reads: Mapping[str, Future[str | _Failure]], results: Mapping[str, str | _Failure]) -> None:
        """Forget the failures, so that the next call tries again, and remember what must never be quoted."""
        with self._lock:
            for ref, result in results.items():
                if isinstance(result, str):
                    self._secrets.add(result)
                elif self._reads.get(ref) is reads[ref]:
                    del self._reads[ref]

    def _read(self, ref: str) -> str | _Failure:
        try:
            done = self._run(
                ["op", "read", ref],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=self._timeout_s,
                env=dict(self._environ),
                check=False,
            )
        except FileNotFoundError:
            return _Failure(ref, "missing")
        except subprocess.TimeoutExpired:
            return _Failure(ref, "timeout")
        except OSError as error:
            return _Failure(ref, "not_run", error.strerror or "")
        if done.returncode:
            return _Failure(ref, _kind(done.stderr), done.stderr or f"exit status {done.returncode}")
        value = done.stdout.removesuffix("\n")
        problem = _unusable(value)
        return _Failure(ref, "unusable", problem) if problem else value

    def _error(self, failure: _Failure, role: Role) -> CredentialsError:
        with self._lock:
            secrets = [*self._secrets, *_session_secrets(self._environ)]
        said = _quote(failure.said, secrets)
        words, hint = _EXPLAIN[failure.kind]
        message = words.format(ref=failure.ref, said=said, seconds=self._timeout_s)
        if failure.kind in ("signed_out", "timeout") and self._unattended():
            message += " There is no terminal to ask at, and no OP_SERVICE_ACCOUNT_TOKEN: cron needs one."
            hint = "Set OP_SERVICE_ACCOUNT_TOKEN in the job's environment, or use `credentials.provider: env` there."
        return CredentialsError(
            f"No credentials for {role} of profile {self._profile.name!r}: {message}",
            hint=hint,
            role=role,
            provider="1password",
        )

    def _unattended(self) -> bool:
        return not self._environ.get("OP_SERVICE_ACCOUNT_TOKEN") and not _at_a_terminal()


_EXPLAIN = {
    "missing": (
        "the 1Password command line `op` isn't on the PATH.",
        "Install it (https://developer.1password.com/docs/cli), or use `credentials.provider: env` (cron).",
    ),
    "not_run": ("`op` can't be run: {said}.", "`command -v op` shows which file it is; check its permissions."),
    "signed_out": (
        "1Password is locked or not signed in. op said: {said}",
        "`op signin`, or switch on Settings → Developer → Integrate with 1Password CLI in the app; then `op whoami`.",
    ),
    "timeout": (
        "`op read {ref}` gave no answer in {seconds:g} s; its prompt may be waiting on the screen.",
        "Unlock 1Password (`op signin`) and try again.",
    ),
    "no_item": (
        "1Password has nothing at {ref}. op said: {said}",
        "Mend the reference in the config file (`ursa config show`); `op item list` shows what there is.",
    ),
    "unusable": ("the value at {ref} {said}.", "Mend the field in 1Password, or the reference in the config file."),
    "failed": ("`op read {ref}` failed. op said: {said}", "`op whoami` tells whether 1Password answers."),
}


def _kind(stderr: str) -> str:
    if _SIGNED_OUT.search(stderr):
        return "signed_out"
    return "no_item" if _NO_ITEM.search(stderr) else "failed"


def _session_secrets(environ: Mapping[str, str]) -> list[str]:
    """What lets ``op`` in; it must not be quoted either."""
    return [value for name, value in environ.items() if name.startswith(("OP_SESSION", "OP_SERVICE_ACCOUNT_TOKEN"))]


def _at_a_terminal() -> bool:
    try:
        return sys.stdin is not None and sys.stdin.isatty()
    except ValueError:  # closed
        return False


# --- env -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Environment:
    profile: Profile
    environ: Mapping[str, str] = field(repr=False)

    def get(self, role: Role) -> Credentials:
        _, refs = _refs(self.profile, role)
        token = refs.session_token
        if refs is ENV_DEFAULTS and not self.environ.get(ENV_DEFAULTS.session_token or ""):
            token = None  # only temporary credentials have one
        return Credentials(
            self._value(refs.access_key_id, role),
            self._value(refs.secret_access_key, role),
            self._value(token, role) if token else None,
        )

    refresh = get

    def describe(self, role: Role) -> str:
        return _describe(self.profile.credentials, role, *_refs(self.profile, role))

    def _value(self, name: str, role: Role) -> str:
        value = self.environ.get(name)
        problem = "isn't set" if value is None else _unusable(value)
        if value is None or problem:
            raise CredentialsError(
                f"No credentials for {role} of profile {self.profile.name!r}: environment variable {name} {problem}.",
                hint=f"Set {name} in the environment that ursa runs in (`export {name}=…`, or the cron job's file).",
                role=role,
                provider="env",
            )
        return value


# --- aws -------------------------------------------------------------------------------------------------------------


class _BotoChain:
    """boto3's chain: variables, credentials file, SSO, roles. It renews temporary credentials by itself."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._lock = threading.Lock()
        self._source: Any = None  # botocore's Credentials, the same for all roles

    def get(self, role: Role) -> Credentials:
        return self._get(role, again=False)

    def refresh(self, role: Role) -> Credentials:
        return self._get(role, again=True)

    def describe(self, role: Role) -> str:
        name = self._profile.credentials.aws_profile
        return f"aws: boto3's chain{f', profile {name},' if name else ''} for {role} as for every role"

    def _get(self, role: Role, *, again: bool) -> Credentials:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            with self._lock:
                if again or self._source is None:
                    self._source = self._find()
                frozen = self._source.get_frozen_credentials() if self._source else None
        except (BotoCoreError, ClientError, OSError, ValueError) as error:  # the last two: a bad credential process
            problem = f"the AWS chain failed: {_quote(str(error), [])}"
        else:
            if frozen and frozen.access_key and frozen.secret_key:
                return Credentials(frozen.access_key, frozen.secret_key, frozen.token)
            problem = "the AWS chain (environment, ~/.aws, SSO, instance role) has none."
        # Raised out here: an error of botocore may hold what a credential process printed.
        name = self._profile.credentials.aws_profile
        option = f" --profile {name}" if name else ""
        raise CredentialsError(
            f"No credentials for {role} of profile {self._profile.name!r}: {problem}",
            hint=f"`aws configure list{option}` shows what the chain finds; `aws sso login{option}` renews a login.",
            role=role,
            provider="aws",
        )

    def _find(self) -> Any:
        import boto3

        return boto3.session.Session(profile_name=self._profile.credentials.aws_profile).get_credentials()
