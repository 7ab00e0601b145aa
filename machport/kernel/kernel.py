"""One kernel: what it has that is in no port, space or task.

A kernel has no clock, thread or descriptor.  After every call its driver asks ``messages.collect`` for the waiters
that the call has finished, and ``take_released`` for the objects that nobody can reach any more.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from machport.kernel.counts import Counts, LossesByTask
from machport.kernel.dialect import MANUAL, Dialect
from machport.kernel.message import Message
from machport.kernel.port import Excess, Port, Quota, RequestTable, SlottedRequestTable, new_port
from machport.kernel.space import DEFAULT_NAME_LIMIT, Space
from machport.kernel.task import Task
from machport.kernel.waiter import Line, Waiter


class Kernel:
    """A kernel in one dialect.

    Attributes:
        dialect: the named switches that this kernel follows.
        name_limit: entries that a space may have, unless its task was created with another limit (P4).
        space: holder of the receive rights of ports that stand for tasks and files.
        tasks: the tasks that are alive.
        tasks_made: how many there have been.
        slice: how much is destroyed at once, as messages, notifications and entries of a space; what is more waits
            in ``unfinished`` until the driver calls ``tasks.carry_on``.  0 for all at once, which is how it begins.
        ending: number of the task that is being terminated, or 0: what its end destroys remembers it.
        counts: what it has done.
        losses: what was lost with each task that ended.
        notices: id of each notification that is sent, and the ports that it is about and goes to; None if nobody asks.
    """

    def __init__(self, dialect: Dialect = MANUAL, *, name_limit: int = DEFAULT_NAME_LIMIT) -> None:
        self.dialect: Final = dialect
        #: The switches that are looked at for every message.
        self.typed_messages: Final = dialect.typed_messages
        self.calls_are_messages: Final = dialect.calls_are_messages
        self.name_limit = name_limit
        self.space: Final = Space(None)
        self.tasks: dict[Task, None] = {}
        self.tasks_made = 0
        self.ending = 0
        self.slice = 0
        #: Whose end goes on when the driver lets it, and the task that was ending when it began: a task, a port with
        #: its queue, the requests on a dead port, a message.
        self.unfinished: deque[tuple[int, Any]] = deque()
        self.counts: Final = Counts()
        self.losses: Final = LossesByTask()
        self.notices: list[tuple[int, Port | None, Port]] | None = None
        #: Messages that wait to be destroyed; the first of them is being destroyed (P31).
        self.garbage: deque[Message] = deque()
        #: Waiters that left their line and have yet to do the rest of their work.
        self.woken = Line()
        #: Waiters whose phase changed or that have a result, until they are collected.
        self.changed: list[Waiter] = []
        #: Objects that have ended, until they are taken.
        self.released: list[Any] = []
        #: Quotas that have room again for senders that wait, and ports whose armed send-possible requests fire
        #: therefore, until ``messages.collect`` has seen to them.
        self.relieved: list[Quota] = []
        self.possible: list[Port] = []
        #: Limits that were met, until they are taken.
        self.exceeded: list[Excess] = []

    def wake(self, waiter: Waiter, code: int = 0) -> None:
        """The waiter leaves its queue; what it does next is done when the present call is over."""
        waiter.leave()
        waiter.woken_code = code
        self.woken.append(waiter)

    def waits(self, waiter: Waiter) -> bool:
        """Whether the waiter stands in a line, and has not been served."""
        return waiter.line is not None and waiter.line is not self.woken

    def note(self, waiter: Waiter) -> None:
        """The driver is to hear of the waiter, once."""
        if not waiter.changed:
            waiter.changed = True
            self.changed.append(waiter)

    def new_request_table(self) -> RequestTable:
        return SlottedRequestTable() if self.dialect.request_slots else RequestTable()

    def kernel_port(self, kobject: Any) -> Port:
        """A new port whose receive right the kernel holds, standing for ``kobject``."""
        port = new_port(self.space)
        port.kobject = kobject
        self.counts.ports += 1
        return port

    def release(self, kobject: Any) -> None:
        """A kernel object has ended: no right to it is left, or it is a task that was terminated."""
        self.released.append(kobject)

    def take_exceeded(self) -> list[Excess]:
        """The limits that were met since the last call."""
        exceeded = self.exceeded[:]
        self.exceeded.clear()
        for excess in exceeded:
            task: Task = excess.holder  # type: ignore[assignment]
            if task.space.quota is not None:
                task.space.quota.noted.clear()
        return exceeded

    def take_released(self) -> list[Any]:
        """What ended since the last call: files whose last send right is gone, and tasks."""
        released, self.released = self.released, []
        return released
