"""Who gets nothing more when the daemon's memory is short."""

from __future__ import annotations

import pytest

from machport.abi import constants as c
from machport.kernel import ports, tasks
from machport.kernel.kernel import Kernel
from machport.kernel.refusal import Refusal
from machport.kernel.task import Task
from machport.server.configuration import Configuration
from machport.server.limits import Limiter
from machport.server.shortage import Shortage


class Short:
    """Tasks with so many names each, in a daemon that has always too little memory."""

    def __init__(self, *names: int) -> None:
        self.kernel = Kernel()
        self.limiter = Limiter(self.kernel, Configuration(), 100)
        self.now = 0.0
        self.shortage = Shortage(1, self.limiter.accounts, lambda: self.now)
        self.tasks = [self.task(count) for count in names]

    def task(self, count: int) -> Task:
        task = tasks.create_task(self.kernel, "task")
        self.limiter.begin(task, "task")
        self.fill(task, count)
        return task

    def fill(self, task: Task, count: int) -> None:
        for _ in range(count):
            ports.mach_port_allocate(self.kernel, task, c.MACH_PORT_RIGHT_RECEIVE)

    def look(self) -> list[bool]:
        """Which of the tasks get nothing more."""
        self.now += 1
        self.shortage.look()
        return [self.is_held(task) for task in self.tasks]

    def is_held(self, task: Task) -> bool:
        try:
            self.fill(task, 1)
        except Refusal:
            return True
        return False


def test_if_nobody_holds_much_the_largest_are_held_until_they_have_an_eighth_together() -> None:
    """Of a total of 4,100 names that is 513; and more of them only if the daemon has grown."""
    short = Short(*[220] * 10, 300, *[200] * 8)
    expected = [True, *[False] * 9, True, *[False] * 8]
    assert short.look() == expected
    assert short.look() == expected


def test_who_holds_next_to_nothing_is_never_held() -> None:
    assert not any(Short(*[100] * 20).look())


def test_waiting_children_are_summed_with_their_maker() -> None:
    """It has the largest part by what they have, and they get nothing more, either."""
    short = Short(10, *[9000] * 2)
    maker, children = short.tasks[0], [short.task(0) for _ in range(5)]
    for child in children:
        tasks.count_with(child, maker)
        short.fill(child, 5000)
    assert short.look() == [True, True, True]
    assert all(map(short.is_held, children))
    tasks.count_alone(short.kernel, children[0])
    assert not short.is_held(children[0])


@pytest.mark.parametrize("count", [1, 1000])
def test_all_have_their_limits_again_when_it_is_over(count: int) -> None:
    short = Short(count, 1000)
    short.look()
    short.shortage.release()
    assert not any(map(short.is_held, short.tasks))
