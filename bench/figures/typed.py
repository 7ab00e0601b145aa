"""A typed call beside the call that it is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import machport
from bench import loops
from bench.harness import ONE_CORE, SPLIT, Link, Placement, Session
from bench.peers.machport_daemon import SERVICE
from bench.results import Figure, Metric, Plan, Sample, Target, Trial, percentile

#: How often each call has its turn.
_TURNS: Final = 10


class Echo:
    """What is measured: numbers, and bytes."""

    def divide(self, a: float, b: float) -> float:
        return a / b

    def echo(self, data: bytes) -> bytes:
        return data


class TypedRoundTrips(Figure):
    name = "typed-roundtrip"
    title = "Typed round trip"
    about = (
        "A call of an interface beside the plain call under it, of one client, whose two servers are alike: "
        "`divide(1.0, 2.0)` beside a body of as many bytes, and 64 B and 4 KiB of bytes. Medians, µs."
    )
    metrics = (
        Metric("ratio", "typed / plain"),
        Metric("typed", "typed, µs"),
        Metric("plain", "plain, µs"),
    )
    targets = (
        Target("divide, split: at most 2 of the plain call", "machport", "divide", SPLIT.name, "ratio", most=2.0),
        Target("64 B, split: at most 2 of the plain call", "machport", "64 B", SPLIT.name, "ratio", most=2.0),
    )

    def trials(self, plan: Plan) -> Iterator[Trial]:
        for place in (SPLIT,) if plan.quick else (SPLIT, ONE_CORE):
            yield Trial("machport", place.name, partial(_measure, place, plan.seconds))


def _measure(place: Placement, seconds: float) -> list[Sample]:
    with Session(place) as session:
        with session.helpers_placed():
            address = str(session.daemon().path)
        for typed in (False, True):
            session.start(_serve, address, typed, core=place.server).expect("ready")
        found: dict[str, list[int]] = session.start(_ask, address, seconds, core=place.client).expect()
    samples = []
    for variant in ("divide", "64 B", "4 KiB"):
        typed_ns, plain_ns = (percentile(found[f"{variant} {kind}"], 0.5) for kind in ("typed", "plain"))
        values = {"ratio": typed_ns / plain_ns, "typed": typed_ns / 1e3, "plain": plain_ns / 1e3}
        samples.append(Sample(variant, place.name, values))
    return samples


def _serve(link: Link, address: str, typed: bool) -> None:
    task = machport.Task(path=address)
    port = task.check_in(f"{SERVICE}.{typed}")
    link.say("ready")
    if typed:
        machport.serve(Echo, Echo(), port)
    else:
        port.serve(lambda request: request.body)


def _ask(link: Link, address: str, seconds: float) -> dict[str, list[int]]:
    task = machport.Task(path=address)
    plain = task.look_up(f"{SERVICE}.False").call
    typed = machport.proxy(Echo, task.look_up(f"{SERVICE}.True"))
    calls: dict[str, tuple[Callable[[bytes], Any], bytes]] = {}
    for variant, size in (("64 B", 64), ("4 KiB", 4096)):
        calls[f"{variant} plain"] = (lambda body: plain(body).body), loops.payload(size)
        calls[f"{variant} typed"] = typed.echo, loops.payload(size)
    # As many bytes as the arguments have.
    calls["divide plain"] = (lambda body: plain(body).body), loops.payload(20)
    calls["divide typed"] = (lambda body: body if typed.divide(1.0, 2.0) == 0.5 else b""), b""
    for call, body in calls.values():
        loops.timed(call, body, seconds / 5)
    # In turns, because what else the machine does would fall upon one of them.
    found: dict[str, list[int]] = {name: [] for name in calls}
    for _ in range(_TURNS):
        for name, (call, body) in calls.items():
            found[name] += loops.timed(call, body, seconds / _TURNS)
    return found
