"""The catalog's tables in the bucket as other tools open them: with deltalake, and without a replica."""

from __future__ import annotations

from typing import Any

from deltalake import DeltaTable, write_deltalake

from servers import S3Server
from ursa import DataInterface


def options_for(server: S3Server) -> dict[str, str]:
    """What deltalake needs to reach a server of the tests."""
    return _options(server.endpoint_url, server.access_key, server.secret_key)


def bucket_table(data: DataInterface, name: str) -> DeltaTable:
    """A table of the live catalog, in the bucket or in the directory."""
    uri = data._catalog.locations()[name]
    if data.profile.kind == "local":
        return DeltaTable(uri)
    key = data._credentials.get("assets_rw")
    options = _options(data.profile.endpoint_url or "", key.access_key_id, key.secret_access_key)
    return DeltaTable(uri, storage_options=options)


def overwrite(table: DeltaTable, rows: Any) -> None:
    """Replace all of a table, its schema as well."""
    write_deltalake(table, rows, mode="overwrite", schema_mode="overwrite")


def _options(endpoint_url: str, access_key: str, secret_key: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": endpoint_url,
        "AWS_ACCESS_KEY_ID": access_key,
        "AWS_SECRET_ACCESS_KEY": secret_key,
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
        "AWS_CONDITIONAL_PUT": "etag",
    }
