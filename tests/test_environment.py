"""The environment: what the config does not name changes nothing, whatever other tools take from it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Buckets, MakeConfig
from proxy import FaultProxy
from relays import Authority, TlsFront
from servers import S3Server
from ursa import DataInterface
from ursa.credentials import Credentials
from ursa.store.conduct import KnownConduct
from ursa.store.counting import RequestCounter
from ursa.store.s3 import S3Location, S3Store

Proxied = Callable[[S3Server], FaultProxy]
STRAY = "stray-value"
NOWHERE = "http://127.0.0.1:9/stray-value"
# object_store reads each name with and without AWS_ before it, and deltalake hands it all that begins with AWS_.
OBJECT_STORE = [
    "ACCESS_KEY_ID",
    "SECRET_ACCESS_KEY",
    "SESSION_TOKEN",
    "TOKEN",
    "SECURITY_TOKEN",
    "REGION",
    "DEFAULT_REGION",
    "BUCKET",
    "BUCKET_NAME",
    "ENDPOINT",
    "ENDPOINT_URL",
    "ENDPOINT_URL_S3",
    "IMDSV1_FALLBACK",
    "METADATA_ENDPOINT",
    "VIRTUAL_HOSTED_STYLE_REQUEST",
    "UNSIGNED_PAYLOAD",
    "CHECKSUM_ALGORITHM",
    "SKIP_SIGNATURE",
    "S3_EXPRESS",
    "COPY_IF_NOT_EXISTS",
    "CONDITIONAL_PUT",
    "DISABLE_TAGGING",
    "REQUEST_PAYER",
    "SERVER_SIDE_ENCRYPTION",
    "SSE_KMS_KEY_ID",
    "SSE_BUCKET_KEY_ENABLED",
    "SSE_CUSTOMER_KEY_BASE64",
    "ALLOW_HTTP",
    "CONNECT_TIMEOUT",
    "ALLOW_INVALID_CERTIFICATES",
    "DEFAULT_CONTENT_TYPE",
    "HTTP1_ONLY",
    "HTTP2_ONLY",
    "HTTP2_KEEP_ALIVE_INTERVAL",
    "POOL_IDLE_TIMEOUT",
    "POOL_MAX_IDLE_PER_HOST",
    "PROXY_URL",
    "PROXY_CA_CERTIFICATE",
    "PROXY_EXCLUDES",
    "TIMEOUT",
    "USER_AGENT",
    "RANDOMIZE_ADDRESSES",
    "CONTAINER_CREDENTIALS_FULL_URI",
    "WEB_IDENTITY_TOKEN_FILE",
]
DELTALAKE = [
    "AWS_S3_LOCKING_PROVIDER",
    "AWS_S3_ALLOW_UNSAFE_RENAME",
    "AWS_COPY_IF_NOT_EXISTS",
    "DELTA_DYNAMO_TABLE_NAME",
    "AWS_ENDPOINT_URL_DYNAMODB",
    "AWS_S3_ASSUME_ROLE_ARN",
    "AWS_IAM_ROLE_ARN",
    "AWS_EC2_METADATA_DISABLED_X",
    "MAX_RETRIES",
    "RETRY_TIMEOUT",
    "OBJECT_STORE_CONCURRENCY_LIMIT",
]
BOTOCORE = [
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_DATA_PATH",
    "AWS_RETRY_MODE",
    "AWS_MAX_ATTEMPTS",
    "AWS_STS_REGIONAL_ENDPOINTS",
    "AWS_DEFAULTS_MODE",
    "AWS_USE_FIPS_ENDPOINT",
    "AWS_USE_DUALSTACK_ENDPOINT",
    "AWS_S3_US_EAST_1_REGIONAL_ENDPOINT",
    "AWS_S3_DISABLE_EXPRESS_SESSION_AUTH",
    "AWS_REQUEST_CHECKSUM_CALCULATION",
    "AWS_RESPONSE_CHECKSUM_VALIDATION",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "AWS_REQUEST_MIN_COMPRESSION_SIZE_BYTES",
    "AWS_DISABLE_REQUEST_COMPRESSION",
    "AWS_SIGV4A_SIGNING_REGION_SET",
    "AWS_SDK_UA_APP_ID",
    "AWS_AUTH_SCHEME_PREFERENCE",
    "AWS_ACCOUNT_ID_ENDPOINT_MODE",
    "AWS_CREDENTIAL_EXPIRATION",
    "AWS_METADATA_SERVICE_TIMEOUT",
    "AWS_METADATA_SERVICE_NUM_ATTEMPTS",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
]
# Of deltalake's own Rust, found by watching what it asks the environment for.
RUST = [
    "TOKIO_WORKER_THREADS",
    "RUST_MIN_STACK",
    "RUST_LOG",
    "RUST_LOG_STYLE",
    "RAYON_NUM_THREADS",
    "DELTARS_MAX_IN_FLIGHT_UPLOAD_BYTES",
    "DELTARS_WRITER_BATCH_CHANNEL_SIZE",
    "DELTARS_UPLOAD_PART_SIZE",
    "DELTARS_ROLL_ON_ROW_GROUP_BOUNDARY",
    "DELTARS_MAX_CONCURRENCY_TASKS",
    "DATAFUSION_EXECUTION_TARGET_PARTITIONS",
    "DATAFUSION_EXECUTION_BATCH_SIZE",
]
NONSENSE = {
    **dict.fromkeys(OBJECT_STORE, STRAY),
    **{f"AWS_{name}": STRAY for name in OBJECT_STORE},
    **dict.fromkeys((*DELTALAKE, *BOTOCORE), STRAY),
    **{f"AWS_ENDPOINT_URL{service}": NOWHERE for service in ("", "_S3", "_STS", "_SSO")},
    **dict.fromkeys(("ALLOW_INVALID_CERTIFICATES", "SKIP_SIGNATURE", "AWS_SKIP_SIGNATURE", "HTTP2_ONLY"), "true"),
}
AWS_CONFIG = f"""
[default]
region = {STRAY}
retry_mode = bogus
max_attempts = many
endpoint_url = {NOWHERE}
ca_bundle = /nowhere/{STRAY}.pem
tcp_keepalive = {STRAY}
s3 =
  addressing_style = virtual
  payload_signing_enabled = {STRAY}
"""


@pytest.fixture
def nonsense(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    for name, value in NONSENSE.items():
        monkeypatch.setenv(name, value)
    (home / ".aws").mkdir()
    for name in ("config", "credentials"):
        (home / ".aws" / name).write_text(AWS_CONFIG)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(home / ".aws" / "config"))


def everything(store: S3Store) -> None:
    """Every operation of the store."""
    for key, body in (("small", b"small"), ("large", bytes(1 << 21))):
        store.put(key, body, sha256=hashlib.sha256(body).hexdigest(), if_absent=True)
        assert store.read(key)[0] == b"".join(store.stream(key)) == body
        assert store.head(key).size_bytes == len(body)
    upload_id = store.create_upload("multi", metadata={"sha256": "ab" * 32})
    part = store.upload_part("multi", upload_id, 1, b"part", md5=hashlib.md5(b"part").hexdigest())
    assert store.list_parts("multi", upload_id) == [part]
    assert [upload.key for upload in store.list_uploads("")] == ["multi"]
    store.complete_upload("multi", upload_id, [part], if_absent=True)
    store.abort_upload("gone", store.create_upload("gone"))
    assert {info.key for info in store.list("")} == {"small", "large", "multi"}
    store.delete("multi")


def test_the_environment_does_not_matter(weed_buckets: Buckets, fault_proxy: Proxied, nonsense: None) -> None:
    """Somebody's settings for another account, another server and another way of talking to it."""
    proxy = fault_proxy(weed_buckets.server)
    server = weed_buckets.server
    location = S3Location(proxy.url, weed_buckets.raw, "us-east-1", "raw_rw")
    secret = Credentials(server.access_key, server.secret_key)
    known = KnownConduct(None, proxy.url, weed_buckets.raw)
    everything(S3Store(location, lambda _again: secret, RequestCounter(), known))
    sent = [f"{request.path} {request.query} {request.headers}".lower() for request in proxy.log]
    assert not [text for text in sent if STRAY in text or "x-amz-security-token" in text]
    assert all(request.headers["user-agent"].startswith("ursa/") for request in proxy.log)


@pytest.mark.parametrize("through", ["plain", "a company's TLS"])
def test_a_catalog_and_an_ingest_in_it(
    weed_buckets: Buckets, s3_config: MakeConfig, example_recordings: Path, tmp_path: Path, nonsense: None, through: str
) -> None:
    """The catalog's tables as well: nothing but the store talks to the server."""
    with TlsFront(weed_buckets.server.endpoint_url, Authority(tmp_path)) as front:
        plain = through == "plain"
        buckets = weed_buckets if plain else weed_buckets.at(front.url)
        with DataInterface("r2", s3_config(buckets, **({} if plain else {"ca_bundle": str(front.bundle)}))) as data:
            data.enable_writes(("assets_rw", "raw_rw"))
            assert data.init_catalog()
            rec_dir = next(path for path in sorted(example_recordings.iterdir()) if (path / "manifest.json").is_file())
            assert data.ingest(rec_dir / "manifest.json", rec_dir, "Ada").files_uploaded
            assert [row.rec_id for row in data.list_recordings()] == [rec_dir.name]


CATALOG = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from homes import Place, add_recordings, recording
place = Place(Path(sys.argv[1]))
place.home().initialize()
catalog = place.catalog()
add_recordings(catalog, [recording(1)])
catalog.recordings.merge_files(1 << 40)
catalog.recordings.write_checkpoint()
print(len(catalog.list_recordings()))
"""


@pytest.mark.parametrize("value", [STRAY, "0", "trace"])
def test_a_catalog_among_settings_of_other_rust_programs(tmp_path: Path, value: str) -> None:
    """In a process of its own: they are read once in each."""
    tests = Path(__file__).parent
    ran = subprocess.run(
        [sys.executable, "-c", CATALOG, str(tmp_path), str(tests), str(tests / "catalog")],
        env={**os.environ, **dict.fromkeys(RUST, value)},
        cwd=tests.parent,
        capture_output=True,
        text=True,
    )
    assert (ran.returncode, ran.stdout.strip(), ran.stderr) == (0, "1", "")
