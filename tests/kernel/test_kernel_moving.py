"""Moving a receive right, and circularity: section 7 of the specification of ports, P21-P27."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from kernel_driver import (
    COPY_SEND,
    DEAD_NAME,
    DEATH,
    MAKE_SEND,
    MAKE_SEND_ONCE,
    MOVE_RECEIVE,
    MOVE_SEND_ONCE,
    NO_SENDERS,
    ONCE,
    PORT_DESTROYED,
    RECEIVE,
    SEND,
    SEND_RECEIVE,
    Actor,
    done,
    three_tasks,
    waits,
)

from machport.abi import constants as c
from machport.kernel import ports
from machport.kernel.port import TRANSIT_MAX

Move = Callable[[Actor, int, Actor], int]


def by_message(a: Actor, port: int, b: Actor) -> int:
    inbox = b.port()
    a.send(a.take(b, inbox, MAKE_SEND_ONCE), MOVE_SEND_ONCE, rights=[(port, MOVE_RECEIVE)])
    return b.receive(inbox).rights[0][0]


def by_extract(a: Actor, port: int, b: Actor) -> int:
    return b.take(a, port, MOVE_RECEIVE)


def by_insert(a: Actor, port: int, b: Actor) -> int:
    b.insert(0x5000, port, MOVE_RECEIVE, caller=a)
    return 0x5000


def by_port_destroyed(a: Actor, port: int, b: Actor) -> int:
    inbox = b.port()
    a.request(PORT_DESTROYED, port, a.take(b, inbox, MAKE_SEND_ONCE), how=MOVE_SEND_ONCE)
    a.kill(port)
    ((_, name),) = b.told(inbox)
    return int(name)


MOVES = pytest.mark.parametrize("move", [by_message, by_extract, by_insert, by_port_destroyed])


@MOVES
def test_moving_resets_what_belongs_to_the_holder(move: Move) -> None:
    """P21, P24, N31: mscount and seqno 0, in no set, no context, guard or no-senders request."""
    a, b, _ = three_tasks()
    port, notify = a.port(), a.port()
    a.take(a, port, MAKE_SEND)
    a.set_seqno(port, 9)
    a.pset(port)
    ports.mach_port_set_context(a.kernel, a.task, port, 77)
    a.request(NO_SENDERS, port, notify)
    status = b.status(name := move(a, port, b))
    assert (status.mscount, status.seqno, status.pset, status.nsrequest, status.flags) == (0, 0, 0, 0, 0)
    assert ports.mach_port_get_context(b.kernel, b.task, name) == 0
    assert a.told(notify) == [ONCE]


@MOVES
def test_moving_keeps_what_belongs_to_the_port(move: Move) -> None:
    """P22, N31: queue and order, limit, rights, blocked senders, requests of other entries."""
    a, b, other = three_tasks()
    port, notify = a.port(), other.port()
    send, once = other.take(a, port, MAKE_SEND), other.take(a, port, MAKE_SEND_ONCE)
    other.request(DEATH, send, notify)
    a.set_qlimit(port, 2)
    other.send(send, id=1)
    other.send(send, id=2)
    blocked = other.wait_to_send(send, id=3)
    name = move(a, port, b)
    assert waits(blocked)
    status = b.status(name)
    assert (status.msgcount, status.qlimit, status.sorights) == (2, 2, 1)
    assert b.srights(name) == 4  # the entry, and each message
    assert b.receive(name).id == 1
    assert done(blocked).code == c.MACH_MSG_SUCCESS
    assert [b.receive(name).seqno, b.receive(name).seqno] == [1, 2]
    other.send(once, MOVE_SEND_ONCE, id=4)
    assert b.told(name) == [("message", 4)]
    b.kill(name)
    assert other.told(notify) == [("dead-name", send)]


@pytest.mark.parametrize("move", [by_message, by_extract, by_insert])
def test_a_port_destroyed_request_moves_with_the_right(move: Move) -> None:
    """P22, N36: it stays with the port, not with the space that registered it."""
    a, b, other = three_tasks()
    port, heir = a.port(), other.port()
    a.request(PORT_DESTROYED, port, a.take(other, heir, MAKE_SEND_ONCE), how=MOVE_SEND_ONCE)
    name = move(a, port, b)
    assert b.status(name).pdrequest == 1
    b.destroy(name)
    assert [event for event, *_ in other.told(heir)] == ["port-destroyed"]


@MOVES
def test_threads_that_receive_from_the_port_are_turned_away(move: Move) -> None:
    """P21, N32: RCV_PORT_DIED."""
    a, b, _ = three_tasks()
    port = a.port()
    waiting = [a.wait_to_receive(port), a.wait_to_receive(port)]
    move(a, port, b)
    assert [done(waiter).code for waiter in waiting] == [c.MACH_RCV_PORT_DIED] * 2


@MOVES
def test_threads_that_receive_from_its_set_go_on_waiting(move: Move) -> None:
    """P21: a thread waiting on the set is not told."""
    a, b, _ = three_tasks()
    port = a.port()
    pset = a.pset(port)
    waiting = a.wait_to_receive(pset)
    move(a, port, b)
    assert waits(waiting)
    assert a.members(pset) == []


def test_send_rights_work_while_the_right_is_in_transit() -> None:
    """P23, N33: messages queue up, and nobody can receive."""
    a, b, _ = three_tasks()
    port, inbox = a.port_with_send(), b.port()
    a.send(a.take(b, inbox, MAKE_SEND), rights=[(port, MOVE_RECEIVE)])
    assert a.type(port) == SEND
    assert a.try_receive(port).code == c.MACH_RCV_INVALID_NAME
    a.send(port, id=1)
    a.send(port, id=2)
    name = b.receive(inbox).rights[0][0]
    assert b.told(name) == [("message", 1), ("message", 2)]


def test_arrival_joins_the_send_right_that_is_there() -> None:
    """P24: P12 applies; coming home is arriving, too."""
    a, b, _ = three_tasks()
    port = a.port_with_send()
    inbox = a.port()
    a.send(inbox, MAKE_SEND, rights=[(port, MOVE_RECEIVE)])
    assert a.receive(inbox).rights == [(port, MOVE_RECEIVE)]
    assert a.type(port) == SEND_RECEIVE
    assert b.names() == {}


def test_a_destroyed_message_destroys_the_receive_right_in_it() -> None:
    """P25: as in section 9."""
    a, b, _ = three_tasks()
    port, inbox, notify = a.port_with_send(), b.port(), a.port()
    a.request(DEATH, port, notify)
    a.send(a.take(b, inbox, MAKE_SEND), rights=[(port, MOVE_RECEIVE)])
    b.kill(inbox)
    assert a.type(port) == DEAD_NAME
    assert a.told(notify) == [("dead-name", port)]


def test_a_destroyed_message_honours_a_port_destroyed_request() -> None:
    """P25."""
    a, b, _ = three_tasks()
    port, inbox, heir = a.port(), b.port(), a.port()
    a.request(PORT_DESTROYED, port, heir)
    a.send(a.take(b, inbox, MAKE_SEND), rights=[(port, MOVE_RECEIVE)])
    b.kill(inbox)
    assert [event for event, *_ in a.told(heir)] == ["port-destroyed"]


# Circularity


def test_a_receive_right_sent_to_itself_dies() -> None:
    """P26, P27: the send succeeds, nothing is delivered, queued messages go too."""
    a, b, _ = three_tasks()
    port, reply = a.port_with_send(), b.port()
    send = b.take(a, port, MAKE_SEND)
    b.send(send, reply=reply, reply_disposition=MAKE_SEND_ONCE)
    a.send(port, rights=[(port, MOVE_RECEIVE)])
    assert a.type(port) == b.type(send) == DEAD_NAME
    assert b.told(reply) == [ONCE]


@pytest.mark.parametrize("length", [2, 3, 10])
def test_a_circle_of_receive_rights_dies(length: int) -> None:
    """P26: through any number of queues."""
    a, *_ = three_tasks()
    circle = [a.port_with_send() for _ in range(length)]
    for port, into in pairwise(circle):
        a.send(into, rights=[(port, MOVE_RECEIVE)])
    assert all(a.type(port) == SEND for port in circle[:-1])
    a.send(circle[0], rights=[(circle[-1], MOVE_RECEIVE)])
    assert [a.type(port) for port in circle] == [DEAD_NAME] * length


def test_a_chain_is_so_long_and_no_longer() -> None:
    """Whoever sends to its end would walk all of it, and keep everybody else waiting."""
    a, *_ = three_tasks()
    chain = [a.port_with_send() for _ in range(TRANSIT_MAX + 1)]
    moved, back = a.port_with_send(), a.port_with_send()
    a.request(PORT_DESTROYED, back, a.take(a, chain[-1], MAKE_SEND_ONCE), how=MOVE_SEND_ONCE)
    for outer, inner in reversed(list(pairwise(chain))):
        a.send(outer, rights=[(inner, MOVE_RECEIVE)])
    assert a.send_error(chain[-1], rights=[(moved, MOVE_RECEIVE)]) == c.MACH_SEND_NO_BUFFER
    assert a.type(moved) == SEND_RECEIVE
    a.send(chain[-2], rights=[(moved, MOVE_RECEIVE)])
    assert a.type(moved) == SEND
    a.kill(back)
    assert a.type(back) == DEAD_NAME


def test_a_chain_that_does_not_close_is_no_circle() -> None:
    """P26: it arrives."""
    a, *_ = three_tasks()
    first, second, third = a.port_with_send(), a.port_with_send(), a.port_with_send()
    a.send(second, rights=[(first, MOVE_RECEIVE)])
    a.send(third, rights=[(second, MOVE_RECEIVE)])
    a.send(first, id=5)
    assert a.receive(third).rights == [(second, MOVE_RECEIVE)]
    assert a.receive(second).rights == [(first, MOVE_RECEIVE)]
    assert a.told(first) == [("message", 5)]


def test_a_circular_right_goes_to_its_port_destroyed_request() -> None:
    """P27: so it may survive."""
    a, b, _ = three_tasks()
    port, heir = a.port_with_send(), b.port()
    a.request(PORT_DESTROYED, port, a.take(b, heir, MAKE_SEND_ONCE), how=MOVE_SEND_ONCE)
    a.send(port, id=3)
    a.send(port, rights=[(port, MOVE_RECEIVE)])
    ((event, name),) = b.told(heir)
    assert event == "port-destroyed"
    assert b.told(name) == [("message", 3)]
    assert a.type(port) == SEND


def test_a_circular_message_is_destroyed_with_all_it_carries() -> None:
    """P27, M31: other rights in it as well."""
    a, b, _ = three_tasks()
    port, reply, watched = a.port_with_send(), a.port(), b.port()
    once = a.take(b, watched, MAKE_SEND_ONCE)
    a.send(
        port,
        reply=reply,
        reply_disposition=MAKE_SEND_ONCE,
        rights=[(once, MOVE_SEND_ONCE), (port, MOVE_RECEIVE)],
    )
    assert a.told(reply) == [ONCE]
    assert b.told(watched) == [ONCE]


def test_a_circular_message_does_not_wait_for_room() -> None:
    """M section 3 step 12, E2: decided before any waiting."""
    a, *_ = three_tasks()
    port = a.port_with_send()
    a.set_qlimit(port, 0)
    a.send(port, COPY_SEND, rights=[(port, MOVE_RECEIVE)])
    assert a.names() == {port: DEAD_NAME}


def test_a_send_right_of_the_destination_is_not_circular() -> None:
    """M17: only its receive right is."""
    a, *_ = three_tasks()
    port = a.port_with_send()
    a.send(port, rights=[(port, COPY_SEND), (port, MAKE_SEND_ONCE)])
    message = a.receive(port)
    assert message.rights[0] == (port, c.MACH_MSG_TYPE_PORT_SEND)
    assert a.type(port) == SEND_RECEIVE


def test_deep_nesting_is_destroyed_without_recursion() -> None:
    """P31: a thousand and more receive rights, each in the queue of the next."""
    a, b, _ = three_tasks()
    depth = 1500
    notify = b.port()
    inner = a.port()
    b.request(DEATH, b.take(a, inner, MAKE_SEND), notify)
    for _ in range(depth):
        outer = a.port()
        a.send(outer, MAKE_SEND, rights=[(inner, MOVE_RECEIVE)])
        inner = outer
    assert a.names() == {inner: RECEIVE}
    a.destroy(inner)
    assert [event for event, *_ in b.told(notify)] == ["dead-name"]
    assert a.names() == {}
