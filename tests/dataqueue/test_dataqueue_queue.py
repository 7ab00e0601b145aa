"""The Python form: refusals are raised, and every one of them leaves the queue as it was."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

import pytest

from machport.abi.errors import CorruptQueue, MachError, QueueEmpty, QueueFull, QueueMisuse
from machport.dataqueue import DataQueue, DataQueueMemory, Statistics
from machport.ring import layout


class Bell:
    def __init__(self) -> None:
        self.rung = 0

    def __call__(self) -> None:
        self.rung += 1


@pytest.fixture
def memory() -> Iterator[DataQueueMemory]:
    with DataQueueMemory.with_capacity(40) as memory:
        yield memory


@pytest.fixture
def bell() -> Bell:
    return Bell()


@pytest.fixture
def queue(memory: DataQueueMemory, bell: Bell) -> DataQueue:
    return DataQueue(memory, bell)


def move(memory: DataQueueMemory, head: int, tail: int) -> None:
    os.pwrite(memory.fileno(), struct.pack("=II", head, tail), layout.HEAD)


def test_entries_come_out_in_order(queue: DataQueue) -> None:
    for entry in (b"a", b"", b"ccc"):
        queue.enqueue(entry)
    assert queue.dequeue() == b"a"
    assert list(queue.drain()) == [b"", b"ccc"]


def test_the_bell_is_rung_when_the_ring_was_empty_and_when_it_is_full(queue: DataQueue, bell: Bell) -> None:
    """Q27 and G4."""
    queue.enqueue(b"x" * 20)
    queue.enqueue(b"y")
    assert bell.rung == 1
    with pytest.raises(QueueFull, match="no room for 20 bytes in one piece: 29 of 40 are used"):
        queue.enqueue(b"x" * 20)
    assert bell.rung == 2
    assert list(queue.drain()) == [b"x" * 20, b"y"]


def test_an_empty_queue_raises_what_a_non_blocking_read_would(queue: DataQueue) -> None:
    with pytest.raises(QueueEmpty) as refusal:
        queue.dequeue()
    assert isinstance(refusal.value, BlockingIOError)
    with pytest.raises(QueueEmpty), queue.peek():
        pass
    assert list(queue.drain()) == []


def test_an_entry_that_never_fits_is_the_callers_mistake(queue: DataQueue, bell: Bell) -> None:
    """Q7."""
    with pytest.raises(QueueMisuse, match="the largest has 36"):
        queue.enqueue(bytes(37))
    assert bell.rung == 0


@pytest.mark.parametrize(("head", "tail"), [(41, 0), (0, 41)])
def test_a_broken_ring_is_the_peers_mistake(queue: DataQueue, memory: DataQueueMemory, head: int, tail: int) -> None:
    """Q41."""
    move(memory, head, tail)
    with pytest.raises(CorruptQueue, match="outside the ring of 40 bytes"):
        queue.enqueue(b"x")


def test_a_corrupt_entry_is_the_peers_mistake(queue: DataQueue, memory: DataQueueMemory) -> None:
    move(memory, 41, 0)
    for use in (queue.dequeue, lambda: next(queue.drain()), lambda: queue.peek().__enter__()):
        with pytest.raises(CorruptQueue, match="the entry at 41"):
            use()


def test_an_entry_looked_at_is_taken_at_the_end_of_the_block(queue: DataQueue) -> None:
    """Q22."""
    queue.enqueue(b"first")
    queue.enqueue(b"second")
    with queue.peek() as entry:
        assert bytes(entry) == b"first"
        assert entry.readonly
    assert queue.dequeue() == b"second"


def test_the_view_ends_with_the_block(queue: DataQueue) -> None:
    """Q21: its room belongs to the producer again."""
    queue.enqueue(b"first")
    with queue.peek() as entry:
        pass
    with pytest.raises(ValueError, match="released"):
        bytes(entry)


def test_an_entry_whose_block_fails_is_still_next(queue: DataQueue) -> None:
    queue.enqueue(b"first")
    with pytest.raises(ZeroDivisionError), queue.peek():
        raise ZeroDivisionError
    assert queue.dequeue() == b"first"


def test_nothing_else_is_taken_while_an_entry_is_looked_at(queue: DataQueue) -> None:
    """Otherwise the end of the block would throw away an entry that nobody saw."""
    queue.enqueue(b"first")
    queue.enqueue(b"second")
    with queue.peek() as entry:
        for use in (queue.dequeue, lambda: list(queue.drain()), lambda: queue.peek().__enter__()):
            with pytest.raises(QueueMisuse, match="looked at"):
                use()
        assert bytes(entry) == b"first"
    assert list(queue.drain()) == [b"second"]


def test_a_queue_can_be_asked_how_it_is(queue: DataQueue) -> None:
    assert queue.statistics() == Statistics(40, 0, 0, 0, 0, 0)
    queue.enqueue(b"x" * 20)
    queue.enqueue(b"y" * 6)
    for _ in range(2):
        with pytest.raises(QueueFull):
            queue.enqueue(b"z" * 20)
    queue.dequeue()
    assert queue.statistics() == Statistics(capacity=40, used=10, enqueued=2, dequeued=1, notifications=1, refusals=2)
    queue.enqueue(b"wraps" * 3)
    assert queue.statistics().used == 40 - 24 + 19


@pytest.mark.parametrize(("head", "tail"), [(2**32 - 1, 0), (0, 2**32 - 1), (41, 41), (40, 0)])
def test_a_lying_peer_cannot_break_the_statistics(
    queue: DataQueue, memory: DataQueueMemory, head: int, tail: int
) -> None:
    move(memory, head, tail)
    assert 0 <= queue.statistics().used <= 40


def test_every_refusal_is_one_kind_of_error(queue: DataQueue) -> None:
    with pytest.raises(MachError):
        queue.dequeue()


def test_a_queue_can_be_used_until_its_last_user_is_gone(memory: DataQueueMemory) -> None:
    """T15: closing the memory takes nothing away from under a queue in use."""
    queue = DataQueue(memory)
    queue.enqueue(b"still here")
    memory.close()
    assert queue.dequeue() == b"still here"
