"""The config file, from its path to the keys that are typed in it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from ursa.config.typed import FileSection, ProfileSection
from ursa.config.words import file_error, in_words, line_and_column, position, user_path


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


def locate(config_path: Path | None) -> Path | None:
    """The absolute path to read, if there can be one."""
    if config_path is None:
        return user_path()
    try:
        return Path(config_path).expanduser().absolute()
    except RuntimeError:
        raise file_error(config_path, "'~' has no meaning here: no home directory is known.") from None


def read_text(path: Path, *, required: bool) -> str | None:
    """The file's text; None when it isn't there and need not be."""
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        if not required:
            return None
        hint = f"Check the path, or write a commented one: `ursa config init --config {path}`."
        raise file_error(path, "there is no such config file.", hint=hint) from None
    except OSError as error:
        raise file_error(path, f"can't be read: {error.strerror}.", hint=f"`ls -l {path}`") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
    # Raised out here: the decoder's error holds the bytes of the file.
    raise file_error(path, f"line {line}: not UTF-8 text.", hint=f"Save {path} as UTF-8.")


def parse(text: str, source: Path) -> dict[str, dict[str, Any]]:
    """The profiles of the file, only the keys that are typed in it."""
    key = None
    try:
        content = yaml.load(text, Loader=_Loader)  # a SafeLoader
        parsed = FileSection.model_validate({} if content is None else content)
    except yaml.MarkedYAMLError as error:
        problem = f"{line_and_column(error)}: {error.problem or error.context}."
    except yaml.reader.ReaderError as error:
        problem = f"{position(text, error.position)}: a character that YAML doesn't allow."
    except RecursionError:
        problem = "brackets nested too deeply."
    except ValidationError as error:
        problems = [in_words(details) for details in error.errors(include_url=False)]
        key, problem = problems[0][0], "\n  ".join(words for _, words in problems)
    else:
        return {name: _typed(section) for name, section in (parsed.profiles or {}).items()}
    # Raised out here: the errors of yaml and pydantic hold the text of the file.
    failure = file_error(source, problem)
    failure.key = key
    raise failure


def _typed(section: ProfileSection | None) -> dict[str, Any]:
    return section.model_dump(exclude_unset=True) if section else {}
