"""Giving up rights, in the order of effects: section 8 of the specification of ports, P28, P29, N61.

One notify port hears of everything in these tests, so its queue shows the order.
"""

from __future__ import annotations

from collections.abc import Callable

from kernel_driver import (
    COPY_SEND,
    DEAD,
    DEAD_NAME,
    DEATH,
    MAKE_SEND,
    MAKE_SEND_ONCE,
    MOVE_RECEIVE,
    MOVE_SEND,
    MOVE_SEND_ONCE,
    NO_SENDERS,
    ONCE,
    PORT_DESTROYED,
    RECEIVE,
    REQUESTED,
    SEND,
    SEND_ONCE_RIGHT,
    Actor,
    three_tasks,
)


def watched_port(a: Actor, notify: int, urefs: int = 1) -> int:
    """SEND|RECEIVE with a dead-name and a no-senders request to ``notify``."""
    port = a.port_with_send(urefs)
    a.request(DEATH, port, notify)
    a.request(NO_SENDERS, port, notify, sync=1)
    return port


def test_the_last_send_reference_says_no_senders_before_port_deleted() -> None:
    """Section 8, N61: with the make-send count of now."""
    a, b, _ = three_tasks()
    notify, port = a.port(), a.port()
    a.take(a, port, MAKE_SEND)
    a.deallocate(port)
    assert a.type(port) == RECEIVE
    send = b.take(a, port, MAKE_SEND)
    b.request(DEATH, send, notify, caller=a)
    a.request(NO_SENDERS, port, notify, sync=2)
    b.mod_refs(send, 0, 1)
    b.deallocate(send)
    assert a.told(notify) == []
    b.deallocate(send)
    assert a.told(notify) == [("no-senders", 2), ("port-deleted", send)]
    assert b.names() == {}


def test_the_last_send_reference_beside_a_receive_right_keeps_the_request() -> None:
    """Section 8, N24: the entry becomes RECEIVE, its dead-name request stays."""
    a, *_ = three_tasks()
    notify = a.port()
    port = watched_port(a, notify)
    a.deallocate(port)
    assert a.type(port) == RECEIVE | REQUESTED
    assert a.told(notify) == [("no-senders", 1)]


def test_a_send_once_right_says_so_before_port_deleted() -> None:
    """Section 8, N61: 71 to the port itself, then 65."""
    a, *_ = three_tasks()
    port = a.port()
    ways: list[Callable[[int], None]] = [a.deallocate, a.destroy, lambda name: a.mod_refs(name, SEND_ONCE_RIGHT, -1)]
    for give_up in ways:
        once = a.take(a, port, MAKE_SEND_ONCE)
        a.request(DEATH, once, port)
        give_up(once)
        assert a.told(port) == [ONCE, ("port-deleted", once)]


def test_a_receive_right_dies_before_its_name_is_deleted() -> None:
    """Section 8, N16: port death first, then 65."""
    a, b, _ = three_tasks()
    notify = a.port()
    for give_up in (a.destroy, a.kill):
        port = a.port()
        send = b.take(a, port, MAKE_SEND)
        a.request(DEATH, port, notify)
        b.request(DEATH, send, notify, caller=a)
        give_up(port)
        assert a.told(notify) == [("dead-name", send), ("port-deleted", port)]


def test_a_receive_right_that_is_saved_goes_before_its_name_is_deleted() -> None:
    """Section 8: port-destroyed, then port-deleted."""
    a, *_ = three_tasks()
    notify, port = a.port(), a.port()
    a.request(DEATH, port, notify)
    a.request(PORT_DESTROYED, port, notify)
    a.destroy(port)
    (first, _), second = a.told(notify)
    assert first == "port-destroyed"
    assert second == ("port-deleted", port)


def test_mod_refs_of_receive_fires_its_own_request_as_dead_name() -> None:
    """Section 8, N15: within the death of the port."""
    a, *_ = three_tasks()
    notify = a.port()
    port = watched_port(a, notify, urefs=2)
    a.kill(port)
    assert a.told(notify) == [ONCE, ("dead-name", port)]  # the no-senders request ended unused
    assert a.type(port) == DEAD_NAME
    assert a.urefs(port) == 3


def test_destroy_of_send_and_receive_says_no_senders_although_the_port_dies() -> None:
    """P29, N15, N48: 70 after the death, then 65; the count is mscount as it was."""
    a, b, _ = three_tasks()
    notify = a.port()
    port = watched_port(a, notify)
    once = b.take(a, port, MAKE_SEND_ONCE)
    b.request(DEATH, once, notify, caller=a)
    a.destroy(port)
    assert a.told(notify) == [("dead-name", once), ("no-senders", 1), ("port-deleted", port)]


def test_destroy_of_send_and_receive_while_others_send_ends_the_no_senders_request() -> None:
    """Section 8, N48: it is not the last send right, so 71 in the death."""
    a, b, _ = three_tasks()
    notify = a.port()
    port = watched_port(a, notify)
    b.take(a, port, COPY_SEND)
    a.destroy(port)
    assert a.told(notify) == [ONCE, ("port-deleted", port)]


def test_destroy_of_send_and_receive_that_is_saved() -> None:
    """Section 8, N34: the send right is released, so no-senders comes after port-destroyed."""
    a, *_ = three_tasks()
    notify = a.port()
    port = watched_port(a, notify)
    a.request(PORT_DESTROYED, port, notify)
    a.destroy(port)
    assert [event for event, *_ in a.told(notify)] == ["port-destroyed", "no-senders", "port-deleted"]


def test_a_dead_name_goes_without_a_word() -> None:
    """Section 8: never any notification."""
    a, b, _ = three_tasks()
    notify, port = a.port(), b.port()
    send = a.take(b, port, MAKE_SEND)
    a.request(DEATH, send, notify)
    b.kill(port)
    assert a.told(notify) == [("dead-name", send)]
    a.deallocate(send)
    a.deallocate(send)
    assert a.told(notify) == []
    assert a.names() == {notify: RECEIVE}


def test_rights_in_a_destroyed_message_are_given_up_one_by_one() -> None:
    """Section 8: reply right, then the body from the first to the last."""
    a, b, _ = three_tasks()
    notify, dying = a.port(), b.port()
    ports = [a.port() for _ in range(3)]
    once = a.take(a, notify, MAKE_SEND_ONCE)
    a.request(NO_SENDERS, ports[0], notify, sync=1)
    send = a.take(a, ports[0], MAKE_SEND)
    watcher = a.take(a, ports[1], MAKE_SEND)
    a.request(DEATH, watcher, notify)
    a.send(
        a.take(b, dying, MAKE_SEND),
        reply=notify,
        reply_disposition=MAKE_SEND_ONCE,
        rights=[(send, MOVE_SEND), (ports[1], MOVE_RECEIVE), (once, MOVE_SEND_ONCE), (DEAD, COPY_SEND)],
    )
    assert a.type(watcher) == SEND | REQUESTED
    b.kill(dying)
    assert a.told(notify) == [ONCE, ("no-senders", 1), ("dead-name", watcher), ONCE]


def test_rights_to_a_dead_port_vanish() -> None:
    """P28: no effect for a port that is dead."""
    a, b, _ = three_tasks()
    inbox, port, notify = a.port(), b.port(), b.port()
    send, once = a.take(b, port, MAKE_SEND), a.take(b, port, MAKE_SEND_ONCE)
    b.request(NO_SENDERS, port, notify, sync=5)
    a.send(inbox, MAKE_SEND, rights=[(send, COPY_SEND), (once, MOVE_SEND_ONCE)])
    b.kill(port)
    assert b.told(notify) == [ONCE]
    a.kill(inbox)
    a.deallocate(send)
    assert b.told(notify) == []
    assert a.names() == {}
