"""A profile between the file and the ``Profile``: merged, and able to say where each of its settings is typed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ursa.config.profile import Kind, ProviderName
from ursa.config.words import file_error, file_name
from ursa.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Draft:
    """A profile after merging, not yet known to be complete. ``typed``: what each profile it came from says itself."""

    name: str
    kind: Kind
    settings: dict[str, Any]
    typed: tuple[tuple[str, dict[str, Any]], ...]
    source: Path | None

    def get(self, dotted: str) -> Any:
        """The setting at this path, None where there is none."""
        return _lookup(self.settings, dotted)

    def key(self, dotted: str) -> str:
        """The dotted path where the setting is typed, be it in a profile that this one extends."""
        owners = [name for name, own in self.typed if _lookup(own, dotted) is not None]
        return f"profiles.{owners[0] if owners else self.name}.{dotted}"

    def error(self, dotted: str, words: str, hint: str | None = None) -> ConfigError:
        """An error about this setting."""
        return file_error(file_name(self.source), words, hint=hint, key=self.key(dotted))

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


def provider_of(credentials: Mapping[str, Any]) -> ProviderName:
    """The provider of a credentials section, the default one included."""
    return credentials.get("provider") or "1password"
