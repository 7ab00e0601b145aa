"""Data queues: how fast they are, and what they cost when nothing happens and when much does."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter_ns as now

from bench.figures import roundtrip
from bench.figures.oneway import Streams, sample
from bench.figures.roundtrip import label
from bench.harness import (
    FREE,
    SPLIT,
    Failed,
    Link,
    Placement,
    Session,
    context_switches,
    descriptors,
    processor_seconds,
    resident_kib,
)
from bench.peers import RoundTrip, fifo, iceoryx, machport_queue, standard, zeromq
from bench.peers.machport_queue import Ends, prepared
from bench.results import Figure, Metric, Plan, Sample, Target, Trial
from machport.abi.errors import PeerDied, QueueEnded
from machport.dataqueue import DataQueue

_SOURCE = Path(__file__).parents[1] / "native" / "ring.c"
C_RING = "C, memcpy in and out (limit)"

ONE = machport_queue.QueueOneWay.name
MANY = machport_queue.QueueManyOneWay.name
PEEK = machport_queue.QueuePeekOneWay.name
AWAKE = machport_queue.QueueRoundTrip.name
ASLEEP = machport_queue.SleepingQueueRoundTrip.name


# Throughput


class _Queues(Streams):
    """Queues beside the C program, which is the base."""

    base = C_RING

    def trials(self, plan: Plan) -> Iterator[Trial]:
        for place in (SPLIT,) if plan.quick else (SPLIT, FREE):
            for size in self.sizes:
                yield Trial(C_RING, f"{place.name}, {label(size)}", partial(_measure_c, place, size, plan))
        yield from super().trials(plan)


def _at_least(text: str, contender: str, size: int, least: float, of: str = "") -> Target:
    metric = "rate" if size <= 4096 else "gigabytes"
    return Target(f"{label(size)}, {text}", contender, "split", label(size), metric, of=of, least=least)


class DataQueues(_Queues):
    name = "dataqueue"
    title = "Data queues"
    about = (
        "Entries through memory that two processes share, no daemon between. One call an entry; many in one call; and "
        "the entry looked at in place, by peek or by a loop over the queue. Every call waits by itself. The C program "
        "is the limit: slots of one size, a memcpy in and one out, nothing checked and nobody ever sleeps."
    )
    sizes = (64, 1024, 65536)
    targets = (
        _at_least("one call an entry, split: at least 3 M entries/s", ONE, 64, 3e6),
        _at_least("one call an entry, split: at least 10 × faster-fifo", ONE, 64, 10, fifo.FifoOneWay.name),
        _at_least("one call an entry, split: at least 10 × iceoryx2", ONE, 64, 10, iceoryx.PollingOneWay.name),
        _at_least("many in one call, split: at least 12 M entries/s", MANY, 64, 12e6),
        _at_least("one call an entry, split: at least 2 M entries/s", ONE, 1024, 2e6),
        _at_least("peek, split: at least 0.8 of the C program", PEEK, 65536, 0.8, C_RING),
        _at_least("peek, split: at least 3 × iceoryx2", PEEK, 65536, 3, iceoryx.PollingOneWay.name),
    )
    peers = (
        machport_queue.QueueOneWay,
        machport_queue.QueueManyOneWay,
        machport_queue.QueuePeekOneWay,
        machport_queue.QueueLoopOneWay,
        fifo.FifoOneWay,
        fifo.FifoManyOneWay,
        iceoryx.PollingOneWay,
        iceoryx.BlockingOneWay,
        zeromq.PushOneWay,
        standard.SeqpacketOneWay,
    )


class LargeEntries(_Queues):
    name = "dataqueue-large"
    title = "Data queues with entries of 1 MiB"
    about = (
        "The same with entries so large that the memory decides: whose turn finds the caches and the neighbours in "
        "which state matters more than whose turn it is. Hence at least nine rounds."
    )
    sizes = (1 << 20,)
    least_rounds = 9
    targets = (_at_least("peek, split: at least iceoryx2", PEEK, 1 << 20, 1.0, iceoryx.PollingOneWay.name),)
    peers = (
        machport_queue.QueueOneWay,
        machport_queue.QueueManyOneWay,
        machport_queue.QueuePeekOneWay,
        machport_queue.QueueLoopOneWay,
        iceoryx.PollingOneWay,
        iceoryx.BlockingOneWay,
        standard.SeqpacketOneWay,
    )


def _measure_c(place: Placement, size: int, plan: Plan) -> list[Sample]:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise Failed("there is no C compiler")
    cores = [-1 if core is None else core for core in (place.client, place.server)]
    with Session(place) as session:
        program = session.directory / "ring"
        subprocess.run([compiler, "-O2", "-o", program, _SOURCE], check=True)
        slots = machport_queue.capacity(size) // size
        arguments = [str(program), *map(str, (size, slots, plan.seconds, *cores))]
        try:
            says = subprocess.run(arguments, capture_output=True, text=True, timeout=session.left(), check=True).stdout
        except (subprocess.SubprocessError, OSError) as error:
            raise Failed(str(error)) from None
    count, seconds = says.split()
    return [sample(place, size, int(count), float(seconds), None)]


# In place


class InPlace(Figure):
    name = "dataqueue-in-place"
    title = "Entries written and read in place"
    about = (
        "The producer reserves room and writes eight bytes there, the consumer peeks and reads eight; nobody touches "
        "the rest of the entry. The time of an entry in µs, split; the queue has room for 16 entries of each size. If "
        "anything copied, 1 MiB would take some 20 µs more than 64 B."
    )
    sizes = (64, 65536, 1 << 20)
    metrics = (
        *(Metric(label(size), f"{label(size)}, µs") for size in sizes),
        Metric("large", "64 KiB / 64 B"),
        Metric("huge", "1 MiB / 64 B"),
    )
    targets = (
        Target("64 KiB takes at most 1.5 × as long as 64 B", "machport data queue", "", "", "large", most=1.5),
        Target("1 MiB takes at most 1.5 × as long as 64 B", "machport data queue", "", "", "huge", most=1.5),
    )

    def trials(self, plan: Plan) -> Iterator[Trial]:
        yield Trial("machport data queue", "", partial(_measure_in_place, self.sizes, plan.seconds))


def _measure_in_place(sizes: Sequence[int], seconds: float) -> list[Sample]:
    times = {}
    for size in sizes:
        with Session(SPLIT) as session:
            ends = prepared(session, 16 * (size + 4))
            reader = session.start(_read_in_place, ends, core=SPLIT.server)
            reader.expect("ready")
            writer = session.start(_write_in_place, ends, size, seconds, core=SPLIT.client)
            count, begun = writer.expect()
            taken, ended = reader.expect()
        if taken != count:
            raise Failed(f"{count} entries were written and {taken} read")
        times[label(size)] = (ended - begun) / count / 1e3
    small, large, huge = times.values()
    return [Sample("", "", {**times, "large": large / small, "huge": huge / small})]


def _write_in_place(link: Link, ends: Ends, size: int, seconds: float) -> tuple[int, int]:
    with ends.producer() as queue:
        for _ in range(1_000):
            with queue.reserve(size) as room:
                room[:8] = b"entries."
        count, begun = 1_000, now()
        end = begun + int(seconds * 1e9)
        while now() < end:
            for _ in range(64):
                with queue.reserve(size) as room:
                    room[:8] = b"entries."
            count += 64
        return count - 1_000, begun


def _read_in_place(link: Link, ends: Ends) -> tuple[int, int]:
    count = 0
    with ends.consumer() as queue:
        link.say("ready")
        try:
            while True:
                with queue.peek() as entry:
                    if entry[:8].tobytes() != b"entries.":
                        raise Failed("an entry came that was not written")
                count += 1
        except QueueEnded:
            return count - 1_000, now()


# Round trips


class QueueRoundTrips(Figure):
    name = "dataqueue-roundtrip"
    title = "Round trip over two data queues"
    about = (
        "A request and its reply of the same size in µs, split. Awake: both sides look for a while before they sleep, "
        "as they do by default. Asleep: MACHPORT_SPIN_US is 0 on both sides, so that each entry finds the other side "
        "asleep, as a socket's reader is. iceoryx2 that polls never sleeps."
    )
    metrics = (Metric("p50", "µs"), Metric("p99", "p99"))
    base = standard.SeqpacketRoundTrip.name
    targets = (
        Target("64 B, awake: at most 2 µs", AWAKE, label(64), "split", "p50", most=2.0),
        Target("64 B, asleep: at most the base", ASLEEP, label(64), "split", "p50", of_base=True, most=1.0),
    )
    peers = (
        standard.SeqpacketRoundTrip,
        machport_queue.QueueRoundTrip,
        machport_queue.SleepingQueueRoundTrip,
        standard.PipeRoundTrip,
        fifo.FifoRoundTrip,
        iceoryx.PollingRoundTrip,
        iceoryx.BlockingRoundTrip,
    )

    def trials(self, plan: Plan) -> Iterator[Trial]:
        for peer in self.wanted(plan):
            assert issubclass(peer, RoundTrip)
            yield Trial(peer.name, SPLIT.name, partial(roundtrip.measure, peer, SPLIT, plan))


# What it costs


class IdleReader(Figure):
    name = "dataqueue-idle"
    title = "A reader that waits for an entry"
    about = (
        "The consumer has taken one entry and waits for the next, which does not come for three seconds. Wake-ups are "
        "context switches of its process in that time, voluntary or not: no sleep ends without one."
    )
    most_rounds = 3
    metrics = (Metric("wakeups", "wake-ups"), Metric("processor", "% of a core"))
    targets = (
        Target("0 wake-ups", "machport data queue", "", "", "wakeups", most=0.0),
        Target("0 % of a core", "machport data queue", "", "", "processor", most=0.0),
    )

    def trials(self, plan: Plan) -> Iterator[Trial]:
        yield Trial("machport data queue", "", partial(_measure_idle, 0.3 if plan.quick else 3.0))


def _measure_idle(seconds: float) -> list[Sample]:
    with Session(SPLIT) as session:
        ends = prepared(session, 1 << 16)
        reader = session.start(_take_two, ends, core=SPLIT.server)
        writer = session.start(_give_two, ends, core=SPLIT.client)
        reader.expect("took one")
        # It looks for a while before it sleeps.
        time.sleep(0.2)
        switches, busy, begun = context_switches(reader.pid), processor_seconds(reader.pid), time.monotonic()
        time.sleep(seconds)
        values = {
            "wakeups": context_switches(reader.pid) - switches,
            "processor": (processor_seconds(reader.pid) - busy) / (time.monotonic() - begun) * 100,
        }
        writer.tell()
        if reader.expect() != b"second":
            raise Failed("the reader took another entry than was sent")
    return [Sample("", "", values)]


def _take_two(link: Link, ends: Ends) -> bytes:
    with ends.consumer() as queue:
        queue.dequeue()
        link.say("took one")
        return queue.dequeue()


def _give_two(link: Link, ends: Ends) -> None:
    with ends.producer() as queue:
        queue.enqueue(b"first")
        link.hear()
        queue.enqueue(b"second")


#: Bytes of the ring of a burst: a tenth of a second's work for the reader, should others have the producer's core.
_BACKLOG = 16 << 20


class Burst(Figure):
    name = "dataqueue-burst"
    title = "A burst of a million entries"
    about = (
        "A million entries of 64 B, one call an entry, split, for a reader that sleeps when the first comes and then "
        "works on each for longer than it takes to add one. Woken: how often the producer woke the reader, and the "
        "reader the producer, who waits when the ring's 16 MiB are full. Memory is what the resident set of each "
        "process grew by for an entry, after every page of the ring had been touched."
    )
    metrics = (
        Metric("woken", "reader woken"),
        Metric("producer", "producer woken"),
        Metric("reader_bytes", "reader's B an entry"),
        Metric("producer_bytes", "producer's B an entry"),
        Metric("seconds", "s"),
    )
    targets = (
        Target("wakes a busy reader at most 10 times", "machport data queue", "", "", "woken", most=10),
        Target("the reader keeps nothing for an entry", "machport data queue", "", "", "reader_bytes", most=0.2),
        Target("the producer keeps nothing for an entry", "machport data queue", "", "", "producer_bytes", most=0.2),
    )

    def trials(self, plan: Plan) -> Iterator[Trial]:
        yield Trial("machport data queue", "", partial(_measure_burst, 20_000 if plan.quick else 1_000_000))


def _measure_burst(count: int) -> list[Sample]:
    with Session(SPLIT) as session:
        ends = prepared(session, _BACKLOG)
        warm = 2 * _BACKLOG // 68
        reader = session.start(_work, ends, warm, core=SPLIT.server)
        writer = session.start(_burst, ends, warm, count, core=SPLIT.client)
        reader.expect("warm")
        # It goes to sleep.
        time.sleep(0.2)
        before = [resident_kib(worker.pid) for worker in (reader, writer)]
        begun = time.monotonic()
        writer.tell()
        woken = writer.expect("sent")
        taken, woke = reader.expect("taken")
        seconds = time.monotonic() - begun
        grown = [resident_kib(worker.pid) - kib for worker, kib in zip((reader, writer), before, strict=True)]
    if taken != count:
        raise Failed(f"{count} entries were sent and {taken} received")
    values = {
        "woken": woken,
        "producer": woke,
        "reader_bytes": grown[0] * 1024 / count,
        "producer_bytes": grown[1] * 1024 / count,
        "seconds": seconds,
    }
    return [Sample("", "", values)]


def _burst(link: Link, ends: Ends, warm: int, count: int) -> None:
    entry = bytes(range(64))
    with ends.producer() as queue:
        for _ in range(warm):
            queue.enqueue(entry)
        link.hear()
        before = queue.statistics().wakeups
        for _ in range(count):
            queue.enqueue(entry)
        link.say("sent", queue.statistics().wakeups - before)
        link.hear()


def _work(link: Link, ends: Ends, warm: int) -> None:
    checksum = sum(range(64))
    count = 0
    with ends.consumer() as queue:
        for _ in range(warm):
            queue.dequeue()
        before = queue.statistics().wakeups
        link.say("warm")
        while queue.wait(0.5 if count else None):
            if sum(queue.dequeue()) != checksum:
                raise Failed("an entry came that was not sent")
            count += 1
        link.say("taken", (count, queue.statistics().wakeups - before))
        link.hear()


class Restarts(Figure):
    name = "dataqueue-restarts"
    title = "1,000 restarts of a peer"
    about = (
        "A process makes a queue, gives one end to a child, and the child is killed by SIGKILL once an entry has gone "
        "through; 1,000 times, with producers and consumers in turn. What the survivor has more of afterwards than "
        "after the first 100."
    )
    most_rounds = 3
    metrics = (
        Metric("descriptors", "descriptors"),
        Metric("mappings", "mappings"),
        Metric("resident", "KiB resident"),
        Metric("ms", "ms each"),
    )
    targets = (
        Target("no descriptor more", "machport data queue", "", "", "descriptors", most=0),
        Target("no mapping more", "machport data queue", "", "", "mappings", most=0),
        Target("no memory more (128 KiB is the allocator's)", "machport data queue", "", "", "resident", most=128),
    )

    def trials(self, plan: Plan) -> Iterator[Trial]:
        yield Trial("machport data queue", "", partial(_measure_restarts, 20 if plan.quick else 1_000))


def _measure_restarts(count: int) -> list[Sample]:
    with Session(FREE, seconds=120) as session:
        values = session.start(_outlive, count).expect()
    return [Sample("", "", values)]


def _outlive(link: Link, count: int) -> dict[str, float]:
    for number in range(max(2, count // 10)):
        _outlive_one(number)
    before = descriptors(), _mappings(), resident_kib()
    begun = now()
    for number in range(count):
        _outlive_one(number)
    elapsed = now() - begun
    after = descriptors(), _mappings(), resident_kib()
    open_, mapped, resident = (float(late - early) for early, late in zip(before, after, strict=True))
    return {"descriptors": open_, "mappings": mapped, "resident": resident, "ms": elapsed / count / 1e6}


def _outlive_one(number: int) -> None:
    with DataQueue(1 << 16) as queue:
        produces = bool(number % 2)
        descriptor = queue.detach_producer() if produces else queue.detach_consumer()
        child = os.fork()
        if child == 0:
            _die(descriptor, produces)
        os.close(descriptor)
        try:
            while True:
                # Until the child is dead: it ends both waits.
                queue.dequeue() if produces else queue.enqueue(bytes(4096))
        except PeerDied:
            os.waitpid(child, 0)


def _die(descriptor: int, produces: bool) -> None:
    """A child with an end of a queue, which is killed after an entry."""
    try:
        queue = DataQueue.from_fd(descriptor)
        queue.enqueue(b"alive") if produces else queue.dequeue()
        os.kill(os.getpid(), signal.SIGKILL)
    finally:
        os._exit(1)


def _mappings() -> int:
    return len(Path("/proc/self/maps").read_text().splitlines())
