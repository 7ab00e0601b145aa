"""Traps of hostile tasks on an embedded kernel, and messages of a hostile task as their receiver reads them."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable
from typing import Annotated, Any, Final

import msgspec

import machport
from machport import testing
from machport.abi import constants as c
from machport.abi import message as layout
from machport.abi import traps as t
from machport.abi.errors import ProtocolError
from machport.abi.traps import MsgTrap
from machport.face.blocking import ReceiveRight, SendRight
from machport.face.dataqueue import DataQueue
from machport.face.rights import Right
from machport.interfaces.body import Body, Unfit
from machport.kernel import ports, tasks
from machport.kernel.invariants import check
from machport.kernel.port import Port
from machport.kernel.rights import has_right_for
from machport.kernel.task import Task
from machport.testing.machine import NO_FILE, Call, Machine

#: Inputs after which a world is begun anew, and after which it is looked at whether rights add up.
_NEW: Final = 4096
_LOOK: Final = 256
_NAMES: Final = 48
_STEPS: Final = 5
_TRAILERS: Final = (0, 1, 2, 3, 7)
_WAITING: Final = 12
_TOKENS: Final = (1000, 1000, *range(8))
_TEMPTING: Final = (0, 1, 2, 3, 0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFF, 16, 64, 0x103, 0x1000)
#: Traps that a daemon takes care of beside its kernel: about channels, not about rights.
_TRAPS: Final = sorted(number for number in t.TRAPS)
_DISPOSITIONS: Final = (16, 17, 18, 19, 20, 21)
_ALIVE: Final = c.MACH_PORT_TYPE_SEND_RIGHTS | c.MACH_PORT_TYPE_RECEIVE
#: Values that fields may have, and types of right that names in them are mostly of.
_CHOICES: Final[dict[str, tuple[int, ...]]] = {
    "variant": (66, 69, 70, 72),
    "sync": (0, 0, 1, 2),
    "delta": (-1, 1, 0, 2),
    "srdelta": (0, -1),
    "guard": (0, 5),
    "flags": (1, 2, 3, 4, 5, 16, 33),
    "qlimit": (0, 1, 2, 1024),
    "flavor": (1, 2, 4, 7),
    "count": (0, 1, 10, 32),
    "option": (2, 0x102, 0x06000002),
    "rcv_limit": (0, 64, 65536),
    "strict": (0, 1),
    "which": (1, 4),
}
_TYPES: Final = {
    "member": c.MACH_PORT_TYPE_RECEIVE,
    "rcv_name": c.MACH_PORT_TYPE_RECEIVE,
    "notify": c.MACH_PORT_TYPE_RECEIVE,
    "after": c.MACH_PORT_TYPE_PORT_SET,
    "pset": c.MACH_PORT_TYPE_PORT_SET,
    "name": c.MACH_PORT_TYPE_RECEIVE | c.MACH_PORT_TYPE_PORT_SET | _ALIVE | c.MACH_PORT_TYPE_DEAD_NAME,
}
#: What begins a trap in an input: who makes it, and how the rest is read.
_HEAD: Final = struct.Struct("<BB")
Reader = tuple[Callable[[bytes], None], list[bytes]]


def new_traps() -> Reader:
    """Traps, one behind the other."""
    return _Traps().call, _trap_seeds()


def _trap_seeds() -> list[bytes]:
    """Each trap once with names, and messages of all sorts."""
    seeds = [bytes((0, 1, index)) + bytes(range(200, 208)) for index in range(len(_TRAPS))]
    for bits in (layout.bits(19), layout.bits(20, 21), layout.bits(17, 20)):
        message = layout.pack(
            bits, 0x103, 0x203, 1, descriptors=[layout.port_descriptor(0x103, 20), layout.port_descriptor(0x203, 16)]
        )
        for option in (c.MACH_SEND_MSG, c.MACH_SEND_MSG | c.MACH_RCV_MSG, c.MACH_RCV_MSG):
            trap = MsgTrap(option, message if option & 1 else b"", (), 4096, 0x103, 0).pack()
            seeds.append(bytes((0, 0, len(trap))) + trap)
    for count in (0, 1, 0x82, 3):
        for who in range(3):
            seeds.append(bytes((who, 2, 200, 40, 201, 41, count, 0x10, 202, 250, 70, 80, 90, who)) + bytes((who, 2)))
            seeds.append(bytes((who, 3, 99, 41, 120, 40, count, 0x04, 130, 255, 71, 81, 91, who)) + bytes((who, 3)))
    return seeds


class _Traps:
    """Three tasks that know each other."""

    def __init__(self) -> None:
        self._count = 0
        self._begin()

    def _begin(self) -> None:
        self.machine = machine = Machine(close=lambda _: None)
        machine.kernel.name_limit = _NAMES
        self.tasks = [machine.begin_task(f"task{index}", _TOKENS) for index in range(3)]
        self._known: set[Port] = set()
        self._tickets: list[bytes] = []
        kernel = machine.kernel
        for task in self.tasks:
            tasks.mach_task_self(kernel, task)
            port = ports.mach_port_construct(kernel, task, c.MPO_INSERT_SEND_RIGHT | c.MPO_QLIMIT, 1, 0)
            ports.mach_port_allocate(kernel, task, c.MACH_PORT_RIGHT_PORT_SET)
            for other in self.tasks:
                if other is not task:
                    ports.mach_port_extract_right(kernel, other, task, port, c.MACH_MSG_TYPE_MAKE_SEND)
                    tasks.copy_to(kernel, other, task.port)

    def call(self, data: bytes) -> None:
        self._count += 1
        if self._count % _NEW == 0 or not all(task.active for task in self.tasks):
            self._begin()
        at = 0
        for _ in range(_STEPS):
            if at + 3 > len(data):
                break
            at = self._step(data, at)
        self._tidy()
        if self._count % _LOOK == 0:
            check(self.machine.kernel, self._known, Counter())
            assert not self.machine.send_once.unanswered
            self._known = {port for port in self._known if port.active}

    def _step(self, data: bytes, at: int) -> int:
        """One trap; where the next begins."""
        who, kind = _HEAD.unpack_from(data, at)
        task = self.tasks[who % 3]
        at += _HEAD.size
        if kind % 4 == 0:
            size = data[at]
            payload = data[at + 1 : at + 1 + size]
            at += 1 + size
        elif kind % 4 == 1:
            payload, at = self._structured(task, data, at)
        else:
            payload, at = self._message(task, data, at, bool(kind & 1))
        self._trap(task, payload if who & 4 else bytes(payload), who >> 3 & 3)
        return at

    def _value(self, task: Task, byte: int) -> int:
        """A name of the task, something tempting, or a small number."""
        entries = task.space.entries
        if byte >= 64 and entries:
            return list(entries)[byte % len(entries)]
        if byte >= 48:
            return _TEMPTING[byte % len(_TEMPTING)]
        return byte

    def _name(self, task: Task, byte: int, types: int) -> int:
        """Mostly a name that denotes a right of some types."""
        if byte >= 32:
            found = [name for name, entry in task.space.entries.items() if entry.type & types]
            if found:
                return found[byte % len(found)]
        return self._value(task, byte)

    def _disposition(self, task: Task, name: int, byte: int, first: int = 0) -> int:
        """Mostly one that fits what the name denotes."""
        if byte >= 32:
            entry = task.space.lookup(name)
            if entry is not None:
                fitting = [how for how in _DISPOSITIONS[first:] if has_right_for(entry, how)]
                if fitting:
                    return fitting[byte % len(fitting)]
        return _DISPOSITIONS[first + byte % (6 - first)] if byte >= 4 else byte

    def _task_port(self, task: Task, byte: int) -> int:
        """Mostly the name of a task, its own above all."""
        if byte >= 240:
            # Perhaps one that waits for its process.
            found = [
                name
                for name, entry in task.space.entries.items()
                if entry.port is not None and isinstance(entry.port.kobject, Task)
            ]
            return found[byte % len(found)] if found else 0
        if byte >= 16:
            whose = self.tasks[byte % 9 if byte % 9 < 3 else self.tasks.index(task)]
            entry = task.space.by_port.get(whose.port)
            if entry is not None:
                return entry.name
        return self._value(task, byte)

    def _structured(self, task: Task, data: bytes, at: int) -> tuple[bytes, int]:
        """A trap with arguments that may do; where what comes behind it begins."""
        trap = t.TRAPS[_TRAPS[data[at] % len(_TRAPS)]]
        if trap is t.TASK_TERMINATE and data[at] < 240:
            trap = t.ALLOCATE
        at += 1
        arguments = list[int]()
        for index, field in enumerate(trap.fields):
            byte = data[at] if at < len(data) else 37 * (index + at) & 0xFF
            at += 1
            if field == "words":
                break
            if field == "task":
                value = self._task_port(task, byte)
            elif field in _CHOICES and byte >= 16:
                value = _CHOICES[field][byte % len(_CHOICES[field])]
            elif field == "right" and trap is not t.INSERT_RIGHT:
                value = (c.MACH_PORT_RIGHT_RECEIVE, c.MACH_PORT_RIGHT_SEND, 3, 4, 2)[byte % 5] if byte >= 16 else byte
            elif field in ("disposition", "notify_type"):
                value = self._disposition(task, arguments[-1], byte)
            elif field in _TYPES:
                value = self._name(task, byte, _TYPES[field])
            else:
                value = self._value(task, byte)
            if field in ("delta", "srdelta"):
                value = (value + 0x80000000 & 0xFFFFFFFF) - 0x80000000
            arguments.append(value)
        words = list[int]()
        if trap in (t.CLAIM, t.WATCH_DEPOSIT) and self._tickets and at & 3:
            words = list(memoryview(self._tickets[at % len(self._tickets)]).cast("I"))
        elif "words" in trap.fields:
            words = [self._value(task, byte) for byte in data[at : at + data[-1] % 6]]
            at += len(words)
        return trap.pack(*arguments, words=words), at

    def _message(self, task: Task, data: bytes, at: int, receives: bool) -> tuple[bytes, int]:
        """A ``mach_msg``; where what comes behind it begins."""
        chosen = data[at : at + 14].ljust(14, b"\xa5")
        how, local_how, count, option, limit, id = chosen[1], chosen[3], chosen[4], chosen[5], chosen[7], chosen[13]
        remote, local = self._name(task, chosen[0], _ALIVE), self._name(task, chosen[2], c.MACH_PORT_TYPE_RECEIVE)
        source = self._name(task, chosen[6], c.MACH_PORT_TYPE_RECEIVE | c.MACH_PORT_TYPE_PORT_SET)
        descriptors, memory = [], []
        for index in range(count & 3):
            kind = chosen[13 - index]
            name = self._value(task, chosen[8 + index])
            disposition = self._disposition(task, name, kind)
            if kind & 0x60 == 0x60:
                descriptors.append(layout.port_array_descriptor(kind & 3, disposition))
                memory.append(struct.pack("<I", name) * (kind & 3))
            elif kind & 0x50 == 0x50:
                descriptors.append(layout.memory_descriptor(kind & 7))
                memory.append(bytes(kind & 7))
            else:
                descriptors.append(layout.port_descriptor(name, disposition))
        local_disposition = 0
        if option & 1:
            local = 0
        elif local:
            local_disposition = self._disposition(task, local, local_how, 1)
        bits = layout.bits(self._disposition(task, remote, how, 1), local_disposition)
        buffer = layout.pack(bits, remote, local, id, descriptors=descriptors, inline=bytes(count >> 2 & 12))
        trailer = option >> 1 & 0xF if option & 0x80 else _TRAILERS[option % len(_TRAILERS)]
        options = option & 0x70 | trailer << c.MACH_RCV_TRAILER_ELEMENTS_SHIFT
        if count & 0x80:
            return MsgTrap(c.MACH_RCV_MSG | options, b"", (), limit << 4, source, 0).pack(), at + 14
        options |= c.MACH_SEND_MSG | (c.MACH_RCV_MSG if receives else 0)
        return MsgTrap(options, buffer, memory, limit << 4, source, 0).pack(), at + 14

    def _trap(self, task: Task, payload: bytes, files: int) -> None:
        machine = self.machine
        try:
            if len(payload) > 4 and t.number_of(payload) == t.ASYNC.number:
                payload = bytes(t.unpack_async(payload)[1])
            call = machine.trap(task, payload, [NO_FILE] * files)
        except ProtocolError:
            # The daemon ends a task for less.
            return
        if call.answers is not None:
            self._read(call)
            number = t.number_of(call.payload)
            if number in (t.TICKET.number, t.DEPOSIT.number) and not t.number_of(call.answers[0]):
                self._tickets.append(call.answers[0][4:])
                del self._tickets[:-4]

    def _read(self, call: Call) -> None:
        """What the client makes of its answers."""
        assert call.answers is not None
        number = t.number_of(call.payload)
        for answer in call.answers:
            code = t.number_of(answer)
            if number in (t.MACH_MSG, t.RECEIVE_MANY.number):
                for told in t.unpack_msg_answers(answer):
                    assert told.buffer is None or told.code or len(told.buffer) >= layout.HEADER_SIZE
            elif code:
                t.unpack_refusal(answer)
            elif number != t.FORGET.number:
                t.TRAPS[number].unpack_answer(answer)

    def _tidy(self) -> None:
        """Not too many calls wait, and what was done is not kept."""
        machine = self.machine
        waiting = list(machine.waiting())
        for index, call in enumerate(waiting[: max(0, len(waiting) - _WAITING)]):
            end = (machine.interrupt, machine.expire, machine.abandon)[(self._count + index) % 3]
            if call.answers is None:
                end(call)
        machine.events.clear()
        for task in self.tasks:
            if not task.active:
                continue
            entry = task.space.by_port.get(task.port)
            if entry is None and len(task.space.entries) < _NAMES:
                # Without it nothing but messages could be asked for any more.
                self._trap(task, t.TASK_SELF.pack(), 0)
            elif entry is not None and len(task.space.entries) >= _NAMES:
                # Something makes room for others.
                name = list(task.space.entries)[self._count % _NAMES]
                self._trap(task, t.DESTROY.pack(entry.name, name), 0)
        if self._count % 64 == 0:
            self._meet()

    def _meet(self) -> None:
        """Rights to a task and to a port of it get to another."""
        kernel, count = self.machine.kernel, self._count // 64
        one, other = self.tasks[count % 3], self.tasks[(count + 1) % 3]
        if not one.active or not other.active or max(len(one.space.entries), len(other.space.entries)) > _NAMES - 4:
            return
        port = ports.mach_port_construct(kernel, one, c.MPO_INSERT_SEND_RIGHT | c.MPO_QLIMIT, count % 3, 0)
        self.machine.send_once.made(one.space.entries[port].port)  # type: ignore[arg-type]
        ports.mach_port_extract_right(kernel, other, one, port, c.MACH_MSG_TYPE_MAKE_SEND)
        tasks.copy_to(kernel, other, one.port)


class _Point(msgspec.Struct):
    x: int
    label: str | None = None


_HINTS: Final[list[list[Any]]] = [
    [int, str],
    [list[float], dict[str, bytes], bool],
    [_Point, Annotated[int, msgspec.Meta(ge=0)]],
    [SendRight, ReceiveRight | None],
    [Right, list[SendRight]],
    [memoryview, memoryview | None],
    [DataQueue, bytes],
    [dict[str, Right]],
]


def new_messages() -> Reader:
    """Bodies of messages, and what goes beside them, as typed calls read them."""
    reader = _Messages()
    return reader.call, reader.seeds


class _Messages:
    """A task that receives, as a program does, and one that sends what it likes."""

    def __init__(self) -> None:
        self._count = 0
        self._bodies = [Body(hints) for hints in _HINTS]
        self.world = testing.World(0)
        self._begin()
        seeds = [
            self._bodies[0].pack_plain(5, (1, "text")),
            self._bodies[1].pack_plain(None, ([0.5], {"a": b"b"}, True)),
            self._bodies[2].pack_plain(1, (_Point(1, "a"), 7)),
        ]
        port, right = self.victim.allocate(), self.port.make_send()
        seeds.append(self._bodies[3].pack(1, (right.copy(), port.move())).body)
        seeds.append(self._bodies[4].pack(1, (right.copy(), [right.copy()])).body)
        seeds.append(self._bodies[5].pack(1, (memoryview(b"abc"), None)).body)
        seeds.append(self._bodies[7].pack(1, ({"a": right.copy()},)).body)
        self.seeds = [bytes((index, 0, 1, 0, 0)) + body for index, body in enumerate(seeds)]
        self.seeds += [bytes((3, count, 1, 0, 0x1B)) + seeds[3] for count in (1, 2, 3)]
        # Notifications that the kernel did not write.
        for id in range(c.MACH_NOTIFY_FIRST, c.MACH_NOTIFY_LAST + 1):
            self.seeds.append(bytes((0, 0x40, id, 0, 0)) + layout.NDR + bytes(4))

    def _begin(self) -> None:
        self.world.close()
        self.world = testing.World(0)
        self.victim: machport.Task = self.world.task("victim")
        self.port: machport.ReceiveRight = self.victim.allocate(qlimit=100)
        machine = self.world.machine
        self._machine = machine
        self._sender = self.world.task("hostile")
        kernel = machine.kernel
        self._victim, self._hostile = machine.members
        make_send = c.MACH_MSG_TYPE_MAKE_SEND
        self._to, _ = ports.mach_port_extract_right(kernel, self._hostile, self._victim, self.port.name, make_send)
        self._own = ports.mach_port_construct(kernel, self._hostile, c.MPO_INSERT_SEND_RIGHT, 0, 0)

    def call(self, data: bytes) -> None:
        self._count += 1
        if self._count % _NEW == 0:
            self._begin()
        kind, carried, id, memory, hows = data[:5].ljust(5, b"\0")
        disposition, to = c.MACH_MSG_TYPE_COPY_SEND, self._to
        machine = self._machine
        if carried & 0x40:
            once = c.MACH_MSG_TYPE_MAKE_SEND_ONCE
            to, _ = ports.mach_port_extract_right(machine.kernel, self._hostile, self._victim, self.port.name, once)
            disposition = c.MACH_MSG_TYPE_MOVE_SEND_ONCE
        descriptors, regions = [], list[bytes]()
        for index in range(carried & 3):
            how = hows >> 2 * index & 3
            if how == 3:
                own = ports.mach_port_construct(machine.kernel, self._hostile, 0, 0, 0)
                descriptors.append(layout.port_descriptor(own, c.MACH_MSG_TYPE_MOVE_RECEIVE))
            else:
                descriptors.append(layout.port_descriptor(self._own, (19, 20, 21)[how]))
        for index in range(memory & 3):
            descriptors.append(layout.memory_descriptor(memory >> 2))
            regions.append(bytes([index]) * (memory >> 2))
        if memory & 0x80:
            descriptors.append(layout.port_array_descriptor(2, c.MACH_MSG_TYPE_COPY_SEND))
            regions.append(struct.pack("<2I", self._own, self._own))
        buffer = layout.pack(
            layout.bits(disposition, c.MACH_MSG_TYPE_MAKE_SEND_ONCE if carried & 0x80 else 0),
            to,
            self._own if carried & 0x80 else 0,
            id,
            descriptors=descriptors,
            inline=data[5:],
        )
        call = machine.trap(self._hostile, MsgTrap(c.MACH_SEND_MSG | c.MACH_SEND_TIMEOUT, buffer, regions).pack())
        assert call.answers is not None
        self._receive(self._bodies[kind % len(self._bodies)])
        machine.events.clear()

    def _receive(self, body: Body) -> None:
        """What a program does that serves the port: what is not as its hints say is refused, and nothing is left."""
        try:
            message = self.port.receive(0)
        except TimeoutError:
            return
        with message:
            try:
                if body.carries:
                    body.unpack(message)
                else:
                    body.unpack_plain(message)
            except Unfit:
                pass
            bytes(message.body)
            repr(message)
