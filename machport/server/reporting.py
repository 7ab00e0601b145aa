"""What the daemon tells the user's own tasks of itself: deaths, tasks and what they hold, numbers.

One answer looks at a bounded number of names, messages and deaths, so that nobody waits for a report: who wants more
asks again from where it ended.  So what is told of a large task is not of one moment.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Final

from machport.abi import constants as c
from machport.abi import traps as t
from machport.abi.codes import code_name
from machport.kernel.counts import KINDS, Losses, memory_size
from machport.kernel.kernel import Kernel
from machport.kernel.port import Port
from machport.kernel.refusal import Refusal
from machport.kernel.space import Entry
from machport.kernel.task import Task
from machport.server import log
from machport.server.connection import Channel, Client
from machport.server.dispatch import Answer
from machport.server.obituaries import LOST, Obituaries, Record, cause_of
from machport.server.snapshot import Restoring, Saving, State
from machport.server.traps import Traps

if TYPE_CHECKING:
    from machport.abi import reports as r

#: Deaths, and tasks, in one answer.
_MOST: Final = 256
#: Names that one answer looks at.
_NAMES: Final = 2048
#: Messages that one answer looks at.
_MESSAGES: Final = 4096
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class Reports:
    """Reports of one daemon.

    Args:
        clients: the tasks that have processes.
        trace: numbers of the trace that is written, if one is.
    """

    def __init__(
        self,
        kernel: Kernel,
        traps: Traps,
        obituaries: Obituaries,
        clients: Mapping[Task, Client],
        trace: Callable[[], dict[str, int]],
    ) -> None:
        self._kernel = kernel
        self._traps = traps
        self._obituaries = obituaries
        self._clients = clients
        self._trace = trace
        self._began = time.time()
        #: Who waits for a death, and for those behind which one.
        self._waiting: dict[Channel, int] = {}
        #: Turns of the daemon's loop, and how many of them slept.
        self.turns = 0
        self.sleeps = 0

    def state(self, saving: Saving) -> State:
        """What has been counted, for ``resume``."""
        return {
            "calls": list(map(list, self._traps.calls_by_number().items())),
            "refusals": list(map(list, self._traps.refusals.items())),
            "cut_offs": self._traps.cut_offs,
            "turns": self.turns,
            "sleeps": self.sleeps,
            "began": self._began,
            "waiting": [
                [saving.channel(channel), after]
                for channel, after in self._waiting.items()
                if channel.client is not None
            ],
        }

    def resume(self, state: State, restoring: Restoring) -> None:
        """Go on counting from there."""
        self._traps.count_from(dict(state["calls"]))
        self._traps.refusals = dict(state["refusals"])
        self._traps.cut_offs = state["cut_offs"]
        self.turns, self.sleeps, self._began = state["turns"], state["sleeps"], state["began"]
        self._waiting = {restoring.channels[number]: after for number, after in state["waiting"]}

    def answer(self, channel: Channel, payload: bytes | memoryview) -> Answer | None:
        """The answer to REPORT; None if it comes when somebody has died.

        Raises:
            Refusal: KERN_INVALID_ARGUMENT, there is no such report; KERN_INVALID_TASK, no task has the number.
        """
        # msgspec takes longer to load than a daemon takes to start.
        from machport.abi.reports import pack_report

        (kind, number, after, most), _ = t.REPORT.unpack(payload)
        report: r.Deaths | r.Metrics | r.Tasks | r.Rights | r.Holdings
        if kind == t.REPORT_NEXT_DEATHS and after >= self._obituaries.last and channel not in self._waiting:
            self._waiting[channel] = after
            return None
        if kind in (t.REPORT_DEATHS, t.REPORT_NEXT_DEATHS):
            report = self.deaths(after, most)
        elif kind == t.REPORT_METRICS:
            report = self.metrics()
        elif kind == t.REPORT_TASKS:
            report = self.tasks(after)
        elif kind == t.REPORT_RIGHTS:
            report = self.rights(self._task(number), after)
        elif kind == t.REPORT_HOLDINGS:
            report = self.holdings(self._task(number), after)
        else:
            raise Refusal(c.KERN_INVALID_ARGUMENT, "report", f"there is no report {kind}")
        return Answer(bytes(4), pack_report(report))

    def _task(self, number: int) -> Task:
        for task in self._kernel.tasks:
            if task.number == number:
                return task
        raise Refusal(c.KERN_INVALID_TASK, "report", f"no task has the number {number}")

    # Deaths

    def tell(self, answer: Callable[[Channel, Answer], None]) -> None:
        """Answer those who wait for a death that there is now."""
        from machport.abi.reports import pack_report

        for channel, after in list(self._waiting.items()):
            if channel.client is None:
                del self._waiting[channel]
            elif after < self._obituaries.last:
                del self._waiting[channel]
                answer(channel, Answer(bytes(4), pack_report(self.deaths(after, 0))))

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for a death."""
        return bool(self._waiting)

    def deaths(self, after: int, most: int) -> r.Deaths:
        from machport.abi import reports as r

        records = self._obituaries.after(after, min(most or _MOST, _MOST))
        return r.Deaths(self._obituaries.last, [self._death(record) for record in records])

    def _death(self, record: Record) -> r.Death:
        from machport.abi import reports as r

        obituary, losses = record.obituary, record.losses or Losses()
        return r.Death(
            record.serial,
            record.task,
            obituary.label,
            obituary.pid,
            record.executable,
            record.began,
            obituary.when,
            obituary.how,
            cause_of(obituary),
            obituary.signal,
            obituary.exit_code,
            self._obituaries.is_settled(record),
            {name: getattr(losses, name) for name in LOST},
            {KINDS[kind]: count for kind, count in losses.caused.items()},
            [r.Told(KINDS[note.kind], note.port, note.name, note.task, note.label) for note in losses.notes],
        )

    # Tasks

    def tasks(self, after: int) -> r.Tasks:
        from machport.abi import reports as r

        found = list(islice((task for task in self._kernel.tasks if task.number > after), _MOST + 1))
        return r.Tasks([self._one(task) for task in found[:_MOST]], len(found) > _MOST)

    def _one(self, task: Task) -> r.Task:
        from machport.abi import reports as r

        client = self._clients.get(task)
        return r.Task(
            task.number,
            task.label,
            0 if client is None else client.peer.pid,
            task.tokens[0],
            "" if client is None else client.executable,
            len(task.space.entries),
            len(task.waiters),
            0 if client is None else len(client.channels) - 1,
            client is None or client.was_made,
            0.0 if client is None else client.began,
        )

    def rights(self, task: Task, at: int) -> r.Rights:
        from machport.abi import reports as r

        entries, following = self._entries(task, at)
        left = _MESSAGES
        rights = []
        for entry in entries:
            port = entry.port
            messages = size = 0
            exact = True
            label, holder = "", None
            if port is not None:
                label = port.label or _object_name(port)
                holder = None if port.receiver is None else port.receiver.task
                if entry.type & c.MACH_PORT_TYPE_RECEIVE:
                    messages = port.msgcount
                    seen, size = _queue(port, left)
                    left -= seen
                    exact = seen == messages
            rights.append(
                r.Right(
                    entry.name,
                    entry.type,
                    entry.urefs,
                    label,
                    "" if holder is None else holder.label,
                    0 if holder is None else holder.number,
                    messages,
                    size,
                    exact,
                )
            )
        return r.Rights(following, rights)

    def holdings(self, task: Task, at: int) -> r.Holdings:
        from machport.abi import reports as r

        entries, following = self._entries(task, at)
        left = _MESSAGES
        ports = messages = size = 0
        exact = True
        for entry in entries:
            if not entry.type & c.MACH_PORT_TYPE_RECEIVE:
                continue
            ports += 1
            port = entry.port
            assert port is not None
            if port.msgcount:
                messages += port.msgcount
                seen, length = _queue(port, left)
                left -= seen
                size += length
                exact &= seen == port.msgcount
        return r.Holdings(following, ports, messages, size, exact)

    def _entries(self, task: Task, at: int) -> tuple[list[Entry], int]:
        """Some of a task's names, and where the others begin."""
        names = list(islice(task.space.entries, at, at + _NAMES))
        # Looked at as everybody does: what has died is a dead name then.
        entries = [entry for name in names if (entry := task.space.lookup(name)) is not None]
        return entries, at + len(names) if at + len(names) < len(task.space.entries) else 0

    # Numbers

    def metrics(self) -> r.Metrics:
        from machport.abi import reports as r

        kernel, counts = self._kernel, self._kernel.counts
        return r.Metrics(
            {_call_name(number): count for number, count in self._traps.calls_by_number().items()},
            {code_name(code): count for code, count in self._traps.refusals.items()},
            {
                "sent": counts.sent,
                "sent_bytes": counts.sent_bytes,
                "received": counts.received,
                "received_bytes": counts.received_bytes,
                "tasks_made": kernel.tasks_made,
            },
            {KINDS[kind]: count for kind, count in counts.notified.items()},
            dict(self._obituaries.causes),
            {
                "tasks": len(kernel.tasks),
                "connections": len(self._clients),
                "threads": sum(len(client.channels) - 1 for client in self._clients.values()),
                "ports": counts.ports,
                "names": sum(len(task.space.entries) for task in kernel.tasks),
                "queued": counts.queued,
                "blocked": sum(len(task.waiters) for task in kernel.tasks),
                "descriptors": _descriptors(),
                "resident_bytes": _resident(),
            },
            {"turns": self.turns, "sleeps": self.sleeps, "cut_offs": self._traps.cut_offs},
            {"written": log.lines.written, "dropped": log.lines.dropped},
            self._trace(),
            self._began,
        )


def _queue(port: Port, most: int) -> tuple[int, int]:
    """How many messages of a queue were looked at, and their bytes."""
    seen = size = 0
    message = port.first
    while message is not None and seen < most:
        size += message.size() + memory_size(message)
        seen += 1
        message = message.next
    return seen, size


def _object_name(port: Port) -> str:
    """What a port of the kernel stands for."""
    if port.kobject is None:
        return ""
    return f"task {port.kobject.label}" if isinstance(port.kobject, Task) else "file"


def _call_name(number: int) -> str:
    return "mach_msg" if number == t.MACH_MSG else t.TRAPS[number].call if number in t.TRAPS else "unknown"


def _descriptors() -> int:
    # Since Linux 6.2 the folder tells how many it has.
    with contextlib.suppress(OSError):
        return os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd"))
    return 0


def _resident() -> int:
    with contextlib.suppress(OSError), open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * _PAGE
    return 0
