"""Making what messages go to, and how many there can be."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from time import perf_counter_ns as now
from typing import Any

import machport
from bench import loops
from bench.harness import FREE, Link, Session, descriptors, resident_kib
from bench.peers import Creation, dbus, eclipse_zenoh, fifo, iceoryx, machport_daemon, machport_queue, standard, zeromq
from bench.results import Figure, Metric, Plan, Sample, Target, Trial

ONE = machport_daemon.PortCreation.name
MANY = machport_daemon.ManyPortsCreation.name


class Created(Figure):
    name = "creation"
    title = "Creating and destroying endpoints"
    about = (
        "One process makes N endpoints and then destroys them: how many a second, and what each costs in memory of "
        "that process and of helpers such as a daemon, in bytes, and in descriptors of both."
    )
    metrics = (
        Metric("created", "created/s"),
        Metric("destroyed", "destroyed/s"),
        Metric("own_bytes", "own B each"),
        Metric("helper_bytes", "helper's B each"),
        Metric("descriptors", "descriptors each"),
        Metric("stopped", "stopped at"),
    )
    base = standard.SocketpairCreation.name
    targets = (
        Target("pipelined, 1,000: at least 200 k ports/s", MANY, "1,000 of them", "", "created", least=200e3),
        Target("one by one, 1,000: at least 60 k created/s", ONE, "1,000 of them", "", "created", least=60e3),
        Target("one by one, 1,000: at least 60 k destroyed/s", ONE, "1,000 of them", "", "destroyed", least=60e3),
        Target("pipelined, 1,000: at least 200 k destroyed/s", MANY, "1,000 of them", "", "destroyed", least=200e3),
        Target("descriptors of a port: none", ONE, "1,000 of them", "", "descriptors", most=0.0),
    )
    peers = (
        standard.SocketpairCreation,
        machport_daemon.PortCreation,
        machport_daemon.ManyPortsCreation,
        machport_queue.QueueCreation,
        standard.PipeCreation,
        standard.ConnectionCreation,
        standard.QueueCreation,
        fifo.FifoCreation,
        iceoryx.ListenerCreation,
        zeromq.SocketCreation,
        dbus.DaemonNameCreation,
        eclipse_zenoh.SubscriberCreation,
    )

    def trials(self, plan: Plan) -> Iterator[Trial]:
        for count in (100,) if plan.quick else (1_000, 10_000):
            for peer in self.wanted(plan):
                assert issubclass(peer, Creation)
                yield Trial(peer.name, f"{count:,}", partial(_measure, peer, count))


def _measure(kind: type[Creation], count: int) -> list[Sample]:
    with Session(FREE, seconds=60) as session:
        peer = kind()
        address = peer.prepare(session, 64)
        values = session.start(loops.create, kind, address, count, peer.helpers).expect()
    values["stopped"] = f"{values['made']:,}: {values['stopped'][:60]}" if values["stopped"] else None
    return [Sample(f"{count:,} of them", "", values)]


class Million(Figure):
    name = "million"
    most_rounds = 2
    title = "A million ports in one daemon"
    about = (
        "One task makes ports and keeps them, up to a million or for as long as a minute allows, many in one call if "
        "machport can. Memory is the daemon's growth, for each port; the task's own is what Python's objects take."
    )
    metrics = (
        Metric("made", "ports"),
        Metric("created", "created/s"),
        Metric("helper_bytes", "daemon's B each"),
        Metric("own_bytes", "own B each"),
        Metric("descriptors", "descriptors each"),
        Metric("destroyed", "destroyed/s"),
    )
    targets = (
        Target("1 M ports at once", "machport", "", "", "made", least=1e6),
        Target("at most 1 KiB of the daemon's memory each", "machport", "", "", "helper_bytes", most=1024),
        Target("at least 200 k ports/s", "machport", "", "", "created", least=200e3),
    )

    def trials(self, plan: Plan) -> Iterator[Trial]:
        yield Trial("machport", "", partial(_measure_million, 2_000 if plan.quick else 1_000_000))


def _measure_million(count: int) -> list[Sample]:
    with Session(FREE, seconds=240) as session:
        daemon = session.daemon()
        return [Sample("", "", session.start(_fill, str(daemon.path), daemon.pid, count, 60.0).expect())]


def _fill(link: Link, path: str, daemon: int, count: int, seconds: float) -> dict[str, Any]:
    task = machport.Task(path=path)
    allocate_many = getattr(task, "allocate_many", None)
    close_many = getattr(task, "close_many", None)
    task.allocate().close()
    open_before, daemon_before, own_before = descriptors(daemon), resident_kib(daemon), resident_kib()
    ports: list[machport.ReceiveRight] = []
    begun = now()
    end = begun + int(seconds * 1e9)
    while len(ports) < count and now() < end:
        some = min(1000, count - len(ports))
        ports += allocate_many(some) if allocate_many else [task.allocate() for _ in range(some)]
    made = now()
    values = {
        "made": len(ports),
        "created": len(ports) / ((made - begun) / 1e9),
        "helper_bytes": (resident_kib(daemon) - daemon_before) * 1024 / len(ports),
        "own_bytes": (resident_kib() - own_before) * 1024 / len(ports),
        "descriptors": (descriptors(daemon) - open_before) / len(ports),
    }
    # Without a call for many, destroying some of them tells as much as destroying all.
    some_ports = ports if close_many else ports[:20_000]
    begun = now()
    if close_many:
        close_many(some_ports)
    else:
        for port in some_ports:
            port.close()
    return {**values, "destroyed": len(some_ports) / ((now() - begun) / 1e9)}
