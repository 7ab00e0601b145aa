"""The trace of a daemon: who has asked for it, where it begins and when it ends.

There is one at a time.  It ends with whoever asked for it, or when nobody reads it any more.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import stat
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from machport.abi import constants as c
from machport.abi import traps as t
from machport.kernel import tasks
from machport.kernel.refusal import Refusal
from machport.kernel.snapshot import SnapshotError
from machport.kernel.task import Task
from machport.kernel.waiter import Result
from machport.server import tracestate
from machport.server.children import Children
from machport.server.connection import Client
from machport.server.dispatch import Answer
from machport.server.log import event
from machport.server.outlet import Outlet
from machport.server.tracing import Filters, Tracer
from machport.server.traps import Traps

_log: Final = logging.getLogger("machport.daemon")
#: Steps of ends before whoever they set free is answered.
_STEPS: Final = 256


class Traces:
    """Begins and ends the trace of one daemon.

    Args:
        clients: the tasks that have processes.
        epoll: where descriptors are watched.
        register: call back when a descriptor has one of some events; False if it cannot be watched.
        unregister: stop that.
    """

    def __init__(
        self,
        traps: Traps,
        children: Children,
        clients: Mapping[Task, Client],
        epoll: select.epoll,
        register: Callable[[int, Callable[[int], object], int], bool],
        unregister: Callable[[int], None],
    ) -> None:
        self._traps = traps
        self._children = children
        self._clients = clients
        self._epoll = epoll
        self._register = register
        self._unregister = unregister
        self._client: Client | None = None
        self._descriptor = -1
        self._watched = False
        self._waits = False
        self._records = 0
        self._lost = 0
        #: What ``Kernel.slice`` is when there is no trace.
        self._slice = 0

    def numbers(self) -> dict[str, int]:
        """For metrics: whether there is a trace, and the records of all that there were."""
        tracer = self._traps.tracer
        records, lost = (0, 0) if tracer is None else (tracer.records, tracer.lost)
        return {"active": int(tracer is not None), "records": self._records + records, "lost": self._lost + lost}

    def start(self, client: Client, payload: bytes | memoryview, descriptors: Sequence[int]) -> Answer:
        """The answer to TRACE.

        Raises:
            Refusal: KERN_RESOURCE_SHORTAGE, somebody has a trace; KERN_INVALID_ARGUMENT, there is nothing to write to.
        """
        (pid,), listed = t.TRACE.unpack(payload)
        if len(descriptors) != 1 or not _can_be_written(descriptors[0]):
            raise Refusal(
                c.KERN_INVALID_ARGUMENT, "trace", "the write end of a pipe or a socket must come with the call"
            )
        if self._traps.tracer is not None:
            raise Refusal(c.KERN_RESOURCE_SHORTAGE, "trace", "another trace of this daemon is being written")
        filters = Filters.of_words(pid, listed)
        try:
            outlet = Outlet(descriptors[0])
        except OSError as error:
            says = f"the pipe cannot be written to: {error.strerror}"
            raise Refusal(c.KERN_INVALID_ARGUMENT, "trace", says) from None
        self._client = client
        self.begin(outlet, filters)
        return Answer(t.TRACE.pack_answer())

    def begin(self, outlet: Outlet, filters: Filters | None = None, *, is_file: bool = False) -> None:
        """Write a trace from now on.

        Args:
            outlet: where to; the trace's from now on.
            is_file: it can be written to at any time, and nobody watches it.
        """
        kernel, bootstrap = self._traps.kernel, self._traps.bootstrap
        # An end is one step of a trace; what is under way is over before it.
        self._slice, kernel.slice = kernel.slice, 0
        while kernel.unfinished:
            tasks.carry_on(kernel, _STEPS)
            self._traps.settle()
        self._descriptor = outlet.fileno()
        self._waits = False
        unread = [result for client in self._clients.values() for result in client.unread()]
        for result in unread:
            # Another trace may have numbered it.
            result.serial = 0
        state, why_not = "", ""
        if filters is None or filters.are_none:
            state, why_not = self._state(unread)
        self._traps.tracer = Tracer(
            kernel,
            bootstrap,
            outlet,
            filters,
            state=state,
            unread=unread if state else (),
            why_not=why_not,
            wait_writable=self._wait_writable,
        )
        self._children.ended = self.ended
        self._watched = not is_file and self._register(self._descriptor, self._heard, 0)
        _log.info("a trace begins", extra=event("trace_begins", replayable=not why_not))

    def _state(self, unread: Sequence[Result]) -> tuple[str, str]:
        """What the trace begins with, and why it cannot be played again if it cannot."""
        kernel = self._traps.kernel
        if kernel.tasks_made == 1:
            return "", ""
        if why_not := tracestate.why_not(kernel):
            return "", why_not
        try:
            alive = [client.task for client in self._clients.values()]
            return tracestate.pack_state(kernel, self._traps.bootstrap, self._children, alive, unread), ""
        except SnapshotError as error:
            return "", str(error)

    def stop(self) -> None:
        """End the trace, if there is one."""
        tracer = self._traps.tracer
        if tracer is None:
            return
        self._traps.tracer = self._client = None
        self._traps.kernel.slice = self._slice
        self._children.ended = lambda _: None
        if self._watched:
            self._unregister(self._descriptor)
            self._watched = False
        tracer.close()
        self._records += tracer.records
        self._lost += tracer.lost
        fields = event("trace_ends", records=tracer.records, lost=tracer.lost)
        _log.info("the trace ends: %d records, %d lost", tracer.records, tracer.lost, extra=fields)

    def flush(self) -> None:
        """Write what there is before the daemon sleeps."""
        tracer = self._traps.tracer
        if tracer is not None and not self._waits:
            tracer.flush()
            if tracer.is_over:
                self.stop()

    def _heard(self, events: int) -> None:
        """The descriptor takes more, or nobody reads it any more."""
        if events & (select.EPOLLERR | select.EPOLLHUP):
            self.stop()
            return
        self._waits = False
        self.flush()

    def _wait_writable(self, waits: bool) -> None:
        if waits != self._waits and self._watched:
            self._waits = waits
            with contextlib.suppress(OSError):
                self._epoll.modify(self._descriptor, select.EPOLLOUT if waits else 0)

    # What the daemon does to tasks

    def began(self, task: Task) -> None:
        if self._traps.tracer is not None:
            self._traps.tracer.began(task)

    def claimed(self, task: Task) -> None:
        if self._traps.tracer is not None:
            self._traps.tracer.claimed(task)

    def limited(self, task: Task) -> None:
        """The task has other limits from now on."""
        if self._traps.tracer is not None:
            self._traps.tracer.limited(task)

    def ended(self, task: Task) -> None:
        if self._traps.tracer is not None:
            self._traps.tracer.ended(task)

    def taken_back(self, task: Task, result: Result) -> None:
        if self._traps.tracer is not None:
            self._traps.tracer.taken_back(task, result)

    def unmade(self, task: Task, name: int) -> None:
        if self._traps.tracer is not None:
            self._traps.tracer.unmade(task, name)

    def leaves(self, client: Client) -> None:
        """A client is about to end."""
        if client is self._client:
            self.stop()


def _can_be_written(descriptor: int) -> bool:
    kind = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind)
