"""Sleeping at a bell ends when it rings, when the line goes slack, when time is over, and when a signal comes."""

from __future__ import annotations

import importlib.util
import mmap
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from ring_forms import ROOM, U32

from machport.ring import Doorbell, futex, sleeping
from machport.ring.lifeline import Word

PATIENCE = 30.0
FOR_EVER = -1
WAY = 1

HOLDER = """
import sys
from machport.ring import lifeline
memory, offset = lifeline.hold()
print(memory, offset, flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def memory() -> Iterator[mmap.mmap]:
    with mmap.mmap(-1, 4096) as memory:
        yield memory


def state_of(thread: int) -> str:
    """R, S, …: what the system says a thread does."""
    with open(f"/proc/self/task/{thread}/stat") as stat:
        return stat.read().rsplit(")", 1)[1].split()[0]


def until_asleep(thread: int) -> None:
    end = time.monotonic() + PATIENCE
    while state_of(thread) != "S":
        assert time.monotonic() < end


class Sleeper:
    """A thread that sleeps at a bell."""

    def __init__(self, bell: Doorbell, line: Word | None = None) -> None:
        self.answer = -1
        begun = threading.Event()

        def run() -> None:
            begun.set()
            self.answer = sleeping.sleep(bell, WAY, line, FOR_EVER)

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        assert begun.wait(PATIENCE)
        assert self._thread.native_id is not None
        until_asleep(self._thread.native_id)

    def finish(self) -> int:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        return self.answer


def test_the_build_has_made_the_form_that_sleeps() -> None:
    assert sleeping.is_compiled()


def test_who_sleeps_is_woken_by_who_rings(memory: mmap.mmap) -> None:
    """Q11: the bell is rung first, and only then is woken."""
    mine, others = Doorbell(memory, 0), Doorbell(memory, 0)
    mine.arm(WAY)
    sleeper = Sleeper(mine)
    assert others.ring() == WAY
    sleeping.wake(others)
    assert sleeper.finish() == sleeping.RANG
    del mine, others, sleeper


def test_a_bell_that_rang_before_lets_nobody_sleep(memory: mmap.mmap) -> None:
    """Q11: silent, or armed for another way of sleeping."""
    bell = Doorbell(memory, 0)
    assert sleeping.sleep(bell, WAY, None, FOR_EVER) == sleeping.RANG
    bell.arm(WAY + 1)
    assert sleeping.sleep(bell, WAY, None, FOR_EVER) == sleeping.RANG
    del bell


@pytest.mark.parametrize("nanoseconds", [0, 1, 1_000_000])
def test_time_that_is_over_ends_a_sleep(memory: mmap.mmap, nanoseconds: int) -> None:
    bell = Doorbell(memory, 0)
    bell.arm(WAY)
    assert sleeping.sleep(bell, WAY, None, nanoseconds) == sleeping.TIMED_OUT
    del bell


def test_the_death_of_who_would_ring_ends_a_sleep(memory: mmap.mmap) -> None:
    """T15: its lifeline goes slack, before and while one sleeps."""
    bell = Doorbell(memory, 0)
    bell.arm(WAY)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        descriptor, offset = map(int, holder.stdout.readline().split())
        with open(f"/proc/{holder.pid}/fd/{descriptor}", "r+b", buffering=0) as file:
            line = Word(file.fileno(), offset)
        assert sleeping.sleep(bell, WAY, line, 1_000_000) == sleeping.TIMED_OUT
        sleeper = Sleeper(bell, line)
        holder.kill()
        assert sleeper.finish() == sleeping.SLACK
    assert sleeping.sleep(bell, WAY, line, FOR_EVER) == sleeping.SLACK
    del bell, sleeper


def test_what_a_signals_handler_raises_ends_a_sleep(memory: mmap.mmap) -> None:
    class Stop(Exception):
        pass

    def handler(*_: object) -> None:
        raise Stop

    bell = Doorbell(memory, 0)
    bell.arm(WAY)
    main = threading.main_thread()
    assert main.native_id is not None

    def interrupt() -> None:
        until_asleep(main.native_id or 0)
        signal.pthread_kill(main.ident or 0, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handler)
    thread = threading.Thread(target=interrupt)
    try:
        thread.start()
        with pytest.raises(Stop):
            sleeping.sleep(bell, WAY, None, int(PATIENCE * 1e9))
    finally:
        signal.signal(signal.SIGUSR1, before)
        thread.join()
    assert U32.unpack_from(memory)[0] == WAY
    del bell


def test_the_interpreted_form_says_that_it_cannot_sleep() -> None:
    """Q12."""
    spec = importlib.util.spec_from_file_location("machport_ring_sleeping_interpreted", ROOM / "sleeping.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert not module.is_compiled()
    assert futex.sleep_both(None, 0, None, 0, 0) == module.UNABLE
