"""Constructed ports, contexts, guards and peeking: sections 6 and 12 of the specification of ports."""

from __future__ import annotations

import pytest
from kernel_driver import (
    DEAD_NAME,
    DEATH,
    MAKE_SEND,
    MAKE_SEND_ONCE,
    MOVE_RECEIVE,
    MOVE_SEND_ONCE,
    NO_SENDERS,
    NOTHING,
    ONCE,
    RECEIVE,
    RECEIVE_RIGHT,
    SEND,
    SEND_RECEIVE,
    Actor,
    three_tasks,
)

from machport.abi import constants as c
from machport.abi import message as layout
from machport.kernel import ports

GUARDED, STRICT = 0x02, 0x04


def construct(a: Actor, flags: int = 0, qlimit: int = 0, context: int = 0) -> int:
    return a.world.call(ports.mach_port_construct, a.task, flags, qlimit, context)


def destruct(a: Actor, name: int, srdelta: int = 0, guard: int = 0) -> None:
    a.world.call(ports.mach_port_destruct, a.task, name, srdelta, guard)


def guard(a: Actor, name: int, value: int, strict: bool = False) -> None:
    a.world.call(ports.mach_port_guard, a.task, name, value, strict)


def unguard(a: Actor, name: int, value: int) -> None:
    a.world.call(ports.mach_port_unguard, a.task, name, value)


def context(a: Actor, name: int) -> int:
    return ports.mach_port_get_context(a.kernel, a.task, name)


def set_context(a: Actor, name: int, value: int) -> None:
    a.world.call(ports.mach_port_set_context, a.task, name, value)


def test_construct_without_options_is_allocate() -> None:
    """Section 6."""
    a, *_ = three_tasks()
    plain, constructed = a.port(), construct(a, context=5)
    assert a.status(constructed) == a.status(plain)
    assert context(a, constructed) == 5


def test_construct_sets_limit_send_right_and_guard() -> None:
    """Section 6: MPO_QLIMIT, MPO_INSERT_SEND_RIGHT, MPO_CONTEXT_AS_GUARD, MPO_STRICT."""
    a, *_ = three_tasks()
    flags = c.MPO_QLIMIT | c.MPO_INSERT_SEND_RIGHT | c.MPO_CONTEXT_AS_GUARD
    name = construct(a, flags, 1024, 9)
    status = a.status(name)
    assert a.type(name) == SEND_RECEIVE
    assert (a.urefs(name), status.mscount, a.srights(name), status.qlimit) == (1, 1, 1, 1024)
    assert status.flags == GUARDED
    assert a.status(construct(a, flags | c.MPO_STRICT)).flags == GUARDED | STRICT
    assert a.status(construct(a, c.MPO_STRICT)).flags == 0


def test_construct_refuses_what_it_does_not_know() -> None:
    """Section 6: limit > 1024 is 18."""
    a, *_ = three_tasks()
    for qlimit in (1025, -1):
        with a.world.refuses(c.KERN_INVALID_VALUE):
            construct(a, c.MPO_QLIMIT, qlimit)
    for flag in (c.MPO_TEMPOWNER, c.MPO_IMPORTANCE_RECEIVER, c.MPO_DENAP_RECEIVER, c.MPO_IMMOVABLE_RECEIVE, 0x100):
        with a.world.refuses(c.KERN_INVALID_ARGUMENT):
            construct(a, flag)
    construct(a, 0, 1025)  # not looked at without the option


def test_destruct_checks_in_order() -> None:
    """Section 6: 17, 17, 18, guard 4; each changes nothing."""
    a, *_ = three_tasks()
    plain, both, pset = a.port(), a.port_with_send(2), a.pset()
    guarded = construct(a, c.MPO_CONTEXT_AS_GUARD, context=7)
    for name, srdelta, value, code in (
        (NOTHING, 0, 0, c.KERN_INVALID_NAME),
        (pset, 0, 0, c.KERN_INVALID_RIGHT),
        (plain, -1, 0, c.KERN_INVALID_RIGHT),
        (plain, 1, 0, c.KERN_INVALID_RIGHT),
        (both, 1, 0, c.KERN_INVALID_VALUE),
        (both, -3, 0, c.KERN_INVALID_VALUE),
        (guarded, 0, 6, c.KERN_INVALID_ARGUMENT),
        (guarded, 0, 0, c.KERN_INVALID_ARGUMENT),
    ):
        with a.world.refuses(code):
            destruct(a, name, srdelta, value)
    destruct(a, guarded, 0, 7)
    destruct(a, plain)
    assert set(a.names()) == {both, pset}


@pytest.mark.parametrize(("srdelta", "left"), [(0, 2), (-1, 1), (-2, 0)])
def test_destruct_drops_send_references_and_then_the_receive_right(srdelta: int, left: int) -> None:
    """Section 6: the rest is a dead name; possibly no-senders first."""
    a, *_ = three_tasks()
    port, notify = a.port_with_send(2), a.port()
    a.request(NO_SENDERS, port, notify, sync=1)
    a.request(DEATH, port, notify)
    destruct(a, port, srdelta)
    if left:
        assert a.type(port) == DEAD_NAME
        assert a.urefs(port) == left + 1
        assert a.told(notify) == [ONCE, ("dead-name", port)]
    else:
        assert a.names() == {notify: RECEIVE}
        assert a.told(notify) == [("no-senders", 1), ("port-deleted", port)]


def test_the_context_is_the_receivers() -> None:
    """Section 12: 64 bits; a strict guard hides it and keeps it."""
    a, b, _ = three_tasks()
    port = a.port()
    set_context(a, port, 0x1_2233_4455_6677_8899)
    assert context(a, port) == 0x2233_4455_6677_8899
    strict = construct(a, c.MPO_CONTEXT_AS_GUARD | c.MPO_STRICT, context=5)
    assert context(a, strict) == 0
    with a.world.refuses(c.KERN_INVALID_ARGUMENT):
        set_context(a, strict, 1)
    send = b.take(a, port, MAKE_SEND)
    for name, code in ((send, c.KERN_INVALID_RIGHT), (NOTHING, c.KERN_INVALID_NAME)):
        with a.world.refuses(code):
            context(b, name)
        with a.world.refuses(code):
            set_context(b, name, 1)


def test_a_guarded_right_is_not_destroyed_by_accident() -> None:
    """Section 12: mod_refs(RECEIVE) and destroy are 17."""
    a, *_ = three_tasks()
    for name in (a.port(), a.port_with_send()):
        guard(a, name, 3)
        with a.world.refuses(c.KERN_INVALID_RIGHT):
            a.kill(name)
        with a.world.refuses(c.KERN_INVALID_RIGHT):
            a.destroy(name)
        a.mod_refs(name, RECEIVE_RIGHT, 0)
        unguard(a, name, 3)
        a.destroy(name)
    assert a.names() == {}


def test_a_guard_needs_a_port_without_context() -> None:
    """Section 12: already has a context is 4; so is a wrong value for unguard."""
    a, *_ = three_tasks()
    port = a.port()
    with a.world.refuses(c.KERN_INVALID_ARGUMENT):
        unguard(a, port, 0)
    set_context(a, port, 1)
    with a.world.refuses(c.KERN_INVALID_ARGUMENT):
        guard(a, port, 2)
    set_context(a, port, 0)
    guard(a, port, 2, strict=True)
    assert a.status(port).flags == GUARDED | STRICT
    with a.world.refuses(c.KERN_INVALID_ARGUMENT):
        guard(a, port, 2)
    with a.world.refuses(c.KERN_INVALID_ARGUMENT):
        unguard(a, port, 3)
    unguard(a, port, 2)
    assert (a.status(port).flags, context(a, port)) == (0, 0)


@pytest.mark.parametrize("strict", [False, True])
def test_moving_a_right_clears_its_guard(strict: bool) -> None:
    """Section 12, P21: by extract and by message."""
    a, b, _ = three_tasks()
    port, inbox = a.port(), a.port()
    guard(a, port, 3, strict)
    moved = b.take(a, port, MOVE_RECEIVE)
    assert b.status(moved).flags == 0
    guard(b, moved, 4, strict)
    b.send(b.take(a, inbox, MAKE_SEND_ONCE), MOVE_SEND_ONCE, rights=[(moved, MOVE_RECEIVE)])
    ((name, _),) = a.receive(inbox).rights
    assert a.status(name).flags == 0


def test_a_guard_does_not_outlive_its_task() -> None:
    """Section 11: termination destroys it all the same."""
    a, b, _ = three_tasks()
    port = a.port()
    guard(a, port, 3)
    send = b.take(a, port, MAKE_SEND)
    a.terminate()
    assert b.type(send) == DEAD_NAME


def test_get_srights_counts() -> None:
    """Section 5: the number, not just a flag."""
    a, b, other = three_tasks()
    port = a.port_with_send()
    b.take(a, port, MAKE_SEND)
    other.take(a, port, MAKE_SEND)
    assert a.srights(port) == 3
    with a.world.refuses(c.KERN_INVALID_RIGHT):
        b.srights(next(iter(b.names())))


def test_peek_looks_at_a_waiting_message() -> None:
    """The message numbered so, or with 0 the next; nothing is taken."""
    a, *_ = three_tasks()
    port = a.port()
    a.set_seqno(port, 7)
    for id in (1, 2, 3):
        a.send(port, MAKE_SEND, id=id, inline=bytes(4 * id))
    with a.world.unchanged():
        for seqno, id in ((0, 1), (7, 1), (8, 2), (9, 3)):
            peeked = ports.mach_port_peek(a.kernel, a.task, port, seqno)
            assert (peeked.id, peeked.size) == (id, layout.HEADER_SIZE + 4 * id)
            assert peeked.seqno == (seqno or 7)
            assert peeked.trailer.sender == (501, 20)
    empty = a.port()
    for name, seqno in ((port, 10), (port, 6), (port, 0xFFFFFFFF), (empty, 0)):
        with a.world.refuses(c.KERN_FAILURE):
            ports.mach_port_peek(a.kernel, a.task, name, seqno)


def test_peek_at_the_turn_of_the_numbers() -> None:
    """Sequence numbers wrap at 32 bits."""
    a, *_ = three_tasks()
    port = a.port()
    a.set_seqno(port, 0xFFFFFFFF)
    a.send(port, MAKE_SEND, id=1)
    a.send(port, MAKE_SEND, id=2)
    assert ports.mach_port_peek(a.kernel, a.task, port, 0xFFFFFFFF).id == 1
    assert [a.receive(port).seqno, a.receive(port).seqno] == [0xFFFFFFFF, 0]
    assert a.type(port) & SEND == 0
