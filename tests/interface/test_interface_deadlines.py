"""Time that calls have, and whoever gives up: both reach the server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import msgspec
import pytest
from actors import PATIENCE, Client
from interface_actors import Served

import machport
from machport.interfaces import deadlines
from machport.interfaces.definition import interface_of


class Clock:
    def left(self) -> float | None:
        raise NotImplementedError

    def caller(self) -> tuple[int, int, int]:
        raise NotImplementedError

    def wait(self) -> None:
        raise NotImplementedError

    def passed_on(self) -> float | None:
        raise NotImplementedError


class Service:
    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.cancelled: Future[bool] = Future()
        self.next: Clock | None = None

    def left(self) -> float | None:
        end = machport.current_call().deadline
        return None if end is None else end - time.monotonic()

    def caller(self) -> tuple[int, int, int]:
        call = machport.current_call()
        return (*call.sender, call.pid)

    def wait(self) -> None:
        call = machport.current_call()
        before = call.cancelled
        self.begun.set()
        assert self.go_on.wait(PATIENCE)
        self.cancelled.set_result(not before and call.cancelled)

    def passed_on(self) -> float | None:
        assert self.next is not None
        return self.next.left()


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def served(task: machport.Task, service: Service) -> Iterator[Served]:
    with Served(task, Clock, service) as served:
        yield served


def test_the_nearest_deadline_is_the_calls(served: Served) -> None:
    free, timed = machport.proxy(Clock, served.right), machport.proxy(Clock, served.right, timeout=100)

    def left(clock: Clock) -> float:
        seconds = clock.left()
        assert seconds is not None
        return seconds

    assert free.left() is None
    assert 50 < left(timed) <= 100
    with machport.deadline(1000):
        assert 500 < left(free) <= 1000
        assert 50 < left(timed) <= 100
        with machport.deadline(50), machport.deadline(float("inf")), machport.deadline(500):
            assert 25 < left(free) <= 50
            assert 25 < left(timed) <= 50
        assert 500 < left(free) <= 1000
    assert free.left() is None


@pytest.mark.parametrize("seconds", [-1, float("nan"), "1", None])
def test_a_deadline_is_seconds(seconds: Any) -> None:
    with pytest.raises(machport.InvalidArgument, match="0 or more seconds"):
        machport.deadline(seconds)


def test_the_farthest_deadline_can_be_written_down(served: Served) -> None:
    with machport.deadline(1e300):
        assert machport.proxy(Clock, served.right).left() is not None


def test_a_call_whose_time_is_over_is_not_sent(task: machport.Task) -> None:
    with task.allocate() as port, port.make_send() as right:
        clock = machport.proxy(Clock, right)
        with machport.deadline(0), pytest.raises(machport.TimedOut, match="before it was sent"):
            clock.left()
        assert port.status().msgcount == 0


def test_a_call_that_nobody_answers_in_time_times_out(task: machport.Task) -> None:
    with task.allocate() as port, port.make_send() as right:
        clock = machport.proxy(Clock, right)
        with machport.deadline(0.01), pytest.raises(machport.TimedOut):
            clock.left()


def test_a_request_whose_time_is_over_is_not_begun(served: Served, service: Service) -> None:
    number = interface_of(Clock).routines["wait"].id
    body = msgspec.msgpack.encode([time.monotonic_ns() - 1])
    answer = served.right.call(body, id=number, timeout=PATIENCE)
    from machport.interfaces.failing import error_of

    error = error_of(interface_of(Clock), answer.body, "Clock.wait")
    assert type(error) is machport.TimedOut
    assert "was not begun" in str(error)
    assert not service.begun.is_set()


def test_calls_of_a_routine_inherit_its_deadline(task: machport.Task, served: Served, service: Service) -> None:
    with Served(task, Clock, Service()) as other:
        service.next = machport.proxy(Clock, other.right)
        clock = machport.proxy(Clock, served.right)
        assert clock.passed_on() is None
        with machport.deadline(100):
            left = clock.passed_on()
        assert left is not None
        assert 50 < left <= 100


def test_a_routine_knows_who_calls(served: Served, new_client: Callable[[str], Client], task: machport.Task) -> None:
    import os

    clock = machport.proxy(Clock, served.right, timeout=PATIENCE)
    assert clock.caller() == (os.geteuid(), os.getegid(), os.getpid())


def test_there_is_no_current_call_where_none_is_served(served: Served) -> None:
    with machport.deadline(1), pytest.raises(machport.InvalidArgument, match="no call is being served"):
        machport.current_call()


def test_a_caller_that_gives_up_is_noticed(task: machport.Task, served: Served, service: Service) -> None:
    clock = machport.proxy(Clock, served.right, timeout=PATIENCE)
    clock.left()
    answers = task.allocate()
    served.right.send(msgspec.msgpack.encode([None]), id=interface_of(Clock).routines["wait"].id, reply_to=answers)
    assert service.begun.wait(PATIENCE)
    answers.close()
    service.go_on.set()
    assert service.cancelled.result(PATIENCE)


def test_a_caller_that_is_there_has_not_given_up(served: Served, service: Service) -> None:
    service.go_on.set()
    machport.proxy(Clock, served.right, timeout=PATIENCE).wait()
    assert not service.cancelled.result(PATIENCE)


def test_a_caller_that_is_killed_is_noticed(
    served: Served, service: Service, new_client: Callable[[str], Client]
) -> None:
    client = new_client("caller")
    client.give("right", served.right.copy())
    client.do(f"import sys; sys.path.insert(0, {__file__.rpartition('/')[0]!r})")
    client.do("import test_interface_deadlines; clock = machport.proxy(test_interface_deadlines.Clock, right)")
    client.begin("clock.wait()")
    assert service.begun.wait(PATIENCE)
    client.die()
    service.go_on.set()
    assert service.cancelled.result(PATIENCE)
    assert machport.proxy(Clock, served.right, timeout=PATIENCE).left()


def test_a_call_whose_time_is_over_is_cancelled(task: machport.Task) -> None:
    with task.allocate() as port:
        port.make_send().send()
        with port.receive() as message:
            assert not deadlines.Call(None, message, lambda: None).cancelled
            assert deadlines.Call(time.monotonic_ns(), message, lambda: None).cancelled
            assert not deadlines.Call(time.monotonic_ns() + 10**12, message, lambda: None).cancelled
