"""The server: whether it answers, how fast, and how far its clock is from ours."""

from __future__ import annotations

from http import HTTPStatus
from statistics import median

from ursa.doctor.patient import Patient
from ursa.doctor.results import Finding, fail, ok, warn

SKEW_WARN_S = 60.0
SKEW_FAIL_S = 900.0
"""A quarter of an hour: S3 and R2 refuse signatures that are older (RequestTimeTooSkewed)."""

_CLOCK_MEND = "Set the clock: turn on network time (`timedatectl set-ntp true`, or System Settings on a Mac)."


def certificates(patient: Patient) -> Finding:
    """Whose certificates are trusted. Raises ``ConfigError`` where the file that is named for them is none."""
    from ursa.store.s3.trust import find_trust

    if (patient.profile.endpoint_url or "").startswith("http://"):
        return ok("not needed: endpoint_url begins with http://")
    trust = find_trust(patient.profile.ca_bundle)
    trust.context()
    return ok(f"{trust}: its certificates are trusted")


def reachable(patient: Patient) -> Finding:
    """Whether the endpoint answers, and the median round trip."""
    answers = patient.answers
    status = answers[-1].status
    trip_ms = median(answer.seconds for answer in answers) * 1000
    proxy = patient.proxy
    way = f" through the proxy {proxy}" if proxy else ""
    told = f"{patient.profile.endpoint_url} answers{way}, round trip {trip_ms:.1f} ms (median of {len(answers)})"
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        mend = "Check endpoint_url (`ursa config show`): https, not http? Does this network ask for a login?"
        return warn(f"{told}, but sends requests somewhere else (HTTP {status})", mend)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS:
        mend = "The server is ailing or busy: try again later. An ingest goes on where it stopped."
        return warn(f"{told}, but it answered HTTP {status}", mend)
    return ok(told)


def clock(patient: Patient) -> Finding:
    """How far this machine's clock is from the server's."""
    # Half a second: an HTTP date has whole seconds, cut off.
    skews = [answer.date.timestamp() + 0.5 - answer.middle for answer in patient.answers if answer.date]
    if not skews:
        return warn("the server's answers have no Date, so the clock could not be compared", "Look at `date -u`.")
    return judge_skew(median(skews))


def judge_skew(skew_s: float) -> Finding:
    """``skew_s``: the server's time minus ours, seconds."""
    way = "behind" if skew_s > 0 else "ahead of"
    told = f"this machine's clock is {abs(skew_s):,.0f} s {way} the server's"
    if abs(skew_s) > SKEW_FAIL_S:
        return fail(f"{told}: the server refuses every request over {SKEW_FAIL_S / 60:.0f} minutes", _CLOCK_MEND)
    if abs(skew_s) > SKEW_WARN_S:
        return warn(f"{told}: over {SKEW_FAIL_S / 60:.0f} minutes every request would be refused", _CLOCK_MEND)
    return ok(f"within {max(1, round(abs(skew_s)))} s of the server's")
