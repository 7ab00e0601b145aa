"""How serving begins and ends, versions, and servers that die."""

from __future__ import annotations

import threading
from typing import Any

import msgspec
import pytest
from actors import PATIENCE
from interface_actors import Calculator, Divider, Served, serve_calculator

import machport
from machport.abi import constants as c
from machport.interfaces.naming import DESCRIBE


class Stopper:
    def work(self, stop: bool) -> int:
        raise NotImplementedError

    def carry(self, right: machport.SendRight) -> machport.SendRight:
        raise NotImplementedError

    @machport.oneway
    def leave(self) -> None:
        raise NotImplementedError


class Working:
    def work(self, stop: bool) -> int:
        if stop:
            machport.current_call().stop()
        return 3

    def carry(self, right: machport.SendRight) -> machport.SendRight:
        machport.current_call().stop()
        return right.move()

    def leave(self) -> None:
        machport.current_call().stop()


# Ends


def test_a_routine_may_end_the_serving_and_is_answered(task: machport.Task) -> None:
    with Served(task, Stopper, Working()) as served:
        stopper = machport.proxy(Stopper, served.right, timeout=PATIENCE)
        assert stopper.work(False) == 3
        assert not served.ended.done()
        assert stopper.work(True) == 3
        served.ended.result(PATIENCE)
        # The port is there, for whoever serves it next.
        assert not served.port.closed
        with Served(task, Stopper, Working(), served.port):
            assert stopper.work(False) == 3


def test_a_routine_with_rights_and_a_one_way_one_may_end_the_serving(task: machport.Task) -> None:
    with Served(task, Stopper, Working()) as served:
        back = machport.proxy(Stopper, served.right, timeout=PATIENCE).carry(served.right.copy())
        assert back == served.right
        served.ended.result(PATIENCE)
    with Served(task, Stopper, Working()) as served:
        machport.proxy(Stopper, served.right, timeout=PATIENCE).leave()
        served.ended.result(PATIENCE)


def test_serving_ends_when_the_port_is_closed(task: machport.Task) -> None:
    with Served(task, Calculator, Divider()) as served:
        assert machport.proxy(Calculator, served.right).divide(1, 2) == 0.5
        served.port.close()
        served.ended.result(PATIENCE)


def test_serving_ends_when_nobody_can_call_any_more(task: machport.Task) -> None:
    with Served(task, Calculator, Divider(), until_no_senders=True) as served:
        other = served.right.duplicate()
        assert machport.proxy(Calculator, served.right).divide(1, 2) == 0.5
        served.right.close()
        assert machport.proxy(Calculator, other).divide(1, 2) == 0.5
        other.close()
        served.ended.result(PATIENCE)


def test_serving_waits_for_the_first_sender(task: machport.Task) -> None:
    with Served(task, Calculator, Divider(), task.allocate(), until_no_senders=True) as served:
        with served.port.make_send() as right:
            assert machport.proxy(Calculator, right, timeout=PATIENCE).divide(1, 2) == 0.5
        served.ended.result(PATIENCE)


def test_a_notice_that_senders_went_is_stale_if_there_are_new_ones(task: machport.Task) -> None:
    """N44"""
    with task.allocate() as port:
        first = port.make_send()
        port.request_no_senders(port)
        first.close()
        second = port.make_send()
        with Served(task, Calculator, Divider(), port, until_no_senders=True) as served:
            calculator = machport.proxy(Calculator, second, timeout=PATIENCE)
            assert calculator.divide(1, 2) == 0.5
            assert calculator.divide(1, 2) == 0.5
            second.close()
            served.ended.result(PATIENCE)


def test_a_notice_that_nobody_asked_for_does_not_end_the_serving(task: machport.Task) -> None:
    with Served(task, Calculator, Divider()) as served:
        served.port.request_no_senders(served.port)
        served.port.make_send_once().close()
        served.right.close()
        right = served.port.make_send()
        assert machport.proxy(Calculator, right, timeout=PATIENCE).divide(1, 2) == 0.5


# Versions


class Old:
    def divide(self, a: float, b: float) -> float:
        return a / b


class New:
    def divide(self, a: float, b: float) -> float:
        return a / b

    def multiply(self, a: float, b: float) -> float:
        return a * b


def described(kind: type, name: str, version: tuple[int, int]) -> type:
    return machport.interface(name=name, version=version)(type(kind.__name__, (kind,), {}))


def test_sides_of_one_major_understand_each_other_as_far_as_both_know_a_routine(task: machport.Task) -> None:
    old, new = described(Old, "math", (1, 0)), described(New, "math", (1, 1))
    with Served(task, old, old()) as served:
        proxy: Any = machport.proxy(new, served.right, timeout=PATIENCE)
        assert proxy.divide(1, 2) == 0.5
        with pytest.raises(machport.UnknownRoutine, match=r"the server has math 1\.0") as caught:
            proxy.multiply(1, 2)
        assert caught.value.code == c.MIG_BAD_ID


@pytest.mark.parametrize(("name", "version"), [("math", (2, 0)), ("maths", (1, 0))])
def test_another_interface_is_refused_before_anything_else_is_sent(
    task: machport.Task, name: str, version: tuple[int, int]
) -> None:
    calls: list[float] = []

    class Noting(Old):
        def divide(self, a: float, b: float) -> float:
            calls.append(a)
            return a / b

    server = described(Old, name, version)
    with Served(task, server, Noting()) as served:
        proxy: Any = machport.proxy(described(Old, "math", (1, 0)), served.right, timeout=PATIENCE)
        for _ in range(2):
            with pytest.raises(machport.VersionMismatch, match=rf"{name} {version[0]}\.0.*math 1\.0"):
                proxy.divide(1, 2)
    assert calls == []


def test_a_request_that_waits_is_not_taken_for_another_by_a_successor_of_another_version(task: machport.Task) -> None:
    with task.allocate() as port, port.make_send() as right:
        proxy: Any = machport.proxy(described(Old, "math", (1, 0)), right, timeout=PATIENCE)
        proxy._machport_link.checked = True
        new = described(New, "math", (2, 0))
        with (
            Served(task, new, new(), port),
            pytest.raises(machport.VersionMismatch, match=r"math 2\.0.*math 1\.0"),
        ):
            proxy.divide(1, 2)


# Deaths


def test_a_call_to_a_server_that_is_killed_fails_at_once_and_a_successor_is_asked_what_it_is(
    task: machport.Task,
) -> None:
    port, back = task.allocate(), task.allocate()
    right = port.make_send()
    calculator = machport.proxy(Calculator, right, timeout=PATIENCE)
    port.request_port_destroyed(back)
    child = task.spawn(serve_calculator, port.move())
    assert calculator.divide(1, 2) == 0.5
    child.kill()
    notice = back.receive(PATIENCE)
    assert isinstance(notice, machport.PortDestroyedNotification)

    notice.right.request_port_destroyed(back)
    with task.spawn(serve_calculator, notice.right.move()) as child:
        # The same right, and the same proxy.
        assert calculator.divide(1, 4) == 0.25
        child.kill()
        notice = back.receive(PATIENCE)
        assert isinstance(notice, machport.PortDestroyedNotification)
        notice.right.close()
    with pytest.raises(machport.ServerDied):
        calculator.divide(1, 2)


def test_after_a_death_the_next_server_is_asked_before_it_is_called(task: machport.Task) -> None:
    with task.allocate() as port, port.make_send() as right:
        calculator = machport.proxy(Calculator, right, timeout=PATIENCE)

        def die_once() -> None:
            for _ in range(2):
                with port.receive(PATIENCE) as request:
                    if request.id == DESCRIBE:
                        request.reply(msgspec.msgpack.encode([0, ["Calculator", 1, 0]]))

        thread = threading.Thread(target=die_once)
        thread.start()
        with pytest.raises(machport.ServerDied):
            calculator.divide(1, 2)
        thread.join(PATIENCE)
        other = described(Old, "another", (1, 0))
        with Served(task, other, other(), port), pytest.raises(machport.VersionMismatch):
            calculator.divide(1, 2)
