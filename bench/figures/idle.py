"""An event loop whose coroutines wait for messages that do not come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from functools import partial

import machport
from bench.harness import SPLIT, Link, Session, context_switches, processor_seconds
from bench.peers.machport_daemon import SERVICE
from bench.results import Figure, Metric, Plan, Sample, Target, Trial

_WAITING = 100


class IdleLoop(Figure):
    name = "asyncio-idle"
    title = "A loop whose coroutines wait"
    about = (
        f"{_WAITING} coroutines of a loop of asyncio wait for three seconds, each at a port of its own. Wake-ups are "
        "context switches of the process in that time, voluntary or not."
    )
    most_rounds = 3
    metrics = (Metric("wakeups", "wake-ups"), Metric("processor", "% of a core"))
    targets = (
        Target("0 wake-ups", "machport", "", "", "wakeups", most=0.0),
        Target("0 % of a core", "machport", "", "", "processor", most=0.0),
    )

    def trials(self, plan: Plan) -> Iterator[Trial]:
        yield Trial("machport", "", partial(_measure, 0.3 if plan.quick else 3.0))


def _measure(seconds: float) -> list[Sample]:
    with Session(SPLIT) as session:
        with session.helpers_placed():
            address = str(session.daemon().path)
        waiting = session.start(_wait, address, core=SPLIT.server)
        waiting.expect("waiting")
        # It looks for a while before it sleeps.
        time.sleep(0.2)
        switches, busy, begun = context_switches(waiting.pid), processor_seconds(waiting.pid), time.monotonic()
        time.sleep(seconds)
        values = {
            "wakeups": context_switches(waiting.pid) - switches,
            "processor": (processor_seconds(waiting.pid) - busy) / (time.monotonic() - begun) * 100,
        }
        machport.Task(path=address).look_up(SERVICE).send(b"the end")
        waiting.expect()
    return [Sample("", "", values)]


def _wait(link: Link, address: str) -> None:
    async def main() -> None:
        task = machport.aio.Task(path=address)
        last = task.check_in(SERVICE)
        ports = task.allocate_many(_WAITING - 1)
        others = [asyncio.create_task(port.receive()) for port in ports]
        end = asyncio.create_task(last.receive())
        await asyncio.sleep(0)
        link.say("waiting")
        await end
        for other in others:
            other.cancel()

    asyncio.run(main())
