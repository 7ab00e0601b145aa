# cython: annotation_typing=False, auto_pickle=False
"""Sleeping at a doorbell until it rings, or until the line of whoever would ring it goes slack.

For data queues: one system call to sleep, one to wake, and nobody between the two sides.  A killed process is seen as
soon as the system lets go of its lifeline.  Compiled only; the interpreted form says that it cannot.
"""

from __future__ import annotations

from machport.ring import futex
from machport.ring.doorbell import Doorbell
from machport.ring.lifeline import Word

RANG = 0
SLACK = 1
TIMED_OUT = 2
#: This system cannot wait for a bell and a line together, or the form is interpreted.
UNABLE = 4


def is_compiled() -> bool:
    """Whether the native form is loaded, the only one that sleeps."""
    return futex.NATIVE != 0


def sleep(bell: Doorbell, way: int, line: Word | None, nanoseconds: int) -> int:
    """Sleep as long as ``bell`` is armed with ``way`` and ``line`` is held; for ever if the time is negative.

    Signals are handled, and what their handlers raise is raised.  ``RANG`` says no more than that it is worth a look.

    Returns:
        ``RANG``, ``SLACK``, ``TIMED_OUT`` or ``UNABLE``.
    """
    if line is None:
        answer = futex.sleep(bell._memory, way, nanoseconds)
    else:
        answer = futex.sleep_both(bell._memory, way, line._memory + line.offset, line.value, nanoseconds)
    # Also if none has interrupted: the other side may change the bell so often that this never sleeps.
    futex.check_signals()
    if answer == futex.INTERRUPTED:
        return RANG
    if answer == futex.LINE or (line is not None and line.is_slack()):
        return SLACK
    return answer


def sleep_at(descriptor: int, other: int, nanoseconds: int) -> None:
    """Sleep until one of two descriptors is readable; for ever if the time is negative.  -1 is no descriptor.

    Signals are handled, and what their handlers raise is raised.  Then it returns, because they may have taken what
    would have woken.
    """
    futex.poll(descriptor, other, nanoseconds)
    futex.check_signals()


def wake(bell: Doorbell) -> None:
    """Wake the other side, which said by its bell that it sleeps there."""
    futex.wake(bell._memory)
