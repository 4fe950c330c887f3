"""Profiles: which buckets, at which endpoint, and where the credentials are found; never a secret.

One YAML file holds them: the one that is given, else ``config.yaml`` in the user's config directory. No environment
variable selects a file or a profile. ``local``, ``r2`` and ``r2-test`` are built in; a profile in the file is merged
over the built-in of its name and over the one that it ``extends``. The file as it is typed is checked by pydantic
models; what the rest of ursa sees are frozen dataclasses.
"""

from __future__ import annotations

import difflib
import errno
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, available_timezones

import platformdirs
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from ursa.errors import ConfigError

Role = Literal["raw_ro", "raw_rw", "assets_ro", "assets_rw"]
ProviderName = Literal["1password", "env", "aws"]
Kind = Literal["local", "s3"]

ROLES: tuple[Role, ...] = get_args(Role)
PROVIDERS: tuple[ProviderName, ...] = get_args(ProviderName)
_FALLBACK: Mapping[Role, Role] = {"raw_ro": "raw_rw", "assets_ro": "assets_rw"}

_LAYOUT = {"raw": ("constellation-data", "recordings/"), "assets": ("constellation-assets", "ursa/")}
_BUILT_IN: Mapping[str, dict[str, Any]] = {
    "local": {section: {"bucket": bucket} for section, (bucket, _) in _LAYOUT.items()},
    "r2": {section: {"bucket": bucket} for section, (bucket, _) in _LAYOUT.items()},
    "r2-test": {section: {"bucket": f"{bucket}-test"} for section, (bucket, _) in _LAYOUT.items()},
}
_NEEDS_ENDPOINT = ("r2", "r2-test")  # nothing turns these into a local directory

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_REGION = re.compile(r"[A-Za-z0-9-]+")
_OFFSET = re.compile(r"[+-](\d\d):(\d\d)", re.ASCII)
_OP_REFERENCE = re.compile(r"op://[^/]+/[^/]+(/[^/]+)?/[^/]+")
_ENV_NAME = re.compile(r"\$?([A-Za-z_][A-Za-z0-9_]*)|\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_KEY_LIKE = re.compile(r"(?=[^_]*\d)[^_]{20,}")  # access keys are spelled like names: 20 letters and digits, no `_`
_PLACEHOLDER = re.compile(r"<[^<>]+>")


@dataclass(frozen=True)
class BucketRef:
    """A bucket and the prefix of all our keys in it; the prefix is empty or ends with '/'.

    Raises:
        ConfigError: the bucket's name or the prefix is none that every S3 server takes; ``key`` says which.
    """

    bucket: str
    prefix: str = ""

    def __post_init__(self) -> None:
        if not _BUCKET.fullmatch(self.bucket) or ".." in self.bucket:
            raise ConfigError(
                f"{self.bucket!r} is no bucket name: 3 to 63 of a-z, 0-9, '-' and '.', ends in a letter or digit",
                key="bucket",
            )
        prefix = self.prefix if self.prefix.endswith("/") or not self.prefix else self.prefix + "/"
        steps = prefix.split("/")[:-1]
        if not prefix.isprintable() or "\\" in prefix or any(step in ("", ".", "..") for step in steps):
            raise ConfigError(
                f"{self.prefix!r} is no key prefix: no leading or double '/', no '.' or '..' step, no '\\'",
                key="prefix",
            )
        object.__setattr__(self, "prefix", prefix)


@dataclass(frozen=True)
class RoleRefs:
    """Where a role's values are: ``op://`` references (1password) or environment variable names (env)."""

    access_key_id: str
    secret_access_key: str
    session_token: str | None = None


_REQUIRED = {"access_key_id", "secret_access_key"}
ENV_DEFAULTS = RoleRefs("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


@dataclass(frozen=True)
class CredentialsConfig:
    """How credentials are found. ``aws_profile`` is for the provider ``aws``, ``roles`` for the two others."""

    provider: ProviderName = "1password"
    roles: Mapping[Role, RoleRefs] = field(default_factory=dict, hash=False)
    aws_profile: str | None = None

    def refs(self, role: Role) -> tuple[Role, RoleRefs] | None:
        """The references that serve ``role`` and the role they are configured for; None when there are none.

        Reading falls back to the writing role of the same bucket, never the other way round. The provider ``env``
        without any role serves all of them from the usual ``AWS_*`` variables.
        """
        if self.provider == "env" and not self.roles:
            return role, ENV_DEFAULTS
        for candidate in (role, _FALLBACK.get(role)):
            if candidate is not None and candidate in self.roles:
                return candidate, self.roles[candidate]
        return None


@dataclass(frozen=True)
class Profile:
    """One store and its catalog, checked and complete.

    ``root`` is an absolute directory on ``local`` and None on ``s3``; ``endpoint_url`` the other way round.
    ``rig_timezone`` is an IANA name or ±HH:MM, for recordings whose manifest states no zone.
    ``source`` is the config file, None when the profile is the built-in one.
    """

    name: str
    kind: Kind
    root: Path | None
    endpoint_url: str | None
    region: str
    raw: BucketRef
    assets: BucketRef
    credentials: CredentialsConfig
    rig_timezone: str | None = None
    source: Path | None = None


@dataclass(frozen=True)
class Config:
    """What a config file says. ``path`` is None when there is no file and the built-in profiles are all there is."""

    path: Path | None
    _drafts: Mapping[str, _Draft] = field(repr=False, hash=False)

    def profile_names(self) -> list[str]:
        """The built-in profiles and those of the file, sorted."""
        return sorted(self._drafts)

    def profile(self, name: str) -> Profile:
        """The profile of this name and never another one.

        Raises:
            ConfigError: no such profile, or it is incomplete, or a value in it can't be used.
        """
        if name not in self._drafts:
            known = self.profile_names()
            names = f"{_nearest(name, known)}; known: {', '.join(known)}"
            raise ConfigError(
                f"There is no profile {name!r} {_in_file(self.path)}{names}.",
                hint="`--profile NAME` with a known one, or add it to the config file (`ursa config init` writes one).",
                path=str(self.path) if self.path else None,
            )
        return _build(self._drafts[name])


def default_config_path() -> Path:
    """``config.yaml`` in the user's config directory; the file need not exist.

    Raises:
        ConfigError: this account has no home directory.
    """
    path = _default_path()
    if path is None:
        raise ConfigError("No home directory is known, so there is no default config file.", hint="`--config PATH`")
    return path


def load_config(config_path: Path | None = None) -> Config:
    """Read and check the file ``config_path``; by default the user's own, which may be absent.

    Every profile in it is checked for unknown keys, types, ``extends`` and literal secrets; whether a profile is
    complete is only asked when it is used, so that ``local`` works beside an unfinished ``r2``.

    Raises:
        ConfigError: the file is missing (when given), can't be read, is no YAML, or is wrong.
    """
    path = _locate(config_path)
    text = _read(path, required=config_path is not None) if path else None
    if path is None or text is None:
        return Config(None, _drafts({}, None))
    return Config(path, _drafts(_parse(text, path), path))


def effective(profile: Profile) -> dict[str, Any]:
    """Everything as it is used, defaults and fallbacks included; references and variable names, never a value."""
    return {
        "profile": profile.name,
        "source": str(profile.source) if profile.source else None,
        "kind": profile.kind,
        "root": str(profile.root) if profile.root else None,
        "endpoint_url": profile.endpoint_url,
        "region": profile.region,
        "raw": asdict(profile.raw),
        "assets": asdict(profile.assets),
        "credentials": _effective_credentials(profile.credentials) if profile.kind == "s3" else None,
        "rig_timezone": profile.rig_timezone,
    }


def _effective_credentials(credentials: CredentialsConfig) -> dict[str, Any]:
    if credentials.provider == "aws":
        return {"provider": "aws", "aws_profile": credentials.aws_profile}
    roles = {role: credentials.refs(role) for role in ROLES}
    return {
        "provider": credentials.provider,
        "roles": {role: {"role": found[0], **asdict(found[1])} if found else None for role, found in roles.items()},
    }


# --- the file as it is typed -----------------------------------------------------------------------------------------


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class _BucketSection(_Section):
    bucket: str | None = None
    prefix: str | None = None


class _RoleSection(_Section):
    access_key_id: str | None = None
    secret_access_key: str | None = None
    session_token: str | None = None


class _RolesSection(_Section):
    raw_ro: _RoleSection | None = None
    raw_rw: _RoleSection | None = None
    assets_ro: _RoleSection | None = None
    assets_rw: _RoleSection | None = None


class _CredentialsSection(_Section):
    provider: ProviderName | None = None
    roles: _RolesSection | None = None
    aws_profile: str | None = None


class _ProfileSection(_Section):
    extends: str | None = None
    root: str | None = None
    endpoint_url: str | None = None
    region: str | None = None
    raw: _BucketSection | None = None
    assets: _BucketSection | None = None
    credentials: _CredentialsSection | None = None
    rig_timezone: str | None = None


class _File(_Section):
    profiles: dict[str, _ProfileSection | None] | None = None


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice, and for which +10:00 is text (YAML 1.1 reads the number 600)."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        first: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in first:
                problem = f"the key {key.value!r} is there twice, first on line {first[key.value]}"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            first[key.value] = key.start_mark.line + 1
        return node


_Loader.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0].rpartition(":")[2] not in ("int", "float", "timestamp")]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?(?:0|[1-9]\d{0,17})$"), list("-+0123456789"))


def _error(file: Path | str, words: str, *, hint: str | None = None, key: str | None = None) -> ConfigError:
    """An error about a file, or about one setting in it."""
    hint = hint or f"Mend {key or 'it'} in {file}; `ursa config show --config {file}` checks it."
    return ConfigError(f"{file}: {key}: {words}" if key else f"{file}: {words}", hint=hint, path=str(file), key=key)


def _default_path() -> Path | None:
    """None without a home directory to look in (cron in a container)."""
    try:
        path = platformdirs.user_config_path("ursa") / "config.yaml"
    except RuntimeError:
        return None
    return path if path.is_absolute() else None


def _locate(config_path: Path | None) -> Path | None:
    """The absolute path to read, if there can be one."""
    if config_path is None:
        return _default_path()
    try:
        return Path(config_path).expanduser().absolute()
    except RuntimeError:
        raise _error(config_path, "'~' has no meaning here: no home directory is known.") from None


def _read(path: Path, *, required: bool) -> str | None:
    """The file's text; None when it isn't there and need not be."""
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        if not required:
            return None
        hint = f"Check the path, or write a commented one: `ursa config init --config {path}`."
        raise _error(path, "there is no such config file.", hint=hint) from None
    except OSError as error:
        raise _error(path, f"can't be read: {error.strerror}.", hint=f"`ls -l {path}`") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
    # Raised out here: the decoder's error holds the bytes of the file.
    raise _error(path, f"line {line}: not UTF-8 text.", hint=f"Save {path} as UTF-8.")


def _parse(text: str, source: Path) -> dict[str, dict[str, Any]]:
    """The profiles of the file, only the keys that are typed in it."""
    key = None
    try:
        content = yaml.load(text, Loader=_Loader)  # a SafeLoader
        parsed = _File.model_validate({} if content is None else content)
    except yaml.MarkedYAMLError as error:
        problem = f"{_line_and_column(error)}: {error.problem or error.context}."
    except yaml.reader.ReaderError as error:
        problem = f"{_position(text, error.position)}: a character that YAML doesn't allow."
    except RecursionError:
        problem = "brackets nested too deeply."
    except ValidationError as error:
        problems = [_in_words(details) for details in error.errors(include_url=False)]
        key, problem = problems[0][0], "\n  ".join(words for _, words in problems)
    else:
        return {name: _typed(section) for name, section in (parsed.profiles or {}).items()}
    # Raised out here: the errors of yaml and pydantic hold the text of the file.
    failure = _error(source, problem)
    failure.key = key
    raise failure


def _position(text: str, index: int) -> str:
    before = text[:index]
    return f"line {before.count(chr(10)) + 1}, column {len(before) - before.rfind(chr(10))}"


def _typed(section: _ProfileSection | None) -> dict[str, Any]:
    return section.model_dump(exclude_unset=True) if section else {}


def _line_and_column(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    return f"line {mark.line + 1}, column {mark.column + 1}" if mark else "somewhere"


_FOUND: Mapping[type, str] = {
    str: "text",
    bool: "a yes/no value",
    int: "a number",
    list: "a list",
    dict: "a mapping",
    type(None): "nothing",
}
_EXPECTED = {"string_type": "text", "model_type": "a mapping (`key: value`)", "dict_type": "a mapping (`key: value`)"}


def _in_words(details: Any) -> tuple[str, str]:
    """One error of pydantic: its dotted path, and what was found and expected there; never the value of a reference."""
    loc = tuple(str(part) for part in details["loc"] if part != "[key]")
    dotted = ".".join(loc) or "the top level"
    if details["type"] == "extra_forbidden":
        known = _known_keys(loc[:-1])
        return dotted, f"{dotted}: unknown key{_nearest(loc[-1], known)}; known here: {', '.join(known)}."
    value = details["input"]
    if details["type"] == "literal_error":
        nearest = _nearest(value, PROVIDERS) if isinstance(value, str) else ""
        found = repr(value[:40]) if isinstance(value, str) else _found(value)
        return dotted, f"{dotted}: found {found}, expected one of {', '.join(PROVIDERS)}{nearest}."
    expected = _EXPECTED.get(details["type"], details["msg"])
    quotes = " (put it in quotes)" if expected == "text" and isinstance(value, int) else ""
    return dotted, f"{dotted}: found {_found(value)}, expected {expected}{quotes}."


def _found(value: object) -> str:
    return _FOUND.get(type(value), f"a {type(value).__name__}")


def _known_keys(parents: tuple[str, ...]) -> list[str]:
    """The keys that the section at this path has."""
    section: type[_Section]
    match parents:
        case ():
            section = _File
        case ("profiles", _):
            section = _ProfileSection
        case (_, _, "credentials"):
            section = _CredentialsSection
        case (_, _, "credentials", "roles"):
            section = _RolesSection
        case (_, _, "credentials", "roles", _):
            section = _RoleSection
        case _:
            section = _BucketSection
    return list(section.model_fields)


def _nearest(word: str, known: list[str] | tuple[str, ...]) -> str:
    found = difflib.get_close_matches(word.casefold(), known, n=1, cutoff=0.5)
    return f" (did you mean {found[0]!r}?)" if found else ""


def _in_file(path: Path | None) -> str:
    return f"in {path}" if path else f"among the built-in ones, and {_file_name(path)} isn't there"


def _file_name(source: Path | None) -> str:
    """The config file, or where it would be."""
    return str(source or _default_path() or "the config file (`--config PATH`)")


# --- merging ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Draft:
    """A profile after merging, not yet known to be complete. ``typed``: what each profile it came from says itself."""

    name: str
    kind: Kind
    settings: dict[str, Any]
    typed: tuple[tuple[str, dict[str, Any]], ...]
    source: Path | None

    def get(self, dotted: str) -> Any:
        return _lookup(self.settings, dotted)

    def key(self, dotted: str) -> str:
        """The dotted path where the setting is typed, be it in a profile that this one extends."""
        owners = [name for name, own in self.typed if _lookup(own, dotted) is not None]
        return f"profiles.{owners[0] if owners else self.name}.{dotted}"

    def error(self, dotted: str, words: str, hint: str | None = None) -> ConfigError:
        return _error(_file_name(self.source), words, hint=hint, key=self.key(dotted))

    @contextmanager
    def at(self, dotted: str) -> Iterator[None]:
        """Give the errors of a check their file and key."""
        try:
            yield
        except ConfigError as error:
            raise self.error(dotted, error.message, error.hint) from None


def _lookup(settings: Mapping[str, Any], dotted: str) -> Any:
    value: Any = settings
    for part in dotted.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _drafts(declared: Mapping[str, dict[str, Any]], source: Path | None) -> dict[str, _Draft]:
    drafts = {name: _resolve(name, declared, source) for name in (*_BUILT_IN, *declared)}
    for draft in drafts.values():
        _refuse_bad_name(draft)
        _references(draft)  # also of the profiles that nobody asked for: a secret must not lie in the file
    return drafts


def _resolve(
    name: str, declared: Mapping[str, dict[str, Any]], source: Path | None, trail: tuple[str, ...] = ()
) -> _Draft:
    """Merge, weakest first: the profile it extends, the built-in of its name, what is typed under its name.

    The built-in lies over the extended one so that ``r2-test: {extends: r2}`` keeps the test buckets.
    """
    own = declared.get(name, {})
    parent = own.get("extends")
    base = None
    if parent is not None:
        _refuse_bad_parent(name, parent, (*trail, name), declared, source)
        base = _resolve(parent, declared, source, (*trail, name))
    settings = _merge(_merge(base.settings if base else {}, _BUILT_IN.get(name, {})), own)
    return _Draft(name, _kind(name, base, settings), settings, ((name, own), *(base.typed if base else ())), source)


def _kind(name: str, base: _Draft | None, settings: Mapping[str, Any]) -> Kind:
    if name in _NEEDS_ENDPOINT:
        return "s3"
    directory = settings.get("root") and not settings.get("endpoint_url")
    return "local" if name == "local" or (base and base.kind == "local") or directory else "s3"


def _refuse_bad_parent(
    name: str, parent: str, trail: tuple[str, ...], declared: Mapping[str, Any], source: Path | None
) -> None:
    known = sorted({*_BUILT_IN, *declared})
    if parent in trail:
        words = f"goes round in a circle: {' → '.join((*trail, parent))}."
    elif parent not in known:
        words = f"there is no profile {parent!r}{_nearest(parent, known)}; known: {', '.join(known)}."
    else:
        return
    assert source  # the built-in profiles extend nothing
    raise _error(source, words, key=f"profiles.{name}.extends")


def _merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` over ``under``, section by section. An empty section changes nothing; a null value unsets."""
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        if key == "credentials" and below and value and value.get("provider") not in (None, _provider(below)):
            below = None  # references mean nothing to another provider
        if isinstance(value, dict):
            merged[key] = _merge(below or {}, value)
        elif value is not None or not isinstance(below, dict):
            merged[key] = value
    return merged


def _provider(credentials: Mapping[str, Any]) -> ProviderName:
    return credentials.get("provider") or "1password"


def _refuse_bad_name(draft: _Draft) -> None:
    if draft.source and not _NAME.fullmatch(draft.name):
        key = f"profiles.{draft.name!r}"
        raise _error(draft.source, "a profile's name is letters, digits, '.', '_' and '-'.", key=key)


# --- building --------------------------------------------------------------------------------------------------------


def _build(draft: _Draft) -> Profile:
    _refuse_placeholders(draft)
    _refuse_contradictions(draft)
    _refuse_missing(draft)
    with draft.at("region"):
        region = _region(draft.get("region") or "auto")
    with draft.at("rig_timezone"):
        rig_timezone = _timezone(draft.get("rig_timezone"))
    return Profile(
        name=draft.name,
        kind=draft.kind,
        root=_root(draft) if draft.kind == "local" else None,
        endpoint_url=_endpoint(draft) if draft.kind == "s3" else None,
        region=region,
        raw=_bucket(draft, "raw"),
        assets=_bucket(draft, "assets"),
        credentials=_credentials(draft),
        rig_timezone=rig_timezone,
        source=draft.source,
    )


def _refuse_placeholders(draft: _Draft) -> None:
    left = [draft.key(dotted) for dotted, value in _leaves(draft.settings) if _PLACEHOLDER.search(value)]
    if left and draft.source:
        raise ConfigError(
            f"{draft.source}: profile {draft.name!r} still has <placeholders> to fill in: {', '.join(left)}.",
            hint=f"Fill them in: edit {draft.source}, then `ursa config show --profile {draft.name}`.",
            path=str(draft.source),
            key=left[0],
        )


def _leaves(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Every text value with its dotted path."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{above}{key}.")
        elif isinstance(value, str):
            yield f"{above}{key}", value


def _refuse_contradictions(draft: _Draft) -> None:
    if draft.kind == "local" and draft.get("endpoint_url"):
        raise draft.error("endpoint_url", f"profile {draft.name!r} is a local directory and has no endpoint.")
    if draft.kind == "s3" and draft.get("root"):
        raise draft.error("root", f"profile {draft.name!r} has an endpoint and buckets; `root` is for local profiles.")


def _refuse_missing(draft: _Draft) -> None:
    if draft.kind == "local":
        return
    missing = [dotted for dotted in ("endpoint_url", "raw.bucket", "assets.bucket") if not draft.get(dotted)]
    roles = draft.get("credentials.roles") or {}
    if _provider(draft.get("credentials") or {}) == "1password" and not any(roles.values()):
        missing.append("credentials.roles")
    for role, refs in roles.items():
        if refs is not None:
            missing += [f"credentials.roles.{role}.{name}" for name in sorted(_REQUIRED) if not refs.get(name)]
    if missing:
        raise _missing_error(draft, missing)


def _missing_error(draft: _Draft, missing: list[str]) -> ConfigError:
    keys = [f"profiles.{draft.name}.{dotted}" for dotted in missing]
    file = _file_name(draft.source)
    if draft.source:
        hint = f"Add them to {file}; `ursa config init --config example.yaml` writes a commented example."
    else:
        hint = f"`ursa config init` writes a commented {file}; fill it in."
    return ConfigError(
        f"Profile {draft.name!r} is incomplete: {', '.join(keys)} missing in {file}"
        + ("." if draft.source else ", which isn't there."),
        hint=hint,
        path=file,
        key=keys[0],
    )


def _root(draft: _Draft) -> Path:
    """The directory of a local profile, absolute; a relative one is relative to the config file."""
    given = draft.get("root")
    if given is not None and not (given.strip() and given.isprintable()):
        raise draft.error("root", "no path.")
    try:
        root = Path(given).expanduser() if given else platformdirs.user_data_path("ursa")
    except RuntimeError:
        root = None
    if root and given and draft.source:
        root = draft.source.parent / root
    if root is None or not root.is_absolute():
        raise draft.error("root", "no home directory is known; give an absolute path.")
    return root


def _endpoint(draft: _Draft) -> str:
    with draft.at("endpoint_url"):
        return _endpoint_url(draft.get("endpoint_url"))


def _endpoint_url(url: str) -> str:
    """An http(s) URL without a trailing '/'. The URL is never quoted in an error: it may hold a password."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or any(letter.isspace() or not letter.isprintable() for letter in url):
        raise ConfigError("not an http:// or https:// URL with a host.")
    if "@" in parts.netloc:
        raise ConfigError("holds a user name or password; credentials never stand in this file.")
    if parts.query or parts.fragment:
        raise ConfigError("has a '?' or '#' part; an endpoint is https://host or https://host:port.")
    if parts.path.strip("/") and str(parts.hostname).endswith(".r2.cloudflarestorage.com"):
        raise ConfigError("ends in a path; the bucket goes into raw.bucket and assets.bucket.")
    return url.rstrip("/?#")


def _region(region: str) -> str:
    if not _REGION.fullmatch(region):
        raise ConfigError(f"{region!r} is no region; 'auto' on R2, else like 'eu-central-1'.")
    return region


def _timezone(name: str | None) -> str | None:
    """An IANA name or ±HH:MM, up to 14 hours: the farthest offset in use."""
    if name is None:
        return None
    offset = _OFFSET.fullmatch(name)
    if offset and int(offset[1]) * 60 + int(offset[2]) <= 14 * 60 and int(offset[2]) < 60:
        return name
    try:
        ZoneInfo(name)
    except (ValueError, KeyError, OSError):
        nearest = difflib.get_close_matches(name, available_timezones(), n=1)
        guess = f" (did you mean {nearest[0]!r}?)" if nearest else ""
        raise ConfigError(
            f"{name!r} is no time zone{guess}; expected an IANA name such as Europe/Berlin, or ±HH:MM."
        ) from None
    return name


def _bucket(draft: _Draft, section: str) -> BucketRef:
    bucket, prefix = _LAYOUT[section]
    given = draft.get(f"{section}.prefix")
    name = draft.get(f"{section}.bucket") or bucket  # only local profiles get here without one
    try:
        return BucketRef(name, prefix if given is None else given)
    except ConfigError as error:
        raise draft.error(f"{section}.{error.key}", error.message) from None


def _credentials(draft: _Draft) -> CredentialsConfig:
    roles = {role: RoleRefs(**values) for role, values in _references(draft).items() if values.keys() >= _REQUIRED}
    provider = _provider(draft.get("credentials") or {})
    aws_profile = draft.get("credentials.aws_profile")
    if aws_profile is not None and provider != "aws":
        raise draft.error("credentials.aws_profile", f"only the provider 'aws' has it; this is {provider!r}.")
    return CredentialsConfig(provider, roles, aws_profile)


def _references(draft: _Draft) -> dict[Role, dict[str, str]]:
    """The references of every role that is configured, checked to be references and not secrets."""
    provider = _provider(draft.get("credentials") or {})
    checked: dict[Role, dict[str, str]] = {}
    for role in ROLES:
        values = draft.get(f"credentials.roles.{role}")
        if values is None:
            continue
        checked[role] = {}
        for name, value in values.items():
            if value is not None:
                with draft.at(f"credentials.roles.{role}.{name}"):
                    checked[role][name] = _reference(provider, value)
    return checked


def _reference(provider: ProviderName, value: str) -> str:
    """The reference as the provider takes it. An error never quotes the value: it may be the secret itself."""
    if _PLACEHOLDER.search(value):
        return value
    if provider == "1password":
        if not _OP_REFERENCE.fullmatch(value) or not value.isprintable():
            raise ConfigError("not shown, for it may be a secret; expected a reference op://vault/item/field.")
        return value
    if provider == "env":
        found = _ENV_NAME.fullmatch(value)
        name = found and (found[1] or found[2])
        if not name or _KEY_LIKE.fullmatch(name):
            raise ConfigError(
                "not shown, for it may be a secret; expected the name of an environment variable, NAME or ${NAME}."
            )
        return name
    raise ConfigError("the provider 'aws' takes no roles: boto3's own chain finds the credentials.")


# --- the template ----------------------------------------------------------------------------------------------------

_TEMPLATE = """\
# ursa's configuration. `ursa config show --profile NAME` prints what a profile comes to.
# There is never a secret in this file: only where the secrets are.
# Fill in what stands in <angle brackets>. Without `--profile`, commands use r2.

profiles:

  r2:
    endpoint_url: https://<account id>.r2.cloudflarestorage.com
    # region: auto                     # R2 has one region; another S3 server may want its own
    # raw: {bucket: constellation-data, prefix: recordings/}       # what the rigs recorded
    # assets: {bucket: constellation-assets, prefix: ursa/}        # the catalog
    # rig_timezone: Europe/Berlin      # IANA name or "+01:00", for recordings that state no zone; else UTC
    credentials:
      provider: 1password              # 1password, env or aws; see below
      roles:                           # raw_ro, raw_rw, assets_ro, assets_rw; reading falls back to writing
        raw_rw:
          access_key_id: op://Engineering/<item of raw rw>/access_key_id
          secret_access_key: op://Engineering/<item of raw rw>/secret_access_key
          # session_token: op://…      # only for temporary credentials
        assets_rw:
          access_key_id: op://Engineering/<item of assets rw>/access_key_id
          secret_access_key: op://Engineering/<item of assets rw>/secret_access_key

  # The same account with buckets of its own, constellation-data-test and constellation-assets-test.
  # `extends` takes over every setting of another profile; those given here go over it.
  r2-test:
    extends: r2
    # credentials: {…}                 # roles of its own, if the keys of r2 don't reach the test buckets

  # A directory on this computer, laid out like the buckets. Works without any configuration.
  local:
    # root: ~/ursa-data                # default: the user's data directory; relative to this file
    # rig_timezone: Europe/Berlin

  # Nobody is at the keyboard (cron): names of environment variables instead of 1Password.
  # Without `roles`, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN serve all of them.
  # cron:
  #   extends: r2
  #   credentials:
  #     provider: env
  #     roles:
  #       raw_rw: {access_key_id: RAW_KEY_ID, secret_access_key: RAW_SECRET}
  #       assets_rw: {access_key_id: ASSETS_KEY_ID, secret_access_key: ASSETS_SECRET}

  # Another S3 server, with the credentials that the AWS command line has.
  # other:
  #   endpoint_url: https://s3.example.org
  #   region: eu-central-1
  #   raw: {bucket: recordings}
  #   assets: {bucket: catalog}
  #   credentials: {provider: aws, aws_profile: lab}
"""


def config_template() -> str:
    """A commented config file with every key in it, to be filled in."""
    return _TEMPLATE


def write_template(path: Path) -> None:
    """Write the template to ``path``, readable by the user alone; all of it or nothing.

    Raises:
        ConfigError: something is there already (it is left alone), or the file can't be written.
    """
    try:
        path = path.expanduser()
        _make_parent(path)
        _write_new(path, _TEMPLATE.encode())
    except FileExistsError:
        raise ConfigError(
            f"{path} is there already and is left as it is.",
            hint=f"Edit it, or write a new one elsewhere: `ursa config init --config {path.with_suffix('.new.yaml')}`.",
            path=str(path),
        ) from None
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"{path} can't be written: {reason}.", hint="`ursa config init --config PATH`", path=str(path)
        ) from None


def _make_parent(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError:  # a file, which isn't to be mistaken for a config that is there
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None


def _write_new(path: Path, data: bytes) -> None:
    """A temp file beside it (mode 0600), then a hard link, which fails if the name is taken."""
    descriptor, temp = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temp, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links (exFAT, SMB)
            if os.path.lexists(path):
                raise FileExistsError(path) from None
            Path(temp).replace(path)
    finally:
        with suppress(FileNotFoundError):
            Path(temp).unlink()
