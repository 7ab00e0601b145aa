"""A message whose receiver ended before it saw it is next in its queue again."""

from __future__ import annotations

from collections import Counter

import pytest
from kernel_driver import (
    DEAD,
    MAKE_SEND,
    MAKE_SEND_ONCE,
    MOVE_RECEIVE,
    MOVE_SEND,
    MOVE_SEND_ONCE,
    PORT_DESTROYED,
    RECEIVE,
    SEND,
    Actor,
    done,
    parse_result,
    three_tasks,
)

from machport.abi import constants as c
from machport.abi import message as layout
from machport.kernel.copyout import take_back
from machport.kernel.invariants import check
from machport.kernel.waiter import Result


def undo(a: Actor, result: Result) -> None:
    a.world.call(take_back, a.task, result)
    check(a.kernel, set(), Counter())


@pytest.mark.parametrize("disposition", [MAKE_SEND, MAKE_SEND_ONCE])
def test_a_message_taken_back_is_received_again_with_its_number(disposition: int) -> None:
    """Nothing of the first reception is left: rights, counts and the sequence number are as before."""
    a, b, _ = three_tasks()
    port, carried = a.port(), b.port()
    b.send(
        b.take(a, port, disposition),
        MOVE_SEND if disposition == MAKE_SEND else MOVE_SEND_ONCE,
        id=1,
        reply=b.port(),
        reply_disposition=MAKE_SEND_ONCE,
        rights=[(carried, MAKE_SEND), (b.port(), MOVE_RECEIVE), (DEAD, MAKE_SEND)],
    )
    before = a.world.snapshot()
    result = a.try_receive(port)
    first = parse_result(result)
    undo(a, result)
    assert a.world.snapshot() == before
    second = parse_result(a.try_receive(port))
    assert (second.seqno, second.id) == (first.seqno, first.id)
    assert [kind for _, kind in second.rights] == [MOVE_SEND, MOVE_RECEIVE, MOVE_SEND]


def test_memory_and_arrays_are_taken_back() -> None:
    a, b, _ = three_tasks()
    port, sent = a.port(), b.port()
    buffer = layout.pack(
        MOVE_SEND,
        b.take(a, port, MAKE_SEND),
        descriptors=[layout.memory_descriptor(3), layout.port_array_descriptor(1, MAKE_SEND)],
    )
    b.mach_msg(c.MACH_SEND_MSG, buffer, memory=(b"abc", sent.to_bytes(4, "little")))
    before = a.world.snapshot()
    undo(a, a.try_receive(port))
    assert a.world.snapshot() == before


def test_several_messages_come_back_in_their_order() -> None:
    """Whatever the order in which their receivers ended."""
    a, *_ = three_tasks()
    port = a.port()
    for id in range(5):
        a.send(port, MAKE_SEND, id=id)
    results = [a.try_receive(port) for _ in range(3)]
    for index in (1, 0, 2):
        undo(a, results[index])
    assert [id for _, id in a.told(port)] == [0, 1, 2, 3, 4]


def test_a_message_taken_back_goes_to_a_waiting_receiver() -> None:
    a, *_ = three_tasks()
    port = a.port()
    pset = a.pset(port)
    a.send(port, MAKE_SEND, id=1)
    result = a.try_receive(pset)
    waiter = a.wait_to_receive(pset)
    undo(a, result)
    assert parse_result(done(waiter)).id == 1


def test_nothing_is_taken_back_to_a_port_that_is_gone() -> None:
    a, b, _ = three_tasks()
    port = a.port()
    a.send(port, MAKE_SEND)
    result = a.try_receive(port)
    b.take(a, port, MOVE_RECEIVE)
    with a.world.unchanged():
        undo(a, result)


def test_rights_that_are_gone_come_back_dead() -> None:
    """Whatever else the task did with the names meanwhile."""
    a, b, _ = three_tasks()
    port = a.port()
    b.send(b.take(a, port, MAKE_SEND), rights=[(b.port(), MAKE_SEND), (b.port(), MOVE_RECEIVE)])
    result = a.try_receive(port)
    for name, _ in parse_result(result).rights:
        a.destroy(name)
    undo(a, result)
    assert [name for name, _ in a.receive(port).rights] == [DEAD, DEAD]


def test_a_message_taken_back_travels_with_its_port() -> None:
    """The task's end comes after: the right goes to whoever inherits it, with the message."""
    a, b, _ = three_tasks()
    port, heir = a.port(), b.port()
    a.request(PORT_DESTROYED, port, a.take(b, heir, MAKE_SEND_ONCE), how=MOVE_SEND_ONCE)
    b.send(b.take(a, port, MAKE_SEND), id=7)
    result = a.try_receive(port)
    undo(a, result)
    a.terminate()
    ((_, name),) = b.told(heir)
    assert b.type(name) & (SEND | RECEIVE) == SEND | RECEIVE
    assert b.told(name) == [("message", 7)]
