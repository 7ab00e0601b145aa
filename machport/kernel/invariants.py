"""What is true of a kernel between any two calls: counts add up, and every right has one holder.

For tests, for whoever takes a kernel over, and for nobody's hot path: everything is counted anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from machport.abi import constants as c
from machport.kernel import phase
from machport.kernel.kernel import Kernel
from machport.kernel.message import Message
from machport.kernel.port import DEAD, Port, Quota
from machport.kernel.queueing import peek
from machport.kernel.space import Entry, Space
from machport.kernel.task import Task
from machport.kernel.tasks import Termination
from machport.kernel.waiter import Line, Waiter

SEND, SEND_ONCE, RECEIVE = c.MACH_PORT_TYPE_SEND, c.MACH_PORT_TYPE_SEND_ONCE, c.MACH_PORT_TYPE_RECEIVE
BOTH, SET, DEAD_NAME = c.MACH_PORT_TYPE_SEND_RECEIVE, c.MACH_PORT_TYPE_PORT_SET, c.MACH_PORT_TYPE_DEAD_NAME

#: Type of an entry -> the least and the most user references.
UREFS = {
    SEND: (1, c.SEND_UREFS_MAX),
    RECEIVE: (0, 0),
    BOTH: (1, c.SEND_UREFS_MAX),
    SEND_ONCE: (1, 1),
    SET: (0, 0),
    DEAD_NAME: (1, c.MACH_PORT_UREFS_MAX),
}
_KINDS = {
    c.MACH_MSG_TYPE_PORT_SEND: SEND,
    c.MACH_MSG_TYPE_PORT_SEND_ONCE: SEND_ONCE,
    c.MACH_MSG_TYPE_PORT_RECEIVE: RECEIVE,
}


class BrokenInvariant(AssertionError):
    """Rights and counts of the kernel do not add up."""


class Census:
    """Every right of a kernel, counted where it is.

    ``known`` are ports seen before: a port that lives but can no longer be reached is an error that only memory finds.
    """

    def __init__(self, kernel: Kernel, known: set[Port]) -> None:
        self.kernel = kernel
        self.ports = known
        self.rights: dict[int, Counter[Port]] = {SEND: Counter(), SEND_ONCE: Counter(), RECEIVE: Counter()}
        self.requests: Counter[Port] = Counter()
        #: What waits in the queues that count in each quota.
        self.messages: Counter[Quota] = Counter()
        self.bytes: Counter[Quota] = Counter()
        self._counted: set[Port] = set()
        self._todo: list[Port] = []
        for port in known:
            self._see(port)
        self._count_tasks()
        self._count_unfinished()
        while self._todo:
            self._count_port(self._todo.pop())

    def _see(self, port: Port) -> None:
        if port not in self._counted and port.active:
            self._counted.add(port)
            self.ports.add(port)
            self._todo.append(port)

    def _right(self, kind: int, port: Port | None) -> None:
        if port is not None and port.active:
            self.rights[kind][port] += 1
            self._see(port)

    def _count_tasks(self) -> None:
        for task in self.kernel.tasks:
            self._right(SEND, task.port)
            self._right(RECEIVE, task.port)
            for port in (*task.special.values(), *task.registered):
                self._right(SEND, port)
            self._count_space(task.space)
            for waiter in task.waiters:
                if waiter.phase == phase.SEND and waiter.message is not None:
                    self._count_message(waiter.message)

    def _count_space(self, space: Space) -> None:
        for entry in space.entries.values():
            for kind in self.rights:
                if entry.type & kind:
                    self._right(kind, entry.port)
            if entry.request and entry.port is not None:
                self.requests[entry.port] += 1

    def _count_unfinished(self) -> None:
        """What has ended and is being destroyed has its rights until then."""
        for _, what in self.kernel.unfinished:
            if isinstance(what, Message):
                self._count_message(what)
            elif isinstance(what, Port):
                for message in queue(what):
                    self._count_message(message)
                self._queue(what)
                for request in () if what.requests is None else what.requests.in_order():
                    self._right(SEND_ONCE, request.notify)
            elif isinstance(what, Termination):
                self._count_space(what.task.space)
                self._see(what.task.port)
            else:
                for request in what:
                    self._right(SEND_ONCE, request.notify)

    def _queue(self, port: Port) -> None:
        if port.quota is not None:
            self.messages[port.quota] += port.msgcount
            self.bytes[port.quota] += port.bytes

    def _count_port(self, port: Port) -> None:
        for message in queue(port):
            self._count_message(message)
        self._queue(port)
        for slot in (port.ns_request, port.pd_request):
            self._right(SEND_ONCE, slot)
        if port.requests is not None:
            for request in port.requests.in_order():
                self._right(SEND_ONCE, request.notify)
        if port.receiver is self.kernel.space and port.kobject not in self.kernel.tasks:
            self.rights[RECEIVE][port] += 1

    def _count_message(self, message: Message) -> None:
        self._right(_KINDS[message.remote_type], message.remote)
        if message.local_type:
            self._right(_KINDS[message.local_type], message.local)
        for item in message.items or ():
            for port in item.ports:
                self._right(_KINDS[item.type], port)
                if item.type == c.MACH_MSG_TYPE_PORT_RECEIVE and port is not None and port.active:
                    assert port.receiver is None
                    assert port.destination is (None if message.circular else message.remote)

    @property
    def living(self) -> Iterator[Port]:
        return (port for port in self.ports if port.active)


def queue(port: Port) -> Iterator[Message]:
    message = port.first
    while message is not None:
        yield message
        message = message.next


def check(kernel: Kernel, known: set[Port], leaked: Counter[Port]) -> None:
    """All invariants.

    Args:
        known: ports seen so far; new ones are added.
        leaked: send rights that GNU Mach goes on counting although they turned into dead names (D7).

    Raises:
        BrokenInvariant: one does not hold.
    """
    try:
        _check(kernel, known, leaked)
    except AssertionError as error:
        step = error.__traceback__
        while step is not None and step.tb_next is not None:
            step = step.tb_next
        line = 0 if step is None else step.tb_lineno
        raise BrokenInvariant(f"what {__name__} asserts in line {line} does not hold") from error


def _check(kernel: Kernel, known: set[Port], leaked: Counter[Port]) -> None:
    assert not kernel.garbage
    assert not kernel.woken
    assert not kernel.changed
    assert not kernel.relieved
    assert not kernel.possible
    assert not DEAD.active and DEAD.first is None and DEAD.requests is None and DEAD.ns_request is None
    standing: dict[Line, set[Waiter]] = {}
    for task in kernel.tasks:
        assert task.active
        _check_space(task.space)
        for waiter in task.waiters:
            _check_waiter(waiter, standing)
    census = Census(kernel, known)
    for port in census.living:
        assert port.srights == census.rights[SEND][port] + leaked[port]
        assert port.sorights == census.rights[SEND_ONCE][port]
        assert census.rights[RECEIVE][port] == 1
        _check_port(kernel, port, quirks=bool(leaked[port]))
        if not leaked[port]:
            assert (len(port.requests) if port.requests is not None else 0) == census.requests[port]
    lent: Counter[Space] = Counter()
    ending = [what.task for _, what in kernel.unfinished if isinstance(what, Termination)]
    for task in (*kernel.tasks, *ending):
        if task.space.maker is not None:
            lent[task.space.maker] += len(task.space.entries)
    for task in kernel.tasks:
        assert task.space.lent == lent[task.space]
        _check_quota(census, task)


def _check_quota(census: Census, task: Task) -> None:
    quota = task.space.quota
    assert quota is not None
    if task.space.maker is not None:
        assert quota is task.space.maker.quota
        assert not task.waiters
        return
    assert (quota.messages, quota.bytes) == (census.messages[quota], census.bytes[quota])
    waiting = [waiter.message for waiter in task.waiters if waiter.phase == phase.SEND]
    assert quota.sending == sum(message.weigh() for message in waiting if message is not None)
    # Nobody waits for room that is there.
    assert not quota.waiting or quota.full()
    for port in quota.waiting:
        assert port.active
        assert port.quota is quota


def _check_space(space: Space) -> None:
    assert len(space.entries) <= space.limit
    by_port = {}
    for name, entry in space.entries.items():
        assert entry.name == name
        assert name not in (c.MACH_PORT_NULL, c.MACH_PORT_DEAD)
        _check_entry(space, entry)
        if entry.type & BOTH:
            by_port[entry.port] = entry
    assert space.by_port == by_port


def _check_entry(space: Space, entry: Entry) -> None:
    least, most = UREFS[entry.type]
    assert least <= entry.urefs <= most
    assert (entry.pset is not None) == (entry.type == SET)
    assert (entry.port is not None) == bool(entry.type & (BOTH | SEND_ONCE))
    if entry.type & RECEIVE:
        assert entry.port is not None
        assert entry.port.active
        assert (entry.port.receiver, entry.port.name) == (space, entry.name)
    if entry.pset is not None:
        assert entry.pset.active
        assert entry.pset.name == entry.name
        waiting = Counter(entry.pset.order)
        for member in entry.pset.members:
            assert member.pset is entry.pset
            assert member.receiver is space
            assert member.ticket is not None
            assert waiting[member.ticket] == member.msgcount
    if entry.request and entry.port is not None and entry.port.active:
        assert entry.port.requests is not None
        request = entry.port.requests.slots[entry.request]
        assert request.entry is entry
        assert request.name == entry.name


def _check_port(kernel: Kernel, port: Port, *, quirks: bool) -> None:
    messages = list(queue(port))
    assert len(messages) == port.msgcount
    assert port.last is (messages[-1] if messages else None)
    assert all(message.remote is port and not message.circular for message in messages)
    assert port.bytes == sum(message.weigh() for message in messages)
    if port.receiver is not None:
        assert port.quota is port.receiver.quota
    if port.msgcount < port.qlimit and any(
        waiter.message and not waiter.message.circular for waiter in port.senders or ()
    ):
        assert port.quota is not None and port in port.quota.waiting
    assert (port.receiver is None) == (port.name == c.MACH_PORT_NULL) or port.receiver is kernel.space
    if port.receiver is not None:
        assert port.destination is None
    if port.pset is None:
        assert port.ticket is None
    else:
        assert port in port.pset.members
        assert not port.receivers
    # Nobody waits for what is there: room for a sender, a message for a receiver.
    assert port.full() or not any(waiter.message and not waiter.message.circular for waiter in port.senders or ())
    source = port.pset or port
    assert not source.receivers or peek(source) is None
    if port.requests is not None:
        assert set(port.requests.armed) <= set(port.requests.slots)
        if not quirks:
            for slot, request in port.requests.slots.items():
                assert request.entry.request == slot


def _check_waiter(waiter: Waiter, standing: dict[Line, set[Waiter]]) -> None:
    """
    Args:
        standing: who stands in each line that was looked at.
    """
    assert waiter.result is None
    assert waiter.line is not None
    if waiter.line not in standing:
        standing[waiter.line] = set(waiter.line)
    assert waiter in standing[waiter.line]
    assert waiter.phase in (phase.SEND, phase.RECEIVE)
    assert (waiter.message is not None) == (waiter.phase == phase.SEND)
