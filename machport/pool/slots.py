"""Calls, and the places for workers that they are given to: who gets what, and when there is nothing left to do.

Only bookkeeping: nothing here waits, sends, or starts a process.  Every method is one step, whoever calls it.
"""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future
from typing import Any, Final

from machport.face.blocking import ReceiveRight, SendRight
from machport.face.child import Child
from machport.pool.work import Packed

#: Workers of one slot that may die one behind the other before they are ready.
_FAILED_STARTS_MAX: Final = 3


class Call:
    """A call that somebody waits for."""

    __slots__ = ("future", "packed")

    def __init__(self, future: Future[Any], packed: Packed) -> None:
        self.future = future
        self.packed = packed


class Slot:
    """A place for one worker after the other, with a port that outlives them.

    Attributes:
        requests: sends to the port of whichever worker is there.
        replies: where an answer comes, or the notification that there will be none.
        port: the receive right that belongs to ``requests``, while no worker has it.
        child: the worker that has it.
        runner: the worker that was ready last; whoever dies with a received call is this one.
        call: what was sent and is not answered.
        call_waits: it is certain that nobody has received it.
        ordered: a worker is about to be started.
    """

    __slots__ = (
        "call",
        "call_waits",
        "child",
        "failed_starts",
        "number",
        "ordered",
        "port",
        "replies",
        "requests",
        "runner",
    )

    def __init__(self, number: int) -> None:
        self.number = number
        self.requests: SendRight | None = None
        self.replies: ReceiveRight | None = None
        self.port: ReceiveRight | None = None
        self.child: Child | None = None
        self.runner: Child | None = None
        self.call: Call | None = None
        self.call_waits = False
        self.ordered = False
        self.failed_starts = 0

    @property
    def starts(self) -> bool:
        """Whether a worker is on its way, and will be ready."""
        return self.ordered or (self.child is not None and self.child is not self.runner)


class Slots:
    """All slots of a pool, and the calls that wait for one.

    Attributes:
        closing: no more calls are taken.
        broken: why not, if it is an error.
        finished: nothing is left to do; workers may go.
    """

    def __init__(self, max_workers: int) -> None:
        self._max_workers = max_workers
        self._lock = threading.Lock()
        self._pending: deque[Call] = deque()
        self._slots: list[Slot] = []
        self._idle: list[Slot] = []
        self.closing = False
        self.broken: BaseException | None = None
        self.finished = False

    def all(self) -> list[Slot]:
        with self._lock:
            return list(self._slots)

    def add(self, call: Call) -> bool:
        """A new call waits, unless the pool is closing; whether it does."""
        with self._lock:
            if self.closing:
                return False
            self._pending.append(call)
            return True

    def has_idle(self) -> bool:
        return bool(self._idle)

    def assign(self) -> tuple[Slot, Call] | None:
        """The next call that was not cancelled, and the slot that is to have it; None if there are not both."""
        with self._lock:
            while self._pending and (self._idle or self._pending[0].future.cancelled()):
                call = self._pending.popleft()
                if call.future.set_running_or_notify_cancel():
                    slot = self._idle.pop()
                    slot.call = call
                    return slot, call
            return None

    def to_start(self) -> list[Slot]:
        """Slots in which a worker is to be started now, because there is work for it."""
        with self._lock:
            if self.finished:
                return []
            ordered = []
            expected = sum(slot.starts and slot.call is None for slot in self._slots)
            lacking = len(self._pending) - len(self._idle) - expected
            for slot in self._slots:
                if slot.child is None and not slot.ordered:
                    if slot.call is None and lacking > 0:
                        lacking -= 1
                    elif not slot.call_waits:
                        continue
                    slot.ordered = True
                    ordered.append(slot)
            while lacking > 0 and len(self._slots) < self._max_workers:
                lacking -= 1
                slot = Slot(len(self._slots))
                slot.ordered = True
                self._slots.append(slot)
                ordered.append(slot)
            return ordered

    def started(self, slot: Slot, child: Child) -> None:
        """A worker has the slot's port, or will have."""
        with self._lock:
            slot.child, slot.port, slot.ordered = child, None, False

    def ready(self, slot: Slot) -> None:
        """The slot's worker is about to receive."""
        with self._lock:
            slot.runner = slot.child
            slot.failed_starts = 0
            slot.call_waits = False
            if slot.call is None:
                self._idle.append(slot)

    def answered(self, slot: Slot) -> Call | None:
        """An answer came, so the slot's worker receives again: the call that it belongs to."""
        with self._lock:
            call, slot.call = slot.call, None
            if slot.child is not None and slot.child is slot.runner:
                self._idle.append(slot)
            return call

    def not_sent(self, slot: Slot) -> None:
        """The slot's call could not be sent."""
        self.answered(slot)

    def dropped(self, slot: Slot) -> tuple[Call | None, Child | None]:
        """No answer will come: the call, and the worker that had received it."""
        with self._lock:
            call, slot.call = slot.call, None
            return call, slot.runner

    def returned(self, slot: Slot, port: ReceiveRight, has_messages: bool) -> tuple[Child | None, bool]:
        """The slot's port is back from a dead worker: who that was, and whether too many could not start."""
        with self._lock:
            child, slot.child, slot.port = slot.child, None, port
            slot.call_waits = slot.call is not None and has_messages
            if slot in self._idle:
                self._idle.remove(slot)
            if child is not slot.runner:
                slot.failed_starts += 1
            return child, slot.failed_starts >= _FAILED_STARTS_MAX

    def close(self, *, cancel: bool) -> None:
        """Take no more calls; let go of those that wait, if they are to be cancelled."""
        with self._lock:
            self.closing = True
            cancelled = list(self._pending) if cancel else []
        for call in cancelled:
            call.future.cancel()

    def finish(self) -> bool:
        """Whether, since now, nothing is left to do."""
        with self._lock:
            if self.finished or not self.closing or self._pending or any(slot.call for slot in self._slots):
                return False
            self.finished = True
            return True

    def break_up(self, error: BaseException) -> tuple[list[Call], list[Call]]:
        """Nothing more is done: calls that nobody has received, and those that somebody may have."""
        with self._lock:
            if self.finished:
                return [], []
            self.closing = self.finished = True
            self.broken = self.broken or error
            unreceived, received = list(self._pending), list[Call]()
            self._pending.clear()
            for slot in self._slots:
                if slot.call is not None:
                    (unreceived if slot.call_waits else received).append(slot.call)
                    slot.call = None
            return [call for call in unreceived if call.future.set_running_or_notify_cancel()], received
