"""Ends that are too much for one go: the dead are dead at once, and what they had goes slice by slice."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule
from kernel_driver import (
    COPY_SEND,
    DEATH,
    MAKE_SEND,
    MAKE_SEND_ONCE,
    MOVE_RECEIVE,
    PORT_DESTROYED,
    RECEIVE,
    Actor,
    three_tasks,
)
from test_kernel_model import WHO, ManualMachine

from machport.abi import constants as c
from machport.kernel import ports, tasks


def slices_of(actor: Actor, size: int) -> None:
    actor.kernel.slice = size


def carry_on(actor: Actor, count: int) -> None:
    actor.world.call(tasks.carry_on, count)


def finish(actor: Actor) -> None:
    while actor.kernel.unfinished:
        carry_on(actor, 1)


def test_a_task_with_many_names_is_dead_at_once_and_loses_them_in_order() -> None:
    """Section 11 of the ports, with others in between; the task's own port is the last to go."""
    a, b, _ = three_tasks()
    slices_of(a, 3)
    inbox = b.port()
    names = [a.port() for _ in range(5)]
    rights = [b.take(a, name, MAKE_SEND) for name in reversed(names)]
    for right in rights:
        b.request(DEATH, right, inbox)
    own = b.world.call(tasks.mach_task_self, a.task)
    its_port = b.take(a, own, COPY_SEND)
    b.request(DEATH, its_port, inbox)
    a.terminate()
    assert not a.task.active
    assert a.task not in a.kernel.tasks
    assert a.kernel.take_released() == [a.task]
    assert b.told(inbox) == []
    told = []
    for _ in range(7):
        carry_on(a, 1)
        told.append(b.told(inbox))
    assert told == [*[[("dead-name", right)] for right in reversed(rights)], [], [("dead-name", its_port)]]
    assert not a.kernel.unfinished


def test_of_a_port_that_has_yet_to_die_it_is_known_who_has_ended() -> None:
    """It has no holder any more."""
    a, b, _ = three_tasks()
    slices_of(a, 1)
    right = b.take(a, a.port(), MAKE_SEND)
    a.port()
    a.terminate()
    known = ports.describe(b.kernel, b.task, right)
    assert (known.holder, known.last_holder) == (None, a.task.number)
    finish(a)
    known = ports.describe(b.kernel, b.task, right)
    assert (known.holder, known.last_holder) == (None, a.task.number)


def test_a_saved_queue_has_what_came_after_its_holders_end() -> None:
    """A thread of the dead task that waits takes no message from whoever the port goes to (N30)."""
    a, b, d = three_tasks()
    slices_of(a, 1)
    inbox = b.port()
    name = a.port()
    once = a.take(b, inbox, MAKE_SEND_ONCE)
    a.request(PORT_DESTROYED, name, once, how=c.MACH_MSG_TYPE_MOVE_SEND_ONCE)
    right = d.take(a, name, MAKE_SEND)
    thread = a.wait_to_receive(name)
    a.terminate()
    assert thread.result is not None
    assert thread.result.code == c.MACH_RCV_PORT_DIED
    d.send(right, id=7)
    finish(a)
    ((saved, _),) = b.receive(inbox).rights
    assert b.receive(saved).id == 7


def test_a_long_queue_goes_message_by_message_and_whoever_asked_hears_of_the_port_after_it() -> None:
    """The port is dead at once; what was lost in its queue is told in order (P28)."""
    a, b, _ = three_tasks()
    slices_of(a, 3)
    name, inbox, lost = a.port(), b.port(), b.port()
    a.set_qlimit(name, 100)
    right = b.take(a, name, MAKE_SEND)
    b.request(DEATH, right, inbox)
    for _ in range(5):
        b.send(right, reply=lost, reply_disposition=MAKE_SEND_ONCE)
    a.destroy(name)
    assert b.send_error(right) == c.MACH_SEND_INVALID_DEST
    assert b.told(lost) == []
    carry_on(a, 4)
    assert len(b.told(lost)) == 4
    assert b.told(inbox) == []
    finish(a)
    assert len(b.told(lost)) == 1
    assert b.told(inbox) == [("dead-name", right)]


def test_many_requests_on_one_port_are_told_in_order() -> None:
    """One notification is one step."""
    a, b, _ = three_tasks()
    slices_of(a, 3)
    name, inbox = a.port(), b.port()
    rights = [b.take(a, name, MAKE_SEND_ONCE) for _ in range(5)]
    for right in rights:
        b.request(DEATH, right, inbox)
    a.destroy(name)
    carry_on(a, 3)
    assert len(b.told(inbox)) == 2
    finish(a)
    assert b.told(inbox) == [("dead-name", right) for right in rights[2:]]


def test_nested_queues_of_any_number_are_taken_down_in_slices() -> None:
    """A right that was in a message that was in a message: each is a step (P31)."""
    a, _, _ = three_tasks()
    outermost = name = a.port_with_send()
    for _ in range(50):
        inner = a.port_with_send()
        a.send(name, rights=[(inner, MOVE_RECEIVE)])
        name = inner
    innermost = a.port_behind(name)
    slices_of(a, 10)
    a.destroy(outermost)
    steps = 0
    while a.kernel.unfinished:
        assert innermost.active
        carry_on(a, 1)
        steps += 1
    assert not innermost.active
    assert steps == 4


def test_ends_have_their_turns() -> None:
    """A small end that comes after a large one does not wait for all of it."""
    a, b, d = three_tasks()
    slices_of(a, 2)
    for _ in range(200):
        a.port()
    inbox = d.port()
    right = d.take(b, b.port(), MAKE_SEND)
    b.port()
    b.port()
    d.request(DEATH, right, inbox)
    a.terminate()
    b.terminate()
    carry_on(a, 64)
    assert d.told(inbox) == [("dead-name", right)]
    assert len(a.task.space.entries) > 100


class SliceMachine(ManualMachine):
    """Random calls while the ends of others are under way: every right has one holder at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.world.kernel.slice = 2

    @rule(count=st.integers(1, 5))
    def carry_on(self, count: int) -> None:
        self.world.call(tasks.carry_on, count)

    @rule(who=WHO)
    def terminate(self, who: int) -> None:
        """Another task takes the place of the one that ends."""
        ended = self.actors[who].task
        self.actors[who].terminate()
        assert not ended.active
        assert not ended.waiters
        self.waiters = [waiter for waiter in self.waiters if waiter.result is None]
        self.born += 1
        self.actors[who] = Actor(self.world, f"task {self.born}")
        self.actors[who].take(self.actors[who], self.actors[who].port(), MAKE_SEND)

    def teardown(self) -> None:
        """What has ended is gone in the end, with all that it had."""
        for actor in self.actors:
            actor.terminate()
        finish(self.actors[0])
        self.rights_add_up()
        assert all(port.receiver is None for port in self.known if not port.active)
        assert not any(entry.type & RECEIVE for actor in self.actors for entry in actor.task.space.entries.values())


TestSlices = SliceMachine.TestCase
TestSlices.settings = settings(
    max_examples=100,
    stateful_step_count=50,
    derandomize=True,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
