"""What a step of a world costs, and what is told of endless ones."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import pytest
from test_testing_transcripts import everything, leases, work

import machport
from machport import testing
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
        threading.settrace(before)  # type: ignore[arg-type]
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


def watch_in_children() -> None:
    def watch(right: machport.SendRight) -> None:
        right.on_dead_name()
        right.task.allocate().receive()

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
        watch_in_children,
    ],
)
def test_a_step_costs_the_same_however_many_there_have_been(body: Callable[[], None]) -> None:
    def steps(limit: int) -> None:
        with pytest.raises(testing.Livelock):
            testing.run(lambda world: world.process(body), step_limit=limit)

    first, second, third = [instructions(partial(steps, limit)) for limit in (300, 600, 900)]
    assert third - second < 1.1 * (second - first)


@pytest.mark.parametrize("scenario", [everything, leases, work])
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
