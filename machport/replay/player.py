"""Play a transcript: each operation is a call on an embedded kernel, each result a line to compare.

Numbers of names are shown as symbols, as in the transcripts: a new number gets the next symbol of its space.  Spaces
pick names from ranges of their own, so that a number tells its space.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from machport.abi import constants as c
from machport.abi import message as layout
from machport.abi.codes import code_name
from machport.kernel import messages, ports, requests, tasks
from machport.kernel.dialect import Dialect
from machport.kernel.kernel import Kernel
from machport.kernel.refusal import Refusal
from machport.kernel.space import FreshNames
from machport.kernel.task import Task
from machport.kernel.waiter import Result
from machport.replay.transcript import Scenario, Step, TranscriptError

_RIGHTS: Final = {
    name: getattr(c, f"MACH_PORT_RIGHT_{name}") for name in ("SEND", "RECEIVE", "SEND_ONCE", "PORT_SET", "DEAD_NAME")
}
_DISPOSITIONS: Final = {
    name: getattr(c, f"MACH_MSG_TYPE_{name}")
    for name in ("MOVE_RECEIVE", "MOVE_SEND", "MOVE_SEND_ONCE", "COPY_SEND", "MAKE_SEND", "MAKE_SEND_ONCE")
}
_NOTIFICATIONS: Final = {
    name: getattr(c, f"MACH_NOTIFY_{name}")
    for name in ("PORT_DELETED", "PORT_DESTROYED", "NO_SENDERS", "SEND_ONCE", "DEAD_NAME")
}
#: Number 66 is send-possible in the manual and msg-accepted, which cannot be asked for, in GNU Mach.
_NOTIFICATIONS["MSG_ACCEPTED"] = c.MACH_NOTIFY_SEND_POSSIBLE
_NOTIFICATION_NAMES: Final = {number: name for name, number in _NOTIFICATIONS.items()}
_TYPE_BITS: Final = [
    (name, getattr(c, f"MACH_PORT_TYPE_{name}"))
    for name in ("RECEIVE", "SEND", "SEND_ONCE", "PORT_SET", "DEAD_NAME", "DNREQUEST")
]
_KINDS: Final = {16: "PORT_RECEIVE", 17: "PORT_SEND", 18: "PORT_SEND_ONCE", 0: "none"}
#: Rights with references, in the order of a dump, by type bit.
_COUNTED: Final = [(name, bit, _RIGHTS[name]) for name, bit in _TYPE_BITS[:5]]
_FIRST_USER_ID: Final = 1001
#: Names that the kernel picks for space K are above K << 24; names that the transcript chooses are in its upper half.
_SPACE_SHIFT: Final = 24
_CHOSEN: Final = 1 << 23
_LARGE_BUFFER: Final = 1 << 16
_SEQNO_TRAILER: Final = c.MACH_RCV_TRAILER_SEQNO << c.MACH_RCV_TRAILER_ELEMENTS_SHIFT
_CARRIED: Final = re.compile(r"([A-Z_]+|\d+)\((\w+)\)")


#: The operations of transcripts, each a method of ``Player``.
_OPERATIONS: Final = frozenset(
    (
        "allocate",
        "allocate_name",
        "deallocate",
        "destroy",
        "mod_refs",
        "get_refs",
        "type",
        "names",
        "rename",
        "terminate",
        "insert_right",
        "extract_right",
        "request_notification",
        "set_mscount",
        "set_seqno",
        "set_qlimit",
        "get_receive_status",
        "move_member",
        "get_set_status",
        "dump",
        "send",
        "receive",
    )
)


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first step of a scenario that answered otherwise."""

    scenario: str
    step: Step
    got: list[str]

    def __str__(self) -> str:
        return "\n".join(
            [
                f"scenario {self.scenario}, line {self.step.line}",
                f"  {self.step}",
                *(f"  expected  {line}" for line in self.step.expected),
                *(f"  got       {line}" for line in self.got),
            ]
        )


def play(scenario: Scenario, dialect: Dialect) -> tuple[int, Divergence | None]:
    """Play a scenario up to its first divergence; the number of operations carried out, and the divergence."""
    player = Player(dialect)
    for count, step in enumerate(scenario.steps, 1):
        got = player.perform(step)
        if got != step.expected:
            return count, Divergence(scenario.name, step, got)
    return len(scenario.steps), None


class Symbols:
    """One space's symbols for numbers, in the order of first mention."""

    def __init__(self, index: int) -> None:
        self.letter = "abc"[index]
        self.base = index << _SPACE_SHIFT
        self.numbers: dict[str, int] = {"null": c.MACH_PORT_NULL, "dead": c.MACH_PORT_DEAD}
        self.symbols: dict[int, str] = {c.MACH_PORT_NULL: "null", c.MACH_PORT_DEAD: "dead"}

    def number(self, symbol: str) -> int:
        """The number of a symbol in an operation; a new symbol is a number that was never a name."""
        number = self.numbers.get(symbol)
        if number is None:
            if not re.fullmatch(rf"{self.letter}\d+", symbol):
                raise ValueError(f"a name like {self.letter}1, null or dead; found {symbol!r}")
            number = self.base + _CHOSEN + len(self.numbers)
            self._add(symbol, number)
        return number

    def symbol(self, number: int) -> str:
        """The symbol of a number in a result; a new number gets the next symbol."""
        symbol = self.symbols.get(number)
        if symbol is None:
            symbol = f"{self.letter}{len(self.numbers) - 1}"
            self._add(symbol, number)
        return symbol

    def _add(self, symbol: str, number: int) -> None:
        self.numbers[symbol] = number
        self.symbols[number] = symbol

    def order(self, number: int) -> int:
        return int(self.symbol(number)[1:])


class Player:
    """A kernel with three tasks, and the operations of transcripts as calls on it."""

    def __init__(self, dialect: Dialect) -> None:
        self.kernel = Kernel(dialect)
        self.symbols = [Symbols(index) for index in range(3)]
        #: Of task 0, which is the caller of every call on another.
        self.mine: Symbols = self.symbols[0]
        self.tasks = [
            tasks.create_task(self.kernel, f"t{index}", names=FreshNames(index << _SPACE_SHIFT)) for index in range(3)
        ]

    def perform(self, step: Step) -> list[str]:
        """Carry out one operation; its result line and detail lines.

        Raises:
            TranscriptError: the operation or its arguments are not of the format.
        """
        if step.operation not in _OPERATIONS:
            raise TranscriptError(f"line {step.line}: expected an operation; found {step.operation!r}")
        try:
            task: Task = self.tasks[step.task]
            if not task.space.active and step.operation not in ("send", "receive"):
                code = c.MACH_SEND_INVALID_DEST if self.kernel.dialect.calls_are_messages else c.KERN_INVALID_TASK
                raise Refusal(code, "P section 11")
            lines: list[str] = getattr(self, step.operation)(task, self.symbols[step.task], *step.arguments)
        except Refusal as refusal:
            lines = [code_name(refusal.code)]
        except (ValueError, TypeError, KeyError, OverflowError, struct.error) as error:
            raise TranscriptError(f"line {step.line}: {step}: expected other arguments: {error}") from None
        messages.collect(self.kernel)
        return lines

    # Arguments

    def carried(self, text: str) -> tuple[int, int]:
        """``D(A)``: a disposition and a name of t0."""
        disposition, name = _split_carried(text)
        return disposition, self.mine.number(name)

    def carried_or_null(self, text: str, null_disposition: int) -> tuple[int, int]:
        return (null_disposition, c.MACH_PORT_NULL) if text == "null" else self.carried(text)

    # Operations on names

    def allocate(self, task: Task, names: Symbols, right: str) -> list[str]:
        name = ports.mach_port_allocate(self.kernel, task, _number(_RIGHTS, right))
        return _success(f"name={names.symbol(name)}")

    def allocate_name(self, task: Task, names: Symbols, name: str, right: str) -> list[str]:
        ports.mach_port_allocate_name(self.kernel, task, _number(_RIGHTS, right), names.number(name))
        return _success()

    def deallocate(self, task: Task, names: Symbols, name: str) -> list[str]:
        ports.mach_port_deallocate(self.kernel, task, names.number(name))
        return _success()

    def destroy(self, task: Task, names: Symbols, name: str) -> list[str]:
        ports.mach_port_destroy(self.kernel, task, names.number(name))
        return _success()

    def mod_refs(self, task: Task, names: Symbols, name: str, right: str, delta: str) -> list[str]:
        ports.mach_port_mod_refs(self.kernel, task, names.number(name), _number(_RIGHTS, right), int(delta))
        return _success()

    def get_refs(self, task: Task, names: Symbols, name: str, right: str) -> list[str]:
        refs = ports.mach_port_get_refs(self.kernel, task, names.number(name), _number(_RIGHTS, right))
        return _success(f"refs={refs}")

    def type(self, task: Task, names: Symbols, name: str) -> list[str]:
        return _success(f"type={_types(ports.mach_port_type(self.kernel, task, names.number(name)))}")

    def names(self, task: Task, names: Symbols) -> list[str]:
        found = self.listed(task, names)
        listed = ",".join([f"{names.symbol(name)}:{_types(type)}" for name, type in found])
        return _success(f"count={len(found)} names=[{listed}]")

    def rename(self, task: Task, names: Symbols, old: str, new: str) -> list[str]:
        ports.mach_port_rename(self.kernel, task, names.number(old), names.number(new))
        return _success()

    def terminate(self, task: Task, names: Symbols) -> list[str]:
        tasks.task_terminate(self.kernel, task)
        return _success()

    # Operations on rights

    def insert_right(self, task: Task, names: Symbols, name: str, right: str) -> list[str]:
        number = names.number(name)
        disposition, port = self.carried(right)
        ports.mach_port_insert_right(self.kernel, self.tasks[0], task, number, port, disposition)
        return _success()

    def extract_right(self, task: Task, names: Symbols, name: str, disposition: str) -> list[str]:
        port, kind = ports.mach_port_extract_right(
            self.kernel, self.tasks[0], task, names.number(name), _number(_DISPOSITIONS, disposition)
        )
        return _success(f"right={self.right(kind, port)}")

    def request_notification(
        self, task: Task, names: Symbols, name: str, variant: str, sync: str, notify: str
    ) -> list[str]:
        number = names.number(name)
        disposition, port = self.carried_or_null(_value("notify", notify), c.MACH_MSG_TYPE_MAKE_SEND_ONCE)
        previous = requests.mach_port_request_notification(
            self.kernel,
            self.tasks[0],
            task,
            number,
            _number(_NOTIFICATIONS, variant),
            int(_value("sync", sync)) & 0xFFFFFFFF,
            port,
            disposition,
        )
        return _success(f"previous={self.mine.symbol(previous)}")

    # Operations on receive rights and sets

    def set_mscount(self, task: Task, names: Symbols, name: str, count: str) -> list[str]:
        ports.mach_port_set_mscount(self.kernel, task, names.number(name), int(count))
        return _success()

    def set_seqno(self, task: Task, names: Symbols, name: str, seqno: str) -> list[str]:
        ports.mach_port_set_seqno(self.kernel, task, names.number(name), int(seqno))
        return _success()

    def set_qlimit(self, task: Task, names: Symbols, name: str, qlimit: str) -> list[str]:
        ports.mach_port_set_qlimit(self.kernel, task, names.number(name), int(qlimit))
        return _success()

    def get_receive_status(self, task: Task, names: Symbols, name: str) -> list[str]:
        return _success(self.status(task, names, names.number(name)))

    def move_member(self, task: Task, names: Symbols, member: str, after: str) -> list[str]:
        ports.mach_port_move_member(self.kernel, task, names.number(member), names.number(after))
        return _success()

    def get_set_status(self, task: Task, names: Symbols, name: str) -> list[str]:
        return _success(self.members(task, names, names.number(name)))

    def dump(self, task: Task, names: Symbols) -> list[str]:
        found = self.listed(task, names)
        lines = _success(f"count={len(found)}")
        for name, type in found:
            refs = []
            for label, bit, right in _COUNTED:
                if type & bit:
                    refs.append(f"{label}:{ports.mach_port_get_refs(self.kernel, task, name, right)}")
            line = f"{names.symbol(name)} type={_types(type)} refs={','.join(refs)}"
            if type & c.MACH_PORT_TYPE_RECEIVE:
                line += f" {self.status(task, names, name)}"
            if type & c.MACH_PORT_TYPE_PORT_SET:
                line += f" {self.members(task, names, name)}"
            lines.append(line)
        return lines

    def listed(self, task: Task, names: Symbols) -> list[tuple[int, int]]:
        """Names and type bits in the order of the symbols."""
        found = ports.mach_port_names(self.kernel, task)
        if len(found) > 1:
            found = [pair for _, pair in sorted([(names.order(pair[0]), pair) for pair in found])]
        return found

    def status(self, task: Task, names: Symbols, name: int) -> str:
        status = ports.mach_port_get_receive_status(self.kernel, task, name)
        return (
            f"pset={names.symbol(status.pset)} seqno={status.seqno} mscount={status.mscount} qlimit={status.qlimit}"
            f" msgcount={status.msgcount} sorights={status.sorights} srights={status.srights}"
            f" pdrequest={status.pdrequest} nsrequest={status.nsrequest}"
        )

    def members(self, task: Task, names: Symbols, name: int) -> str:
        found = sorted(ports.mach_port_get_set_status(self.kernel, task, name), key=names.order)
        return f"members=[{','.join(map(names.symbol, found))}]"

    # Messages

    def send(self, task: Task, names: Symbols, remote: str, local: str, id: str, ports: str) -> list[str]:
        remote_disposition, remote_port = self.carried(_value("remote", remote))
        local_disposition, local_port = self.carried_or_null(_value("local", local), 0)
        listed = _value("ports", ports)[1:-1]
        carried = [self.carried(text) for text in listed.split(",")] if listed else []
        buffer = layout.pack(
            layout.bits(remote_disposition, local_disposition),
            remote_port,
            local_port,
            int(_value("id", id)),
            descriptors=[layout.port_descriptor(port, disposition) for disposition, port in carried],
        )
        option = c.MACH_SEND_MSG | c.MACH_SEND_TIMEOUT
        result = messages.mach_msg(self.kernel, task, option, buffer).result
        assert result is not None
        if result.code != c.MACH_SEND_TIMED_OUT:
            return [_message_code(result.code)]
        assert result.head is not None
        back = layout.parse(result.head)
        return [
            f"MACH_SEND_TIMED_OUT remote={self.right(back.remote_disposition, back.remote)}"
            f" local={self.right(back.local_disposition, back.local)} ports={self.rights(back.descriptors)}"
        ]

    def receive(self, task: Task, names: Symbols, name: str, buffer: str = "") -> list[str]:
        option = c.MACH_RCV_MSG | c.MACH_RCV_TIMEOUT | _SEQNO_TRAILER
        limit = _LARGE_BUFFER if not buffer else layout.HEADER_SIZE
        if buffer == "large":
            option |= c.MACH_RCV_LARGE
        result = messages.mach_msg(self.kernel, task, option, b"", (), limit, names.number(name)).result
        assert result is not None
        if result.head is None:
            return [_message_code(result.code)]
        return [self.received(result, buffer == "large")]

    def received(self, result: Result, large: bool) -> str:
        assert result.head is not None
        size = int.from_bytes(result.head[4:8], "little")
        if result.code == c.MACH_RCV_TOO_LARGE and large:
            return f"MACH_RCV_TOO_LARGE size={size}"
        parsed = layout.parse(result.head)
        dest = self.right(parsed.local_disposition, parsed.local)
        reply = self.right(parsed.remote_disposition, parsed.remote)
        if result.code == c.MACH_RCV_TOO_LARGE:
            return f"MACH_RCV_TOO_LARGE id={_id(parsed.id)} size={size} dest={dest} reply={reply}"
        seqno = int.from_bytes(result.tail[-4:], "little")
        user = parsed.id >= _FIRST_USER_ID
        start = f"{_message_code(result.code)} kind={'user' if user else 'notification'} id={_id(parsed.id)}"
        start += f" seqno={seqno} dest={dest} reply={reply}"
        if user:
            return f"{start} ports={self.rights(parsed.descriptors)}"
        if parsed.id == c.MACH_NOTIFY_PORT_DESTROYED:
            return f"{start} right={self.rights(parsed.descriptors)[1:-1]}"
        if parsed.id == c.MACH_NOTIFY_SEND_ONCE:
            return start
        word = int.from_bytes(result.inline[8:12], "little")
        if parsed.id == c.MACH_NOTIFY_NO_SENDERS:
            return f"{start} count={word}"
        return f"{start} name={self.symbols[word >> _SPACE_SHIFT].symbol(word)}"

    def right(self, kind: int, name: int) -> str:
        return f"{_KINDS[kind]}({self.mine.symbol(name)})"

    def rights(self, descriptors: Sequence[layout.Descriptor]) -> str:
        return f"[{','.join([self.right(d.disposition, d.name) for d in descriptors])}]"


@lru_cache(4096)
def _split_carried(text: str) -> tuple[int, str]:
    match = _CARRIED.fullmatch(text)
    if match is None:
        raise ValueError(f"DISPOSITION(NAME), not {text!r}")
    return _number(_DISPOSITIONS, match[1]), match[2]


def _number(table: dict[str, int], text: str) -> int:
    return table[text] if text in table else int(text)


def _value(key: str, text: str) -> str:
    name, _, value = text.partition("=")
    if name != key or not value:
        raise ValueError(f"{key}=..., not {text!r}")
    return value


def _success(values: str = "") -> list[str]:
    return [f"KERN_SUCCESS {values}"] if values else ["KERN_SUCCESS"]


def _message_code(code: int) -> str:
    return code_name(code) if code else "MACH_MSG_SUCCESS"


@lru_cache(256)
def _types(type: int) -> str:
    return "|".join([name for name, bit in _TYPE_BITS if type & bit])


def _id(id: int) -> str:
    return _NOTIFICATION_NAMES.get(id, str(id))
