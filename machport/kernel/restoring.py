"""A kernel of plain data, as ``saving`` writes it.  Nothing is believed: see ``snapshot``."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

from machport.abi import constants as c
from machport.abi import message as layout
from machport.abi.message import Descriptor
from machport.kernel import phase
from machport.kernel.counts import KINDS, Counts
from machport.kernel.dialect import MANUAL, Dialect
from machport.kernel.invariants import UREFS, BrokenInvariant, check
from machport.kernel.kernel import Kernel
from machport.kernel.message import Item, Message, new_item, new_message
from machport.kernel.port import (
    DEAD,
    LABEL_MAX,
    Port,
    PortSet,
    Quota,
    Request,
    RequestTable,
    SlottedRequestTable,
    Ticket,
    new_port,
    new_request,
)
from machport.kernel.rows import (
    ACTIVE,
    ASKS,
    CIRCULAR,
    DEAD_PORT,
    FRESH,
    GUARDED,
    KERNELS,
    NO_PORT,
    NO_TASK,
    RETURNED,
    STRICT,
    UNRECEIVED,
    SnapshotError,
    State,
)
from machport.kernel.space import Entry, FreshNames, GenerationNames, NamePicker, Space, new_entry
from machport.kernel.task import Task
from machport.kernel.waiter import Line, Result, Waiter, new_result, new_waiter

_U8: Final = 0xFF
_U32: Final = 0xFFFFFFFF
_U64: Final = 0xFFFFFFFFFFFFFFFF
_MOST: Final = 0x7FFFFFFFFFFFFFFF
_TOKENS: Final = 10
#: How many numbers an entry is.
_ENTRY: Final = 6
#: Kinds of rights that a message is sent to, or that it carries; types of entries that have a port.
_SENDING: Final = (c.MACH_MSG_TYPE_PORT_SEND, c.MACH_MSG_TYPE_PORT_SEND_ONCE)
_RIGHTS: Final = (c.MACH_MSG_TYPE_PORT_RECEIVE, *_SENDING)
_WITH_PORT: Final = c.MACH_PORT_TYPE_SEND_RECEIVE | c.MACH_PORT_TYPE_SEND_ONCE


class Restored:
    """A kernel that was plain data.

    Attributes:
        kernel: the kernel.
        tasks, ports, waiters, results: by their numbers.
    """

    __slots__ = ("kernel", "ports", "results", "tasks", "waiters")

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.tasks: list[Task] = []
        self.ports: list[Port] = []
        self.waiters: list[Waiter] = []
        self.results: list[Result] = []


def restore(
    state: State,
    object_of_number: Callable[[int], Any] | None = None,
    *,
    checks: bool = True,
    leaked: Mapping[int, int] | None = None,
) -> Restored:
    """A new kernel as ``state`` says.

    Args:
        state: from anywhere; none of it is used again.
        object_of_number: what the driver's numbers stand for; a LookupError or ValueError says that it is nothing.
        checks: count all rights, and whatever else is true of a kernel (``invariants``); takes as long as all the rest.
        leaked: for that, the send rights that GNU Mach goes on counting (D7), by the numbers of their ports.

    Raises:
        SnapshotError: it is no such state.
    """
    try:
        restored = _Restoring(object_of_number).restore(state)
        if checks:
            _check(restored, leaked or {})
    except SnapshotError:
        raise
    except (TypeError, ValueError, LookupError, OverflowError, AttributeError, AssertionError) as error:
        raise SnapshotError(f"this is not the state of a kernel: {error}") from error
    return restored


def _check(restored: Restored, leaked: Mapping[int, int]) -> None:
    living = {port for port in restored.ports if port.active}
    try:
        check(restored.kernel, living, Counter({restored.ports[number]: count for number, count in leaked.items()}))
    except BrokenInvariant as error:
        raise SnapshotError(f"the rights of this state do not add up: {error}") from error


class _Restoring:
    """A kernel while it is restored."""

    def __init__(self, object_of_number: Callable[[int], Any] | None) -> None:
        self.object_of_number = object_of_number
        self.ports: list[Port] = []
        self.waiters: list[Waiter | None] = []
        self.tokens: list[tuple[int, ...]] = []
        #: Ports on their way, and the tasks with which they count, by number.
        self.charged: dict[int, int] = {}
        #: Of each port, whether it is known where its receive right is.
        self.held = bytearray()
        #: The entry of requests whose entry is not known yet, and of those that have outlived theirs (D7).
        self.nobody = new_entry(c.MACH_PORT_NULL, c.MACH_PORT_TYPE_DEAD_NAME, 1)

    def restore(self, state: State) -> Restored:
        switches, name_limit, tasks_made, alive, tokens, task_rows, port_rows, waiter_rows, result_rows, counts = _row(
            state, 10
        )
        kernel = Kernel(_dialect(switches), name_limit=_number(name_limit, _MOST))
        kernel.tasks_made = _number(tasks_made, _MOST)
        restored = Restored(kernel)
        self.kernel = kernel
        self.tokens = [_tokens(row) for row in _list(tokens)]
        self.ports = restored.ports = [new_port(None) for _ in _list(port_rows)]
        self.held = bytearray(len(self.ports))
        self.waiters = [None] * len(_list(waiter_rows))
        for row in _list(task_rows):
            restored.tasks.append(self._restore_task(row, waiter_rows))
        self._restore_alive(restored.tasks, alive)
        for number, row in enumerate(port_rows):
            self._restore_port(number, self.ports[number], row)
        for port, row in zip(self.ports, port_rows, strict=True):
            self._restore_waiting(port, row)
        for task, row in zip(restored.tasks, task_rows, strict=True):
            self._restore_space(task.space, row)
        self._restore_charges(restored.tasks)
        for waiter in self.waiters:
            _require(waiter is not None and waiter.line is not None, "a call waits nowhere")
            assert waiter is not None
            if isinstance(waiter.source, Port):
                _require(waiter.source.receiver is waiter.task.space, "a call waits at a port of somebody else's")
            restored.waiters.append(waiter)
        restored.results = [self._restore_result(row) for row in _list(result_rows)]
        self._check_holders()
        self._check_journeys()
        _restore_counts(kernel.counts, counts, restored.ports)
        return restored

    def _port(self, number: Any) -> Port | None:
        if type(number) is int and number < 0:
            _require(number >= DEAD_PORT, "a port that cannot be")
            return None if number == NO_PORT else DEAD
        return self._real(number)

    def _real(self, number: Any) -> Port:
        """A port that has a number."""
        return self.ports[_number(number, len(self.ports) - 1)]

    def _living(self, number: Any) -> Port:
        port = self._real(number)
        _require(port.active, "a dead port where only a living one can be")
        return port

    # Tasks and spaces

    def _restore_task(self, row: State, waiter_rows: list[State]) -> Task:
        label, number, tokens, port, special, registered, waiters, active, limit, quota, names, _, _ = _row(row, 13)
        task = Task(
            _number(number, self.kernel.tasks_made),
            _text(label),
            self.tokens[_number(tokens, len(self.tokens) - 1)],
            _number(limit, _MOST),
            _restore_names(names),
        )
        task.space.active = _flag(active)
        self._restore_quota(task, quota)
        task.port = self._real(port)
        _require(task.port.kobject is None, "two tasks have one port")
        task.port.kobject = task
        for pair in _list(special):
            which, number = _row(pair, 2)
            task.special[_number(which, _U32)] = self._real(number)
        task.registered = [self._port(number) for number in _list(registered)]
        _require(len(task.registered) == (c.TASK_PORT_REGISTER_MAX if active else 0), "so many registered ports")
        for number in _list(waiters):
            index = _number(number, len(self.waiters) - 1)
            _require(active and self.waiters[index] is None, "a call belongs to two tasks, or to one that has ended")
            waiter = self._restore_waiter(task, waiter_rows[index])
            self.waiters[index] = waiter
            task.waiters[waiter] = None
        return task

    def _restore_quota(self, task: Task, row: State) -> None:
        if row is None:
            return
        quota = task.space.quota = Quota(task, self.kernel.relieved, self.kernel.exceeded)
        messages, size, sending, waiters = _row(row, 4)
        quota.messages_max = _number(messages, _MOST)
        quota.bytes_max = _number(size, _MOST)
        quota.sending_max = _number(sending, _MOST)
        quota.waiters_max = _number(waiters, _MOST)

    def _restore_charges(self, tasks: list[Task]) -> None:
        """Every queue counts with its holder; only when all do is it known who waits for room."""
        for number, port in enumerate(self.ports):
            if port.receiver is not None:
                port.charge_to(port.receiver.quota)
            elif number in self.charged:
                port.charge_to(tasks[_number(self.charged[number], len(tasks) - 1)].space.quota)
        for quota in self.kernel.relieved:
            quota.is_relieved = False
        self.kernel.relieved.clear()

    def _restore_waiter(self, task: Task, row: State) -> Waiter:
        option, rcv_limit, rcv_name, timeout_ms = _row(row, 4)
        return new_waiter(
            task,
            _number(option, _MOST),
            _number(rcv_limit, _MOST),
            _number(rcv_name, _U32),
            _number(timeout_ms, _MOST),
        )

    def _restore_alive(self, tasks: list[Task], alive: State) -> None:
        for number in _list(alive):
            task = tasks[_number(number, len(tasks) - 1)]
            _require(task.active and task not in self.kernel.tasks, "a task lives that has ended, or lives twice")
            self.kernel.tasks[task] = None
        _require(sum(task.active for task in tasks) == len(self.kernel.tasks), "a task neither lives nor has ended")
        _require(len({task.number for task in tasks}) == len(tasks), "two tasks have one number")

    def _restore_space(self, space: Space, row: State) -> None:
        *_, entries, sets = row
        count, odd = divmod(len(_list(entries)), _ENTRY)
        _require(not odd and count <= (space.limit if space.active else 0), "more names than the task may have")
        for at in range(0, len(entries), _ENTRY):
            self._restore_entry(space, entries[at : at + _ENTRY])
        for set_row in _list(sets):
            self._restore_set(space, set_row)
        for entry in space.entries.values():
            _require(entry.type != c.MACH_PORT_TYPE_PORT_SET or entry.pset is not None, "a set without its members")

    def _restore_entry(self, space: Space, row: State) -> None:
        name, type, urefs, number, slot, died = row
        name = _number(name, _U32 - 1)
        _require(name != c.MACH_PORT_NULL and name not in space.entries, "a name that denotes two things, or nothing")
        least, most = UREFS[_number(type, _U32)]
        _require(least <= _number(urefs, _U32) <= most, "a name with so many references")
        entry = new_entry(name, type, urefs)
        entry.request = _number(slot, _MOST)
        if type & _WITH_PORT:
            port = entry.port = self._real(number)
            _require(died == NO_PORT, "a name of a port that is another's")
            if type & c.MACH_PORT_TYPE_SEND_RECEIVE:
                _require(port not in space.by_port, "two names for the same right")
            if type & c.MACH_PORT_TYPE_RECEIVE:
                _require(port.active, "a receive right of a dead port")
                self._hold(number)
                port.receiver = space
            if slot and port.active:
                self._claim(entry, port)
        else:
            _require(number == NO_PORT and not slot, "a port, or a request, where no right is")
            if died != NO_PORT:
                entry.died = self._real(died)
                _require(type == c.MACH_PORT_TYPE_DEAD_NAME and not entry.died.active, "a death that was none")
        space.add(entry)

    def _claim(self, entry: Entry, port: Port) -> None:
        """The entry has one of the port's requests."""
        _require(port.requests is not None, "a request that its port does not know")
        assert port.requests is not None
        request: Request = port.requests.slots[entry.request]
        _require(request.name == entry.name and request.entry is self.nobody, "a request for another name")
        request.entry = entry

    def _restore_set(self, space: Space, row: State) -> None:
        name, members, order, receivers = _row(row, 4)
        entry = space.entries[_number(name, _U32)]
        _require(entry.type == c.MACH_PORT_TYPE_PORT_SET and entry.pset is None, "a set under a name of something else")
        pset = entry.pset = PortSet(name)
        left: dict[Port, int] = {}
        for number in _list(members):
            port = self._living(number)
            _require(port.receiver is space and port.pset is None, "a member that is somewhere else")
            _require(port.receivers is None, "somebody receives from a port, and it is in a set")
            pset.members[port] = None
            port.pset = pset
            port.ticket = Ticket(port)
            if port.msgcount:
                left[port] = port.msgcount
        for number in _list(order):
            port = self._real(number)
            left[port] -= 1
            if not left[port]:
                del left[port]
            assert port.ticket is not None
            pset.order.append(port.ticket)
        _require(not left, "a message in a set that never comes")
        if receivers is not None:
            pset.receivers = Line()
            self._restore_line(pset.receivers, pset, receivers)
            for waiter in pset.receivers:
                _require(waiter.task.space is space, "a call waits at a set of somebody else's")

    # Ports

    def _restore_port(self, number: int, port: Port, row: State) -> None:
        """A port without what waits there."""
        flags, srights, sorights, mscount, seqno, _, rare = _row(row, 7)
        flags = _number(flags, 2 * KERNELS - 1)
        port.active = flags & ACTIVE != 0
        port.guarded = flags & GUARDED != 0
        port.strict = flags & STRICT != 0
        port.unreceived = flags & UNRECEIVED != 0
        port.srights = _number(srights, _MOST)
        port.sorights = _number(sorights, _MOST)
        port.mscount = _number(mscount, _U32)
        port.seqno = _number(seqno, _U32)
        if rare is not None:
            self._restore_rare(number, port, rare)
        self._check_owner(number, port, flags)

    def _restore_rare(self, number: int, port: Port, row: State) -> None:
        qlimit, context, label, kobject, last_holder, lost_with, ns_request, pd_request, *_, holder = _row(row, 12)
        port.qlimit = _number(qlimit, _U32)
        port.context = _number(context, _U64)
        port.label = _text(label)
        _require(len(label.encode()) <= LABEL_MAX, "a label that is too long")
        port.last_holder = _number(last_holder, _MOST)
        port.lost_with = _number(lost_with, _MOST)
        port.ns_request = self._port(ns_request)
        port.pd_request = self._port(pd_request)
        if kobject is not None:
            self._restore_object(port, _number(kobject, _MOST))
        if holder != NO_TASK:
            self.charged[number] = holder

    def _restore_waiting(self, port: Port, row: State) -> None:
        """What waits at a port: messages, requests, calls."""
        *_, queue, rare = row
        requests, senders, receivers = (None, None, None) if rare is None else rare[8:11]
        if not port.active:
            _require(queue is None and requests is None and senders is None and receivers is None, "a dead port in use")
            return
        if queue is not None:
            for message_row in _list(queue):
                message = self._restore_message(message_row, port, False)
                _require(not message.circular, "a queue that holds itself")
                port.append(message)
        if requests is not None:
            port.requests = self._restore_requests(requests)
        if senders is not None:
            port.senders = Line()
            self._restore_senders(port, senders)
        if receivers is not None:
            port.receivers = Line()
            self._restore_line(port.receivers, port, receivers)

    def _restore_object(self, port: Port, number: int) -> None:
        _require(port.kobject is None and self.object_of_number is not None, "a port that stands for two things")
        assert self.object_of_number is not None
        port.kobject = self.object_of_number(number)

    def _check_owner(self, number: int, port: Port, flags: int) -> None:
        """The kernel has the ports that stand for something, and those only."""
        if flags & KERNELS:
            _require(port.active and port.kobject is not None, "a port of the kernel that stands for nothing")
            port.receiver = self.kernel.space
            self._hold(number)
        else:
            _require(not port.active or port.kobject is None, "a port that stands for something, and is somebody's")
        if isinstance(port.kobject, Task):
            _require(port.active == port.kobject.active, "a task whose port has another end")

    def _hold(self, number: int) -> None:
        """A place where a port's receive right is."""
        _require(not self.held[number], "a receive right that is in two places")
        self.held[number] = 1

    def _check_holders(self) -> None:
        for number, port in enumerate(self.ports):
            _require(self.held[number] == 1 or not port.active, "a receive right that is nowhere")

    def _check_journeys(self) -> None:
        """No port travels in its own queue, directly or not."""
        begun: dict[Port, int] = {}
        for number, port in enumerate(self.ports):
            link: Port | None = port
            while link is not None and link.active and link.receiver is None and link not in begun:
                begun[link] = number
                link = link.destination
            _require(link is None or begun.get(link, -1) != number, "a right that travels in itself")

    def _restore_requests(self, row: State) -> RequestTable:
        table = self.kernel.new_request_table()
        if isinstance(table, SlottedRequestTable):
            slots, armed, size, free = _row(row, 4)
            self._restore_slots(table, slots, armed, _number(size, _U32))
            table.size = size
            table.free = [_number(slot, size - 1) for slot in _list(free)]
            used = {*table.free, *table.slots}
            _require(len(used) == len(table.free) + len(table.slots) == size - 1 and 0 not in used, "a lost slot")
        else:
            slots, armed, following = _row(row, 3)
            self._restore_slots(table, slots, armed, _number(following, _MOST))
            table.next = following
        return table

    def _restore_slots(self, table: RequestTable, rows: State, armed: State, end: int) -> None:
        for row in _list(rows):
            slot, name, notify, send_possible = _row(row, 4)
            _require(_number(slot, end - 1) > 0 and slot not in table.slots, "a request that has another's slot")
            table.slots[slot] = new_request(self.nobody, _number(name, _U32), self._real(notify), _flag(send_possible))
        for slot in _list(armed):
            _require(_number(slot, end - 1) in table.slots and slot not in table.armed, "an armed request that is none")
            _require(table.slots[slot].send_possible, "an armed request of another kind")
            table.armed[slot] = None

    # Messages

    def _restore_message(self, row: State, remote: Port | None, was_received: bool) -> Message:
        """
        Args:
            remote: the port that it is sent to; None once it was received.
            was_received: its rights are elsewhere.
        """
        remote_type, local, local_type, id, inline, items, voucher, tokens, flags, seqno = _row(row, 10)
        _require(remote_type in _SENDING, "a message by another right than for sending")
        _require(local_type in _SENDING or (type(local_type) is int and local_type == 0), "a reply right of no kind")
        message = new_message(
            remote, _number(remote_type, _U8), _number(id, _U32), self.tokens[_number(tokens, len(self.tokens) - 1)]
        )
        message.local = self._port(local)
        message.local_type = _number(local_type, _U8)
        _require(local_type != 0 or message.local is None, "a reply right of no kind")
        message.inline = _bytes(inline)
        message.voucher = _number(voucher, _U32)
        flags = _number(flags, 2 * RETURNED - 1)
        message.circular = flags & CIRCULAR != 0
        message.asks = flags & ASKS != 0
        message.returned = flags & RETURNED != 0
        message.seqno = _number(seqno, _U32)
        if items is not None:
            message.items = [self._restore_item(item, message, was_received) for item in _list(items)]
        return message

    def _restore_item(self, row: State, message: Message, was_received: bool) -> Item:
        words, type, numbers, memory = _row(row, 4)
        kind, disposition, name, address, size, deallocate, copy = _row(words, 7)
        descriptor = Descriptor(
            _number(kind, c.MACH_MSG_OOL_VOLATILE_DESCRIPTOR),
            _number(disposition, _U8),
            _number(name, _U32),
            _number(address, _U64),
            _number(size, _U32),
            _number(deallocate, _U8),
            _number(copy, _U8),
        )
        has_rights = kind == c.MACH_MSG_PORT_DESCRIPTOR or kind == c.MACH_MSG_OOL_PORTS_DESCRIPTOR
        _require(type in _RIGHTS if has_rights else type == 0, "a descriptor of another kind than its content")
        if not was_received:
            count = (1 if kind == c.MACH_MSG_PORT_DESCRIPTOR else size) if has_rights else 0
            _require(len(_list(numbers)) == count, "a descriptor of more or fewer rights than are there")
        _require(
            len(_bytes(memory)) == (0 if has_rights else size), "a descriptor of more or less memory than is there"
        )
        ports = [self._port(number) for number in _list(numbers)]
        if type == c.MACH_MSG_TYPE_PORT_RECEIVE:
            for port, number in zip(ports, numbers, strict=True):
                if port is not None and port.active:
                    self._hold(number)
                    if not message.circular:
                        port.destination = message.remote
        return new_item(descriptor, _number(type, _U8), ports, memory)

    # Waiters and results

    def _restore_line(self, line: Line, source: Port | PortSet, row: State) -> None:
        for number in _list(row):
            waiter = self._waiting(number)
            waiter.source = source
            waiter.wait_in(line, phase.RECEIVE)

    def _restore_senders(self, port: Port, rows: State) -> None:
        assert port.senders is not None
        for row in _list(rows):
            number, message = _row(row, 2)
            waiter = self._waiting(number)
            waiter.message = self._restore_message(message, port, False)
            waiter.wait_in(port.senders, phase.SEND)

    def _waiting(self, number: State) -> Waiter:
        waiter = self.waiters[_number(number, len(self.waiters) - 1)]
        _require(waiter is not None and waiter.line is None, "a call that waits in two places, or is nobody's")
        assert waiter is not None
        return waiter

    def _restore_result(self, row: State) -> Result:
        code, head, inline, tail, memory, rule, taken, received, port = _row(row, 9)
        result = new_result(_number(code, _U32), _text(rule))
        result.head = None if head is None else _bytes(head)
        result.inline = _bytes(inline)
        result.tail = _bytes(tail)
        result.memory = [_bytes(region) for region in _list(memory)]
        result.taken = _number(taken, _MOST)
        result.port = self._port(port)
        if received is not None:
            result.received = self._restore_message(received, None, True)
            _check_reception(result)
        return result


def _restore_counts(counts: Counts, row: State, ports: Sequence[Port]) -> None:
    sent, sent_bytes, received, received_bytes, notified = _row(row, 5)
    counts.sent, counts.sent_bytes = _number(sent, _MOST), _number(sent_bytes, _MOST)
    counts.received, counts.received_bytes = _number(received, _MOST), _number(received_bytes, _MOST)
    for kind, count in zip(KINDS, _row(notified, len(KINDS)), strict=True):
        counts.notified[kind] = _number(count, _MOST)
    counts.ports = sum([port.active for port in ports])
    counts.queued = sum([port.msgcount for port in ports])


def _restore_names(row: State) -> NamePicker:
    kind, *state = _list(row)
    if _number(kind, FRESH) == FRESH:
        return FreshNames(_number(_row(state, 1)[0], _U32))
    generations, free = _row(state, 2)
    names = GenerationNames()
    names.generations = bytearray(_bytes(generations))
    waiting = bytearray(byte & c.PORT_NAME_GEN_FIRST for byte in names.generations)
    _require(set(waiting) <= {0, c.PORT_NAME_GEN_FIRST}, "a generation that is never given")
    for index in _list(free):
        _require(waiting[_number(index, len(waiting) - 1)] == 0, "a name that is free twice, or in use")
        waiting[index] = 1
        names.free.append(index)
    _require(0 not in waiting, "a name that is never used again")
    return names


def _dialect(switches: State) -> Dialect:
    known: dict[str, Any] = {field.name: field.default for field in fields(Dialect)}
    given: dict[str, Any] = {}
    for pair in _list(switches):
        name, value = _row(pair, 2)
        _require(type(value) is type(known[name]) and 0 <= value <= _U32, "a switch that is set otherwise")
        given[name] = value
    return Dialect(**given) if given else MANUAL


def _check_reception(result: Result) -> None:
    """Whether ``copyout.take_back`` can undo it: head and memory must be those of the message."""
    _require(result.head is not None and result.port is not None, "a reception of nothing, or from nowhere")
    assert result.head is not None and result.received is not None
    parsed = layout.parse(result.head)
    _require(not parsed.code, "a reception whose head is none")
    items = result.received.items or ()
    _require(len(items) == len(parsed.descriptors), "a reception with another body than its message")
    regions = deque(result.memory)
    for item, descriptor in zip(items, parsed.descriptors, strict=True):
        _require(descriptor.type == item.descriptor.type, "a reception with another body than its message")
        if descriptor.type != c.MACH_MSG_PORT_DESCRIPTOR:
            region = regions.popleft()
            if descriptor.type == c.MACH_MSG_OOL_PORTS_DESCRIPTOR:
                _require(len(region) == 4 * item.descriptor.size, "an array of more or fewer names than rights")
    _require(not regions, "a reception of more memory than its message has")


def _require(true: bool, otherwise: str) -> None:
    if not true:
        raise SnapshotError(f"this is not the state of a kernel: {otherwise}")


def _list(value: State) -> list[Any]:
    if type(value) is not list:
        raise SnapshotError("this is not the state of a kernel: no list where one is expected")
    found: list[Any] = value
    return found


def _row(value: State, length: int) -> list[Any]:
    """A list of so many fields."""
    if type(value) is not list or len(value) != length:
        raise SnapshotError(f"this is not the state of a kernel: no row of {length} fields where one is expected")
    return value


def _number(value: State, most: int) -> int:
    """A number from 0 to ``most``."""
    if type(value) is not int or not 0 <= value <= most:
        raise SnapshotError(f"this is not the state of a kernel: no number from 0 to {most} where one is expected")
    return value


def _flag(value: State) -> bool:
    if type(value) is not bool:
        raise SnapshotError("this is not the state of a kernel: neither true nor false where one is expected")
    return value


def _text(value: State) -> str:
    if type(value) is not str:
        raise SnapshotError("this is not the state of a kernel: no text where some is expected")
    return value


def _bytes(value: State) -> bytes:
    if type(value) is not bytes:
        raise SnapshotError("this is not the state of a kernel: no bytes where some are expected")
    return value


def _tokens(value: State) -> tuple[int, ...]:
    return tuple(_number(word, _U32) for word in _row(value, _TOKENS))
