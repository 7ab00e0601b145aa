"""The processes of a measurement: fresh interpreters, put on cores, and ended by a deadline.

Everything that a session starts ends with the session, whatever became of the measurement.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

CONTEXT: Final = multiprocessing.get_context("spawn")
_CORES: Final = sorted(os.sched_getaffinity(0))
_PR_SET_PDEATHSIG: Final = 1


class Failed(Exception):
    """A measurement that did not come to its end; the text says why."""


@dataclass(frozen=True)
class Placement:
    """Which core each process of a measurement runs on; None for any.

    Attributes:
        server: who answers, or receives, or dies.
        client: who asks, or sends, or survives.
        helper: daemons between them.
        silence: seconds of silence before each request.
    """

    name: str
    server: int | None
    client: int | None
    helper: int | None = None
    silence: float = 0.0


SPLIT: Final = Placement("split", _CORES[0], _CORES[-1])
SAME: Final = Placement("same core", _CORES[-1], _CORES[-1])
ONE_CORE: Final = Placement("all on one core", _CORES[-1], _CORES[-1], _CORES[-1])
FREE: Final = Placement("free", None, None)
AFTER_SILENCE: Final = Placement("split, after 2 ms of silence", _CORES[0], _CORES[-1], silence=0.002)


class Link:
    """A worker's side of the line to the controller."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def say(self, word: str, value: object = None) -> None:
        self._connection.send((word, value))

    def hear(self) -> Any:
        """What the controller tells, when it does."""
        return self._connection.recv()


class Worker:
    """A fresh interpreter that plays one role of a measurement, and says its result."""

    def __init__(self, session: Session, role: Callable[..., object], arguments: Sequence[Any], core: int | None):
        self._session = session
        self._connection, theirs = CONTEXT.Pipe()
        self._process = CONTEXT.Process(target=_play, args=(role, tuple(arguments), core, theirs), daemon=True)
        self._process.start()
        theirs.close()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def tell(self, value: object = None) -> None:
        self._connection.send(value)

    def expect(self, word: str = "result") -> Any:
        """What comes with the next word, which must be this one.

        Raises:
            Failed: it failed, ended, or said nothing until the session's deadline.
        """
        if not self._connection.poll(self._session.left()):
            raise Failed(f"no {word!r} in {self._session.seconds:g} s")
        try:
            said, value = self._connection.recv()
        except EOFError:
            raise Failed(f"a process ended before {word!r}") from None
        if said == "error":
            raise Failed(value)
        if said != word:
            raise Failed(f"{said!r} instead of {word!r}")
        return value

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        self._connection.close()


def _play(role: Callable[..., object], arguments: Sequence[Any], core: int | None, connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()
    link = Link(connection)
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        link.say("result", role(link, *arguments))
    except BaseException as error:
        traceback.print_exc(file=sys.stderr) if os.environ.get("BENCH_TRACEBACK") else None
        with contextlib.suppress(OSError):
            link.say("error", f"{type(error).__name__}: {error}")
    # Not every library ends by itself.
    os._exit(0)


def die_with_parent() -> None:
    """In a new process: end when the process that started it is killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))


class Session(contextlib.ExitStack):
    """One measurement: its processes, its directory, and the time it may take.

    Args:
        place: where the processes run.
        seconds: the deadline, from now.
    """

    def __init__(self, place: Placement = FREE, seconds: float = 30.0) -> None:
        super().__init__()
        self.place = place
        self.seconds = seconds
        self._end = time.monotonic() + seconds
        self.directory: Path

    def __enter__(self) -> Session:
        super().__enter__()
        self.directory = Path(self.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        return self

    def left(self) -> float:
        """Seconds until the deadline."""
        return max(0.0, self._end - time.monotonic())

    def start(self, role: Callable[..., object], *arguments: Any, core: int | None = None) -> Worker:
        """Start a worker that calls ``role(link, *arguments)``."""
        worker = Worker(self, role, arguments, core)
        self.callback(worker.kill)
        return worker

    def program(self, *command: str, pass_fds: Sequence[int] = ()) -> subprocess.Popen[str]:
        """Start a helper, whose standard output can be read; it is killed at the end."""
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            pass_fds=pass_fds,
            preexec_fn=die_with_parent,
        )
        self.callback(_end, process)
        return process

    def daemon(self, *options: str) -> Daemon:
        """Start a daemon of machport that serves nobody else."""
        path = self.directory / "daemon.sock"
        process = self.program(sys.executable, "-m", "machport.server", "--ready", "--socket", str(path), *options)
        assert process.stdout is not None
        if not select.select([process.stdout], [], [], self.left())[0] or not process.stdout.readline():
            raise Failed("no daemon of machport")
        return Daemon(path, process.pid)

    @contextlib.contextmanager
    def helpers_placed(self) -> Iterator[None]:
        """Within the block, what is started runs where the helpers belong."""
        before = os.sched_getaffinity(0)
        if self.place.helper is not None:
            os.sched_setaffinity(0, {self.place.helper})
        try:
            yield
        finally:
            os.sched_setaffinity(0, before)


@dataclass(frozen=True)
class Daemon:
    """A running daemon: where it listens, and its process."""

    path: Path
    pid: int


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(2)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


# What a process uses


def peak_mib(pid: int | str = "self") -> float:
    """The largest resident set that a process ever had, in MiB."""
    return status(pid, "VmHWM") / 1024


def status(pid: int | str, field: str) -> int:
    """A number of /proc/PID/status; memory is in KiB."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.split(f"{field}:", 1)[1].split(None, 1)[0])


def resident_kib(pid: int | str = "self") -> int:
    """The resident set of a process now, in KiB."""
    return status(pid, "VmRSS")


def private_kib(pid: int) -> int:
    """What a process has resident that no other process shares with it by a file, in KiB."""
    return status(pid, "RssAnon")


def shared_memory_kib() -> int:
    """What the whole machine holds in tmpfs and memfds, in KiB; other programs' too."""
    return int(Path("/proc/meminfo").read_text().split("Shmem:", 1)[1].split(None, 1)[0])


def descriptors(pid: int | str = "self") -> int:
    """How many descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def context_switches(pid: int) -> int:
    """How often the threads of a process were put to sleep or made to wait, until now."""
    total = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        total += status(f"{pid}/task/{thread.name}", "voluntary_ctxt_switches")
        total += status(f"{pid}/task/{thread.name}", "nonvoluntary_ctxt_switches")
    return total


def processor_seconds(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
