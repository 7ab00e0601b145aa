"""Port death: section 9 of the specification of ports, P30-P32."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from kernel_driver import (
    COPY_SEND,
    DEAD_NAME,
    DEATH,
    MAKE_SEND,
    MAKE_SEND_ONCE,
    MOVE_RECEIVE,
    MOVE_SEND,
    MOVE_SEND_ONCE,
    NO_SENDERS,
    NULL,
    ONCE,
    PORT_DESTROYED,
    RECEIVE,
    SEND,
    Actor,
    done,
    three_tasks,
)

from machport.abi import constants as c
from machport.kernel import ports


def by_mod_refs(a: Actor, port: int, b: Actor) -> None:
    a.kill(port)


def by_destroy(a: Actor, port: int, b: Actor) -> None:
    a.destroy(port)


def by_destruct(a: Actor, port: int, b: Actor) -> None:
    a.world.call(ports.mach_port_destruct, a.task, port, 0, 0)


def by_termination(a: Actor, port: int, b: Actor) -> None:
    a.terminate()


def by_message_destruction(a: Actor, port: int, b: Actor) -> None:
    inbox = b.port()
    a.send(a.take(b, inbox, MAKE_SEND), rights=[(port, MOVE_RECEIVE)])
    b.kill(inbox)


def by_failed_insert(a: Actor, port: int, b: Actor) -> None:
    with a.world.refuses_and_consumes(c.KERN_INVALID_VALUE):
        b.insert(NULL, port, MOVE_RECEIVE, caller=a)


WAYS = pytest.mark.parametrize(
    "die", [by_mod_refs, by_destroy, by_destruct, by_termination, by_message_destruction, by_failed_insert]
)
Way = Callable[[Actor, int, Actor], None]


@WAYS
def test_a_dying_port_turns_its_rights_into_dead_names(die: Way) -> None:
    """Section 9 step 6, N14, N17: with the same urefs, +1 where a request was registered."""
    a, b, other = three_tasks()
    port, notify = a.port(), other.port()
    plain, asked = b.take(a, port, MAKE_SEND), other.take(a, port, MAKE_SEND)
    b.mod_refs(plain, 0, 2)
    other.request(DEATH, asked, notify)
    once = b.take(a, port, MAKE_SEND_ONCE)
    die(a, port, b)
    assert (b.type(plain), b.urefs(plain)) == (DEAD_NAME, 3)
    assert (b.type(once), b.urefs(once)) == (DEAD_NAME, 1)
    assert (other.type(asked), other.urefs(asked)) == (DEAD_NAME, 2)
    assert other.told(notify) == [("dead-name", asked)]


@WAYS
def test_a_port_destroyed_request_saves_the_port(die: Way) -> None:
    """Section 9 step 2, N18, N28: in every way of dying; no dead-name request fires."""
    a, b, other = three_tasks()
    port, heir, notify = a.port(), other.port(), other.port()
    send = other.take(a, port, MAKE_SEND)
    other.request(DEATH, send, notify)
    a.request(PORT_DESTROYED, port, a.take(other, heir, MAKE_SEND_ONCE), how=MOVE_SEND_ONCE)
    die(a, port, b)
    assert other.told(notify) == []
    assert other.told(heir) == [("port-destroyed", send)]
    assert other.status(send).pdrequest == 0


@WAYS
def test_waiting_receivers_and_blocked_senders_are_released(die: Way) -> None:
    """Section 9 steps 1 and 3, M16: PORT_DIED for the one, success for the others."""
    a, b, other = three_tasks()
    empty, full, reply = a.port(), a.port(), other.port()
    a.set_qlimit(full, 0)
    receiver = a.wait_to_receive(empty)
    sender = other.wait_to_send(other.take(a, full, MAKE_SEND), reply=reply, reply_disposition=MAKE_SEND_ONCE)
    die(a, empty, b)
    if die is not by_termination:
        die(a, full, b)
    assert done(receiver).code == c.MACH_RCV_PORT_DIED
    assert done(sender).code == c.MACH_MSG_SUCCESS
    assert other.told(reply) == [ONCE]


@WAYS
def test_a_dying_port_answers_every_request_in_its_queue(die: Way) -> None:
    """Section 9 step 5, M31: 71 on the reply port of each."""
    a, b, other = three_tasks()
    port, reply = a.port(), other.port()
    send = other.take(a, port, MAKE_SEND)
    for _ in range(3):
        other.send(send, reply=reply, reply_disposition=MAKE_SEND_ONCE)
    die(a, port, b)
    assert other.told(reply) == [ONCE] * 3


def test_the_no_senders_request_ends_before_the_queue_and_the_dead_names_after_it() -> None:
    """Section 9 steps 4, 5, 7, D12, N48."""
    a, b, _ = three_tasks()
    port, notify = a.port(), b.port()
    send = b.take(a, port, MAKE_SEND)
    a.request(NO_SENDERS, port, a.take(b, notify, MAKE_SEND_ONCE), how=MOVE_SEND_ONCE)
    b.request(DEATH, send, notify)
    b.send(send, reply=notify, reply_disposition=MAKE_SEND_ONCE, id=1)
    b.send(send, reply=notify, reply_disposition=MAKE_SEND, id=2)
    b.request(NO_SENDERS, notify, notify, sync=1)
    a.kill(port)
    assert b.told(notify) == [ONCE, ONCE, ("no-senders", 1), ("dead-name", send)]


def test_dead_name_requests_fire_in_the_order_of_registration() -> None:
    """Section 9 step 7, D9."""
    a, b, _ = three_tasks()
    port, notify = a.port(), b.port()
    names = [b.take(a, port, MAKE_SEND_ONCE) for _ in range(9)]
    order = names[::2] + names[1::2]
    for name in order:
        b.request(DEATH, name, notify)
    a.kill(port)
    assert b.told(notify) == [("dead-name", name) for name in order]


def test_the_destination_rights_of_a_dying_queue_vanish() -> None:
    """Section 9 step 5, N53: a send-once right that brought a message says nothing."""
    a, b, _ = three_tasks()
    port = a.port()
    b.send(b.take(a, port, MAKE_SEND_ONCE), MOVE_SEND_ONCE)
    a.kill(port)
    assert a.names() == b.names() == {}


def test_a_circular_port_destroyed_request_is_released_silently() -> None:
    """Section 9 step 2, N29, N50, F10: to the port itself, or to one in its queue."""
    a, *_ = three_tasks()
    port = a.port_with_send()
    a.request(PORT_DESTROYED, port, port)
    a.kill(port)
    assert a.names() == {port: DEAD_NAME}

    outer, inner = a.port_with_send(), a.port_with_send()
    a.request(PORT_DESTROYED, outer, inner)
    a.send(outer, rights=[(inner, MOVE_RECEIVE)])
    a.kill(outer)
    assert a.type(outer) == a.type(inner) == DEAD_NAME


def test_a_silently_released_request_no_longer_counts() -> None:
    """N29: the send-once right is gone from the notify port that travels in the dying queue."""
    a, b, _ = three_tasks()
    outer, inner, heir = a.port_with_send(), a.port(), b.port()
    a.request(PORT_DESTROYED, outer, inner)
    a.request(PORT_DESTROYED, inner, a.take(b, heir, MAKE_SEND_ONCE), how=MOVE_SEND_ONCE)
    a.send(outer, rights=[(inner, MOVE_RECEIVE)])
    a.kill(outer)
    ((_, saved),) = b.told(heir)
    assert b.status(saved).sorights == 0
    assert b.told(saved) == []


def test_a_dead_notify_port_saves_nothing() -> None:
    """N29: the port dies normally."""
    a, b, _ = three_tasks()
    port, heir, notify = a.port(), b.port(), a.port()
    send = a.take(a, port, MAKE_SEND)
    a.request(DEATH, send, notify)
    a.request(PORT_DESTROYED, port, a.take(b, heir, MAKE_SEND_ONCE), how=MOVE_SEND_ONCE)
    a.request(NO_SENDERS, port, notify)
    b.kill(heir)
    a.kill(port)
    assert a.told(notify) == [ONCE, ("dead-name", send)]


def test_nobody_sees_a_right_alive_after_its_death_was_told() -> None:
    """P30: when the notification is there, the name is dead and has the uref."""
    a, b, _ = three_tasks()
    port, notify = a.port(), b.port()
    send = b.take(a, port, MAKE_SEND)
    b.request(DEATH, send, notify)
    seen = []
    waiting = b.wait_to_receive(notify)
    a.kill(port)
    seen.append((done(waiting).code, b.type(send), b.urefs(send)))
    assert seen == [(c.MACH_MSG_SUCCESS, DEAD_NAME, 2)]


def test_a_nested_port_dies_with_the_queue_that_carries_it() -> None:
    """P31, P32: its request and its names at once, its queue at the end of the work list."""
    a, b, _ = three_tasks()
    notify = b.port()
    outer, inner = a.port(), a.port()
    to_inner = b.take(a, inner, MAKE_SEND)
    b.request(DEATH, to_inner, notify)
    b.send(to_inner, reply=notify, reply_disposition=MAKE_SEND_ONCE)
    once = a.take(b, notify, MAKE_SEND_ONCE)
    a.send(outer, MAKE_SEND, rights=[(inner, MOVE_RECEIVE)])
    a.send(outer, MAKE_SEND, rights=[(once, MOVE_SEND_ONCE)])
    a.kill(outer)
    # The first message kills the inner port, whose dead names are told at once and whose queue comes before the
    # second message: each message is finished with all it sets off.
    assert b.told(notify) == [("dead-name", to_inner), ONCE, ONCE]


def test_everything_happens_before_the_call_returns() -> None:
    """P32: the last send right in a queue, and the last right to that, and so on."""
    a, b, _ = three_tasks()
    notify = b.port()
    dying, kept = a.port(), a.port()
    send = a.take(a, kept, MAKE_SEND)
    a.request(NO_SENDERS, kept, a.take(b, notify, MAKE_SEND_ONCE), how=MOVE_SEND_ONCE, sync=1)
    a.send(dying, MAKE_SEND, rights=[(send, MOVE_SEND)])
    with a.world.unchanged():
        assert b.told(notify) == []
    a.kill(dying)
    assert b.told(notify) == [("no-senders", 1)]


def test_messages_of_a_dead_port_that_carry_its_own_rights() -> None:
    """P28: rights to the dying port in its own queue vanish."""
    a, *_ = three_tasks()
    port = a.port()
    a.send(port, MAKE_SEND, reply=port, reply_disposition=MAKE_SEND_ONCE, rights=[(port, MAKE_SEND)])
    a.kill(port)
    assert a.names() == {}


def test_a_dead_port_leaves_its_set() -> None:
    """Section 9 step 1, P21."""
    a, *_ = three_tasks()
    port, other = a.port(), a.port()
    pset = a.pset(port, other)
    a.send(port, MAKE_SEND, id=1)
    a.send(other, MAKE_SEND, id=2)
    a.kill(port)
    assert a.members(pset) == [other]
    assert a.told(pset) == [("message", 2)]


def test_a_right_copied_before_the_death_is_as_dead_as_its_original() -> None:
    """Section 9 step 6: in every space."""
    a, b, other = three_tasks()
    port = a.port()
    send = b.take(a, port, MAKE_SEND)
    copied = other.take(b, send, COPY_SEND)
    assert other.type(copied) == SEND
    a.kill(port)
    assert b.send_error(send) == other.send_error(copied) == c.MACH_SEND_INVALID_DEST
    assert a.names() == {}
    assert RECEIVE not in b.names().values()
