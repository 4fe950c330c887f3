"""A ``Profile`` from a draft: nothing missing, nothing that contradicts itself, every value checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import platformdirs

from ursa.config.draft import Draft, provider_of
from ursa.config.merge import LAYOUT
from ursa.config.profile import REREAD_AFTER_S, REREAD_BYTES, BucketRef, CredentialsConfig, Profile, RoleRefs
from ursa.config.references import PLACEHOLDER, references
from ursa.config.values import checked_duration, checked_endpoint, checked_region, checked_size, checked_timezone
from ursa.config.words import file_name
from ursa.errors import ConfigError
from ursa.names import on_disk

_REQUIRED = {"access_key_id", "secret_access_key"}
_NO_HOME = "no home directory is known; give an absolute path."


def build(draft: Draft) -> Profile:
    """The profile that a draft comes to.

    Raises:
        ConfigError: something is missing, is still a placeholder, contradicts another key, or can't be used.
    """
    _refuse_placeholders(draft)
    _refuse_contradictions(draft)
    _refuse_missing(draft)
    with draft.at("region"):
        region = checked_region(draft.get("region") or "auto")
    with draft.at("rig_timezone"):
        rig_timezone = checked_timezone(draft.get("rig_timezone"))
    reread, reread_after = draft.get("reread"), draft.get("reread_after")
    with draft.at("reread"):
        reread_bytes = REREAD_BYTES if reread is None else checked_size(reread)
    with draft.at("reread_after"):
        reread_after_s = REREAD_AFTER_S if reread_after is None else checked_duration(reread_after)
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
        ca_bundle=_path(draft, "ca_bundle"),
        cache_dir=_path(draft, "cache_dir"),
        reread_bytes=reread_bytes,
        reread_after_s=reread_after_s,
        source=draft.source,
    )


def _refuse_placeholders(draft: Draft) -> None:
    left = [draft.key(dotted) for dotted, value in _leaves(draft.settings) if PLACEHOLDER.search(value)]
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


def _refuse_contradictions(draft: Draft) -> None:
    if draft.kind == "local" and draft.get("endpoint_url"):
        raise draft.error("endpoint_url", f"profile {draft.name!r} is a local directory and has no endpoint.")
    if draft.kind == "s3" and draft.get("root"):
        raise draft.error("root", f"profile {draft.name!r} has an endpoint and buckets; `root` is for local profiles.")


def _refuse_missing(draft: Draft) -> None:
    if draft.kind == "local":
        return
    missing = [dotted for dotted in ("endpoint_url", "raw.bucket", "assets.bucket") if not draft.get(dotted)]
    roles = draft.get("credentials.roles") or {}
    if provider_of(draft.get("credentials") or {}) == "1password" and not any(roles.values()):
        missing.append("credentials.roles")
    for role, refs in roles.items():
        if refs is not None:
            missing += [f"credentials.roles.{role}.{name}" for name in sorted(_REQUIRED) if not refs.get(name)]
    if missing:
        raise _missing_error(draft, missing)


def _missing_error(draft: Draft, missing: list[str]) -> ConfigError:
    keys = [f"profiles.{draft.name}.{dotted}" for dotted in missing]
    file = file_name(draft.source)
    if draft.source:
        hint = f"Add them to {file}; `ursa config init --config example.yaml` writes a commented example."
    else:
        hint = (
            f"`ursa config init` writes a commented {file}; fill it in."
            " `--profile local` needs no config: it keeps everything in a directory on this machine."
        )
    return ConfigError(
        f"Profile {draft.name!r} is incomplete: {', '.join(keys)} missing in {file}"
        + ("." if draft.source else ", which isn't there."),
        hint=hint,
        path=file,
        key=keys[0],
    )


def _root(draft: Draft) -> Path:
    """The directory of a local profile, absolute."""
    root = _path(draft, "root")
    if root is None:
        with suppress(RuntimeError):
            root = platformdirs.user_data_path("ursa")
    if root is None or not root.is_absolute():
        raise draft.error("root", _NO_HOME)
    return root


def _path(draft: Draft, key: str) -> Path | None:
    """A path that is given, absolute: a relative one begins at the config file. None where none is given."""
    given = draft.get(key)
    if given is None:
        return None
    if not (given.strip() and given.isprintable()):
        raise draft.error(key, "not a path.")
    try:
        path = Path(on_disk(given)).expanduser()
    except RuntimeError:
        raise draft.error(key, _NO_HOME) from None
    if draft.source:
        path = draft.source.parent / path
    if not path.is_absolute():
        raise draft.error(key, _NO_HOME)
    return path


def _endpoint(draft: Draft) -> str:
    with draft.at("endpoint_url"):
        return checked_endpoint(draft.get("endpoint_url"))


def _bucket(draft: Draft, section: str) -> BucketRef:
    bucket, prefix = LAYOUT[section]
    given = draft.get(f"{section}.prefix")
    name = draft.get(f"{section}.bucket") or bucket  # only local profiles get here without one
    try:
        return BucketRef(name, prefix if given is None else given)
    except ConfigError as error:
        raise draft.error(f"{section}.{error.key}", error.message) from None


def _credentials(draft: Draft) -> CredentialsConfig:
    roles = {role: RoleRefs(**values) for role, values in references(draft).items() if values.keys() >= _REQUIRED}
    provider = provider_of(draft.get("credentials") or {})
    aws_profile = draft.get("credentials.aws_profile")
    if aws_profile is not None and provider != "aws":
        raise draft.error("credentials.aws_profile", f"only the provider 'aws' has it; this is {provider!r}.")
    return CredentialsConfig(provider, roles, aws_profile)
