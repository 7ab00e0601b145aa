"""A request and its reply between two processes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from bench import loops
from bench.harness import AFTER_SILENCE, FREE, ONE_CORE, SAME, SPLIT, Placement, Session, peak_mib
from bench.peers import (
    RoundTrip,
    dbus,
    eclipse_zenoh,
    fifo,
    iceoryx,
    machport_daemon,
    machport_queue,
    standard,
    streams,
    zeromq,
)
from bench.results import Figure, Metric, Plan, Sample, Target, Trial, percentile

CALL = machport_daemon.CallRoundTrip.name
SIZES = (64, 4096)


def label(size: int) -> str:
    """A size as tables have it."""
    if size >= 1 << 20:
        return f"{size >> 20} MiB"
    return f"{size} B" if size < 1024 else f"{size >> 10} KiB"


def target(place: Placement, most: float, size: int = 64) -> Target:
    text = f"{label(size)}, {place.name}: at most {most:g} of the base"
    return Target(text, CALL, label(size), place.name, "p50", of_base=True, most=most)


class RoundTrips(Figure):
    name = "roundtrip"
    title = "Round trip"
    about = (
        "A request and its reply of the same size, median and 99th percentile in µs, between a process that serves and "
        "one that calls. Split: each on a core of its own; same core: both on one, daemons wherever they like; all on "
        "one core: daemons, too; free: nobody is told where to run. Memory is the largest resident set that the "
        "client, the server and helpers had, in MiB."
    )
    metrics = (Metric("p50", "µs"), Metric("p99", "p99"), Metric("memory", "MiB"))
    base = standard.SeqpacketRoundTrip.name
    targets = (
        target(SPLIT, 0.2),
        target(SAME, 0.8),
        target(ONE_CORE, 1.6),
        target(AFTER_SILENCE, 0.9),
        target(SPLIT, 0.25, size=4096),
    )
    peers = (
        standard.SeqpacketRoundTrip,
        machport_daemon.CallRoundTrip,
        machport_queue.QueueRoundTrip,
        standard.PipeRoundTrip,
        standard.ConnectionRoundTrip,
        standard.QueueRoundTrip,
        fifo.FifoRoundTrip,
        iceoryx.PollingRoundTrip,
        iceoryx.BlockingRoundTrip,
        iceoryx.RequestRoundTrip,
        zeromq.ReqRoundTrip,
        zeromq.PairRoundTrip,
        dbus.DaemonRoundTrip,
        eclipse_zenoh.QueryRoundTrip,
    )

    def trials(self, plan: Plan) -> Iterator[Trial]:
        places = (SPLIT, ONE_CORE) if plan.quick else (SPLIT, SAME, ONE_CORE, FREE, AFTER_SILENCE)
        for place in places:
            for peer in self.wanted(plan):
                assert issubclass(peer, RoundTrip)
                yield Trial(peer.name, place.name, partial(measure, peer, place, plan))


class AwaitedRoundTrips(Figure):
    name = "asyncio-roundtrip"
    title = "Round trip between event loops"
    about = (
        "A request and its reply of the same size, median and 99th percentile in µs, between two processes whose "
        "programs are coroutines in loops of asyncio. Placed as above."
    )
    metrics = (Metric("p50", "µs"), Metric("p99", "p99"))
    base = streams.StreamRoundTrip.name
    targets = tuple(
        Target(
            f"64 B, {place.name}: at most 0.6 of the base",
            machport_daemon.AwaitedRoundTrip.name,
            label(64),
            place.name,
            "p50",
            of_base=True,
            most=0.6,
        )
        for place in (SPLIT, FREE)
    )
    peers = (streams.StreamRoundTrip, machport_daemon.AwaitedRoundTrip, dbus.DaemonRoundTrip)

    def trials(self, plan: Plan) -> Iterator[Trial]:
        for place in (SPLIT, FREE):
            for peer in self.wanted(plan):
                assert issubclass(peer, RoundTrip)
                yield Trial(peer.name, place.name, partial(measure, peer, place, plan))


def measure(kind: type[RoundTrip], place: Placement, plan: Plan) -> list[Sample]:
    """One conversation, with requests of each size."""
    with Session(place) as session:
        peer = kind()
        with session.helpers_placed():
            address = peer.prepare(session, max(SIZES))
        server = session.start(loops.answer, kind, address, core=place.server)
        server.expect("ready")
        arguments = (kind, address, SIZES, plan.seconds, place.silence)
        client = session.start(loops.ask, *arguments, core=place.client)
        client.expect("ready")
        client.tell()
        series, client_mib = client.expect()
        memory = [client_mib, server.expect(), *map(peak_mib, peer.helpers)]
    return [
        Sample(
            label(size),
            place.name,
            {
                "p50": percentile(times, 0.5) / 1e3,
                "p99": percentile(times, 0.99) / 1e3,
                "memory": memory if place is SPLIT else None,
            },
        )
        for size, times in zip(SIZES, series, strict=True)
    ]
