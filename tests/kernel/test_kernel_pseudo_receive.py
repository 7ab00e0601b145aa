"""A send that gives up gets its message back: section 5 of the specification of messages, M18-M21."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from kernel_driver import (
    COPY_SEND,
    DEAD,
    DEAD_NAME,
    MAKE_SEND,
    MAKE_SEND_ONCE,
    MOVE_RECEIVE,
    MOVE_SEND,
    MOVE_SEND_ONCE,
    NO_SENDERS,
    NULL,
    ONCE,
    RECEIVE,
    SEND,
    SEND_ONCE,
    SEND_RECEIVE,
    Actor,
    Received,
    done,
    parse_result,
    three_tasks,
)

from machport.abi import constants as c
from machport.abi import message as layout


def full_port(owner: Actor) -> int:
    port = owner.port()
    owner.set_qlimit(port, 0)
    return port


def bounce(a: Actor, remote: int, disposition: int = COPY_SEND, **options: object) -> Received:
    """Send to a full queue with a timeout of 0."""
    result = done(a.try_send(remote, disposition, **options))  # type: ignore[arg-type]
    assert result.code == c.MACH_SEND_TIMED_OUT
    return parse_result(result)


def by_poll(a: Actor, remote: int) -> Received:
    return bounce(a, remote, id=9, inline=b"data")


def by_expiry(a: Actor, remote: int) -> Received:
    result = a.expire(a.wait_to_send(remote, id=9, inline=b"data"))
    assert result.code == c.MACH_SEND_TIMED_OUT
    return parse_result(result)


def by_interruption(a: Actor, remote: int) -> Received:
    result = a.interrupt(a.wait_to_send(remote, id=9, inline=b"data"))
    assert result.code == c.MACH_SEND_INTERRUPTED
    return parse_result(result)


WAYS = pytest.mark.parametrize("give_up", [by_poll, by_expiry, by_interruption])


@WAYS
def test_the_message_comes_back_not_swapped_and_without_a_trailer(give_up: Callable[[Actor, int], Received]) -> None:
    """M18."""
    a, b, _ = three_tasks()
    send = a.take(b, full_port(b), MAKE_SEND)
    back = give_up(a, send)
    assert (back.remote, back.remote_kind, back.local, back.local_kind) == (send, MOVE_SEND, NULL, 0)
    assert (back.id, back.inline, back.size, back.trailer) == (9, b"data", 28, None)


@WAYS
def test_a_copied_destination_has_gained_a_reference(give_up: Callable[[Actor, int], Received]) -> None:
    """M19: on the destination name."""
    a, b, _ = three_tasks()
    port = full_port(b)
    send = a.take(b, port, MAKE_SEND)
    give_up(a, send)
    assert a.urefs(send) == 2
    assert b.srights(port) == 1


@pytest.mark.parametrize(
    ("sent", "back", "type"),
    [
        (COPY_SEND, MOVE_SEND, SEND_RECEIVE),
        (MOVE_SEND, MOVE_SEND, SEND_RECEIVE),
        (MAKE_SEND, MOVE_SEND, SEND_RECEIVE),
        (MAKE_SEND_ONCE, MOVE_SEND_ONCE, SEND_ONCE),
    ],
)
def test_dispositions_come_back_in_their_received_form(sent: int, back: int, type: int) -> None:
    """M18: for the reply and in the body."""
    a, b, _ = three_tasks()
    send = a.take(b, full_port(b), MAKE_SEND)
    port = a.port_with_send(3)
    message = bounce(a, send, reply=port, reply_disposition=sent, rights=[(port, sent)])
    assert message.local_kind == back
    assert message.rights[0][1] == back
    assert a.type(message.local) == a.type(message.rights[0][0]) == type
    assert message.bits & c.MACH_MSGH_BITS_COMPLEX


def test_a_made_reply_right_has_become_a_new_name() -> None:
    """M19: in the local port field; mscount stays incremented."""
    a, b, _ = three_tasks()
    port, reply = full_port(b), a.port()
    send = a.take(b, port, MAKE_SEND)
    once = bounce(a, send, reply=reply, reply_disposition=MAKE_SEND_ONCE).local
    assert once != reply
    assert a.type(once) == SEND_ONCE
    bounce(a, send, reply=reply, reply_disposition=MAKE_SEND)
    assert a.status(reply).mscount == 1
    assert a.type(reply) == SEND_RECEIVE


def test_resending_the_buffer_unchanged_is_right() -> None:
    """M19: what came back is a message that can be sent."""
    a, b, _ = three_tasks()
    port, reply, carried = full_port(b), a.port(), a.port()
    send = a.take(b, port, MAKE_SEND)
    result = done(
        a.try_send(send, reply=reply, reply_disposition=MAKE_SEND_ONCE, rights=[(carried, MOVE_RECEIVE)], id=4)
    )
    assert result.buffer is not None
    b.set_qlimit(port, 1)
    again = done(a.mach_msg(c.MACH_SEND_MSG | c.MACH_SEND_TIMEOUT, result.buffer))
    assert again.code == c.MACH_MSG_SUCCESS
    message = b.receive(port)
    b.send(message.remote, MOVE_SEND_ONCE, id=5)
    assert a.told(reply) == [("message", 5)]
    assert b.type(message.rights[0][0]) == RECEIVE
    assert a.urefs(send) == 1


@pytest.mark.parametrize("interrupted", [False, True])
def test_rights_that_died_meanwhile_come_back_dead(interrupted: bool) -> None:
    """M20: ~0."""
    a, b, other = three_tasks()
    send, dying = a.take(b, full_port(b), MAKE_SEND), other.port()
    right = a.take(other, dying, MAKE_SEND)
    waiter = a.wait_to_send(send, reply=right, reply_disposition=COPY_SEND, rights=[(right, MOVE_SEND)])
    other.kill(dying)
    message = parse_result(a.interrupt(waiter) if interrupted else a.expire(waiter))
    assert message.local == DEAD
    assert message.rights == [(DEAD, MOVE_SEND)]
    assert message.remote == send


def test_a_receive_right_comes_back_reset() -> None:
    """M20: mscount 0, seqno 0, out of its set, without its no-senders request."""
    a, b, _ = three_tasks()
    send, port, notify = a.take(b, full_port(b), MAKE_SEND), a.port(), a.port()
    a.set_mscount(port, 5)
    a.set_seqno(port, 6)
    a.pset(port)
    a.request(NO_SENDERS, port, notify, sync=9)
    ((name, kind),) = bounce(a, send, rights=[(port, MOVE_RECEIVE)]).rights
    assert kind == MOVE_RECEIVE
    status = a.status(name)
    assert (status.mscount, status.seqno, status.pset, status.nsrequest) == (0, 0, NULL, 0)
    assert a.told(notify) == [ONCE]


def test_memory_comes_back() -> None:
    """M18, M20."""
    a, b, _ = three_tasks()
    send = a.take(b, full_port(b), MAKE_SEND)
    buffer = layout.pack(layout.bits(COPY_SEND), send, descriptors=[layout.memory_descriptor(3)], inline=b"tail")
    result = done(a.mach_msg(c.MACH_SEND_MSG | c.MACH_SEND_TIMEOUT, buffer, memory=(b"abc",)))
    assert list(result.memory) == [b"abc"]
    assert parse_result(result).inline == b"tail"


def test_a_shortage_of_names_is_told_in_the_code() -> None:
    """M21: IPC_SPACE, and the right concerned is destroyed."""
    a, b, _ = three_tasks(name_limit=3)
    port, reply = full_port(b), a.port()
    watched = b.port()
    send = a.take(b, port, MAKE_SEND)
    once = a.take(b, watched, MAKE_SEND_ONCE)
    waiter = a.wait_to_send(send, reply=reply, reply_disposition=MAKE_SEND_ONCE, rights=[(once, MOVE_SEND_ONCE)])
    a.port()
    result = a.expire(waiter)
    assert result.code == c.MACH_SEND_TIMED_OUT | c.MACH_MSG_IPC_SPACE
    message = parse_result(result)
    assert (message.remote, message.local) == (send, NULL)
    assert message.rights == [(NULL, MOVE_SEND_ONCE)]
    assert a.told(reply) == [ONCE]
    assert b.told(watched) == [ONCE]


def test_a_moved_destination_comes_back_under_a_name() -> None:
    """M18: as if it were in the body."""
    a, b, _ = three_tasks()
    send = a.take(b, full_port(b), MAKE_SEND)
    message = bounce(a, send, MOVE_SEND)
    assert a.names() == {message.remote: SEND}


def test_a_waiter_that_was_served_cannot_expire() -> None:
    """Timeouts and interruptions that come too late change nothing."""
    a, b, _ = three_tasks()
    port = full_port(b)
    waiter = a.wait_to_send(a.take(b, port, MAKE_SEND))
    b.set_qlimit(port, 1)
    with a.world.unchanged():
        assert a.expire(waiter).code == c.MACH_MSG_SUCCESS
        assert a.interrupt(waiter).code == c.MACH_MSG_SUCCESS


def test_the_receive_half_is_not_tried_after_giving_up() -> None:
    """M1: a send error ends the call."""
    a, b, _ = three_tasks()
    waiter = a.wait_to_send(a.take(b, full_port(b), MAKE_SEND), receive=True)
    assert a.expire(waiter).code == c.MACH_SEND_TIMED_OUT


def test_a_destination_that_died_is_no_timeout() -> None:
    """M16 before M20: the death finishes the wait with success."""
    a, b, _ = three_tasks()
    port = full_port(b)
    send = a.take(b, port, MAKE_SEND)
    waiter = a.wait_to_send(send)
    b.kill(port)
    assert a.expire(waiter).code == c.MACH_MSG_SUCCESS
    assert a.type(send) == DEAD_NAME
