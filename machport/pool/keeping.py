"""The thread that starts workers and collects dead ones.

It waits for orders and for processes, with one ``poll``; what it does may take a while, so the thread that receives
answers does none of it.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import InvalidStateError
from typing import Any, Final

from machport.abi.errors import MachError
from machport.face.blocking import ReceiveRight, SendRight, Task
from machport.face.child import Child
from machport.peer.death import Death
from machport.pool.errors import PoolBroken, WorkerDied, died
from machport.pool.slots import Call, Slot, Slots
from machport.pool.worker import Worker

#: Seconds for a process whose task has ended, or that was told to go, before it is killed.
_PATIENCE: Final = 5.0


class _Dying:
    """A process that is about to end, and what its end is the reason of."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.calls: list[Call] = []
        self.breaks_pool = False
        self.deadline = time.monotonic() + _PATIENCE


class Keeping:
    """Starts and collects the workers of a pool.

    Args:
        make_worker: what is to run in the worker of a slot, by its number.
        rights: for each worker's initializer.
        new_slot: called with a slot that has no ports yet, to make them.
        notices: where workers say that they are ready.
        control: where the kernel gives a dead worker's port back.
        over: called at the end, when no worker is left.
    """

    def __init__(
        self,
        task: Task,
        slots: Slots,
        make_worker: Callable[[int], Worker],
        rights: dict[str, SendRight],
        new_slot: Callable[[Slot], None],
        notices: SendRight,
        control: ReceiveRight,
        over: Callable[[], None],
    ) -> None:
        self._task = task
        self._slots = slots
        self._make_worker = make_worker
        self._rights = rights
        self._new_slot = new_slot
        self._notices = notices
        self._control = control
        self._over = over
        self._orders: deque[Callable[[], object]] = deque()
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._dying: dict[int, _Dying] = {}
        self._winds_up = False
        self._abandoned = False
        #: Held while a process is started.
        self.starting = threading.Lock()

    # Orders: from any thread, also in the middle of a garbage collection

    def order(self, what: Callable[[], object]) -> None:
        """Let the thread do something soon."""
        self._orders.append(what)
        os.eventfd_write(self._bell, 1)

    def start(self, slot: Slot) -> None:
        self.order(lambda: self._start(slot))

    def bury(self, child: Child, call: Call | None = None, *, breaks_pool: bool = False) -> None:
        """A worker ends; when it has, ``call``, which it had received, is told how."""
        self.order(lambda: self._bury(child, call, breaks_pool))

    def wind_up(self) -> None:
        self.order(self._wind_up)

    # The thread

    def run(self) -> None:
        """Carry orders out until the last worker is gone."""
        poll = select.poll()
        poll.register(self._bell, select.POLLIN)
        self._poll = poll
        while not (self._winds_up and not self._dying):
            for descriptor, _ in poll.poll(self._time_to_sleep()):
                if descriptor == self._bell:
                    os.eventfd_read(self._bell)
                else:
                    self._conclude(descriptor)
            while self._orders:
                order = self._orders.popleft()
                try:
                    order()
                except Exception as error:
                    self.break_pool("a worker cannot be started", error)
            for dying in self._dying.values():
                if dying.deadline <= time.monotonic():
                    dying.child.kill()
                    dying.deadline = time.monotonic() + _PATIENCE
        self._over()

    def __del__(self) -> None:
        # Not before: orders may come after the end.
        os.close(self._bell)

    def _time_to_sleep(self) -> float | None:
        if not self._dying:
            return None
        return max(0.0, min(dying.deadline for dying in self._dying.values()) - time.monotonic()) * 1000 + 1

    def _start(self, slot: Slot) -> None:
        with self.starting:
            if self._slots.finished or self._abandoned:
                return
            if slot.port is None:
                self._new_slot(slot)
            port = slot.port
            assert port is not None
            port.request_port_destroyed(self._control)
            rights = {name: right.copy() for name, right in self._rights.items()}
            worker = self._make_worker(slot.number)
            self._slots.started(slot, self._task.spawn(worker, port.move(), self._notices.copy(), rights))

    def _bury(self, child: Child, call: Call | None, breaks_pool: bool) -> None:
        for dying in self._dying.values():
            if dying.child is child:
                break
        else:
            dying = _Dying(child)
            pidfd = -1
            if child.exitcode is None:
                with contextlib.suppress(ProcessLookupError):
                    pidfd = os.pidfd_open(child.pid)
            if pidfd >= 0:
                self._dying[pidfd] = dying
                self._poll.register(pidfd, select.POLLIN)
        if call is not None:
            dying.calls.append(call)
        dying.breaks_pool |= breaks_pool
        if dying not in self._dying.values():
            self._finish(dying, child.death)

    def _conclude(self, pidfd: int) -> None:
        dying = self._dying.pop(pidfd)
        self._poll.unregister(pidfd)
        # Asked before anybody collects the process: multiprocessing may do so in any thread.
        death = Death(dying.child.pid, dying.child.name, pidfd, dead=True)
        death.wait(0)
        self._finish(dying, death)

    def _finish(self, dying: _Dying, death: Death | None) -> None:
        """The process has ended: collect it, and tell."""
        with contextlib.suppress(MachError):
            dying.child.close()
        for call in dying.calls:
            settle(call, died(WorkerDied, "the worker died with this call", death, False))
        if dying.breaks_pool:
            self.break_pool("workers die before they are ready", None, death)

    def break_pool(self, says: str, cause: BaseException | None, death: Death | None = None) -> None:
        """No call will be answered any more.  From any thread."""

        def reason(retry_safe: bool) -> PoolBroken:
            error = died(PoolBroken, says, death, retry_safe)
            error.__cause__ = cause
            return error

        unreceived, received = self._slots.break_up(reason(True))
        for slot in self._slots.all():
            if slot.child is not None:
                slot.child.kill()
        self.wind_up()
        for call in unreceived:
            settle(call, reason(True))
        for call in received:
            settle(call, reason(False))

    def _wind_up(self) -> None:
        """Nothing is left to do: workers end when nobody can call them."""
        if self._winds_up:
            return
        self._winds_up = True
        for slot in self._slots.all():
            for right in (slot.requests, slot.port):
                if right is not None:
                    with contextlib.suppress(MachError):
                        right.close()
            if slot.child is not None:
                self._bury(slot.child, None, False)

    # The end of the interpreter

    def abandon(self) -> None:
        """Kill every worker, and start no more."""
        with self.starting:
            self._abandoned = True
        for slot in self._slots.all():
            for child in (slot.child, slot.runner):
                if child is not None:
                    child.kill()
        for dying in list(self._dying.values()):
            dying.child.kill()


def settle(call: Call, error: BaseException) -> None:
    """A call ends with an exception."""
    _tell(call.future.set_exception, error)


def settle_with_result(call: Call, result: object) -> None:
    """A call ends with its result."""
    _tell(call.future.set_result, result)


def _tell(end: Callable[[Any], None], outcome: object) -> None:
    try:
        end(outcome)
    except InvalidStateError:
        pass
    except BaseException:
        # A callback that would exit ends neither this thread nor the calls of others; the future logs all others.
        import logging

        logging.getLogger("machport").exception("a callback of a call on a pool failed")
