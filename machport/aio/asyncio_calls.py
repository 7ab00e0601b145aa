"""Calls in a loop of asyncio, or in one that has its methods.

The loop looks at the ring between its other duties for a while, and then relies on the descriptor.
"""

from __future__ import annotations

import contextvars
from asyncio import AbstractEventLoop, Future
from typing import cast

from machport.aio.pending import LoopCalls, Pending
from machport.client.connection import Connection
from machport.ring import memory

#: Nanoseconds for which one look may hold up the loop.
_GLANCE = 4_000


class AsyncioCalls(LoopCalls):
    """The calls of one task in one loop of asyncio."""

    def __init__(self, connection: Connection, loop: AbstractEventLoop) -> None:
        super().__init__(connection)
        self.loop = loop
        self._context = contextvars.Context()
        self._looks = False
        self._watched = False

    async def wait(self, pending: Pending, timeout: float | None) -> bool:
        if not pending.is_over:
            future: Future[None] = self.loop.create_future()
            pending.waiter = future
            timer = None if timeout is None else self.loop.call_later(timeout, _settle, future)
            try:
                await future
            finally:
                if timer is not None:
                    timer.cancel()
        return pending.is_over

    def _wake(self, pending: Pending) -> None:
        if pending.waiter is not None:
            _settle(cast("Future[None]", pending.waiter))

    def _changed(self) -> None:
        self._until = memory.now() + self._budget
        if not self._looks and not self.loop.is_closed():
            self._looks = True
            self.loop.call_soon(self._look_on, context=self._context)

    def _look_on(self) -> None:
        try:
            self._look_once()
        except BaseException:
            # What ends the program, from a callback or a handler of signals: its coroutines may still wait at the end.
            self._go_on()
            raise

    def _look_once(self) -> None:
        if self._look():
            self._budget = self._most
            self._until = memory.now() + self._budget
        elif not self._pending or memory.now() >= self._until:
            self._rest()
            return
        elif self._events.wait(_GLANCE):
            self._look()
        self._go_on()

    def _go_on(self) -> None:
        if self.closed:
            self._looks = False
        else:
            self.loop.call_soon(self._look_on, context=self._context)

    def _rest(self) -> None:
        """Rely on the descriptor, if anything is to come."""
        if self._pending:
            if not self._events.arm():
                self._go_on()
                return
            if not self._watched:
                self.loop.add_reader(self._events.fileno(), self._readable)
                self._watched = True
        self._asleep_since = memory.now()
        self._looks = False

    def _readable(self) -> None:
        try:
            self._take()
        finally:
            if not self.closed and not self._looks:
                self._looks = True
                self._go_on()

    def close(self) -> None:
        if self._watched and not self.loop.is_closed():
            self.loop.remove_reader(self._events.fileno())
        self._watched = False
        super().close()


def _settle(future: Future[None]) -> None:
    if not future.done():
        future.set_result(None)
