"""One exception base for the whole library; blame is in the class.

Every exception is a :class:`MachError` with the Mach or IOReturn ``code``, and also the builtin kind that a Python
programmer would catch.  Classes tell whose doing it was:

yours      ``InvalidName``, ``InvalidRight``, ``InvalidArgument``, ``AlreadyExists``, ``ClosedRight``, ``ForkedTask``,
           ``MessageTooLarge``, ``QueueMisuse``, ``ProgramNotStarted``, ``InvalidInterface``, ``BadArguments``
a peer's   ``DeadPort``, ``DeadTask``, ``ServerDied``, ``PeerDied``, ``QueueEnded``, ``CorruptQueue``, ``RemoteError``,
           ``ReplyMismatch``, ``UnknownRoutine``, ``VersionMismatch``
nobody's   ``TimedOut``, ``Interrupted``, ``QueueEmpty``, ``QueueFull``, ``EntryTooLarge``
a limit    ``LimitReached``
ours       ``DaemonLost``, ``DaemonUnavailable``, ``ProtocolError``
"""

from __future__ import annotations

from typing import Any, ClassVar

from machport.abi import constants as c
from machport.abi.codes import code_name


class MachError(Exception):
    """A call on the kernel or on a data queue failed.

    Attributes:
        code: the ``kern_return_t``, ``mach_msg_return_t`` or ``IOReturn``.
        call: the call that failed, by its manual name, or "".
        task: label of the task that made it, or "".
        name: the port name concerned, or None.
        rule: number of the specification's rule that refuses, e.g. ``"P33"``, or "".
    """

    default_code: ClassVar[int] = c.KERN_FAILURE

    def __init__(
        self,
        says: str = "",
        *,
        code: int | None = None,
        call: str = "",
        task: str = "",
        name: int | None = None,
        rule: str = "",
    ) -> None:
        self.code = self.default_code if code is None else code
        self.says = says
        self.call = call
        self.task = task
        self.name = name
        self.rule = rule
        super().__init__(says)

    def __str__(self) -> str:
        where = self.call
        if self.task:
            where += f" in task {self.task}"
        if self.name is not None:
            where += f" on name {self.name:#x}"
        parts = [
            where.strip(),
            self._sentence(),
            code_name(self.code) + (f" (rule {self.rule})" if self.rule else ""),
        ]
        return ": ".join(part for part in parts if part)

    def _sentence(self) -> str:
        return self.says

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.says, self.code, self.call, self.task, self.name, self.rule)


def _rebuild(
    kind: type[MachError], says: str, code: int, call: str, task: str, name: int | None, rule: str
) -> MachError:
    return kind(says or _SENTENCES.get(code, ""), code=code, call=call, task=task, name=name, rule=rule)


class InvalidName(MachError, LookupError):
    """The task has nothing under this name."""

    default_code = c.KERN_INVALID_NAME


class InvalidRight(MachError, ValueError):
    """The name is there, but not with the right that the call needs."""

    default_code = c.KERN_INVALID_RIGHT


class InvalidArgument(MachError, ValueError):
    """A value that the call's table does not allow."""

    default_code = c.KERN_INVALID_ARGUMENT


class AlreadyExists(MachError, FileExistsError):
    """The name, right or membership asked for is there already."""

    default_code = c.KERN_NAME_EXISTS


class ClosedRight(MachError, ValueError):
    """A right object that was closed, moved away, or used up before.  Not raised when the *other* end died."""

    default_code = c.KERN_INVALID_NAME


class ForkedTask(MachError, RuntimeError):
    """A forked child used a right of its parent's task.  It holds none; it may start a task of its own."""

    default_code = c.KERN_INVALID_TASK


class MessageTooLarge(MachError, ValueError):
    """The message is larger than the limit, or than the receiver's buffer."""

    default_code = c.MACH_SEND_TOO_LARGE


class DeadPort(MachError, BrokenPipeError):
    """The receive right is gone, or the destination never was a right.  Not raised for a right *you* closed."""

    default_code = c.MACH_SEND_INVALID_DEST


class DeadTask(MachError, ProcessLookupError):
    """The task is terminated, or the name is not a task port."""

    default_code = c.KERN_INVALID_TASK


class ProgramNotStarted(MachError, OSError):
    """A program could not be started: it is missing or not executable, or its directory is.  Its rights are back."""

    default_code = c.KERN_FAILURE


class ServerDied(DeadPort):
    """A call gets no answer: its server died, or dropped the request.

    With code MACH_SEND_INVALID_DEST the request was not sent; with MIG_SERVER_DIED it may have been carried out.
    """

    default_code = c.MIG_SERVER_DIED


class TimedOut(MachError, TimeoutError):
    """Nothing happened in the time given."""

    default_code = c.MACH_RCV_TIMED_OUT


class Interrupted(MachError, InterruptedError):
    """The wait was interrupted; nothing was taken."""

    default_code = c.MACH_RCV_INTERRUPTED


class LimitReached(MachError, OverflowError):
    """A limit of the kernel: names, user references, memory."""

    default_code = c.KERN_RESOURCE_SHORTAGE


class DaemonLost(MachError, ConnectionError):
    """The daemon is gone, and with it every right of this task."""

    default_code = c.MIG_SERVER_DIED


class DaemonUnavailable(MachError, ConnectionError):
    """No daemon can be reached or started; the text says what to do."""

    default_code = c.KERN_FAILURE


class ProtocolError(MachError, RuntimeError):
    """Bytes that are not of the protocol between a task and its kernel."""

    default_code = c.MIG_BAD_ARGUMENTS


class QueueMisuse(MachError, ValueError):
    """An argument that a data queue refuses, or memory that is not a data queue."""

    default_code = c.kIOReturnBadArgument


class QueueEnded(MachError, EOFError):
    """The other end of a data queue is gone: nothing comes any more, and nothing would be read.

    Raised only when everything that had been published was taken.

    Attributes:
        death: how the process ended that had the other end; None if it closed it.
    """

    default_code = c.kIOReturnAborted
    death: Any = None

    def _sentence(self) -> str:
        # Anew each time: why a process ended may be known a moment later.
        return self.says if self.death is None or self.death.pid == 0 else f"{self.says}: {self.death}"


class PeerDied(QueueEnded, BrokenPipeError):
    """The process that had the other end of a data queue died with it, or forgot it, or the end was lost on its way."""


class QueueEmpty(MachError, BlockingIOError):
    """There is no entry in the data queue."""

    default_code = c.kIOReturnUnderrun


class QueueFull(MachError, BlockingIOError):
    """The entry does not fit into the data queue now; nothing was written."""

    default_code = c.kIOReturnOverrun


class EntryTooLarge(MachError, ValueError):
    """The next entry is larger than the buffer given; it is still next."""

    default_code = c.kIOReturnNoSpace


class CorruptQueue(MachError, ValueError):
    """The other side wrote nonsense into head, tail or a size."""

    default_code = c.kIOReturnError


class InvalidInterface(MachError, TypeError):
    """A class that does not describe an interface, or an implementation that does not have one."""

    default_code = c.KERN_INVALID_ARGUMENT


class BadArguments(MachError, TypeError):
    """Arguments of a typed call that do not fit its hints: the routine was not begun.

    With code MIG_BAD_ARGUMENTS nothing was sent; with MIG_TYPE_ERROR it was the server that refused them.
    """

    default_code = c.MIG_BAD_ARGUMENTS


class UnknownRoutine(MachError, NotImplementedError):
    """The server's interface has no such routine; the text says which version it has."""

    default_code = c.MIG_BAD_ID


class VersionMismatch(MachError, NotImplementedError):
    """The server has another interface, or a version that is not compatible; the routine was not begun."""

    default_code = c.MIG_BAD_ID


class ReplyMismatch(MachError, ValueError):
    """The answer of a typed call does not fit the routine; the rights in it were given up."""

    default_code = c.MIG_REPLY_MISMATCH


class RemoteError(MachError, RuntimeError):
    """The server's routine raised an exception that does not travel as it is.

    Attributes:
        type_name: the exception's class, as the server calls it.
        text: what the exception says.
        traceback: where it was raised in the server, as text.
    """

    default_code = c.MIG_REMOTE_ERROR
    type_name: str = ""
    text: str = ""
    traceback: str = ""

    def __reduce__(self) -> tuple[Any, ...]:
        state = {"type_name": self.type_name, "text": self.text, "traceback": self.traceback}
        return *super().__reduce__(), state


_KINDS: dict[int, type[MachError]] = {
    code: kind
    for kind, codes in {
        InvalidName: (
            c.KERN_INVALID_NAME,
            c.MACH_RCV_INVALID_NAME,
            c.KERN_NOT_FOUND,
            c.BOOTSTRAP_UNKNOWN_SERVICE,
        ),
        InvalidRight: (
            c.KERN_INVALID_RIGHT,
            c.KERN_INVALID_CAPABILITY,
            c.MACH_SEND_INVALID_RIGHT,
            c.MACH_SEND_INVALID_REPLY,
            c.MACH_RCV_IN_SET,
            c.KERN_NOT_IN_SET,
            c.BOOTSTRAP_NOT_PRIVILEGED,
        ),
        AlreadyExists: (
            c.KERN_NAME_EXISTS,
            c.KERN_RIGHT_EXISTS,
            c.KERN_ALREADY_IN_SET,
            c.BOOTSTRAP_NAME_IN_USE,
            c.BOOTSTRAP_SERVICE_ACTIVE,
        ),
        MessageTooLarge: (c.MACH_SEND_TOO_LARGE, c.MACH_RCV_TOO_LARGE),
        DeadPort: (c.MACH_SEND_INVALID_DEST, c.MACH_RCV_PORT_DIED, c.MACH_RCV_PORT_CHANGED),
        DeadTask: (c.KERN_INVALID_TASK, c.KERN_TERMINATED),
        ServerDied: (c.MIG_SERVER_DIED,),
        TimedOut: (c.MACH_SEND_TIMED_OUT, c.MACH_RCV_TIMED_OUT, c.KERN_OPERATION_TIMED_OUT, c.kIOReturnTimeout),
        Interrupted: (c.MACH_SEND_INTERRUPTED, c.MACH_RCV_INTERRUPTED),
        LimitReached: (
            c.KERN_NO_SPACE,
            c.KERN_RESOURCE_SHORTAGE,
            c.KERN_UREFS_OVERFLOW,
            c.MACH_SEND_NO_BUFFER,
            c.BOOTSTRAP_NO_MEMORY,
        ),
        QueueMisuse: (c.kIOReturnBadArgument,),
        QueueEmpty: (c.kIOReturnUnderrun,),
        QueueFull: (c.kIOReturnOverrun,),
        EntryTooLarge: (c.kIOReturnNoSpace,),
        CorruptQueue: (c.kIOReturnError,),
        QueueEnded: (c.kIOReturnAborted,),
    }.items()
    for code in codes
}


#: What a code means for whoever made the call, where the kernel says no more.
_SENTENCES: dict[int, str] = {
    c.MACH_SEND_INVALID_DEST: "the port is dead, or the task has no right to send to it",
    c.MACH_SEND_TIMED_OUT: "the queue stayed full, and the message came back",
    c.MACH_SEND_INTERRUPTED: "the send was interrupted, and the message came back",
    c.MACH_SEND_INVALID_RIGHT: "the task does not have a right that the message was to carry; what it held is lost",
    c.MACH_SEND_INVALID_MEMORY: "memory for the message cannot be read or given away; what it held is lost",
    c.MACH_SEND_INVALID_REPLY: "the task has no such right to be answered by",
    c.MACH_SEND_TOO_LARGE: "the message is larger than 50331580 bytes, or carries more than 16383 rights",
    c.MACH_RCV_TIMED_OUT: "no message came in time",
    c.MACH_RCV_INTERRUPTED: "the receive was interrupted, and took nothing",
    c.MACH_RCV_INVALID_NAME: "the task has no receive right or port set under this name",
    c.MACH_RCV_PORT_DIED: "the receive right was destroyed or moved away",
    c.MACH_RCV_PORT_CHANGED: "the port was put into a set meanwhile; receive from the set",
    c.MACH_RCV_IN_SET: "the port is in a port set; receive from the set, or take it out first",
    c.MACH_RCV_TOO_LARGE: "the message is larger than the buffer",
    c.BOOTSTRAP_UNKNOWN_SERVICE: "nobody serves under this name",
    c.BOOTSTRAP_NAME_IN_USE: "the name is taken",
    c.BOOTSTRAP_SERVICE_ACTIVE: "somebody serves under this name already",
}


def error_for(
    code: int, says: str = "", *, call: str = "", task: str = "", name: int | None = None, rule: str = ""
) -> MachError:
    """The typed exception of a return code; :class:`InvalidArgument` where no class says more."""
    kind = _KINDS.get(code & ~c.MACH_MSG_MASK if code & 0xF0000000 == 0x10000000 else code, InvalidArgument)
    return kind(says, code=code, call=call, task=task, name=name, rule=rule)
