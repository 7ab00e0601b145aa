"""A daemon that is replaced again and again under load, and new and old processes that are killed while it is.

Every request of every client is answered once, in order; nothing stays behind; clients notice only that some calls took
longer.
"""

from __future__ import annotations

import contextlib
import functools
import mmap
import os
import random
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from chaos.processes import Child
from chaos.report import Report
from machport import DeadPort, InvalidName, MachError, SendRight, Task
from machport.client.upgrade import upgrade
from machport.server import fault

#: Upgrades, unless told otherwise.
AMOUNT: Final = 1000
UNIT: Final = "upgrades"
CALLERS: Final = 3
#: Seconds after which a client counts as hanging.
PATIENCE: Final = 20.0
#: Every so many requests have a long body, which does not go by the rings.
_LONG_EVERY: Final = 50
_LONG: Final = bytes(600_000)
#: Messages that lie in a queue all the time.
_KEPT: Final = 200
#: Upgrades before the first figures of the daemon's size are taken.
_WARM: Final = 5
#: Steps of the old process after which the new one goes on by itself.
_COMPLETE: Final = fault.OLD_STEPS[fault.OLD_STEPS.index("old has sent") :]


class Board:
    """What the clients tell the driver, in memory that they share: for each, requests, its longest call, and faults."""

    def __init__(self) -> None:
        self._words = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("d")

    def field(self, client: int, which: int) -> float:
        return self._words[3 * client + which]

    def set(self, client: int, which: int, value: float) -> None:
        self._words[3 * client + which] = value


_REQUESTS, _LONGEST, _FAULTS = range(3)


def run(report: Report) -> None:
    """Replace a daemon, and look whether anybody noticed."""
    chance = random.Random(report.seed)
    with tempfile.TemporaryDirectory(prefix="machport-") as directory:
        path = Path(directory, "daemon.sock")
        environment = {**os.environ, fault.VARIABLE: str(path.with_name("fault"))}
        command = [sys.executable, "-m", "machport.server", "--ready", "--socket", str(path)]
        log = Path(directory, "log")
        with (
            log.open("w") as errors,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=environment) as daemon,
        ):
            assert daemon.stdout is not None
            daemon.stdout.readline()
            try:
                _Upgrades(report, chance, path).run(int(report.amount))
            finally:
                _stop(path)
            if "Traceback" in (said := log.read_text()):
                report.anomaly(f"a daemon wrote: {said}")


class _Upgrades:
    def __init__(self, report: Report, chance: random.Random, path: Path) -> None:
        self.report = report
        self.chance = chance
        self.path = path
        self.board = Board()
        self.stalls = list[float]()
        self.longest = list[float]()
        self.sizes = list[tuple[int, int, int]]()
        self.killed = {"new": 0, "old": 0}

    @property
    def pid(self) -> int:
        return int(self.path.with_name(self.path.name + ".lock").read_text())

    def run(self, amount: int) -> None:
        works: list[Callable[[], None]] = [
            self._serve,
            *(functools.partial(self._call, number) for number in range(1, CALLERS + 1)),
        ]
        with contextlib.ExitStack() as ends:
            # Forked before this process has a task of its own.
            children = [ends.enter_context(Child(work)) for work in works]
            task = ends.enter_context(Task(label="driver", path=self.path))
            kept = task.allocate(qlimit=_KEPT)
            kept.make_send().send_many([bytes([number % 256]) * 100 for number in range(_KEPT)])
            self._wait_for_progress(children)
            for number in range(amount):
                self._upgrade(number)
                if not self._wait_for_progress(children) or len(self.report.anomalies) > 10:
                    break
            self._tell()
            bodies = [message.body for message in kept.receive_many(_KEPT)]
            if bodies != [bytes([number % 256]) * 100 for number in range(_KEPT)]:
                self.report.anomaly("messages that lay in a queue are not those that were sent")

    def _upgrade(self, number: int) -> None:
        for client in range(1, CALLERS + 1):
            self.board.set(client, _LONGEST, 0.0)
        draw, pid = self.chance.random(), self.pid
        step = ""
        if draw < 0.2:
            step = self.chance.choice(fault.NEW_STEPS[:-1])
        elif draw < 0.25:
            step = self.chance.choice(_COMPLETE)
        if step:
            self.path.with_name("fault").write_text(f"kill {step}")
        who = step.partition(" ")[0]
        try:
            done = upgrade(self.path)
            if who == "new":
                self.report.anomaly(f"upgrade {number}: the new process was killed, and is the daemon: {step}")
            self.stalls.append(done.stall_us / 1000)
        except MachError as error:
            if who != "new" or self.pid != pid:
                self.report.anomaly(f"upgrade {number} failed ({step or 'nobody was killed'}): {error}")
        if step:
            self.killed[who] += 1
        if number >= _WARM and not step:
            process = Path("/proc", str(self.pid))
            pages = int((process / "statm").read_text().split()[1])
            maps = len((process / "maps").read_text().splitlines())
            self.sizes.append((pages * mmap.PAGESIZE // 1024, len(os.listdir(process / "fd")), maps))

    def _wait_for_progress(self, children: list[Child]) -> bool:
        """Wait until every caller has been answered twice from now on; False if one is not, or has ended."""
        began = [self.board.field(client, _REQUESTS) for client in range(1, CALLERS + 1)]
        deadline = time.monotonic() + PATIENCE
        while any(self.board.field(client + 1, _REQUESTS) < count + 2 for client, count in enumerate(began)):
            if any(child.poll() is not None for child in children if child.running):
                self.report.anomaly("a client has ended")
                return False
            if time.monotonic() > deadline:
                self.report.anomaly("a client hangs")
                return False
            time.sleep(0.001)
        self.longest.append(1000 * max(self.board.field(client, _LONGEST) for client in range(1, CALLERS + 1)))
        return True

    def _tell(self) -> None:
        report, board = self.report, self.board
        requests = sum(board.field(client, _REQUESTS) for client in range(1, CALLERS + 1))
        lost = sum(board.field(client, _FAULTS) for client in range(CALLERS + 1))
        report.figure("upgrades", len(self.stalls))
        report.figure("new processes killed, at any step", self.killed["new"])
        report.figure("old processes killed, after they had said all", self.killed["old"])
        report.figure("requests", f"{requests:,.0f}")
        report.figure("requests or answers lost, repeated or out of order", f"{lost:.0f}", "0", lost == 0)
        for name, column, slack in (("resident KiB", 0, 0.05), ("descriptors", 1, 0.0), ("mappings", 2, 0.05)):
            sizes = [size[column] for size in self.sizes]
            part = len(sizes) // 2
            if part < 2:
                continue
            # The least: at times somebody who has asked is still connected.
            first, last = min(sizes[:part]), min(sizes[part:])
            report.figure(f"{name}, first and last", f"{first:g} and {last:g}", "flat", last <= first * (1 + slack))
        for name, times in (
            ("nobody was served, as the daemon counts, ms", self.stalls),
            ("longest call of a client during an upgrade, ms", self.longest),
        ):
            times = sorted(times)
            p99 = times[min(len(times) - 1, int(len(times) * 0.99))]
            report.figure(f"{name}: median, p99", f"{statistics.median(times):.1f}, {p99:.1f}")

    def _serve(self) -> None:
        """Answer, and see that nothing is missing."""
        with Task(label="server", path=self.path) as task:
            last = [0] * (CALLERS + 1)
            for request in task.check_in("echo"):
                caller, number = request.view[0], int.from_bytes(request.view[1:9], "little")
                if number != last[caller] + 1:
                    self.board.set(0, _FAULTS, self.board.field(0, _FAULTS) + 1)
                last[caller] = number
                # At the end of a run the callers are killed.
                with contextlib.suppress(DeadPort):
                    request.reply(bytes(request.view[:9]))

    def _call(self, caller: int) -> None:
        with Task(label=f"caller {caller}", path=self.path) as task:
            server = _look_up(task)
            number = 0
            while True:
                number += 1
                head = bytes([caller]) + number.to_bytes(8, "little")
                began = time.monotonic()
                answer = server.call(head + _LONG if number % _LONG_EVERY == 0 else head).body
                took = time.monotonic() - began
                if answer != head:
                    self.board.set(caller, _FAULTS, self.board.field(caller, _FAULTS) + 1)
                if took > self.board.field(caller, _LONGEST):
                    self.board.set(caller, _LONGEST, took)
                self.board.set(caller, _REQUESTS, number)


def _look_up(task: Task) -> SendRight:
    """The server, which may only be starting."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return task.look_up("echo")
        except InvalidName:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _stop(path: Path) -> None:
    """Stop whichever process is the daemon, and wait until it has ended."""
    pid = int(path.with_name(path.name + ".lock").read_text())
    pidfd = os.pidfd_open(pid)
    os.kill(pid, signal.SIGTERM)
    select.select([pidfd], [], [], PATIENCE)
    os.close(pidfd)
