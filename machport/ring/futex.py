"""Sleeping at a word, and waking who sleeps there: the interpreted twin of ``futex.pxd``.

For ``machport.ring.sleeping`` only.  Python has no futexes.
"""

from __future__ import annotations

import select
from typing import Any

#: Whether this is the form that sleeps.
NATIVE = False

CHANGED = 0
LINE = 1
TIMED_OUT = 2
INTERRUPTED = 3
UNABLE = 4


def sleep(word: Any, value: int, nanoseconds: int) -> int:
    """Sleep while ``word`` is ``value``; for ever if the time is negative."""
    return UNABLE


def sleep_both(word: Any, value: int, line: Any, held: int, nanoseconds: int) -> int:
    """Sleep while ``word`` is ``value`` and ``line`` is ``held``; for ever if the time is negative."""
    return UNABLE


def poll(descriptor: int, other: int, nanoseconds: int) -> None:
    """Sleep until one of two descriptors is readable, or a signal comes; for ever if the time is negative."""
    poll = select.poll()
    for wanted in (descriptor, other):
        if wanted >= 0:
            poll.register(wanted, select.POLLIN)
    poll.poll(None if nanoseconds < 0 else min(-(-nanoseconds // 1_000_000), 1_000_000_000))


def wake(word: Any) -> None:
    """Wake who sleeps at ``word``."""


def check_signals() -> None:
    """Run handlers of signals that have arrived; what they raise is raised."""
