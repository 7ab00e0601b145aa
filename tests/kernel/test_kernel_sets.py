"""Port sets: section 10 of the specification of ports, P33-P39, and what mps_pset says (P18)."""

from __future__ import annotations

import pytest
from kernel_driver import (
    DEAD,
    MAKE_SEND,
    MOVE_SEND_ONCE,
    NOTHING,
    NULL,
    PORT_SET,
    RECEIVE,
    SET_RIGHT,
    Actor,
    done,
    parse_result,
    three_tasks,
    waits,
)

from machport.abi import constants as c
from machport.kernel import ports


def insert_member(a: Actor, member: int, pset: int) -> None:
    a.world.call(ports.mach_port_insert_member, a.task, member, pset)


def extract_member(a: Actor, member: int, pset: int) -> None:
    a.world.call(ports.mach_port_extract_member, a.task, member, pset)


def test_move_member_moves_in_between_and_out() -> None:
    """P33: atomically from any other set; mps_pset is the name of the set (D6)."""
    a, *_ = three_tasks()
    port, first, second = a.port(), a.pset(), a.pset()
    assert a.status(port).pset == NULL
    a.move_member(port, first)
    assert (a.members(first), a.members(second), a.status(port).pset) == ([port], [], first)
    a.move_member(port, second)
    assert (a.members(first), a.members(second), a.status(port).pset) == ([], [port], second)
    a.move_member(port, NULL)
    assert (a.members(first), a.members(second), a.status(port).pset) == ([], [], NULL)


def test_move_member_into_the_same_set_does_nothing() -> None:
    """P33."""
    a, *_ = three_tasks()
    port, other = a.port(), a.port()
    pset = a.pset(port, other)
    a.send(port, MAKE_SEND, id=1)
    a.send(other, MAKE_SEND, id=2)
    with a.world.unchanged():
        a.move_member(port, pset)


def test_move_member_checks_in_order() -> None:
    """P33: port missing 15, not receive 17, set missing 15, not a set 17, in no set 12."""
    a, b, _ = three_tasks()
    port, pset, dead = a.port(), a.pset(), a.dead_name()
    send = a.take(b, b.port(), MAKE_SEND)
    for member, after, code in (
        (NOTHING, NOTHING, c.KERN_INVALID_NAME),
        (send, NOTHING, c.KERN_INVALID_RIGHT),
        (pset, pset, c.KERN_INVALID_RIGHT),
        (dead, NULL, c.KERN_INVALID_RIGHT),
        (port, NOTHING, c.KERN_INVALID_NAME),
        (port, DEAD, c.KERN_INVALID_NAME),
        (port, send, c.KERN_INVALID_RIGHT),
        (port, port, c.KERN_INVALID_RIGHT),
        (port, NULL, c.KERN_NOT_IN_SET),
    ):
        with a.world.refuses(code):
            a.move_member(member, after)


def test_the_backlog_of_a_joining_port_is_received_through_the_set() -> None:
    """P34, P35: at once; and a direct receive is refused from then on."""
    a, *_ = three_tasks()
    port, pset = a.port(), a.pset()
    a.send(port, MAKE_SEND, id=1)
    a.move_member(port, pset)
    with a.world.unchanged():
        assert a.try_receive(port).code == c.MACH_RCV_IN_SET
    message = a.receive(pset)
    assert (message.id, message.local) == (1, port)


def test_threads_waiting_on_a_port_are_told_that_it_joins_a_set() -> None:
    """P34: RCV_PORT_CHANGED."""
    a, *_ = three_tasks()
    port, pset = a.port(), a.pset()
    waiting = [a.wait_to_receive(port), a.wait_to_receive(port)]
    a.move_member(port, pset)
    assert [done(waiter).code for waiter in waiting] == [c.MACH_RCV_PORT_CHANGED] * 2


def test_a_joining_backlog_goes_to_the_threads_waiting_on_the_set() -> None:
    """P34, M13: receivable at once."""
    a, *_ = three_tasks()
    port, pset = a.port(), a.pset()
    for id in (1, 2, 3):
        a.send(port, MAKE_SEND, id=id)
    waiting = [a.wait_to_receive(pset), a.wait_to_receive(pset)]
    a.move_member(port, pset)
    assert [parse_result(done(waiter)).id for waiter in waiting] == [1, 2]
    assert a.told(pset) == [("message", 3)]


def test_messages_come_out_in_the_order_in_which_they_arrived() -> None:
    """P35: over all members; each port numbers its own."""
    a, *_ = three_tasks()
    first, second = a.port(), a.port()
    pset = a.pset(first, second)
    for id, port in enumerate((first, second, second, first, second)):
        a.send(port, MAKE_SEND, id=id)
    messages = [a.receive(pset) for _ in range(5)]
    assert [(message.id, message.local) for message in messages] == [
        (0, first),
        (1, second),
        (2, second),
        (3, first),
        (4, second),
    ]
    assert [message.seqno for message in messages] == [0, 0, 1, 1, 2]


def test_a_backlog_arrives_when_its_port_joins() -> None:
    """P35: behind what the set has by then."""
    a, *_ = three_tasks()
    early, late = a.port(), a.port()
    a.send(late, MAKE_SEND, id=1)
    pset = a.pset(early)
    a.send(early, MAKE_SEND, id=2)
    a.move_member(late, pset)
    a.send(early, MAKE_SEND, id=3)
    assert [id for _, id in a.told(pset)] == [2, 1, 3]


def test_each_member_keeps_its_own_queue_limit() -> None:
    """P35: a full member stops its own senders only."""
    a, *_ = three_tasks()
    full, free = a.port(), a.port()
    pset = a.pset(full, free)
    a.set_qlimit(full, 1)
    a.fill(full)
    blocked = a.wait_to_send(full, MAKE_SEND, id=9)
    a.send(free, MAKE_SEND, id=8)
    assert a.told(pset) == [("message", 100), ("message", 8), ("message", 9)]
    assert done(blocked).code == c.MACH_MSG_SUCCESS


def test_leaving_a_set_takes_the_queue_along() -> None:
    """P36: and coming back puts it at the end."""
    a, *_ = three_tasks()
    port, other = a.port(), a.port()
    pset = a.pset(port, other)
    a.send(port, MAKE_SEND, id=1)
    a.send(other, MAKE_SEND, id=2)
    a.move_member(port, NULL)
    assert a.try_receive(pset).code == c.MACH_MSG_SUCCESS
    assert a.try_receive(pset).code == c.MACH_RCV_TIMED_OUT
    a.send(other, MAKE_SEND, id=3)
    a.move_member(port, pset)
    assert a.told(pset) == [("message", 3), ("message", 1)]


def test_a_port_that_left_is_received_from_directly() -> None:
    """P36."""
    a, *_ = three_tasks()
    port = a.port()
    pset = a.pset(port)
    a.send(port, MAKE_SEND, id=1)
    a.move_member(port, NULL)
    assert a.told(port) == [("message", 1)]
    assert a.told(pset) == []


def test_threads_waiting_on_a_set_stay_when_a_member_leaves() -> None:
    """P36, P21."""
    a, *_ = three_tasks()
    port = a.port()
    pset = a.pset(port)
    waiting = a.wait_to_receive(pset)
    a.move_member(port, NULL)
    a.send(port, MAKE_SEND)
    assert waits(waiting)


@pytest.mark.parametrize("destroy", ["destroy", "mod_refs"])
def test_destroying_a_set_loses_nothing_but_the_set(destroy: str) -> None:
    """P37: members are in no set; receivers get PORT_DIED; messages stay."""
    a, *_ = three_tasks()
    port, idle = a.port(), a.pset()
    pset = a.pset(port)
    a.send(port, MAKE_SEND, id=1)
    waiting = a.wait_to_receive(idle)
    for name in (pset, idle):
        a.destroy(name) if destroy == "destroy" else a.mod_refs(name, SET_RIGHT, -1)
    assert done(waiting).code == c.MACH_RCV_PORT_DIED
    assert a.names() == {port: RECEIVE}
    assert a.status(port).pset == NULL
    assert a.told(port) == [("message", 1)]


def test_set_status_lists_the_members() -> None:
    """P38: 17 for anything else."""
    a, b, _ = three_tasks()
    members = [a.port() for _ in range(3)]
    pset = a.pset(*members)
    assert a.members(pset) == members
    for name in (members[0], a.dead_name(), a.take(b, b.port(), MAKE_SEND)):
        with a.world.refuses(c.KERN_INVALID_RIGHT):
            a.members(name)


def test_receiving_from_an_empty_set_waits_for_members() -> None:
    """P38."""
    a, *_ = three_tasks()
    pset, port = a.pset(), a.port()
    assert a.try_receive(pset).code == c.MACH_RCV_TIMED_OUT
    waiting = a.wait_to_receive(pset)
    a.move_member(port, pset)
    assert waits(waiting)
    a.send(port, MAKE_SEND, id=4)
    assert parse_result(done(waiting)).id == 4


def test_insert_and_extract_member_know_the_set() -> None:
    """P39: 11 when in that set already, 12 when not in it."""
    a, *_ = three_tasks()
    port, first, second = a.port(), a.pset(), a.pset()
    insert_member(a, port, first)
    with a.world.refuses(c.KERN_ALREADY_IN_SET):
        insert_member(a, port, first)
    with a.world.refuses(c.KERN_NOT_IN_SET):
        extract_member(a, port, second)
    insert_member(a, port, second)
    assert a.status(port).pset == second
    extract_member(a, port, second)
    with a.world.refuses(c.KERN_NOT_IN_SET):
        extract_member(a, port, second)


@pytest.mark.parametrize("call", [insert_member, extract_member])
def test_insert_and_extract_member_check_their_names(call: object) -> None:
    """P39: as move_member."""
    assert callable(call)
    a, *_ = three_tasks()
    port, pset = a.port(), a.pset()
    for member, after, code in (
        (NOTHING, pset, c.KERN_INVALID_NAME),
        (pset, pset, c.KERN_INVALID_RIGHT),
        (port, NOTHING, c.KERN_INVALID_NAME),
        (port, NULL, c.KERN_INVALID_NAME),
        (port, port, c.KERN_INVALID_RIGHT),
    ):
        with a.world.refuses(code):
            call(a, member, after)


@pytest.mark.parametrize("disposition", range(16, 22))
def test_a_set_is_never_sent(disposition: int) -> None:
    """Section 1, P8: neither as destination nor as reply nor in a body."""
    a, *_ = three_tasks()
    port, pset = a.port(), a.pset()
    with a.world.unchanged():
        if disposition != c.MACH_MSG_TYPE_MOVE_RECEIVE:
            assert a.send_error(pset, disposition) == c.MACH_SEND_INVALID_DEST
            code = a.send_error(port, MAKE_SEND, reply=pset, reply_disposition=disposition)
            assert code == c.MACH_SEND_INVALID_REPLY
    assert a.send_error(port, MAKE_SEND, rights=[(pset, disposition)]) == c.MACH_SEND_INVALID_RIGHT
    assert a.type(pset) == PORT_SET


def test_no_member_starves() -> None:
    """P35: a busy member does not keep another's message from coming out."""
    a, *_ = three_tasks()
    busy, quiet = a.port(), a.port()
    pset = a.pset(busy, quiet)
    a.fill(busy)
    a.send(quiet, MAKE_SEND, id=1)
    for _ in range(5):
        assert a.receive(pset).local == busy
        a.send(busy, MAKE_SEND, id=2)
    assert a.receive(pset).local == quiet


def test_notifications_come_through_the_set_as_well() -> None:
    a, *_ = three_tasks()
    port = a.port()
    pset = a.pset(port)
    once = a.take(a, port, c.MACH_MSG_TYPE_MAKE_SEND_ONCE)
    a.send(once, MOVE_SEND_ONCE, id=1)
    a.deallocate(a.take(a, port, c.MACH_MSG_TYPE_MAKE_SEND_ONCE))
    assert a.told(pset) == [("message", 1), ("send-once",)]
