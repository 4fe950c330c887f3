"""The config file's reference, from the pydantic models that check it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

INTRO = """\
<!-- written by docs/make.py from ursa/config/typed.py; edit the descriptions there -->

# Every key of the config file

The file is YAML: `config.yaml` in your config directory, or `--config PATH`. `ursa config init` writes a commented one,
`ursa config show` prints what a profile comes to, and [Configuration](../configuration.md) explains how to set one up. An
unknown key is an error that names the nearest known one. No key is required by itself: whether a profile is complete is
asked when it is used.
"""


def page() -> str:
    """The page."""
    from ursa.config import typed

    sections = [
        ("The file", typed.FileSection),
        ("profiles.NAME", typed.ProfileSection),
        ("raw and assets", typed.BucketSection),
        ("credentials", typed.CredentialsSection),
        ("credentials.roles", typed.RolesSection),
        ("credentials.roles.ROLE", typed.RoleSection),
    ]
    return "\n".join([INTRO, *(line for title, model in sections for line in _section(title, model))])


def _section(title: str, model: Any) -> Iterator[str]:
    yield f"## {title}\n"
    yield f"{model.__doc__.strip()}\n"
    yield "| key | value | |"
    yield "| --- | --- | --- |"
    for name, field in model.model_fields.items():
        examples = " or ".join(f"`{example}`" for example in field.examples or ())
        words = f"{field.description} Example: {examples}." if examples else field.description
        yield f"| `{name}` | {_kind(field.annotation)} | {words} |"
    yield ""


def _kind(annotation: Any) -> str:
    """What may stand there, in words: the models allow nothing (None) everywhere, so it is not said."""
    inner = [part for part in get_args(annotation) if part is not type(None)]
    kind = inner[0] if inner else annotation
    if kind is str:
        return "text"
    if choices := [choice for choice in get_args(kind) if isinstance(choice, str)]:
        return ", ".join(f"`{choice}`" for choice in choices)
    return "mapping"
