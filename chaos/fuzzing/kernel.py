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
from machport.kernel.task import Task
from machport.testing.machine import NO_FILE, Call, Machine

#: Inputs after which a world is begun anew, and after which it is looked at whether rights add up.
_NEW: Final = 4096
_LOOK: Final = 256
_NAMES: Final = 48
_STEPS: Final = 5
_WAITING: Final = 12
_TOKENS: Final = (1000, 1000, *range(8))
_TEMPTING: Final = (0, 1, 2, 3, 0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFF, 16, 64, 0x103, 0x1000)
#: Traps that a daemon takes care of beside its kernel: about channels, not about rights.
_TRAPS: Final = sorted(number for number in t.TRAPS)
_DISPOSITIONS: Final = (16, 17, 18, 19, 20, 21)
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
    seeds.append(bytes((1, 2, 200, 4, 201, 3, 1, 19, 202, 20, 4, 1, 2, 3, 4)))
    seeds.append(bytes((0, 2, 200, 5, 201, 1, 0, 19)) + bytes((2, 3, 200, 60)))
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
        if byte >= 128 and entries:
            return list(entries)[byte % len(entries)]
        if byte >= 112:
            return _TEMPTING[byte % len(_TEMPTING)]
        return byte

    def _structured(self, task: Task, data: bytes, at: int) -> tuple[bytes, int]:
        trap = t.TRAPS[_TRAPS[data[at] % len(_TRAPS)]]
        at += 1
        arguments = []
        for field in trap.fields:
            byte = data[at] if at < len(data) else 0
            at += 1
            value = self._value(task, byte)
            if field in ("delta", "srdelta"):
                value = (value + 0x80000000 & 0xFFFFFFFF) - 0x80000000
            elif field == "task" and byte & 1:
                value = next(iter(task.space.entries)) if task.space.entries else 0
            if field != "words":
                arguments.append(value)
        words = [self._value(task, byte) for byte in data[at : at + 6]] if "words" in trap.fields else []
        return trap.pack(*arguments, words=words), at + len(words)

    def _message(self, task: Task, data: bytes, at: int, receives: bool) -> tuple[bytes, int]:
        chosen = data[at : at + 12].ljust(12, b"\0")
        remote, how, local, local_how, count, option, source, limit = (self._value(task, byte) for byte in chosen[:8])
        descriptors, memory = [], []
        for index in range(count & 3):
            name, kind = self._value(task, chosen[8 + index]), chosen[11 - index]
            disposition = _DISPOSITIONS[kind % 6]
            if kind & 64:
                descriptors.append(layout.port_array_descriptor(kind & 3, disposition))
                memory.append(struct.pack("<I", name) * (kind & 3))
            elif kind & 32:
                descriptors.append(layout.memory_descriptor(kind & 7))
                memory.append(bytes(kind & 7))
            else:
                descriptors.append(layout.port_descriptor(name, disposition))
        buffer = layout.pack(
            layout.bits(_DISPOSITIONS[how % 6], _DISPOSITIONS[local_how % 6] if local else 0),
            remote,
            local,
            chosen[0],
            descriptors=descriptors,
        )
        options = c.MACH_SEND_MSG | (c.MACH_RCV_MSG if receives else 0) | (option & 0x70) | option << 24 & 0x0F000000
        return MsgTrap(options, buffer, memory, limit << 4, source, 0).pack(), at + 12

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
            # A set or port that nothing is left of makes room for others.
            if len(task.space.entries) >= _NAMES:
                name = list(task.space.entries)[3 + self._count % (_NAMES - 4)]
                self._trap(task, t.DESTROY.pack(next(iter(task.space.entries)), name), 0)


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
