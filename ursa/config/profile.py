"""What the rest of ursa sees of a config: frozen dataclasses, checked and complete."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from ursa.errors import ConfigError

Role = Literal["raw_ro", "raw_rw", "assets_ro", "assets_rw"]
ProviderName = Literal["1password", "env", "aws"]
Kind = Literal["local", "s3"]
ROLES: tuple[Role, ...] = get_args(Role)
PROVIDERS: tuple[ProviderName, ...] = get_args(ProviderName)
_FALLBACK: Mapping[Role, Role] = {"raw_ro": "raw_rw", "assets_ro": "assets_rw"}
REREAD_BYTES = 200 * 10**9
REREAD_AFTER_S = 14 * 86_400.0
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class RoleRefs:
    """Where a role's values are: ``op://`` references (1password) or environment variable names (env)."""

    access_key_id: str
    secret_access_key: str
    session_token: str | None = None


ENV_DEFAULTS = RoleRefs("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Profile:
    """One store and its catalog, checked and complete.

    ``root`` is an absolute directory on ``local`` and None on ``s3``; ``endpoint_url`` the other way round.
    ``ca_bundle`` is the absolute path of the certificates to trust, None what the environment or the system trusts.
    ``rig_timezone`` is an IANA name or ±HH:MM, for recordings whose manifest states no zone.
    ``cache_dir`` is the absolute directory of the files cache, None the user's cache directory. ``reread_bytes``: how much
    a batch reads again of files of which only the ctime moved; ``reread_after_s``: seconds for which a reading counts on a
    disk that keeps no change time.
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
    ca_bundle: Path | None = None
    rig_timezone: str | None = None
    cache_dir: Path | None = None
    reread_bytes: int = REREAD_BYTES
    reread_after_s: float = REREAD_AFTER_S
    source: Path | None = None


def effective(profile: Profile) -> dict[str, Any]:
    """Everything as it is used, defaults and fallbacks included; references and variable names, never a value."""
    return {
        "profile": profile.name,
        "source": str(profile.source) if profile.source else None,
        "kind": profile.kind,
        "root": str(profile.root) if profile.root else None,
        "endpoint_url": profile.endpoint_url,
        "region": profile.region,
        "ca_bundle": str(profile.ca_bundle) if profile.ca_bundle else None,
        "raw": asdict(profile.raw),
        "assets": asdict(profile.assets),
        "credentials": _effective_credentials(profile.credentials) if profile.kind == "s3" else None,
        "rig_timezone": profile.rig_timezone,
        "cache_dir": str(profile.cache_dir) if profile.cache_dir else None,
        "reread_bytes": profile.reread_bytes,
        "reread_after_s": profile.reread_after_s,
    }


def _effective_credentials(credentials: CredentialsConfig) -> dict[str, Any]:
    if credentials.provider == "aws":
        return {"provider": "aws", "aws_profile": credentials.aws_profile}
    roles = {role: credentials.refs(role) for role in ROLES}
    return {
        "provider": credentials.provider,
        "roles": {role: {"role": found[0], **asdict(found[1])} if found else None for role, found in roles.items()},
    }
