"""Dead-name and port-deleted notifications: N11-N27."""

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
    NULL,
    ONCE,
    PORT_DESTROYED,
    RECEIVE,
    REQUESTED,
    SEND,
    SEND_ONCE_RIGHT,
    SEND_RECEIVE,
    SEND_RIGHT,
    Actor,
    three_tasks,
)

from machport.abi import constants as c


def test_each_entry_has_its_own_request() -> None:
    """N11, N13, N14: other names for the port, in this or other spaces; without a request nobody is told."""
    a, b, other = three_tasks()
    port, notify = a.port(), other.port()
    asked, silent = b.take(a, port, MAKE_SEND), other.take(a, port, MAKE_SEND)
    once = [b.take(a, port, MAKE_SEND_ONCE) for _ in range(3)]
    b.request(DEATH, asked, notify, caller=other)
    b.request(DEATH, once[1], notify, caller=other)
    a.kill(port)
    assert other.told(notify) == [("dead-name", asked), ("dead-name", once[1])]
    assert [b.urefs(name) for name in (asked, *once)] == [2, 1, 2, 1]
    assert other.urefs(silent) == 1
    assert all(not type & REQUESTED for type in b.names().values())


def test_a_dead_name_notification_comes_exactly_once() -> None:
    """N13: the slot is empty afterwards."""
    a, b, _ = three_tasks()
    port, notify = b.port(), a.port()
    send = a.take(b, port, MAKE_SEND)
    a.request(DEATH, send, notify)
    b.kill(port)
    assert a.told(notify) == [("dead-name", send)]
    a.destroy(send)
    assert a.told(notify) == []


def test_the_name_is_of_the_entrys_space() -> None:
    """N13, section 2: just a number; the receiver may have other names."""
    a, b, other = three_tasks()
    port, notify = other.port(), a.port()
    b.insert(0x7777, port, MAKE_SEND, caller=other)
    a.insert(0x8888, port, MAKE_SEND, caller=other)
    b.request(DEATH, 0x7777, notify, caller=a)
    other.kill(port)
    assert a.told(notify) == [("dead-name", 0x7777)]
    assert a.names() == {notify: RECEIVE, 0x8888: DEAD_NAME}


def test_a_request_on_both_rights_ends_as_dead_name_or_port_deleted() -> None:
    """N15: by mod_refs the entry stays as a dead name; by destroy the name is freed."""
    a, *_ = three_tasks()
    notify = a.port()
    killed, destroyed = a.port_with_send(), a.port_with_send()
    for name in (killed, destroyed):
        a.request(DEATH, name, notify)
    a.kill(killed)
    a.destroy(destroyed)
    assert a.told(notify) == [("dead-name", killed), ("port-deleted", destroyed)]
    assert a.names() == {notify: RECEIVE, killed: DEAD_NAME}


@pytest.mark.parametrize("give_up", ["kill", "destroy", "move"])
def test_a_request_on_a_receive_right_alone_ends_in_port_deleted(give_up: str) -> None:
    """N16: when the receive right goes, so does the name."""
    a, b, _ = three_tasks()
    port, notify = a.port(), b.port()
    a.request(DEATH, port, notify, caller=b)
    if give_up == "move":
        b.take(a, port, MOVE_RECEIVE)
    else:
        getattr(a, give_up)(port)
    assert b.told(notify) == [("port-deleted", port)]


def test_a_send_once_entry_becomes_a_dead_name() -> None:
    """N17: urefs 1, or 2 with a request."""
    a, b, _ = three_tasks()
    port, notify = b.port(), a.port()
    plain, asked = a.take(b, port, MAKE_SEND_ONCE), a.take(b, port, MAKE_SEND_ONCE)
    a.request(DEATH, asked, notify)
    b.kill(port)
    assert (a.urefs(plain), a.urefs(asked)) == (1, 2)


def test_a_saved_port_fires_no_dead_name_request() -> None:
    """N18: it waits for the real death."""
    a, b, _ = three_tasks()
    port, notify = b.port(), a.port()
    send = a.take(b, port, MAKE_SEND)
    a.request(DEATH, send, notify)
    b.request(PORT_DESTROYED, port, a.take(a, notify, MAKE_SEND_ONCE), how=MOVE_SEND_ONCE, caller=a)
    b.kill(port)
    assert a.told(notify) == [("port-destroyed", send)]
    assert a.type(send) == SEND_RECEIVE | REQUESTED
    a.kill(send)
    assert a.told(notify) == [("dead-name", send)]


@pytest.mark.parametrize("urefs", [1, 2, c.SEND_UREFS_MAX])
def test_the_notification_stands_for_one_reference(urefs: int) -> None:
    """N19, N20, N21: also at the maximum; deallocate gives it back."""
    a, b, _ = three_tasks()
    port, notify = b.port(), a.port()
    send = a.take(b, port, MAKE_SEND)
    a.mod_refs(send, SEND_RIGHT, urefs - 1)
    a.request(DEATH, send, notify)
    b.kill(port)
    assert a.urefs(send) == urefs + 1
    a.deallocate(send)
    assert a.urefs(send) == urefs


# N23: everything that frees an entry


def entry(a: Actor, b: Actor, kind: str) -> int:
    if kind == "receive":
        return a.port()
    return a.take(b, b.port(), MAKE_SEND if kind == "send" else MAKE_SEND_ONCE)


FREEING: dict[str, tuple[str, Callable[[Actor, Actor, int], object]]] = {
    "deallocate of send": ("send", lambda a, b, name: a.deallocate(name)),
    "deallocate of send-once": ("send-once", lambda a, b, name: a.deallocate(name)),
    "mod_refs of send": ("send", lambda a, b, name: a.mod_refs(name, SEND_RIGHT, -1)),
    "mod_refs of send-once": ("send-once", lambda a, b, name: a.mod_refs(name, SEND_ONCE_RIGHT, -1)),
    "mod_refs of receive": ("receive", lambda a, b, name: a.kill(name)),
    "destroy of send": ("send", lambda a, b, name: a.destroy(name)),
    "destroy of send-once": ("send-once", lambda a, b, name: a.destroy(name)),
    "destroy of receive": ("receive", lambda a, b, name: a.destroy(name)),
    "message moves send": ("send", lambda a, b, name: a.send(a.port(), MAKE_SEND, rights=[(name, MOVE_SEND)])),
    "message moves receive": (
        "receive",
        lambda a, b, name: a.send(a.port(), MAKE_SEND, rights=[(name, MOVE_RECEIVE)]),
    ),
    "message moves send-once": (
        "send-once",
        lambda a, b, name: a.send(a.port(), MAKE_SEND, rights=[(name, MOVE_SEND_ONCE)]),
    ),
    "message to send": ("send", lambda a, b, name: a.send(name, MOVE_SEND)),
    "message to send-once": ("send-once", lambda a, b, name: a.send(name, MOVE_SEND_ONCE)),
    "reply moves send-once": (
        "send-once",
        lambda a, b, name: a.send(a.port(), MAKE_SEND, reply=name, reply_disposition=MOVE_SEND_ONCE),
    ),
    "extract of send": ("send", lambda a, b, name: b.take(a, name, MOVE_SEND)),
    "extract of send-once": ("send-once", lambda a, b, name: b.take(a, name, MOVE_SEND_ONCE)),
    "extract of receive": ("receive", lambda a, b, name: b.take(a, name, MOVE_RECEIVE)),
    "insert elsewhere": ("receive", lambda a, b, name: b.insert(0x5000, name, MOVE_RECEIVE, caller=a)),
    "termination": ("send", lambda a, b, name: a.terminate()),
}


@pytest.mark.parametrize("way", FREEING)
def test_a_freed_entry_gives_port_deleted(way: str) -> None:
    """N23: with the freed name, once."""
    a, b, other = three_tasks()
    kind, free = FREEING[way]
    name, notify = entry(a, b, kind), other.port()
    a.request(DEATH, name, notify, caller=other)
    free(a, b, name)
    assert other.told(notify) == [("port-deleted", name)]
    assert name not in a.names()


def test_losing_one_of_two_rights_keeps_the_request() -> None:
    """N24: either of them, in any way."""
    a, b, _ = three_tasks()
    notify = a.port()
    for lose in (
        lambda name: a.deallocate(name),
        lambda name: b.take(a, name, MOVE_SEND),
        lambda name: b.take(a, name, MOVE_RECEIVE),
    ):
        port = a.port_with_send()
        a.request(DEATH, port, notify)
        lose(port)
        assert a.type(port) & REQUESTED
        assert a.told(notify) == []


def test_gaining_a_right_keeps_the_request() -> None:
    """N24: RECEIVE joins SEND, SEND joins RECEIVE."""
    a, b, _ = three_tasks()
    notify, port, own = a.port(), b.port(), a.port()
    send = a.take(b, port, MAKE_SEND)
    a.request(DEATH, send, notify)
    a.request(DEATH, own, notify)
    a.take(b, port, MOVE_RECEIVE)
    a.insert(own, own, MAKE_SEND)
    assert a.type(send) == a.type(own) == SEND_RECEIVE | REQUESTED
    assert a.told(notify) == []


@pytest.mark.parametrize("dies", [False, True])
def test_a_renamed_request_tells_the_new_name(dies: bool) -> None:
    """N25: nothing is sent for the old one."""
    a, b, _ = three_tasks()
    port, notify = b.port(), a.port()
    send = a.take(b, port, MAKE_SEND)
    a.request(DEATH, send, notify)
    a.rename(send, 0x5000)
    assert a.told(notify) == []
    if dies:
        b.kill(port)
        assert a.told(notify) == [("dead-name", 0x5000)]
    else:
        a.deallocate(0x5000)
        assert a.told(notify) == [("port-deleted", 0x5000)]


def test_a_freed_name_may_denote_something_else_by_then() -> None:
    """N26."""
    a, b, _ = three_tasks()
    notify, send = a.port(), a.take(b, b.port(), MAKE_SEND)
    a.request(DEATH, send, notify)
    a.deallocate(send)
    a.allocate_name(send, c.MACH_PORT_RIGHT_RECEIVE)
    assert a.told(notify) == [("port-deleted", send)]
    assert a.type(send) == RECEIVE


def test_port_deleted_is_queued_before_the_message_that_caused_it() -> None:
    """N27, M7."""
    a, *_ = three_tasks()
    port = a.port()
    once = a.take(a, port, MAKE_SEND_ONCE)
    a.request(DEATH, once, port)
    a.send(once, MOVE_SEND_ONCE, id=3)
    assert a.told(port) == [("port-deleted", once), ("message", 3)]


def test_a_cancelled_request_tells_nobody() -> None:
    """N2: not even when the port dies."""
    a, b, _ = three_tasks()
    port, notify = b.port(), a.port()
    send = a.take(b, port, MAKE_SEND)
    a.request(DEATH, send, notify)
    a.deallocate(a.request(DEATH, send, NULL))
    assert a.told(notify) == [ONCE]
    b.kill(port)
    assert a.told(notify) == []
    assert a.urefs(send) == 1


def test_a_request_of_a_name_that_died_unlooked_at() -> None:
    """N13, N22: the registered one fired; asking again is asking about a dead name."""
    a, b, _ = three_tasks()
    port, notify = b.port(), a.port()
    send = a.take(b, port, MAKE_SEND)
    a.request(DEATH, send, notify)
    b.kill(port)
    a.request(DEATH, send, notify, sync=1)
    assert a.told(notify) == [("dead-name", send)] * 2
    assert a.urefs(send) == 3


def test_copying_a_watched_right_elsewhere_does_not_copy_the_request() -> None:
    """N11."""
    a, b, other = three_tasks()
    port, notify = a.port(), b.port()
    send = b.take(a, port, MAKE_SEND)
    b.request(DEATH, send, notify)
    copied = other.take(b, send, COPY_SEND)
    assert other.type(copied) == SEND
