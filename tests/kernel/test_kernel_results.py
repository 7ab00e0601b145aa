"""What a driver meets: results in parts, bodies that are not copied, its own record of a waiter."""

from __future__ import annotations

import pytest
from kernel_driver import (
    ALL_TRAILER,
    COPY_SEND,
    MAKE_SEND,
    MAKE_SEND_ONCE,
    RECEIVE_RIGHT,
    done,
    parse_result,
    three_tasks,
)

from machport.abi import constants as c
from machport.abi import message as layout
from machport.abi import words
from machport.kernel import messages, ports
from machport.kernel.copyout import take_back

LARGE = bytes(range(256)) * 32


@pytest.mark.parametrize("length", [0, 4, 64, words.VIEWED_SIZE, words.VIEWED_SIZE + 4, len(LARGE)])
@pytest.mark.parametrize("source", [bytes, memoryview])
def test_a_result_is_head_inline_data_and_tail(length: int, source: type) -> None:
    """M22, M33: together they are the message as it lies in the receiver's buffer, trailer and all."""
    a, b, _ = three_tasks()
    port = b.port()
    right = a.take(b, port, MAKE_SEND)
    buffer = layout.pack(layout.bits(COPY_SEND, MAKE_SEND_ONCE), right, a.port(), 5, inline=LARGE[:length])
    assert done(a.mach_msg(c.MACH_SEND_MSG, source(buffer))).code == 0
    result = b.try_receive(port)
    assert result.head is not None
    assert (len(result.head), bytes(result.inline), len(result.tail)) == (24, LARGE[:length], 68)
    assert result.buffer == result.head + LARGE[:length] + result.tail
    assert isinstance(result.inline, bytes) is (length <= words.VIEWED_SIZE)


def test_descriptors_belong_to_the_head() -> None:
    """Section 1 of messages: and what follows them is as it was sent, padded up to the trailer (M33)."""
    a, _, _ = three_tasks()
    port = a.port()
    a.send(port, MAKE_SEND, rights=[(port, MAKE_SEND)], inline=b"data")
    result = a.try_receive(port)
    assert result.head is not None
    assert (len(result.head), result.inline) == (layout.BODY_SIZE + 12, b"data")
    assert layout.parse(result.head).descriptors == parse_result(result).descriptors


def test_a_large_body_is_the_same_memory_from_sender_to_receiver() -> None:
    """The kernel copies none of it, and a message taken back has it still."""
    a, _, _ = three_tasks()
    port = a.port()
    buffer = layout.pack(layout.bits(MAKE_SEND), port, inline=LARGE)
    a.mach_msg(c.MACH_SEND_MSG, buffer)
    result = a.try_receive(port)
    assert isinstance(result.inline, memoryview)
    assert result.inline.obj is buffer
    a.world.call(take_back, a.task, result)
    assert parse_result(a.try_receive(port)).inline == LARGE


def test_what_leaves_the_buffer_alone_has_no_parts() -> None:
    a, _, _ = three_tasks()
    for result in (a.try_receive(a.port()), done(a.mach_msg(c.MACH_SEND_MSG, bytes(24)))):
        assert result.code
        assert (result.head, bytes(result.inline), result.tail, result.buffer) == (None, b"", b"", None)


def test_a_buffer_with_gaps_is_read_as_its_bytes_are_in_order() -> None:
    """A view need not be contiguous, and one of wider items counts in bytes."""
    a, _, _ = three_tasks()
    port = a.port()
    buffer = layout.pack(layout.bits(MAKE_SEND), port, inline=b"abcdefgh")
    spread = memoryview(bytes(byte for pair in zip(buffer, bytes(len(buffer)), strict=True) for byte in pair))[::2]
    for view in (spread, memoryview(buffer).cast("I")):
        assert done(a.mach_msg(c.MACH_SEND_MSG, view)).code == 0
        assert parse_result(a.try_receive(port)).inline == b"abcdefgh"


def test_a_released_view_is_refused_by_python() -> None:
    a, _, _ = three_tasks()
    view = memoryview(bytes(24))
    view.release()
    with a.world.unchanged(), pytest.raises(ValueError, match="released"):
        a.mach_msg(c.MACH_SEND_MSG, view)


def test_a_driver_finds_its_record_in_the_waiter() -> None:
    """The kernel never touches it."""
    a, _, _ = three_tasks()
    port = a.port()
    waiter = a.wait_to_receive(port)
    assert waiter.owner is None
    waiter.owner = record = object()
    messages.mach_msg(a.kernel, a.task, c.MACH_SEND_MSG, layout.pack(layout.bits(MAKE_SEND), port))
    assert [changed.owner for changed in messages.collect(a.kernel)] == [record]
    assert waiter.owner is record


def test_a_waiter_is_collected_once_for_each_time_it_changes() -> None:
    """A send that lets a receive begin, and a message for it: phase and result, heard of separately."""
    a, _, _ = three_tasks()
    port = ports.mach_port_allocate(a.kernel, a.task, RECEIVE_RIGHT)
    reply = a.port()
    a.fill(port)
    waiter = a.mach_msg(
        c.MACH_SEND_MSG | c.MACH_RCV_MSG | ALL_TRAILER,
        layout.pack(layout.bits(MAKE_SEND), port),
        rcv_limit=4096,
        rcv_name=reply,
    )
    receive = c.MACH_RCV_MSG | c.MACH_RCV_TIMEOUT
    messages.mach_msg(a.kernel, a.task, receive, rcv_limit=4096, rcv_name=port)
    assert messages.collect(a.kernel) == [waiter]
    assert waiter.result is None
    messages.mach_msg(a.kernel, a.task, c.MACH_SEND_MSG, layout.pack(layout.bits(MAKE_SEND), reply))
    assert messages.collect(a.kernel) == [waiter]
    assert waiter.result is not None
    assert messages.collect(a.kernel) == []


def test_many_receivers_and_many_blocked_senders_meet_without_depth() -> None:
    """P34: a port with a full queue and senders behind it joins a set with as many receivers."""
    a, _, _ = three_tasks()
    port = a.port()
    pset = a.pset()
    queued = a.fill(port)
    senders = [a.wait_to_send(port, MAKE_SEND, id=1000 + number) for number in range(2000)]
    receivers = [a.wait_to_receive(pset) for _ in range(queued + len(senders))]
    a.move_member(port, pset)
    assert all(done(waiter).code == 0 for waiter in senders)
    assert [parse_result(done(waiter)).id for waiter in receivers][queued:] == list(range(1000, 3000))
