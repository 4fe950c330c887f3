"""Profiles: which buckets, at which endpoint, and where the credentials are found; never a secret.

One YAML file holds them: the one that is given, else ``config.yaml`` in the user's config directory. No environment
variable selects a file or a profile. ``local``, ``r2`` and ``r2-test`` are built in; a profile in the file is merged
over the built-in of its name and over the one that it ``extends``. The file as it is typed is checked by pydantic
models (``typed``); what the rest of ursa sees are frozen dataclasses (``profile``).

In the order of a load: ``yaml_file`` reads and checks, ``merge`` makes drafts, ``build`` makes a profile of one of them.
"""

from __future__ import annotations

from ursa.config.load import Config, default_config_path, load_config
from ursa.config.profile import (
    ENV_DEFAULTS,
    PROVIDERS,
    ROLES,
    BucketRef,
    CredentialsConfig,
    Kind,
    Profile,
    ProviderName,
    Role,
    RoleRefs,
    effective,
)
from ursa.config.template import config_template, write_template

__all__ = [
    "ENV_DEFAULTS",
    "PROVIDERS",
    "ROLES",
    "BucketRef",
    "Config",
    "CredentialsConfig",
    "Kind",
    "Profile",
    "ProviderName",
    "Role",
    "RoleRefs",
    "config_template",
    "default_config_path",
    "effective",
    "load_config",
    "write_template",
]
