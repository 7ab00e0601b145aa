"""How tasks ended: what the daemon remembers of those that are no more, and for how long.

A port knows the number of the task that held it last (``Port.last_holder``); here is who that was.  The system tells
how a process ended when its parent has collected it, which may be a moment later, so its pidfd is kept for that long.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final

from machport.kernel.task import Task
from machport.peer.death import Obituary, wait_status
from machport.server.snapshot import Restoring, Saving, State

#: Tasks that are remembered after their end, the last ones.
HISTORY: Final = 1024
#: Pidfds of processes that nobody has collected, the last ones.
_UNSOLVED_MAX: Final = 256


class Obituaries:
    """The tasks that ended last, by their numbers.

    Args:
        watch: call back when a pidfd hangs up, which is when its process was collected; False if it cannot be watched.
        unwatch: stop that.
        descriptors: how many the daemon may have; few of them are used here.
        clock: seconds since the epoch.
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
        self._by_number: dict[int, Obituary] = {}
        self._unsolved: dict[int, int] = {}
        self._unsolved_max = min(_UNSOLVED_MAX, descriptors // 8)

    def record(self, task: Task, pid: int, reason: str, pidfd: int = -1) -> None:
        """A task ends, or has ended; what is known of it already stays.

        Args:
            reason: what ended it; "" if that was the end of its process.
            pidfd: the process, which is taken over; -1 for none.
        """
        number = task.number
        if number in self._by_number:
            _close(pidfd)
            return
        obituary = self._by_number[number] = Obituary(task.label, pid, self._clock(), reason=reason)
        if reason or pidfd < 0 or obituary.learn(wait_status(pidfd)):
            _close(pidfd)
        else:
            self._wait_for(number, pidfd)
        if len(self._unsolved) > self._unsolved_max:
            self._let_go(next(iter(self._unsolved)))
        if len(self._by_number) > HISTORY:
            oldest = next(iter(self._by_number))
            self._let_go(oldest)
            del self._by_number[oldest]

    def _wait_for(self, number: int, pidfd: int) -> None:
        """Ask the system again when the process was collected, if that can be watched."""
        if self._watch(pidfd, lambda _: self._hung_up(number)):
            self._unsolved[number] = pidfd
        else:
            _close(pidfd)

    def of(self, number: int) -> Obituary | None:
        """What is known of a task that ended; None if it is not remembered any more, or the number is 0."""
        obituary = self._by_number.get(number)
        if number in self._unsolved:
            self._ask(number)
        return obituary

    def _ask(self, number: int) -> None:
        if self._by_number[number].learn(wait_status(self._unsolved[number])):
            self._let_go(number)

    def _hung_up(self, number: int) -> None:
        """The process was collected: the system tells now, or never."""
        self._ask(number)
        self._let_go(number)

    def _let_go(self, number: int) -> None:
        pidfd = self._unsolved.pop(number, -1)
        if pidfd >= 0:
            self._unwatch(pidfd)
            _close(pidfd)

    def close(self) -> None:
        """Let go of every pidfd."""
        for number in list(self._unsolved):
            self._let_go(number)

    def state(self, saving: Saving) -> State:
        """All that is remembered, for ``resume``."""
        return [
            [
                number,
                obituary.label,
                obituary.pid,
                obituary.when,
                obituary.reason,
                obituary.status,
                saving.descriptor(self._unsolved[number]) if number in self._unsolved else None,
            ]
            for number, obituary in self._by_number.items()
        ]

    def resume(self, state: State, restoring: Restoring) -> None:
        """Remember what a daemon did whose place is taken."""
        for number, label, pid, when, reason, status, pidfd in state:
            self._by_number[number] = Obituary(label, pid, when, status=status, reason=reason)
            if pidfd is not None:
                self._wait_for(number, restoring.descriptor(pidfd))


def _close(pidfd: int) -> None:
    if pidfd >= 0:
        os.close(pidfd)
