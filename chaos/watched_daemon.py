"""A daemon that tells what is in it, and looks at its kernel's invariants while it works: ``python -m`` this module.

Everything is asked for by a signal, so that a look is no task, port or message of the daemon's own.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import select
import signal
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final, Self

import chaos
from machport.carrier.endpoint import VARIABLE
from machport.kernel.invariants import BrokenInvariant, Census, check, queue
from machport.kernel.port import Port
from machport.server.daemon import Daemon
from machport.server.lock import Place, leave, listen

#: Seconds for which a daemon may be busy with something else.
_PATIENCE: Final = 60.0
#: Dead ports that what was done last may still have in its hands.
_LAST_PORTS: Final = 8
#: Where this machport, and chaos with it, is imported from.
_PROJECT: Final = Path(chaos.__file__).parents[1]


@dataclass(frozen=True)
class Figures:
    """What is in a daemon at one moment.

    Attributes:
        tasks, clients: tasks of the kernel, and those of them that have a connection.
        ports, messages, bytes: ports alive, what is queued at them, and how long that is.
        waiters: calls that wait.
        dead_ports: ports that are dead and still in the daemon's memory.
        descriptors, maps, threads: of its process.
        rss: bytes of memory that it has.
        checks: how many times the invariants were looked at.
        broken: what did not hold, "" if everything did.
    """

    tasks: int
    clients: int
    ports: int
    messages: int
    bytes: int
    waiters: int
    dead_ports: int
    descriptors: int
    maps: int
    threads: int
    rss: int
    checks: int
    broken: str

    def differs(self, before: Figures) -> list[str]:
        """What is not as it was before, of the kernel and of the process's descriptors."""
        names = ("tasks", "clients", "ports", "messages", "bytes", "waiters", "descriptors")
        found = [
            f"{name} {getattr(before, name)} -> {getattr(self, name)}"
            for name in names
            if getattr(self, name) != getattr(before, name)
        ]
        if self.dead_ports > before.dead_ports + _LAST_PORTS:
            found.append(f"dead ports {before.dead_ports} -> {self.dead_ports}")
        return found


class WatchedDaemon(Daemon):
    """A daemon that looks at its kernel's invariants after every so many turns, and when it is asked for figures.

    Attributes:
        every: turns between two looks; 0 for only when it is asked.
        asked: whether figures are to be printed.
    """

    every = 0
    asked = False

    def _settle(self) -> None:
        super()._settle()
        self._turns += 1
        if self.asked or (self.every and self._turns % self.every == 0):
            self._check()
        if self.asked:
            self.asked = False
            print(json.dumps(self._figures()), flush=True)

    _turns = 0
    _checks = 0
    _broken = ""

    def _check(self) -> None:
        self._checks += 1
        try:
            check(self.kernel, set(), Counter())
        except BrokenInvariant as error:
            if not self._broken:
                traceback.print_exc()
            self._broken = self._broken or str(error)

    def _figures(self) -> dict[str, int | str]:
        census = Census(self.kernel, set())
        living = list(census.living)
        del census
        with open("/proc/self/statm") as file:
            resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        with open("/proc/self/maps") as file:
            maps = len(file.readlines())
        figures = Figures(
            tasks=len(self.kernel.tasks),
            clients=len(self._clients),
            ports=len(living),
            messages=sum(port.msgcount for port in living),
            bytes=sum(message.size() for port in living for message in queue(port)),
            waiters=sum(len(task.waiters) for task in self.kernel.tasks),
            dead_ports=sum(type(thing) is Port and not thing.active for thing in gc.get_objects()),
            # Less the one by which they are counted.
            descriptors=len(os.listdir("/proc/self/fd")) - 1,
            maps=maps,
            threads=len(os.listdir("/proc/self/task")),
            rss=resident,
            checks=self._checks,
            broken=self._broken,
        )
        return {field.name: getattr(figures, field.name) for field in fields(figures)}


class Watched:
    """A watched daemon in a process of its own, at a socket that processes started from here find.

    Args:
        every: turns of its loop between two looks at the invariants; 0 for only when figures are asked for.
    """

    def __init__(self, every: int = 0) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="machport-")
        self.path = Path(self._directory.name, "daemon.sock")
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._before = os.environ.get(VARIABLE)
        os.environ[VARIABLE] = str(self.path)
        search = os.pathsep.join(filter(None, [str(_PROJECT), os.environ.get("PYTHONPATH", "")]))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "chaos.watched_daemon", str(self.path), str(every)],
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, "PYTHONPATH": search},
            text=True,
        )
        assert self._line().startswith("listening"), self.log()

    def _line(self) -> str:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], _PATIENCE)
        if not ready:
            raise RuntimeError(f"the daemon hangs: {self.log()}")
        return self.process.stdout.readline()

    def look(self) -> Figures:
        """What is in it now, when its invariants were looked at."""
        self.process.send_signal(signal.SIGUSR1)
        line = self._line()
        if not line:
            raise RuntimeError(f"the daemon is gone: {self.log()}")
        return Figures(**json.loads(line))

    def log(self) -> str:
        """What it has written to its standard error: warnings and tracebacks."""
        self._log.seek(0)
        return self._log.read()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        if self._before is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = self._before
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._log.close()
        with contextlib.suppress(OSError):
            self._directory.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def main(path: str, every: str) -> None:
    """Run one until it is killed."""
    os.environ[VARIABLE] = path
    listener, lock = listen(Path(path))
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    daemon = WatchedDaemon(listener, Place(Path(path), lock))
    daemon.every = int(every)
    daemon.stop_on(signal.SIGTERM)

    def ask(*_: object) -> None:
        daemon.asked = True

    signal.signal(signal.SIGUSR1, ask)
    gc.freeze()
    gc.set_threshold(10_000, 20, 1_000_000)
    print("listening", flush=True)
    try:
        daemon.run()
    finally:
        daemon.close()
        leave(Path(path), lock)


if __name__ == "__main__":
    main(*sys.argv[1:])
