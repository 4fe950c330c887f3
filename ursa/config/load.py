"""Config files loaded: which profiles there are, and each of them when it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ursa.config.build import build
from ursa.config.draft import Draft
from ursa.config.merge import drafts
from ursa.config.profile import Profile
from ursa.config.words import did_you_mean, in_file, user_path
from ursa.config.yaml_file import locate, parse, read_text
from ursa.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Config:
    """What a config file says. ``path`` is None when there is no file and the built-in profiles are all there is."""

    path: Path | None
    _drafts: Mapping[str, Draft] = field(repr=False, hash=False)

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
            names = f"{did_you_mean(name, known)}; known: {', '.join(known)}"
            raise ConfigError(
                f"There is no profile {name!r} {in_file(self.path)}{names}.",
                hint="`--profile NAME` with a known one, or add it to the config file (`ursa config init` writes one).",
                path=str(self.path) if self.path else None,
            )
        return build(self._drafts[name])


def default_config_path() -> Path:
    """``config.yaml`` in the user's config directory; the file need not exist.

    Raises:
        ConfigError: this account has no home directory.
    """
    path = user_path()
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
    path = locate(config_path)
    text = read_text(path, required=config_path is not None) if path else None
    if path is None or text is None:
        return Config(None, drafts({}, None))
    return Config(path, drafts(parse(text, path), path))
