"""Tasks are born and die, and data queues are given to new processes, thousands of times: nothing grows.

After a warm-up the daemon's descriptors, ports and tasks are what they were, its memory and its mappings grow by less
than what can be told from noise, and so do those of the process that survives all the others.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable
from typing import Final

from chaos.deaths import settled
from chaos.processes import Child
from chaos.report import Report
from chaos.watched_daemon import Figures, Watched
from machport import DataQueue, DeadNameNotification, DeadPort, QueueEnded, ReceiveRight, SendRight, Task
from machport.server.obituaries import HISTORY

AMOUNT: Final = 10000
UNIT: Final = "births and deaths, and a tenth of that restarts of data queues"
#: Seconds after which what is waited for will not come.
PATIENCE: Final = 30.0
#: Samples of a run; the first third of them is the warm-up.
_SAMPLES: Final = 30
#: Bytes by which the memory of a process may be larger after 1,000 births, or restarts, than before.
_GROWTH: Final = 64 * 1024
#: Mappings by which it may be: an allocator splits and joins its own.
_MAPS: Final = 12


def run(report: Report) -> None:
    """Births and deaths, then restarts."""
    with Watched() as daemon:
        births = Births(random.Random(report.seed))
        _observe(report, "births and deaths", int(report.amount), daemon, births.one)
        births.close()
        restarts = Restarts()
        is_warm = report.amount >= 3 * HISTORY
        _observe(
            report, "restarts of data queues", max(1, int(report.amount) // 10), daemon, restarts.one, is_warm=is_warm
        )
        restarts.close()
        last = settled(daemon)
        if last.broken or daemon.log():
            report.anomaly(f"the daemon says: {last.broken} {daemon.log()[:2000]}")


def _observe(
    report: Report, what: str, amount: int, daemon: Watched, work: Callable[[int], None], *, is_warm: bool = False
) -> None:
    each = max(1, amount // _SAMPLES)
    series: list[tuple[Figures, int, int, int]] = []
    for number in range(amount):
        work(number)
        if number % each == each - 1:
            series.append((_quiet(daemon, series[-1][0] if series else None), *_of_this_process()))
    after = series[len(series) // 3 :]
    thousands = each * (len(after) - 1) / 1000 or 1.0
    first, last = after[0], after[-1]
    report.figure(what, amount)
    for name in ("tasks", "ports", "descriptors"):
        values = {getattr(sample[0], name) for sample in after}
        report.figure(f"{what}: {name} of the daemon", _span(values), "the same", len(values) == 1)
    values = {sample[1] for sample in after}
    report.figure(f"{what}: descriptors of the survivor", _span(values), "the same", len(values) == 1)
    maps = last[0].maps - first[0].maps, last[2] - first[2]
    report.figure(
        f"{what}: more mappings, of daemon and survivor", f"{maps[0]}, {maps[1]}", f"<= {_MAPS}", max(maps) <= _MAPS
    )
    for whose, memory in (("the daemon", [s[0].rss for s in after]), ("the survivor", [s[3] for s in after])):
        growth = _slope(memory) * (len(memory) - 1)
        allowed = _GROWTH * max(thousands, 4.0)
        # Before the daemon's history is full, it grows as it should: a short run tells nothing of memory.
        is_judged = is_warm or amount >= 3 * HISTORY
        report.figure(
            f"{what}: growth of {whose} in {thousands:g} thousand",
            f"{growth / 1024:.0f} KiB of {memory[-1] >> 10}",
            f"< {allowed / 1024:.0f} KiB" if is_judged else "",
            growth < allowed or not is_judged,
        )
    every = max(1, len(series) // 10)
    shown = ", ".join(f"{sample[0].rss >> 10}/{sample[3] >> 10}" for sample in series[::every])
    report.notes.append(f"{what}: KiB of daemon/survivor, from the beginning: {shown}")


def _quiet(daemon: Watched, before: Figures | None) -> Figures:
    """The daemon's figures when it has closed what it closes by the way."""
    deadline = time.monotonic() + 2
    while True:
        now = daemon.look()
        if before is None or not now.differs(before) or time.monotonic() > deadline:
            return now


def _of_this_process() -> tuple[int, int, int]:
    """Its descriptors, its mappings, and the bytes of memory that it has."""
    with open("/proc/self/statm") as file:
        resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    with open("/proc/self/maps") as file:
        maps = len(file.readlines())
    return len(os.listdir("/proc/self/fd")), maps, resident


def _slope(values: list[int]) -> float:
    """What each sample adds, by least squares."""
    count = len(values)
    middle, mean = (count - 1) / 2, sum(values) / count
    spread = sum((number - middle) ** 2 for number in range(count)) or 1.0
    return sum((number - middle) * (value - mean) for number, value in enumerate(values)) / spread


def _span(values: set[int]) -> str:
    return str(min(values)) if len(values) == 1 else f"{min(values)} to {max(values)}"


class Births:
    """Children that join, are called, hold rights of all kinds, and end in one of the ways that there are."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._task = Task(label="survivor")
        self._port = self._task.check_in("births")
        self._deaths = self._task.allocate()

    def one(self, number: int) -> None:
        """One birth, and its death."""
        ways = (_close, _exit, _wait_to_be_killed, _wait_to_be_killed)
        if number % 50 == 49:
            port = self._task.allocate()
            back = self._task.allocate()
            port.request_port_destroyed(back)
            with self._task.spawn(["true"], rights={"port": port.move()}) as child, back:
                child.join(PATIENCE)
                back.receive(PATIENCE).close()
            return
        work = ways[number % len(ways)]
        with Child(lambda: _live(work)) as child, self._port.receive(PATIENCE) as hello:
            inbox = hello.rights[0]
            assert isinstance(inbox, SendRight)
            inbox.request_dead_name(self._deaths)
            with self._task.allocate() as extra:
                hello.reply(rights=[extra.make_send().move(), self._task.allocate().move()])
            with contextlib.suppress(DeadPort):
                inbox.send(b"unread", memory=[bytes(10_000)])
            if work is _wait_to_be_killed:
                os.kill(child.pid, signal.SIGKILL)
            notice = self._deaths.receive(PATIENCE)
            assert isinstance(notice, DeadNameNotification)
            notice.close()
            child.wait()

    def close(self) -> None:
        self._task.close()


def _live(end: Callable[[Task], None]) -> None:
    task = Task(label="child")
    inbox, other = task.allocate_many(2)
    with task.look_up("births") as births:
        rights = births.call(rights=[inbox.make_send().move()]).rights
    right, port = rights
    assert isinstance(right, SendRight) and isinstance(port, ReceiveRight)
    with contextlib.suppress(Exception):
        right.request_dead_name(other)
    port.make_send().send(b"to itself", rights=[other.move()])
    end(task)


def _close(task: Task) -> None:
    task.close()


def _exit(task: Task) -> None:
    """Ends without a word."""


def _wait_to_be_killed(task: Task) -> None:
    signal.pause()


class Restarts:
    """A data queue with a stream of entries, whose producer or consumer is killed and replaced."""

    def __init__(self) -> None:
        self._task = Task(label="survivor")
        self._port = self._task.check_in("restarts")

    def one(self, number: int) -> None:
        """A new queue, half of whose ends go by a message; a stream; a death; the end is seen."""
        with DataQueue(4000) as queue:
            work = _produce if number % 2 else _consume
            with Child(lambda: _hold(work)) as child:
                with self._port.receive(PATIENCE) as hello:
                    hello.reply(rights=[queue.move_producer() if number % 2 else queue.move_consumer()])
                with contextlib.suppress(QueueEnded):
                    for count in range(1 << 30):
                        if count == 50:
                            os.kill(child.pid, signal.SIGKILL)
                        if number % 2:
                            queue.dequeue(PATIENCE)
                        else:
                            queue.enqueue(bytes(300), timeout=PATIENCE)
                child.wait()

    def close(self) -> None:
        self._task.close()


def _hold(work: Callable[[DataQueue], None]) -> None:
    task = Task(label="holder")
    with task.look_up("restarts") as restarts, restarts.call() as answer:
        queue = answer.rights[0].open_data_queue()  # type: ignore[union-attr]
    work(queue)


def _produce(queue: DataQueue) -> None:
    while True:
        queue.enqueue(bytes(300))


def _consume(queue: DataQueue) -> None:
    while True:
        queue.dequeue()
