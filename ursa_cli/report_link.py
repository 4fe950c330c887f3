"""How a run used its link, as a report tells it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ursa import LinkUse

_WORTH_SAYING = 0.05


def told_link(link: LinkUse | None) -> dict[str, Any] | None:
    """The figures."""
    if link is None:
        return None
    return {
        "idle_share": round(link.idle_share, 4),
        "idle_s": {str(stage): round(seconds, 3) for stage, seconds in link.idle_s.items()},
        "bucket_s": link.bucket_s,
        "sent": link.sent,
        "idle": link.idle,
    }


def link_in_words(link: Mapping[str, Any] | None) -> str:
    """What ``told_link`` gave as a sentence; empty where the link was hardly idle, or nothing was to be sent."""
    if link is None or not any(link["sent"]) or link["idle_share"] < _WORTH_SAYING:
        return ""
    mostly = max(link["idle_s"], key=lambda stage: link["idle_s"][stage])
    return f"Link idle for {link['idle_share']:.0%} of the run, mostly while {mostly}.".replace("%", " %")
