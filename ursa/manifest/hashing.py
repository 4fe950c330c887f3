"""The recording_hash, for recordings whose manifest states none."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from ursa.errors import InvalidRecordingError
from ursa.names import is_sha256


def derive_recording_hash(sha256s: Iterable[str]) -> str:
    r"""The recording_hash of a recording: the sha256 of its raw files' sha256s, sorted and joined by newlines.

    Every raw file counts, also two of equal content; manifests, participant.txt and auxiliary files don't. There is no
    newline after the last line. For two files that hold the one letter ``a`` and the one letter ``b``:

    >>> a = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
    >>> b = "3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d"
    >>> derive_recording_hash([a, b])
    '0d6b8562ada6532fbb83d290ef589552c0cdd3595596402f5d2ff2aa3368ffea'

    By hand, in the recording directory and over the raw files only (``LC_ALL=C`` sorts as Python does)::

        printf %s "$(sha256sum eeg_a/* | cut -c1-64 | LC_ALL=C sort)" | sha256sum

    Args:
        sha256s: 64 hex digits each; upper case is taken as lower.

    Raises:
        InvalidRecordingError: there is none, so the recording has no raw file.
        ValueError: one of them is not 64 hex digits.
    """
    digests = sorted(digest.lower() for digest in sha256s)
    if not digests:
        raise InvalidRecordingError(
            "the recording has no raw file, so there is nothing to derive a recording_hash from",
            hint="Check that the worker directories (camera_*, eeg_*, …) were copied along",
        )
    for digest in digests:
        if not is_sha256(digest):
            raise ValueError(f"not a sha256 of 64 hex digits: {digest[:80]!r}")
    return hashlib.sha256("\n".join(digests).encode("ascii")).hexdigest()
