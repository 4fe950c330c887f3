"""The commented config file that ``ursa config init`` writes."""

from __future__ import annotations

import errno
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from ursa.errors import ConfigError

_TEMPLATE = """\
# ursa's configuration. `ursa config show --profile NAME` prints what a profile comes to.
# There is never a secret in this file: only where the secrets are.
# Fill in what stands in <angle brackets>. Without `--profile`, commands use r2.

profiles:

  r2:
    endpoint_url: https://<account id>.r2.cloudflarestorage.com
    # region: auto                     # R2 has one region; another S3 server may want its own
    # ca_bundle: ~/company-ca.pem      # certificates to trust behind a proxy that opens TLS; default: the system's store
    # raw: {bucket: constellation-data, prefix: recordings/}       # what the rigs recorded
    # assets: {bucket: constellation-assets, prefix: ursa/}        # the catalog
    # rig_timezone: Europe/Berlin      # IANA name or "+01:00", for recordings that state no zone; else UTC
    # cache_dir: ~/ursa-cache          # which files were read already; default: the user's cache directory
    # reread: 200G                     # how much a batch reads again of files of which only the ctime moved
    # reread_after: 14d                # a disk without change times (exFAT) is read again after this long
    credentials:
      provider: 1password              # 1password, env or aws; see below
      roles:                           # raw_ro, raw_rw, assets_ro, assets_rw; reading falls back to writing
        raw_rw:
          access_key_id: op://Engineering/<item of raw rw>/access_key_id
          secret_access_key: op://Engineering/<item of raw rw>/secret_access_key
          # session_token: op://…      # only for temporary credentials
        assets_rw:
          access_key_id: op://Engineering/<item of assets rw>/access_key_id
          secret_access_key: op://Engineering/<item of assets rw>/secret_access_key

  # The same account with buckets of its own, constellation-data-test and constellation-assets-test.
  # `extends` takes over every setting of another profile; those given here go over it.
  r2-test:
    extends: r2
    # credentials: {…}                 # roles of its own, if the keys of r2 don't reach the test buckets

  # A directory on this computer, laid out like the buckets. Works without any configuration.
  local:
    # root: ~/ursa-data                # default: the user's data directory; relative to this file
    # rig_timezone: Europe/Berlin

  # Nobody is at the keyboard (cron): names of environment variables instead of 1Password.
  # Without `roles`, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN serve all of them.
  # cron:
  #   extends: r2
  #   credentials:
  #     provider: env
  #     roles:
  #       raw_rw: {access_key_id: RAW_KEY_ID, secret_access_key: RAW_SECRET}
  #       assets_rw: {access_key_id: ASSETS_KEY_ID, secret_access_key: ASSETS_SECRET}

  # Another S3 server, with the credentials that the AWS command line has.
  # other:
  #   endpoint_url: https://s3.example.org
  #   region: eu-central-1
  #   raw: {bucket: recordings}
  #   assets: {bucket: catalog}
  #   credentials: {provider: aws, aws_profile: lab}
"""


def config_template() -> str:
    """A commented config file with every key in it, to be filled in."""
    return _TEMPLATE


def write_template(path: Path) -> None:
    """Write the template to ``path``, readable by the user alone; all of it or nothing.

    Raises:
        ConfigError: something is there already (it is left alone), or the file can't be written.
    """
    try:
        path = path.expanduser()
        _make_parent(path)
        _write_new(path, _TEMPLATE.encode())
    except FileExistsError:
        raise ConfigError(
            f"{path} is there already and is left as it is.",
            hint=f"Edit it, or write a new one elsewhere: `ursa config init --config {path.with_suffix('.new.yaml')}`.",
            path=str(path),
        ) from None
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"{path} can't be written: {reason}.", hint="`ursa config init --config PATH`", path=str(path)
        ) from None


def _make_parent(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError:  # a file, which isn't to be mistaken for a config that is there
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None


def _write_new(path: Path, data: bytes) -> None:
    """A temp file beside it (mode 0600), then a hard link, which fails if the name is taken."""
    descriptor, temp = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temp, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links (exFAT, SMB)
            if os.path.lexists(path):
                raise FileExistsError(path) from None
            Path(temp).replace(path)
    finally:
        with suppress(FileNotFoundError):
            Path(temp).unlink()
