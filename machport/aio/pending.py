"""Calls that coroutines wait for, whatever their loop is: begun, answered, and given up.

One channel for all calls of a task in a loop.  How the loop looks at it, and how a coroutine waits, is the subclass's.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from typing import Final

from machport.abi.errors import MachError
from machport.abi.traps import MsgAnswer, MsgTrap
from machport.client.connection import Connection
from machport.client.events import Events
from machport.ring import memory
from machport.ring.spinning import after_sleep, spin_ns

#: What is done with an answer that no coroutine waits for any more.
Unclaimed = Callable[[MsgAnswer], object]
#: What is told of an error in its place.
Failed = Callable[[MachError], object]


class Pending:
    """Something that a coroutine waits for: a call, or without a tag what else may come.

    Attributes:
        answer, error: of which there is one when it is over.
        is_over: it is.
        is_left: nobody waits; ``unclaimed`` gets the answer, and ``failed`` the error.
        waiter: the loop's own, while a coroutine waits.
    """

    __slots__ = ("answer", "error", "failed", "is_left", "is_over", "tag", "unclaimed", "waiter")

    def __init__(self, unclaimed: Unclaimed | None = None, failed: Failed | None = None) -> None:
        self.tag = -1
        self.unclaimed = unclaimed
        self.failed = failed
        self.answer: MsgAnswer | None = None
        self.error: MachError | None = None
        self.is_over = False
        self.is_left = False
        self.waiter: object = None


class LoopCalls:
    """The calls of one task in one loop.

    Raises:
        DaemonLost, DeadTask, ForkedTask, LimitReached: there is no channel to be had.
    """

    def __init__(self, connection: Connection) -> None:
        self._events: Final[Events] = connection.events()
        self._pending: dict[int, Pending] = {}
        self._thread = threading.get_ident()
        # As a thread that waits: looking comes before sleeping, for as long as that has been of use.
        self._most = self._budget = spin_ns()
        self._until = 0
        self._asleep_since = 0

    @property
    def closed(self) -> bool:
        """Whether the channel has ended, so that the next call needs another."""
        return self._events.closed

    def begin(self, trap: MsgTrap, unclaimed: Unclaimed | None = None, failed: Failed | None = None) -> Pending:
        """Begin a call.

        Raises: as the class, and LimitReached if there is no room for one more; nothing was sent.
        """
        pending = Pending(unclaimed, failed)
        try:
            pending.tag = self._events.begin(trap)
        except MachError as error:
            if self.closed:
                self.fail(error)
            raise
        self._pending[pending.tag] = pending
        self._changed()
        return pending

    def at_once(self, trap: MsgTrap) -> MsgAnswer:
        """A call that does not wait for anybody, in the order of those that were begun.

        By this channel and not the thread's: the daemon looks at it already.

        Raises: as ``begin``.
        """
        try:
            answer = self._events.call(trap)
        except MachError as error:
            if self.closed:
                self.fail(error)
            raise
        self._changed()
        return answer

    def is_here(self) -> bool:
        """Whether this is the loop's thread, and the channel goes on."""
        return not self.closed and threading.get_ident() == self._thread

    async def finish(self, pending: Pending) -> MsgAnswer:
        """Wait for the answer; if the coroutine is cancelled the call is left.

        Raises: as the class, when the channel ends.
        """
        try:
            await self.wait(pending, None)
        except BaseException:
            self.leave(pending)
            raise
        if pending.error is not None:
            raise pending.error
        assert pending.answer is not None
        return pending.answer

    async def wait(self, pending: Pending, timeout: float | None) -> bool:
        """Wait until it is over; whether it is after ``timeout`` seconds.  A coroutine that is cancelled leaves it."""
        raise NotImplementedError

    def leave(self, pending: Pending) -> None:
        """Nobody waits: interrupt the call if it is not over, and do with its answer what is to be done."""
        if pending.is_left:
            return
        pending.is_left = True
        if not pending.is_over:
            if not self.is_here() or self._pending.get(pending.tag) is not pending:
                # It is done when the answer comes.
                return
            try:
                pending.answer = self._events.cancel(pending.tag)
            except MachError as error:
                self.fail(error)
                return
            del self._pending[pending.tag]
            pending.is_over = True
            self._changed()
        if pending.answer is not None and pending.unclaimed is not None:
            pending.unclaimed(pending.answer)

    def settle(self, pending: Pending) -> None:
        """What has no tag is over."""
        pending.is_over = True
        self._wake(pending)

    def fail(self, error: MachError) -> None:
        """The channel has ended: so have all calls."""
        pendings, self._pending = self._pending, {}
        self.close()
        for pending in pendings.values():
            pending.error = copy.copy(error)
            pending.is_over = True
            if not pending.is_left:
                self._wake(pending)
            elif pending.failed is not None:
                pending.failed(pending.error)

    def close(self) -> None:
        """End the channel."""
        self._events.close()

    # For subclasses

    def _look(self) -> bool:
        """Take what has come; whether there was anything."""
        return self._deliver(self._events.look)

    def _take(self) -> bool:
        """The same when the descriptor is readable, or may be."""
        found = self._deliver(self._events.take)
        if found:
            self._budget = after_sleep(self._budget, self._most, self._budget + memory.now() - self._asleep_since)
        self._until = memory.now() + self._budget
        return found

    def _deliver(self, source: Callable[[], Sequence[tuple[int, MsgAnswer]]]) -> bool:
        try:
            answers = source()
        except MachError as error:
            self.fail(error)
            return True
        ending: BaseException | None = None
        for tag, answer in answers:
            pending = self._pending.pop(tag)
            pending.answer = answer
            pending.is_over = True
            if not pending.is_left:
                self._wake(pending)
            elif pending.unclaimed is not None:
                try:
                    pending.unclaimed(answer)
                except MachError:
                    pass
                except BaseException as error:
                    # Not before those who wait for the other answers have them.
                    ending = error
        if ending is not None:
            raise ending
        return bool(answers)

    def _changed(self) -> None:
        """A call was begun, or left: answers may have come meanwhile, and the bell is not armed."""
        raise NotImplementedError

    def _wake(self, pending: Pending) -> None:
        """Let the coroutine that waits go on."""
        raise NotImplementedError
