"""A ``mach_msg`` under way: done at once, or waiting until a call, a timeout or an interruption finishes it.

The kernel has no threads.  Whoever drives it keeps the waiter of a call that is not done, and asks
``messages.collect`` after each call which waiters have changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from machport.abi.constants import MACH_RCV_TIMEOUT, MACH_SEND_TIMEOUT

if TYPE_CHECKING:
    from machport.kernel.message import Message
    from machport.kernel.port import Port, PortSet
    from machport.kernel.task import Task


class Phase(Enum):
    """What a waiter waits for."""

    SEND = "room in a full queue"
    RECEIVE = "a message"
    DONE = "nothing"


class Result(NamedTuple):
    """What ``mach_msg`` gives back.

    Attributes:
        code: ``mach_msg_return_t``.
        buffer: the received message with its trailer; the message given back after SEND_TIMED_OUT or
            SEND_INTERRUPTED; only a header after RCV_TOO_LARGE; None if the buffer is as it was.
        memory: content of its out-of-line regions and port arrays, one for each such descriptor.
        rule: number of the rule behind a code that is not success.
        taken: descriptors of a sent message that were taken and destroyed before the one that failed (M8).
        received, port: the message that was received and where, for ``copyout.take_back``; None if there is none.
    """

    code: int
    buffer: bytes | None = None
    memory: Sequence[bytes] = ()
    rule: str = ""
    taken: int = 0
    received: Message | None = None
    port: Port | None = None


class Waiter:
    """One call of ``mach_msg``: its arguments, where it is, and in the end its result.

    ``timeout`` is in milliseconds from the start of the phase, None for no limit; the driver has the clock.
    """

    __slots__ = (
        "message",
        "option",
        "phase",
        "queue",
        "rcv_limit",
        "rcv_name",
        "result",
        "source",
        "task",
        "timeout_ms",
        "woken_code",
    )

    def __init__(self, task: Task, option: int, rcv_limit: int, rcv_name: int, timeout_ms: int) -> None:
        self.task = task
        self.option = option
        self.rcv_limit = rcv_limit
        self.rcv_name = rcv_name
        self.timeout_ms = timeout_ms
        self.phase = Phase.DONE
        #: The queue of waiters that this one stands in; None once it is woken.
        self.queue: dict[Waiter, None] | None = None
        #: The message that waits to be queued, or that was handed over.
        self.message: Message | None = None
        #: Where a receive waits.
        self.source: Port | PortSet | None = None
        self.woken_code = 0
        self.result: Result | None = None

    def wait_in(self, queue: dict[Waiter, None], phase: Phase) -> None:
        self.phase = phase
        self.queue = queue
        queue[self] = None
        self.task.waiters[self] = None

    def leave(self) -> None:
        """Stop standing in a queue."""
        assert self.queue is not None
        del self.queue[self]
        self.queue = None

    @property
    def deadline_ms(self) -> int | None:
        """The limit of the present phase in milliseconds, None if it waits without one (M2)."""
        bit = MACH_SEND_TIMEOUT if self.phase is Phase.SEND else MACH_RCV_TIMEOUT
        return self.timeout_ms if self.option & bit else None
