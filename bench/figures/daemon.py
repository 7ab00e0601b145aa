"""A daemon with many tasks: idle ones, and busy ones beside them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import machport
from bench import loops
from bench.harness import (
    FREE,
    SPLIT,
    Daemon,
    Failed,
    Link,
    Session,
    Worker,
    context_switches,
    descriptors,
    private_kib,
    processor_seconds,
    shared_memory_kib,
)
from bench.peers import RoundTrip, machport_daemon, standard, zeromq
from bench.results import Figure, Metric, Plan, Sample, Target, Trial, percentile

#: Tasks that one process holds: few enough for its descriptors, whatever a task takes.
_EACH = 1_000


class Idle(Figure):
    name = "idle"
    most_rounds = 3
    title = "A daemon with idle tasks"
    about = (
        "Tasks that have called their kernel once and now do nothing, 1,000 of them. Wake-ups are context switches of "
        "the daemon in a second, voluntary or not. Memory is for each task: what the daemon has for itself, and "
        "what the machine holds in shared memory (to which other programs add their part)."
    )
    metrics = (
        Metric("wakeups", "wake-ups/s"),
        Metric("processor", "% of a core"),
        Metric("own", "daemon's KiB each"),
        Metric("shared", "shared KiB each"),
        Metric("descriptors", "daemon's descriptors each"),
        Metric("tasks", "tasks"),
    )
    targets = (
        Target("0 wake-ups a second", "machport", "", "", "wakeups", most=0.0),
        Target("0 % of a core when idle", "machport", "", "", "processor", most=0.1),
        Target("at most 64 KiB of shared memory for each", "machport", "", "", "shared", most=64),
    )

    def trials(self, plan: Plan) -> Iterator[Trial]:
        count, seconds = (20, 0.3) if plan.quick else (1_000, 5.0)
        yield Trial("machport", "", partial(_measure_idle, count, seconds))


def _measure_idle(count: int, seconds: float) -> list[Sample]:
    with Session(FREE, seconds=120) as session:
        daemon = session.daemon()
        # The first tasks pay for what is there once.
        _hold(session, daemon, 2)
        own, shared, open_before = private_kib(daemon.pid), shared_memory_kib(), descriptors(daemon.pid)
        held, stopped = _hold(session, daemon, count)
        if not held:
            raise Failed(stopped)
        values: dict[str, float] = {
            "tasks": held,
            "own": (private_kib(daemon.pid) - own) / held,
            "shared": (shared_memory_kib() - shared) / held,
            "descriptors": (descriptors(daemon.pid) - open_before) / held,
        }
        # Whoever was just busy may still look for more to do.
        time.sleep(min(2.0, seconds))
        switches, busy, begun = context_switches(daemon.pid), processor_seconds(daemon.pid), time.monotonic()
        time.sleep(seconds)
        elapsed = time.monotonic() - begun
        values["wakeups"] = (context_switches(daemon.pid) - switches) / elapsed
        values["processor"] = (processor_seconds(daemon.pid) - busy) / elapsed * 100
    return [Sample("", "", values)]


def _hold(session: Session, daemon: Daemon, count: int) -> tuple[int, str]:
    """Let processes make tasks of a daemon and keep them; how many there are, and why not more."""
    held = 0
    while held < count:
        wanted = min(_EACH, count - held)
        made, stopped = session.start(_keep_tasks, str(daemon.path), wanted).expect("made")
        held += made
        if made < wanted:
            return held, stopped
    return held, ""


def _keep_tasks(link: Link, path: str, count: int) -> None:
    tasks = []
    stopped = ""
    try:
        for _ in range(count):
            task = machport.Task(path=path)
            tasks.append(task)
            task.allocate()
    except machport.MachError as error:
        stopped = f"{type(error).__name__}: {error.says}"
    except OSError as error:
        stopped = str(error)
    link.say("made", (len(tasks), stopped))
    link.hear()


class BesideIdle(Figure):
    name = "beside-idle"
    title = "Two busy tasks beside idle ones"
    about = (
        "The round trip between two tasks of a daemon that serves nobody else, then the same beside up to 10,000 idle "
        "tasks, as far as the descriptors of one daemon go. 64 B, split, µs."
    )
    metrics = (
        Metric("ratio", "beside / alone"),
        Metric("alone", "alone, µs"),
        Metric("beside", "beside idle, µs"),
        Metric("alone_p99", "alone, p99"),
        Metric("beside_p99", "beside idle, p99"),
        Metric("tasks", "idle tasks"),
        Metric("stopped", "stopped by"),
    )
    targets = (Target("at most 1.2 of alone", "machport", "", "", "ratio", most=1.2),)

    def trials(self, plan: Plan) -> Iterator[Trial]:
        yield Trial("machport", SPLIT.name, partial(_measure_beside, 20 if plan.quick else 10_000, plan.seconds))


def _measure_beside(count: int, seconds: float) -> list[Sample]:
    kind = machport_daemon.CallsToServer
    with Session(SPLIT, seconds=240) as session:
        daemon = session.daemon()
        address = str(daemon.path)
        session.start(loops.answer, kind, address, core=SPLIT.server).expect("ready")
        # The same two tasks both times: once the daemon's descriptors are used up, nobody can join any more.
        client = session.start(_ask_when_told, kind, address, seconds, core=SPLIT.client)
        client.tell()
        alone = client.expect("times")
        held, stopped = _hold(session, daemon, count)
        time.sleep(0.5)
        client.tell()
        beside = client.expect("times")
    values = {
        "ratio": percentile(beside, 0.5) / percentile(alone, 0.5),
        "alone": percentile(alone, 0.5) / 1e3,
        "beside": percentile(beside, 0.5) / 1e3,
        "alone_p99": percentile(alone, 0.99) / 1e3,
        "beside_p99": percentile(beside, 0.99) / 1e3,
        "tasks": held,
        "stopped": stopped or None,
    }
    return [Sample("", "", values)]


def _ask_when_told(link: Link, kind: type[RoundTrip], address: str, seconds: float) -> None:
    peer = kind()
    call, body = peer.client(address), loops.payload(64)
    while True:
        link.hear()
        loops.timed(call, body, seconds / 5)
        link.say("times", loops.timed(call, body, seconds))


class Crowd(Figure):
    name = "crowd"
    title = "Eight busy clients of one server"
    about = "Eight processes call one server all the time, wherever they run, 64 B; the round trips of all of them."
    metrics = (
        Metric("p50", "µs"),
        Metric("p99", "p99"),
        Metric("spread", "p99 / p50"),
        Metric("slowest", "slowest client's median / fastest's"),
        Metric("rate", "calls/s"),
    )
    base = standard.SeqpacketServer.name
    targets = (Target("p99 at most 10 times p50", machport_daemon.CallsToServer.name, "", "", "spread", most=10),)
    peers = (standard.SeqpacketServer, machport_daemon.CallsToServer, zeromq.ReqServer)

    def trials(self, plan: Plan) -> Iterator[Trial]:
        for peer in self.wanted(plan):
            assert issubclass(peer, RoundTrip)
            yield Trial(peer.name, FREE.name, partial(_measure_crowd, peer, 2 * plan.seconds))


def _measure_crowd(kind: type[RoundTrip], seconds: float, clients: int = 8) -> list[Sample]:
    with Session(FREE, seconds=60) as session:
        peer = kind()
        address = peer.prepare(session, 64)
        session.start(loops.answer, kind, address).expect("ready")
        crowd: list[Worker] = [session.start(loops.ask, kind, address, (64,), seconds, 0.0) for _ in range(clients)]
        for client in crowd:
            client.expect("ready")
        for client in crowd:
            client.tell()
        series = [client.expect()[0][0] for client in crowd]
    together = [elapsed for times in series for elapsed in times]
    medians = [percentile(times, 0.5) for times in series]
    p50, p99 = percentile(together, 0.5), percentile(together, 0.99)
    values = {
        "p50": p50 / 1e3,
        "p99": p99 / 1e3,
        "spread": p99 / p50,
        "slowest": max(medians) / min(medians),
        "rate": sum(1e9 * len(times) / sum(times) for times in series),
    }
    return [Sample("", "", values)]
