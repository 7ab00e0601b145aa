"""Send-possible notifications: section 5 of the specification of notifications, N66-N70."""

from __future__ import annotations

import pytest
from kernel_driver import (
    COPY_SEND,
    DEATH,
    MAKE_SEND,
    MAKE_SEND_ONCE,
    MOVE_SEND,
    NULL,
    ONCE,
    REQUESTED,
    SEND,
    SEND_ONCE,
    SEND_POSSIBLE,
    Actor,
    three_tasks,
    waits,
)

from machport.abi import constants as c
from machport.kernel.dialect import GNUMACH

POSSIBLE = c.MACH_PORT_TYPE_SPREQUEST
DELAYED = c.MACH_PORT_TYPE_SPREQUEST_DELAYED
NOTIFY = c.MACH_SEND_MSG | c.MACH_SEND_TIMEOUT | c.MACH_SEND_NOTIFY


def full_port(b: Actor) -> int:
    port = b.port()
    b.set_qlimit(port, 1)
    b.fill(port)
    return port


def entry(a: Actor, b: Actor, kind: str) -> int:
    if kind == "receive":
        return a.port()
    if kind == "send and receive":
        return a.port_with_send()
    return a.take(b, b.port(), MAKE_SEND if kind == "send" else MAKE_SEND_ONCE)


@pytest.mark.parametrize("kind", ["send", "receive", "send and receive", "send-once"])
def test_it_is_sent_at_once_where_there_is_room(kind: str) -> None:
    """N66, N67, N70: with the name; nothing stays registered."""
    a, b, _ = three_tasks()
    notify, name = a.port(), entry(a, b, kind)
    plain = a.type(name)
    assert a.request(SEND_POSSIBLE, name, notify, sync=1) == NULL
    assert a.told(notify) == [("send-possible", name)]
    assert a.type(name) == plain


def test_a_send_once_right_can_always_send() -> None:
    """N67: also to a full queue."""
    a, b, _ = three_tasks()
    notify, once = a.port(), a.take(b, full_port(b), MAKE_SEND_ONCE)
    a.request(SEND_POSSIBLE, once, notify, sync=1)
    assert a.told(notify) == [("send-possible", once)]


def test_an_armed_request_fires_at_the_next_receive() -> None:
    """N67, N70: once."""
    a, b, _ = three_tasks()
    port = full_port(b)
    notify, send = a.port(), a.take(b, port, MAKE_SEND)
    a.request(SEND_POSSIBLE, send, notify, sync=1)
    assert a.type(send) == SEND | POSSIBLE
    assert a.told(notify) == []
    b.receive(port)
    assert a.told(notify) == [("send-possible", send)]
    assert a.type(send) == SEND
    b.send(port, MAKE_SEND)
    b.receive(port)
    assert a.told(notify) == []


def test_a_delayed_request_is_armed_by_finding_the_queue_full() -> None:
    """N68, N70: by a send with SEND_NOTIFY, and by nothing else."""
    a, b, _ = three_tasks()
    port = full_port(b)
    notify, send = a.port(), a.take(b, port, MAKE_SEND)
    a.request(SEND_POSSIBLE, send, notify)
    assert a.type(send) == SEND | POSSIBLE | DELAYED
    b.receive(port)
    a.send(send, option=NOTIFY)
    a.try_send(send)
    b.receive(port)
    assert a.told(notify) == []
    a.send(send)
    a.try_send(send, option=NOTIFY)
    assert a.type(send) == SEND | POSSIBLE
    b.receive(port)
    assert a.told(notify) == [("send-possible", send)]


def test_only_the_senders_own_entry_is_armed() -> None:
    """N68: others' delayed requests stay delayed."""
    a, b, other = three_tasks()
    port = full_port(b)
    notify = a.port()
    send, second = a.take(b, port, MAKE_SEND), other.take(b, port, MAKE_SEND)
    a.request(SEND_POSSIBLE, send, notify)
    other.request(SEND_POSSIBLE, second, notify, caller=a)
    a.try_send(send, option=NOTIFY)
    assert other.type(second) & DELAYED
    b.receive(port)
    assert a.told(notify) == [("send-possible", send)]


def test_a_blocked_sender_arms_it_too() -> None:
    """N68: whether it waits or not."""
    a, b, _ = three_tasks()
    port = full_port(b)
    notify, send = a.port(), a.take(b, port, MAKE_SEND)
    a.request(SEND_POSSIBLE, send, notify)
    waiter = a.try_send(send, option=c.MACH_SEND_MSG | c.MACH_SEND_NOTIFY)
    assert waits(waiter)
    assert a.type(send) == SEND | POSSIBLE


def test_send_notify_without_a_request_does_nothing() -> None:
    """N68: nor with a dead-name request."""
    a, b, _ = three_tasks()
    port = full_port(b)
    notify, send = a.port(), a.take(b, port, MAKE_SEND)
    a.try_send(send, option=NOTIFY)
    a.request(DEATH, send, notify)
    a.try_send(send, option=NOTIFY)
    b.receive(port)
    assert a.told(notify) == []
    assert a.type(send) == SEND | REQUESTED


def test_it_shares_the_slot_of_dead_name_requests() -> None:
    """N66: each replaces the other."""
    a, b, _ = three_tasks()
    port = full_port(b)
    notify, send = a.port(), a.take(b, port, MAKE_SEND)
    a.request(DEATH, send, notify)
    previous = a.request(SEND_POSSIBLE, send, notify, sync=1)
    assert a.type(previous) == SEND_ONCE
    assert a.type(send) == SEND | POSSIBLE
    previous = a.request(DEATH, send, notify)
    assert a.type(previous) == SEND_ONCE
    assert a.type(send) == SEND | REQUESTED
    b.receive(port)
    assert a.told(notify) == []


def test_an_immediate_one_returns_what_it_replaces() -> None:
    """N66, N67: the slot is empty afterwards."""
    a, b, _ = three_tasks()
    notify, send = a.port(), a.take(b, b.port(), MAKE_SEND)
    a.request(DEATH, send, notify)
    previous = a.request(SEND_POSSIBLE, send, notify, sync=1)
    assert a.type(previous) == SEND_ONCE
    assert a.type(send) == SEND


def test_it_can_be_cancelled() -> None:
    """N66: by a null notify right of either kind."""
    a, b, _ = three_tasks()
    port = full_port(b)
    notify, send = a.port(), a.take(b, port, MAKE_SEND)
    for variant in (SEND_POSSIBLE, DEATH):
        a.request(SEND_POSSIBLE, send, notify, sync=1)
        a.deallocate(a.request(variant, send))
        assert a.told(notify) == [ONCE]
        assert a.type(send) == SEND
    b.receive(port)
    assert a.told(notify) == []


@pytest.mark.parametrize("sync", [0, 1])
def test_the_death_of_the_port_is_told_as_dead_name(sync: int) -> None:
    """N69: 72, urefs +1."""
    a, b, _ = three_tasks()
    port = full_port(b)
    notify, send = a.port(), a.take(b, port, MAKE_SEND)
    a.request(SEND_POSSIBLE, send, notify, sync=sync)
    b.kill(port)
    assert a.told(notify) == [("dead-name", send)]
    assert a.urefs(send) == 2


@pytest.mark.parametrize("move", [False, True])
def test_a_freed_name_is_told_as_port_deleted(move: bool) -> None:
    """N69: 65."""
    a, b, other = three_tasks()
    notify, send = a.port(), a.take(b, full_port(b), MAKE_SEND)
    a.request(SEND_POSSIBLE, send, notify, sync=1)
    other.take(a, send, MOVE_SEND) if move else a.deallocate(send)
    assert a.told(notify) == [("port-deleted", send)]


@pytest.mark.parametrize("sync", [0, 1])
def test_on_a_dead_name_it_is_told_at_once(sync: int) -> None:
    """N69: as a dead-name notification."""
    a, *_ = three_tasks()
    notify, dead = a.port(), a.dead_name()
    assert a.request(SEND_POSSIBLE, dead, notify, sync=sync) == NULL
    assert a.told(notify) == [("dead-name", dead)]
    assert a.urefs(dead) == 2


def test_a_set_has_none() -> None:
    """N66: 17, and 71."""
    a, *_ = three_tasks()
    notify, pset = a.port(), a.pset()
    with a.world.refuses_and_consumes(c.KERN_INVALID_RIGHT):
        a.request(SEND_POSSIBLE, pset, notify)
    assert a.told(notify) == [ONCE]


def test_a_renamed_request_tells_the_new_name() -> None:
    """N66, N25."""
    a, b, _ = three_tasks()
    port = full_port(b)
    notify, send = a.port(), a.take(b, port, MAKE_SEND)
    a.request(SEND_POSSIBLE, send, notify, sync=1)
    a.rename(send, 0x5000)
    b.receive(port)
    assert a.told(notify) == [("send-possible", 0x5000)]


def test_the_notify_port_may_be_the_watched_one() -> None:
    """N66, N6."""
    a, *_ = three_tasks()
    port = a.port_with_send()
    a.set_qlimit(port, 1)
    a.fill(port)
    a.request(SEND_POSSIBLE, port, port, sync=1)
    assert a.told(port) == [("message", 100), ("send-possible", port)]


def test_gnu_mach_has_none() -> None:
    """Section 3: there number 66 cannot be asked for."""
    a, *_ = three_tasks(GNUMACH)
    port = a.port()
    with a.world.refuses_and_consumes(c.KERN_INVALID_VALUE):
        a.request(SEND_POSSIBLE, port, port, how=MAKE_SEND_ONCE)
    assert a.status(port).msgcount == 1
    a.insert(port, port, MAKE_SEND)
    a.send(port, COPY_SEND)
