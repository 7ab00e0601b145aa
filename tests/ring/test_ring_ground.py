"""What the ring stands on: the size it trusts, how long its memory lives, and threads that share it."""

from __future__ import annotations

import copy
import gc
import mmap
import os
import pickle
import threading
import weakref

import pytest
from ring_forms import MAKERS, U32, Bench, MakeRing, both_forms

from machport.abi.errors import QueueMisuse
from machport.ring import layout

ADDED, WAKE, FULL, TOO_LARGE = layout.ADDED, layout.WAKE, layout.FULL, layout.TOO_LARGE


# Size of the ring


@both_forms
def test_the_shared_size_is_never_read(make: MakeRing) -> None:
    """Q36: the capacity is the one given at construction."""
    bench = Bench(make, 40)
    for lie in (0, 7, 2**32 - 1):
        bench.put(layout.QUEUE_SIZE, lie)
        assert bench.ring.enqueue(b"x" * 10) == WAKE
        assert bench.ring.dequeue() == b"x" * 10
    bench.check_canaries()


@both_forms
@pytest.mark.parametrize("capacity", [-1, 29, 2**32, 2**64])
def test_a_capacity_that_the_buffer_cannot_hold_is_refused(make: MakeRing, capacity: int) -> None:
    """Q36: checked against the buffer's length."""
    with pytest.raises(QueueMisuse, match="this buffer has 40"):
        make(memoryview(bytearray(40)), capacity)


@both_forms
def test_a_read_only_buffer_holds_no_ring(make: MakeRing) -> None:
    with pytest.raises(QueueMisuse, match="read-only"):
        make(memoryview(bytes(40)), 28)


def test_a_misaligned_buffer_holds_no_ring() -> None:
    with pytest.raises(QueueMisuse, match="multiple of 4"):
        MAKERS["compiled"](memoryview(bytearray(41))[1:], 28)


@both_forms
def test_the_largest_capacity_works_to_its_last_byte(make: MakeRing) -> None:
    """Q10, with memory that is mapped but, except for a few pages, never touched."""
    capacity = 2**32 - 1
    fd = os.memfd_create("sparse")
    os.ftruncate(fd, layout.MEMORY_HEADER_SIZE + capacity)
    with mmap.mmap(fd, 0) as mapping:
        os.close(fd)
        ring = make(memoryview(mapping), capacity)

        def stand_at(head: int, tail: int) -> None:
            U32.pack_into(mapping, layout.HEAD, head)
            U32.pack_into(mapping, layout.TAIL, tail)

        stand_at(capacity - 12, capacity - 12)
        assert ring.enqueue(b"12345678") == WAKE
        assert ring.tail == capacity
        assert ring.enqueue(b"wraps") == ADDED
        assert ring.tail == 9
        assert ring.dequeue_many() == [b"12345678", b"wraps"]

        stand_at(0, 0)
        assert ring.enqueue_blank(capacity - 3) == TOO_LARGE
        assert ring.enqueue_blank(capacity - 4) == WAKE
        assert ring.tail == capacity
        entry = ring.peek()
        assert entry is not None
        assert entry.nbytes == capacity - 4
        assert ring.skip() == capacity - 4
        assert ring.head == capacity
        del ring, entry


# How long the memory lives


@both_forms
def test_the_mapping_lives_as_long_as_a_view_into_it(make: MakeRing) -> None:
    """T15: a view kept after everything else is gone still reads its entry."""
    mapping = mmap.mmap(-1, 4096)
    ring = make(memoryview(mapping), 1000)
    ring.enqueue(b"kept")
    entry = ring.peek()
    with pytest.raises(BufferError):
        mapping.close()
    alive = weakref.ref(mapping)
    del ring, mapping
    gc.collect()
    assert entry is not None
    assert bytes(entry) == b"kept"
    assert alive() is not None
    del entry
    gc.collect()
    assert alive() is None


@both_forms
def test_a_buffer_that_could_move_is_held_still(make: MakeRing) -> None:
    memory = bytearray(40)
    ring = make(memoryview(memory), 28)
    with pytest.raises(BufferError):
        memory.extend(b"more")
    assert ring.enqueue(b"still") == WAKE


def test_a_ring_cannot_be_copied_away_from_its_memory() -> None:
    ring = MAKERS["compiled"](memoryview(bytearray(40)), 28)
    with pytest.raises(TypeError):
        pickle.dumps(ring)
    with pytest.raises(TypeError):
        copy.copy(ring)


# Threads


@both_forms
def test_one_thread_for_each_side_needs_no_lock(make: MakeRing) -> None:
    """Q12: in one process the interpreter lock orders everything."""
    bench = Bench(make, 100)
    numbers = [number.to_bytes(2, "little") for number in range(5_000)]

    def produce() -> None:
        for number in numbers:
            while bench.ring.enqueue(number) == FULL:
                os.sched_yield()

    producer = threading.Thread(target=produce)
    producer.start()
    received: list[bytes] = []
    while len(received) < len(numbers):
        batch = bench.ring.dequeue_many()
        received += batch
        if not batch:
            os.sched_yield()  # lets go of the interpreter lock
    producer.join()
    assert received == numbers


def test_threads_on_one_side_of_a_compiled_ring_take_turns() -> None:
    bench = Bench(MAKERS["compiled"], 2**20)
    each, threads = 5_000, 4

    def produce(name: int) -> None:
        for number in range(each):
            bench.ring.enqueue(bytes([name]) + number.to_bytes(2, "little"))

    producers = [threading.Thread(target=produce, args=(name,)) for name in range(threads)]
    for producer in producers:
        producer.start()
    for producer in producers:
        producer.join()
    received = bench.ring.dequeue_many()
    for name in range(threads):
        own = [int.from_bytes(entry[1:], "little") for entry in received if entry[0] == name]
        assert own == list(range(each))
