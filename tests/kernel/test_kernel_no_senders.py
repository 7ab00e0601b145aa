"""No-senders notifications: N37-N49.  The table of section 1.2 is in ``test_kernel_requests``."""

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
    NOTHING,
    ONCE,
    SEND_RIGHT,
    Actor,
    three_tasks,
)

from machport.abi import constants as c


def by_unreceived_message(b: Actor, send: int) -> None:
    inbox = b.port()
    b.send(inbox, MAKE_SEND, rights=[(send, MOVE_SEND)])
    b.kill(inbox)


WAYS: dict[str, Callable[[Actor, int], object]] = {
    "deallocate": lambda b, send: b.deallocate(send),
    "mod_refs": lambda b, send: b.mod_refs(send, SEND_RIGHT, -1),
    "destroy": lambda b, send: b.destroy(send),
    "termination": lambda b, send: b.terminate(),
    "a destroyed message": by_unreceived_message,
    "a failed body": lambda b, send: b.send_error(send, MOVE_SEND, rights=[(NOTHING, MOVE_SEND)]),
}


@pytest.mark.parametrize("way", WAYS)
def test_it_fires_when_the_last_send_right_goes(way: str) -> None:
    """N37, N38, N39: once, with mscount as it is then."""
    a, b, other = three_tasks()
    port, notify = a.port(), a.port()
    a.request(NO_SENDERS, port, notify, sync=1)
    send, second = b.take(a, port, MAKE_SEND), other.take(a, port, MAKE_SEND)
    WAYS[way](b, send)
    assert a.told(notify) == []
    other.deallocate(second)
    assert a.told(notify) == [("no-senders", 2)]
    assert a.status(port).nsrequest == 0


@pytest.mark.parametrize("way", WAYS)
def test_it_fires_in_each_way_in_which_the_last_one_goes(way: str) -> None:
    """N37."""
    a, b, _ = three_tasks()
    port, notify = a.port(), a.port()
    send = b.take(a, port, MAKE_SEND)
    a.request(NO_SENDERS, port, notify, sync=1)
    WAYS[way](b, send)
    assert a.told(notify) == [("no-senders", 1)]


def test_it_fires_when_the_last_message_of_a_moved_right_is_received() -> None:
    """N37, M24."""
    a, b, _ = three_tasks()
    port, notify = a.port(), a.port()
    send = b.take(a, port, MAKE_SEND)
    a.request(NO_SENDERS, port, notify, sync=1)
    b.send(send, MOVE_SEND)
    assert a.told(notify) == []
    a.receive(port)
    assert a.told(notify) == [("no-senders", 1)]


def test_it_fires_once_per_request() -> None:
    """N38: making and losing rights again produces nothing."""
    a, b, _ = three_tasks()
    port, notify = a.port(), a.port()
    a.request(NO_SENDERS, port, notify, sync=1)
    for _ in range(3):
        b.deallocate(b.take(a, port, MAKE_SEND))
    assert a.told(notify) == [("no-senders", 1)]
    a.request(NO_SENDERS, port, notify, sync=4)
    b.deallocate(b.take(a, port, MAKE_SEND))
    assert a.told(notify) == [("no-senders", 4)]


def test_rights_in_messages_are_senders() -> None:
    """N40: wherever they travel."""
    a, b, _ = three_tasks()
    port, notify, inbox = a.port(), a.port(), b.port()
    a.request(NO_SENDERS, port, notify, sync=1)
    a.send(a.take(b, inbox, MAKE_SEND), reply=port, reply_disposition=MAKE_SEND)
    assert a.srights(port) == 1
    reply = b.receive(inbox).remote
    assert a.told(notify) == []
    b.deallocate(reply)
    assert a.told(notify) == [("no-senders", 1)]


def test_a_senders_blocked_message_is_a_sender() -> None:
    """N40: it holds its rights while it waits."""
    a, b, _ = three_tasks()
    port, notify = a.port(), a.port()
    a.set_qlimit(port, 0)
    send = b.take(a, port, MAKE_SEND)
    a.request(NO_SENDERS, port, notify, sync=1)
    waiter = b.wait_to_send(send, MOVE_SEND)
    assert a.told(notify) == []
    b.expire(waiter)
    b.deallocate(next(iter(b.names())))
    assert a.told(notify) == [("no-senders", 1)]


def test_references_do_not_matter() -> None:
    """N41: only the disappearance of the right."""
    a, b, _ = three_tasks()
    port, notify = a.port(), a.port()
    send = b.take(a, port, MAKE_SEND)
    b.mod_refs(send, SEND_RIGHT, 3)
    a.request(NO_SENDERS, port, notify, sync=1)
    for _ in range(3):
        b.deallocate(send)
        assert a.told(notify) == []
    b.deallocate(send)
    assert a.told(notify) == [("no-senders", 1)]


def test_it_is_immediate_even_if_no_send_right_was_ever_made() -> None:
    """N42."""
    a, *_ = three_tasks()
    port = a.port()
    a.request(NO_SENDERS, port, port)
    assert a.told(port) == [("no-senders", 0)]


def test_sync_is_not_compared_again() -> None:
    """N43: a registered request fires at the next 1 to 0, whatever mscount is."""
    a, b, _ = three_tasks()
    port, notify = a.port(), a.port()
    a.request(NO_SENDERS, port, notify, sync=100)
    b.deallocate(b.take(a, port, MAKE_SEND))
    assert a.told(notify) == [("no-senders", 1)]


def test_the_idiom() -> None:
    """N44: a notification whose count is less than mscount is stale."""
    a, b, other = three_tasks()
    port, notify = a.port(), a.port()
    send = b.take(a, port, MAKE_SEND)
    made = 1
    a.request(NO_SENDERS, port, notify, sync=made)
    b.deallocate(send)
    other.take(a, port, MAKE_SEND)
    made += 1
    ((_, count),) = a.told(notify)
    assert count < made
    a.request(NO_SENDERS, port, notify, sync=made)
    assert a.told(notify) == []


def test_setting_mscount_neither_fires_nor_cancels() -> None:
    """N45: the notification carries the number set."""
    a, b, _ = three_tasks()
    port, notify = a.port(), a.port()
    a.request(NO_SENDERS, port, notify, sync=5)
    a.set_mscount(port, 9)
    assert a.told(notify) == []
    b.deallocate(b.take(a, port, MAKE_SEND))
    assert a.told(notify) == [("no-senders", 10)]


def test_copies_do_not_count() -> None:
    """N46: only MAKE_SEND does, also when absorbed."""
    a, b, other = three_tasks()
    port = a.port()
    send = b.take(a, port, MAKE_SEND)
    other.take(b, send, COPY_SEND)
    b.take(a, port, MAKE_SEND)
    assert a.status(port).mscount == 2


@pytest.mark.parametrize("move", ["message", "extract", "insert", "port-destroyed"])
def test_moving_the_receive_right_cancels_it(move: str) -> None:
    """N47, N52: 71 to its send-once right, mscount 0, no later notification."""
    a, b, _ = three_tasks()
    port, notify = a.port(), a.port()
    send = b.take(a, port, MAKE_SEND)
    a.request(NO_SENDERS, port, notify)
    if move == "extract":
        b.take(a, port, MOVE_RECEIVE)
    elif move == "insert":
        b.insert(send, port, MOVE_RECEIVE, caller=a)
    elif move == "message":
        inbox = b.port()
        a.send(a.take(b, inbox, MAKE_SEND_ONCE), MOVE_SEND_ONCE, rights=[(port, MOVE_RECEIVE)])
        b.receive(inbox)
    else:
        inbox = b.port()
        a.request(c.MACH_NOTIFY_PORT_DESTROYED, port, a.take(b, inbox, MAKE_SEND_ONCE), how=MOVE_SEND_ONCE)
        a.kill(port)
        b.receive(inbox)
    assert a.told(notify) == [ONCE]
    assert b.status(send).mscount == 0
    b.deallocate(send)
    assert a.told(notify) == []


def test_death_turns_it_into_send_once_before_the_queue() -> None:
    """N48: but 70 in the case of P29."""
    a, b, _ = three_tasks()
    port, notify = a.port(), a.port()
    b.take(a, port, MAKE_SEND)
    a.request(NO_SENDERS, port, notify)
    a.send(port, MAKE_SEND, reply=notify, reply_disposition=MAKE_SEND, id=1)
    a.request(NO_SENDERS, notify, notify, sync=1)
    a.kill(port)
    assert a.told(notify) == [ONCE, ("no-senders", 1)]


def test_send_once_rights_are_not_senders() -> None:
    """N49."""
    a, b, _ = three_tasks()
    port, notify = a.port(), a.port()
    once = b.take(a, port, MAKE_SEND_ONCE)
    a.request(NO_SENDERS, port, notify)
    assert a.told(notify) == [("no-senders", 0)]
    a.request(NO_SENDERS, port, notify, sync=1)
    b.deallocate(once)
    assert a.told(notify) == []
