"""Calls on the daemon itself that are about tasks and what is known of them: children, limits, deaths, reports.

Each reads its trap and asks the part of the server that it is about.  What makes channels is the daemon's.
"""

from __future__ import annotations

from collections.abc import Mapping

from machport.abi import traps as t
from machport.kernel import tasks
from machport.kernel.kernel import Kernel
from machport.kernel.task import Task
from machport.server.access import check_oversight
from machport.server.children import Children
from machport.server.connection import Channel, Client, client_of
from machport.server.deaths import Deaths
from machport.server.describing import describe
from machport.server.dispatch import Answer, dispatch
from machport.server.limits import Limiter
from machport.server.obituaries import Obituaries
from machport.server.reporting import Reports
from machport.server.task_ports import TaskPorts
from machport.server.traces import Traces
from machport.server.traps import OwnCall


class OwnCalls:
    """Answers them.

    Args:
        clients: the tasks that have processes.
    """

    def __init__(
        self,
        kernel: Kernel,
        clients: Mapping[Task, Client],
        *,
        children: Children,
        limiter: Limiter,
        deaths: Deaths,
        obituaries: Obituaries,
        reports: Reports,
        traces: Traces,
        task_ports: TaskPorts,
    ) -> None:
        self._kernel = kernel
        self._clients = clients
        self._children = children
        self._limiter = limiter
        self._deaths = deaths
        self._obituaries = obituaries
        self._reports = reports
        self._traces = traces
        self._task_ports = task_ports
        children.counts = self._count_descriptors

    def by_number(self) -> dict[int, OwnCall]:
        """Each by the number of its trap."""
        by_rights: dict[int, OwnCall] = {
            t.TICKET.number: self._ticket,
            t.WATCH.number: self._watch_child,
            t.TASK_CREATE.number: self._task_create,
            t.DESCRIBE.number: self._describe,
            t.DEPOSIT.number: self._deposit,
            t.CLAIM.number: self._claim,
            t.WATCH_DEPOSIT.number: self._watch_deposit,
            t.TASK_FOR_PID.number: self._task_ports.task_for_pid,
            t.ALLOW_TASK_FOR_PID.number: self._task_ports.allow,
            t.FILEPORT_MAKEPORT.number: self._make_fileport,
            t.TASK_SET_LIMITS.number: self._set_limits,
            t.TASK_GET_LIMITS.number: self._get_limits,
        }
        return {number: _of_the_living(call) for number, call in by_rights.items()} | {
            t.LIFELINE.number: self._lifeline,
            t.REPORT.number: self._report,
            t.TRACE.number: self._trace,
        }

    def _ticket(self, channel: Channel, payload: bytes | memoryview, descriptors: list[int]) -> Answer:
        return self._children.ticket(client_of(channel).task, t.TICKET.unpack(payload)[0][0])

    def _watch_child(self, channel: Channel, payload: bytes | memoryview, descriptors: list[int]) -> Answer:
        return self._children.watch(client_of(channel).task, t.WATCH.unpack(payload)[0][0], descriptors)

    def _task_create(self, channel: Channel, payload: bytes | memoryview, descriptors: list[int]) -> Answer:
        maker = self._check_children(channel)
        return self._children.create(maker, t.TASK_CREATE.unpack(payload)[0][0])

    def _check_children(self, channel: Channel) -> Task:
        maker = client_of(channel).task
        if (account := self._limiter.of(maker)) is not None:
            account.children = self._children.count_of(maker)
            self._limiter.check(maker, "children")
        return maker

    def _make_fileport(self, channel: Channel, payload: bytes | memoryview, descriptors: list[int]) -> Answer:
        task = client_of(channel).task
        account = self._limiter.check(task, "descriptors")
        answer = dispatch(self._kernel, task, payload, descriptors)
        account.descriptors += answer.keeps_descriptors
        return answer

    def _count_descriptors(self, task: Task, more: int) -> None:
        if more > 0:
            self._limiter.check(task, "descriptors", more)
        if (account := self._limiter.of(task)) is not None:
            account.descriptors += more

    def _set_limits(self, channel: Channel, payload: bytes | memoryview, descriptors: list[int]) -> Answer:
        (name,), words = t.TASK_SET_LIMITS.unpack(payload)
        maker = client_of(channel).task
        return self._limiter.set_limits(self._children.waiting_child(maker, name), maker, words)

    def _get_limits(self, channel: Channel, payload: bytes | memoryview, descriptors: list[int]) -> Answer:
        (name,), _ = t.TASK_GET_LIMITS.unpack(payload)
        caller = client_of(channel).task
        task = tasks.resolve_task(caller, name)
        tasks.check_alive(task)
        if task is not caller:
            task = self._children.waiting_child(caller, name)
        if (account := self._limiter.of(task)) is not None:
            account.children = self._children.count_of(task)
        return self._limiter.get_limits(task)

    def _deposit(self, channel: Channel, payload: bytes | memoryview, descriptors: list[int]) -> Answer:
        (name, disposition), _ = t.DEPOSIT.unpack(payload)
        return self._children.deposit(self._check_children(channel), name, disposition)

    def _claim(self, channel: Channel, payload: bytes | memoryview, descriptors: list[int]) -> Answer:
        return self._children.claim_right(client_of(channel).task, _ticket_in(t.CLAIM, payload))

    def _watch_deposit(self, channel: Channel, payload: bytes | memoryview, descriptors: list[int]) -> Answer:
        ticket = _ticket_in(t.WATCH_DEPOSIT, payload)
        return self._children.watch_deposit(client_of(channel).task, ticket, descriptors)

    def _lifeline(self, channel: Channel, payload: bytes | memoryview, descriptors: list[int]) -> Answer:
        return self._deaths.watch(client_of(channel), t.LIFELINE.unpack(payload)[0][0], descriptors)

    def _describe(self, channel: Channel, payload: bytes | memoryview, descriptors: list[int]) -> Answer:
        name = t.DESCRIBE.unpack(payload)[0][0]
        return describe(self._kernel, self._obituaries, client_of(channel).task, name, self.pid_of)

    def _report(self, channel: Channel, payload: bytes | memoryview, descriptors: list[int]) -> Answer | None:
        check_oversight(client_of(channel), "report")
        client_of(channel).looks_on = True
        return self._reports.answer(channel, payload)

    def _trace(self, channel: Channel, payload: bytes | memoryview, descriptors: list[int]) -> Answer:
        check_oversight(client_of(channel), "trace")
        client_of(channel).looks_on = True
        return self._traces.start(client_of(channel), payload, descriptors)

    def pid_of(self, task: Task) -> int:
        """The process of a task; 0 if it has none."""
        client = self._clients.get(task)
        return 0 if client is None else client.peer.pid


def _of_the_living(call: OwnCall) -> OwnCall:
    """The call, which tasks that have ended are refused: their names go piecemeal, and meanwhile stand for nothing."""

    def checked(channel: Channel, payload: bytes | memoryview, descriptors: list[int]) -> Answer | None:
        tasks.check_alive(client_of(channel).task)
        return call(channel, payload, descriptors)

    return checked


def _ticket_in(trap: t.Trap, payload: bytes | memoryview) -> bytes:
    words = trap.unpack(payload)[1]
    return b"".join(word.to_bytes(4, "little") for word in words)
