"""Several recordings, one after the other or a few at once; one failure never stops the rest."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ursa.errors import InvalidRecordingError, UrsaError, unexpected
from ursa.manifest import shown
from ursa.reconstruct.results import ReconstructResult
from ursa.telling import of_callback


@dataclass(frozen=True, slots=True)
class ReconstructOutcome:
    """What became of one recording: a result, or the error that says why there is none. ``ref``: as it was named."""

    ref: str | Path
    rec_id: str
    result: ReconstructResult | None = None
    error: UrsaError | None = None


def reconstruct_several(
    one: Callable[[str | Path], ReconstructResult],
    refs: Iterable[str | Path],
    *,
    jobs: int,
    stop: Callable[[], object],
) -> Iterator[ReconstructOutcome]:
    """Outcomes in the order of ``refs``, ``jobs`` recordings in flight.

    Args:
        refs: a ``Path`` is a directory, text a rec_id.
        stop: called on Ctrl-C, so that those in other threads end.
    """

    def attempt(ref: str | Path) -> ReconstructOutcome:
        rec_id = ref.absolute().name if isinstance(ref, Path) else ref
        try:
            return ReconstructOutcome(ref, rec_id, result=one(ref))
        except UrsaError as error:
            return ReconstructOutcome(ref, rec_id, error=error)
        except OSError as error:
            words = f"{shown(str(ref), 400)}: {error.strerror or error}"
            return ReconstructOutcome(ref, rec_id, error=InvalidRecordingError(words, path=str(ref)))
        except Exception as error:
            if of_callback(error):
                raise
            return ReconstructOutcome(ref, rec_id, error=unexpected(error, rec_id))

    if jobs == 1:
        yield from map(attempt, refs)
        return
    with ThreadPoolExecutor(jobs, thread_name_prefix="ursa-recording") as pool:
        futures = [pool.submit(attempt, ref) for ref in refs]
        try:
            for future in futures:
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            # Again and again: one that has just begun may not have heard it.
            while not all(future.done() for future in futures):
                stop()
                time.sleep(0.1)
            raise
