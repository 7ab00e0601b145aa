"""What it costs to be looked at: a daemon that writes a trace, beside one that does not."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from bench.figures import oneway, roundtrip
from bench.harness import SPLIT
from bench.peers import OneWay, RoundTrip, machport_daemon
from bench.results import Figure, Metric, Plan, Trial


class TracedRoundTrips(Figure):
    name = "traced-roundtrip"
    title = "Round trip through a daemon that writes a trace"
    about = (
        "A request and its reply of the same size, median and 99th percentile in µs, each process on a core of its "
        "own. The base is the same daemon without a trace, which counts calls and messages all the same."
    )
    metrics = (Metric("p50", "µs"), Metric("p99", "p99"))
    base = machport_daemon.CallRoundTrip.name
    peers = (machport_daemon.CallRoundTrip, machport_daemon.TracedCallRoundTrip)

    def trials(self, plan: Plan) -> Iterator[Trial]:
        for peer in self.wanted(plan):
            assert issubclass(peer, RoundTrip)
            yield Trial(peer.name, SPLIT.name, partial(roundtrip.measure, peer, SPLIT, plan))


class TracedMessages(Figure):
    name = "traced-oneway"
    title = "One-way throughput through a daemon that writes a trace"
    about = "Messages of 64 bytes from one process to another, as fast as they go. The base is as above."
    metrics = (Metric("rate", "messages/s"), Metric("memory", "MiB"))
    base = machport_daemon.SendOneWay.name
    peers = (machport_daemon.SendOneWay, machport_daemon.TracedSendOneWay)

    def trials(self, plan: Plan) -> Iterator[Trial]:
        for peer in self.wanted(plan):
            assert issubclass(peer, OneWay)
            yield Trial(peer.name, SPLIT.name, partial(oneway.measure, peer, SPLIT, 64, plan))
