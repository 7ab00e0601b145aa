"""One exception base for the whole library; blame is in the class.

Every exception is a :class:`MachError` with the Mach or IOReturn ``code``, and also the builtin kind that a Python
programmer would catch.  Each is of one of seven classes that tell whose doing it was, and so what may help:

:class:`Misuse`        yours: the call is wrong, and will be wrong again
:class:`PeerGone`      the other end's: it is dead, or gone
:class:`PeerFault`     the other end's: it lives, and fails or does not speak as agreed
:class:`NotNow`        nobody's: nothing came, nothing fitted, somebody interrupted; later it may be otherwise
:class:`LimitReached`  a limit's: names, references, descriptors, memory
:class:`DaemonGone`    the daemon's: it is lost, or cannot be reached
:class:`Bug`           ours

The text says what happened and, after a semicolon, what to do: as the raiser says, or else by the class's ``advice``.
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
    #: What to do, where nobody says it better.
    advice: str = "look up the code in the manuals"

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

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def _sentence(self) -> str:
        what, _, advice = self._what().partition("; ")
        says = what + self._why()
        return "; ".join(part for part in (says, advice or self.advice) if part)

    def _what(self) -> str:
        return self.says or _SENTENCES.get(self.code, "")

    def _why(self) -> str:
        return ""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.says,), self.__dict__


class Misuse(MachError):
    """Yours: what was asked for cannot be done, now or later."""

    default_code = c.KERN_INVALID_ARGUMENT
    advice = "correct the call"


class PeerGone(MachError):
    """The other end's: it is dead, or gone.

    Attributes:
        death: how the task or process ended that was there, with ``pid``, ``label``, ``when``, ``signal`` and
            ``exit_code``, and a sentence as its text; None if none did, or if that is not known.
    """

    default_code = c.MACH_SEND_INVALID_DEST
    advice = "go on without it, or with another one"
    death: Any = None

    def _why(self) -> str:
        # Anew each time: why a process ended may be known a moment later.
        return f": {self.death}" if self.death is not None and (self.death.pid or self.death.label) else ""


class PeerFault(MachError):
    """The other end's: it lives, and does not do its part."""

    default_code = c.KERN_FAILURE
    advice = "correct the other side"


class NotNow(MachError):
    """Nobody's: it may be possible later."""

    default_code = c.KERN_OPERATION_TIMED_OUT
    advice = "try again later"


class DaemonGone(MachError):
    """The daemon's: it is lost, or cannot be reached."""

    default_code = c.MIG_SERVER_DIED
    advice = "make a new Task to go on"


class Bug(MachError):
    """Ours, or that of another program that speaks our protocol."""

    default_code = c.KERN_FAILURE
    advice = "report it with this text, and with what led to it"


class InvalidName(Misuse, LookupError):
    """The task has nothing under this name."""

    default_code = c.KERN_INVALID_NAME
    advice = "use a name that the task has"


class InvalidRight(Misuse, ValueError):
    """The name is there, but not with the right that the call needs."""

    default_code = c.KERN_INVALID_RIGHT
    advice = "use a right of the kind that the call needs"


class InvalidArgument(Misuse, ValueError):
    """A value that the call's table does not allow."""

    default_code = c.KERN_INVALID_ARGUMENT
    advice = "give a value that the call allows"


class AlreadyExists(Misuse, FileExistsError):
    """The name, right or membership asked for is there already."""

    default_code = c.KERN_NAME_EXISTS
    advice = "choose another name, or give up first what is there"


class ClosedRight(Misuse, ValueError):
    """A right object that was closed, moved away, or used up before.  Not raised when the *other* end died."""

    default_code = c.KERN_INVALID_NAME
    advice = "use a right that is open"


class ForkedTask(Misuse, RuntimeError):
    """A forked child used a right of its parent's task.  It holds none; it may start a task of its own."""

    default_code = c.KERN_INVALID_TASK
    advice = "make a Task of its own in the child"


class LoopMisuse(Misuse, RuntimeError):
    """A task of ``machport.aio`` was used without a running event loop, or in another one than it belongs to."""

    default_code = c.KERN_INVALID_ARGUMENT
    advice = "wait in one loop only, or use a task for each"


class MessageTooLarge(Misuse, ValueError):
    """The message is larger than the limit, or than the receiver's buffer."""

    default_code = c.MACH_SEND_TOO_LARGE
    advice = "send less at a time, or use a data queue"


class DeadPort(PeerGone, BrokenPipeError):
    """The receive right is gone, or the destination never was a right.  Not raised for a right *you* closed.

    Attributes:
        port_label: what its receiver called the port, or "".
        holder: label of the task that has the receive right, if one has.
    """

    port_label: str = ""
    holder: str = ""

    def _what(self) -> str:
        port = f"port {self.port_label!r}" if self.port_label else "the port"
        if not self.says:
            return f"{port} is dead" if self.port_label or self.death is not None else super()._what()
        return f"{self.says} ({port})" if self.port_label and port not in self.says else self.says

    default_code = c.MACH_SEND_INVALID_DEST
    advice = "get a right to a living port, as by looking its service up again"


class DeadTask(PeerGone, ProcessLookupError):
    """The task is terminated, or the name is not a task port."""

    default_code = c.KERN_INVALID_TASK
    advice = "make another task"


class ProgramNotStarted(Misuse, OSError):
    """A program could not be started: it is missing or not executable, or its directory is.  Its rights are back."""

    default_code = c.KERN_FAILURE
    advice = "check the path and the mode of the program and of its directory"


class AccessDenied(Misuse, PermissionError):
    """The kernel lets this task not do that, whatever rights it has."""

    default_code = c.KERN_NO_ACCESS
    advice = "do it in a task that may, or let the other task agree to it"


class ConfinementUnavailable(Misuse, NotImplementedError):
    """A child cannot be confined as was asked for: the system lacks a part, or the process has threads already."""

    default_code = c.KERN_NOT_SUPPORTED
    advice = "see machport.confinement.available()"


class ServerDied(DeadPort):
    """A call gets no answer: its server died, or dropped the request.

    With code MACH_SEND_INVALID_DEST the request was not sent.

    Attributes:
        retry_safe: nobody has received the request, so it was not carried out and may be asked again; otherwise it may
            have been carried out.
    """

    @property
    def port_dead(self) -> bool:
        """Whether the port itself is dead: no call by this right will ever be answered."""
        return self.code == c.MACH_SEND_INVALID_DEST

    retry_safe: bool = False

    default_code = c.MIG_SERVER_DIED
    advice = "find out whether it was carried out before you ask again"


class TimedOut(NotNow, TimeoutError):
    """Nothing happened in the time given.

    Attributes:
        retry_safe: what was to be sent was not, or no routine was begun; otherwise it may have been carried out.
    """

    default_code = c.MACH_RCV_TIMED_OUT
    advice = "try again, or wait longer"

    @property
    def retry_safe(self) -> bool:
        return self.code in (c.MACH_SEND_TIMED_OUT, c.KERN_OPERATION_TIMED_OUT)


class Interrupted(NotNow, InterruptedError):
    """The wait was interrupted; nothing was taken."""

    default_code = c.MACH_RCV_INTERRUPTED
    advice = "call again"


class LimitReached(MachError, OverflowError):
    """A limit of the kernel: names, user references, memory."""

    default_code = c.KERN_RESOURCE_SHORTAGE
    advice = "give up what is not needed, or raise the limit"


class DaemonLost(DaemonGone, ConnectionError):
    """The daemon is gone, and with it every right of this task."""

    default_code = c.MIG_SERVER_DIED
    advice = "make a new Task to go on"


class DaemonUnavailable(DaemonGone, ConnectionError):
    """No daemon can be reached or started; the text says what to do."""

    default_code = c.KERN_FAILURE
    advice = "run 'machport daemon' by hand to see why"


class ProtocolError(Bug, RuntimeError):
    """Bytes that are not of the protocol between a task and its kernel."""

    default_code = c.MIG_BAD_ARGUMENTS


class QueueMisuse(Misuse, ValueError):
    """An argument that a data queue refuses, or memory that is not a data queue."""

    default_code = c.kIOReturnBadArgument


class QueueEnded(PeerGone, EOFError):
    """The other end of a data queue is gone: nothing comes any more, and nothing would be read.

    Raised only when everything that had been published was taken.

    Attributes:
        death: how the process ended that had the other end; None if it closed it.
    """

    default_code = c.kIOReturnAborted
    advice = "make a new queue to go on"


class PeerDied(QueueEnded, BrokenPipeError):
    """The process that had the other end of a data queue died with it, or forgot it, or the end was lost on its way."""

    advice = "make a new queue with a living peer"


class QueueEmpty(NotNow, BlockingIOError):
    """There is no entry in the data queue."""

    default_code = c.kIOReturnUnderrun
    advice = "wait for an entry, or look again later"


class QueueFull(NotNow, BlockingIOError):
    """The entry does not fit into the data queue now; nothing was written."""

    default_code = c.kIOReturnOverrun
    advice = "wait for room, or try again later"


class EntryTooLarge(Misuse, ValueError):
    """The next entry is larger than the buffer given; it is still next."""

    default_code = c.kIOReturnNoSpace
    advice = "give a larger buffer"


class CorruptQueue(PeerFault, ValueError):
    """The other side wrote nonsense into head, tail or a size."""

    default_code = c.kIOReturnError
    advice = "close the queue; the other side is not to be trusted"


class InvalidInterface(Misuse, TypeError):
    """A class that does not describe an interface, or an implementation that does not have one."""

    default_code = c.KERN_INVALID_ARGUMENT
    advice = "correct the class"


class BadArguments(Misuse, TypeError):
    """Arguments of a typed call that do not fit its hints: the routine was not begun.

    With code MIG_BAD_ARGUMENTS nothing was sent; with MIG_TYPE_ERROR it was the server that refused them.
    """

    default_code = c.MIG_BAD_ARGUMENTS
    advice = "give arguments that fit the hints"


class UnknownRoutine(PeerFault, NotImplementedError):
    """The server's interface has no such routine; the text says which version it has."""

    default_code = c.MIG_BAD_ID
    advice = "let both sides have the same interface"


class VersionMismatch(PeerFault, NotImplementedError):
    """The server has another interface, or a version that is not compatible; the routine was not begun."""

    default_code = c.MIG_BAD_ID
    advice = "let both sides have the same interface"


class ReplyMismatch(PeerFault, ValueError):
    """The answer of a typed call does not fit the routine; the rights in it were given up."""

    default_code = c.MIG_REPLY_MISMATCH
    advice = "let both sides have the same interface"


class RemoteError(PeerFault, RuntimeError):
    """The server's routine raised an exception that does not travel as it is.

    Attributes:
        type_name: the exception's class, as the server calls it.
        text: what the exception says.
        traceback: where it was raised in the server, as text.
    """

    default_code = c.MIG_REMOTE_ERROR
    advice = "look at the traceback in the error, and correct the server"
    type_name: str = ""
    text: str = ""
    traceback: str = ""


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
        AccessDenied: (c.KERN_NO_ACCESS,),
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


#: Stands before what a call on messages says when a limit refuses it: its answers have room for a rule only.
_LIMITS = "limits: "
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
    c.MACH_RCV_TOO_LARGE: "the message is larger than the buffer; give a larger one",
    c.BOOTSTRAP_UNKNOWN_SERVICE: "nobody serves under this name; start the service, or wait until it has checked in",
    c.BOOTSTRAP_NAME_IN_USE: "the name is taken",
    c.BOOTSTRAP_SERVICE_ACTIVE: "somebody serves under this name already",
}


def error_for(
    code: int, says: str = "", *, call: str = "", task: str = "", name: int | None = None, rule: str = ""
) -> MachError:
    """The typed exception of a return code; :class:`InvalidArgument` where no class says more."""
    if rule.startswith(_LIMITS):
        rule, says = "limits", rule.removeprefix(_LIMITS)
    kind = _KINDS.get(code & ~c.MACH_MSG_MASK if code & 0xF0000000 == 0x10000000 else code, InvalidArgument)
    return kind(says, code=code, call=call, task=task, name=name, rule=rule)
