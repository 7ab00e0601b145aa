"""Receiving: section 6 of the specification of messages, M22-M30, and trailers, M33-M35."""

from __future__ import annotations

import pytest
from kernel_driver import (
    COPY_SEND,
    DEAD,
    MAKE_SEND,
    MAKE_SEND_ONCE,
    MOVE_RECEIVE,
    MOVE_SEND,
    MOVE_SEND_ONCE,
    NO_SENDERS,
    NOTHING,
    NULL,
    ONCE,
    RECEIVE,
    SEND,
    Actor,
    done,
    parse_result,
    three_tasks,
    waits,
)

from machport.abi import constants as c
from machport.abi import message as layout
from machport.kernel import messages, ports

POLL = c.MACH_RCV_MSG | c.MACH_RCV_TIMEOUT


def trailer(elements: int, type: int = 0) -> int:
    return elements << c.MACH_RCV_TRAILER_ELEMENTS_SHIFT | type << c.MACH_RCV_TRAILER_TYPE_SHIFT


# Errors that take nothing


def test_only_receive_rights_and_sets_can_be_received_from() -> None:
    """Section 6: RCV_INVALID_NAME."""
    a, b, _ = three_tasks()
    port = b.port()
    names = [NULL, DEAD, NOTHING, a.dead_name(), a.take(b, port, MAKE_SEND), a.take(b, port, MAKE_SEND_ONCE)]
    for name in names:
        with a.world.unchanged():
            assert a.try_receive(name).code == c.MACH_RCV_INVALID_NAME


def test_a_member_of_a_set_cannot_be_received_from() -> None:
    """Section 6, D2: RCV_IN_SET, before the trailer is judged."""
    a, *_ = three_tasks()
    port = a.port()
    a.pset(port)
    a.send(port, MAKE_SEND)
    with a.world.unchanged():
        assert a.try_receive(port, option=POLL | trailer(5)).code == c.MACH_RCV_IN_SET


@pytest.mark.parametrize("option", [trailer(elements) for elements in (5, 6, 8, 15)] + [trailer(0, 1), trailer(3, 15)])
def test_a_trailer_request_must_be_known(option: int) -> None:
    """Section 6: type not 0, or elements not one of 0-4 and 7."""
    a, *_ = three_tasks()
    port = a.port()
    a.send(port, MAKE_SEND)
    with a.world.unchanged():
        assert a.try_receive(port, option=POLL | option).code == c.MACH_RCV_INVALID_TRAILER
        assert a.try_receive(NOTHING, option=POLL | option).code == c.MACH_RCV_INVALID_NAME


@pytest.mark.parametrize("interrupted", [False, True])
def test_nothing_in_time_takes_nothing(interrupted: bool) -> None:
    """Section 6: RCV_TIMED_OUT, RCV_INTERRUPTED; a later message is for others."""
    a, *_ = three_tasks()
    port = a.port()
    waiter = a.wait_to_receive(port)
    result = a.interrupt(waiter) if interrupted else a.expire(waiter)
    assert result.code == (c.MACH_RCV_INTERRUPTED if interrupted else c.MACH_RCV_TIMED_OUT)
    a.send(port, MAKE_SEND, id=1)
    assert a.told(port) == [("message", 1)]


def test_a_waiter_that_was_handed_a_message_cannot_expire() -> None:
    """M30: it is received once, by that thread."""
    a, *_ = three_tasks()
    port = a.port()
    waiter = a.wait_to_receive(port)
    a.send(port, MAKE_SEND, id=1)
    assert a.expire(waiter).code == c.MACH_MSG_SUCCESS
    assert a.interrupt(waiter).code == c.MACH_MSG_SUCCESS


def test_what_becomes_of_the_name_while_waiting() -> None:
    """Section 6, E8: destroyed or moved PORT_DIED, put into a set PORT_CHANGED."""
    a, b, _ = three_tasks()
    for change, code in (
        (lambda port: a.destroy(port), c.MACH_RCV_PORT_DIED),
        (lambda port: b.take(a, port, MOVE_RECEIVE), c.MACH_RCV_PORT_DIED),
        (lambda port: a.pset(port), c.MACH_RCV_PORT_CHANGED),
    ):
        port = a.port()
        waiter = a.wait_to_receive(port)
        change(port)
        assert done(waiter).code == code
        assert done(waiter).buffer is None


def test_a_rename_does_not_disturb_a_waiting_thread() -> None:
    a, *_ = three_tasks()
    port = a.port()
    waiter = a.wait_to_receive(port)
    a.rename(port, 0x5000)
    a.send(0x5000, MAKE_SEND, id=1)
    assert parse_result(done(waiter)).local == 0x5000


# Size


@pytest.mark.parametrize("elements", [0, 1, 2, 3, 4, 7])
def test_size_and_trailer_must_fit_together(elements: int) -> None:
    """M22: msgh_size plus the requested trailer against rcv_size."""
    a, *_ = three_tasks()
    port = a.port()
    needed = 28 + layout.TRAILER_SIZES[elements]
    option = POLL | trailer(elements)
    for limit, code in ((needed, c.MACH_MSG_SUCCESS), (needed - 1, c.MACH_RCV_TOO_LARGE)):
        a.send(port, MAKE_SEND, inline=b"data")
        assert a.try_receive(port, option=option, limit=limit).code == code
        assert a.status(port).msgcount == 0


def test_a_too_large_message_is_destroyed() -> None:
    """M27: a header with the local port and id, reply 0; reply and body rights are destroyed; seqno counts it."""
    a, b, _ = three_tasks()
    port, reply, carried = a.port(), b.port(), b.port()
    b.send(
        b.take(a, port, MAKE_SEND),
        reply=reply,
        reply_disposition=MAKE_SEND_ONCE,
        rights=[(carried, MOVE_RECEIVE)],
        id=6,
    )
    watch = b.port()
    result = a.try_receive(port, option=POLL | trailer(3), limit=layout.HEADER_SIZE)
    assert result.code == c.MACH_RCV_TOO_LARGE
    message = parse_result(result)
    assert (message.local, message.local_kind, message.remote, message.id) == (port, MOVE_SEND, NULL, 6)
    assert message.trailer == layout.Trailer(layout.MIN_TRAILER)
    assert not message.bits & c.MACH_MSGH_BITS_COMPLEX
    assert result.memory == ()
    assert b.told(reply) == [ONCE]
    assert a.names() == {port: RECEIVE}
    assert set(b.names().values()) == {SEND, RECEIVE}
    assert set(b.names()) >= {reply, watch}
    assert a.status(port).seqno == 1


@pytest.mark.parametrize("reply", [NULL, DEAD])
def test_a_too_large_message_without_a_reply_right(reply: int) -> None:
    """M27."""
    a, *_ = three_tasks()
    port = a.port()
    a.send(port, MAKE_SEND, reply=reply, reply_disposition=MAKE_SEND)
    assert parse_result(a.try_receive(port, limit=0)).remote == reply


def test_with_rcv_large_it_stays() -> None:
    """M27: only msgh_size is told, with IDENTITY also the member's name; seqno untouched."""
    a, *_ = three_tasks()
    port = a.port()
    pset = a.pset(port)
    a.send(port, MAKE_SEND, inline=b"data" * 4, id=2)
    for option, name in ((0, NULL), (c.MACH_RCV_LARGE_IDENTITY, port)):
        with a.world.unchanged():
            result = a.try_receive(pset, option=POLL | c.MACH_RCV_LARGE | option, limit=47)
        assert result.code == c.MACH_RCV_TOO_LARGE
        assert result.buffer is not None
        assert layout.HEADER.unpack(result.buffer) == (0, 40, 0, name, 0, 0)
    assert a.try_receive(pset, option=POLL | c.MACH_RCV_LARGE, limit=48).code == c.MACH_MSG_SUCCESS


def test_a_waiting_receiver_with_rcv_large_leaves_the_message_to_the_next() -> None:
    """E9: woken with TOO_LARGE."""
    a, *_ = three_tasks()
    port = a.port()
    small = a.wait_to_receive(port, option=c.MACH_RCV_LARGE, limit=24)
    large = a.wait_to_receive(port)
    a.send(port, MAKE_SEND, id=1)
    assert done(small).code == c.MACH_RCV_TOO_LARGE
    assert parse_result(done(large)).id == 1


def test_a_waiting_receiver_without_rcv_large_takes_and_loses_the_message() -> None:
    """M27."""
    a, *_ = three_tasks()
    port = a.port()
    small, large = a.wait_to_receive(port, limit=24), a.wait_to_receive(port)
    a.send(port, MAKE_SEND, id=1)
    assert done(small).code == c.MACH_RCV_TOO_LARGE
    assert waits(large)


# Headers


@pytest.mark.parametrize("sent", [MAKE_SEND, MAKE_SEND_ONCE])
@pytest.mark.parametrize(("reply", "kind"), [(0, 0), (MAKE_SEND, MOVE_SEND), (MAKE_SEND_ONCE, MOVE_SEND_ONCE)])
def test_remote_and_local_are_swapped(sent: int, reply: int, kind: int) -> None:
    """M23: the local port is the receiver's own name, with the kind of right; complex only if it was sent so."""
    a, b, _ = three_tasks()
    port, answer = a.port(), b.port()
    name = b.take(a, port, sent)
    b.send(
        name,
        MOVE_SEND if sent == MAKE_SEND else MOVE_SEND_ONCE,
        reply=answer if reply else NULL,
        reply_disposition=reply,
        id=77,
        inline=b"abcd",
    )
    message = a.receive(port)
    assert message.local == port
    assert message.local_kind == (MOVE_SEND if sent == MAKE_SEND else MOVE_SEND_ONCE)
    assert message.remote_kind == kind
    assert (message.remote != NULL) == bool(kind)
    assert (message.id, message.inline, message.size) == (77, b"abcd", 28)
    assert not message.bits & c.MACH_MSGH_BITS_COMPLEX
    assert a.status(port).sorights == a.srights(port) == 0


def test_a_complex_message_without_descriptors_stays_complex() -> None:
    """Section 1: received complex if and only if sent so."""
    a, *_ = three_tasks()
    port = a.port()
    a.mach_msg(c.MACH_SEND_MSG, layout.pack(MAKE_SEND | layout.COMPLEX, port, inline=b"wxyz"))
    message = a.receive(port)
    assert message.bits & c.MACH_MSGH_BITS_COMPLEX
    assert (message.size, message.inline) == (32, b"wxyz")


def test_receiving_the_last_send_right_sends_no_senders_at_once() -> None:
    """M24, N37: before the call returns, to whatever port."""
    a, *_ = three_tasks()
    port = a.port()
    a.request(NO_SENDERS, port, port, sync=1)
    a.send(port, MAKE_SEND, id=1)
    assert a.told(port) == [("message", 1), ("no-senders", 1)]


def hand_over(a: Actor, b: Actor, port: int, disposition: int) -> object:
    """A waiting receiver is given a message but has not yet gone on; the driver has not collected."""
    waiter = a.wait_to_receive(port)
    send = b.take(a, port, disposition)
    buffer = layout.pack(MOVE_SEND if disposition == MAKE_SEND else MOVE_SEND_ONCE, send, id=3)
    messages.mach_msg(a.kernel, b.task, c.MACH_SEND_MSG, buffer)
    assert waits(waiter)
    return waiter


@pytest.mark.parametrize("disposition", [MAKE_SEND, MAKE_SEND_ONCE])
def test_a_port_that_died_between_dequeue_and_copyout(disposition: int) -> None:
    """M25, M26: local port ~0."""
    a, b, _ = three_tasks()
    port = a.port()
    waiter = hand_over(a, b, port, disposition)
    a.kill(port)
    message = parse_result(done(waiter))  # type: ignore[arg-type]
    assert (message.local, message.id) == (DEAD, 3)


@pytest.mark.parametrize("disposition", [MAKE_SEND, MAKE_SEND_ONCE])
def test_a_port_that_left_between_dequeue_and_copyout(disposition: int) -> None:
    """M25: local port 0; a send-once right says so to the new holder."""
    a, b, _ = three_tasks()
    port = a.port()
    waiter = hand_over(a, b, port, disposition)
    moved = b.take(a, port, MOVE_RECEIVE)
    message = parse_result(done(waiter))  # type: ignore[arg-type]
    assert (message.local, message.id) == (NULL, 3)
    assert b.told(moved) == ([ONCE] if disposition == MAKE_SEND_ONCE else [])
    assert b.srights(moved) == 0


def test_destination_and_reply_are_both_seen_after_a_death() -> None:
    """M26: the reply right to the port itself is as dead as the destination."""
    a, *_ = three_tasks()
    port = a.port()
    waiter = a.wait_to_receive(port)
    buffer = layout.pack(layout.bits(MAKE_SEND, MAKE_SEND), port, port)
    messages.mach_msg(a.kernel, a.task, c.MACH_SEND_MSG, buffer)
    a.kill(port)
    message = parse_result(done(waiter))
    assert (message.local, message.remote) == (DEAD, DEAD)


def test_header_rights_that_cannot_be_entered() -> None:
    """Section 6, M27: HEADER_ERROR and IPC_SPACE; the message is destroyed."""
    a, b, _ = three_tasks(name_limit=2)
    port = a.port()
    a.pset()
    reply = b.port()
    b.send(b.take(a, port, MAKE_SEND_ONCE), MOVE_SEND_ONCE, reply=reply, reply_disposition=MAKE_SEND_ONCE, id=8)
    result = a.try_receive(port, option=POLL | trailer(3))
    assert result.code == c.MACH_RCV_HEADER_ERROR | c.MACH_MSG_IPC_SPACE
    message = parse_result(result)
    assert (message.local, message.local_kind, message.remote, message.id) == (port, MOVE_SEND_ONCE, NULL, 8)
    assert message.trailer == layout.Trailer(layout.MIN_TRAILER)
    assert b.told(reply) == [ONCE]
    assert a.status(port).seqno == 1
    assert a.status(port).sorights == 0


def test_body_copyout_never_stops() -> None:
    """M28: what fails is destroyed and shown as 0, what fits is entered, dead ports are ~0 without a bit."""
    a, b, _ = three_tasks(name_limit=4)
    port = a.port()
    a.pset()
    a.pset()
    known, fresh, dying = b.port(), b.port(), b.port()
    held = a.take(b, known, MAKE_SEND)
    b.send(
        b.take(a, port, MAKE_SEND),
        rights=[(dying, MAKE_SEND), (fresh, MAKE_SEND_ONCE), (known, MAKE_SEND), (fresh, MOVE_RECEIVE)],
    )
    b.kill(dying)
    result = a.try_receive(port)
    assert result.code == c.MACH_RCV_BODY_ERROR | c.MACH_MSG_IPC_SPACE
    message = parse_result(result)
    assert [name for name, _ in message.rights] == [DEAD, NULL, held, NULL]
    assert a.urefs(held) == 2
    assert message.trailer is not None and message.trailer.seqno == 0


def test_two_threads_get_consecutive_numbers() -> None:
    """M30: each message goes to exactly one."""
    a, *_ = three_tasks()
    port = a.port()
    waiting = [a.wait_to_receive(port) for _ in range(2)]
    a.send(port, MAKE_SEND, id=1)
    a.send(port, MAKE_SEND, id=2)
    assert [parse_result(done(waiter)).seqno for waiter in waiting] == [0, 1]
    assert a.told(port) == []


def test_received_rights_belong_to_the_receiver() -> None:
    """M29: it must drop them."""
    a, b, _ = three_tasks()
    port, remote = a.port(), b.port()
    b.send(b.take(a, port, MAKE_SEND), rights=[(remote, MAKE_SEND)])
    ((name, _),) = a.receive(port).rights
    assert b.srights(remote) == 1
    a.deallocate(name)
    assert b.srights(remote) == 0


# Trailers


@pytest.mark.parametrize("elements", [0, 1, 2, 3, 4, 7])
def test_a_trailer_has_what_was_asked_for(elements: int) -> None:
    """M33, M34: at the end rounded up to 4, not counted in msgh_size; its own size in it."""
    a, b, _ = three_tasks()
    port = a.port()
    ports.mach_port_set_context(a.kernel, a.task, port, 0x1122334455667788)
    a.set_seqno(port, 40)
    send = b.take(a, port, MAKE_SEND)
    b.send(send, inline=b"abcd")
    result = a.try_receive(port, option=POLL | trailer(elements))
    size = layout.TRAILER_SIZES[elements]
    assert result.buffer is not None
    assert len(result.buffer) == 28 + size
    found = parse_result(result).trailer
    assert found is not None
    assert found.size == size
    assert found.seqno == (40 if elements >= 1 else None)
    assert found.sender == ((501, 20) if elements >= 2 else None)
    assert found.audit == (tuple(range(8)) if elements >= 3 else None)
    assert found.context == (0x1122334455667788 if elements >= 4 else None)


def test_tokens_are_fixed_when_the_message_is_sent() -> None:
    """M35: and cannot be forged."""
    a, b, _ = three_tasks()
    port = a.port()
    b.send(b.take(a, port, MAKE_SEND))
    b.task.tokens = (0, 0, *range(8, 16))
    found = a.receive(port).trailer
    assert found is not None
    assert (found.sender, found.audit) == ((501, 20), tuple(range(8)))


def test_notifications_come_from_the_kernel() -> None:
    """M35, N62: sender {0, 1}, audit token all 0."""
    a, *_ = three_tasks()
    port = a.port()
    a.deallocate(a.take(a, port, MAKE_SEND_ONCE))
    a.send(port, MAKE_SEND_ONCE, id=c.MACH_NOTIFY_SEND_ONCE)
    real, forged = a.receive(port).trailer, a.receive(port).trailer
    assert real is not None and forged is not None
    assert (real.sender, real.audit) == ((0, 1), (0,) * 8)
    assert forged.sender == (501, 20)


def test_user_messages_may_have_any_id() -> None:
    """N63: 65-72 are free for users."""
    a, *_ = three_tasks()
    port = a.port_with_send()
    for id in range(64, 78):
        a.send(port, COPY_SEND, id=id)
        assert a.receive(port).id == id
