"""A kernel as plain data.  ``snapshot`` says what that is; ``restoring`` makes a kernel of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from machport.abi import constants as c
from machport.kernel.counts import KINDS, Counts
from machport.kernel.kernel import Kernel
from machport.kernel.message import Item, Message
from machport.kernel.port import DEAD, Port, PortSet, Quota, RequestTable, SlottedRequestTable
from machport.kernel.rows import (
    ACTIVE,
    ASKS,
    CIRCULAR,
    DEAD_PORT,
    FRESH,
    GENERATIONS,
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
from machport.kernel.space import FreshNames, GenerationNames, NamePicker
from machport.kernel.task import Task
from machport.kernel.waiter import Line, Result, Waiter


class Saved:
    """A kernel as plain data.

    Attributes:
        state: the data.
        tasks, ports, waiters, results: the number of each in it.
    """

    __slots__ = ("ports", "results", "state", "tasks", "waiters")

    def __init__(self) -> None:
        self.state: State = None
        self.tasks: dict[Task, int] = {}
        self.ports: dict[Port, int] = {}
        self.waiters: dict[Waiter, int] = {}
        self.results: dict[Result, int] = {}


def save(
    kernel: Kernel,
    waiters: Sequence[Waiter] = (),
    results: Sequence[Result] = (),
    number_of_object: Callable[[Any], int] | None = None,
    tasks: Sequence[Task] = (),
) -> Saved:
    """All that a kernel holds; it stays as it is.

    Args:
        kernel: nothing of it is under way: ``collect`` and ``take_released`` have nothing more to tell.
        waiters: calls that wait and that the driver knows; they get the first numbers, in this order.
        results: receptions that the driver may have to take back; the same.
        number_of_object: the driver's number, 0 or more, of what a port of the kernel stands for, if that is no task.
        tasks: those that the driver knows, also tasks that have ended; the same.

    Raises:
        SnapshotError: something is under way, or a waiter does not wait.
    """
    return _Saving(kernel, number_of_object).save(waiters, results, tasks)


class _Saving:
    """A kernel while it is saved."""

    def __init__(self, kernel: Kernel, number_of_object: Callable[[Any], int] | None) -> None:
        self.kernel = kernel
        self.number_of_object = number_of_object
        self.saved = Saved()
        self.tasks = self.saved.tasks
        self.ports = self.saved.ports
        self.waiters = self.saved.waiters
        #: Ports whose numbers somebody has used, in the order of those.
        self.found: list[Port] = []
        self.tokens: dict[tuple[int, ...], int] = {}
        #: Waiters that stand in a line.
        self.standing = 0

    def save(self, waiters: Sequence[Waiter], results: Sequence[Result], tasks: Sequence[Task]) -> Saved:
        kernel = self.kernel
        if kernel.garbage or kernel.woken.first is not None or kernel.changed or kernel.released:
            raise SnapshotError("the kernel has work under way; collect its waiters and take what it released first")
        if kernel.ending or kernel.unfinished:
            raise SnapshotError("something is ending; carry on with that until it has ended")
        for task in (*tasks, *kernel.tasks):
            self.tasks.setdefault(task, len(self.tasks))
        for waiter in waiters:
            self.waiters.setdefault(waiter, len(self.waiters))
        for result in results:
            self.saved.results.setdefault(result, len(self.saved.results))
        task_rows = [self._save_task(task) for task in self.tasks]
        result_rows = [self._save_result(result) for result in self.saved.results]
        port_rows = self._save_ports()
        if self.standing != len(self.waiters):
            raise SnapshotError("a call is to be saved that does not wait")
        self.saved.state = [
            [[name, getattr(kernel.dialect, name)] for name in kernel.dialect.switches()],
            kernel.name_limit,
            kernel.tasks_made,
            [self.tasks[task] for task in kernel.tasks],
            [list(tokens) for tokens in self.tokens],
            task_rows,
            port_rows,
            [self._save_waiter(waiter) for waiter in self.waiters],
            result_rows,
            _counts_row(kernel.counts),
        ]
        return self.saved

    def _port(self, port: Port | None) -> int:
        """The number of a port, which is saved, too."""
        if port is None:
            return NO_PORT
        number = self.ports.get(port)
        if number is not None:
            return number
        if port is DEAD:
            return DEAD_PORT
        self.ports[port] = count = len(self.found)
        self.found.append(port)
        return count

    def _tokens(self, tokens: Sequence[int]) -> int:
        given = tuple(tokens)
        return self.tokens.setdefault(given, len(self.tokens))

    # Tasks and spaces

    def _save_task(self, task: Task) -> State:
        space = task.space
        entries: list[State] = []
        sets: list[State] = []
        for entry in space.entries.values():
            if entry.pset is not None:
                sets.append(self._save_set(entry.pset))
            # One behind the other: a list for each of a million would take more than all that is in it.
            entries += (
                entry.name,
                entry.type,
                entry.urefs,
                self._port(entry.port),
                entry.request,
                self._port(entry.died),
            )
        return [
            task.label,
            task.number,
            self._tokens(task.tokens),
            self._port(task.port),
            [[which, self._port(port)] for which, port in task.special.items()],
            [self._port(port) for port in task.registered],
            [self.waiters.setdefault(waiter, len(self.waiters)) for waiter in task.waiters],
            space.active,
            space.limit,
            _save_quota(space.quota),
            self._save_names(space.names),
            entries,
            sets,
        ]

    def _save_names(self, names: NamePicker) -> State:
        if type(names) is GenerationNames:
            return [GENERATIONS, bytes(names.generations), list(names.free)]
        if type(names) is FreshNames:
            return [FRESH, names.last]
        raise SnapshotError(f"names that {type(names).__name__} picks cannot be carried over")

    def _save_set(self, pset: PortSet) -> State:
        # Tickets of members that left are passed over anyway.
        return [
            pset.name,
            [self._port(port) for port in pset.members],
            [self._port(ticket.port) for ticket in pset.order if ticket.port.ticket is ticket],
            self._save_line(pset.receivers),
        ]

    # Ports

    def _save_ports(self) -> list[State]:
        rows = []
        for port in self.found:  # grows meanwhile
            rows.append(self._save_port(port))
        return rows

    def _save_port(self, port: Port) -> State:
        flags = 0
        if port.active:
            flags |= ACTIVE
        if port.guarded:
            flags |= GUARDED
        if port.strict:
            flags |= STRICT
        if port.unreceived:
            flags |= UNRECEIVED
        if port.receiver is self.kernel.space:
            flags |= KERNELS
        return [
            flags,
            port.srights,
            port.sorights,
            port.mscount,
            port.seqno,
            self._save_queue(port.first),
            self._save_rare(port),
        ]

    def _save_rare(self, port: Port) -> State:
        """What most ports of a million have not."""
        holder = self._last_holder(port)
        if (
            port.qlimit == c.MACH_PORT_QLIMIT_DEFAULT
            and not port.context
            and not port.label
            and port.kobject is None
            and not port.last_holder
            and not port.lost_with
            and port.ns_request is None
            and port.pd_request is None
            and port.requests is None
            and port.senders is None
            and port.receivers is None
            and holder == NO_TASK
        ):
            return None
        return [
            port.qlimit,
            port.context,
            port.label,
            self._save_object(port),
            port.last_holder,
            port.lost_with,
            self._port(port.ns_request),
            self._port(port.pd_request),
            None if port.requests is None else self._save_requests(port.requests),
            self._save_senders(port.senders),
            self._save_line(port.receivers),
            holder,
        ]

    def _last_holder(self, port: Port) -> int:
        """The number of the task with which a port on its way counts."""
        if not port.active or port.receiver is not None or port.quota is None:
            return NO_TASK
        holder: Any = port.quota.holder
        return self.tasks.get(holder, NO_TASK)

    def _save_queue(self, message: Message | None) -> State:
        if message is None:
            return None
        # Most queues are short, and a list that grows keeps room.
        rows = [self._save_message(message)]
        message = message.next
        while message is not None:
            rows.append(self._save_message(message))
            message = message.next
        return rows

    def _save_object(self, port: Port) -> State:
        """What a port stands for; None for a task, which says so itself, and for what is no more."""
        if port.kobject is None or not port.active or isinstance(port.kobject, Task):
            return None
        if self.number_of_object is None:
            raise SnapshotError("a port stands for an object, and nobody gives that a number")
        return self.number_of_object(port.kobject)

    def _save_requests(self, table: RequestTable) -> State:
        slots = [
            [slot, request.name, self._port(request.notify), request.send_possible]
            for slot, request in table.slots.items()
        ]
        if isinstance(table, SlottedRequestTable):
            return [slots, list(table.armed), table.size, list(table.free)]
        return [slots, list(table.armed), table.next]

    # Messages

    def _save_message(self, message: Message, was_received: bool = False) -> State:
        """
        Args:
            was_received: its rights are elsewhere.
        """
        flags = 0
        if message.circular:
            flags |= CIRCULAR
        if message.asks:
            flags |= ASKS
        if message.returned:
            flags |= RETURNED
        items = None
        if message.items is not None:
            items = [self._save_item(item, was_received) for item in message.items]
        return [
            message.remote_type,
            NO_PORT if was_received else self._port(message.local),
            message.local_type,
            message.id,
            bytes(message.inline),
            items,
            message.voucher,
            self._tokens(message.tokens),
            flags,
            message.seqno,
        ]

    def _save_item(self, item: Item, was_received: bool) -> State:
        ports = [] if was_received else [self._port(port) for port in item.ports]
        return [list(item.descriptor), item.type, ports, bytes(item.memory)]

    # Waiters and results

    def _save_line(self, line: Line | None) -> State:
        if line is None or line.first is None:
            return None
        return [self._stands(waiter) for waiter in line]

    def _save_senders(self, line: Line | None) -> State:
        if line is None or line.first is None:
            return None
        rows: list[State] = []
        for waiter in line:
            assert waiter.message is not None
            rows.append([self._stands(waiter), self._save_message(waiter.message)])
        return rows

    def _stands(self, waiter: Waiter) -> int:
        number = self.waiters.get(waiter)
        if number is None or waiter.changed:
            raise SnapshotError("a call waits whose task is not known")
        self.standing += 1
        return number

    def _save_waiter(self, waiter: Waiter) -> State:
        return [waiter.option, waiter.rcv_limit, waiter.rcv_name, waiter.timeout_ms]

    def _save_result(self, result: Result) -> State:
        return [
            result.code,
            result.head,
            bytes(result.inline),
            result.tail,
            [bytes(region) for region in result.memory],
            result.rule,
            result.taken,
            None if result.received is None else self._save_message(result.received, True),
            self._port(result.port),
        ]


def _save_quota(quota: Quota | None) -> State:
    if quota is None:
        return None
    return [quota.messages_max, quota.bytes_max, quota.sending_max, quota.waiters_max]


def _counts_row(counts: Counts) -> State:
    """What the kernel has counted, but for what can be counted anew."""
    numbers = [counts.sent, counts.sent_bytes, counts.received, counts.received_bytes]
    return [*numbers, [counts.notified[kind] for kind in KINDS]]
