"""How tasks ended: what the daemon remembers of those that are no more, and for how long.

A port knows the number of the task that held it last (``Port.last_holder``); here is who that was, and what was lost
with it.  The system tells how a process ended when its parent has collected it, which may be a moment later, so its
pidfd is kept for that long.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from machport.kernel.counts import KINDS, Losses, Note
from machport.kernel.task import Task
from machport.peer.death import LET_GO, Obituary, wait_status
from machport.server.snapshot import Restoring, Saving, State

#: Tasks that are remembered after their end, the last ones.
HISTORY: Final = 1024
#: Pidfds of processes that nobody has collected, the last ones.
_UNSOLVED_MAX: Final = 256


#: What a reason begins with, and what such ends are counted as.
_CAUSES: Final = (
    ("closed", "closed"),
    ("was cut off", "cut_off"),
    ("was terminated", "terminated"),
    (LET_GO, "let_go"),
    ("", "child"),
)


class Record:
    """One death: the obituary, and what is known besides.

    Attributes:
        serial: which death it is of all, from 1.
        task: number of the task.
        executable: what its process ran; "" if it had none.
        began: when it began, in seconds since the epoch; 0 if that is not known.
        losses: what was lost with it; None until all of it is.
    """

    __slots__ = ("began", "executable", "losses", "obituary", "serial", "task")

    def __init__(self, serial: int, task: int, obituary: Obituary, executable: str, began: float) -> None:
        self.serial = serial
        self.task = task
        self.obituary = obituary
        self.executable = executable
        self.began = began
        self.losses: Losses | None = None


class Obituaries:
    """The tasks that ended last, by their numbers.

    Args:
        watch: call back when a pidfd hangs up, which is when its process was collected; False if it cannot be watched.
        unwatch: stop that.
        descriptors: how many the daemon may have; few of them are used here.
        clock: seconds since the epoch.

    Attributes:
        last: the serial of the newest death.
        causes: how many ended by what: "signal", "exit", "closed", "cut_off", "terminated", "let_go", "child", and
            "unknown" where the system has not said how a process ended.
    """

    def __init__(
        self,
        watch: Callable[[int, Callable[[int], object]], bool],
        unwatch: Callable[[int], None],
        descriptors: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._watch = watch
        self._unwatch = unwatch
        self.last = 0
        self.causes: Counter[str] = Counter()
        self._records: dict[int, Record] = {}
        self._unsolved: dict[int, int] = {}
        self._unsolved_max = min(_UNSOLVED_MAX, descriptors // 8)

    def record(
        self, task: Task, pid: int, reason: str, pidfd: int = -1, *, executable: str = "", began: float = 0.0
    ) -> None:
        """A task ends, or has ended; what is known of it already stays.

        Args:
            reason: what ended it; "" if that was the end of its process.
            pidfd: the process, which is taken over; -1 for none.
        """
        number = task.number
        if number in self._records:
            _close(pidfd)
            return
        obituary = Obituary(task.label, pid, self._clock(), reason=reason)
        self.last += 1
        self._records[number] = Record(self.last, number, obituary, executable, began)
        if reason or pidfd < 0 or obituary.learn(wait_status(pidfd)):
            self.causes[cause_of(obituary)] += 1
            _close(pidfd)
        else:
            self._wait_for(number, pidfd)
        if len(self._unsolved) > self._unsolved_max:
            self._let_go(next(iter(self._unsolved)))
        if len(self._records) > HISTORY:
            oldest = next(iter(self._records))
            self._let_go(oldest)
            del self._records[oldest]

    def lost(self, number: int, losses: Losses) -> None:
        """All that was lost with a task."""
        record = self._records.get(number)
        if record is not None:
            record.losses = losses

    def _wait_for(self, number: int, pidfd: int) -> None:
        """Ask the system again when the process was collected, if that can be watched."""
        if self._watch(pidfd, lambda _: self._hung_up(number)):
            self._unsolved[number] = pidfd
        else:
            self.causes["unknown"] += 1
            _close(pidfd)

    def of(self, number: int) -> Obituary | None:
        """What is known of a task that ended; None if it is not remembered any more, or the number is 0."""
        record = self._records.get(number)
        if record is None:
            return None
        if number in self._unsolved:
            self._ask(number)
        return record.obituary

    def after(self, serial: int, most: int) -> list[Record]:
        """The deaths behind one, the oldest first, but only the ``most`` newest of them."""
        found: list[Record] = []
        for record in reversed(self._records.values()):
            if record.serial <= serial or len(found) == most:
                break
            self.of(record.task)
            found.append(record)
        return found[::-1]

    def is_settled(self, record: Record) -> bool:
        """Whether all that will ever be known of a death is known."""
        return record.losses is not None and record.task not in self._unsolved

    def _ask(self, number: int) -> None:
        obituary = self._records[number].obituary
        if obituary.learn(wait_status(self._unsolved[number])):
            self._let_go(number)

    def _hung_up(self, number: int) -> None:
        """The process was collected: the system tells now, or never."""
        self._ask(number)
        self._let_go(number)

    def _let_go(self, number: int) -> None:
        pidfd = self._unsolved.pop(number, -1)
        if pidfd >= 0:
            self.causes[cause_of(self._records[number].obituary)] += 1
            self._unwatch(pidfd)
            _close(pidfd)

    def state(self, saving: Saving) -> State:
        """All that is remembered, for ``resume``."""
        return {
            "last": self.last,
            "causes": dict(self.causes),
            "records": [
                [
                    record.serial,
                    record.task,
                    record.executable,
                    record.began,
                    record.obituary.label,
                    record.obituary.pid,
                    record.obituary.when,
                    record.obituary.reason,
                    record.obituary.status,
                    None if record.losses is None else _losses_as_data(record.losses),
                    saving.descriptor(self._unsolved[record.task]) if record.task in self._unsolved else None,
                ]
                for record in self._records.values()
            ],
        }

    def resume(self, state: State, restoring: Restoring) -> None:
        """Remember what a daemon did whose place is taken."""
        self.last = state["last"]
        self.causes = Counter(state["causes"])
        for serial, task, executable, began, label, pid, when, reason, status, losses, pidfd in state["records"]:
            record = Record(serial, task, Obituary(label, pid, when, status=status, reason=reason), executable, began)
            record.losses = None if losses is None else _losses_of_data(losses)
            self._records[task] = record
            if pidfd is not None:
                self._wait_for(task, restoring.descriptor(pidfd))

    def close(self) -> None:
        """Let go of every pidfd."""
        for number in list(self._unsolved):
            self._let_go(number)


def cause_of(obituary: Obituary) -> str:
    """What a death is counted as."""
    if obituary.signal is not None:
        return "signal"
    if obituary.exit_code is not None:
        return "exit"
    if not obituary.reason:
        return "unknown"
    return next(cause for start, cause in _CAUSES if obituary.reason.startswith(start))


def _close(pidfd: int) -> None:
    if pidfd >= 0:
        os.close(pidfd)


#: The numbers of ``Losses``.
LOST: Final = ("ports", "returned", "send_rights", "send_once_rights", "messages", "bytes")


def _losses_as_data(losses: Losses) -> list[Any]:
    notes = [[note.kind, note.port, note.name, note.task, note.label] for note in losses.notes]
    return [[getattr(losses, name) for name in LOST], {KINDS[kind]: n for kind, n in losses.caused.items()}, notes]


def _losses_of_data(data: list[Any]) -> Losses:
    losses = Losses()
    for name, number in zip(LOST, data[0], strict=True):
        setattr(losses, name, number)
    losses.caused = {kind: data[1][name] for kind, name in KINDS.items() if name in data[1]}
    losses.notes = [Note(*note) for note in data[2]]
    return losses
