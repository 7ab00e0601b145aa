"""Processes that talk by rights are stopped and continued at any instant, and the time of day jumps by days meanwhile.

Nobody is told of a death; every request has one answer, the right one; no timeout ends early or never.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import machport
from chaos.report import Report
from chaos.shifted_clock import COMPILER, DAY, ShiftedClock

#: Seconds, unless told otherwise.
AMOUNT: Final = 120.0
UNIT: Final = "seconds"
PAIRS: Final = 5
#: Seconds after which somebody who is not stopped counts as hanging.
PATIENCE: Final = 30.0
#: Seconds of the timeouts that run out.
_SHORT: Final = 0.05

_SERVER: Final = """
import sys, machport
name = sys.argv[1]
task = machport.Task(label=name)
port = task.check_in(name)
print(flush=True)
for request in port:
    request.reply(request.body[::-1])
"""
#: Calls, and lets short timeouts run out, until its input ends; tells how many of each, and what was not as it should.
_CLIENT: Final = """
import select, sys, time, machport
name, patience, short = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
task = machport.Task(label=f"caller of {name}")
server = task.look_up(name)
own = task.allocate()
deaths = task.allocate()
server.request_dead_name(deaths)
print(flush=True)
calls = timeouts = 0
wrong = []
while not wrong and not select.select([0], [], [], 0)[0]:
    for _ in range(20):
        body = str(calls).encode()
        try:
            if server.call(body).body != body[::-1]:
                wrong.append(f"another answer to {body}")
        except machport.MachError as error:
            wrong.append(f"{error}")
        calls += 1
    began = time.monotonic()
    try:
        own.receive(short)
        wrong.append("a message from nowhere")
    except machport.TimedOut:
        if time.monotonic() - began < short:
            wrong.append("a timeout that was too short")
        timeouts += 1
try:
    deaths.receive(0)
    wrong.append(f"{name} was said to be dead")
except machport.TimedOut:
    pass
print(calls, timeouts, *wrong, sep="|", flush=True)
"""


def run(report: Report) -> None:
    """Stop, continue and set clocks until the time is over."""
    chance = random.Random(report.seed)
    with tempfile.TemporaryDirectory(prefix="machport-") as name, contextlib.ExitStack() as ending:
        directory = Path(name)
        clock = None if COMPILER is None else ShiftedClock(directory)
        if clock is None:
            report.notes.append("there is no C compiler: the time of day stayed as it was")
        environment = os.environ | {"MACHPORT_SOCKET": str(directory / "daemon.sock")}
        environment |= {} if clock is None else clock.environment

        def start(*arguments: str) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            ending.enter_context(process)
            ending.callback(process.kill)
            assert process.stdout is not None
            process.stdout.readline()
            return process

        daemon = start("-m", "machport.server", "--ready")
        servers = [start("-c", _SERVER, f"server{number}") for number in range(PAIRS)]
        clients = [start("-c", _CLIENT, f"server{number}", str(PATIENCE), str(_SHORT)) for number in range(PAIRS)]
        with machport.Task(label="watcher", path=directory / "daemon.sock") as watcher, watcher.allocate() as deaths:
            rights = [watcher.look_up(f"server{number}") for number in range(PAIRS)]
            for right in rights:
                right.request_dead_name(deaths)
            stops, jumps = _storm(report, chance, [daemon, *servers, *clients], clock)
            told = [_told(client) for client in clients]
            with contextlib.suppress(machport.TimedOut):
                report.anomaly(f"the watcher was told of a death: {deaths.receive(0)}")
            for process in (daemon, *servers):
                if process.poll() is not None:
                    report.anomaly(f"process {process.pid} ended with {process.returncode}")
        calls = timeouts = 0
        for line in told:
            if line is None:
                report.anomaly("a client hangs, or has ended")
                continue
            calls, timeouts = calls + int(line[0]), timeouts + int(line[1])
            for says in line[2:]:
                report.anomaly(says)
        report.figure("stops", stops)
        report.figure("jumps of the clock", jumps)
        report.figure("calls that were answered once and rightly", calls, "> 0", calls > 0)
        report.figure("timeouts that ended in time", timeouts, "> 0", timeouts > 0)
        report.figure("deaths that were none", sum("dead" in says for says in report.anomalies), "0")


def _storm(
    report: Report, chance: random.Random, processes: list[subprocess.Popen[str]], clock: ShiftedClock | None
) -> tuple[int, int]:
    """Let some of the processes, also the daemon, stand still for a while, again and again; how often."""
    stops = jumps = 0
    end = time.monotonic() + report.amount
    while time.monotonic() < end:
        still = chance.sample(processes, chance.randrange(1, len(processes)))
        for process in still:
            process.send_signal(signal.SIGSTOP)
        if clock is not None and chance.random() < 0.2:
            clock.set(chance.choice((-DAY, 0, DAY)))
            jumps += 1
        time.sleep(chance.random() * 0.02)
        for process in still:
            process.send_signal(signal.SIGCONT)
        stops += len(still)
        time.sleep(chance.random() * 0.02)
    return stops, jumps


def _told(client: subprocess.Popen[str]) -> list[str] | None:
    """What a client tells at its end; None if it does not come to its end."""
    try:
        out, _ = client.communicate("", timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return None
    return out.strip().split("|") if client.returncode == 0 and out.strip() else None
