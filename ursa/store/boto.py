"""botocore's session, as little of it as an S3 client needs."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from datetime import datetime
from functools import cache
from typing import Any

import botocore.session
import orjson
from botocore.loaders import JSONFileLoader, Loader
from botocore.utils import parse_timestamp

_MODELS: tuple[tuple[str, Callable[..., Any]], ...] = ((".json", open), (".json.gz", gzip.open))


@cache
def session() -> botocore.session.Session:
    """One session a process: it keeps the service model, which takes 0.04 s to load.

    What ursa connects to comes from its own config: no AWS_PROFILE, no ~/.aws/config, no models of one's own. boto3's
    own package is not imported: its transfer manager takes as long again, and is not used here.
    """
    nothing: Any = (None, None, None, None)
    made = botocore.session.Session(session_vars={"profile": nothing, "config_file": nothing})
    parsers: Any = made.get_component("response_parser_factory")
    parsers.set_parser_defaults(timestamp_parser=_timestamp)
    made.register_component("data_loader", _S3Loader([Loader.BUILTIN_DATA_PATH], include_default_search_paths=False))
    return made


class _ModelLoader(JSONFileLoader):
    """Reads botocore's models, megabytes of JSON, in a quarter of the time that the json module takes."""

    def load_file(self, file_path: str) -> Any:
        for ending, opened in _MODELS:
            try:
                with opened(file_path + ending, "rb") as file:
                    return orjson.loads(file.read())
            except FileNotFoundError:
                continue
        return None


class _S3Loader(Loader):
    """Knows of one service. The stock loader looks into the directories of all 400 to find that s3 is among them."""

    FILE_LOADER_CLASS = _ModelLoader

    def list_available_services(self, type_name: str) -> list[str]:  # noqa: ARG002
        return ["s3"]


def _timestamp(text: Any) -> datetime:
    """A listing has a thousand ISO times a page; botocore's own parser takes as long for them as the request."""
    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return parse_timestamp(text)
