"""One process takes all that it can get of the daemon: descriptors, ports, notifications, connections, memory.

Two others go on: their round trips take at most five times as long in the slowest hundredth, while it takes, while it
has, and while the daemon clears up after it was killed; and then the daemon has what it had before.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from chaos.bystander import Bystander, measure_while
from chaos.report import Report

#: Millions of ports and of notifications, unless told otherwise.
AMOUNT: Final = 1.0
UNIT: Final = "million ports and notifications"
#: How many times as long the slowest hundredth of round trips may take.
ASKED: Final = 5.0
#: Seconds of one measurement, and after which what does not come will not.
_SECONDS: Final = 3.0
_PATIENCE: Final = 300.0
#: Bytes of memory that the daemon has to have given back, but for this part of what it had taken.
_KEPT: Final = 0.25
_DESCRIPTORS: Final = 64
_PR_SET_CHILD_SUBREAPER: Final = 36
_MEMORY: Final = 400 << 20
_CORES: Final = len(os.sched_getaffinity(0))


class Scenario(NamedTuple):
    """What is exhausted.

    Attributes:
        attack: a function of ``chaos.attackers``, and what it is given for each million of the amount.
        prepare: what limits the daemon.
        busy: processes that the attack keeps busy.  Where they leave no processor to anybody else, the others are
            compared with how they do beside as many that only count, and not with how they do alone: no daemon can
            give them a processor.
    """

    name: str
    attack: str
    number: float
    prepare: Callable[[], None] | None = None
    busy: int = 1


def _few_descriptors() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (_DESCRIPTORS, _DESCRIPTORS))


def _little_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))


SCENARIOS: Final = (
    Scenario("ulimit -n 64", "descriptors", 1000 / 1e6, _few_descriptors),
    Scenario("ports", "ports", 1),
    Scenario("queued notifications", "notifications", 1),
    Scenario("connections", "connections", 1 / 1e6),
    Scenario("connections from all processors", "connections", _CORES / 1e6, busy=_CORES),
    Scenario("never reads", "never_reads", 1),
    Scenario("limited memory", "memory", 1, _little_memory),
)


class Daemon:
    """A daemon of its own, and what the system knows of it."""

    def __init__(self, path: Path, prepare: Callable[[], None] | None) -> None:
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-m", "machport.server", "--ready", "--socket", str(path)],
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            preexec_fn=prepare,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline().startswith("listening")

    @property
    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    @property
    def resident(self) -> int:
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * resource.getpagesize()

    @property
    def seconds(self) -> float:
        """Processor time that it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.log.close()


@contextlib.contextmanager
def attacker(name: str, number: int) -> Iterator[subprocess.Popen[str]]:
    """One that begins at once; its children end with it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "chaos.attackers", name, str(number)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        # Its children are ours now: the daemon keeps the pidfds of the dead until somebody has collected them.
        with contextlib.suppress(ChildProcessError):
            while True:
                os.waitpid(-process.pid, 0)


def run(report: Report) -> None:
    """Every scenario, one after the other, each with a daemon of its own."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        _run(report)
    finally:
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 0)


def _run(report: Report) -> None:
    for scenario in SCENARIOS:
        with tempfile.TemporaryDirectory(prefix="machport-") as directory:
            path = Path(directory, "daemon.sock")
            os.environ["MACHPORT_SOCKET"] = str(path)
            daemon = Daemon(path, scenario.prepare)
            try:
                with Bystander() as first, Bystander() as second:
                    _exhaust(report, scenario, daemon, [first, second])
            finally:
                daemon.close()
                del os.environ["MACHPORT_SOCKET"]


def _exhaust(report: Report, scenario: Scenario, daemon: Daemon, bystanders: list[Bystander]) -> None:
    measure_while(bystanders, lambda: time.sleep(0.2))
    descriptors, resident = daemon.descriptors, daemon.resident
    used = daemon.seconds
    alone = measure_while(bystanders, lambda: time.sleep(_SECONDS))
    rest = (daemon.seconds - used) / _SECONDS
    with attacker("burn", scenario.busy) as burning:
        _wait_until_reached(burning)
        beside = measure_while(bystanders, lambda: time.sleep(_SECONDS))
    got, most = 0, 0

    def attack() -> None:
        nonlocal got, most
        with attacker(scenario.attack, round(scenario.number * report.amount * 1e6)) as process:
            got = _wait_until_reached(process)
            time.sleep(_SECONDS)
            most = daemon.resident

    during = measure_while(bystanders, attack)
    after = measure_while(bystanders, lambda: _wait_until_idle(daemon, rest))
    if daemon.process.poll() is not None:
        report.anomaly(f"{scenario.name}: the daemon ended with {daemon.process.returncode}")
        return
    left = daemon.descriptors
    if left != descriptors:
        report.anomaly(f"{scenario.name}: the daemon has {left} descriptors and had {descriptors}")
    worst = max(_p99(during), _p99(after))
    name = scenario.name
    report.figure(f"{name}: taken", f"{got}, and {(most - resident) >> 20} MiB of the daemon's")
    for what, taken in (("alone", alone), ("beside busy processes", beside), ("during", during), ("after", after)):
        report.figure(f"{name}: {what}, p50 and p99 of {len(taken)}", f"{_p50(taken):.0f} and {_p99(taken):.0f} us")
    crowded = scenario.busy >= _CORES
    for what, base, counts in (("beside busy processes", beside, crowded), ("alone", alone, not crowded)):
        ratio = worst / _p99(base)
        said = f"{name}: p99 to that {what}"
        if counts:
            report.figure(said, f"{ratio:.2f}", f"at most {ASKED:g}", ratio <= ASKED)
        else:
            report.figure(said, f"{ratio:.2f}")
    kept = daemon.resident - resident
    fair = kept <= max(8 << 20, _KEPT * (most - resident))
    report.figure(f"{name}: memory kept", f"{kept >> 20} MiB", "a quarter at most, or 8 MiB", fair)


def _p50(taken: list[int]) -> float:
    return sorted(taken)[len(taken) // 2] / 1000


def _p99(taken: list[int]) -> float:
    return sorted(taken)[len(taken) * 99 // 100] / 1000


def _wait_until_reached(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], _PATIENCE)
    line = process.stdout.readline() if ready else ""
    if not line.startswith("reached"):
        raise RuntimeError("an attacker failed")
    return int(line.split()[1])


def _wait_until_idle(daemon: Daemon, rest: float) -> None:
    """Until the daemon uses no more of a processor than the bystanders make it, and at least for a while."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        before = daemon.seconds
        time.sleep(_SECONDS / 3)
        if daemon.seconds - before <= (1.5 * rest + 0.05) * _SECONDS / 3 + 0.02:
            return
    raise RuntimeError("the daemon does not come to rest")
