"""Certificates: whose are trusted, and what is said where none of them vouches for the server."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Buckets, MakeConfig
from relays import Authority, TlsFront
from ursa.credentials import Credentials
from ursa.doctor import diagnose
from ursa.errors import ConfigError, StorageError
from ursa.store import TransientError
from ursa.store.counting import RequestCounter
from ursa.store.s3 import S3Location, S3Store
from ursa.store.s3.trust import VARIABLES, find_trust

BODY = b"body"
# The system's store, in a process of its own: OpenSSL reads SSL_CERT_FILE and SSL_CERT_DIR by itself.
ASK = """
import sys
from ursa.credentials import Credentials
from ursa.store.counting import RequestCounter
from ursa.store.s3 import S3Location, S3Store
url, bucket, key, secret = sys.argv[1:]
store = S3Store(S3Location(url, bucket, "us-east-1", "raw_ro"), lambda again: Credentials(key, secret), RequestCounter())
print(list(store.list("")))
"""


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def front(weed_buckets: Buckets, authority: Authority) -> Iterator[TlsFront]:
    with TlsFront(weed_buckets.server.endpoint_url, authority) as front:
        yield front


def store_at(url: str, buckets: Buckets, ca_bundle: Path | None = None) -> S3Store:
    server = buckets.server
    location = S3Location(url, buckets.raw, "us-east-1", "raw_rw", ca_bundle)
    return S3Store(location, lambda _again: Credentials(server.access_key, server.secret_key), RequestCounter())


def round_trip(store: S3Store) -> None:
    sha256 = hashlib.sha256(BODY).hexdigest()
    store.put("k", BODY, sha256=sha256, if_absent=True)
    upload_id = store.create_upload("multi")
    part = store.upload_part("multi", upload_id, 1, BODY, md5=hashlib.md5(BODY).hexdigest())
    store.complete_upload("multi", upload_id, [part], if_absent=True)
    assert store.read("multi")[0] == store.read("k")[0] == BODY


@pytest.mark.parametrize("name", ["ca_bundle", *VARIABLES])
def test_a_company_s_certificates(
    front: TlsFront, weed_buckets: Buckets, authority: Authority, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    if name != "ca_bundle":
        monkeypatch.setenv(name, str(authority.bundle))
    round_trip(store_at(front.url, weed_buckets, authority.bundle if name == "ca_bundle" else None))


def test_the_first_that_is_named_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert str(find_trust(None)) == "the system's store"
    for name in reversed(VARIABLES):
        monkeypatch.setenv(name, f"/{name}.pem")
        assert str(find_trust(None)) == f"/{name}.pem ({name})"
    assert str(find_trust(Path("/own.pem"))) == "/own.pem (ca_bundle)"
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
    assert str(find_trust(None)) == "the system's store"


def test_a_directory_of_certificates(
    front: TlsFront, weed_buckets: Buckets, authority: Authority, tmp_path: Path
) -> None:
    certificate = authority.bundle.read_text()
    hashed = subprocess.run(
        ["openssl", "x509", "-hash", "-noout"], input=certificate, capture_output=True, text=True, check=True
    )
    directory = tmp_path / "certs"
    directory.mkdir()
    (directory / f"{hashed.stdout.strip()}.0").write_text(certificate)
    round_trip(store_at(front.url, weed_buckets, directory))


@pytest.mark.parametrize("named", ["SSL_CERT_DIR", "nothing"])
def test_the_system_s_store(
    front: TlsFront, weed_buckets: Buckets, authority: Authority, tmp_path: Path, named: str
) -> None:
    """What an admin has put into the system's store counts. Here it is OpenSSL's own variable that says where that is."""
    if named == "SSL_CERT_DIR":
        hashed = subprocess.run(
            ["openssl", "x509", "-hash", "-noout", "-in", authority.bundle], capture_output=True, text=True, check=True
        )
        (tmp_path / f"{hashed.stdout.strip()}.0").write_text(authority.bundle.read_text())
    server = weed_buckets.server
    done = subprocess.run(
        [sys.executable, "-c", ASK, front.url, weed_buckets.raw, server.access_key, server.secret_key],
        env={named: str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    if named == "SSL_CERT_DIR":
        assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
    else:
        assert "is not trusted" in done.stderr


@pytest.mark.parametrize("name", ["ca_bundle", *VARIABLES])
@pytest.mark.parametrize(
    ("content", "why"), [(None, "isn't there"), ("", "no certificate"), ("hello", "no certificate")]
)
def test_a_file_that_is_none(
    front: TlsFront,
    weed_buckets: Buckets,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    content: str | None,
    why: str,
) -> None:
    bundle = tmp_path / "bundle.pem"
    if content is not None:
        bundle.write_text(content)
    if name != "ca_bundle":
        monkeypatch.setenv(name, str(bundle))
    store = store_at(front.url, weed_buckets, bundle if name == "ca_bundle" else None)
    with pytest.raises(ConfigError, match=why) as raised:
        store.head("k")
    assert f"{name} names {bundle}" in raised.value.message
    assert "behind-a-proxy-or-a-company-ca" in (raised.value.hint or "")
    assert (raised.value.path, raised.value.key) == (str(bundle), name)


# --- a certificate that is not trusted


def refused(store: S3Store) -> StorageError:
    with pytest.raises(StorageError) as raised:
        store.head("k")
    assert not isinstance(raised.value, TransientError), "another try would fail as well"
    assert "behind-a-proxy-or-a-company-ca" in (raised.value.hint or "")
    assert "certificate" in raised.value.message
    return raised.value


def test_a_certificate_of_an_unknown_authority(front: TlsFront, weed_buckets: Buckets) -> None:
    error = refused(store_at(front.url, weed_buckets))
    assert "the certificate of localhost is not trusted" in error.message
    assert "asked was the system's store" in error.message
    assert "ca_bundle" in (error.hint or "")


def test_a_certificate_of_another_name(weed_buckets: Buckets, authority: Authority) -> None:
    with TlsFront(weed_buckets.server.endpoint_url, authority, "elsewhere.org") as front:
        error = refused(store_at(front.url, weed_buckets, authority.bundle))
    assert "Hostname mismatch" in error.message and str(authority.bundle) in error.message


def test_no_tls_there(weed_buckets: Buckets) -> None:
    with pytest.raises(StorageError, match="no TLS connection") as raised:
        store_at(weed_buckets.server.endpoint_url.replace("http:", "https:"), weed_buckets).head("k")
    assert "is it https there" in (raised.value.hint or "")


# --- a doctor says so


def test_a_doctor_says_whose(
    front: TlsFront, weed_buckets: Buckets, s3_config: MakeConfig, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(**settings: str) -> dict[str, tuple[str, str]]:
        config = s3_config(weed_buckets.at(front.url), **settings)
        return {result.name: (result.status, result.detail) for result in diagnose("r2", config)}

    found = told(ca_bundle=str(authority.bundle))
    assert found["certificates"] == ("ok", f"{authority.bundle} (ca_bundle): its certificates are trusted")
    assert found["server"][0] == found["role raw_rw"][0] == "ok"
    found = told()
    assert found["certificates"][0] == "ok" and "the system's store" in found["certificates"][1]
    assert found["server"][0] == "fail" and "is not trusted" in found["server"][1]
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere.pem")
    found = told()
    assert found["certificates"][0] == "fail" and "SSL_CERT_FILE names /nowhere.pem" in found["certificates"][1]
    assert found["server"][0] == found["role raw_rw"][0] == "skip"
    # Relative to the config file, and it goes over the variable.
    assert told(ca_bundle=authority.bundle.name)["role assets_rw"][0] == "ok"
