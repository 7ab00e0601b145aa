"""What machport's own sides tell each other stands where the published layout does not look."""

from __future__ import annotations

import os

import pytest

from machport.abi.errors import QueueMisuse
from machport.dataqueue import DataQueue, DataQueueMemory, extension
from machport.ring import layout


@pytest.mark.parametrize("capacity", [0, 1, 23, 24, 25, 4096, 100_000])
def test_the_extension_begins_behind_the_appendix_at_a_cache_line(capacity: int) -> None:
    """Section 1: 12 + Q + 28."""
    place = extension.place(capacity)
    assert place % 64 == 0
    assert 0 <= place - (12 + capacity + 28) < 64


def test_each_word_has_a_cache_line_of_its_own() -> None:
    words = [*extension.SIGN, *extension.BELL]
    assert len({word // 64 for word in [0, *words]}) == 5
    assert all(word % 64 == 0 and word + 4 <= extension.SIZE for word in words)


def test_only_memory_that_says_so_is_extended() -> None:
    for shared in (False, True):
        with DataQueueMemory.with_capacity(64, shared=shared) as memory:
            assert not memory.extended
    with DataQueueMemory.with_capacity(64, extended=True) as memory:
        assert (memory.extended, memory.shared) == (True, True)
        with DataQueueMemory.from_fd(os.dup(memory.fileno())) as same:
            assert (same.extended, same.capacity) == (True, 64)


def test_a_program_of_the_published_layout_uses_the_same_memory() -> None:
    """Sections 1 and 4: it neither sees nor touches the extension."""
    with DataQueue(64) as queue, DataQueueMemory.from_fd(os.dup(queue.memory.fileno())) as memory:
        before = os.pread(memory.fileno(), extension.SIZE, extension.place(64))
        queue.enqueue(b"from here")
        assert memory.ring.dequeue() == b"from here"
        memory.ring.enqueue(b"from there")
        memory.set_notification_port(7)
        assert queue.dequeue() == b"from there"
        assert os.pread(memory.fileno(), extension.SIZE, extension.place(64)) == before


@pytest.mark.parametrize("role", [extension.PRODUCER, extension.CONSUMER])
def test_a_sign_says_whether_an_end_is_held_travels_or_is_closed(role: int) -> None:
    with DataQueue(64) as queue:
        place = extension.place(64) + extension.SIGN[role]
        descriptor = os.dup(queue.memory.fileno())

        def sign() -> tuple[int, int]:
            word = int.from_bytes(os.pread(descriptor, 4, place), "little")
            return word >> extension.STATE_BITS, word & extension.STATE

        assert sign() == (0, extension.HELD)
        end = queue.detach_producer() if role == extension.PRODUCER else queue.detach_consumer()
        assert sign() == (0, extension.TRAVELLING)
        with DataQueue.from_fd(end):
            assert sign() == (1, extension.HELD)
        assert sign() == (1, extension.CLOSED)
        os.close(descriptor)


def test_an_end_does_not_come_with_memory_that_has_no_extension() -> None:
    with DataQueueMemory.with_capacity(64) as memory:
        header = memory.mapping[: layout.MEMORY_HEADER_SIZE]
        assert not extension.is_in(memory.mapping, 64)
        assert len(header) == 12
        with pytest.raises(QueueMisuse):
            DataQueue.from_fd(os.dup(memory.fileno()))
