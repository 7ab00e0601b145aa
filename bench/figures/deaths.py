"""From SIGKILL to the survivor's program knowing."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from time import perf_counter_ns as now

from bench import loops
from bench.harness import FREE, Session
from bench.peers import Death, dbus, eclipse_zenoh, machport_daemon, standard, zeromq
from bench.results import Figure, Metric, Plan, Sample, Target, Trial

#: MiB that the victim has touched beside what an interpreter has, and the column of the tables.
_VICTIMS = {0: "victim as it is", 1024: "victim with 1 GiB"}
#: Seconds after which a survivor is taken not to learn it at all.
_PATIENCE = 3.0


class Deaths(Figure):
    name = "death"
    title = "Death notice"
    about = (
        "From SIGKILL to the moment when another process's program knows, in ms. A victim as it is has about 25 MB; "
        f"the other has touched 1 GiB, which Linux takes back first. Never: not within {_PATIENCE:g} s."
    )
    metrics = (Metric("ms", "ms"),)
    base = standard.PidfdDeath.name
    targets = (
        Target(
            "victim as it is: at most 0.5 of pidfd",
            machport_daemon.DeadNameDeath.name,
            "",
            _VICTIMS[0],
            "ms",
            of_base=True,
            most=0.5,
        ),
        Target(
            "victim with 1 GiB: at most 0.1 of pidfd",
            machport_daemon.DeadNameDeath.name,
            "",
            _VICTIMS[1024],
            "ms",
            of_base=True,
            most=0.1,
        ),
    )
    peers = (
        standard.PidfdDeath,
        machport_daemon.DeadNameDeath,
        standard.SeqpacketDeath,
        zeromq.MonitorDeath,
        dbus.DaemonOwnerDeath,
        eclipse_zenoh.LivelinessDeath,
        standard.QueueDeath,
    )

    def __init__(self) -> None:
        self._never: set[str] = set()

    def trials(self, plan: Plan) -> Iterator[Trial]:
        for mib, column in _VICTIMS.items():
            if plan.quick and mib:
                continue
            for peer in self.wanted(plan):
                assert issubclass(peer, Death)
                if peer.name not in self._never:
                    yield Trial(peer.name, column, partial(self._measure, peer, mib))

    def _measure(self, kind: type[Death], mib: int) -> list[Sample]:
        with Session(FREE) as session:
            peer = kind()
            address = peer.prepare(session, 64)
            victim = session.start(loops.die, kind, address, mib)
            victim.expect("ready")
            survivor = session.start(loops.survive, kind, address, victim.pid, _PATIENCE)
            survivor.expect("ready")
            # Both are asleep by now, as they would be.
            time.sleep(0.2)
            killed = now()
            os.kill(victim.pid, signal.SIGKILL)
            known = survivor.expect()
        if known is None:
            # It never will, and waiting for it again would take long.
            self._never.add(kind.name)
            return [Sample("", _VICTIMS[mib], {"ms": "never"})]
        return [Sample("", _VICTIMS[mib], {"ms": (known - killed) / 1e6})]
