"""``register_modality`` on a server: a stated sha256 is proven against what a LIST, a HEAD and a GET say."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from r2_tools import PREFIX, REC

from conftest import Buckets, MakeConfig
from ursa import DataInterface, MissingFilesError

HASH = "ab" * 32
PART_BYTES = 5 << 20
PARTS = (b"a" * PART_BYTES, b"b" * 7)


def stated(path: str, body: bytes, **other: Any) -> dict[str, Any]:
    return {"path": path, "size_bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()} | other


def put_in_parts(buckets: Buckets, key: str) -> None:
    """An object as somebody else's tool uploads it: its ETag is no md5."""
    client = buckets.server.client()
    upload: Any = {"Bucket": buckets.raw, "Key": key}
    upload["UploadId"] = client.create_multipart_upload(**upload)["UploadId"]
    sent = [client.upload_part(**upload, PartNumber=number, Body=body) for number, body in enumerate(PARTS, 1)]
    parts = [{"PartNumber": number, "ETag": part["ETag"]} for number, part in enumerate(sent, 1)]
    client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})


def test_a_stated_sha256_is_proven(weed_buckets: Buckets, s3_config: MakeConfig) -> None:
    data = DataInterface("r2", s3_config(weed_buckets))
    data.enable_writes()
    data.init_catalog()
    data.register_recording(recording_hash=HASH, metadata={"manifest_recording_id": REC})
    small = {f"eeg_a/{number}.edf": b"%d" % number for number in range(40)}
    client = weed_buckets.server.client()
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda path: client.put_object(Bucket=weed_buckets.raw, Key=PREFIX + path, Body=small[path]), small
            )
        )
    put_in_parts(weed_buckets, PREFIX + "eeg_a/whole.edf")
    put_in_parts(weed_buckets, "derived/whole.edf")
    whole = b"".join(PARTS)
    files = [stated(path, body) for path, body in small.items()]
    files += [stated("eeg_a/whole.edf", whole), stated("eeg_a/derived.edf", whole, key="derived/whole.edf")]
    made = data.register_modality(recording_hash=HASH, modality="eeg", worker_id="a", files=files)
    assert {file.path: file.sha256 for file in made.files} == {file["path"]: file["sha256"] for file in files}
    assert {file.evidence for file in made.files} == {"sha256"} and all(file.etag for file in made.files)
    wrong = [files[0] | {"sha256": "0" * 64}, *files[1:-1], files[-1] | {"key": "derived/whole"}]
    with pytest.raises(MissingFilesError, match=r"2 of 42 .*eeg_a/0\.edf \(other content: sha256 5feceb66") as refused:
        data.register_modality(recording_hash=HASH, modality="eeg", worker_id="b", files=wrong)
    assert tuple(refused.value.paths) == ("eeg_a/0.edf", "eeg_a/derived.edf")
