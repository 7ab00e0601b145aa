"""The race of draining against adding: two processes, every way to sleep, and a third one that only watches.

A wake-up is lost if the consumer does nothing although an entry waits for it, or the producer although there is room
for what it wants to add, for longer than any pause of the load.  No time-out here is long enough to hide that.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import select
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from chaos.processes import OVERHEAD, Child, Words, check, checked_entry, state_of
from chaos.report import Report
from machport import DataQueue, PortSet, Task
from machport.abi.errors import PeerDied, QueueEmpty, QueueFull, QueueMisuse
from machport.dataqueue import DataQueueMemory
from machport.ring import layout

#: Seconds, unless told otherwise.
AMOUNT: Final = 120.0
UNIT: Final = "seconds"
#: Seconds without any progress after which a wake-up counts as lost; no pause of the load comes near.
PATIENCE: Final = 5.0
#: Seconds of one round: one pair of processes, one way to look and to pause.
ROUND: Final = 6.0
CAPACITY: Final = 2048
_LARGEST: Final = CAPACITY // 8 - OVERHEAD - layout.ENTRY_HEADER_SIZE
_SPINS: Final = ("0", "0", "3", "80", "1000")
_LOOK_US: Final = "MACHPORT_SPIN_US"
# What the processes of a round tell who watches.
_PRODUCED, _CONSUMED, _WANTED, _SLEEPS, _PORT = range(5)

Tally = memoryview
Way = Callable[[DataQueue, Tally, random.Random], None]


def run(report: Report) -> None:
    """Try every way in turn."""
    seconds, chance = report.amount, random.Random(report.seed)
    totals = dict.fromkeys(CONSUMERS, (0, 0, 0))
    lost = 0
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="chaos-") as directory, _daemon(Path(directory, "daemon.sock")):
        while time.monotonic() < end and len(report.anomalies) < 20:
            for name in CONSUMERS:
                length = min(ROUND, seconds / len(CONSUMERS))
                fault, tally = _round(name, chance.randrange(1 << 32), length)
                rounds, entries, sleeps = totals[name]
                totals[name] = rounds + 1, entries + tally[_CONSUMED], sleeps + tally[_SLEEPS]
                if fault is not None:
                    lost += fault.startswith("lost")
                    report.anomaly(f"{name}: {fault}")
    for name, (rounds, entries, sleeps) in totals.items():
        report.figure(name, f"{rounds} rounds, {entries} entries, {sleeps} waits")
    report.figure("lost wake-ups", lost, "0", not lost)


@contextlib.contextmanager
def _daemon(path: Path) -> Iterator[None]:
    os.environ["MACHPORT_SOCKET"] = str(path)
    command = [sys.executable, "-m", "machport.server", "--ready", "--socket", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield
        finally:
            process.terminate()


def _round(name: str, seed: int, seconds: float) -> tuple[str | None, Tally]:
    """One pair of processes; the fault, if any, and what they did."""
    tally = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("Q")
    with contextlib.ExitStack() as stack:
        queue = stack.enter_context(DataQueue(CAPACITY))
        memory = stack.enter_context(DataQueueMemory.from_fd(os.dup(queue.memory.fileno())))
        words = Words(queue)
        descriptor = queue.detach_consumer()
        consumer = stack.enter_context(Child(lambda: _consume(name, descriptor, tally, seed)))
        os.close(descriptor)
        descriptor = queue.detach_producer()
        producer = stack.enter_context(Child(lambda: _produce(name, descriptor, tally, seed)))
        os.close(descriptor)
        return _watch(memory, words, tally, (producer, consumer), seconds), tally


def _watch(
    memory: DataQueueMemory, words: Words, tally: Tally, sides: tuple[Child, Child], seconds: float
) -> str | None:
    end = time.monotonic() + seconds
    before, since = [0, 0], [time.monotonic()] * 2
    while time.monotonic() < end:
        exited, _, _ = select.select([side.pidfd for side in sides], [], [], 0.1)
        if exited:
            return f"a process ended: {[side.poll() for side in sides]}, {words}"
        now = time.monotonic()
        wanted = tally[_WANTED]
        # In this order: what was produced is consumed later.
        counts = [tally[_PRODUCED], tally[_CONSUMED]]
        has_work = [wanted > 0 and memory.ring.fits(wanted - 1) == layout.ADDED, counts[0] > counts[1]]
        for role in (0, 1):
            if counts[role] != before[role] or not has_work[role]:
                before[role], since[role] = counts[role], now
            elif now - since[role] > PATIENCE:
                return (
                    f"lost a wake-up of the {('producer', 'consumer')[role]}: produced {counts[0]},"
                    f" consumed {counts[1]}, wanted {wanted - 1}; {words};"
                    f" producer {state_of(sides[0].pid)}; consumer {state_of(sides[1].pid)}"
                )
    return None


def _pause(chance: random.Random, most: float) -> None:
    """Load: nothing, a little work, the processor given away, or some time."""
    kind = chance.random()
    if kind < 0.5:
        for _ in range(chance.randrange(60)):
            pass
    elif kind < 0.6:
        os.sched_yield()
    elif kind < 0.6 + most:
        time.sleep(chance.random() ** 4 * 0.005)


def _begin(seed: int) -> random.Random:
    chance = random.Random(seed)
    os.environ[_LOOK_US] = chance.choice(_SPINS)
    return chance


# The consumers


def _take(queue: DataQueue, tally: Tally, chance: random.Random, timeout: float | None) -> int:
    """Take entries in one of the ways that copy, in order."""
    kind = chance.randrange(4)
    if kind == 0:
        entries = [queue.dequeue(timeout)]
    elif kind == 1:
        entries = queue.dequeue_many(chance.randrange(1, 9), timeout)
    elif kind == 2:
        buffer = bytearray(CAPACITY)
        entries = [bytes(buffer[: queue.dequeue_into(buffer, timeout)])]
    else:
        with queue.peek(timeout) as view:
            entries = [bytes(view)]
    for entry in entries:
        _count(entry, tally)
    return len(entries)


def _count(entry: bytes | memoryview, tally: Tally) -> None:
    number = check(entry)
    assert number == tally[_CONSUMED] & 0xFFFFFFFF, f"{number} came in the place of {tally[_CONSUMED]}"
    tally[_CONSUMED] += 1


def _by_futex(queue: DataQueue, tally: Tally, chance: random.Random) -> None:
    """Sleeps in the calls, with a time-out now and then that is often in vain."""
    most = chance.choice((0.0, 0.01, 0.1))
    while True:
        with contextlib.suppress(TimeoutError):
            _take(queue, tally, chance, chance.choice((None, None, None, 0.0001)))
        tally[_SLEEPS] += 1
        _pause(chance, most)


def _drain(queue: DataQueue, tally: Tally, chance: random.Random) -> None:
    with contextlib.suppress(QueueEmpty):
        while True:
            _take(queue, tally, chance, 0)


def _by_descriptor(queue: DataQueue, tally: Tally, chance: random.Random) -> None:
    """Sleeps in an event loop, and in the calls now and then."""
    poll = select.poll()
    poll.register(queue.fileno(), select.POLLIN)
    most = chance.choice((0.0, 0.01, 0.1))
    while True:
        poll.poll()
        tally[_SLEEPS] += 1
        kind = chance.randrange(8)
        if kind == 0:
            _take(queue, tally, chance, None)
        elif kind == 1:
            with contextlib.suppress(TimeoutError):
                _take(queue, tally, chance, 0.0001)
        elif kind == 2:
            assert queue.peer is not None
        elif kind == 3:
            with contextlib.suppress(QueueEmpty):
                _take(queue, tally, chance, 0)
        else:
            _drain(queue, tally, chance)
        _pause(chance, most)


def _by_port(queue: DataQueue, tally: Tally, chance: random.Random) -> None:
    """Sleeps at a full notification port in a set, as Q34 has it: drain, receive, and so on."""
    receive = _port(tally)
    most = chance.choice((0.0, 0.01, 0.1))
    while True:
        _drain(queue, tally, chance)
        receive()
        _pause(chance, most)


def _port(tally: Tally) -> Callable[[], None]:
    task = Task(label="consumer")
    port = task.check_in(f"chaos.queue_drain.{os.getppid()}.{os.getpid()}")
    port.set_qlimit(1)
    ports: PortSet = task.port_set(port)
    tally[_PORT] = os.getpid()

    def receive() -> None:
        ports.receive()
        tally[_SLEEPS] += 1

    return receive


class _Kept:
    """Views that are kept across waits."""

    def __init__(self, chance: random.Random) -> None:
        self.views: deque[tuple[int, memoryview]] = deque()
        self._taken = 0
        self._chance = chance

    def add(self, view: memoryview) -> None:
        self.views.append((self._taken, view))
        self._taken += view.nbytes + layout.ENTRY_HEADER_SIZE
        if self._chance.randrange(3) == 0:
            del self.views[self._chance.randrange(len(self.views))]

    def make_room(self) -> None:
        """Keep so little, and only what came last, that any entry still fits: otherwise both would wait for ever."""
        while self.views and self.views[0][0] < self._taken - CAPACITY // 4:
            self.views.popleft()


def _with_views(queue: DataQueue, tally: Tally, chance: random.Random) -> None:
    """Keeps views across waits in the calls, sometimes so many that the producer can do nothing: the queue says so."""
    kept = _Kept(chance)
    careful = chance.random() < 0.5
    most = chance.choice((0.0, 0.01, 0.1))
    while True:
        if careful:
            kept.make_room()
        try:
            if chance.randrange(4):
                view = queue.take_view(chance.choice((None, None, 0.0001)) if careful else None)
                _count(view, tally)
                kept.add(view)
                del view
            elif not kept.views:
                _take(queue, tally, chance, None)
        except QueueMisuse:
            kept.views.clear()
        except TimeoutError:
            pass
        tally[_SLEEPS] += 1
        _pause(chance, most)


def _views_until_empty(queue: DataQueue, tally: Tally, kept: _Kept) -> None:
    with contextlib.suppress(QueueEmpty):
        while True:
            view = queue.take_view(timeout=0)
            _count(view, tally)
            kept.add(view)
            del view
            kept.make_room()


def _with_views_at_descriptor(queue: DataQueue, tally: Tally, chance: random.Random) -> None:
    poll = select.poll()
    poll.register(queue.fileno(), select.POLLIN)
    kept = _Kept(chance)
    while True:
        _views_until_empty(queue, tally, kept)
        poll.poll()
        tally[_SLEEPS] += 1
        _pause(chance, 0.01)


def _with_views_at_port(queue: DataQueue, tally: Tally, chance: random.Random) -> None:
    receive = _port(tally)
    kept = _Kept(chance)
    while True:
        _views_until_empty(queue, tally, kept)
        receive()
        _pause(chance, 0.01)


CONSUMERS: dict[str, Way] = {
    "futex": _by_futex,
    "socket": _by_descriptor,
    "port": _by_port,
    "views": _with_views,
    "views and socket": _with_views_at_descriptor,
    "views and port": _with_views_at_port,
}


def _consume(name: str, descriptor: int, tally: Tally, seed: int) -> None:
    chance = _begin(seed)
    with contextlib.suppress(PeerDied):  # at the end of the round
        CONSUMERS[name](DataQueue.from_fd(descriptor), tally, chance)


# The producer


def _produce(name: str, descriptor: int, tally: Tally, seed: int) -> None:
    chance = _begin(seed + 1)
    queue = DataQueue.from_fd(descriptor)
    if name.endswith("port"):
        while not tally[_PORT]:
            os.sched_yield()
        task = Task(label="producer")
        queue.set_notification_port(task.look_up(f"chaos.queue_drain.{os.getppid()}.{tally[_PORT]}"))
    add = chance.choice((_add, _add, _add_by_descriptor))
    most = chance.choice((0.0, 0.01, 0.1))
    while True:
        number = tally[_PRODUCED]
        count = chance.choice((1, 1, 1, 2, 5))
        entries = [checked_entry(number + index, chance.randrange(_LARGEST)) for index in range(count)]
        tally[_WANTED] = max(map(len, entries)) + 1
        add(queue, entries, chance)
        tally[_WANTED] = 0
        tally[_PRODUCED] += count
        _pause(chance, most)


def _add(queue: DataQueue, entries: list[bytes], chance: random.Random) -> None:
    """Sleep in the calls, with a time-out now and then that is often in vain."""
    kind = chance.randrange(4)
    if kind == 0:
        while entries:
            del entries[: queue.enqueue_many(entries, timeout=chance.choice((None, None, 0.0001)))]
    elif kind == 1:
        for entry in entries:
            while not queue.wait_for_room(len(entry), timeout=chance.choice((None, 0.0001))):
                pass
            queue.enqueue(entry, timeout=0)
    elif kind == 2:
        for entry in entries:
            with queue.reserve(len(entry)) as room:
                room[:] = entry
    else:
        for entry in entries:
            queue.enqueue(entry)


def _add_by_descriptor(queue: DataQueue, entries: list[bytes], chance: random.Random) -> None:
    """Sleep in an event loop, and in the calls now and then."""
    poll = select.poll()
    for entry in entries:
        while True:
            try:
                queue.enqueue(entry, timeout=chance.choice((0, 0, 0, 0.0001)))
                break
            except (QueueFull, TimeoutError):
                pass
            if chance.randrange(8) == 0:
                assert queue.peer is not None
            poll.register(queue.room_fileno(len(entry)), select.POLLIN)
            poll.poll()
