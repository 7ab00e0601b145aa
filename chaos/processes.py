"""Processes that share a queue, and entries of which one can tell that they are whole."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import struct
import traceback
import zlib
from collections.abc import Callable
from typing import Final, Self

from machport import DataQueue
from machport.dataqueue import extension
from machport.ring.sign import Sign

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG: Final = 1
#: Number and checksum before the bytes of a checked entry.
_CHECKED: Final = struct.Struct("=II")
OVERHEAD: Final = _CHECKED.size


class Child:
    """A forked process that does ``work`` and nothing else, and outlives neither the block nor its parent.

    It ends without closing anything, as a process that is killed.
    """

    def __init__(self, work: Callable[[], None]) -> None:
        self.running = True
        self.pid = os.fork()
        if self.pid:
            self.pidfd = os.pidfd_open(self.pid)
            return
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        try:
            work()
            os._exit(0)
        except BaseException:
            os.write(2, f"in process {os.getpid()}:\n{traceback.format_exc()}".encode())
            os._exit(1)

    def poll(self) -> int | None:
        """Its wait status, None while it runs."""
        if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return None
        return self.wait()

    def wait(self) -> int:
        """Its wait status, 0 if it did its work."""
        status = os.waitpid(self.pid, 0)[1]
        self.running = False
        os.close(self.pidfd)
        return status

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.running:
            self.kill()


def with_producer(queue: DataQueue, work: Callable[[DataQueue], None]) -> Child:
    """A child that has the producing end."""
    return _with_end(queue.detach_producer(), work)


def with_consumer(queue: DataQueue, work: Callable[[DataQueue], None]) -> Child:
    """A child that has the consuming end."""
    return _with_end(queue.detach_consumer(), work)


def _with_end(descriptor: int, work: Callable[[DataQueue], None]) -> Child:
    child = Child(lambda: work(DataQueue.from_fd(descriptor)))
    os.close(descriptor)
    return child


def checked_entry(number: int, size: int) -> bytes:
    """An entry of ``size`` bytes beside its number and checksum."""
    data = (number % 251).to_bytes(1, "little") * size
    return _CHECKED.pack(number & 0xFFFFFFFF, zlib.crc32(data)) + data


def check(entry: bytes | memoryview) -> int:
    """The number of an entry that is whole."""
    number, checksum = _CHECKED.unpack_from(entry)
    data = bytes(entry[_CHECKED.size :])
    assert zlib.crc32(data) == checksum, f"entry {number} is torn"
    assert not data.strip(data[:1]), f"entry {number} is mixed"
    return int(number)


class Words:
    """What a queue's two sides tell each other, for somebody who only looks."""

    def __init__(self, queue: DataQueue) -> None:
        start = extension.place(queue.capacity)
        region = queue.memory.mapping
        self._ring = queue.memory.ring
        self._signs = [Sign(region, start + offset) for offset in extension.SIGN]
        self._bells = [Sign(region, start + offset) for offset in extension.BELL]

    def bell(self, role: int) -> int:
        """How the holder of an end sleeps, as it says."""
        return self._bells[role].read()

    def sign(self, role: int) -> int:
        """What the holder of an end says of itself."""
        return self._signs[role].read()

    def wait_until_armed(self, role: int) -> None:
        """Until the holder of an end says that it sleeps; whoever waits here is killed in the end if it never does."""
        while not self.bell(role):
            os.sched_yield()

    def __str__(self) -> str:
        return (
            f"head {self._ring.head}, tail {self._ring.tail} of {self._ring.capacity},"
            f" bells {self.bell(0)} (producer) {self.bell(1)} (consumer),"
            f" signs {self.sign(0):#x} (producer) {self.sign(1):#x} (consumer)"
        )


def state_of(pid: int) -> str:
    """Where a process is, for a report."""
    says = []
    for name in ("wchan", "syscall"):
        try:
            with open(f"/proc/{pid}/{name}") as file:
                says.append(f"{name} {file.read().strip()}")
        except OSError:
            says.append(f"{name} unknown")
    return ", ".join(says)


def descriptors() -> int:
    """How many this process has open, when what nobody refers to is gone."""
    gc.collect()
    return len(os.listdir("/proc/self/fd"))
