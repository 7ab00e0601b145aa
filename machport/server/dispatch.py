"""A trap as a call on the kernel, and its outcome as an answer.

Pure but for the descriptors of files, which it only passes on.  What a client may have written wrong in a trap is an
answer with a code; only bytes that are no trap at all raise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from machport.abi import constants as c
from machport.abi import traps as t
from machport.abi.errors import ProtocolError
from machport.abi.status import PortStatus
from machport.abi.traps import msg_answer_parts, number_of, unpack_msg
from machport.carrier.rings import RingPair
from machport.kernel import ports, requests, tasks
from machport.kernel.kernel import Kernel
from machport.kernel.messages import mach_msg
from machport.kernel.refusal import Refusal
from machport.kernel.task import Task
from machport.kernel.tasks import check_alive, resolve_task
from machport.kernel.waiter import Result, Waiter


class Answer:
    """The bytes of an answer, in parts, and what goes with them.

    Attributes:
        descriptors: files to send along.
        gives_descriptors: the daemon closes its own copies when they are sent.
        keeps_descriptors: the call keeps those that came with the trap.
        result: the reception that the answer tells of, if it brings a message.
        more: receptions beside it, if it brings several.
        rings: what its thread uses once it has the answer.
        is_on_socket: it was written to the socket, and an entry of the ring has yet to say so.
    """

    __slots__ = (
        "descriptors",
        "gives_descriptors",
        "is_on_socket",
        "keeps_descriptors",
        "more",
        "parts",
        "result",
        "rings",
    )

    def __init__(
        self,
        *parts: bytes | memoryview,
        descriptors: Sequence[int] = (),
        gives_descriptors: bool = False,
        keeps_descriptors: bool = False,
        rings: RingPair | None = None,
    ) -> None:
        self.parts = parts
        self.descriptors = descriptors
        self.gives_descriptors = gives_descriptors
        self.keeps_descriptors = keeps_descriptors
        self.result: Result | None = None
        self.more: list[Result] | None = None
        self.rings = rings
        self.is_on_socket = False

    def size(self) -> int:
        """Bytes of all parts."""
        size = 0
        for part in self.parts:
            size += len(part)
        return size


def new_answer(parts: tuple[bytes | memoryview, ...]) -> Answer:
    """An answer without anything beside its bytes."""
    answer = Answer.__new__(Answer)
    answer.parts = parts
    answer.descriptors = ()
    answer.gives_descriptors = answer.keeps_descriptors = answer.is_on_socket = False
    answer.result = None
    answer.more = None
    answer.rings = None
    return answer


class OpenFile:
    """The kernel object behind a fileport: a descriptor that the daemon holds until no right is left.

    ``holder`` is the task that made it, with which it counts; None if that has ended.
    """

    __slots__ = ("descriptor", "holder")

    def __init__(self, descriptor: int, holder: Task | None) -> None:
        self.descriptor = descriptor
        self.holder = holder


def _reply_port(kernel: Kernel, caller: Task, descriptors: Sequence[int]) -> int:
    return ports.mach_reply_port(kernel, caller)


def _task_self(kernel: Kernel, caller: Task, descriptors: Sequence[int]) -> int:
    return tasks.mach_task_self(kernel, caller)


def _fileport_makeport(kernel: Kernel, caller: Task, descriptors: Sequence[int]) -> Answer:
    if len(descriptors) != 1:
        raise Refusal(c.KERN_INVALID_ARGUMENT, "fileport_makeport", "one descriptor must come with the call")
    name = tasks.make_object(kernel, caller, OpenFile(descriptors[0], caller))
    return Answer(t.FILEPORT_MAKEPORT.pack_answer((name,)), keeps_descriptors=True)


def _fileport_makefd(kernel: Kernel, caller: Task, descriptors: Sequence[int], name: int) -> Answer:
    file: OpenFile = tasks.object_of(caller, name, OpenFile)
    return Answer(t.FILEPORT_MAKEFD.pack_answer(), descriptors=(file.descriptor,))


def _port_label(kernel: Kernel, caller: Task, descriptors: Sequence[int], name: int, words: Sequence[int]) -> None:
    (label,) = t.unpack_texts(words, 1)
    if not label.isprintable():
        raise Refusal(c.KERN_INVALID_ARGUMENT, "port_label", "a label is text that can be printed, in one line")
    ports.set_label(kernel, caller, name, label)


def forget(kernel: Kernel, caller: Task, payload: bytes | memoryview) -> None:
    """Give up rights that the caller has forgotten; what cannot be given up is passed over.

    Raises:
        ProtocolError: the bytes are not this trap.
    """
    _, words = t.FORGET.unpack(payload)
    if len(words) % 2:
        raise ProtocolError("forget: a name without its kind")
    for name, kind in zip(words[::2], words[1::2], strict=True):
        try:
            check_alive(caller)
            if kind == c.MACH_PORT_RIGHT_RECEIVE or kind == c.MACH_PORT_RIGHT_PORT_SET:
                ports.mach_port_mod_refs(kernel, caller, name, kind, -1)
            else:
                ports.mach_port_deallocate(kernel, caller, name)
        except Refusal:
            pass


#: On the task that the first field names.
_TASK_CALLS: Final[dict[t.Trap, Callable[..., Any]]] = {
    t.NAMES: ports.mach_port_names,
    t.TYPE: ports.mach_port_type,
    t.RENAME: ports.mach_port_rename,
    t.ALLOCATE_NAME: ports.mach_port_allocate_name,
    t.ALLOCATE: ports.mach_port_allocate,
    t.DESTROY: ports.mach_port_destroy,
    t.DEALLOCATE: ports.mach_port_deallocate,
    t.GET_REFS: ports.mach_port_get_refs,
    t.MOD_REFS: ports.mach_port_mod_refs,
    t.PEEK: ports.mach_port_peek,
    t.SET_MSCOUNT: ports.mach_port_set_mscount,
    t.GET_SET_STATUS: ports.mach_port_get_set_status,
    t.MOVE_MEMBER: ports.mach_port_move_member,
    t.SET_SEQNO: ports.mach_port_set_seqno,
    t.GET_ATTRIBUTES: ports.mach_port_get_attributes,
    t.SET_ATTRIBUTES: ports.mach_port_set_attributes,
    t.GET_SRIGHTS: ports.mach_port_get_srights,
    t.INSERT_MEMBER: ports.mach_port_insert_member,
    t.EXTRACT_MEMBER: ports.mach_port_extract_member,
    t.GET_CONTEXT: ports.mach_port_get_context,
    t.SET_CONTEXT: ports.mach_port_set_context,
    t.CONSTRUCT: ports.mach_port_construct,
    t.DESTRUCT: ports.mach_port_destruct,
    t.GUARD: ports.mach_port_guard,
    t.UNGUARD: ports.mach_port_unguard,
    t.TASK_TERMINATE: tasks.task_terminate,
}
#: With a right that goes between the caller and the task that the first field names.
_CALLS_BETWEEN: Final[dict[t.Trap, Callable[..., Any]]] = {
    t.REQUEST_NOTIFICATION: requests.mach_port_request_notification,
    t.INSERT_RIGHT: ports.mach_port_insert_right,
    t.EXTRACT_RIGHT: ports.mach_port_extract_right,
    t.PORTS_REGISTER: tasks.mach_ports_register,
    t.PORTS_LOOKUP: tasks.mach_ports_lookup,
    t.GET_SPECIAL_PORT: tasks.task_get_special_port,
    t.SET_SPECIAL_PORT: tasks.task_set_special_port,
}
#: On the caller itself, which may have sent files along.
_CALLER_CALLS: Final[dict[t.Trap, Callable[..., Any]]] = {
    t.REPLY_PORT: _reply_port,
    t.TASK_SELF: _task_self,
    t.FILEPORT_MAKEPORT: _fileport_makeport,
    t.FILEPORT_MAKEFD: _fileport_makefd,
    t.PORT_LABEL: _port_label,
}
_ON_CALLER, _ON_TASK, _BETWEEN = range(3)


class Call:
    """One call on the kernel: what it is given, and how its trap is read."""

    __slots__ = ("function", "has_words", "kind", "trap")

    def __init__(self, kind: int, trap: t.Trap, function: Callable[..., Any]) -> None:
        self.kind = kind
        self.trap = trap
        self.has_words = "words" in trap.fields
        self.function = function


_CALLS: Final[dict[int, Call]] = {
    trap.number: Call(kind, trap, function)
    for kind, calls in ((_ON_CALLER, _CALLER_CALLS), (_ON_TASK, _TASK_CALLS), (_BETWEEN, _CALLS_BETWEEN))
    for trap, function in calls.items()
}


def dispatch(kernel: Kernel, caller: Task, payload: bytes | memoryview, descriptors: Sequence[int]) -> Answer:
    """Carry out one trap of a task that is not ``mach_msg``.

    Args:
        descriptors: files that came with the trap.

    Raises:
        ProtocolError: the bytes are not a trap.
    """
    number = number_of(payload)
    call: Call | None = _CALLS.get(number)
    if call is None:
        raise ProtocolError(f"{number} is not a call on the kernel")
    trap = call.trap
    arguments: tuple[Any, ...]
    arguments, words = trap.unpack(payload)
    if call.has_words:
        arguments = (*arguments, words)
    try:
        check_alive(caller)
        if call.kind == _ON_CALLER:
            return _answer(trap, call.function(kernel, caller, descriptors, *arguments))
        task = resolve_task(caller, arguments[0])
        check_alive(task)
        if call.kind == _ON_TASK:
            return _answer(trap, call.function(kernel, task, *arguments[1:]))
        return _answer(trap, call.function(kernel, caller, task, *arguments[1:]))
    except Refusal as refusal:
        return new_answer((t.pack_refusal(refusal.code, refusal.rule, refusal.says),))


def _answer(trap: t.Trap, value: Any) -> Answer:
    """The value of a kernel call in the layout of its trap."""
    if value is None:
        return _DONE
    if isinstance(value, int):
        return new_answer((trap.pack_answer((value,)),))
    if isinstance(value, Answer):
        return value
    if trap is t.NAMES:
        return new_answer((trap.pack_answer((), [word for pair in value for word in pair]),))
    if trap is t.PEEK:
        tail = value.trailer
        return new_answer((trap.pack_answer((value.seqno, value.size, value.id), [*tail.sender, *tail.audit]),))
    if isinstance(value, list | PortStatus):
        return new_answer((trap.pack_answer((), value),))
    return new_answer((trap.pack_answer(value),))


#: The answer to every call that only succeeds.
_DONE: Final = new_answer((bytes(4),))


def carry_out_mach_msg(kernel: Kernel, caller: Task, payload: bytes | memoryview) -> Waiter:
    """Carry out a ``mach_msg``, whose waiter has a result unless it has to wait.

    Raises:
        ProtocolError: the bytes are not such a trap.
    """
    trap = unpack_msg(payload)
    return mach_msg(
        kernel,
        caller,
        trap.option,
        trap.buffer,
        trap.memory,  # type: ignore[arg-type]
        trap.rcv_limit,
        trap.rcv_name,
        trap.timeout_ms,
    )


def msg_answer(result: Result) -> Answer:
    """The answer to a ``mach_msg`` that is done."""
    answer = new_answer(answer_parts(result))
    if result.received is not None:
        answer.result = result
    return answer


def answer_parts(result: Result) -> tuple[bytes | memoryview, ...]:
    """The bytes of the same, in parts."""
    return msg_answer_parts(
        result.code, result.head, result.inline, result.tail, result.memory, result.rule, result.taken
    )
