"""Messages in one direction: through the daemon, and through data queues."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from bench import loops
from bench.figures.roundtrip import label
from bench.harness import FREE, SPLIT, Failed, Placement, Session, peak_mib
from bench.peers import OneWay, eclipse_zenoh, fifo, iceoryx, machport_daemon, machport_queue, standard, zeromq
from bench.results import Figure, Metric, Plan, Sample, Target, Trial

_SOURCE = Path(__file__).parents[1] / "native" / "ring.c"
C_RING = "C, memcpy in and out (limit)"
_METRICS = (Metric("rate", "messages/s"), Metric("gigabytes", "GB/s"), Metric("memory", "MiB"))


class _Streams(Figure):
    metrics = _METRICS
    base = standard.SeqpacketOneWay.name
    sizes: Sequence[int] = ()

    def trials(self, plan: Plan) -> Iterator[Trial]:
        for place in (SPLIT,) if plan.quick else (SPLIT, FREE):
            for size in self.sizes:
                for peer in self.wanted(plan):
                    assert issubclass(peer, OneWay)
                    run = partial(_measure, peer, place, size, plan)
                    yield Trial(peer.name, f"{place.name}, {label(size)}", run)


class Messages(_Streams):
    name = "oneway"
    title = "One-way throughput"
    about = (
        "Messages from one process to another, as fast as they go; what is sent and not received does not count. A "
        "machport send is checked in each trap; send_many says how many of a batch were sent. Memory is the largest "
        "resident set of the consumer, the producer and helpers, in MiB."
    )
    sizes = (64, 65536, 1 << 20)
    targets = (
        Target(
            "64 B, one trap at a time, split: at least 0.3 M messages/s",
            machport_daemon.SendOneWay.name,
            "split",
            "64 B",
            "rate",
            least=0.3e6,
        ),
        Target(
            "64 B, pipelined, split: at least 1.5 M messages/s",
            machport_daemon.SendManyOneWay.name,
            "split",
            "64 B",
            "rate",
            least=1.5e6,
        ),
        Target(
            "64 KiB, one trap at a time, split: at least the base",
            machport_daemon.SendOneWay.name,
            "split",
            "64 KiB",
            "gigabytes",
            of_base=True,
            least=1.0,
        ),
        Target(
            "64 KiB, pipelined, split: at least the base",
            machport_daemon.SendManyOneWay.name,
            "split",
            "64 KiB",
            "gigabytes",
            of_base=True,
            least=1.0,
        ),
    )
    peers = (
        standard.SeqpacketOneWay,
        machport_daemon.SendOneWay,
        machport_daemon.SendManyOneWay,
        zeromq.PushOneWay,
        standard.ConnectionOneWay,
        standard.QueueOneWay,
        fifo.FifoOneWay,
        fifo.FifoManyOneWay,
        iceoryx.PollingOneWay,
        iceoryx.BlockingOneWay,
        eclipse_zenoh.PublishOneWay,
    )


class DataQueues(_Streams):
    name = "dataqueue"
    title = "Data queues"
    about = (
        "Entries through memory that two processes share, no daemon between. One call an entry, many in one call, and "
        "a view: the reader looks at the entry where it is. The C program is the limit: slots of one size, a memcpy in "
        "and one out, nothing checked."
    )
    sizes = (64, 65536)
    targets = (
        Target(
            "64 B, one call an entry, split: at least 3 M entries/s",
            machport_queue.QueueOneWay.name,
            "split",
            "64 B",
            "rate",
            least=3e6,
        ),
        Target(
            "64 B, many in one call, split: at least 12 M entries/s",
            machport_queue.QueueManyOneWay.name,
            "split",
            "64 B",
            "rate",
            least=12e6,
        ),
        Target(
            "64 KiB, view, split: at least 0.8 of the C program",
            machport_queue.QueueViewOneWay.name,
            "split",
            "64 KiB",
            "gigabytes",
            of_base=True,
            least=0.8,
        ),
    )
    base = C_RING
    peers = (
        machport_queue.QueueOneWay,
        machport_queue.QueueManyOneWay,
        machport_queue.QueueViewOneWay,
        fifo.FifoOneWay,
        fifo.FifoManyOneWay,
        iceoryx.PollingOneWay,
        iceoryx.BlockingOneWay,
        zeromq.PushOneWay,
        standard.SeqpacketOneWay,
    )

    def trials(self, plan: Plan) -> Iterator[Trial]:
        for place in (SPLIT,) if plan.quick else (SPLIT, FREE):
            for size in self.sizes:
                yield Trial(C_RING, f"{place.name}, {label(size)}", partial(_measure_c, place, size, plan))
        yield from super().trials(plan)


def _measure(kind: type[OneWay], place: Placement, size: int, plan: Plan) -> list[Sample]:
    with Session(place) as session:
        peer = kind()
        address = peer.prepare(session, size)
        consumer = session.start(loops.take, kind, address, size, core=place.server)
        consumer.expect("ready")
        producer = session.start(loops.give, kind, address, size, plan.seconds, core=place.client)
        producer.expect("ready")
        producer.tell()
        sent, begun, producer_mib = producer.expect("sent")
        received, ended, consumer_mib = consumer.expect()
        memory = [consumer_mib, producer_mib, *map(peak_mib, peer.helpers)]
        producer.tell()
    if sent != received:
        raise Failed(f"{sent} messages of {label(size)} were sent and {received} received")
    return [_sample(place, size, received, (ended - begun) / 1e9, memory)]


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
    return [_sample(place, size, int(count), float(seconds), None)]


def _sample(place: Placement, size: int, count: int, seconds: float, memory: list[float] | None) -> Sample:
    small = size <= 4096
    speed = {"rate": count / seconds} if small else {"gigabytes": count * size / seconds / 1e9}
    return Sample(place.name, label(size), {**speed, "memory": memory if small else None})
