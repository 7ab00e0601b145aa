"""What a step of a world costs, and what is told of endless ones."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import sys
import threading
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import pytest
from test_testing_transcripts import everything, leases, small_receive, work

import machport
from machport import mach, testing
from machport.abi import message as layout
from machport.abi import traps as t
from machport.testing import machine
from machport.testing.sendonce import SendOnceRights

HERE = machine.__file__.rpartition("/")[0]


def instructions(act: Callable[[], object]) -> int:
    """How many instructions of Python ``machport.testing`` carries out meanwhile, in all threads."""
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        if event == "call":
            if not frame.f_code.co_filename.startswith(HERE):
                return None
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
        elif event == "opcode":
            count += 1
        return trace

    before = sys.gettrace()
    threading.settrace(trace)
    sys.settrace(trace)
    try:
        act()
    finally:
        sys.settrace(before)
        threading.settrace(before)
    return count


def ask_a_dead_port() -> None:
    port = machport.task_self().allocate()
    right = port.make_send()
    port.close()
    while True:
        with pytest.raises(machport.DeadPort):
            right.call(b"again")


def make_ports_and_close_them() -> None:
    while True:
        machport.task_self().allocate().close()


def make_ports_and_keep_them() -> None:
    kept = []
    while True:
        kept.append(machport.task_self().allocate())


def begin_and_end_children() -> None:
    while True:
        machport.task_self().spawn(int).join(timeout=100)


def watch(right: machport.SendRight) -> None:
    right.on_dead_name()
    right.task.allocate().receive()


def let_children_watch_and_kill_them() -> None:
    port = machport.task_self().allocate()
    while True:
        with machport.task_self().spawn(watch, port.make_send().move()) as child:
            child.join(timeout=1)


@pytest.mark.parametrize(
    "body",
    [
        ask_a_dead_port,
        make_ports_and_close_them,
        make_ports_and_keep_them,
        begin_and_end_children,
        let_children_watch_and_kill_them,
    ],
)
def test_a_step_costs_the_same_however_many_there_have_been(body: Callable[[], None]) -> None:
    def steps(limit: int) -> None:
        with pytest.raises(testing.Livelock):
            testing.run(lambda world: world.process(body), step_limit=limit)

    first, second, third = [instructions(partial(steps, limit)) for limit in (300, 600, 900)]
    assert third - second < 1.1 * (second - first)


def test_what_is_over_is_not_looked_at_again() -> None:
    """Threads of processes that were killed, and the times of waits that ended before."""
    with testing.World() as world:
        with world.task() as task:
            port = task.allocate()
            right = port.make_send()
            for _ in range(10):
                process = world.process(watch, right.copy())
                process.join(timeout=1)
                process.kill()
                process.join(timeout=1000)
        assert (len(world._helped), len(world._timers), len(world._owners)) == (0, 0, 0)
        assert world.now == 10
        with pytest.raises(testing.Deadlock):
            world.task().allocate().receive()
        assert world.now == 10


def other_ways(world: testing.World) -> None:
    """Send-once rights that others make, that a batch makes, and that are used by a message that nobody reads."""
    task = world.task("main")
    port, back, answers, tight = task.allocate(), task.allocate(), task.allocate(), task.allocate(qlimit=1)
    child, right = task.calls.task_create(task.name), tight.make_send()
    request = layout.pack(layout.bits(mach.MACH_MSG_TYPE_COPY_SEND, 21), right.name, answers.name)
    task.carrier.trap(t.pack_send_many([request]))
    tight.receive().close()
    task.calls.mach_port_insert_right(child, 0x7777, tight.move().right.name, mach.MACH_MSG_TYPE_MOVE_RECEIVE)
    task.calls.mach_port_extract_right(child, 0x7777, mach.MACH_MSG_TYPE_MAKE_SEND_ONCE)
    port.request_port_destroyed(back)
    once = port.make_send_once()
    reader = world.process(small_receive, port.move())
    reader.join(timeout=1)
    once.send(b"handed over, and not read")
    reader.kill()
    notice = back.receive()
    assert isinstance(notice, machport.PortDestroyedNotification)
    assert notice.right.status().sorights == 1


@pytest.mark.parametrize("scenario", [other_ways, everything, leases, work])
def test_no_port_with_a_send_once_right_is_overlooked(
    scenario: Callable[[testing.World], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """N50: also where a message that nobody has read goes back to its queue."""
    looked_at = 0
    settle = SendOnceRights.settle

    def settle_and_look(self: SendOnceRights) -> None:
        nonlocal looked_at
        settle(self)
        having = {port: port.sorights for port in self._made if port.active and port.sorights}
        assert having == {port: count for port, count in self.counted.items() if count}
        looked_at += len(having)

    monkeypatch.setattr(SendOnceRights, "settle", settle_and_look)
    testing.run(scenario)
    assert looked_at


# What is told of endless ones


def retry(right: machport.SendRight) -> None:
    while True:
        with contextlib.suppress(machport.DeadPort):
            right.call(b"again")


def at(function: Callable[..., object], line: int) -> str:
    return f"at {os.path.relpath(__file__)}:{function.__code__.co_firstlineno + line} in {function.__name__}"


def test_a_livelock_tells_what_the_last_calls_were_and_how_they_failed() -> None:
    def endless(world: testing.World) -> None:
        port = world.task().allocate()
        right = port.make_send()
        world.label(right, "jobs")
        world.process(small_receive, port.move(), label="server")
        world.process(retry, right.copy(), label="client")

    with pytest.raises(testing.Livelock) as caught:
        testing.run(endless, step_limit=200)
    first, *rest = str(caught.value).splitlines()
    assert first.startswith("the processes made 200 steps and are not done; give the world a higher step_limit")
    assert first.endswith("; of the last 50 steps")
    called = re.escape(f", {at(retry, 3)}; ") + r"all of its (\d+) calls failed with DeadPort"
    (line,) = [line for line in rest if "'jobs'" in line]
    found = re.fullmatch(r"  client made (\d+) in call to 'jobs'" + called, line)
    assert found is not None
    assert found[1] == found[2]
    assert all(line.startswith("  client made ") for line in rest)


def test_a_livelock_tells_the_name_of_what_was_never_alive() -> None:
    def endless(world: testing.World) -> None:
        world.process(ask_a_dead_port)

    with pytest.raises(testing.Livelock, match=r"ask_a_dead_port made \d+ in call to name 0x[0-9a-f]+, at "):
        testing.run(endless, step_limit=100)


@pytest.mark.parametrize("step_limit", [100, 2000])
def test_a_test_that_never_ends_by_itself_is_given_up(step_limit: int) -> None:
    """It closes what it holds then, and to set up a world with few steps is not endless."""

    def endless(world: testing.World) -> None:
        with world.task().allocate() as port:
            ports.append(port)
            while True:
                port.status()

    ports: list[machport.ReceiveRight] = []
    limit = max(step_limit, 1000)
    with pytest.raises(testing.Livelock, match=rf"the test itself made {limit} calls.*now {re.escape(at(endless, 4))}"):
        testing.run(endless, step_limit=step_limit)
    assert ports[0].closed


def test_a_livelock_tells_of_everybody() -> None:
    """With calls that wait, and calls that are no messages; what only sleeps makes no call."""

    def sleep(world: testing.World) -> None:
        while True:
            world.sleep(1)

    def ask(port: machport.ReceiveRight) -> None:
        for number in itertools.count():
            with contextlib.suppress(machport.TimedOut):
                port.receive(timeout=1)
            with contextlib.suppress(machport.InvalidName):
                port.task.calls.mach_port_type(port.task.name, port.name if number % 2 else 0x7777)

    with testing.World(step_limit=60) as world:
        port = world.task().allocate()
        world.label(port, "jobs")
        world.process(ask, port.move())
        world.process(sleep, world)
        with pytest.raises(testing.Livelock) as caught:
            world.run()
        lines = sorted(str(caught.value).splitlines()[1:])
        assert [re.sub(r"\d+", "N", line.partition(", at ")[0]) for line in lines] == [
            "  ask made N in mach_port_type",
            "  ask made N in receive at 'jobs'",
            "  sleep made N waiting for N s to pass",
        ]
        assert re.search(r"; \d+ of its \d+ calls failed with InvalidName$", lines[0])
        assert re.search(r"; all of its \d+ calls failed with TimedOut$", lines[1])
        assert lines[2].endswith(at(sleep, 2))


def test_a_livelock_of_beginners_tells_that_they_began() -> None:
    with testing.World(step_limit=1) as world:
        world.process(small_receive, world.task().allocate().move(), label="a")
        with pytest.raises(testing.Livelock, match=r"of the last 1 steps\n  a began$"):
            world.run()
