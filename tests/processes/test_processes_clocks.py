"""A process that stands still is not dead, and a timeout is as long as it was whatever the time of day becomes."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from actors import PATIENCE, Client, DaemonProcess, Puppet

import machport
from chaos import clocks
from chaos.report import Report
from chaos.shifted_clock import COMPILER, DAY, ShiftedClock
from machport.peer import liveness

NewClient = Callable[[str], Client]
_SEIZE, _INTERRUPT, _DETACH = 0x4206, 0x4207, 17
_WALL = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)

# Processes that stand still


@contextlib.contextmanager
def stopped(puppet: Puppet) -> Iterator[None]:
    puppet.stop()
    yield
    puppet.signal(signal.SIGCONT)


@contextlib.contextmanager
def traced(puppet: Puppet) -> Iterator[None]:
    for request in (_SEIZE, _INTERRUPT):
        assert LIBC.ptrace(request, puppet.pid, None, None) == 0
    os.waitpid(puppet.pid, _WALL)
    yield
    assert LIBC.ptrace(_DETACH, puppet.pid, None, None) == 0


@contextlib.contextmanager
def frozen(puppet: Puppet) -> Iterator[None]:
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    places = [Path(place) for _, place, kind, *_ in mounts if kind == "cgroup2"]
    if not places:
        pytest.skip("there are no control groups of the second version")
    groups = places[0]
    group = groups / f"machport-test-{puppet.pid}"
    try:
        group.mkdir()
        (group / "cgroup.procs").write_text(str(puppet.pid))
        (group / "cgroup.freeze").write_text("1")
    except OSError as error:
        pytest.skip(f"no control group can be frozen here: {error}")
    until = time.monotonic() + PATIENCE
    while "frozen 1" not in (group / "cgroup.events").read_text():
        assert time.monotonic() < until
    try:
        yield
    finally:
        (group / "cgroup.freeze").write_text("0")
        (groups / "cgroup.procs").write_text(str(puppet.pid))
        group.rmdir()


STILL = pytest.mark.parametrize("still", [stopped, traced, frozen])


@STILL
def test_a_process_that_stands_still_is_not_dead(
    still: Callable[[Puppet], contextlib.AbstractContextManager[None]],
    daemon: DaemonProcess,
    task: machport.Task,
    new_client: NewClient,
) -> None:
    """Its port stays and takes messages, nobody is told of a death, and it goes on where it stood."""
    client = new_client("client")
    port = task.allocate()
    client.give("port", port.make_send().move())
    client.begin("port.send(inbox.receive().body + b' and answered')")
    with still(client):
        assert not liveness.is_dead(client.pid)
        client.inbox.send(b"queued")
        # The daemon has looked at all that it knows by the time it answers.
        for _ in range(100):
            task.allocate().close()
        with pytest.raises(machport.TimedOut):
            client.deaths.receive(0)
        with pytest.raises(machport.TimedOut):
            port.receive(0)
        assert client.inbox.describe().holder_pid == client.pid
    assert port.receive(PATIENCE).body == b"queued and answered"
    client.finish()
    client.die()


@STILL
def test_a_sign_of_death_of_a_process_that_stands_still_is_no_death(
    still: Callable[[Puppet], contextlib.AbstractContextManager[None]],
    daemon: DaemonProcess,
    task: machport.Task,
    new_client: NewClient,
) -> None:
    """The thread that held its lifeline ends, and then it stands still while the daemon looks."""
    with Puppet() as puppet:
        puppet.begin(
            "def join():\n"
            "    global task, inbox\n"
            "    task = machport.Task()\n"
            "    inbox = task.check_in('signed')\n"
            "thread = threading.Thread(target=join)\nthread.start()\nthread.join()\nmark()"
        )
        puppet.wait_for_mark()
        puppet.finish()
        right = task.look_up("signed")
        deaths = task.allocate()
        right.request_dead_name(deaths)
        with still(puppet), pytest.raises(machport.TimedOut):
            # All looks that the daemon takes after a sign are over by then.
            deaths.receive(0.6)
        right.send(b"x")
        assert puppet.do("inbox.receive().body") == b"x"


def test_calls_wait_while_the_daemon_stands_still_and_end_as_they_would_have(
    daemon: DaemonProcess, task: machport.Task, new_client: NewClient
) -> None:
    """The daemon counts the time: whoever waits is told after it goes on, and what was sent is not lost."""
    client = new_client("client")
    port = task.allocate()
    client.give("port", port.make_send().move())
    os.kill(daemon.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, daemon.pid, os.WSTOPPED | os.WNOWAIT)
    # It sleeps at the first of them, whose answer nobody gives.
    client.begin("before_sleeping(mark); port.send(b'before'); inbox.receive(0.001)")
    client.wait_for_mark()
    os.kill(daemon.pid, signal.SIGCONT)
    with pytest.raises(AssertionError, match="TimedOut"):
        client.finish()
    assert port.receive(PATIENCE).body == b"before"


# The time of day


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ShiftedClock:
    """Of every process that the test starts from now on."""
    if COMPILER is None:
        pytest.skip("no C compiler is there to make another clock with")
    clock = ShiftedClock(tmp_path)
    for name, value in clock.environment.items():
        monkeypatch.setenv(name, value)
    return clock


IN_LOOP = """
import asyncio, machport.aio
async def in_loop(what):
    waiting = asyncio.ensure_future(what(machport.aio.Task.of(task)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    mark()
    return await waiting
def wait_in_loop(what): return asyncio.run(in_loop(what))
queue = machport.DataQueue(capacity=4096)
def fill(right):
    try:
        while True: right.send(b'', timeout=0)
    except machport.TimedOut: pass
full = task.allocate(qlimit=1); filled = full.make_send(); fill(filled)
def when_asleep(call):
    thread = threading.get_native_id()
    def look():
        while open(f"/proc/self/task/{thread}/stat").read().rpartition(")")[2].split()[0] != "S": pass
        mark()
    threading.Thread(target=look).start()
    return call()
"""
#: What waits for so many seconds.
WAITS = {
    "receive": "before_sleeping(mark); inbox.receive({})",
    "call": "before_sleeping(mark); filled.call(b'', timeout={})",
    "send": "before_sleeping(mark); filled.send(b'', timeout={})",
    "coroutine": "wait_in_loop(lambda own: own.adopt(inbox).receive({}))",
    "data queue": "when_asleep(lambda: queue.dequeue(timeout={}))",
}


def test_a_timeout_that_is_running_ends_in_its_own_time_when_the_clock_jumps(
    clock: ShiftedClock, daemon: DaemonProcess, new_client: NewClient
) -> None:
    """It would wait for a day longer if it counted the time of day."""
    client = new_client("client")
    client.do(IN_LOOP)
    for number, call in enumerate(WAITS.values(), 1):
        before = client.do("__import__('time').time()")
        client.begin(call.format(0.2))
        client.wait_for_mark()
        clock.set(-DAY * number)
        with pytest.raises(AssertionError, match=r"TimedOut|QueueEmpty"):
            client.finish()
        assert abs(client.do("__import__('time').time()") - before + DAY) < DAY / 2


@pytest.mark.parametrize("timeout", [PATIENCE * 2, None])
@pytest.mark.parametrize("wait", ["receive", "coroutine"])
def test_nothing_that_waits_ends_early_when_the_clock_jumps(
    wait: str,
    timeout: float | None,
    clock: ShiftedClock,
    daemon: DaemonProcess,
    task: machport.Task,
    new_client: NewClient,
) -> None:
    """It would be over at once, with a clock that is a day later; and so it gets the message that comes after that."""
    client, other = new_client("client"), new_client("other")
    client.do(IN_LOOP)
    client.begin(f"result = ({WAITS[wait].format(timeout).replace('; ', ', ')})")
    client.wait_for_mark()
    for shift in (-DAY, DAY):
        clock.set(shift)
        # The daemon has looked at its deadlines many times.
        other.do("for _ in range(100): task.allocate().close()")
        with pytest.raises(AssertionError, match="TimedOut"):
            other.do("inbox.receive(0.01)")
    client.inbox.send(b"it came")
    client.finish()
    assert client.do("(result[-1] if isinstance(result, tuple) else result).body") == b"it came"
    # And this daemon does see the other time.
    other.die()
    obituary = other.inbox.describe().obituary
    assert obituary is not None and abs(obituary.when - time.time() - shift) < DAY / 2


def test_a_storm_of_stops_and_jumping_clocks_kills_nobody() -> None:
    """A short run of the long program, which is ``python -m chaos clocks``."""
    report = Report("clocks", "", amount=1.0, unit=clocks.UNIT, seed=6)
    clocks.run(report)
    assert report.good, report.anomalies
