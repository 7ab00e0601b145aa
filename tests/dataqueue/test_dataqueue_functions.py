"""The user's functions: every row of their tables, with the notification that goes, or does not go, with it."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator

import pytest

from machport.abi import constants as c
from machport.dataqueue import DataQueueMemory, functions
from machport.dataqueue.functions import Enqueued
from machport.ring import layout

SUCCESS, ERROR, BAD_ARGUMENT = c.kIOReturnSuccess, c.kIOReturnError, c.kIOReturnBadArgument
NO_SPACE, UNDERRUN, OVERRUN = c.kIOReturnNoSpace, c.kIOReturnUnderrun, c.kIOReturnOverrun
U32_MAX = 2**32 - 1
PORT = 0x1503


class Port:
    """A task's port as the functions see it: what was sent, and what the next calls return."""

    def __init__(self, *codes: int) -> None:
        self.codes = list(codes)
        self.sent: list[bytes] = []
        self.received: list[int] = []

    def send(self, header: bytes) -> int:
        self.sent.append(header)
        return self.codes.pop(0) if self.codes else c.MACH_MSG_SUCCESS

    def receive(self, port: int) -> int:
        self.received.append(port)
        return self.codes.pop(0) if self.codes else c.MACH_MSG_SUCCESS


@pytest.fixture
def queue() -> Iterator[DataQueueMemory]:
    with DataQueueMemory.with_capacity(40) as memory:
        yield memory


@pytest.fixture
def notified(queue: DataQueueMemory) -> DataQueueMemory:
    functions.set_notification_port(queue, PORT)
    return queue


def contents(queue: DataQueueMemory) -> bytes:
    return os.pread(queue.fileno(), queue.size, 0)


def move(queue: DataQueueMemory, head: int, tail: int) -> None:
    os.pwrite(queue.fileno(), struct.pack("=II", head, tail), layout.HEAD)


def put(queue: DataQueueMemory, place: int, size: int) -> None:
    os.pwrite(queue.fileno(), struct.pack("=I", size), layout.RING + place)


def test_the_codes_are_those_of_the_manual() -> None:
    """Section 4, first lines."""
    assert (SUCCESS, ERROR, BAD_ARGUMENT) == (0, 0xE00002BC, 0xE00002C2)
    assert (NO_SPACE, UNDERRUN, OVERRUN) == (0xE00002DB, 0xE00002E7, 0xE00002E8)


# IODataQueueSetNotificationPort


def test_setting_the_port_writes_the_header_and_nothing_else(queue: DataQueueMemory) -> None:
    """Q16: bits 19, size 24, the port, local 0, id 0; voucher and version are left alone."""
    os.pwrite(queue.fileno(), b"\xee" * 28, 12 + 40)
    before = contents(queue)
    assert functions.set_notification_port(queue, PORT) == SUCCESS
    expected = b"\xee" * 4 + struct.pack("=IIII", 19, 24, PORT, 0) + b"\xee" * 4 + struct.pack("=I", 0)
    assert contents(queue) == before[:52] + expected


def test_setting_the_port_of_nothing_is_a_bad_argument() -> None:
    """Q16."""
    assert functions.set_notification_port(None, PORT) == BAD_ARGUMENT


def test_a_plain_queue_has_no_place_for_a_port() -> None:
    """Q18: the region is shorter than 12 + Q + 28."""
    with DataQueueMemory.with_capacity(40, shared=False) as plain:
        before = contents(plain)
        assert functions.set_notification_port(plain, PORT) == BAD_ARGUMENT
        assert contents(plain) == before


@pytest.mark.parametrize("port", [c.MACH_PORT_DEAD, 7, 0])
def test_no_port_is_checked(queue: DataQueueMemory, port: int) -> None:
    """Q16: always Success, whatever the name means."""
    assert functions.set_notification_port(queue, port) == SUCCESS


def test_the_header_is_unaligned_when_the_capacity_is() -> None:
    """Section 1: the appendix follows the ring immediately."""
    with DataQueueMemory.with_capacity(41) as odd:
        functions.set_notification_port(odd, PORT)
        assert contents(odd)[12 + 41 + 4 :][8:12] == struct.pack("=I", PORT)
        assert odd.notification_header == struct.pack("=6I", 19, 24, PORT, 0, 0, 0)


# IODataQueueEnqueue


def test_the_first_entry_notifies_with_a_copy_of_the_header(notified: DataQueueMemory) -> None:
    """Q27 and Q28."""
    port = Port()
    assert functions.enqueue(notified, b"data", 4, port) == Enqueued(SUCCESS, c.MACH_MSG_SUCCESS)
    assert port.sent == [struct.pack("=6I", 19, 24, PORT, 0, 0, 0)]
    assert notified.ring.dequeue() == b"data"


def test_further_entries_do_not(notified: DataQueueMemory) -> None:
    """Q27, otherwise; Q30."""
    port = Port()
    functions.enqueue(notified, b"1", 1, port)
    assert functions.enqueue(notified, b"2", 1, port) == Enqueued(SUCCESS)
    assert len(port.sent) == 1


def test_each_time_the_ring_was_emptied_notifies_again(notified: DataQueueMemory) -> None:
    """Q27."""
    port = Port()
    for _ in range(3):
        functions.enqueue(notified, b"1", 1, port)
        notified.ring.dequeue()
    assert len(port.sent) == 3


@pytest.mark.parametrize("shared", [True, False])
def test_without_a_port_nothing_is_sent(shared: bool) -> None:
    """Q28: the remote port is 0, or there is no appendix to hold one."""
    port = Port()
    with DataQueueMemory.with_capacity(40, shared=shared) as memory:
        assert functions.enqueue(memory, b"1", 1, port) == Enqueued(SUCCESS)
    assert port.sent == []


def test_port_zero_switches_notification_off(notified: DataQueueMemory) -> None:
    """Q17."""
    port = Port()
    functions.set_notification_port(notified, 0)
    assert functions.enqueue(notified, b"1", 1, port) == Enqueued(SUCCESS)
    assert port.sent == []


@pytest.mark.parametrize("code", [c.MACH_SEND_TIMED_OUT, c.MACH_SEND_INVALID_DEST, c.MACH_SEND_NO_BUFFER])
def test_an_entry_that_is_in_the_ring_is_a_success_whatever_the_send_says(notified: DataQueueMemory, code: int) -> None:
    """G3, Q29, Q31 and Q38: nobody may be led to enqueue it twice."""
    port = Port(code)
    assert functions.enqueue(notified, b"once", 4, port) == Enqueued(SUCCESS, code)
    assert notified.ring.dequeue_many() == [b"once"]


def test_enqueueing_to_nothing_is_a_bad_argument() -> None:
    """G2."""
    assert functions.enqueue(None, b"1", 1, Port()) == Enqueued(BAD_ARGUMENT)
    assert functions.enqueue(None, None, U32_MAX, Port()) == Enqueued(BAD_ARGUMENT)


def test_a_size_beyond_any_entry_is_an_overrun_without_a_message(notified: DataQueueMemory) -> None:
    """Second row, before the third and the fourth: dataSize > 2^32 - 1 - 4."""
    port = Port()
    move(notified, 99, 99)
    before = contents(notified)
    assert functions.enqueue(notified, None, U32_MAX - 3, port) == Enqueued(OVERRUN)
    assert functions.enqueue(notified, b"short", U32_MAX - 3, port) == Enqueued(OVERRUN)
    assert contents(notified) == before
    assert port.sent == []


@pytest.mark.parametrize(("head", "tail"), [(41, 0), (0, 41), (U32_MAX, U32_MAX)])
def test_a_place_outside_the_ring_is_an_underrun_without_a_message(
    notified: DataQueueMemory, head: int, tail: int
) -> None:
    """Third row, before the fourth: Q < tail or Q < head."""
    port = Port()
    move(notified, head, tail)
    before = contents(notified)
    assert functions.enqueue(notified, b"x" * 100, 100, port) == Enqueued(UNDERRUN)
    assert contents(notified) == before
    assert port.sent == []


@pytest.mark.parametrize("code", [c.MACH_MSG_SUCCESS, c.MACH_SEND_TIMED_OUT, c.MACH_SEND_INVALID_DEST])
def test_a_full_ring_notifies_and_says_overrun(notified: DataQueueMemory, code: int) -> None:
    """Fourth row and G4: one is sent anyway, its result ignored."""
    functions.enqueue(notified, b"x" * 30, 30, Port())
    before = contents(notified)
    port = Port(code)
    assert functions.enqueue(notified, b"x" * 30, 30, port) == Enqueued(OVERRUN, code)
    assert contents(notified) == before
    assert len(port.sent) == 1


def test_no_data_reserves_room(queue: DataQueueMemory) -> None:
    """Q26."""
    assert functions.enqueue(queue, None, 10, Port()) == Enqueued(SUCCESS)
    assert queue.ring.dequeue() == bytes(10)


def test_an_entry_without_bytes_is_an_entry(notified: DataQueueMemory) -> None:
    """Q24."""
    port = Port()
    assert functions.enqueue(notified, b"", 0, port).code == SUCCESS
    assert len(port.sent) == 1
    size = ctypes.c_uint32(9)
    assert functions.dequeue(notified, bytearray(9), size) == SUCCESS
    assert size.value == 0


def test_only_the_first_bytes_are_taken(queue: DataQueueMemory) -> None:
    functions.enqueue(queue, (ctypes.c_uint16 * 3)(0x3231, 0x3433, 0x3635), 3, Port())
    assert queue.ring.dequeue() == b"123"


@pytest.mark.parametrize("size", [5, -1])
def test_a_size_that_the_data_does_not_have_is_a_bad_argument(queue: DataQueueMemory, size: int) -> None:
    before = contents(queue)
    assert functions.enqueue(queue, b"1234", size, Port()) == Enqueued(BAD_ARGUMENT)
    assert contents(queue) == before


# IODataQueueDataAvailable


def test_data_is_available_when_head_and_tail_differ(queue: DataQueueMemory) -> None:
    """Q19."""
    assert not functions.data_available(None)
    assert not functions.data_available(queue)
    functions.enqueue(queue, b"1", 1, Port())
    assert functions.data_available(queue)
    move(queue, U32_MAX, 0)
    assert functions.data_available(queue)


# IODataQueuePeek


def test_peek_shows_what_dequeue_will_give(queue: DataQueueMemory) -> None:
    """Q20, Q22: peek, then dequeue to nowhere, consumes without a copy."""
    functions.enqueue(queue, b"first", 5, Port())
    functions.enqueue(queue, b"second", 6, Port())
    entry = functions.peek(queue)
    assert entry is not None
    assert bytes(entry) == b"first"
    assert functions.dequeue(queue, None, None) == SUCCESS
    entry = functions.peek(queue)
    assert entry is not None
    assert bytes(entry) == b"second"


def test_peek_finds_nothing_in_nothing_in_an_empty_and_in_a_corrupt_queue(queue: DataQueueMemory) -> None:
    """Q20."""
    assert functions.peek(None) is None
    assert functions.peek(queue) is None
    move(queue, 41, 0)
    assert functions.peek(queue) is None
    move(queue, 38, 0)
    put(queue, 0, 37)
    assert functions.peek(queue) is None


@pytest.mark.parametrize("start", range(25, 41))
def test_peek_and_dequeue_agree_at_every_distance_from_the_end(queue: DataQueueMemory, start: int) -> None:
    """T7: exact fit and wrap."""
    move(queue, start, start)
    assert functions.enqueue(queue, b"0123456789", 10, Port()).code == SUCCESS
    entry = functions.peek(queue)
    assert entry is not None
    assert bytes(entry) == b"0123456789"
    buffer = bytearray(10)
    assert functions.dequeue(queue, buffer, ctypes.c_uint32(10)) == SUCCESS
    assert buffer == b"0123456789"


# IODataQueueDequeue


def test_dequeue_copies_exactly_the_entry_and_reports_its_size(queue: DataQueueMemory) -> None:
    """Fifth row."""
    functions.enqueue(queue, b"1234", 4, Port())
    buffer, size = bytearray(b"------"), ctypes.c_uint32(6)
    assert functions.dequeue(queue, buffer, size) == SUCCESS
    assert buffer == b"1234--"
    assert size.value == 4


def test_dequeue_from_nothing_is_a_bad_argument() -> None:
    """First row."""
    size = ctypes.c_uint32(6)
    assert functions.dequeue(None, None, None) == BAD_ARGUMENT
    assert functions.dequeue(None, bytearray(6), size) == BAD_ARGUMENT
    assert size.value == 6


def test_data_without_a_size_is_a_bad_argument_even_if_the_ring_is_empty(queue: DataQueueMemory) -> None:
    """First row, before the second."""
    assert functions.dequeue(queue, bytearray(6), None) == BAD_ARGUMENT


def test_an_empty_ring_is_an_underrun_and_the_size_is_untouched(queue: DataQueueMemory) -> None:
    """Second row; even if head is outside the ring, because it equals tail."""
    size = ctypes.c_uint32(6)
    for place in (0, 41):
        move(queue, place, place)
        assert functions.dequeue(queue, bytearray(6), size) == UNDERRUN
        assert functions.dequeue(queue, None, None) == UNDERRUN
        assert functions.dequeue(queue, None, size) == UNDERRUN
    assert size.value == 6


@pytest.mark.parametrize(("head", "wrapped"), [(41, 0), (U32_MAX, 0), (38, 37), (40, U32_MAX)])
def test_a_corrupt_ring_is_an_error_and_stays(queue: DataQueueMemory, head: int, wrapped: int) -> None:
    """Third row, before the fourth: head > Q, or the wrapped entry does not fit."""
    move(queue, head, 9)
    put(queue, 0, wrapped)
    before = contents(queue)
    size = ctypes.c_uint32(0)
    assert functions.dequeue(queue, bytearray(0), size) == ERROR
    assert functions.dequeue(queue, None, None) == ERROR
    assert size.value == 0
    assert contents(queue) == before


def test_a_buffer_too_small_learns_the_size_and_can_try_again(queue: DataQueueMemory) -> None:
    """Fourth row, G1 and Q23."""
    functions.enqueue(queue, b"123456", 6, Port())
    before = contents(queue)
    buffer, size = bytearray(b"------"), ctypes.c_uint32(5)
    assert functions.dequeue(queue, buffer, size) == NO_SPACE
    assert size.value == 6
    assert contents(queue) == before
    assert buffer == b"------"
    assert functions.dequeue(queue, buffer, size) == SUCCESS
    assert buffer == b"123456"


def test_an_entry_that_is_too_big_can_be_thrown_away(queue: DataQueueMemory) -> None:
    """Q23, and the last row: dataSize is untouched without data."""
    functions.enqueue(queue, b"123456", 6, Port())
    functions.enqueue(queue, b"7", 1, Port())
    size = ctypes.c_uint32(1)
    assert functions.dequeue(queue, bytearray(1), size) == NO_SPACE
    size.value = 99
    assert functions.dequeue(queue, None, size) == SUCCESS
    assert size.value == 99
    assert queue.ring.dequeue() == b"7"


@pytest.mark.parametrize("data", [b"constant", memoryview(bytes(8))], ids=["bytes", "read-only view"])
def test_what_cannot_be_written_is_a_bad_argument(queue: DataQueueMemory, data: bytearray) -> None:
    functions.enqueue(queue, b"1", 1, Port())
    before = contents(queue)
    assert functions.dequeue(queue, data, ctypes.c_uint32(8)) == BAD_ARGUMENT
    assert contents(queue) == before


def test_a_size_larger_than_the_buffer_is_a_bad_argument(queue: DataQueueMemory) -> None:
    functions.enqueue(queue, b"12345", 5, Port())
    before = contents(queue)
    assert functions.dequeue(queue, bytearray(4), ctypes.c_uint32(5)) == BAD_ARGUMENT
    assert contents(queue) == before


# IODataQueueWaitForAvailableData


def test_waiting_is_one_receive_and_does_not_look_at_the_ring(queue: DataQueueMemory) -> None:
    """Q32, Q33 and Q35."""
    port = Port(c.MACH_MSG_SUCCESS, c.MACH_RCV_PORT_DIED)
    assert functions.wait_for_available_data(queue, PORT, port) == c.MACH_MSG_SUCCESS
    functions.enqueue(queue, b"1", 1, port)
    assert functions.wait_for_available_data(queue, PORT, port) == c.MACH_RCV_PORT_DIED
    assert port.received == [PORT, PORT]


def test_waiting_for_nothing_or_at_no_port_is_a_bad_argument(queue: DataQueueMemory) -> None:
    """Q32."""
    port = Port()
    assert functions.wait_for_available_data(None, PORT, port) == BAD_ARGUMENT
    assert functions.wait_for_available_data(queue, c.MACH_PORT_NULL, port) == BAD_ARGUMENT
    assert port.received == []


class PortWithOneMessage(Port):
    """Queue limit 1, as ``IODataQueueAllocateNotificationPort`` sets it (Q14); receiving from it empty is a hang."""

    def __init__(self) -> None:
        super().__init__()
        self.pending = False

    def send(self, header: bytes) -> int:
        super().send(header)
        if self.pending:
            return c.MACH_SEND_TIMED_OUT
        self.pending = True
        return c.MACH_MSG_SUCCESS

    def receive(self, port: int) -> int:
        assert self.pending, "the consumer would sleep for ever"
        self.pending = False
        return super().receive(port)


def test_the_consumer_loop_never_sleeps_on_data(notified: DataQueueMemory) -> None:
    """Q34: drain until Underrun, wait, repeat; entries come in any bursts.  Q30: one message is enough for them."""
    port = PortWithOneMessage()
    taken = 0
    for burst in (1, 3, 2, 1, 5):
        for _ in range(burst):
            assert functions.enqueue(notified, b"1", 1, port).code == SUCCESS
        assert functions.wait_for_available_data(notified, PORT, port) == c.MACH_MSG_SUCCESS
        while functions.dequeue(notified, None, None) == SUCCESS:
            taken += 1
    assert taken == 12
    assert not port.pending


def test_a_message_left_over_from_drained_data_is_a_normal_underrun(notified: DataQueueMemory) -> None:
    """Q33 and Q34."""
    port = PortWithOneMessage()
    functions.enqueue(notified, b"1", 1, port)
    functions.dequeue(notified, None, None)
    assert functions.wait_for_available_data(notified, PORT, port) == c.MACH_MSG_SUCCESS
    assert functions.dequeue(notified, None, None) == UNDERRUN


def test_a_full_ring_wakes_a_consumer_whose_message_is_pending_already(notified: DataQueueMemory) -> None:
    """T8 and Q29: the second notification times out, and nothing is lost by that."""
    port = PortWithOneMessage()
    functions.enqueue(notified, b"x" * 30, 30, port)
    assert functions.enqueue(notified, b"x" * 30, 30, port) == Enqueued(OVERRUN, c.MACH_SEND_TIMED_OUT)
    assert functions.wait_for_available_data(notified, PORT, port) == c.MACH_MSG_SUCCESS
    assert functions.dequeue(notified, None, None) == SUCCESS
