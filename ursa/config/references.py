"""Where secrets are: references of 1Password, names of environment variables, and never a secret itself."""

from __future__ import annotations

import re

from ursa.config.draft import Draft, provider_of
from ursa.config.profile import ROLES, ProviderName, Role
from ursa.errors import ConfigError

_OP_REFERENCE = re.compile(r"op://[^/]+/[^/]+(/[^/]+)?/[^/]+")
_ENV_NAME = re.compile(r"\$?([A-Za-z_][A-Za-z0-9_]*)|\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_KEY_LIKE = re.compile(r"(?=[^_]*\d)[^_]{20,}")  # access keys are spelled like names: 20 letters and digits, no `_`
PLACEHOLDER = re.compile(r"<[^<>]+>")


def references(draft: Draft) -> dict[Role, dict[str, str]]:
    """The references of every role that is configured, checked to be references and not secrets."""
    provider = provider_of(draft.get("credentials") or {})
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
    if PLACEHOLDER.search(value):
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
