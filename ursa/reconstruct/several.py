"""Several recordings, many at once; one failure never stops the rest."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from pathlib import Path

from ursa.errors import InvalidRecordingError, UrsaError, unexpected
from ursa.manifest import shown
from ursa.parallel import in_order
from ursa.reconstruct.results import ReconstructResult
from ursa.telling import of_callback
from ursa.transfer.engine import Stop


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
    stop: Stop,
    at_once: Callable[[], int],
) -> Generator[ReconstructOutcome]:
    """Outcomes in the order of ``refs``, so many under way ``at_once``.

    Args:
        refs: a ``Path`` is a directory, text a rec_id.
        stop: set on Ctrl-C: ``one`` ends by it.
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

    return in_order(stop, attempt, refs, at_once)
