"""The calls of a task on its kernel, as bytes: one table, from which both sides pack and unpack.

A trap is a number, then its fields, then perhaps 32-bit words of variable number.  An answer is a return code, then
fields and words; of a refusal, the code and what the kernel says about it.  Numbers are those of the MIG routine or
trap of the same name where there is one.  ``mach_msg`` has a layout of its own, at the end.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from machport.abi import words as w
from machport.abi.errors import InvalidArgument, ProtocolError

#: What traps and answers are read from: a long one is a view of its memory.
Buffer = bytes | memoryview
#: What a trap is written as: its bytes, or where they are many the parts that they are joined of.
Payload = bytes | tuple[Buffer, ...]

#: Fields that are not unsigned 32-bit words.
_FORMATS: Final = {"delta": "i", "srdelta": "i", "context": "Q", "guard": "Q", "when": "Q", "lost_when": "Q"}
#: Fields that are the port name a refusal is about, the likeliest first.
_SUBJECTS: Final = ("name", "member", "old", "pset", "rcv_name", "remote")
_WORDS: Final = "words"
_NUMBER: Final = struct.Struct("<I")


class Trap:
    """One call: its number, its manual name, its fields and the fields of its answer.

    A last field called ``words`` is a list of any length.
    """

    __slots__ = (
        "_arguments",
        "_arguments_size",
        "_has_words",
        "_results",
        "_results_have_words",
        "_results_size",
        "call",
        "fields",
        "number",
        "subject",
    )

    def __init__(self, number: int, call: str, fields: str, results: str = "") -> None:
        self.number = number
        self.call = call
        self.fields = tuple(fields.split())
        self._has_words = _WORDS in self.fields
        self._arguments = _layout(self.fields)
        self._arguments_size = self._arguments.size
        self._results_have_words = _WORDS in results.split()
        self._results = _layout(tuple(results.split()))
        self._results_size = self._results.size
        self.subject = next((self.fields.index(field) for field in _SUBJECTS if field in self.fields), None)
        TRAPS[number] = self

    def pack(self, *arguments: int, words: Sequence[int] = ()) -> bytes:
        """The trap as bytes.

        Raises:
            InvalidArgument: an argument does not fit its field.
        """
        try:
            head = self._arguments.pack(self.number, *arguments)
            return head + _pack_words(words) if words else head
        except struct.error as error:
            raise InvalidArgument(
                f"{self.call}({', '.join(self.fields)}) cannot take {arguments}: {error}", call=self.call
            ) from None

    def unpack(self, trap: Buffer) -> tuple[tuple[int, ...], list[int]]:
        """The arguments and words of a trap.

        Raises:
            ProtocolError: the bytes are not this trap's.
        """
        return _unpack(self.call, self._arguments, self._arguments_size, self._has_words, trap)

    def pack_answer(self, results: Sequence[int] = (), words: Sequence[int] = ()) -> bytes:
        head = self._results.pack(0, *results)
        return head + _pack_words(words) if len(words) else head

    def unpack_answer(self, answer: Buffer) -> tuple[tuple[int, ...], list[int]]:
        return _unpack(self.call, self._results, self._results_size, self._results_have_words, answer)


def _layout(fields: tuple[str, ...]) -> struct.Struct:
    """The number of a trap, or the code of an answer, and its fields."""
    return struct.Struct("<I" + "".join(_FORMATS.get(field, "I") for field in fields if field != _WORDS))


def _pack_words(words: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(words)}I", *words) if words else b""


def _unpack(
    call: str, fields: struct.Struct, size: int, has_words: bool, data: Buffer
) -> tuple[tuple[int, ...], list[int]]:
    rest = len(data) - size
    if rest < 0 or (rest and not has_words) or rest % 4:
        raise ProtocolError(f"{call}: {len(data)} bytes are not such a trap or answer")
    words = list(struct.unpack_from(f"<{rest // 4}I", data, size)) if rest else []
    return fields.unpack_from(data)[1:], words


def pack_texts(*texts: str) -> list[int]:
    """Texts without zeros in them as words."""
    data = "\0".join(texts).encode(errors="replace")
    return list(memoryview(data + bytes(-len(data) & 3)).cast("I"))


def unpack_texts(words: Sequence[int], count: int) -> list[str]:
    """``count`` texts; those that are missing are empty."""
    data = _pack_words(words).decode(errors="replace").rstrip("\0")
    texts = data.split("\0", count - 1)
    return texts + [""] * (count - len(texts))


def number_of(data: Buffer) -> int:
    """The trap number of a trap, or the return code of an answer.

    Raises:
        ProtocolError: fewer than four bytes.
    """
    if len(data) < _NUMBER.size:
        raise ProtocolError(f"{len(data)} bytes are neither a trap nor an answer")
    return w.u32(w.address(data), 0)


def pack_refusal(code: int, rule: str, says: str) -> bytes:
    """The answer to a call that is refused."""
    return _NUMBER.pack(code & 0xFFFFFFFF) + f"{rule}\0{says}".encode()


def unpack_refusal(answer: Buffer) -> tuple[str, str]:
    """Rule and words of a refusal."""
    rule, _, says = bytes(answer[_NUMBER.size :]).decode(errors="replace").partition("\0")
    return rule, says


TRAPS: Final[dict[int, Trap]] = {}

# Between a thread and whoever carries its traps
INTERRUPT: Final = Trap(1, "interrupt", "")
THREAD: Final = Trap(2, "thread", "")
TICKET: Final = Trap(3, "ticket", "task", "words")
WATCH: Final = Trap(4, "watch", "task")
ABANDON: Final = Trap(5, "abandon", "")
LIFELINE: Final = Trap(6, "lifeline", "offset")
WIDEN: Final = Trap(7, "widen", "")
RECEIVE_MANY: Final = Trap(8, "receive_many", "option rcv_limit rcv_name timeout count")
#: Messages that one trap sends, and receives, at most: what the kernel does for one thread at a time is bounded.
SEND_MANY_MAX: Final = 64
RECEIVE_MANY_MAX: Final = 1024
#: The words are the sizes of the messages, which stand behind them; the answer says how many of them were sent.
SEND_MANY: Final = Trap(9, "send_many", "words", "sent code")
#: A tag and a whole ``mach_msg`` trap.  Any number of others may be asked for before its answer comes, which is the tag
#: and the answer of ``mach_msg``.
ASYNC: Final = Trap(10, "async", "tag")
#: Interrupts the call with this tag if it waits.  The answer is the call's own, which every call has once; there is no
#: other, also if the call was done before.
CANCEL: Final = Trap(11, "cancel", "tag")
#: Calls of one channel that may wait; one more is answered with KERN_RESOURCE_SHORTAGE.
ASYNC_MAX: Final = 65536
#: Names and kinds (MACH_PORT_RIGHT_) of rights that are given up, one reference each.  There is no answer.
FORGET: Final = Trap(16, "forget", "words")
#: The task is about to close its connection, and means it.  There is no answer.
CLOSE: Final = Trap(17, "close", "")
#: The words are the label.
PORT_LABEL: Final = Trap(18, "port_label", "name words")
#: ``flags`` are those below, ``when`` is in microseconds since the epoch, ``status`` as ``wait`` has it.  The words are
#: the labels of the port and of its holder; label and reason of the task that ended with the port; and those of the
#: task that an answer was lost with.
DESCRIBE: Final = Trap(
    19,
    "describe",
    "name",
    "type urefs flags holder_pid ended_pid when status lost_pid lost_when lost_status words",
)
DESCRIBE_UNRECEIVED: Final = 1
DESCRIBE_HOLDER: Final = 2
DESCRIBE_ENDED: Final = 4
DESCRIBE_STATUS: Final = 8
DESCRIBE_LOST: Final = 16
DESCRIBE_LOST_STATUS: Final = 32
#: A right of the caller's waits for whoever has its ticket.
DEPOSIT: Final = Trap(12, "deposit", "name disposition", "words")
CLAIM: Final = Trap(13, "claim", "words", "name type")
WATCH_DEPOSIT: Final = Trap(14, "watch_deposit", "words")
#: A new process takes the daemon's place.  Its answer is the new one's: ``stall`` is how long nobody was served, in
#: microseconds; the words are the versions of the old program and of the new one.
UPGRADE: Final = Trap(24, "upgrade", "", "old_pid new_pid stall words")

#: Whether the caller agrees that tasks of its user may have its port.
ALLOW_TASK_FOR_PID: Final = Trap(47, "allow_task_for_pid", "allowed")

#: Limits of a child task that waits for its process; the words are ``Limits.words``.
TASK_SET_LIMITS: Final = Trap(22, "task_set_limits", "task words")
#: The words are the limits and then what is used.
TASK_GET_LIMITS: Final = Trap(23, "task_get_limits", "task", "words")
#: What the daemon knows of itself; ``kind`` is one of those below.  ``after`` is the serial of a death, the number of a
#: task, or a place in a task's table.  Behind the return code is what ``abi.reports`` packs.
REPORT: Final = Trap(20, "report", "kind task after most")
REPORT_DEATHS: Final = 1
REPORT_METRICS: Final = 2
REPORT_TASKS: Final = 3
REPORT_RIGHTS: Final = 4
REPORT_HOLDINGS: Final = 5
#: The same as REPORT_DEATHS, but answered when there is a death behind ``after``.
REPORT_NEXT_DEATHS: Final = 6
#: A descriptor to write a trace to comes along.  The words are the filters, as texts: patterns of labels of tasks,
#: names of calls and patterns of labels of ports, each with commas between them; ``pid`` is 0 for every process.
TRACE: Final = Trap(21, "trace", "pid words")

# Traps of Mach and of the system
REPLY_PORT: Final = Trap(26, "mach_reply_port", "", "name")
TASK_SELF: Final = Trap(28, "mach_task_self", "", "name")
TASK_FOR_PID: Final = Trap(45, "task_for_pid", "task pid", "name")
FILEPORT_MAKEPORT: Final = Trap(430, "fileport_makeport", "", "name")
FILEPORT_MAKEFD: Final = Trap(431, "fileport_makefd", "name")

# Port names and rights
NAMES: Final = Trap(3200, "mach_port_names", "task", "words")
TYPE: Final = Trap(3201, "mach_port_type", "task name", "type")
RENAME: Final = Trap(3202, "mach_port_rename", "task old new")
ALLOCATE_NAME: Final = Trap(3203, "mach_port_allocate_name", "task right name")
ALLOCATE: Final = Trap(3204, "mach_port_allocate", "task right", "name")
DESTROY: Final = Trap(3205, "mach_port_destroy", "task name")
DEALLOCATE: Final = Trap(3206, "mach_port_deallocate", "task name")
GET_REFS: Final = Trap(3207, "mach_port_get_refs", "task name right", "refs")
MOD_REFS: Final = Trap(3208, "mach_port_mod_refs", "task name right delta")
PEEK: Final = Trap(3209, "mach_port_peek", "task name seqno", "seqno size id words")
SET_MSCOUNT: Final = Trap(3210, "mach_port_set_mscount", "task name mscount")
GET_SET_STATUS: Final = Trap(3211, "mach_port_get_set_status", "task name", "words")
MOVE_MEMBER: Final = Trap(3212, "mach_port_move_member", "task member after")
REQUEST_NOTIFICATION: Final = Trap(
    3213, "mach_port_request_notification", "task name variant sync notify notify_type", "previous"
)
INSERT_RIGHT: Final = Trap(3214, "mach_port_insert_right", "task name right disposition")
EXTRACT_RIGHT: Final = Trap(3215, "mach_port_extract_right", "task name disposition", "right type")
SET_SEQNO: Final = Trap(3216, "mach_port_set_seqno", "task name seqno")
GET_ATTRIBUTES: Final = Trap(3217, "mach_port_get_attributes", "task name flavor count", "words")
SET_ATTRIBUTES: Final = Trap(3218, "mach_port_set_attributes", "task name flavor words")
GET_SRIGHTS: Final = Trap(3222, "mach_port_get_srights", "task name", "srights")
INSERT_MEMBER: Final = Trap(3226, "mach_port_insert_member", "task member pset")
EXTRACT_MEMBER: Final = Trap(3227, "mach_port_extract_member", "task member pset")
GET_CONTEXT: Final = Trap(3228, "mach_port_get_context", "task name", "context")
SET_CONTEXT: Final = Trap(3229, "mach_port_set_context", "task name context")
CONSTRUCT: Final = Trap(3231, "mach_port_construct", "task flags qlimit context", "name")
DESTRUCT: Final = Trap(3232, "mach_port_destruct", "task name srdelta guard")
GUARD: Final = Trap(3233, "mach_port_guard", "task name guard strict")
UNGUARD: Final = Trap(3234, "mach_port_unguard", "task name guard")

# Tasks
TASK_CREATE: Final = Trap(3400, "task_create", "task", "child")
TASK_TERMINATE: Final = Trap(3401, "task_terminate", "task")
PORTS_REGISTER: Final = Trap(3403, "mach_ports_register", "task words")
PORTS_LOOKUP: Final = Trap(3404, "mach_ports_lookup", "task", "words")
GET_SPECIAL_PORT: Final = Trap(3409, "task_get_special_port", "task which", "port")
SET_SPECIAL_PORT: Final = Trap(3410, "task_set_special_port", "task which port")


# mach_msg

MACH_MSG: Final = 31
_MSG_SIZE: Final = 28
_MSG_ANSWER_SIZE: Final = 24
_BATCH_HEAD: Final = 8
_TAGGED: Final = struct.Struct("<II")
#: Stands for the size of memory that the sender could not read.
_UNREADABLE: Final = 0xFFFFFFFF


class MsgTrap:
    """The arguments of ``mach_msg``.

    ``memory`` is what its out-of-line descriptors point to; None where that cannot be read.  ``body`` is a long end of
    the message, behind ``buffer`` and before the zeros that its size needs, which is not copied to be there.
    """

    __slots__ = ("body", "buffer", "memory", "option", "rcv_limit", "rcv_name", "timeout_ms")

    def __init__(
        self,
        option: int,
        buffer: Buffer = b"",
        memory: Sequence[Buffer | None] = (),
        rcv_limit: int = 0,
        rcv_name: int = 0,
        timeout_ms: int = 0,
        body: Buffer = b"",
    ) -> None:
        self.option = option
        self.buffer = buffer
        self.memory = memory
        self.rcv_limit = rcv_limit
        self.rcv_name = rcv_name
        self.timeout_ms = timeout_ms
        self.body = body

    @property
    def packed_size(self) -> int:
        """How many bytes it has as a trap."""
        regions = [len(region or b"") for region in self.memory]
        return _MSG_SIZE + 4 * len(regions) + self.size() + sum(regions)

    def size(self) -> int:
        """Bytes of the message."""
        return len(self.buffer) + (len(self.body) + 3 & ~3)

    def again(self, buffer: Buffer, memory: Sequence[Buffer]) -> None:
        """Send what came back."""
        self.buffer = buffer
        self.memory = memory
        self.body = b""

    def pack(self) -> bytes:
        payload = self.payload()
        return payload if isinstance(payload, bytes) else b"".join(payload)

    def payload(self) -> Payload:
        """The trap as it is written."""
        memory = self.memory
        head = w.pack_seven(
            MACH_MSG, self.option, self.size(), self.rcv_limit, self.rcv_name, self.timeout_ms, len(memory)
        )
        if not len(memory) and not len(self.body):
            return head + self.buffer if len(self.buffer) < w.VIEWED_SIZE else (head, self.buffer)
        sizes = _pack_words([_UNREADABLE if region is None else len(region) for region in memory])
        zeros = bytes(-len(self.body) & 3)
        return (head, sizes, self.buffer, self.body, zeros, *[region or b"" for region in memory])


def new_msg(
    option: int, buffer: Buffer, rcv_limit: int = 0, rcv_name: int = 0, timeout_ms: int = 0, body: Buffer = b""
) -> MsgTrap:
    """A trap without out-of-line memory."""
    trap = MsgTrap.__new__(MsgTrap)
    trap.option = option
    trap.buffer = buffer
    trap.memory = ()
    trap.rcv_limit = rcv_limit
    trap.rcv_name = rcv_name
    trap.timeout_ms = timeout_ms
    trap.body = body
    return trap


class MsgAnswer:
    """What ``mach_msg`` gives back.

    ``buffer`` is None if the caller's is as it was; ``taken`` counts the descriptors that a failed body lost (M8).
    """

    __slots__ = ("buffer", "code", "memory", "rule", "taken")

    def __init__(
        self,
        code: int,
        buffer: Buffer | None = None,
        memory: Sequence[Buffer] = (),
        rule: str = "",
        taken: int = 0,
    ) -> None:
        self.code = code
        self.buffer = buffer
        self.memory = memory
        self.rule = rule
        self.taken = taken

    def pack(self) -> bytes:
        head = None if self.buffer is None else b""
        return b"".join(msg_answer_parts(self.code, head, self.buffer or b"", b"", self.memory, self.rule, self.taken))


def msg_answer_parts(
    code: int, head: bytes | None, inline: Buffer, tail: bytes, memory: Sequence[Buffer], rule: str, taken: int
) -> tuple[Buffer, ...]:
    """An answer of ``mach_msg`` as what it is joined of.

    Args:
        head, inline, tail: the message in three parts; a head of None if the caller's buffer is as it was.
    """
    if head is None:
        said = rule.encode()
        return (w.pack_header(code, 0, 0, len(said), taken, 0), said)
    size = len(head) + len(inline) + len(tail)
    if not rule and not len(memory):
        return (w.pack_header(code, 1, size, 0, taken, 0), head, inline, tail)
    said = rule.encode()
    first = w.pack_header(code, 1, size, len(said), taken, len(memory))
    return (first, _pack_words([len(region) for region in memory]), said, head, inline, tail, *memory)


#: The answer to a message that was sent, and to which nothing is to be said.
SENT: Final = w.pack_header(0, 0, 0, 0, 0, 0)


def pack_send_many(buffers: Sequence[bytes]) -> bytes:
    """A trap that sends messages one behind the other, up to the first that cannot be sent."""
    sizes = [len(buffer) for buffer in buffers]
    return b"".join([_NUMBER.pack(SEND_MANY.number), _NUMBER.pack(len(sizes)), _pack_words(sizes), *buffers])


class Batch:
    """The messages of a ``send_many``, one taken after the other."""

    __slots__ = ("_at", "count", "sent", "trap")

    def __init__(self, trap: Buffer) -> None:
        """Read a trap.

        Raises:
            ProtocolError: more than SEND_MANY_MAX messages, or sizes that do not add up to the bytes that are there.
        """
        self.trap = trap
        self.sent = 0
        length = len(trap)
        self.count = w.u32(w.address(trap), 4) if length >= _BATCH_HEAD else -1
        if not 0 <= self.count <= min(SEND_MANY_MAX, (length - _BATCH_HEAD) // 4):
            raise ProtocolError("send_many: more messages than there are sizes, or than one trap may send")
        self._at = _BATCH_HEAD + 4 * self.count
        end = self._at
        for index in range(self.count):
            end += w.u32(w.address(trap), _BATCH_HEAD + 4 * index)
        if end != length:
            raise ProtocolError(f"send_many: sizes add up to {end} bytes, and {length} are there")

    def next(self) -> Buffer | None:
        """The message after those that were sent; None if that is all."""
        if self.sent == self.count:
            return None
        size = w.u32(w.address(self.trap), _BATCH_HEAD + 4 * self.sent)
        self._at += size
        self.sent += 1
        return w.part(self.trap, self._at - size, self._at)


def unpack_msg_answers(entry: Buffer) -> list[MsgAnswer]:
    """Answers of ``mach_msg`` that stand one behind the other.

    Raises:
        ProtocolError: as ``unpack_msg``.
    """
    answers = []
    at, end = 0, len(entry)
    while at < end:
        size = _answer_size(entry, at, end)
        if at == 0 and size == end:
            answers.append(unpack_msg_answer(entry))
        else:
            answers.append(unpack_msg_answer(w.part(entry, at, at + size)))
        at += size
    return answers


def _answer_size(entry: Buffer, at: int, end: int) -> int:
    """Bytes of the answer at ``at``; what is behind it if it is none."""
    if end - at < _MSG_ANSWER_SIZE:
        return end - at
    memory = w.address(entry)
    count = w.u32(memory, at + 20)
    size = _MSG_ANSWER_SIZE + w.u32(memory, at + 8) + w.u32(memory, at + 12)
    if count:
        if count > (end - at - _MSG_ANSWER_SIZE) // 4:
            return end - at
        size += 4 * count
        for index in range(count):
            size += w.u32(memory, at + _MSG_ANSWER_SIZE + 4 * index)
    return min(size, end - at)


def pack_async(tag: int, trap: MsgTrap) -> Payload:
    """A ``mach_msg`` that nobody waits for: its answer bears the tag."""
    head = _TAGGED.pack(ASYNC.number, tag)
    payload = trap.payload()
    return head + payload if isinstance(payload, bytes) else (head, *payload)


def unpack_async(trap: Buffer) -> tuple[int, Buffer]:
    """Tag and ``mach_msg`` trap of an ``async`` one.

    Raises:
        ProtocolError: there is no ``mach_msg`` in it.
    """
    if len(trap) < _TAGGED.size + _NUMBER.size or w.u32(w.address(trap), _TAGGED.size) != MACH_MSG:
        raise ProtocolError("async: there is no mach_msg in it")
    return w.u32(w.address(trap), _NUMBER.size), w.kept(trap, _TAGGED.size)


def pack_tag(tag: int) -> bytes:
    """What stands before the answer to an ``async`` trap."""
    return _NUMBER.pack(tag)


def unpack_tagged(answer: Buffer) -> tuple[int, MsgAnswer]:
    """Tag and answer of a call that was asked for by ``async``.

    Raises:
        ProtocolError: as ``unpack_msg``.
    """
    return number_of(answer), unpack_msg_answer(w.kept(answer, _NUMBER.size))


def is_last(answer: Buffer) -> bool:
    """Whether an answer to ``receive_many`` ends it: nothing but an answer without a message."""
    return len(answer) < _MSG_ANSWER_SIZE or not w.u32(w.address(answer), 4)


def unpack_msg(trap: Buffer) -> MsgTrap:
    """The arguments of a ``mach_msg`` trap.

    Raises:
        ProtocolError: sizes that do not add up to the bytes that are there.
    """
    length = len(trap)
    if length < _MSG_SIZE:
        raise ProtocolError(f"mach_msg: {length} bytes are too few")
    at = w.address(trap)
    send_size, count = w.u32(at, 8), w.u32(at, 24)
    if count == 0 and send_size == length - _MSG_SIZE:
        return new_msg(w.u32(at, 4), w.kept(trap, _MSG_SIZE), w.u32(at, 12), w.u32(at, 16), w.u32(at, 20))
    (buffer,), memory = _split(trap, _MSG_SIZE, count, (send_size,))
    return MsgTrap(w.u32(at, 4), buffer, memory, w.u32(at, 12), w.u32(at, 16), w.u32(at, 20))


def unpack_msg_answer(answer: Buffer) -> MsgAnswer:
    """The result of a ``mach_msg`` trap.

    Raises:
        ProtocolError: as ``unpack_msg``.
    """
    length = len(answer)
    if length < _MSG_ANSWER_SIZE:
        raise ProtocolError(f"mach_msg: {length} bytes are too few")
    at = w.address(answer)
    code, has_buffer, size = w.u32(at, 0), w.u32(at, 4), w.u32(at, 8)
    rule_size, taken, count = w.u32(at, 12), w.u32(at, 16), w.u32(at, 20)
    if count == 0 and rule_size == 0 and size == length - _MSG_ANSWER_SIZE:
        simple = MsgAnswer.__new__(MsgAnswer)
        simple.code = code
        simple.buffer = w.kept(answer, _MSG_ANSWER_SIZE) if has_buffer else None
        simple.memory = ()
        simple.rule = ""
        simple.taken = taken
        return simple
    (rule, buffer), regions = _split(answer, _MSG_ANSWER_SIZE, count, (rule_size, size))
    memory = [region for region in regions if region is not None]
    return MsgAnswer(code, buffer if has_buffer else None, memory, bytes(rule).decode(errors="replace"), taken)


def _split(
    data: Buffer, offset: int, count: int, first_sizes: tuple[int, ...]
) -> tuple[list[Buffer], list[Buffer | None]]:
    """The parts that follow ``count`` sizes at ``offset``: those of ``first_sizes``, and the regions of the sizes."""
    if count * 4 > len(data) - offset:
        raise ProtocolError(f"mach_msg: {count} regions do not fit into {len(data)} bytes")
    sizes = struct.unpack_from(f"<{count}I", data, offset)
    offset += count * 4
    end = offset + sum(first_sizes) + sum(size for size in sizes if size != _UNREADABLE)
    if end != len(data):
        raise ProtocolError(f"mach_msg: sizes add up to {end} bytes, and {len(data)} are there")
    first: list[Buffer] = []
    for size in first_sizes:
        first.append(data[offset : offset + size])
        offset += size
    regions: list[Buffer | None] = []
    for size in sizes:
        if size == _UNREADABLE:
            regions.append(None)
        else:
            regions.append(data[offset : offset + size])
            offset += size
    return first, regions
