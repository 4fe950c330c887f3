"""Path C in the bucket: look, list, hash, look again, write, in this order."""

from __future__ import annotations

import hashlib
from contextlib import closing

from ursa.bucket.record import record_key
from ursa.errors import StorageError
from ursa.events import HashCallback
from ursa.manifest import check_rec_id
from ursa.manifest.names import UNKNOWN_PARTICIPANT
from ursa.reconstruct.checkpoint import HashCheckpoint
from ursa.reconstruct.document import Document, Hashed, build, kept
from ursa.reconstruct.hashing import hash_objects, replaced, vanished
from ursa.reconstruct.objects import Found, read_contents
from ursa.reconstruct.planning import Bucket, Plan, make_plan
from ursa.reconstruct.progress import Progress
from ursa.reconstruct.results import Made, ReconstructResult
from ursa.reconstruct.run import Block
from ursa.reconstruct.standing import Placeholder, Valid, aggregate, node_manifest, replaceable
from ursa.recording import MANIFEST_NAME
from ursa.store import NotFoundError, ObjectInfo, PreconditionFailedError


def reconstruct(
    bucket: Bucket, rec_id: str, *, dry_run: bool = False, callback: HashCallback | None = None
) -> ReconstructResult:
    """Make the manifest of a recording in the bucket; see ``DataInterface.reconstruct``."""
    check_rec_id(rec_id)
    progress = Progress(rec_id, callback)
    job = _Job(bucket, rec_id, progress)
    valid, placeholder = job.look()
    if valid is None:
        checkpoint = HashCheckpoint(bucket.assets(), record_key(bucket.assets_prefix, rec_id), bucket.name)
        plan = make_plan(bucket, rec_id, job.listing, placeholder, checkpoint)
        progress.planned(len(plan.unknown), sum(found.size_bytes for found in plan.unknown))
        result = job.planned(plan) if dry_run else job.execute(plan, checkpoint)
    else:
        result = job.kept(valid, dry_run=dry_run)
    if not dry_run:
        progress.done()
    return result


class _Job:
    """One recording."""

    def __init__(self, bucket: Bucket, rec_id: str, progress: Progress) -> None:
        self.bucket = bucket
        self.store = bucket.store
        self.rec_id = rec_id
        self.prefix = f"{bucket.raw_prefix}{rec_id}/"
        self.progress = progress
        self.listing: list[ObjectInfo] = []

    def look(self) -> tuple[Valid | None, Placeholder | None]:
        """The valid manifest that is there, or the placeholder. One request where ``manifest.json`` is valid."""
        valid = aggregate(self.store, self.prefix, self.rec_id)
        if valid is not None:
            return valid, None
        self.listing = list(self.store.list(self.prefix))
        valid = node_manifest(self.store, self.prefix, self.rec_id, self.listing)
        if valid is not None:
            return valid, None
        found = replaceable(self.store, self.prefix, self.rec_id, self.listing)
        return (found, None) if isinstance(found, Valid) else (None, found)

    def planned(self, plan: Plan) -> ReconstructResult:
        """What a run would do."""
        return self._result(plan, Made.REPLACED if plan.placeholder else Made.MADE, None, dry_run=True)

    def execute(self, plan: Plan, checkpoint: HashCheckpoint) -> ReconstructResult:
        """Hash, look once more, write. What is hashed is kept where this fails."""
        try:
            # Also what this machine had measured before: another one's Path B has only the record.
            for found in plan.contents.data:
                if found.path in plan.known and checkpoint.get(found) is None:
                    checkpoint.add(found, plan.known[found.path])
            hashes = {**plan.known, **self._hash(plan.unknown, checkpoint)}
            document = build(
                self.rec_id,
                (Hashed(item.path, item.size_bytes, hashes[item.path], item.worker) for item in plan.contents.data),
                plan.participant,
                placeholder=plan.placeholder.manifest if plan.placeholder else None,
            )
            # Before the manifest: with that there, no further run completes it.
            checkpoint.save()
            self.progress.writing(MANIFEST_NAME)
            if self.bucket.stop.is_set():
                raise KeyboardInterrupt
            valid = self._unchanged(plan) or self._write(plan.placeholder, document)
        finally:
            # An interrupted run resumes from it.
            checkpoint.save()
        if valid is not None:
            return self.kept(valid, dry_run=False)
        return self._result(plan, Made.REPLACED if plan.placeholder else Made.MADE, document.recording_hash)

    def kept(self, valid: Valid, *, dry_run: bool) -> ReconstructResult:
        """There is a manifest that stays."""
        seconds = self.progress.seconds
        return kept(self.rec_id, valid.manifest, valid.key, seconds, dry_run=dry_run, warnings=valid.warnings)

    def _hash(self, unknown: list[Found], checkpoint: HashCheckpoint) -> dict[str, str]:
        by_path = {found.path: found for found in unknown}
        hashes: dict[str, str] = {}
        with closing(hash_objects(self.bucket.engine, self.store, unknown, stop=self.bucket.stop)) as events:
            for event in events:
                if isinstance(event, Block):
                    self.progress.hashed(event.path, event.size_bytes)
                    continue
                hashes[event.path] = event.result
                checkpoint.add(by_path[event.path], event.result)
                self.bucket.proofs.record(by_path[event.path].info, event.result)
                self.progress.file_done(event.path)
        return hashes

    def _unchanged(self, plan: Plan) -> Valid | None:
        """Find everything as it was; a valid manifest that has come meanwhile is returned.

        Raises:
            MissingFilesError: objects are gone. StorageError: objects were replaced, or more have come.
        """
        self.listing = list(self.store.list(self.prefix))
        now = read_contents(self.rec_id, self.prefix, self.listing)
        if now.manifests != plan.contents.manifests:
            valid, _ = self.look()
            if valid is not None:
                return valid
        before, after = plan.contents.state, now.state
        lost = [self._path(key) for key in before if key not in after]
        if lost:
            raise vanished(lost)
        changed = [self._path(key) for key, state in before.items() if after[key] != state]
        if changed:
            raise replaced(changed)
        new = [self._path(key) for key in after if key not in before]
        if new:
            raise replaced(new, "came into the bucket")
        return None

    def _write(self, placeholder: Placeholder | None, document: Document) -> Valid | None:
        """Put the manifest where there is none, or in the placeholder's place; a valid one that was first is returned."""
        key = self.prefix + MANIFEST_NAME
        sha256 = hashlib.sha256(document.data).hexdigest()
        try:
            put = self.store.put(
                key,
                document.data,
                sha256=sha256,
                if_absent=placeholder is None,
                if_match=placeholder.etag if placeholder else None,
            )
        except PreconditionFailedError:
            return self._lost_race(key, document)
        if not put.evidence.proven and self.store.read(key)[0] != document.data:
            raise StorageError(
                f"{key} arrived damaged: what the store gives back is not what was sent",
                hint="Delete it and run the same command again; if it happens again, the network or server is at fault.",
                key=key,
                operation="write",
            )
        return None

    def _lost_race(self, key: str, document: Document) -> Valid | None:
        """Somebody, perhaps this process in a request whose reply was lost, wrote the key first."""
        try:
            if self.store.read(key)[0] == document.data:
                return None
            found = aggregate(self.store, self.prefix, self.rec_id)
        except NotFoundError:
            found = None
        if found is not None:
            return found
        raise StorageError(
            f"{key} was written or removed by somebody else at the same moment; this run wrote nothing",
            hint="Run the same command again.",
            key=key,
            operation="write",
        )

    def _result(
        self, plan: Plan, action: Made, recording_hash: str | None, *, dry_run: bool = False
    ) -> ReconstructResult:
        data = plan.contents.data
        return ReconstructResult(
            self.rec_id,
            action,
            self.prefix + MANIFEST_NAME,
            recording_hash,
            plan.participant or UNKNOWN_PARTICIPANT,
            len(data),
            sum(found.size_bytes for found in data),
            bytes_hashed=sum(found.size_bytes for found in plan.unknown),
            files_known=len(plan.known),
            seconds=self.progress.seconds,
            warnings=plan.warnings,
            dry_run=dry_run,
        )

    def _path(self, key: str) -> str:
        return key.removeprefix(self.prefix)
