"""What a registration means for the files outside of worker directories."""

from __future__ import annotations

from dataclasses import replace

import pytest
from decided import NEW, A, B, Files, auxiliary, decided, row, worker

from ursa.catalog.rows import FileRow, RecordingRow
from ursa.errors import ConflictError, RecordingExistsError
from ursa.policies import Action, Evidence
from ursa.register.decide import merged


@pytest.mark.parametrize(
    ("there", "here"),
    [
        pytest.param({}, {}, id="none"),
        pytest.param({"n.csv": (1, A)}, {}, id="only-registered"),
        pytest.param({"n.csv": (1, A)}, {"n.csv": (1, A)}, id="equal"),
        pytest.param({"n.csv": (1, A), "m.csv": (1, A)}, {"n.csv": (1, A)}, id="subset"),
        pytest.param({"n.csv": (1, None)}, {"n.csv": (1, A)}, id="their-sha256-unknown"),
        pytest.param({"n.csv": (1, A)}, {"n.csv": (1, None)}, id="our-sha256-unknown"),
    ],
)
def test_no_new_auxiliary_file(there: Files, here: Files) -> None:
    with pytest.raises(RecordingExistsError):
        decided([worker("eeg_a")], [worker("eeg_a")], existing=row(aux=there), wanted=row(NEW, aux=here))


@pytest.mark.parametrize("there", [{}, {"m.csv": (1, A)}])
def test_a_new_auxiliary_file_is_merged(there: Files) -> None:
    decision = decided(
        [worker("eeg_a")], [worker("eeg_a")], existing=row(aux=there), wanted=row(NEW, aux={"n.csv": (2, B)})
    )
    assert decision.action is Action.MERGED
    assert decision.modalities == ()
    assert auxiliary(decision.row) == {**there, "n.csv": (2, B)}


@pytest.mark.parametrize("here", [(2, A), (1, B), (2, None)], ids=["size", "sha256", "size-sha256-unknown"])
@pytest.mark.parametrize("new_worker", [False, True])
def test_another_auxiliary_file(here: tuple[int, str | None], new_worker: bool) -> None:
    ours = [worker("eeg_a"), *([worker("mic")] if new_worker else [])]
    with pytest.raises(ConflictError) as caught:
        decided([worker("eeg_a")], ours, existing=row(aux={"n.csv": (1, A)}), wanted=row(NEW, aux={"n.csv": here}))
    assert list(caught.value.paths) == ["n.csv"]


def test_auxiliary_files_of_two_halves() -> None:
    decision = decided(
        [worker("eeg_a")],
        [worker("mic")],
        existing=row(aux={"a.csv": (1, A), "both.csv": (3, A)}),
        wanted=row(NEW, aux={"b.csv": (2, B), "both.csv": (3, A)}),
    )
    assert auxiliary(decision.row) == {"a.csv": (1, A), "b.csv": (2, B), "both.csv": (3, A)}


def test_a_known_sha256_is_not_forgotten() -> None:
    known: Files = {"n.csv": (1, A)}
    unknown: Files = {"n.csv": (1, None)}
    for there, here in ((known, unknown), (unknown, known)):
        assert auxiliary(merged(row(aux=there), row(NEW, aux=here))) == known


def known(evidence: Evidence, etag: str, sha256: str | None = A, recording_hash: str = NEW) -> RecordingRow:
    """A row with one auxiliary file, of which this is known."""
    file = FileRow("n.csv", "recordings/n.csv", 1, sha256, etag, evidence)
    return replace(row(recording_hash), auxiliary_files=(file,))


@pytest.mark.parametrize("measured", [Evidence.SHA256, Evidence.ETAG])
def test_a_claim_takes_no_measurements_place(measured: Evidence) -> None:
    """By whichever half it comes: what was compared stays compared. The newer of two measurements counts."""
    claim, there = known(Evidence.CLAIMED, "new"), known(measured, "old")
    assert merged(there, claim).auxiliary_files == there.auxiliary_files
    assert merged(claim, there).auxiliary_files == there.auxiliary_files
    newer = known(Evidence.ETAG, "newer")
    assert merged(there, newer).auxiliary_files == newer.auxiliary_files


def test_an_overwrite_takes_a_claim_of_another_file() -> None:
    """It is another file then, and what was measured was of the old one."""
    there, claim = known(Evidence.SHA256, "old"), known(Evidence.CLAIMED, "new", B)
    decision = decided(
        [worker("eeg_a"), worker("mic")], [worker("eeg_a")], overwrite=True, existing=there, wanted=claim
    )
    assert decision.row.auxiliary_files == claim.auxiliary_files
