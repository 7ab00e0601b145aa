"""Queues and who waits at them: section 4 of the specification of messages, M11-M17; P6, P22."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from kernel_driver import (
    COPY_SEND,
    MAKE_SEND,
    MAKE_SEND_ONCE,
    MOVE_RECEIVE,
    MOVE_SEND,
    MOVE_SEND_ONCE,
    NO_SENDERS,
    ONCE,
    RECEIVE,
    Actor,
    done,
    parse_result,
    three_tasks,
    waits,
)

from machport.abi import constants as c
from machport.abi import message as layout
from machport.kernel import ports


@pytest.mark.parametrize("qlimit", [0, 1, 2, 5, 16, 1024])
def test_a_queue_takes_ordinary_messages_up_to_its_limit(qlimit: int) -> None:
    """M11: then the sender waits."""
    a, *_ = three_tasks()
    port = a.port()
    a.set_qlimit(port, qlimit)
    assert a.fill(port) == qlimit
    assert a.status(port).msgcount == qlimit
    assert waits(a.wait_to_send(port, MAKE_SEND))


def test_the_default_limit_is_5() -> None:
    """Section 2 of ports."""
    a, *_ = three_tasks()
    assert a.fill(a.port()) == 5


def test_send_once_traffic_and_notifications_ignore_the_limit() -> None:
    """M11, M12, N56: msgcount counts them, ordinary senders then wait until it is below the limit."""
    a, *_ = three_tasks()
    port = a.port()
    a.set_qlimit(port, 1)
    a.fill(port)
    a.send(port, MAKE_SEND_ONCE, id=1)
    a.send(a.take(a, port, MAKE_SEND_ONCE), MOVE_SEND_ONCE, id=2)
    a.deallocate(a.take(a, port, MAKE_SEND_ONCE))
    assert a.status(port).msgcount == 4
    blocked = a.wait_to_send(port, MAKE_SEND, id=3)
    for _ in range(3):
        a.receive(port)
        assert waits(blocked)
    a.receive(port)
    assert done(blocked).code == c.MACH_MSG_SUCCESS
    assert a.told(port) == [("message", 3)]


def test_a_limit_of_0_admits_send_once_traffic_only() -> None:
    """M12."""
    a, *_ = three_tasks()
    port = a.port()
    a.set_qlimit(port, 0)
    blocked = a.wait_to_send(port, MAKE_SEND)
    a.send(port, MAKE_SEND_ONCE, id=1)
    assert a.told(port) == [("message", 1)]
    assert waits(blocked)


@pytest.mark.parametrize("direct", [True, False])
def test_a_waiting_receiver_is_handed_the_message(direct: bool) -> None:
    """M13: first come, first served; the seqno is taken when the message leaves the port."""
    a, *_ = three_tasks()
    port = a.port()
    source = port if direct else a.pset(port)
    waiting = [a.wait_to_receive(source) for _ in range(3)]
    for id in (1, 2):
        a.send(port, MAKE_SEND, id=id)
        assert a.status(port).msgcount == 0
    received = [parse_result(done(waiter)) for waiter in waiting[:2]]
    assert [(message.id, message.seqno) for message in received] == [(1, 0), (2, 1)]
    assert waits(waiting[2])


def test_a_waiting_receiver_admits_a_sender_past_a_limit_of_1() -> None:
    """M13: a message that does not stay does not count."""
    a, *_ = three_tasks()
    port = a.port()
    a.set_qlimit(port, 1)
    waiting = a.wait_to_receive(port)
    a.send(port, MAKE_SEND, id=1)
    a.send(port, MAKE_SEND, id=2)
    assert parse_result(done(waiting)).id == 1
    assert waits(a.wait_to_send(port, MAKE_SEND))


@pytest.mark.parametrize("raised", [1, 2, 3, 4, 9])
def test_raising_the_limit_by_n_lets_n_senders_go_on(raised: int) -> None:
    """M14: in order."""
    a, *_ = three_tasks()
    port = a.port()
    a.set_qlimit(port, 0)
    blocked = [a.wait_to_send(port, MAKE_SEND, id=id) for id in range(4)]
    a.set_qlimit(port, raised)
    assert [not waits(waiter) for waiter in blocked] == [index < raised for index in range(4)]
    assert a.status(port).msgcount == min(raised, 4)


def test_lowering_the_limit_drops_nothing() -> None:
    """Section 5 of ports: and wakes nobody."""
    a, *_ = three_tasks()
    port = a.port()
    a.fill(port)
    a.set_qlimit(port, 2)
    assert a.status(port).msgcount == 5
    blocked = a.wait_to_send(port, MAKE_SEND)
    for _ in range(3):
        a.receive(port)
        assert waits(blocked)
    a.receive(port)
    assert not waits(blocked)


def test_each_dequeue_lets_one_blocked_sender_go_on() -> None:
    """M14: served in order; none starves."""
    a, *_ = three_tasks()
    port = a.port()
    a.set_qlimit(port, 1)
    a.fill(port)
    blocked = [a.wait_to_send(port, MAKE_SEND, id=id) for id in range(4)]
    for index in range(4):
        a.receive(port)
        assert [not waits(waiter) for waiter in blocked] == [other <= index for other in range(4)]
    assert a.told(port) == [("message", 3)]


def test_an_expired_sender_does_not_stop_those_behind_it() -> None:
    """M14."""
    a, *_ = three_tasks()
    port = a.port()
    a.set_qlimit(port, 0)
    first, second = a.wait_to_send(port, MAKE_SEND, id=1), a.wait_to_send(port, MAKE_SEND, id=2)
    assert a.expire(first).code == c.MACH_SEND_TIMED_OUT
    a.set_qlimit(port, 1)
    assert done(second).code == c.MACH_MSG_SUCCESS
    assert a.told(port) == [("message", 2)]


def test_messages_of_one_sender_arrive_in_the_order_sent() -> None:
    """M15, E4: also with the blocked ones."""
    a, *_ = three_tasks()
    port = a.port()
    a.set_qlimit(port, 3)
    for id in range(3):
        a.send(port, MAKE_SEND, id=id)
    for id in range(3, 6):
        a.wait_to_send(port, MAKE_SEND, id=id)
    assert [id for _, id in a.told(port)] == list(range(6))


def test_notifications_and_messages_share_one_queue() -> None:
    """M15, N60: in the order in which they were queued."""
    a, *_ = three_tasks()
    port = a.port()
    first, second = a.take(a, port, MAKE_SEND_ONCE), a.take(a, port, MAKE_SEND_ONCE)
    a.send(port, MAKE_SEND, id=1)
    a.deallocate(first)
    a.send(port, MAKE_SEND, id=2)
    a.deallocate(second)
    assert a.told(port) == [("message", 1), ONCE, ("message", 2), ONCE]


def test_the_send_succeeds_when_the_destination_dies_meanwhile() -> None:
    """M16: and the message is destroyed."""
    a, b, _ = three_tasks()
    port, reply, moved = b.port(), a.port(), a.port_with_send()
    b.set_qlimit(port, 0)
    waiter = a.wait_to_send(
        a.take(b, port, MAKE_SEND), reply=reply, reply_disposition=MAKE_SEND_ONCE, rights=[(moved, MOVE_RECEIVE)]
    )
    b.kill(port)
    assert done(waiter).code == c.MACH_MSG_SUCCESS
    assert a.told(reply) == [ONCE]
    assert a.send_error(moved) == c.MACH_SEND_INVALID_DEST


def test_a_send_and_receive_goes_on_to_receive_when_the_destination_died() -> None:
    """M16, M1: the send succeeded."""
    a, b, _ = three_tasks()
    port, reply = b.port(), a.port()
    b.set_qlimit(port, 0)
    request = layout.pack(layout.bits(COPY_SEND, MAKE_SEND_ONCE), a.take(b, port, MAKE_SEND), reply)
    waiter = a.mach_msg(c.MACH_SEND_MSG | c.MACH_RCV_MSG, request, rcv_name=reply, rcv_limit=100)
    b.kill(port)
    assert parse_result(done(waiter)).told() == ONCE


def test_a_blocked_sender_goes_on_waiting_when_the_right_moves() -> None:
    """M16, P22: and is served where the right went."""
    a, b, other = three_tasks()
    port, inbox = b.port(), other.port()
    b.set_qlimit(port, 0)
    blocked = a.wait_to_send(a.take(b, port, MAKE_SEND), id=8)
    b.send(b.take(other, inbox, MAKE_SEND), rights=[(port, MOVE_RECEIVE)])
    assert waits(blocked)
    moved = other.receive(inbox).rights[0][0]
    other.set_qlimit(moved, 1)
    assert done(blocked).code == c.MACH_MSG_SUCCESS
    assert other.told(moved) == [("message", 8)]


def test_a_task_may_send_to_itself() -> None:
    """M17."""
    a, *_ = three_tasks()
    port = a.port_with_send()
    a.send(port, reply=port, reply_disposition=MAKE_SEND_ONCE, rights=[(port, COPY_SEND)], id=1)
    message = a.receive(port)
    a.send(message.remote, MOVE_SEND_ONCE, id=2)
    assert a.told(port) == [("message", 2)]


def test_a_queued_message_holds_the_right_it_was_sent_with() -> None:
    """P6, P5, N40: the port has a sender, or a send-once right, until it is received."""
    a, *_ = three_tasks()
    port, notify = a.port(), a.port()
    a.send(port, MAKE_SEND)
    a.send(port, MAKE_SEND_ONCE)
    a.request(NO_SENDERS, port, notify, sync=9)
    assert (a.status(port).srights, a.status(port).sorights) == (1, 1)
    assert a.told(notify) == []
    a.receive(port)
    assert a.told(notify) == [("no-senders", 1)]
    a.receive(port)
    assert (a.status(port).srights, a.status(port).sorights) == (0, 0)


def test_the_status_call_tells_only_whether_there_are_senders() -> None:
    """P5: mps_srights is a flag, mps_sorights a count; get_srights has the number."""
    a, b, other = three_tasks()
    port = a.port()
    for task in (b, other):
        task.take(a, port, MAKE_SEND)
        task.take(a, port, MAKE_SEND_ONCE)
    assert a.status(port).srights == 1
    assert a.status(port).sorights == 2
    assert a.srights(port) == 2


# Attributes of a queue


def get(a: Actor, name: int, flavor: int, count: int) -> object:
    return ports.mach_port_get_attributes(a.kernel, a.task, name, flavor, count)


def test_get_attributes_checks_in_order() -> None:
    """Section 5 of ports: flavor 4, count 5, name 15, right 17."""
    a, *_ = three_tasks()
    pset = a.pset()
    for name, flavor, count, code in (
        (0, 0, 0, c.KERN_INVALID_ARGUMENT),
        (0, 4, 99, c.KERN_INVALID_ARGUMENT),
        (0, c.MACH_PORT_LIMITS_INFO, 0, c.KERN_FAILURE),
        (0, c.MACH_PORT_RECEIVE_STATUS, 9, c.KERN_FAILURE),
        (0, c.MACH_PORT_DNREQUESTS_SIZE, 0, c.KERN_FAILURE),
        (0, c.MACH_PORT_LIMITS_INFO, 1, c.KERN_INVALID_NAME),
        (pset, c.MACH_PORT_LIMITS_INFO, 1, c.KERN_INVALID_RIGHT),
        (pset, c.MACH_PORT_RECEIVE_STATUS, 10, c.KERN_INVALID_RIGHT),
    ):
        with a.world.refuses(code):
            get(a, name, flavor, count)


def test_get_attributes_gives_each_flavor() -> None:
    """Section 5, P18: ten words of status in their order."""
    a, b, _ = three_tasks()
    port, notify = a.port_with_send(), a.port()
    pset = a.pset(port)
    a.set_seqno(port, 11)
    a.set_mscount(port, 12)
    a.set_qlimit(port, 13)
    a.send(port, MAKE_SEND_ONCE)
    a.request(c.MACH_NOTIFY_PORT_DESTROYED, port, notify)
    a.request(NO_SENDERS, port, notify)
    a.request(c.MACH_NOTIFY_DEAD_NAME, port, notify)
    b.request(c.MACH_NOTIFY_DEAD_NAME, b.take(a, port, COPY_SEND), notify, caller=a)
    assert get(a, port, c.MACH_PORT_LIMITS_INFO, 1) == [13]
    assert get(a, port, c.MACH_PORT_DNREQUESTS_SIZE, 1) == [2]
    assert get(a, notify, c.MACH_PORT_DNREQUESTS_SIZE, 1) == [0]
    assert get(a, port, c.MACH_PORT_RECEIVE_STATUS, 10) == (pset, 11, 12, 13, 1, 1, 1, 1, 1, 0)


def test_set_attributes_checks_in_order() -> None:
    """Section 5 of ports: flavor 4, count 5, value 18, name 15, right 17."""
    a, *_ = three_tasks()
    pset = a.pset()
    limits = c.MACH_PORT_LIMITS_INFO
    for name, flavor, info, code in (
        (0, c.MACH_PORT_RECEIVE_STATUS, [], c.KERN_INVALID_ARGUMENT),
        (0, limits, [], c.KERN_FAILURE),
        (0, limits, [1025], c.KERN_INVALID_VALUE),
        (0, limits, [-1], c.KERN_INVALID_VALUE),
        (0, limits, [1024], c.KERN_INVALID_NAME),
        (pset, limits, [1024], c.KERN_INVALID_RIGHT),
    ):
        with a.world.refuses(code):
            ports.mach_port_set_attributes(a.kernel, a.task, name, flavor, info)
    port = a.port()
    ports.mach_port_set_attributes(a.kernel, a.task, port, limits, [1024])
    assert a.status(port).qlimit == 1024


Setter = Callable[[Actor, int, int], None]


@pytest.mark.parametrize("setter", [Actor.set_mscount, Actor.set_seqno])
@pytest.mark.parametrize("value", [0, 1, 0xFFFFFFFF])
def test_counts_can_be_set_to_anything(setter: Setter, value: int) -> None:
    """Section 5 of ports, N45: without any notification."""
    a, *_ = three_tasks()
    port, notify, dead = a.port(), a.port(), a.dead_name()
    a.request(NO_SENDERS, port, notify, sync=5)
    setter(a, port, value)
    assert value in (a.status(port).mscount, a.status(port).seqno)
    assert a.told(notify) == []
    assert a.status(port).nsrequest == 1
    with a.world.refuses(c.KERN_INVALID_RIGHT):
        setter(a, dead, value)


def test_moving_the_last_send_right_into_the_own_queue() -> None:
    """P6, N40: the message keeps the port from having no senders."""
    a, *_ = three_tasks()
    port, notify = a.port_with_send(), a.port()
    a.request(NO_SENDERS, port, notify, sync=1)
    a.send(port, MOVE_SEND)
    assert a.type(port) == RECEIVE
    assert a.told(notify) == []
    a.receive(port)
    assert a.told(notify) == [("no-senders", 1)]
