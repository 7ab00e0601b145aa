"""Two kernels compared field by field, and a kernel that has a bit of everything."""

from __future__ import annotations

from collections import deque
from typing import Any

from kernel_driver import (
    COPY_SEND,
    DEAD,
    DEAD_NAME,
    DEATH,
    MAKE_SEND,
    MAKE_SEND_ONCE,
    MOVE_RECEIVE,
    MOVE_SEND_ONCE,
    NO_SENDERS,
    PORT_DESTROYED,
    SEND_POSSIBLE,
    Actor,
    three_tasks,
)

from machport.abi import constants as c
from machport.abi import message as layout
from machport.kernel import ports, tasks
from machport.kernel.copyout import take_back
from machport.kernel.dialect import Dialect
from machport.kernel.port import DEAD as DEAD_PORT
from machport.kernel.port import Port, PortSet, Request, RequestTable
from machport.kernel.rows import FIELDS
from machport.kernel.space import Space
from machport.kernel.waiter import Line, Result, Waiter


class Comparison:
    """One graph of objects is the other, whatever refers to what."""

    def __init__(self) -> None:
        self.seen: dict[int, Any] = {}
        self.taken: set[int] = set()
        self.todo: list[tuple[Any, Any, str]] = []

    def same(self, one: Any, other: Any) -> None:
        self.todo.append((one, other, type(one).__name__))
        while self.todo:
            self.compare(*self.todo.pop())

    def compare(self, one: Any, other: Any, where: str) -> None:
        one, other = (None if isinstance(it, Line) and it.first is None else it for it in (one, other))
        if one is None or isinstance(one, int | str):
            assert type(one) is type(other) and one == other, where
        elif isinstance(one, bytes | bytearray | memoryview):
            assert bytes(one) == bytes(other), where
        elif isinstance(one, list | tuple | deque):
            assert len(one) == len(other), where
            self.todo += [(*pair, where) for pair in zip(one, other, strict=True)]
        elif isinstance(one, dict):
            self.compare(list(one.items()), list(other.items()), where)
        elif one is DEAD_PORT or other is DEAD_PORT:
            assert one is other, where
        elif id(one) in self.seen:
            assert self.seen[id(one)] is other, where
        else:
            assert type(one) is type(other) or type(one).__name__ not in FIELDS, where
            assert id(other) not in self.taken, where
            self.seen[id(one)] = other
            self.taken.add(id(other))
            for name in fields_of(one):
                self.compare_field(one, other, name, f"{type(one).__name__}.{name}")

    def compare_field(self, one: Any, other: Any, name: str, where: str) -> None:
        mine, its = getattr(one, name), getattr(other, name)
        if isinstance(one, PortSet) and name == "order":
            # Tickets of members that left are passed over.
            mine = [ticket for ticket in mine if ticket.port.ticket is ticket]
            its = list(its)
        if isinstance(one, Space) and name == "by_port":
            mine, its = (sorted(found.items(), key=lambda pair: pair[1].name) for found in (mine, its))
        if isinstance(one, Port) and name == "kobject" and not one.active:
            return
        if isinstance(one, Port) and name == "quota" and (not one.active or (mine is not None and mine.holder is None)):
            # It counts with nobody any more.
            return
        if isinstance(one, Request) and name == "entry" and mine.port is None:
            # It has outlived its entry (D7).
            return
        if isinstance(one, Result) and name == "received" and mine is not None:
            self.compare_received(mine, its, where)
            return
        self.todo.append((mine, its, where))

    def compare_received(self, one: Any, other: Any, where: str) -> None:
        """A message whose rights were entered, and are found again by their names."""
        for name in fields_of(one):
            # What it weighs is known again once it is back.
            if name not in ("remote", "local", "items", "next", "weight"):
                self.todo.append((getattr(one, name), getattr(other, name), f"{where}.{name}"))
        assert (one.items is None) == (other.items is None)
        for mine, its in zip(one.items or (), other.items or (), strict=True):
            one_row, other_row = ([*it.descriptor, it.type, it.memory] for it in (mine, its))
            self.todo.append((one_row, other_row, where))


def fields_of(thing: Any) -> list[str]:
    """All fields of an object of the kernel; none of anything else, such as what a port stands for."""
    parts: tuple[str, ...] = FIELDS.get(type(thing).__name__, ("", "", ""))
    if isinstance(thing, RequestTable) and type(thing) is not RequestTable:
        parts = (*parts, *FIELDS["RequestTable"])
    # What the driver has, has to take before, or gives to each kernel anew.
    skipped = {"owner", "_compact_at", "losses", "notices", "serial"}
    return [name for part in parts for name in part.split() if name not in skipped]


def array_of(*names: int) -> bytes:
    return b"".join(name.to_bytes(4, "little") for name in names)


class FullHouse:
    """Three tasks and all that they can leave in a kernel at once.

    Attributes:
        waiters: calls that wait; those at one line are in another order here than there.
        unread: receptions of the first task that it has not read.
        names: of the first task's rights, by what they are.
    """

    def __init__(self, dialect: Dialect) -> None:
        a, b, d = self.actors = three_tasks(dialect)
        self.world = a.world
        self.waiters: list[Waiter] = []
        self.unread: list[Result] = []
        self.names: dict[str, int] = {}
        self.fill_ports(a, b)
        self.fill_queue(a, b)
        self.fill_sets(a, b)
        self.fill_requests(a, b)
        self.fill_deaths(a, b, d)
        self.fill_tasks(a, b)
        self.receive(a, b)
        self.wait(a, b)
        # Names that are given up, in another order than they were given.
        given = [a.port() for _ in range(5)]
        for index in (3, 0, 4):
            a.destroy(given[index])
        self.world.kernel.take_released()

    def call(self, function: Any, actor: Actor, *arguments: Any) -> Any:
        return self.world.call(function, actor.task, *arguments)

    def fill_ports(self, a: Actor, b: Actor) -> None:
        guarded = self.names["guarded"] = a.port_with_send(3)
        self.call(ports.mach_port_guard, a, guarded, 2**63 + 5, True)
        a.set_mscount(guarded, 0xFFFFFFFF)
        a.set_seqno(guarded, 77)
        self.call(ports.set_label, a, guarded, "a label, \N{GREEK SMALL LETTER MU}")
        self.names["context"] = context = a.port()
        self.call(ports.mach_port_set_context, a, context, 2**64 - 1)
        a.set_qlimit(context, 3)
        a.rename(a.port(), 0x777777)
        self.names["object"] = self.call(tasks.make_object, a, object())

    def fill_queue(self, a: Actor, b: Actor) -> None:
        port = self.names["queue"] = a.port()
        right = self.names["sender"] = b.take(a, port, MAKE_SEND)
        b.send(right, id=1, inline=b"inline..", reply=b.port(), reply_disposition=MAKE_SEND_ONCE)
        long = layout.pack(COPY_SEND, right, id=0xFFFFFFFF, inline=bytes(8192), voucher=7)
        b.mach_msg(c.MACH_SEND_MSG, memoryview(long))
        travels = b.port_with_send()
        nested = b.port()
        b.send(travels, rights=[(nested, MOVE_RECEIVE)], id=2)
        b.send(right, id=3, rights=[(travels, MOVE_RECEIVE), (DEAD, MAKE_SEND), (travels, COPY_SEND), (0, MAKE_SEND)])
        buffer = layout.pack(
            layout.bits(COPY_SEND, COPY_SEND),
            right,
            DEAD,
            descriptors=[layout.memory_descriptor(3), layout.port_array_descriptor(3, MAKE_SEND)],
        )
        b.mach_msg(c.MACH_SEND_MSG, buffer, memory=(b"abc", array_of(b.port(), DEAD, 0)))

    def fill_sets(self, a: Actor, b: Actor) -> None:
        first, second, third = (a.port_with_send() for _ in range(3))
        self.names["set"] = a.pset(first, second, third)
        a.pset()
        for id, port in enumerate((third, first, third, second, first)):
            a.send(port, id=id)
        a.move_member(second, 0)

    def fill_requests(self, a: Actor, b: Actor) -> None:
        port = self.names["watched"] = a.port_with_send()
        listens = self.names["listens"] = b.port()
        a.set_qlimit(port, 1)
        for actor in (a, b):
            name = port if actor is a else b.take(a, port, MAKE_SEND)
            notify = actor.take(b, listens, MAKE_SEND_ONCE)
            actor.request(DEATH, name, notify, how=MOVE_SEND_ONCE)
        second = b.take(a, port, MAKE_SEND_ONCE)
        b.request(DEATH, second, listens)
        b.request(DEATH, second, 0)
        a.request(NO_SENDERS, port, a.port())
        a.request(PORT_DESTROYED, port, a.take(b, listens, MAKE_SEND_ONCE), how=MOVE_SEND_ONCE)
        a.send(port, id=9)
        if not a.kernel.dialect.no_send_possible:
            other = b.take(a, self.names["context"], MAKE_SEND)
            for id in range(3):
                b.send(other, id=id)
            b.request(SEND_POSSIBLE, other, listens, sync=1)

    def fill_deaths(self, a: Actor, b: Actor, d: Actor) -> None:
        """Dead names that were looked at and that were not, and the end of a task with its last holders."""
        port = d.port_with_send()
        self.call(ports.set_label, d, port, "of one that died")
        for index in range(2):
            a.take(d, port, MAKE_SEND if index else MAKE_SEND_ONCE)
        name = b.take(d, port, MAKE_SEND)
        b.request(DEATH, name, b.port())
        unseen = a.take(d, port, MAKE_SEND)
        # A request that nobody received, and that is lost with its task.
        reply = self.names["reply"] = a.port()
        a.send(unseen, reply=reply, reply_disposition=MAKE_SEND_ONCE)
        pd = a.port_with_send()
        a.request(PORT_DESTROYED, pd, a.take(d, d.port(), MAKE_SEND_ONCE), how=MOVE_SEND_ONCE)
        d.terminate()
        assert a.type(unseen) & DEAD_NAME
        a.dead_name(4)

    def fill_tasks(self, a: Actor, b: Actor) -> None:
        service = b.port_with_send()
        self.call(tasks.task_set_special_port, b, a.task, c.TASK_BOOTSTRAP_PORT, service)
        self.call(tasks.mach_ports_register, b, b.task, [service, 0, service])
        a.task.label = "a task, \N{GREEK SMALL LETTER MU}"

    def receive(self, a: Actor, b: Actor) -> None:
        """Receptions that are taken back, and ones that may have to be."""
        port = self.names["read"] = a.port()
        right = b.take(a, port, MAKE_SEND)
        for id in range(5):
            b.send(right, id=id, rights=[(b.port(), MAKE_SEND)])
        results = [a.try_receive(port) for _ in range(3)]
        self.call(take_back, a, results[1])
        buffer = layout.pack(
            layout.bits(COPY_SEND, MAKE_SEND_ONCE),
            right,
            b.port(),
            descriptors=[
                layout.memory_descriptor(5),
                layout.port_descriptor(b.port(), MOVE_RECEIVE),
                layout.port_array_descriptor(2, MAKE_SEND),
            ],
            inline=b"body",
        )
        other = self.names["read too"] = a.port()
        buffer = buffer[:8] + b.take(a, other, MAKE_SEND).to_bytes(4, "little") + buffer[12:]
        b.mach_msg(c.MACH_SEND_MSG, buffer, memory=(b"bytes", array_of(b.port(), DEAD)))
        self.unread = [results[0], results[2], a.try_receive(other)]

    def wait(self, a: Actor, b: Actor) -> None:
        self.names["waited"] = a.port()
        at_port = [a.wait_to_receive(self.names["waited"], limit=100 + index) for index in range(3)]
        empty = self.names["empty set"] = a.pset(a.port())
        at_set = [a.wait_to_receive(empty, option=c.MACH_RCV_LARGE, limit=index) for index in (3, 1, 2)]
        a.interrupt(at_set.pop(0))
        full = self.names["full"] = a.port()
        right = b.take(a, full, MAKE_SEND)
        self.names["filled"] = a.fill(full)
        home = b.port()
        senders = [
            b.wait_to_send(right, id=200, rights=[(b.port(), MOVE_RECEIVE)]),
            b.wait_to_send(right, id=201, receive=True, rights=[(home, MAKE_SEND)]),
            a.wait_to_send(full, MAKE_SEND, id=202, inline=b"late"),
        ]
        a.interrupt(at_port.pop(1))
        self.waiters = [senders[1], *reversed(at_port), senders[2], *at_set, senders[0]]
        if a.kernel.dialect.full_before_circular:
            circular = a.port()
            a.fill(circular)
            right = b.take(a, circular, MAKE_SEND)
            carried = b.take(a, circular, MOVE_RECEIVE)
            self.waiters.append(b.wait_to_send(right, rights=[(carried, MOVE_RECEIVE)]))
