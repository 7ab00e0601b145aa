"""The kernel by itself: requests for notifications, and the replay of all transcripts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import perf_counter_ns as now

import machport
from bench.harness import FREE, Failed, Link, Session
from bench.results import Figure, Metric, Plan, Sample, Target, Trial
from machport.abi import constants as c
from machport.abi import traps
from machport.kernel import ports, requests, tasks
from machport.kernel.dialect import DIALECTS
from machport.kernel.kernel import Kernel
from machport.replay.player import play
from machport.replay.transcript import read

_TRANSCRIPTS = Path(__file__).parents[2] / "tests" / "conformance" / "transcripts"
_DAEMON, _MANY, _EMBEDDED = "through the daemon, one by one", "through the daemon, many", "in an embedded kernel"
#: Rights that are watched at a time where requests are made together.
_WATCHED = 500

#: (notify, disposition) to the previous right: one mach_port_request_notification on a port that is watched.
Request = Callable[[int, int], int]


class Requests(Figure):
    name = "request"
    title = "mach_port_request_notification"
    about = "A dead-name request registered, and cancelled again: pairs of calls per second, by one process."
    metrics = (Metric("pairs", "pairs/s"),)
    targets = (
        Target("through the daemon, many: at least 100 k pairs/s", _MANY, "", "", "pairs", least=100e3),
        Target("embedded: at least 500 k pairs/s", _EMBEDDED, "", "", "pairs", least=500e3),
    )

    def trials(self, plan: Plan) -> Iterator[Trial]:
        yield Trial(_DAEMON, "", partial(_measure_requests, plan.seconds, _request_by_trap))
        yield Trial(_MANY, "", partial(_measure_requests, plan.seconds, _request_many))
        yield Trial(_EMBEDDED, "", partial(_measure_embedded, plan.seconds))


def _measure_requests(seconds: float, program: Callable[[Link, str, float], float]) -> list[Sample]:
    with Session(FREE) as session:
        pairs = session.start(program, str(session.daemon().path), seconds).expect()
    return [Sample("", "", {"pairs": pairs})]


def _measure_embedded(seconds: float) -> list[Sample]:
    with Session(FREE) as session:
        return [Sample("", "", {"pairs": session.start(_request_embedded, seconds).expect()})]


def _request_by_trap(link: Link, path: str, seconds: float) -> float:
    task = machport.Task(path=path)
    watched, notify = task.allocate(), task.allocate()
    right, once = watched.make_send(), notify.make_send_once()
    call = task.calls.mach_port_request_notification
    request = partial(call, task.name, right.name, c.MACH_NOTIFY_DEAD_NAME, 0)
    return _pairs(request, once.name, seconds)


def _request_many(link: Link, path: str, seconds: float) -> float:
    """Requests on many rights, all registered and then all cancelled, without waiting for one before the next."""
    task = machport.Task(path=path)
    notify = task.allocate()
    watched = [port.make_send().name for port in task.allocate_many(_WATCHED)]
    once = [notify.make_send_once().name for _ in watched]
    many, name, kind = task.calls.many, task.name, c.MACH_NOTIFY_DEAD_NAME
    cancel = [(name, right, kind, 0, c.MACH_PORT_NULL, c.MACH_MSG_TYPE_MAKE_SEND_ONCE) for right in watched]
    count = 0
    begun = now()
    end = begun + int(seconds * 1e9)
    while (at := now()) < end:
        register = [
            (name, right, kind, 0, tell, c.MACH_MSG_TYPE_MOVE_SEND_ONCE)
            for right, tell in zip(watched, once, strict=True)
        ]
        if any(previous for (previous,), _ in many(traps.REQUEST_NOTIFICATION, register)):
            raise Failed("something was registered before")
        once = [previous for (previous,), _ in many(traps.REQUEST_NOTIFICATION, cancel)]
        count += len(watched)
    return count / ((at - begun) / 1e9)


def _request_embedded(link: Link, seconds: float) -> float:
    kernel = Kernel()
    task = tasks.create_task(kernel, "bench")
    watched, notify = (ports.mach_port_allocate(kernel, task, c.MACH_PORT_RIGHT_RECEIVE) for _ in range(2))
    ports.mach_port_insert_right(kernel, task, task, watched, watched, c.MACH_MSG_TYPE_MAKE_SEND)
    once, _ = ports.mach_port_extract_right(kernel, task, task, notify, c.MACH_MSG_TYPE_MAKE_SEND_ONCE)
    call = requests.mach_port_request_notification
    request = partial(call, kernel, task, task, watched, c.MACH_NOTIFY_DEAD_NAME, 0)
    return _pairs(request, once, seconds)


def _pairs(request: Request, once: int, seconds: float) -> float:
    """Registering moves the send-once right in, cancelling gives it back; pairs per second."""
    count = 0
    begun = now()
    end = begun + int(seconds * 1e9)
    while (at := now()) < end:
        for _ in range(20):
            if request(once, c.MACH_MSG_TYPE_MOVE_SEND_ONCE) != c.MACH_PORT_NULL:
                raise Failed("something was registered before")
            once = request(c.MACH_PORT_NULL, c.MACH_MSG_TYPE_MAKE_SEND_ONCE)
            count += 1
    return count / ((at - begun) / 1e9)


class Replay(Figure):
    name = "replay"
    title = "Replay of all transcripts"
    about = (
        "Every operation of the transcripts of a real kernel, played on an embedded kernel and its answer compared; "
        "operations per second of playing, and of reading the files as well."
    )
    metrics = (
        Metric("rate", "operations/s"),
        Metric("with_reading", "with reading"),
        Metric("operations", "operations"),
        Metric("divergences", "divergences"),
    )
    targets = (
        Target(
            "reading included: at least 200 k operations/s",
            "machport, dialect gnumach",
            "",
            "",
            "with_reading",
            least=200e3,
        ),
        Target("no divergence", "machport, dialect gnumach", "", "", "divergences", most=0.0),
    )

    def trials(self, plan: Plan) -> Iterator[Trial]:
        files = sorted(_TRANSCRIPTS.glob("themed*" if plan.quick else "*"))
        yield Trial("machport, dialect gnumach", "", partial(_measure_replay, files))


def _measure_replay(files: list[Path]) -> list[Sample]:
    with Session(FREE, seconds=120) as session:
        return [Sample("", "", session.start(_replay, files).expect())]


def _replay(link: Link, files: list[Path]) -> dict[str, float]:
    begun = now()
    scenarios = [scenario for path in files for scenario in read(path)]
    loaded = now()
    operations = divergences = 0
    for scenario in scenarios:
        count, divergence = play(scenario, DIALECTS["gnumach"])
        operations += count
        divergences += divergence is not None
    ended = now()
    return {
        "operations": operations,
        "divergences": divergences,
        "rate": operations / ((ended - loaded) / 1e9),
        "with_reading": operations / ((ended - begun) / 1e9),
    }
