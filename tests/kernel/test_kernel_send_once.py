"""Send-once notifications, N50-N55, and how notifications are delivered, N56-N65."""

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
    MOVE_SEND_ONCE,
    NO_SENDERS,
    NOTHING,
    NULL,
    ONCE,
    PORT_DESTROYED,
    RECEIVE,
    ROOM,
    SEND_ONCE_RIGHT,
    Actor,
    done,
    parse_result,
    three_tasks,
)

from machport.abi import constants as c
from machport.abi import message as layout

Use = Callable[[Actor, int], object]


def lost_in_a_queue(a: Actor, once: int, *, reply: bool) -> None:
    inbox = a.port()
    if reply:
        a.send(inbox, MAKE_SEND, reply=once, reply_disposition=MOVE_SEND_ONCE)
    else:
        a.send(inbox, MAKE_SEND, rights=[(once, MOVE_SEND_ONCE)])
    a.kill(inbox)


def moved_and_dropped(a: Actor, once: int) -> None:
    inbox = a.port()
    a.send(inbox, MAKE_SEND, rights=[(once, MOVE_SEND_ONCE)])
    a.deallocate(a.receive(inbox).rights[0][0])


def failing_request(a: Actor, once: int) -> None:
    with a.world.refuses_and_consumes(c.KERN_INVALID_NAME):
        a.request(DEATH, NOTHING, once, how=MOVE_SEND_ONCE)


def failing_insert(a: Actor, once: int) -> None:
    with a.world.refuses_and_consumes(c.KERN_INVALID_VALUE):
        a.insert(NULL, once, MOVE_SEND_ONCE)


def registered_and_moved_away(a: Actor, once: int) -> None:
    port = a.port()
    a.request(NO_SENDERS, port, once, how=MOVE_SEND_ONCE, sync=1)
    a.take(a, port, MOVE_RECEIVE)


def registered_and_died(a: Actor, once: int) -> None:
    port = a.port()
    a.request(NO_SENDERS, port, once, how=MOVE_SEND_ONCE, sync=1)
    a.kill(port)


def replaced_and_dropped(a: Actor, once: int) -> None:
    port = a.port()
    a.request(DEATH, port, once, how=MOVE_SEND_ONCE)
    a.deallocate(a.request(DEATH, port))


#: Every way in which a live send-once right can end without a message, and the ways in which it brings one.
UNUSED: dict[str, Use] = {
    "deallocate": lambda a, once: a.deallocate(once),
    "mod_refs": lambda a, once: a.mod_refs(once, SEND_ONCE_RIGHT, -1),
    "destroy": lambda a, once: a.destroy(once),
    "termination": lambda a, once: a.terminate(),
    "lost as reply": lambda a, once: lost_in_a_queue(a, once, reply=True),
    "lost in a body": lambda a, once: lost_in_a_queue(a, once, reply=False),
    "lost as destination": lambda a, once: a.send_error(once, MOVE_SEND_ONCE, rights=[(NOTHING, COPY_SEND)]),
    "moved and dropped": moved_and_dropped,
    "failing request": failing_request,
    "failing insert": failing_insert,
    "no-senders request that moves": registered_and_moved_away,
    "no-senders request of a dying port": registered_and_died,
    "previous, dropped": replaced_and_dropped,
}


@pytest.mark.parametrize("way", UNUSED)
def test_an_unused_right_says_so(way: str) -> None:
    """N50, N51, N52: exactly one message."""
    a, b, _ = three_tasks()
    port = b.port()
    UNUSED[way](a, a.take(b, port, MAKE_SEND_ONCE))
    assert b.told(port) == [ONCE]
    assert b.status(port).sorights == 0


def watched_and_destroyed(a: Actor, once: int, variant: int) -> None:
    port = a.port()
    a.request(variant, port, once, how=MOVE_SEND_ONCE)
    a.destroy(port)


USED: dict[str, tuple[Use, str]] = {
    "a message": (lambda a, once: a.send(once, MOVE_SEND_ONCE, id=1), "message"),
    "dead name": (
        lambda a, once: a.request(DEATH, a.dead_name(), once, how=MOVE_SEND_ONCE, sync=1),
        "dead-name",
    ),
    "port deleted": (lambda a, once: watched_and_destroyed(a, once, DEATH), "port-deleted"),
    "port destroyed": (lambda a, once: watched_and_destroyed(a, once, PORT_DESTROYED), "port-destroyed"),
    "no senders": (lambda a, once: a.request(NO_SENDERS, a.port(), once, how=MOVE_SEND_ONCE), "no-senders"),
}


@pytest.mark.parametrize("way", USED)
def test_a_used_right_brings_its_one_message(way: str) -> None:
    """N50, N53: and no 71 after it."""
    a, b, _ = three_tasks()
    port = b.port()
    use, event = USED[way]
    use(a, a.take(b, port, MAKE_SEND_ONCE))
    assert [what for what, *_ in b.told(port)] == [event]
    assert b.status(port).sorights == 0


def test_there_is_no_word_to_a_dead_port() -> None:
    """N53."""
    a, b, _ = three_tasks()
    port = b.port()
    once = a.take(b, port, MAKE_SEND_ONCE)
    b.kill(port)
    a.deallocate(once)
    assert a.names() == b.names() == {}


def test_previous_is_not_told_of_its_return() -> None:
    """N53."""
    a, *_ = three_tasks()
    port = a.port()
    a.request(DEATH, port, port)
    a.request(DEATH, port, port)
    assert a.told(port) == []


def test_it_carries_no_data() -> None:
    """N54, section 2: 24 bytes; which right it was is not said."""
    a, *_ = three_tasks()
    port = a.port()
    a.deallocate(a.take(a, port, MAKE_SEND_ONCE))
    message = a.receive(port)
    assert (message.size, message.bits, message.inline) == (24, MOVE_SEND_ONCE << 8, b"")


def test_it_uses_up_the_right_it_reports() -> None:
    """N55: sorights goes down only when it is received."""
    a, b, _ = three_tasks()
    port = b.port()
    a.deallocate(a.take(b, port, MAKE_SEND_ONCE))
    assert (b.status(port).sorights, b.status(port).msgcount) == (1, 1)
    b.receive(port)
    assert b.status(port).sorights == 0


# Layout, section 2


def all_notifications(a: Actor, b: Actor) -> tuple[int, dict[str, int]]:
    """A port with one notification of each kind in its queue, and the word that each carries."""
    notify, send_port = a.port(), b.port()
    dead, deleted, destroyed = a.dead_name(), a.take(b, send_port, MAKE_SEND), a.port()
    a.request(DEATH, dead, notify, sync=1)
    a.request(DEATH, deleted, notify)
    a.deallocate(deleted)
    a.request(PORT_DESTROYED, destroyed, notify)
    a.destroy(destroyed)
    counted = a.port()
    a.set_mscount(counted, 0x01020304)
    a.request(NO_SENDERS, counted, notify)
    possible = a.port()
    a.request(c.MACH_NOTIFY_SEND_POSSIBLE, possible, notify, sync=1)
    a.deallocate(a.take(a, notify, MAKE_SEND_ONCE))
    return notify, {"dead-name": dead, "port-deleted": deleted, "no-senders": 0x01020304, "send-possible": possible}


def test_the_layout_of_each_notification() -> None:
    """Section 2: bits, size, ports, NDR record, payload offset, trailer offset."""
    a, b, _ = three_tasks()
    notify, words = all_notifications(a, b)
    for id, size, name in (
        (72, 36, "dead-name"),
        (65, 36, "port-deleted"),
        (69, 40, ""),
        (70, 36, "no-senders"),
        (66, 36, "send-possible"),
        (71, 24, ""),
    ):
        result = a.try_receive(notify, option=c.MACH_RCV_MSG | 3 << 24)
        buffer = result.buffer
        assert buffer is not None
        bits, msgh_size, remote, local, voucher, msgh_id = layout.HEADER.unpack_from(buffer)
        assert bits == (0x80001200 if id == 69 else 0x00001200)
        assert (msgh_size, remote, local, voucher, msgh_id) == (size, NULL, notify, 0, id)
        assert buffer[size : size + 8] == bytes((0, 0, 0, 0, 52, 0, 0, 0))
        assert buffer[size + 12 : size + 20] == bytes((0, 0, 0, 0, 1, 0, 0, 0))
        if name:
            assert buffer[24:32] == bytes((0, 0, 0, 0, 1, 0, 0, 0))
            assert int.from_bytes(buffer[32:36], "little") == words[name]
        if id == 69:
            assert buffer[24:28] == bytes((1, 0, 0, 0))
            assert a.type(int.from_bytes(buffer[28:32], "little")) == RECEIVE
            assert buffer[32:40] == bytes((0, 0, 0, 0, 0, 0, 16, 0))


# Delivery


def test_notifications_ignore_the_queue_limit() -> None:
    """N56, N57: they count in msgcount, so they stop ordinary senders only."""
    a, *_ = three_tasks()
    port = a.port()
    a.set_qlimit(port, 0)
    for _ in range(50):
        a.deallocate(a.take(a, port, MAKE_SEND_ONCE))
    assert a.status(port).msgcount == 50
    a.set_qlimit(port, 50)
    a.wait_to_send(port, MAKE_SEND)


def test_a_dead_notify_port_swallows_them_with_their_contents() -> None:
    """N58: silently."""
    a, b, _ = three_tasks()
    notify, port = a.port(), a.port()
    watch = b.take(a, port, MAKE_SEND)
    a.request(PORT_DESTROYED, port, notify)
    a.request(DEATH, port, notify)
    a.kill(notify)
    a.destroy(port)
    assert b.names() == {watch: DEAD_NAME}
    assert a.names() == {}


def test_they_are_there_when_the_causing_call_returns() -> None:
    """N59: with a zero timeout."""
    a, *_ = three_tasks()
    port = a.port()
    once = a.take(a, port, MAKE_SEND_ONCE)
    a.deallocate(once)
    assert a.try_receive(port).code == c.MACH_MSG_SUCCESS


def test_they_arrive_in_the_order_in_which_they_were_caused() -> None:
    """N60."""
    a, b, _ = three_tasks()
    notify = a.port()
    names = [a.take(b, b.port(), MAKE_SEND) for _ in range(5)]
    for name in reversed(names):
        a.request(DEATH, name, notify)
    for name in names:
        a.deallocate(name)
    assert a.told(notify) == [("port-deleted", name) for name in names]


def test_a_waiting_thread_is_handed_a_notification() -> None:
    """N59, M13."""
    a, *_ = three_tasks()
    port = a.port()
    once = a.take(a, port, MAKE_SEND_ONCE)
    waiter = a.wait_to_receive(port)
    a.deallocate(once)
    assert parse_result(done(waiter)).told() == ONCE


def test_the_causer_in_a_send_and_receive_finds_its_own_notification() -> None:
    """N59: caused by the first half, received by the second."""
    a, *_ = three_tasks()
    port = a.port()
    once = a.take(a, port, MAKE_SEND_ONCE)
    a.request(DEATH, once, port)
    buffer = layout.pack(MOVE_SEND_ONCE, once, id=5)
    option = c.MACH_SEND_MSG | c.MACH_RCV_MSG
    waiter = a.mach_msg(option, buffer, rcv_name=port, rcv_limit=ROOM)
    assert parse_result(done(waiter)).told() == ("port-deleted", once)


def test_a_notification_is_received_by_whoever_holds_the_notify_port() -> None:
    """N64: it moves with that port's queue."""
    a, b, _ = three_tasks()
    port = a.port()
    a.deallocate(a.take(a, port, MAKE_SEND_ONCE))
    moved = b.take(a, port, MOVE_RECEIVE)
    assert b.told(moved) == [ONCE]
