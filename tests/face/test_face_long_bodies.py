"""Bodies of every length around the places where they begin to travel another way, whole and unchanged.

A short one goes in one piece through the narrow rings, a longer one in parts, or through wide rings, or by the socket,
or in memory of its own; nobody who sends or receives it sees a difference.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from actors import PATIENCE

import machport
from machport import mach
from machport.abi import message as layout
from machport.abi import words
from machport.carrier import packet, rings

#: Bytes of a trap or an answer around a body: headers, length and trailer.
AROUND = 200
LIMITS = [
    0,
    words.VIEWED_SIZE,
    rings.longest_of(rings.NARROW),
    rings.NARROW,
    packet.INLINE_MAX,
    rings.longest_of(rings.WIDE),
    rings.WIDE,
]
NEAR = [-AROUND, -76, -52, -24, -8, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 24, 52, 76, AROUND]
#: Each way once.
WAYS = [0, 5, 4100, 8100, 20_001, 70_003, 600_001, 1_200_000]
KINDS: list[Callable[[bytes], bytes | bytearray | memoryview]] = [bytes, bytearray, memoryview]
PATTERN = bytes(range(251)) * 5000


def body_of(size: int) -> bytes:
    return PATTERN[size % 251 : size % 251 + size]


@pytest.mark.parametrize("limit", LIMITS)
def test_a_body_of_any_length_near_a_limit_arrives_as_it_was(task: machport.Task, limit: int) -> None:
    port = task.allocate()
    sender = port.make_send()
    for size in (limit + near for near in NEAR if limit + near >= 0):
        body = body_of(size)
        sender.send(KINDS[size % 3](body))
        assert port.receive(PATIENCE).body == body


@pytest.mark.parametrize("limit", LIMITS)
def test_question_and_answer_have_any_length_near_a_limit(task: machport.Task, limit: int) -> None:
    port = task.allocate()
    sender = port.make_send()
    sizes = [limit + near for near in NEAR if limit + near >= 0]

    def serve() -> None:
        for _ in sizes:
            with port.receive(PATIENCE) as request:
                request.reply(bytearray(request.body[::-1]))

    thread = threading.Thread(target=serve)
    thread.start()
    for size in sizes:
        body = body_of(size)
        assert sender.call(memoryview(body), timeout=PATIENCE).body == body[::-1]
    thread.join(PATIENCE)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", WAYS)
def test_a_body_may_be_changed_once_it_is_sent(
    task: machport.Task, size: int, kind: Callable[[bytes], bytes | bytearray | memoryview]
) -> None:
    """M: the message is copied when it is sent."""
    port, body = task.allocate(), bytearray(body_of(size))
    port.make_send().send(memoryview(body) if kind is memoryview else kind(bytes(body)))
    body[:] = bytes(size)
    assert port.receive(PATIENCE).body == body_of(size)


@pytest.mark.parametrize("size", WAYS)
def test_a_view_of_a_body_is_read_only_and_outlives_its_message(task: machport.Task, size: int) -> None:
    port = task.allocate()
    sender = port.make_send()
    sender.send(body_of(size))
    with port.receive(PATIENCE) as message:
        view = message.view
    del message
    for other in WAYS:
        sender.send(bytes(other))
        port.receive(PATIENCE).close()
    assert view.readonly
    assert view == body_of(size)


@pytest.mark.parametrize("size", WAYS)
def test_memory_beside_a_body_of_any_length_arrives_as_it_was(task: machport.Task, size: int) -> None:
    port = task.allocate()
    sender = port.make_send()
    for other in WAYS:
        sender.send(body_of(size), memory=[body_of(other), b"", body_of(7)])
        message = port.receive(PATIENCE)
        assert message.body == body_of(size)
        assert [bytes(region) for region in message.memory] == [body_of(other), b"", body_of(7)]
        assert all(region.readonly for region in message.memory)


def test_bodies_of_all_lengths_sent_together_arrive_together_and_in_order(task: machport.Task) -> None:
    """``send_many`` and ``receive_many`` go the same ways."""
    port = task.allocate(qlimit=200)
    bodies = [body_of(size) for size in [*WAYS, *reversed(WAYS), *[3] * 20]]
    assert port.make_send().send_many(bodies) == len(bodies)
    received: list[bytes] = []
    while len(received) < len(bodies):
        received += [message.body for message in port.receive_many(100, PATIENCE)]
    assert received == bodies


@pytest.mark.parametrize("limit", LIMITS)
def test_mach_msg_carries_any_length_near_a_limit(self_task: int, limit: int) -> None:
    """The same in the manual's terms: M section 2, sizes are multiples of four."""
    port = mach.mach_port_allocate(self_task, mach.MACH_PORT_RIGHT_RECEIVE)
    for near in (-AROUND, -76, -52, -24, -8, -4, 0, 4, 24, 52, 76, AROUND):
        size = (limit + near) // 4 * 4
        if size < 0:
            continue
        message = bytearray(layout.pack(mach.MACH_MSG_TYPE_MAKE_SEND, port, 0, 7, inline=body_of(size)))
        mach.mach_msg(message, mach.MACH_SEND_MSG, len(message), 0, 0)
        buffer = bytearray(size + 200)
        mach.mach_msg(buffer, mach.MACH_RCV_MSG, 0, len(buffer), port)
        assert buffer[layout.HEADER_SIZE : layout.HEADER_SIZE + size] == body_of(size)
