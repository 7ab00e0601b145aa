"""IODataQueue and IOSharedDataQueue: what the kernel's side does differently."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator

import pytest

from machport.abi import constants as c
from machport.abi.errors import LimitReached
from machport.dataqueue import DataQueueMemory, functions
from machport.dataqueue.kernel_side import IODataQueue, IOSharedDataQueue
from machport.ring import layout

U32_MAX = 2**32 - 1
PORT = 0x2207


class Sender:
    def __init__(self) -> None:
        self.code = c.MACH_MSG_SUCCESS
        self.sent: list[bytes] = []

    def send(self, header: bytes) -> int:
        self.sent.append(header)
        return self.code


@pytest.fixture
def sender() -> Sender:
    return Sender()


@pytest.fixture
def plain(sender: Sender) -> Iterator[IODataQueue]:
    queue = IODataQueue.withCapacity(40, sender)
    assert queue is not None
    yield queue
    queue.free()


@pytest.fixture
def shared(sender: Sender) -> Iterator[IOSharedDataQueue]:
    queue = IOSharedDataQueue.withCapacity(40, sender)
    assert queue is not None
    yield queue
    queue.free()


def test_the_regions_have_the_sizes_of_the_table(plain: IODataQueue, shared: IOSharedDataQueue) -> None:
    """Section 5, region and getMemoryDescriptor: without page rounding."""
    assert plain.getMemoryDescriptor().size == 12 + 40
    assert shared.getMemoryDescriptor().size == 12 + 40 + 28
    assert shared.getMemoryDescriptor().notification_header == bytes(24)


@pytest.mark.parametrize(("kind", "largest"), [(IODataQueue, U32_MAX - 12), (IOSharedDataQueue, U32_MAX - 12 - 28)])
def test_a_capacity_too_large_makes_no_queue(
    kind: type[IODataQueue], largest: int, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Section 5, withCapacity: the limit itself is tried without allocating 4 GiB."""

    def no_memory(cls: type, capacity: int, *, shared: bool) -> DataQueueMemory:
        tried.append(capacity)
        raise LimitReached("no memory for a test")

    tried: list[int] = []
    monkeypatch.setattr(DataQueueMemory, "with_capacity", classmethod(no_memory))
    assert kind.withCapacity(largest + 1, sender) is None
    assert tried == []
    assert kind.withCapacity(largest, sender) is None
    assert tried == [largest]


def test_room_for_entries_follows_the_formula(sender: Sender) -> None:
    """Q37, and the overflows of withEntries."""
    queue = IODataQueue.withEntries(3, 6, sender)
    assert queue is not None
    assert queue.getMemoryDescriptor().capacity == 4 * 10
    queue.free()
    assert IODataQueue.withEntries(U32_MAX, 0, sender) is None
    assert IODataQueue.withEntries(2**16, 2**16, sender) is None


def test_the_client_sees_what_the_kernel_adds(plain: IODataQueue) -> None:
    with DataQueueMemory.from_fd(os.dup(plain.getMemoryDescriptor().fileno())) as client:
        assert plain.enqueue(b"for you", 7)
        assert plain.enqueue(None, 3)
        size = ctypes.c_uint32(40)
        buffer = bytearray(40)
        assert functions.dequeue(client, buffer, size) == c.kIOReturnSuccess
        assert buffer[: size.value] == b"for you"
        assert functions.dequeue(client, None, None) == c.kIOReturnSuccess


def test_the_header_is_private(shared: IOSharedDataQueue, sender: Sender) -> None:
    """Section 5, setNotificationPort: what a client writes into the appendix sends nothing anywhere."""
    functions.set_notification_port(shared.getMemoryDescriptor(), 0x666)
    shared.enqueue(b"1", 1)
    assert sender.sent == []
    shared.setNotificationPort(PORT)
    shared.dequeue(None, None)
    shared.enqueue(b"1", 1)
    assert sender.sent == [struct.pack("=6I", 19, 24, PORT, 0, 0, 0)]
    shared.setNotificationPort(0)
    shared.dequeue(None, None)
    shared.enqueue(b"1", 1)
    assert len(sender.sent) == 1


def test_only_emptiness_notifies_and_fullness_does_not(plain: IODataQueue, sender: Sender) -> None:
    """Section 5, enqueue and notification; G4 holds for the user's function only."""
    plain.setNotificationPort(PORT)
    assert plain.enqueue(b"x" * 20, 20)
    assert plain.enqueue(b"x" * 4, 4)
    assert not plain.enqueue(b"x" * 20, 20)
    assert len(sender.sent) == 1


@pytest.mark.parametrize(("head", "tail"), [(41, 0), (0, 41)])
def test_a_place_outside_the_ring_is_false(plain: IODataQueue, head: int, tail: int) -> None:
    memory = plain.getMemoryDescriptor()
    os.pwrite(memory.fileno(), struct.pack("=II", head, tail), layout.HEAD)
    assert not plain.enqueue(b"1", 1)


@pytest.mark.parametrize(("data", "size"), [(None, U32_MAX - 3), (b"12", 3), (b"12", -1), (None, 37)])
def test_a_size_that_cannot_be_is_false(plain: IODataQueue, data: bytes | None, size: int) -> None:
    assert not plain.enqueue(data, size)


def test_the_shared_size_is_not_believed(shared: IOSharedDataQueue) -> None:
    """Q36."""
    memory = shared.getMemoryDescriptor()
    os.pwrite(memory.fileno(), struct.pack("=I", U32_MAX), layout.QUEUE_SIZE)
    assert not shared.enqueue(b"x" * 41, 41)
    os.pwrite(memory.fileno(), struct.pack("=III", U32_MAX, 0, 80) + struct.pack("=I", 60), 0)
    assert shared.peek() is None
    assert not shared.dequeue(None, None)


@pytest.mark.parametrize(
    ("code", "logged"),
    [
        (c.MACH_MSG_SUCCESS, False),
        (c.MACH_SEND_TIMED_OUT, False),
        (c.MACH_SEND_NO_BUFFER, False),
        (c.MACH_SEND_INVALID_DEST, True),
    ],
)
def test_a_failed_notification_is_logged_but_never_fails_the_entry(
    plain: IODataQueue, sender: Sender, caplog: pytest.LogCaptureFixture, code: int, logged: bool
) -> None:
    """Section 5, notification; Q31 and Q38."""
    plain.setNotificationPort(PORT)
    sender.code = code
    assert plain.enqueue(b"1", 1)
    assert [record.getMessage() for record in caplog.records] == (
        ["a data queue could not notify its reader: MACH_SEND_INVALID_DEST"] if logged else []
    )


def test_a_client_can_send_to_the_kernel(shared: IOSharedDataQueue, sender: Sender) -> None:
    """Section 5: both directions."""
    client = shared.getMemoryDescriptor()
    functions.enqueue(client, b"hello kernel", 12, sender)
    entry = shared.peek()
    assert entry is not None
    assert bytes(entry) == b"hello kernel"
    size = ctypes.c_uint32(4)
    assert not shared.dequeue(bytearray(4), size)
    assert size.value == 12
    buffer = bytearray(12)
    assert shared.dequeue(buffer, size)
    assert buffer == b"hello kernel"
    assert not shared.dequeue(buffer, size)
    assert shared.peek() is None
