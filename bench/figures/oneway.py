"""Messages in one direction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from bench import loops
from bench.figures.roundtrip import label
from bench.harness import FREE, SPLIT, Failed, Placement, Session, peak_mib
from bench.peers import OneWay, eclipse_zenoh, fifo, iceoryx, machport_daemon, standard, zeromq
from bench.results import Figure, Metric, Plan, Sample, Target, Trial

_METRICS = (Metric("rate", "messages/s"), Metric("gigabytes", "GB/s"), Metric("memory", "MiB"))


class Streams(Figure):
    """Peers that send one way, with messages of some sizes."""

    metrics = _METRICS
    base = standard.SeqpacketOneWay.name
    sizes: Sequence[int] = ()

    def trials(self, plan: Plan) -> Iterator[Trial]:
        for place in (SPLIT,) if plan.quick else (SPLIT, FREE):
            for size in self.sizes:
                for peer in self.wanted(plan):
                    assert issubclass(peer, OneWay)
                    run = partial(measure, peer, place, size, plan)
                    yield Trial(peer.name, f"{place.name}, {label(size)}", run)


class Messages(Streams):
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


def measure(kind: type[OneWay], place: Placement, size: int, plan: Plan) -> list[Sample]:
    """One stream from one process to another."""
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
    return [sample(place, size, received, (ended - begun) / 1e9, memory)]


def sample(place: Placement, size: int, count: int, seconds: float, memory: list[float] | None) -> Sample:
    """What tables show of a stream."""
    small = size <= 4096
    speed = {"rate": count / seconds} if small else {"gigabytes": count * size / seconds / 1e9}
    return Sample(place.name, label(size), {**speed, "memory": memory if small else None})
