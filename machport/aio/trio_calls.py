"""Calls in trio, where nothing runs behind the back of its tasks: one of those that wait looks for all of them.

When its own call is over it leaves, and the next one looks.
"""

from __future__ import annotations

from typing import Any

from machport.aio.pending import LoopCalls, Pending
from machport.client.connection import Connection
from machport.face.loops import trio_library
from machport.ring import memory


class TrioCalls(LoopCalls):
    """The calls of one task in one run of trio."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._trio: Any = trio_library()
        self.run = self._trio.lowlevel.current_trio_token()
        self._leader: Pending | None = None
        self._followers: dict[Pending, None] = {}
        self._sleeps = False
        #: In which the leader sleeps.
        self._waking: Any = None

    async def wait(self, pending: Pending, timeout: float | None) -> bool:
        with self._trio.move_on_after(float("inf") if timeout is None else timeout):
            while not pending.is_over:
                if self._leader is None:
                    await self._lead(pending)
                else:
                    await self._follow(pending)
        return pending.is_over

    async def _lead(self, pending: Pending) -> None:
        self._leader = pending
        try:
            while not pending.is_over:
                if self._look():
                    self._budget = self._most
                    self._until = memory.now() + self._budget
                elif memory.now() < self._until:
                    memory.give_way()
                    await self._trio.lowlevel.checkpoint()
                else:
                    await self._sleep()
        finally:
            self._leader = None
            for follower in self._followers:
                self._wake(follower)
                break

    async def _sleep(self) -> None:
        if not self._events.arm():
            return
        self._asleep_since = memory.now()
        self._sleeps = True
        try:
            with self._trio.CancelScope() as self._waking:
                await self._trio.lowlevel.wait_readable(self._events.fileno())
        except self._trio.ClosedResourceError:
            # Another task found the channel at its end.
            return
        finally:
            self._sleeps = False
        self._take()

    async def _follow(self, pending: Pending) -> None:
        event = pending.waiter = self._trio.Event()
        self._followers[pending] = None
        try:
            await event.wait()
        finally:
            self._followers.pop(pending, None)
            if self._leader is None:
                # It was asked to lead, and may be leaving instead.
                for follower in self._followers:
                    self._wake(follower)
                    break

    def _wake(self, pending: Pending) -> None:
        if pending is self._leader and self._sleeps:
            # Another task has taken its answer along with one of its own.
            self._waking.cancel()
        waiter: Any = pending.waiter
        if waiter is not None:
            waiter.set()

    def _changed(self) -> None:
        self._until = memory.now() + self._budget
        while self._sleeps and not self.closed and not self._events.arm():
            self._look()

    def close(self) -> None:
        if self._sleeps:
            self._trio.lowlevel.notify_closing(self._events.fileno())
        super().close()
