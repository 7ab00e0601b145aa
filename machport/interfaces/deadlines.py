"""The time that calls have, and the call that is being served.

A deadline is a moment of CLOCK_MONOTONIC, in nanoseconds, which all processes of a machine count alike.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Final

from machport.abi.errors import InvalidArgument, TimedOut
from machport.face.message import Message
from machport.face.rights import DeadName, Right


class Scope:
    """What calls that are made here inherit.

    Attributes:
        end: the deadline in nanoseconds, or None.
        call: the call that is being served, or None.
    """

    __slots__ = ("call", "end")

    def __init__(self, end: int | None, call: Call | None) -> None:
        self.end = end
        self.call = call


class Call(Scope):
    """The call that a routine is carrying out.

    Attributes:
        sender: (euid, egid) of the caller, attested.
        pid: process of the caller, attested.
    """

    __slots__ = ("_reply_right", "_stop", "pid", "sender")

    def __init__(self, end: int | None, message: Message, stop: Callable[[], None]) -> None:
        self.end = end
        self.call = self
        self.sender: tuple[int, int] = message.sender
        self.pid: int = message.pid
        self._reply_right: Right | None = message.reply_right
        self._stop = stop

    @property
    def deadline(self) -> float | None:
        """When the caller stops waiting, by ``time.monotonic``; None if it waits for ever."""
        return None if self.end is None else self.end / 1e9

    @property
    def cancelled(self) -> bool:
        """Whether the caller has given up or died, or its time is over; one trap.  A one-way call is never cancelled
        but by time."""
        if self.end is not None and time.monotonic_ns() >= self.end:
            return True
        right = self._reply_right
        return right is not None and not right.closed and (isinstance(right, DeadName) or right.is_dead())

    def stop(self) -> None:
        """Let the server answer this call and serve no other; to be called while the routine runs."""
        self._stop()


_NOWHERE: Final = Scope(None, None)
scope: Final[ContextVar[Scope]] = ContextVar("machport.scope", default=_NOWHERE)


def current_call() -> Call:
    """The call that is being served here.

    Raises:
        InvalidArgument: none is.
    """
    call = scope.get().call
    if call is None:
        raise InvalidArgument("no call is being served here; ask in a routine, in the context in which it was begun")
    return call


def deadline(seconds: float) -> contextlib.AbstractContextManager[None]:
    """Typed calls in the block, and the calls that their servers make for them, end within so many seconds.

    Of several deadlines the nearest counts.
    """
    return _within(checked_seconds(seconds))


@contextlib.contextmanager
def _within(seconds: float) -> Iterator[None]:
    outer = scope.get()
    token = scope.set(Scope(nearer(outer.end, seconds), outer.call))
    try:
        yield
    finally:
        scope.reset(token)


def checked_seconds(seconds: float) -> float:
    """Seconds that a call may take.

    Raises:
        InvalidArgument: they are not.
    """
    if isinstance(seconds, int | float) and seconds >= 0:
        return seconds
    raise InvalidArgument(f"a deadline is 0 or more seconds from now, not {seconds!r}")


def nearer(end: int | None, seconds: float) -> int | None:
    """The nearer of a deadline and so many seconds from now."""
    if math.isinf(seconds):
        return end
    # As far away as a deadline can be written down.
    own = time.monotonic_ns() + int(min(seconds, 1e9) * 1e9)
    return own if end is None else min(own, end)


def end_of_call(timeout: float | None) -> int | None:
    """The deadline of a call that is made here and may take so many seconds."""
    end = scope.get().end
    return end if timeout is None else nearer(end, timeout)


def time_left(end: int | None, where: str) -> float | None:
    """Seconds to a deadline.

    Raises:
        TimedOut: it has passed.
    """
    if end is None:
        return None
    left = end - time.monotonic_ns()
    if left <= 0:
        raise TimedOut("the time for the call was over before it was sent", call=where)
    return left / 1e9
