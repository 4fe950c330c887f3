"""A process forked while threads ran: what they held stays held in the child, which has only the thread that forked."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forkable(Protocol):
    """What must begin anew in a child: its locks above all."""

    def after_fork(self) -> None:
        """In the child, where no other thread runs."""


_KNOWN: weakref.WeakSet[Forkable] = weakref.WeakSet()


def begin_anew_in_child(what: Forkable) -> None:
    """Have ``after_fork`` called in each child, for as long as ``what`` lives."""
    _KNOWN.add(what)


def _forked() -> None:
    for what in list(_KNOWN):
        what.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
