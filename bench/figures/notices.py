"""From the trap that causes a notification to the watcher that holds it, in round trips of the same processes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from time import perf_counter_ns as now

import machport
from bench.harness import SPLIT, Link, Placement, Session
from bench.peers.machport_daemon import SERVICE
from bench.results import Figure, Metric, Plan, Sample, Target, Trial, percentile

#: Microseconds in which the watcher comes to wait again.
_SETTLED = 20
_PLAIN, _NO_SENDERS, _DEAD_NAME, _END = range(4)
_KINDS = {_NO_SENDERS: "no-senders", _DEAD_NAME: "dead-name"}


class Notices(Figure):
    name = "notice"
    title = "From a trap to the notification that it causes"
    about = (
        "One process gives up the last send right to a port, or destroys a port; another waits for the notification. "
        "Time from just before the trap until the program holds the notification, and the same in median round trips "
        "between the two, measured in between. Split."
    )
    metrics = (
        Metric("round_trips", "round trips"),
        Metric("p50", "µs"),
        Metric("p99", "p99"),
    )
    targets = tuple(
        Target(f"{kind}: at most one round trip", "machport", "", kind, "round_trips", most=1.0)
        for kind in _KINDS.values()
    )

    def trials(self, plan: Plan) -> Iterator[Trial]:
        yield Trial("machport", SPLIT.name, partial(_measure, SPLIT, 50 if plan.quick else 2_000))


def _measure(place: Placement, count: int) -> list[Sample]:
    with Session(place) as session:
        path = str(session.daemon().path)
        watcher = session.start(_watch, path, core=place.server)
        watcher.expect("ready")
        causes, round_trips = session.start(_cause, path, count, core=place.client).expect()
        noticed = watcher.expect()
    typical = percentile(round_trips, 0.5)
    samples = []
    for kind, column in _KINDS.items():
        times = [after - before for before, after in zip(causes[kind], noticed[kind], strict=True)]
        median = percentile(times, 0.5)
        values = {"p50": median / 1e3, "p99": percentile(times, 0.99) / 1e3}
        samples.append(Sample("", column, {**values, "round_trips": median / typical}))
    samples.append(Sample("", "a call", {"p50": typical / 1e3, "p99": percentile(round_trips, 0.99) / 1e3}))
    return samples


def _watch(link: Link, path: str) -> dict[int, list[int]]:
    """Answer requests; with some, wait for a notification, and keep when it came."""
    task = machport.Task(path=path)
    port, notify = task.check_in(SERVICE), task.allocate()
    noticed: dict[int, list[int]] = {_NO_SENDERS: [], _DEAD_NAME: []}
    link.say("ready")
    while True:
        request = port.receive()
        if request.id == _NO_SENDERS:
            watched = task.allocate()
            right = watched.make_send()
            watched.request_no_senders(notify)
            request.reply(rights=[right.move()])
            notice = notify.receive()
            noticed[_NO_SENDERS].append(now())
            assert isinstance(notice, machport.NoSendersNotification)
            watched.close()
        elif request.id == _DEAD_NAME:
            given = request.rights[0]
            assert given is not None
            given.request_dead_name(notify)
            request.reply()
            notice = notify.receive()
            noticed[_DEAD_NAME].append(now())
            assert isinstance(notice, machport.DeadNameNotification)
            notice.close()
            given.close()
        else:
            request.reply(request.body)
            if request.id == _END:
                return noticed


def _cause(link: Link, path: str, count: int) -> tuple[dict[int, list[int]], list[int]]:
    """Cause notifications, with plain calls between: when each was caused, and how long the calls took."""
    task = machport.Task(path=path)
    server = task.look_up(SERVICE)
    causes: dict[int, list[int]] = {_NO_SENDERS: [], _DEAD_NAME: []}
    round_trips: list[int] = []
    body = bytes(64)
    for _ in range(count):
        last = server.call(id=_NO_SENDERS).rights[0]
        assert last is not None
        _settle()
        causes[_NO_SENDERS].append(now())
        last.close()
        for _ in range(5):
            before = now()
            server.call(body, id=_PLAIN)
            round_trips.append(now() - before)
        port = task.allocate()
        server.call(id=_DEAD_NAME, rights=[port.make_send().move()])
        _settle()
        causes[_DEAD_NAME].append(now())
        port.close()
    server.call(id=_END)
    return causes, round_trips


def _settle() -> None:
    end = now() + _SETTLED * 1000
    while now() < end:
        pass
