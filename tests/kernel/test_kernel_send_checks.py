"""Sending: the order of checks and what each failure leaves, section 3 of the specification of messages, M1-M10."""

from __future__ import annotations

from typing import Any

import pytest
from kernel_driver import (
    COPY_SEND,
    DEAD,
    DEAD_NAME,
    DEATH,
    DISPOSITIONS,
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
    REQUESTED,
    ROOM,
    SEND,
    SEND_RECEIVE,
    Actor,
    done,
    parse_result,
    three_tasks,
)

from machport.abi import constants as c
from machport.abi import message as layout

SEND_NOW = c.MACH_SEND_MSG | c.MACH_SEND_TIMEOUT
VOUCHER_SHIFT = 16


def send_bytes(a: Actor, buffer: bytes, **options: Any) -> int:
    """Send exactly these bytes; the code of the call."""
    return done(a.mach_msg(SEND_NOW, buffer, **options)).code


def header(bits: int, remote: int, local: int = NULL) -> bytes:
    return layout.HEADER.pack(bits, layout.HEADER_SIZE, remote, local, 0, 1)


# Sections 1 and 2


def test_a_call_with_neither_half_does_nothing() -> None:
    """M1: success."""
    a, *_ = three_tasks()
    with a.world.unchanged():
        assert done(a.mach_msg(c.MACH_SEND_TIMEOUT | c.MACH_RCV_TIMEOUT, b"x")).code == c.MACH_MSG_SUCCESS


def test_a_send_error_ends_the_call() -> None:
    """M1: no receive is tried."""
    a, *_ = three_tasks()
    port = a.port()
    a.send(port, MAKE_SEND, id=1)
    with a.world.unchanged():
        result = done(a.mach_msg(SEND_NOW | c.MACH_RCV_MSG, header(COPY_SEND, NOTHING), rcv_name=port, rcv_limit=ROOM))
    assert result.code == c.MACH_SEND_INVALID_DEST


@pytest.mark.parametrize("rcv_name", [NULL, NOTHING])
def test_a_receive_error_does_not_undo_the_send(rcv_name: int) -> None:
    """M1: the receive name is not looked at before the send has succeeded."""
    a, *_ = three_tasks()
    port = a.port()
    result = done(a.mach_msg(SEND_NOW | c.MACH_RCV_MSG, header(MAKE_SEND, port), rcv_name=rcv_name, rcv_limit=ROOM))
    assert result.code == c.MACH_RCV_INVALID_NAME
    assert a.told(port) == [("message", 1)]


def test_send_and_receive_in_one_call() -> None:
    """M1: the second half after the first, here the very same message."""
    a, *_ = three_tasks()
    port = a.port()
    option = SEND_NOW | c.MACH_RCV_MSG
    message = parse_result(done(a.mach_msg(option, header(MAKE_SEND, port), rcv_name=port, rcv_limit=ROOM)))
    assert (message.id, message.local) == (1, port)


@pytest.mark.parametrize("blocked", [False, True])
def test_the_receive_half_comes_when_the_send_is_done(blocked: bool) -> None:
    """M1: also after waiting for room; its errors are the call's."""
    a, *_ = three_tasks()
    port = a.port()
    if blocked:
        a.set_qlimit(port, 0)
    waiter = a.mach_msg(c.MACH_SEND_MSG | c.MACH_RCV_MSG, header(MAKE_SEND, port), rcv_name=NOTHING)
    if blocked:
        assert waiter.result is None
        a.set_qlimit(port, 1)
    assert done(waiter).code == c.MACH_RCV_INVALID_NAME


def test_each_half_has_its_own_timeout_bit() -> None:
    """M2: without it the wait is unlimited and the argument ignored."""
    a, *_ = three_tasks()
    port = a.port()
    sending = a.mach_msg(c.MACH_SEND_MSG | c.MACH_RCV_TIMEOUT, header(MAKE_SEND, port), timeout_ms=5)
    assert done(sending).code == c.MACH_MSG_SUCCESS
    a.fill(port)
    waiter = a.mach_msg(c.MACH_SEND_MSG | c.MACH_RCV_TIMEOUT, header(MAKE_SEND, port), timeout_ms=5)
    assert waiter.deadline_ms is None
    waiter = a.mach_msg(SEND_NOW, header(MAKE_SEND, port), timeout_ms=5)
    assert waiter.deadline_ms == 5
    empty = a.port()
    waiter = a.mach_msg(c.MACH_RCV_MSG | c.MACH_SEND_TIMEOUT, rcv_name=empty, timeout_ms=7)
    assert waiter.deadline_ms is None
    waiter = a.mach_msg(c.MACH_RCV_MSG | c.MACH_RCV_TIMEOUT, rcv_name=empty, timeout_ms=7)
    assert waiter.deadline_ms == 7


@pytest.mark.parametrize("option", [SEND_NOW, c.MACH_RCV_MSG | c.MACH_RCV_TIMEOUT])
def test_a_timeout_of_0_is_a_poll(option: int) -> None:
    """M2."""
    a, *_ = three_tasks()
    port = a.port()
    a.set_qlimit(port, 0)
    result = done(a.mach_msg(option, header(MAKE_SEND, port), rcv_name=port))
    assert result.code in (c.MACH_SEND_TIMED_OUT, c.MACH_RCV_TIMED_OUT)


# Section 3: the steps


def complex_message(port: int, *descriptors: layout.Descriptor, count: int | None = None) -> bytes:
    buffer = layout.pack(layout.bits(MAKE_SEND, complex=True), port, descriptors=descriptors)
    if count is not None:
        buffer = buffer[: layout.HEADER_SIZE] + layout.COUNT.pack(count) + buffer[layout.BODY_SIZE :]
    return buffer


def malformed(port: int) -> list[tuple[str, bytes, int]]:
    """Everything that steps 1, 2 and 5 refuse."""
    good = header(MAKE_SEND, port)
    right = layout.port_descriptor(port, MAKE_SEND)
    memory = layout.memory_descriptor(0)
    small, type = c.MACH_SEND_MSG_TOO_SMALL, c.MACH_SEND_INVALID_TYPE
    cases = [
        ("nothing", b"", small),
        ("half a header", good[:20], small),
        ("not a multiple of 4", good + b"xyz", small),
        ("complex without a count", header(MAKE_SEND | layout.COMPLEX, port), small),
        ("a count without descriptors", complex_message(port, count=1), small),
        ("a huge count", complex_message(port, right, count=0xFFFFFFFF), small),
        ("one descriptor too few", complex_message(port, right, count=2), small),
        ("memory that runs past the end", complex_message(port, memory)[:-4], small),
        (
            "too many ports",
            complex_message(port, layout.port_array_descriptor(16384, MAKE_SEND)),
            c.MACH_SEND_TOO_LARGE,
        ),
        ("an unknown descriptor", complex_message(port, memory._replace(type=9)), type),
        ("a guarded port", complex_message(port, memory._replace(type=4)), type),
        ("a bad copy option", complex_message(port, memory._replace(copy=2)), type),
    ]
    for wrong in (0, 15, 22, 255):
        cases += [
            (f"disposition {wrong}", complex_message(port, layout.port_descriptor(port, wrong)), type),
            (f"array of {wrong}", complex_message(port, layout.port_array_descriptor(0, wrong)), type),
        ]
    return cases


@pytest.mark.parametrize("index", range(len(malformed(0))), ids=[case[0] for case in malformed(0)])
def test_a_malformed_message_is_refused_before_anything_else(index: int) -> None:
    """Section 3 steps 1, 2 and 5: nothing is taken, even if the destination is wrong as well (E1)."""
    a, *_ = three_tasks()
    for port in (a.port(), NOTHING):
        _, buffer, code = malformed(port)[index]
        with a.world.unchanged():
            assert send_bytes(a, buffer) == code


def test_a_message_over_the_limit_is_too_large() -> None:
    """Section 3 step 2."""
    a, *_ = three_tasks()
    port = a.port()
    with a.world.unchanged():
        assert send_bytes(a, header(MAKE_SEND, port) + bytes(layout.MAX_SIZE)) == c.MACH_SEND_TOO_LARGE


@pytest.mark.parametrize("size", [0, 3, 5])
def test_memory_must_be_what_the_descriptors_announce(size: int) -> None:
    """Section 3 step 3: SEND_INVALID_DATA; one region too few, too short, too long, one too many."""
    a, *_ = three_tasks()
    port = a.port()
    buffer = complex_message(port, layout.memory_descriptor(4))
    for memory in ((), (bytes(size),), (bytes(4), bytes(size))):
        with a.world.unchanged():
            assert send_bytes(a, buffer, memory=memory) == c.MACH_SEND_INVALID_DATA


@pytest.mark.parametrize("remote", [0, *range(1, 17), *range(22, 32)])
def test_a_destination_has_disposition_17_to_21(remote: int) -> None:
    """Section 3 step 6: SEND_INVALID_HEADER, before the names are looked at."""
    a, *_ = three_tasks()
    for port in (a.port(), NOTHING):
        with a.world.unchanged():
            assert send_bytes(a, header(remote, port)) == c.MACH_SEND_INVALID_HEADER


@pytest.mark.parametrize("local", [*range(1, 17), *range(22, 32)])
def test_a_reply_has_disposition_0_or_17_to_21(local: int) -> None:
    """Section 3 step 6."""
    a, *_ = three_tasks()
    port = a.port()
    for reply in (port, NULL):
        with a.world.unchanged():
            assert send_bytes(a, header(layout.bits(MAKE_SEND, local), port, reply)) == c.MACH_SEND_INVALID_HEADER


@pytest.mark.parametrize("reply", ["port", NOTHING, DEAD])
def test_a_reply_port_needs_a_disposition(reply: int | str) -> None:
    """Section 3 step 6: local 0 with a non-null local port."""
    a, *_ = three_tasks()
    port = a.port()
    with a.world.unchanged():
        name = reply if isinstance(reply, int) else port
        assert send_bytes(a, header(MAKE_SEND, port, name)) == c.MACH_SEND_INVALID_HEADER


@pytest.mark.parametrize("voucher", [16, 17, 19, 31])
def test_vouchers_are_refused(voucher: int) -> None:
    """M5."""
    a, *_ = three_tasks()
    port = a.port()
    with a.world.unchanged():
        code = send_bytes(a, header(MAKE_SEND | voucher << VOUCHER_SHIFT, port))
    assert code == c.MACH_SEND_INVALID_VOUCHER


def test_a_voucher_port_without_disposition_round_trips() -> None:
    """Section 1."""
    a, *_ = three_tasks()
    port = a.port()
    assert send_bytes(a, layout.pack(MAKE_SEND, port, voucher=77)) == c.MACH_MSG_SUCCESS
    result = a.try_receive(port)
    assert result.buffer is not None
    assert layout.parse(result.buffer).voucher == 77


def test_bits_that_are_not_the_users_are_cleared() -> None:
    """Section 1, E10: & 0x801f1f1f."""
    a, *_ = three_tasks()
    port = a.port()
    assert send_bytes(a, header(MAKE_SEND | 0x7FE0E0E0, port)) == c.MACH_MSG_SUCCESS
    assert a.receive(port).bits == MOVE_SEND << 8


@pytest.mark.parametrize("name", [NULL, DEAD, NOTHING])
@pytest.mark.parametrize("disposition", sorted(set(DISPOSITIONS) - {MOVE_RECEIVE}))
def test_a_destination_must_be_there(name: int, disposition: int) -> None:
    """Section 3 step 7, M3: before the reply is looked at."""
    a, *_ = three_tasks()
    with a.world.unchanged():
        assert a.send_error(name, disposition) == c.MACH_SEND_INVALID_DEST
        assert a.send_error(name, disposition, reply=NOTHING, reply_disposition=COPY_SEND) == c.MACH_SEND_INVALID_DEST


def test_reply_errors_come_before_wrong_rights_of_the_destination() -> None:
    """M3: steps 8 and 9."""
    a, b, _ = three_tasks()
    port = a.port()
    send = a.take(b, b.port(), MAKE_SEND)
    for reply, disposition in ((NOTHING, MAKE_SEND), (port, COPY_SEND), (port, MOVE_SEND_ONCE), (send, MAKE_SEND_ONCE)):
        with a.world.unchanged():
            code = a.send_error(port, COPY_SEND, reply=reply, reply_disposition=disposition)
        assert code == c.MACH_SEND_INVALID_REPLY
    with a.world.unchanged():
        code = a.send_error(port, COPY_SEND, reply=port, reply_disposition=MAKE_SEND)
    assert code == c.MACH_SEND_INVALID_DEST


@pytest.mark.parametrize(
    ("disposition", "needs"),
    [(MOVE_SEND, SEND), (COPY_SEND, SEND), (MOVE_SEND_ONCE, 0), (MAKE_SEND, RECEIVE), (MAKE_SEND_ONCE, RECEIVE)],
)
def test_a_destination_needs_the_right(disposition: int, needs: int) -> None:
    """Section 3 step 9: INVALID_DEST, nothing taken."""
    a, b, _ = three_tasks()
    names = {SEND: a.take(b, b.port(), MAKE_SEND), RECEIVE: a.port(), SEND_RECEIVE: a.port_with_send()}
    for type, name in names.items():
        if type & needs:
            a.send(name, disposition)
        else:
            with a.world.unchanged():
                assert a.send_error(name, disposition) == c.MACH_SEND_INVALID_DEST


def test_a_destination_must_be_alive() -> None:
    """M4: a dead one is INVALID_DEST, after the reply was judged."""
    a, b, _ = three_tasks()
    port, reply = b.port(), a.port()
    send = a.take(b, port, MAKE_SEND)
    b.kill(port)
    with a.world.unchanged():
        assert a.send_error(send, reply=reply, reply_disposition=MAKE_SEND_ONCE) == c.MACH_SEND_INVALID_DEST
        assert a.send_error(send, reply=NOTHING, reply_disposition=MAKE_SEND) == c.MACH_SEND_INVALID_REPLY


@pytest.mark.parametrize("reply", [NULL, DEAD])
@pytest.mark.parametrize("disposition", sorted(set(DISPOSITIONS) - {MOVE_RECEIVE}))
def test_null_and_dead_are_legal_replies(reply: int, disposition: int) -> None:
    """M4: with any disposition; they arrive as they are."""
    a, *_ = three_tasks()
    port = a.port()
    a.send(port, MAKE_SEND, reply=reply, reply_disposition=disposition)
    assert a.receive(port).remote == reply


@pytest.mark.parametrize(("disposition", "left"), [(MOVE_SEND, 1), (MOVE_SEND_ONCE, 1), (COPY_SEND, 2)])
def test_a_dead_name_is_a_legal_reply(disposition: int, left: int) -> None:
    """M4, E3: MOVE takes a uref, the receiver sees ~0."""
    a, *_ = three_tasks()
    port, dead = a.port(), a.dead_name(2)
    a.send(port, MAKE_SEND, reply=dead, reply_disposition=disposition)
    assert a.receive(port).remote == DEAD
    assert a.urefs(dead) == left


# M6: one entry for both

_SAME_ENTRY_DISPOSITIONS = (MOVE_SEND, MOVE_SEND_ONCE, COPY_SEND, MAKE_SEND, MAKE_SEND_ONCE)
_SENDS = {MOVE_SEND, COPY_SEND}
_RECEIVES = {MAKE_SEND, MAKE_SEND_ONCE}


def expected_of_pair(kind: str, urefs: int, remote: int, local: int) -> int:
    """The table of M6, as it is written there."""
    has = {"send": _SENDS, "receive": _RECEIVES, "both": _SENDS | _RECEIVES, "send-once": {MOVE_SEND_ONCE}}[kind]
    if local not in has:
        return c.MACH_SEND_INVALID_REPLY
    if MOVE_SEND_ONCE in (remote, local) or remote not in has:
        return c.MACH_SEND_INVALID_DEST
    if remote == local == MOVE_SEND and urefs < 2:
        return c.MACH_SEND_INVALID_DEST
    return c.MACH_MSG_SUCCESS


@pytest.mark.parametrize("remote", _SAME_ENTRY_DISPOSITIONS)
@pytest.mark.parametrize("local", _SAME_ENTRY_DISPOSITIONS)
@pytest.mark.parametrize(
    ("kind", "urefs"), [("send", 1), ("send", 2), ("receive", 0), ("both", 1), ("both", 2), ("send-once", 1)]
)
def test_destination_and_reply_of_one_entry(kind: str, urefs: int, remote: int, local: int) -> None:
    """M6: each pair on each kind of entry; references and rights add up."""
    a, b, _ = three_tasks()
    owner = b
    if kind in ("receive", "both"):
        owner, name = a, (a.port() if kind == "receive" else a.port_with_send(urefs))
        port = name
    else:
        port = b.port()
        name = a.take(b, port, MAKE_SEND_ONCE if kind == "send-once" else MAKE_SEND)
        if urefs > 1:
            a.mod_refs(name, 0, urefs - 1)
    code = expected_of_pair(kind, urefs, remote, local)
    if code:
        with a.world.unchanged():
            assert a.send_error(name, remote, reply=name, reply_disposition=local) == code
        return
    a.send(name, remote, reply=name, reply_disposition=local)
    left = urefs - (remote == MOVE_SEND) - (local == MOVE_SEND)
    has_send = left > 0
    assert bool(a.names().get(name, 0) & SEND) == has_send
    if has_send:
        assert a.urefs(name) == left
    in_message = sum(disposition != MAKE_SEND_ONCE for disposition in (remote, local))
    assert owner.srights(port) == in_message + has_send
    assert owner.status(port).sorights == 2 - in_message


def test_a_pair_that_makes_both_rights_counts_both() -> None:
    """M6: taken one after the other, destination first."""
    a, *_ = three_tasks()
    port = a.port()
    a.send(port, MAKE_SEND, reply=port, reply_disposition=MAKE_SEND)
    assert a.status(port).mscount == 2
    assert a.receive(port).remote == port


def test_the_last_reference_moved_and_copied_at_once() -> None:
    """M6: MOVE + COPY makes two rights of one reference, even the last."""
    a, b, _ = three_tasks()
    for remote, local in ((MOVE_SEND, COPY_SEND), (COPY_SEND, MOVE_SEND)):
        port = b.port()
        send = a.take(b, port, MAKE_SEND)
        a.send(send, remote, reply=send, reply_disposition=local)
        assert a.names() == {}
        assert b.srights(port) == 2


# M7, M8


def test_port_deleted_for_header_names_comes_before_the_message() -> None:
    """M7, N27: the destination's first."""
    a, b, _ = three_tasks()
    inbox = a.port()
    destination, reply = a.take(a, inbox, MAKE_SEND_ONCE), a.take(b, b.port(), MAKE_SEND)
    a.request(DEATH, destination, inbox)
    a.request(DEATH, reply, inbox)
    a.send(destination, MOVE_SEND_ONCE, reply=reply, reply_disposition=MOVE_SEND, id=5)
    assert a.told(inbox) == [("port-deleted", destination), ("port-deleted", reply), ("message", 5)]


def test_a_body_failure_destroys_the_header_and_what_was_taken() -> None:
    """M8: destination and reply, the descriptors before the bad one; those after it are untouched."""
    a, b, _ = three_tasks()
    inbox, reply, notify = a.port(), a.port(), a.port()
    before, after = a.take(b, b.port(), MAKE_SEND), a.take(b, b.port(), MAKE_SEND)
    moved = a.port()
    watch = b.take(a, moved, MAKE_SEND)
    b.request(DEATH, watch, notify, caller=a)
    destination = a.take(a, inbox, MAKE_SEND_ONCE)
    code = a.send_error(
        destination,
        MOVE_SEND_ONCE,
        reply=reply,
        reply_disposition=MAKE_SEND_ONCE,
        rights=[(before, MOVE_SEND), (moved, MOVE_RECEIVE), (NOTHING, COPY_SEND), (after, MOVE_SEND)],
    )
    assert code == c.MACH_SEND_INVALID_RIGHT
    assert set(a.names()) == {inbox, reply, notify, after}
    assert a.told(inbox) == [ONCE]
    assert a.told(reply) == [ONCE]
    assert a.told(notify) == [("dead-name", watch)]


def test_a_body_failure_may_take_the_last_send_right() -> None:
    """M8: no-senders."""
    a, b, _ = three_tasks()
    port, notify = b.port(), b.port()
    send = a.take(b, port, MAKE_SEND)
    b.request(NO_SENDERS, port, notify, sync=1)
    assert a.send_error(send, MOVE_SEND, rights=[(NOTHING, MOVE_SEND)]) == c.MACH_SEND_INVALID_RIGHT
    assert a.names() == {}
    assert b.told(notify) == [("no-senders", 1)]


def test_members_before_the_bad_one_of_an_array_are_destroyed() -> None:
    """M8: also inside a port array; names moved are lost to the sender."""
    a, *_ = three_tasks()
    port = a.port()
    first, last = a.take(a, port, MAKE_SEND_ONCE), a.take(a, port, MAKE_SEND_ONCE)
    names = b"".join(name.to_bytes(4, "little") for name in (first, NOTHING, last))
    buffer = complex_message(port, layout.port_array_descriptor(3, MOVE_SEND_ONCE))
    assert send_bytes(a, buffer, memory=(names,)) == c.MACH_SEND_INVALID_RIGHT
    assert set(a.names()) == {port, last}
    assert a.told(port) == [ONCE]


@pytest.mark.parametrize("disposition", DISPOSITIONS)
def test_null_and_dead_are_legal_in_a_body(disposition: int) -> None:
    """M9: with any disposition, in descriptors and arrays; they arrive as they were sent."""
    a, *_ = three_tasks()
    port = a.port()
    names = NULL.to_bytes(4, "little") + DEAD.to_bytes(4, "little")
    buffer = complex_message(
        port,
        layout.port_descriptor(NULL, disposition),
        layout.port_descriptor(DEAD, disposition),
        layout.port_array_descriptor(2, disposition),
    )
    assert send_bytes(a, buffer, memory=(names,)) == c.MACH_MSG_SUCCESS
    message = a.receive(port)
    assert [name for name, _ in message.rights] == [NULL, DEAD]
    assert list(message.memory) == [names]
    assert a.names() == {port: RECEIVE}


def test_a_port_array_arrives_as_an_array() -> None:
    """M9, M29: names of the receiver; deallocate reads 1."""
    a, b, _ = three_tasks()
    inbox = b.port()
    rights = [a.port() for _ in range(3)]
    array = b"".join(name.to_bytes(4, "little") for name in rights)
    buffer = layout.pack(
        layout.bits(COPY_SEND),
        a.take(b, inbox, MAKE_SEND),
        descriptors=[layout.port_array_descriptor(3, MAKE_SEND, address=0x1000)],
    )
    assert send_bytes(a, buffer, memory=(array,)) == c.MACH_MSG_SUCCESS
    message = b.receive(inbox)
    names = memoryview(message.memory[0]).cast("I")
    assert [b.type(name) for name in names] == [SEND] * 3
    (descriptor,) = message.descriptors
    assert (descriptor.disposition, descriptor.size, descriptor.deallocate) == (MOVE_SEND, 3, 1)


def test_memory_arrives_as_it_was_at_the_send() -> None:
    """M10: later writes are not seen."""
    a, *_ = three_tasks()
    port = a.port()
    region = bytearray(b"before")
    buffer = complex_message(port, layout.memory_descriptor(6, address=0x1000, deallocate=True))
    assert send_bytes(a, buffer, memory=(region,)) == c.MACH_MSG_SUCCESS
    region[:] = b"after!"
    message = a.receive(port)
    assert list(message.memory) == [b"before"]
    assert message.descriptors[0].size == 6
    assert message.descriptors[0].deallocate == 1
    assert message.descriptors[0].address != 0


@pytest.mark.parametrize("descriptor", [layout.memory_descriptor(0, address=9), layout.port_array_descriptor(0, 17)])
def test_an_empty_region_has_address_0(descriptor: layout.Descriptor) -> None:
    """M10: the address is ignored."""
    a, *_ = three_tasks()
    port = a.port()
    assert send_bytes(a, complex_message(port, descriptor), memory=(b"",)) == c.MACH_MSG_SUCCESS
    (arrived,) = a.receive(port).descriptors
    assert (arrived.address, arrived.size) == (0, 0)


def test_a_receive_right_in_a_body_moves() -> None:
    """M10: as in section 7 of ports."""
    a, b, _ = three_tasks()
    port, inbox = a.port(), b.port()
    a.take(a, port, MAKE_SEND)
    a.send(a.take(b, inbox, MAKE_SEND), rights=[(port, MOVE_RECEIVE)])
    assert a.type(port) == SEND
    name, kind = b.receive(inbox).rights[0]
    assert kind == MOVE_RECEIVE
    assert b.status(name).mscount == 0


def test_a_request_stays_on_a_name_that_a_header_does_not_free() -> None:
    """M7, N24: copying leaves the entry."""
    a, *_ = three_tasks()
    port = a.port_with_send()
    a.request(DEATH, port, port)
    a.send(port, MOVE_SEND, reply=port, reply_disposition=MAKE_SEND_ONCE, id=1)
    assert a.type(port) == RECEIVE | REQUESTED
    assert a.told(port) == [("message", 1)]


def test_an_inline_right_of_a_dead_port_is_taken_as_a_dead_name() -> None:
    """P7, M9: ~0 arrives."""
    a, b, _ = three_tasks()
    port, inbox = b.port(), a.port()
    send = a.take(b, port, MAKE_SEND)
    b.kill(port)
    a.send(inbox, MAKE_SEND, rights=[(send, COPY_SEND)])
    assert a.type(send) == DEAD_NAME
    assert a.receive(inbox).rights == [(DEAD, MOVE_SEND)]
