"""Whose certificates are believed: one answer for every connection.

The profile's ``ca_bundle``, else ``AWS_CA_BUNDLE``, ``REQUESTS_CA_BUNDLE``, ``SSL_CERT_FILE``, else the system's store.
"""

from __future__ import annotations

import os
import ssl
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ursa.errors import ConfigError

VARIABLES = ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")
HELP = "docs/configuration.md#behind-a-proxy-or-a-company-ca"


@dataclass(frozen=True)
class Trust:
    """A file (or directory) of certificates, or the system's store where ``path`` is None. ``named_by``: what says so."""

    path: Path | None = None
    named_by: str = ""

    def __str__(self) -> str:
        return f"{self.path} ({self.named_by})" if self.path else "the system's store"

    def context(self) -> ssl.SSLContext:
        """What a connection is opened under.

        Raises:
            ConfigError: the file isn't there, can't be read or holds no certificate.
        """
        if self.path is None and not _openssl_has_it():
            import truststore

            # One for each connection: a context of truststore's holds a lock while it shakes hands.
            return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        return self._shared

    @cached_property
    def _shared(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self.path is None:
            context.set_default_verify_paths()
        elif self.path.is_dir():
            context.load_verify_locations(capath=self.path)
        else:
            self._load(context, self.path)
        return context

    def _load(self, context: ssl.SSLContext, path: Path) -> None:
        try:
            context.load_verify_locations(cafile=path)
        except ssl.SSLError:
            why = "holds no certificate in PEM (-----BEGIN CERTIFICATE-----)"
        except FileNotFoundError:
            why = "isn't there"
        except OSError as error:
            why = f"can't be read: {error.strerror}"
        else:
            return
        raise ConfigError(
            f"{self.named_by} names {path} for the certificates to trust, which {why}",
            hint=f"Correct {self.named_by}, or unset it to trust the system's store: {HELP}",
            path=str(path),
            key=self.named_by,
        )


def find_trust(ca_bundle: Path | None, environ: Mapping[str, str] = os.environ) -> Trust:
    """What is believed. ``ca_bundle``: of the profile."""
    if ca_bundle is not None:
        return Trust(ca_bundle, "ca_bundle")
    for name in VARIABLES:
        if value := environ.get(name):
            return Trust(Path(value), name)
    return Trust()


def _openssl_has_it() -> bool:
    """Whether OpenSSL's own places are the system's store: on Linux and the like, as a rule."""
    if sys.platform in ("darwin", "win32"):
        return False
    paths = ssl.get_default_verify_paths()
    return paths.cafile is not None or bool(paths.capath and any(Path(paths.capath).glob("*.0")))
