"""A holder's quota: what waits in the queues of all its ports, and who waits for room there."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule
from kernel_driver import (
    COPY_SEND,
    DEATH,
    MAKE_SEND,
    MAKE_SEND_ONCE,
    MOVE_RECEIVE,
    MOVE_SEND_ONCE,
    SEND_POSSIBLE,
    Actor,
    done,
    three_tasks,
    waits,
)
from test_kernel_model import WHO, ManualMachine

from machport.abi import constants as c
from machport.kernel.message import RIGHT_WEIGHT
from machport.kernel.port import UNLIMITED, Quota

HEADER = 24
NOTIFY = c.MACH_SEND_MSG | c.MACH_SEND_NOTIFY | c.MACH_SEND_TIMEOUT


def quota_of(actor: Actor) -> Quota:
    quota = actor.task.space.quota
    assert quota is not None
    return quota


def limit(actor: Actor, messages: int = UNLIMITED, bytes: int = UNLIMITED) -> None:
    actor.world.call(lambda kernel: quota_of(actor).limit_to(messages, bytes))


def wide_port(owner: Actor) -> int:
    """A port whose own queue is never full."""
    name = owner.port()
    owner.set_qlimit(name, 1000)
    return name


def test_messages_and_bytes_count_with_the_holder_of_the_receive_right() -> None:
    """Header, data, memory, and a weight for each right in the body."""
    a, b, _ = three_tasks()
    name = wide_port(a)
    right = b.take(a, name, MAKE_SEND)
    b.send(right, inline=bytes(100))
    assert (quota_of(a).messages, quota_of(a).bytes) == (1, HEADER + 100)
    b.send(right, rights=[(b.port(), MAKE_SEND)])
    assert quota_of(a).bytes == HEADER + 100 + HEADER + 4 + 12 + RIGHT_WEIGHT
    assert (quota_of(b).messages, quota_of(b).bytes) == (0, 0)
    a.told(name)
    assert (quota_of(a).messages, quota_of(a).bytes) == (0, 0)


def test_a_quota_that_is_used_up_makes_senders_to_all_ports_of_the_holder_wait_and_to_nobody_elses() -> None:
    """As a full queue does (M11)."""
    a, b, other = three_tasks()
    limit(a, messages=2)
    first, second = wide_port(a), wide_port(a)
    to_first, to_second = b.take(a, first, MAKE_SEND), b.take(a, second, MAKE_SEND)
    b.send(to_first)
    b.send(to_second)
    assert done(b.try_send(to_first)).code == c.MACH_SEND_TIMED_OUT
    assert done(b.try_send(to_second)).code == c.MACH_SEND_TIMED_OUT
    b.send(b.take(other, wide_port(other), MAKE_SEND))
    a.receive(second)
    b.send(to_first)


def test_a_message_is_accepted_while_less_than_the_limit_is_used() -> None:
    """One that is larger than the whole limit, too: no message waits for ever."""
    a, b, _ = three_tasks()
    limit(a, bytes=50)
    name = wide_port(a)
    right = b.take(a, name, MAKE_SEND)
    b.send(right, inline=bytes(1000))
    waiter = b.wait_to_send(right, inline=bytes(1000))
    a.receive(name)
    assert done(waiter).code == 0


def test_senders_at_several_ports_go_on_in_turn_the_oldest_of_each_first() -> None:
    """Ten that wait at one port do not hold up the one at another."""
    a, b, d = three_tasks()
    limit(a, messages=1)
    full, crowded, lonely = wide_port(a), wide_port(a), wide_port(a)
    b.send(b.take(a, full, MAKE_SEND))
    to_crowded = b.take(a, crowded, MAKE_SEND)
    crowd = [b.wait_to_send(to_crowded, id=number) for number in range(3)]
    alone = d.wait_to_send(d.take(a, lonely, MAKE_SEND), id=9)
    order = []
    everybody = a.pset(full, crowded, lonely)
    for _ in range(5):
        order.append(a.receive(everybody).id)
    assert order == [1, 0, 9, 1, 2]
    assert not any(map(waits, [*crowd, alone]))


def test_a_port_whose_senders_wait_for_room_does_not_pass_those_that_wait_longer() -> None:
    """What leaves its queue makes room for whoever is next."""
    a, b, _ = three_tasks()
    limit(a, messages=2)
    busy, idle = wide_port(a), wide_port(a)
    to_busy = b.take(a, busy, MAKE_SEND)
    b.send(to_busy)
    b.send(to_busy)
    at_idle = b.wait_to_send(b.take(a, idle, MAKE_SEND))
    at_busy = b.wait_to_send(to_busy)
    a.receive(busy)
    assert (waits(at_idle), waits(at_busy)) == (False, True)
    a.receive(busy)
    assert not waits(at_busy)


def test_one_that_gave_up_leaves_its_turn_to_others() -> None:
    """Nobody who is gone keeps room."""
    a, b, _ = three_tasks()
    limit(a, messages=1)
    first, second = wide_port(a), wide_port(a)
    to_first, to_second = b.take(a, first, MAKE_SEND), b.take(a, second, MAKE_SEND)
    b.send(to_first)
    gone, stays = b.wait_to_send(to_first), b.wait_to_send(to_second)
    b.interrupt(gone)
    a.receive(first)
    assert not waits(stays)


def test_a_raised_limit_lets_those_go_on_that_have_room_now() -> None:
    """All of them, if there is room for all."""
    a, b, _ = three_tasks()
    limit(a, messages=0)
    right = b.take(a, wide_port(a), MAKE_SEND)
    waiters = [b.wait_to_send(right) for _ in range(3)]
    limit(a, messages=2)
    assert [waits(waiter) for waiter in waiters] == [False, False, True]


def test_a_queue_moves_with_its_receive_right_once_somebody_receives_it() -> None:
    """In transit it counts with whoever held it last, who cannot get rid of it so."""
    a, b, d = three_tasks()
    limit(a, messages=2)
    full = wide_port(a)
    d.send(d.take(a, full, MAKE_SEND))
    mailbox = b.port()
    to_mailbox = a.take(b, mailbox, MAKE_SEND)
    right = d.take(a, wide_port(a), MAKE_SEND)
    to_moved = d.take(a, full, MAKE_SEND)
    a.send(to_mailbox, rights=[(full, MOVE_RECEIVE)])
    d.send(to_moved)
    assert quota_of(a).messages == 2
    elsewhere, there = d.wait_to_send(right), d.wait_to_send(to_moved)
    b.receive(mailbox)
    assert not waits(elsewhere)
    assert not waits(there)
    assert (quota_of(a).messages, quota_of(b).messages) == (1, 3)


def test_a_queue_that_comes_to_a_full_holder_keeps_its_senders_waiting() -> None:
    """They wait for the new holder's room from then on."""
    a, b, d = three_tasks()
    limit(b, messages=2)
    name = a.port()
    a.set_qlimit(name, 1)
    right = d.take(a, name, MAKE_SEND)
    d.send(right)
    waiter = d.wait_to_send(right)
    mailbox = b.port()
    a.send(a.take(b, mailbox, MAKE_SEND), rights=[(name, MOVE_RECEIVE)])
    d.send(d.take(b, mailbox, MAKE_SEND))
    got = b.receive(mailbox).rights[0][0]
    assert quota_of(b).messages == 2
    b.set_qlimit(got, 5)
    assert waits(waiter)
    b.receive(got)
    assert not waits(waiter)


def test_a_dead_ports_messages_make_room() -> None:
    """So do those of a queue that is destroyed."""
    a, b, _ = three_tasks()
    limit(a, messages=1)
    full, other = wide_port(a), wide_port(a)
    b.send(b.take(a, full, MAKE_SEND))
    waiter = b.wait_to_send(b.take(a, other, MAKE_SEND))
    a.destroy(full)
    assert not waits(waiter)


def test_notifications_and_answers_are_accepted_beyond_the_limit() -> None:
    """They never wait (M12, N56), and there are no more of them than rights."""
    a, b, _ = three_tasks()
    limit(a, messages=0)
    inbox = a.port()
    port = b.port_with_send()
    a.request(DEATH, a.take(b, port, COPY_SEND), inbox)
    once = b.take(a, inbox, MAKE_SEND_ONCE)
    b.destroy(port)
    b.send(once, MOVE_SEND_ONCE)
    assert quota_of(a).messages == 2
    assert len(a.told(inbox)) == 2


@pytest.mark.parametrize("immediate", [False, True])
def test_whoever_asked_for_send_possible_hears_when_the_holder_has_room(immediate: bool) -> None:
    """Also when it is at another port that the room was made (N67, N68)."""
    a, b, _ = three_tasks()
    limit(a, messages=1)
    full, other = wide_port(a), wide_port(a)
    b.send(b.take(a, full, MAKE_SEND))
    right, inbox = b.take(a, other, MAKE_SEND), b.port()
    if immediate:
        b.request(SEND_POSSIBLE, right, inbox, sync=1)
    else:
        b.request(SEND_POSSIBLE, right, inbox)
        assert done(b.try_send(right, option=NOTIFY)).code == c.MACH_SEND_TIMED_OUT
    assert b.told(inbox) == []
    a.receive(full)
    assert b.told(inbox) == [("send-possible", right)]
    b.send(right)


def test_a_limit_that_is_met_is_noted_once_until_the_driver_takes_it() -> None:
    """A flood of refusals is one note with a count."""
    a, b, _ = three_tasks()
    limit(a, messages=1)
    name = wide_port(a)
    right = b.take(a, name, MAKE_SEND)
    b.send(right)
    for _ in range(5):
        b.try_send(right)
    (excess,) = a.kernel.take_exceeded()
    assert (excess.holder, excess.what, excess.limit, excess.use) == (a.task, "messages", 1, 1)
    assert (excess.port, excess.count) == (a.port_behind(name), 5)
    assert a.kernel.take_exceeded() == []
    limit(a, bytes=1)
    b.try_send(right)
    assert [(excess.what, excess.count) for excess in a.kernel.take_exceeded()] == [("bytes", 1)]


def test_a_queue_that_is_full_by_itself_is_not_noted() -> None:
    """That is how senders and receivers keep pace, and no limit of the holder's."""
    a, b, _ = three_tasks()
    name = a.port()
    right = b.take(a, name, MAKE_SEND)
    a.fill(name)
    b.try_send(right)
    assert a.kernel.take_exceeded() == []


def test_names_beyond_the_limit_are_noted() -> None:
    """KERN_NO_SPACE, at whoever asks (P4)."""
    a, _, _ = three_tasks()
    a.task.space.limit = 1
    a.port()
    with a.world.refuses(c.KERN_NO_SPACE):
        a.port()
    (excess,) = a.kernel.take_exceeded()
    assert (excess.holder, excess.what, excess.limit, excess.use, excess.port) == (a.task, "names", 1, 1, None)


def test_what_a_task_waits_to_send_is_limited_and_nothing_else_that_it_sends() -> None:
    """MACH_SEND_NO_BUFFER, before anything is taken; what need not wait goes."""
    a, b, _ = three_tasks()
    full = a.port()
    a.set_qlimit(full, 0)
    right, free = b.take(a, full, MAKE_SEND), b.take(a, wide_port(a), MAKE_SEND)
    quota_of(b).sending_max = HEADER + 12
    waiter = b.wait_to_send(right, inline=bytes(12))
    assert quota_of(b).sending == HEADER + 12
    with b.world.unchanged():
        assert b.send_error(right) == c.MACH_SEND_NO_BUFFER
    b.send(free)
    assert [(excess.what, excess.holder) for excess in b.kernel.take_exceeded()] == [("sending", b.task)]
    b.interrupt(waiter)
    assert quota_of(b).sending == 0
    b.wait_to_send(right)


class QuotaMachine(ManualMachine):
    """Random calls of tasks with small quotas: the sums are those of a recount, and nobody waits for room there is."""

    @initialize()
    def everybody_has_limits(self) -> None:
        for actor in self.actors:
            limit(actor, messages=3)

    @rule(who=WHO, messages=st.integers(0, 5), bytes=st.sampled_from([40, 100, 300, UNLIMITED]))
    def set_limits(self, who: int, messages: int, bytes: int) -> None:
        limit(self.actors[who], messages, bytes)

    @rule(who=WHO)
    def has_no_limits(self, who: int) -> None:
        limit(self.actors[who])


TestQuota = QuotaMachine.TestCase
TestQuota.settings = settings(
    max_examples=150,
    stateful_step_count=50,
    derandomize=True,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
