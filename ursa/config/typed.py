"""The config file as it is typed: pydantic models, from which ``docs/reference/config.md`` is generated.

Every key is optional here; whether a profile is complete is asked when it is used.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from ursa.config.profile import ProviderName


class Section(BaseModel):
    """A mapping in the file: unknown keys are refused, and an error never holds what was typed."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class BucketSection(Section):
    """A bucket, and where in it our keys begin."""

    bucket: Annotated[
        str | None,
        Field(
            description="Name of the bucket: 3 to 63 of a-z, 0-9, '-' and '.'. Built in for local profiles, r2 and r2-test.",
            examples=["constellation-data"],
        ),
    ] = None
    prefix: Annotated[
        str | None,
        Field(
            description="What all keys begin with; a '/' at its end is added. Default: `recordings/` for raw, `ursa/` for"
            " assets; empty text is the bucket's root.",
            examples=["recordings/"],
        ),
    ] = None


class RoleSection(Section):
    """Where one key is: references, never the key itself. A literal secret is refused without being echoed."""

    access_key_id: Annotated[
        str | None,
        Field(
            description="Where the access key's id is: `op://vault/item/field` with 1password, a variable's name with env.",
            examples=["op://Engineering/R2 raw rw/access_key_id", "RAW_KEY_ID"],
        ),
    ] = None
    secret_access_key: Annotated[
        str | None,
        Field(
            description="Where the secret access key is, likewise.",
            examples=["op://Engineering/R2 raw rw/secret_access_key", "RAW_SECRET"],
        ),
    ] = None
    session_token: Annotated[
        str | None, Field(description="Where the session token is, likewise. Only temporary credentials have one.")
    ] = None


class RolesSection(Section):
    """The keys of a profile by what they may do. A reading role that is missing falls back to the writing one."""

    raw_ro: Annotated[RoleSection | None, Field(description="Reads the raw bucket. Default: raw_rw.")] = None
    raw_rw: Annotated[
        RoleSection | None, Field(description="Writes the raw bucket: ingest, batch, reconstruct, gc-uploads.")
    ] = None
    assets_ro: Annotated[RoleSection | None, Field(description="Reads the catalog. Default: assets_rw.")] = None
    assets_rw: Annotated[
        RoleSection | None,
        Field(description="Writes the catalog: ingest, ingest-r2, batch, participants backfill, catalog."),
    ] = None


class CredentialsSection(Section):
    """How the keys are found. Not for profiles that are a local directory."""

    provider: Annotated[
        ProviderName | None,
        Field(
            description="Default: 1password, read with `op`. `env`: environment variables. `aws`: the chain that the AWS"
            " command line has.",
        ),
    ] = None
    roles: Annotated[
        RolesSection | None,
        Field(
            description="Where each role's key is. Not with aws; without any, env takes AWS_ACCESS_KEY_ID,"
            " AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN for all of them."
        ),
    ] = None
    aws_profile: Annotated[
        str | None, Field(description="With the provider aws: a profile of `~/.aws/config`.", examples=["lab"])
    ] = None


class ProfileSection(Section):
    """One store and its catalog, under the name that `--profile` takes: letters, digits, '.', '_' and '-'."""

    extends: Annotated[
        str | None,
        Field(
            description="Takes over every setting of another profile; those given here, and the buckets that are built in"
            " for this profile's name, go over it.",
            examples=["r2"],
        ),
    ] = None
    root: Annotated[
        str | None,
        Field(
            description="Directory of a local profile; a relative one begins at the config file. Default for `local`: the"
            " user's data directory. Never together with endpoint_url.",
            examples=["~/ursa-data"],
        ),
    ] = None
    endpoint_url: Annotated[
        str | None,
        Field(
            description="http:// or https:// URL of the S3 server, without a bucket, user or password.",
            examples=["https://<account id>.r2.cloudflarestorage.com"],
        ),
    ] = None
    region: Annotated[
        str | None,
        Field(
            description="Default: auto, which is right for R2; another S3 server may want its own.", examples=["auto"]
        ),
    ] = None
    ca_bundle: Annotated[
        str | None,
        Field(
            description="File (or directory, as OpenSSL hashes one) of the certificates that are trusted, in place of the"
            " system's store: for a proxy or a firewall that opens TLS. A relative path begins at the config file. Goes over"
            " AWS_CA_BUNDLE, REQUESTS_CA_BUNDLE and SSL_CERT_FILE.",
            examples=["~/company-ca.pem"],
        ),
    ] = None
    raw: Annotated[BucketSection | None, Field(description="What the rigs recorded.")] = None
    assets: Annotated[BucketSection | None, Field(description="The catalog's tables, and ursa's own notes.")] = None
    credentials: Annotated[CredentialsSection | None, Field(description="How the keys are found.")] = None
    rig_timezone: Annotated[
        str | None,
        Field(
            description="Zone of times in manifests that state none: an IANA name, or ±HH:MM. Default: UTC, and the"
            " recording is flagged.",
            examples=["Europe/Berlin", "+01:00"],
        ),
    ] = None
    cache_dir: Annotated[
        str | None,
        Field(
            description="Directory of the files cache, which knows the files that this machine has read; a relative one"
            " begins at the config file. Default: the user's cache directory. Losing it costs a reading of every file.",
            examples=["~/ursa-cache"],
        ),
    ] = None
    reread: Annotated[
        str | None,
        Field(
            description="How much `batch` reads again in one run of files of which only the change time (ctime) moved. K,"
            " M, G and T are powers of 1000, Ki, Mi, Gi and Ti of 1024. Default: 200G.",
            examples=["200G"],
        ),
    ] = None
    reread_after: Annotated[
        str | None,
        Field(
            description="For how long a file that was read counts as known on a disk that keeps no change time (exFAT,"
            " FAT, some NAS): a number with s, m, h, d or w. Default: 14d.",
            examples=["14d"],
        ),
    ] = None


class FileSection(Section):
    """The whole file."""

    profiles: Annotated[
        dict[str, ProfileSection | None] | None,
        Field(description="Profiles by name, beside the built-in `local`, `r2` and `r2-test`, or over them."),
    ] = None


def section_at(parents: tuple[str, ...]) -> type[Section]:
    """The model of the section at this path."""
    match parents:
        case ():
            return FileSection
        case ("profiles", _):
            return ProfileSection
        case (_, _, "credentials"):
            return CredentialsSection
        case (_, _, "credentials", "roles"):
            return RolesSection
        case (_, _, "credentials", "roles", _):
            return RoleSection
        case _:
            return BucketSection


def known_keys(parents: tuple[str, ...]) -> list[str]:
    """The keys that the section at this path has."""
    return list(section_at(parents).model_fields)
