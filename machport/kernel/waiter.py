"""A ``mach_msg`` under way: done at once, or waiting until a call, a timeout or an interruption finishes it.

The kernel has no threads.  Whoever drives it keeps the waiter of a call that is not done, and asks
``messages.collect`` after each call which waiters have changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from machport.abi import constants as c
from machport.kernel import phase
from machport.kernel.message import Message
from machport.kernel.port import Port, PortSet
from machport.kernel.task import Task


class Result:
    """What ``mach_msg`` gives back, in the parts that it has, so that a large body is not copied.

    Attributes:
        code: ``mach_msg_return_t``.
        head: header and descriptors of the received message; of the message given back after SEND_TIMED_OUT or
            SEND_INTERRUPTED; only a header after RCV_TOO_LARGE; None if the buffer is as it was.
        inline: the inline data as it was sent.
        tail: zeros up to a multiple of four bytes, and the trailer; b"" if there is none.
        memory: content of its out-of-line regions and port arrays, one for each such descriptor.
        rule: number of the rule behind a code that is not success.
        taken: descriptors of a sent message that were taken and destroyed before the one that failed (M8).
        serial: what a record of the calls knows the reception by; 0 for nothing.
        received, port: the message that was received and where, for ``copyout.take_back``; None if there is none.
    """

    __slots__ = ("code", "head", "inline", "memory", "port", "received", "rule", "serial", "tail", "taken")

    def begin(self, code: int, rule: str) -> None:
        self.code = code
        self.rule = rule
        self.head: bytes | None = None
        self.inline: bytes | memoryview = b""
        self.tail = b""
        self.memory: Sequence[bytes] = ()
        self.taken = 0
        self.serial = 0
        self.received: Message | None = None
        self.port: Port | None = None

    @property
    def buffer(self) -> bytes | None:
        """Head, inline data and tail in one, as the caller's buffer has them; None if it is as it was."""
        return None if self.head is None else b"".join((self.head, self.inline, self.tail))


def new_result(code: int, rule: str = "") -> Result:
    """A result that leaves the buffer as it was."""
    result = Result.__new__(Result)
    result.begin(code, rule)
    return result


#: The result of a message that was sent.
SENT = new_result(c.MACH_MSG_SUCCESS)


class Waiter:
    """One call of ``mach_msg``: its arguments, where it is, and in the end its result.

    ``deadline_ms`` is in milliseconds from the start of the phase, None for no limit; the driver has the clock.  The
    driver may keep what it knows of the call in ``owner``, which the kernel never touches.
    """

    __slots__ = (
        "after",
        "before",
        "changed",
        "line",
        "message",
        "option",
        "owner",
        "phase",
        "rcv_limit",
        "rcv_name",
        "result",
        "source",
        "task",
        "timeout_ms",
        "woken_code",
    )

    def begin(self, task: Task, option: int, rcv_limit: int, rcv_name: int, timeout_ms: int) -> None:
        self.task = task
        self.option = option
        self.rcv_limit = rcv_limit
        self.rcv_name = rcv_name
        self.timeout_ms = timeout_ms
        self.phase = phase.DONE
        #: The line that this one stands in, and its neighbours there; once it is woken, that of all who are.
        self.line: Line | None = None
        self.before: Waiter | None = None
        self.after: Waiter | None = None
        #: Phase or result have changed since the driver last collected.
        self.changed = False
        #: The message that waits to be queued, or that was handed over.
        self.message: Message | None = None
        #: Where a receive waits.
        self.source: Port | PortSet | None = None
        self.woken_code = 0
        self.result: Result | None = None
        self.owner: object = None

    def wait_in(self, line: Line, what_for: int) -> None:
        self.phase = what_for
        if what_for == phase.SEND:
            self._count_sending(1)
        line.append(self)
        self.task.waiters[self] = None

    def leave(self) -> None:
        """Stop standing in a line."""
        assert self.line is not None
        self.line.remove(self)
        if self.phase == phase.SEND:
            self._count_sending(-1)

    def _count_sending(self, sign: int) -> None:
        """The message that waits counts with its sender."""
        quota = self.task.space.quota
        if quota is not None:
            assert self.message is not None
            quota.sending += sign * self.message.weigh()

    def finish(self, result: Result) -> None:
        """The call is done."""
        if self.phase != phase.DONE:
            self.phase = phase.DONE
            self.task.waiters.pop(self, None)
        self.message = None
        self.source = None
        self.result = result

    @property
    def deadline_ms(self) -> int | None:
        """The limit of the present phase in milliseconds, None if it waits without one (M2)."""
        bit = c.MACH_SEND_TIMEOUT if self.phase == phase.SEND else c.MACH_RCV_TIMEOUT
        return self.timeout_ms if self.option & bit else None


def new_waiter(task: Task, option: int, rcv_limit: int, rcv_name: int, timeout_ms: int) -> Waiter:
    waiter = Waiter.__new__(Waiter)
    waiter.begin(task, option, rcv_limit, rcv_name, timeout_ms)
    return waiter


class Line:
    """Waiters in the order of arrival, any of whom may leave: linked, so that nothing of this depends on how many."""

    __slots__ = ("first", "last")

    def __init__(self) -> None:
        self.first: Waiter | None = None
        self.last: Waiter | None = None

    def append(self, waiter: Waiter) -> None:
        waiter.line = self
        waiter.before = self.last
        if self.last is None:
            self.first = waiter
        else:
            self.last.after = waiter
        self.last = waiter

    def remove(self, waiter: Waiter) -> None:
        before = waiter.before
        after = waiter.after
        if before is None:
            self.first = after
        else:
            before.after = after
        if after is None:
            self.last = before
        else:
            after.before = before
        waiter.line = waiter.before = waiter.after = None

    def __bool__(self) -> bool:
        return self.first is not None

    def __iter__(self) -> Iterator[Waiter]:
        waiter = self.first
        while waiter is not None:
            yield waiter
            waiter = waiter.after
