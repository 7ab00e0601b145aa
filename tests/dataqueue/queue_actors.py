"""Processes that hold an end of a queue, and ways to know what the holder of the other end does."""

from __future__ import annotations

import contextlib
import os
import select
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from actors import PATIENCE

from machport.dataqueue import DataQueue, extension

#: What a holder begins with; ``queue`` is what came by its descriptor.
PRELUDE: Final = """
import ctypes, os, signal, socket, subprocess, sys, threading
sys.argv[0] = "holder"
from machport.dataqueue import DataQueue
from machport.abi.errors import *
def say(*words):
    print(*words, flush=True)
def hear():
    return sys.stdin.readline()
def end_this_thread():
    ctypes.CDLL(None).syscall({exit}, 0)
fd = int(sys.argv[1])
"""
_EXIT: Final = {"x86_64": 60, "aarch64": 93}[os.uname().machine]
TAKE: Final = "queue = DataQueue.from_fd(fd)\n"


class Holder:
    """A process that an end was handed to, which does what its source says and can be spoken with by lines."""

    def __init__(self, descriptor: int, source: str, *, take: bool = True, others: tuple[int, ...] = ()) -> None:
        program = PRELUDE.format(exit=_EXIT) + (TAKE if take else "") + source
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, str(descriptor)],
            pass_fds=(descriptor, *others),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        os.close(descriptor)
        self._heard = b""

    @property
    def pid(self) -> int:
        return self.process.pid

    def line(self) -> str:
        """The next line that it says."""
        assert self.process.stdout is not None
        while b"\n" not in self._heard:
            ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
            assert ready, "the holder says nothing"
            some = os.read(self.process.stdout.fileno(), 4096)
            assert some, self.errors()
            self._heard += some
        line, self._heard = self._heard.split(b"\n", 1)
        return line.decode()

    def go_on(self) -> None:
        """Let it come out of ``hear``."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    def errors(self) -> str:
        """What it wrote to its standard error; ends when it has."""
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()

    def wait(self) -> int:
        """Its exit code, minus the signal that ended it."""
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        self.process.kill()
        self.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


class Waiter:
    """A thread that makes one call; what came of it, or what it raised."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self.value: Any = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.value = self._call()
        except BaseException as error:
            self.error = error

    def finish(self) -> Any:
        """What came of it; raises what it raised."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the call does not end"
        if self.error is not None:
            raise self.error
        return self.value


def bell(queue: DataQueue, role: int, descriptor: int = -1) -> int:
    """How the holder of an end says that it sleeps; 0 while it does not."""
    if descriptor < 0:
        descriptor = queue.memory.fileno()
    place = extension.place(queue.capacity) + extension.BELL[role]
    return int(struct.unpack("=I", os.pread(descriptor, 4, place))[0])


def until(condition: Callable[[], bool]) -> None:
    """Return when something has come about; gives the processor away as long as it has not."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it does not come about"
        os.sched_yield()


def until_asleep(queue: DataQueue, role: int, way: int | None = None) -> None:
    """Return when the holder of an end has said that it sleeps, in this way if one is given."""
    until(lambda: bell(queue, role) != 0 if way is None else bell(queue, role) == way)


def is_readable(descriptor: int, seconds: float = 0) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def descriptors() -> int:
    """How many this process has open."""
    return len(os.listdir("/proc/self/fd"))


def maps() -> int:
    """How many queues' memories this process has mapped."""
    return Path("/proc/self/maps").read_text().count("machport-dataqueue")
