"""Import, and the first trap of a user who has no daemon yet."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from bench.harness import FREE, Failed, Session
from bench.results import Figure, Metric, Plan, Sample, Target, Trial

_IMPORT = """
import time
begun = time.perf_counter()
import {module}
elapsed = time.perf_counter() - begun
"""
_FIRST_TRAP = """
import machport, time
begun = time.perf_counter()
machport.Task().allocate()
elapsed = time.perf_counter() - begun
"""
_REPORT = """
import json
peak = int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1024
print(json.dumps({"ms": elapsed * 1000, "memory": peak}))
"""
_MODULES = (
    "machport",
    "multiprocessing.connection",
    "asyncio",
    "zmq",
    "iceoryx2",
    "faster_fifo",
    "dbus_fast.aio",
    "zenoh",
)
_TRAP = "machport.Task().allocate()"


class Start(Figure):
    name = "start"
    title = "Import and start"
    about = (
        "In a fresh interpreter: importing a library, in ms, and the memory of the process then, in MiB; and the first "
        "trap of a user who has no daemon yet, which starts one. Files are in the page cache."
    )
    metrics = (Metric("ms", "ms"), Metric("memory", "MiB"))
    targets = (
        Target("import machport: at most 60 ms", "import machport", "", "", "ms", most=60),
        Target("first trap of a fresh user: at most 300 ms", _TRAP, "", "", "ms", most=300),
    )

    def trials(self, plan: Plan) -> Iterator[Trial]:
        for module in _MODULES:
            name = f"import {module}"
            if find_spec(module.split(".")[0]) and (module == "machport" or plan.wants(name)):
                yield Trial(name, "", partial(_measure, _IMPORT.format(module=module)))
        yield Trial(_TRAP, "", partial(_measure, _FIRST_TRAP))

    def missing(self) -> list[str]:
        return [f"import {module}" for module in _MODULES if not find_spec(module.split(".")[0])]


def _measure(source: str) -> list[Sample]:
    with Session(FREE) as session:
        socket = session.directory / "daemon.sock"
        session.callback(_stop_daemon, socket)
        environment = {**os.environ, "MACHPORT_SOCKET": str(socket)}
        try:
            done = subprocess.run(
                [sys.executable, "-c", source + _REPORT],
                env=environment,
                capture_output=True,
                text=True,
                timeout=session.left(),
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise Failed(str(error)) from None
        if done.returncode:
            raise Failed((done.stderr.strip().splitlines() or ["it failed"])[-1])
    return [Sample("", "", json.loads(done.stdout))]


def _stop_daemon(socket: Path) -> None:
    """End the daemon that a fresh user's first trap has started; its process is written in its lock file."""
    with contextlib.suppress(OSError, ValueError):
        lock = socket.with_name(socket.name + ".lock")
        os.kill(int(lock.read_text()), signal.SIGTERM)
        end = time.monotonic() + 3
        while lock.exists() and time.monotonic() < end:
            time.sleep(0.01)
