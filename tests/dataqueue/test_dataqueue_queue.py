"""A data queue whose two ends are in one process: what each operation gives, refuses and leaves behind."""

from __future__ import annotations

import array
import gc
import os
import pickle
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from machport.abi.errors import (
    CorruptQueue,
    EntryTooLarge,
    InvalidArgument,
    MachError,
    QueueEmpty,
    QueueEnded,
    QueueFull,
    QueueMisuse,
    TimedOut,
)
from machport.dataqueue import DataQueue
from machport.ring import layout

CAPACITY = 40


@pytest.fixture
def queue() -> Iterator[DataQueue]:
    with DataQueue(CAPACITY) as queue:
        yield queue


def move(queue: DataQueue, head: int, tail: int) -> None:
    """Both sides at chosen places, as a peer may write them."""
    os.pwrite(queue.memory.fileno(), struct.pack("=II", head, tail), layout.HEAD)


def stand_empty_at(queue: DataQueue, offset: int) -> None:
    """An empty ring, as after a life of entries."""
    queue.enqueue(bytes(offset - 4))
    queue.dequeue()


def mapped(inode: int) -> bool:
    """Whether this process maps a file."""
    return any(line.split()[4] == str(inode) for line in Path("/proc/self/maps").read_text().splitlines())


# Each way to put an entry in, and to take one out

ADDERS: dict[str, Callable[[DataQueue, bytes, float | None], None]] = {}
TAKERS: dict[str, Callable[[DataQueue, float | None], bytes]] = {}


def adder(add: Callable[[DataQueue, bytes, float | None], None]) -> Callable[[DataQueue, bytes, float | None], None]:
    ADDERS[add.__name__] = add
    return add


def taker(take: Callable[[DataQueue, float | None], bytes]) -> Callable[[DataQueue, float | None], bytes]:
    TAKERS[take.__name__] = take
    return take


@adder
def enqueue(queue: DataQueue, data: bytes, timeout: float | None) -> None:
    queue.enqueue(data, timeout)


@adder
def reserve(queue: DataQueue, data: bytes, timeout: float | None) -> None:
    with queue.reserve(len(data), timeout) as room:
        room[:] = data


@taker
def dequeue(queue: DataQueue, timeout: float | None) -> bytes:
    return queue.dequeue(timeout)


@taker
def dequeue_into(queue: DataQueue, timeout: float | None) -> bytes:
    buffer = bytearray(CAPACITY)
    return bytes(buffer[: queue.dequeue_into(buffer, timeout)])


@taker
def dequeue_many(queue: DataQueue, timeout: float | None) -> bytes:
    (entry,) = queue.dequeue_many(1, timeout)
    return entry


@taker
def peek(queue: DataQueue, timeout: float | None) -> bytes:
    with queue.peek(timeout) as entry:
        return bytes(entry)


@taker
def take_view(queue: DataQueue, timeout: float | None) -> bytes:
    return bytes(queue.take_view(timeout))


every_adder = pytest.mark.parametrize("add", ADDERS.values(), ids=ADDERS)
every_taker = pytest.mark.parametrize("take", TAKERS.values(), ids=TAKERS)


@every_adder
@every_taker
@pytest.mark.parametrize("size", [0, 1, CAPACITY - 5, CAPACITY - 4])
def test_an_entry_comes_out_as_it_went_in(
    queue: DataQueue,
    add: Callable[[DataQueue, bytes, float | None], None],
    take: Callable[[DataQueue, float | None], bytes],
    size: int,
) -> None:
    """Q2, Q4, Q24: any size up to Q - 4, which fills the ring to its last byte; each the only entry of a fresh ring."""
    data = bytes(range(size))
    add(queue, data, 0)
    assert queue.data_available()
    assert take(queue, 0) == data
    assert not queue.data_available()


@every_taker
def test_entries_come_out_in_order_round_and_round(
    queue: DataQueue, take: Callable[[DataQueue, float | None], bytes]
) -> None:
    """Q5, Q6: at every offset an entry can begin at, before and behind the end of the ring."""
    for turn in range(60):
        entries = [bytes([turn]) * (turn % 9), bytes([turn]) * (turn % 5)]
        assert queue.enqueue_many(entries, 0) == 2
        assert [take(queue, 0), take(queue, 0)] == entries


@every_taker
def test_an_empty_queue_refuses_who_does_not_wait(
    queue: DataQueue, take: Callable[[DataQueue, float | None], bytes]
) -> None:
    """Section 4, Underrun; it is what a read that would block raises."""
    with pytest.raises(QueueEmpty) as refusal:
        take(queue, 0)
    assert isinstance(refusal.value, BlockingIOError)
    assert isinstance(refusal.value, MachError)


@every_taker
def test_who_waits_in_vain_is_told_that_the_time_is_over(
    queue: DataQueue, take: Callable[[DataQueue, float | None], bytes]
) -> None:
    with pytest.raises(TimedOut, match="no entry came in time"):
        take(queue, 0.001)


@every_taker
def test_no_other_time_than_none_or_zero_or_more_is_taken(
    queue: DataQueue, take: Callable[[DataQueue, float | None], bytes]
) -> None:
    for timeout in (-1, float("nan"), "1"):
        with pytest.raises(InvalidArgument, match="a timeout is 0 or more seconds"):
            take(queue, timeout)  # type: ignore[arg-type]


@every_adder
def test_a_full_queue_refuses_who_does_not_wait(
    queue: DataQueue, add: Callable[[DataQueue, bytes, float | None], None]
) -> None:
    """Section 4, Overrun: nothing is written, and what is there stays."""
    queue.enqueue(b"x" * 20)
    with pytest.raises(QueueFull, match="no room for 20 bytes in one piece: 24 of 40 are used") as refusal:
        add(queue, b"y" * 20, 0)
    assert isinstance(refusal.value, BlockingIOError)
    assert queue.dequeue_many(timeout=0) == [b"x" * 20]


@every_adder
def test_who_waits_for_room_in_vain_is_told_that_the_time_is_over(
    queue: DataQueue, add: Callable[[DataQueue, bytes, float | None], None]
) -> None:
    queue.enqueue(b"x" * 20)
    with pytest.raises(TimedOut, match="no room for 20 bytes in time"):
        add(queue, b"y" * 20, 0.001)
    assert queue.dequeue_many(timeout=0) == [b"x" * 20]


@every_adder
def test_an_entry_that_never_fits_is_the_callers_mistake(
    queue: DataQueue, add: Callable[[DataQueue, bytes, float | None], None]
) -> None:
    """Q7; it is not waited for, be the ring empty or not."""
    for _ in range(2):
        with pytest.raises(QueueMisuse, match="never fits into a ring of 40; the largest has 36"):
            add(queue, bytes(CAPACITY - 3), None)
        queue.enqueue(b"x")


@every_adder
def test_a_ring_that_is_empty_at_a_bad_place_says_so_instead_of_waiting(
    queue: DataQueue, add: Callable[[DataQueue, bytes, float | None], None]
) -> None:
    """Q7: it is not rewound, so an entry that fits neither behind that place nor before it will never fit."""
    stand_empty_at(queue, 20)
    with pytest.raises(QueueMisuse, match="capacity of 48") as refusal:
        add(queue, bytes(20), None)
    assert refusal.value.rule == "Q7"
    add(queue, bytes(16), None)


def test_with_twice_the_largest_entry_there_is_always_room_in_an_empty_ring() -> None:
    """Q7."""
    with DataQueue(2 * (20 + 4)) as queue:
        for size in list(range(21)) * 3:
            queue.enqueue(bytes(20))
            queue.dequeue()
            queue.enqueue(bytes(size))
            queue.dequeue()


def test_a_queue_for_so_many_entries_has_room_for_them_wherever_it_stands() -> None:
    """Q37."""
    with DataQueue.with_entries(3, 5) as queue:
        assert queue.capacity == 4 * 9
        for size in (1, 5, 3, 0, 4, 2):
            queue.enqueue(bytes(size))
            queue.dequeue()
            assert queue.enqueue_many([bytes(5)] * 3, 0) == 3
            queue.dequeue_many()


@pytest.mark.parametrize("capacity", [0, 3, 4])
def test_the_smallest_rings_hold_nothing_or_one_empty_entry(capacity: int) -> None:
    """Q7: Q - 4 bytes."""
    with DataQueue(capacity) as queue:
        if capacity == 4:
            queue.enqueue(b"", 0)
            assert queue.dequeue(0) == b""
        else:
            with pytest.raises(QueueMisuse, match="the largest has 0"):
                queue.enqueue(b"")


@pytest.mark.parametrize("capacity", [-1, 2**32])
def test_a_capacity_has_32_bits(capacity: int) -> None:
    """Section 5."""
    with pytest.raises(QueueMisuse):
        DataQueue(capacity)


@pytest.mark.parametrize("size", [-1, 2**32, 2**70])
def test_no_room_is_asked_for_that_no_entry_can_have(queue: DataQueue, size: int) -> None:
    asked: list[Callable[[], Any]] = [
        lambda: queue.reserve(size).__enter__(),
        lambda: queue.wait_for_room(size),
        lambda: queue.room_fileno(size),
    ]
    for ask in asked:
        with pytest.raises(QueueMisuse, match="an entry has 0 to 4294967291 bytes"):
            ask()


def test_the_largest_sizes_are_refused_as_those_that_never_fit(queue: DataQueue) -> None:
    """Section 4: dataSize > 2^32 - 1 - 4 is Overrun; no sum wraps (Q10)."""
    for size in (2**32 - 5, 2**32 - 4, 2**32 - 1):
        with pytest.raises(QueueMisuse, match="never fits"):
            queue.wait_for_room(size)
        with pytest.raises(QueueMisuse, match="never fits"), queue.reserve(size):
            pass


# Buffers


def test_whatever_has_the_buffer_protocol_can_be_added(queue: DataQueue) -> None:
    for data in (bytearray(b"abcd"), array.array("I", [1]), memoryview(b"xabcdx")[1:5], memoryview(b"aXbXcXdX")[::2]):
        queue.enqueue(data, 0)
        queue.enqueue_many([data], 0)
        assert queue.dequeue_many(timeout=0) == [bytes(data)] * 2


def test_what_has_no_buffer_is_refused_and_nothing_is_added(queue: DataQueue) -> None:
    with pytest.raises(TypeError):
        queue.enqueue("text")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        queue.enqueue_many([b"x", "text"])  # type: ignore[list-item]
    assert not queue.data_available()


def test_a_buffer_that_is_too_small_leaves_the_entry_next(queue: DataQueue) -> None:
    """Q23."""
    queue.enqueue(b"entry")
    with pytest.raises(EntryTooLarge, match="has 5 bytes, and the buffer 4; it is still next"):
        queue.dequeue_into(bytearray(4))
    buffer = bytearray(6)
    assert queue.dequeue_into(buffer) == 5
    assert buffer == b"entry\0"


@pytest.mark.parametrize("buffer", [b"read-only", memoryview(bytearray(20))[::2]])
def test_a_buffer_that_cannot_be_written_in_one_piece_takes_nothing(queue: DataQueue, buffer: Any) -> None:
    queue.enqueue(b"entry")
    with pytest.raises((BufferError, TypeError, ValueError)):
        queue.dequeue_into(buffer)
    assert queue.dequeue(0) == b"entry"


# Many


def test_what_fits_is_added_and_the_rest_counted(queue: DataQueue) -> None:
    assert queue.enqueue_many([bytes(8)] * 5, 0) == 3
    assert queue.enqueue_many([bytes(8)] * 5, 0.001) == 0
    assert queue.enqueue_many([], 0) == 0
    assert queue.enqueue_many(iter([b"", b""]), 0) == 1
    assert queue.dequeue_many(timeout=0) == [bytes(8)] * 3 + [b""]


def test_an_entry_among_many_that_never_fits_is_refused_with_the_count_of_those_before(queue: DataQueue) -> None:
    """Q7."""
    with pytest.raises(QueueMisuse, match=r"never fits.*; 2 of 4 entries were added"):
        queue.enqueue_many([b"a", b"b", bytes(CAPACITY), b"c"])
    assert queue.dequeue_many(timeout=0) == [b"a", b"b"]


def test_as_many_are_taken_as_are_there_and_asked_for(queue: DataQueue) -> None:
    queue.enqueue_many([b"a", b"b", b"c"])
    assert queue.dequeue_many(2) == [b"a", b"b"]
    assert queue.dequeue_many(2**70) == [b"c"]
    for limit in (0, -1):
        with pytest.raises(InvalidArgument, match="1 or more"):
            queue.dequeue_many(limit)


# Waiting for nothing


def test_what_is_there_is_not_waited_for(queue: DataQueue) -> None:
    assert queue.wait_for_room(CAPACITY - 4)
    assert not queue.wait(0)
    assert not queue.wait(0.001)
    queue.enqueue(b"x" * 20)
    assert queue.wait()
    assert queue.data_available()
    assert not queue.wait_for_room(20, 0)
    assert not queue.wait_for_room(20, 0.001)
    assert queue.wait_for_room(12)


def test_who_alone_has_both_ends_is_not_let_wait_for_ever(queue: DataQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every wait has an end; the threads of the tests' own tools do not count."""
    monkeypatch.setattr("threading.active_count", lambda: 1)
    waits: list[Callable[[], Any]] = [queue.dequeue, queue.wait, lambda: next(queue), lambda: queue.peek().__enter__()]
    for wait in waits:
        with pytest.raises(QueueMisuse, match="wait for ever: both ends"):
            wait()
    queue.enqueue(b"x" * 20)
    for wait in (lambda: queue.enqueue(bytes(20)), lambda: queue.wait_for_room(20)):
        with pytest.raises(QueueMisuse, match="wait for ever: both ends"):
            wait()
    assert queue.dequeue() == b"x" * 20


# In place


def test_an_entry_looked_at_is_taken_at_the_end_of_the_block(queue: DataQueue) -> None:
    """Q21, Q22: read-only, and its room is the producer's again when the block ends."""
    queue.enqueue(b"x" * 20)
    with queue.peek() as entry:
        assert entry.readonly
        assert bytes(entry) == b"x" * 20
        assert not queue.wait_for_room(20, 0)
    with pytest.raises(ValueError, match="released"):
        bytes(entry)
    assert not queue.data_available()
    assert queue.statistics().lent == 0


def test_an_entry_whose_block_fails_is_still_next(queue: DataQueue) -> None:
    """Q23, for a look."""
    queue.enqueue(b"first")
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), queue.peek():
            raise ZeroDivisionError
    statistics = queue.statistics()
    assert (statistics.entries, statistics.lent, statistics.dequeued) == (1, 0, 0)
    assert queue.dequeue_many(timeout=0) == [b"first"]


def test_nothing_else_is_taken_while_an_entry_is_looked_at(queue: DataQueue) -> None:
    """Q21; it could be put back, and would be next."""
    queue.enqueue_many([b"first", b"second"])
    with queue.peek() as entry:
        for take in TAKERS.values():
            with pytest.raises(QueueMisuse, match="being looked at"):
                take(queue, 0)
        with pytest.raises(QueueMisuse, match="being looked at"):
            queue.detach_consumer()
        queue.enqueue(b"third")
        assert bytes(entry) == b"first"
    assert queue.dequeue_many() == [b"second", b"third"]


def test_a_look_and_a_room_are_for_one_block(queue: DataQueue) -> None:
    queue.enqueue_many([b"first", b"second"])
    for block in (queue.peek(), queue.reserve(1)):
        with block:
            pass
        with pytest.raises(QueueMisuse, match="this block is over"), block:
            pass
        with pytest.raises(QueueMisuse, match="this block is over"):
            block.__exit__(None, None, None)
    assert len(queue.dequeue_many()) == 2


MADE_OF_A_VIEW: dict[str, Callable[[memoryview], Any]] = {
    "a cast": lambda view: view.cast("I"),
    "a slice": lambda view: view[3:],
    "a view": memoryview,
    "a hold on the buffer": pickle.PickleBuffer,
    "several": lambda view: [view[:1], view.toreadonly()],
}


@pytest.mark.parametrize("make", MADE_OF_A_VIEW.values(), ids=MADE_OF_A_VIEW)
def test_what_is_made_of_a_view_keeps_its_room_until_it_is_gone(
    queue: DataQueue, make: Callable[[memoryview], Any]
) -> None:
    """Q21: the room is given back when the last of it is let go of, and not before."""
    queue.enqueue(b"abcd" * 5)
    with queue.peek() as entry:
        made = make(entry)
    assert queue.statistics().lent == 1
    assert queue.statistics().entries == 1
    with pytest.raises(QueueFull):
        queue.enqueue(bytes(20), 0)
    del made, entry
    assert queue.statistics().lent == 0
    queue.enqueue(bytes(12), 0)
    queue.enqueue(bytes(19), 0)


def test_a_copy_keeps_no_room(queue: DataQueue) -> None:
    queue.enqueue(b"abcd" * 5)
    with queue.peek() as entry:
        copies = bytes(entry), array.array("I", bytes(entry)), bytearray(entry)
    assert queue.statistics().lent == 0
    assert all(bytes(copy) == b"abcd" * 5 for copy in copies)


def test_entries_taken_in_place_give_their_room_back_in_order(queue: DataQueue) -> None:
    """Q21, Q22: the room of an entry is free when it and all before it are let go of."""
    queue.enqueue_many([b"a" * 6, b"b" * 6, b"c" * 6])
    first, second, third = queue.take_view(), queue.take_view(), queue.take_view()
    assert tuple(map(bytes, (first, second, third))) == (b"a" * 6, b"b" * 6, b"c" * 6)
    assert queue.statistics().lent == 3
    del second, third
    assert queue.memory.ring.head == 0
    del first
    assert queue.memory.ring.head == 30
    assert queue.statistics().lent == 0


def test_an_entry_can_be_let_go_of_by_a_cycle_that_is_collected(queue: DataQueue) -> None:
    queue.enqueue(b"x" * 20)
    cycle: list[Any] = [queue.take_view()]
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert queue.wait_for_room(8, 0)
    assert queue.statistics().lent == 0


def test_an_entry_is_written_in_place_and_nobody_sees_it_before(queue: DataQueue) -> None:
    """Q26."""
    with queue.reserve(5) as room:
        assert not room.readonly
        room[:] = b"entry"
        assert not queue.data_available()
        for add in ADDERS.values():
            with pytest.raises(QueueMisuse, match="being written in place"):
                add(queue, b"", 0)
    with pytest.raises(ValueError, match="released"):
        room[0] = 1
    assert queue.dequeue() == b"entry"


def test_a_room_that_is_abandoned_is_as_if_it_had_never_been(queue: DataQueue) -> None:
    """Q26."""
    with pytest.raises(ValueError, match="different"), queue.reserve(5) as room:
        room[:] = b"no such entry"
    assert not queue.data_available()
    assert queue.memory.ring.tail == 0
    queue.enqueue(b"other")
    assert queue.dequeue_many() == [b"other"]


# Ends


def test_a_queue_is_closed_by_its_block_and_says_so() -> None:
    with DataQueue(CAPACITY) as queue:
        assert (queue.closed, queue.is_producer, queue.is_consumer) == (False, True, True)
        assert repr(queue) == "<DataQueue of 40 bytes, producer and consumer>"
        assert queue.peer is None
    assert (queue.closed, queue.is_producer, queue.is_consumer) == (True, False, False)
    assert repr(queue) == "<DataQueue of 40 bytes, closed>"
    queue.close()


def test_a_closed_queue_refuses_everything() -> None:
    queue = DataQueue(CAPACITY)
    queue.close()
    uses: list[Callable[[], Any]] = [
        lambda: queue.enqueue(b""),
        lambda: queue.enqueue_many([]),
        lambda: queue.reserve(0).__enter__(),
        lambda: queue.wait_for_room(0),
        lambda: queue.notify_by(None),
        queue.dequeue,
        lambda: queue.dequeue_into(bytearray()),
        queue.dequeue_many,
        lambda: queue.peek().__enter__(),
        queue.wait,
        queue.data_available,
        lambda: next(queue),
        queue.take_view,
        queue.fileno,
        lambda: queue.room_fileno(1),
        queue.statistics,
        queue.detach_producer,
        queue.detach_consumer,
    ]
    for use in uses:
        with pytest.raises(QueueMisuse, match="was closed here"):
            use()


def test_a_queue_that_nobody_closed_is_warned_about() -> None:
    held = [DataQueue(CAPACITY)]
    with pytest.warns(ResourceWarning, match="unclosed <DataQueue of 40 bytes"):
        held.clear()


def test_a_queue_does_not_travel_as_it_is(queue: DataQueue) -> None:
    with pytest.raises(InvalidArgument, match="move_producer"):
        pickle.dumps(queue)


def test_a_view_outlives_its_queue_and_its_memory_stays_mapped() -> None:
    """T15: nobody who holds a view reads what is not there; the last view takes the memory along."""
    queue = DataQueue(CAPACITY)
    queue.enqueue(b"still here")
    inode = os.fstat(queue.memory.fileno()).st_ino
    view = queue.take_view()
    queue.close()
    assert mapped(inode)
    assert bytes(view) == b"still here"
    del view, queue
    gc.collect()
    assert not mapped(inode)


def test_a_queue_can_be_closed_in_the_middle_of_a_block(queue: DataQueue) -> None:
    """T15."""
    queue.enqueue(b"entry")
    looking, writing = queue.peek(), queue.reserve(3)
    entry, room = looking.__enter__(), writing.__enter__()
    queue.close()
    room[:] = b"xyz"
    assert bytes(entry) == b"entry"
    with pytest.raises(QueueMisuse, match="closed before the block ended, and the entry is lost"):
        writing.__exit__(None, None, None)
    looking.__exit__(None, None, None)
    for view in (entry, room):
        with pytest.raises(ValueError, match="released"):
            bytes(view)


def test_a_room_that_somebody_keeps_an_array_of_is_published_all_the_same(queue: DataQueue) -> None:
    with queue.reserve(8) as room:
        kept = memoryview(room).cast("I"), pickle.PickleBuffer(room)
        kept[0][0] = 7
    assert queue.dequeue()[:4] == struct.pack("=I", 7)
    del room, kept


# A peer that lies


@pytest.mark.parametrize(("head", "tail"), [(41, 0), (0, 41)])
@every_adder
def test_a_place_outside_the_ring_is_the_peers_mistake_for_a_producer(
    queue: DataQueue, add: Callable[[DataQueue, bytes, float | None], None], head: int, tail: int
) -> None:
    """Q39, Q41: Underrun; nothing is written."""
    move(queue, head, tail)
    with pytest.raises(CorruptQueue, match="outside the ring of 40 bytes"):
        add(queue, b"x", None)
    with pytest.raises(CorruptQueue, match="; 0 of 1 entries were added"):
        queue.enqueue_many([b"x"])


@every_taker
def test_an_entry_that_leads_outside_is_the_peers_mistake_for_a_consumer(
    queue: DataQueue, take: Callable[[DataQueue, float | None], bytes]
) -> None:
    """Q39, Q41: Error; head stays."""
    for head, tail, size in ((41, 0, 0), (0, 20, 2**32 - 1), (0, 20, 37)):
        move(queue, head, tail)
        os.pwrite(queue.memory.fileno(), struct.pack("=I", size), layout.MEMORY_HEADER_SIZE)
        with pytest.raises(CorruptQueue, match=f"the entry at {head}"):
            take(queue, None)
        assert queue.memory.ring.head == head


# Figures


def test_a_queue_can_be_asked_how_it_is(queue: DataQueue) -> None:
    assert queue.statistics() == (40, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    queue.enqueue(b"x" * 20)
    queue.enqueue(b"y" * 6)
    for _ in range(2):
        with pytest.raises(QueueFull):
            queue.enqueue(b"z" * 20, 0)
    queue.dequeue()
    statistics = queue.statistics()
    assert (statistics.capacity, statistics.used, statistics.peak, statistics.entries) == (40, 10, 34, 1)
    assert (statistics.enqueued, statistics.dequeued, statistics.refusals, statistics.wakeups) == (2, 1, 2, 0)
    queue.enqueue(b"wraps" * 3)
    assert queue.statistics().used == 40 - 24 + 19


@pytest.mark.parametrize(("head", "tail"), [(2**32 - 1, 0), (0, 2**32 - 1), (41, 41), (40, 0)])
def test_a_lying_peer_cannot_break_the_statistics(queue: DataQueue, head: int, tail: int) -> None:
    """Q39."""
    move(queue, head, tail)
    assert 0 <= queue.statistics().used <= 40


def test_the_fields_of_the_published_layout_are_those_of_any_other_queue(queue: DataQueue) -> None:
    """Section 1: queueSize 0, head 4, tail 8, ring 12; so a program that knows only that layout reads it."""
    queue.enqueue(b"abc")
    region = os.pread(queue.memory.fileno(), 12 + 7, 0)
    assert region == struct.pack("=IIII", CAPACITY, 0, 7, 3) + b"abc"


# Notification


def test_a_port_is_told_when_the_ring_was_empty_and_when_it_is_full(queue: DataQueue) -> None:
    """Q27, G4; and a producer that waits says once more that it is full."""
    told: list[int] = []

    def notify() -> bool:
        told.append(1)
        return True

    queue.notify_by(notify)
    queue.enqueue(b"x" * 20)
    queue.enqueue(b"y")
    assert len(told) == 1
    with pytest.raises(QueueFull):
        queue.enqueue(b"x" * 20, 0)
    assert len(told) == 2
    assert queue.statistics().wakeups == 2


def test_a_notification_that_is_pending_already_is_counted_and_no_error(queue: DataQueue) -> None:
    """Q29, Q38."""
    queue.notify_by(lambda: False)
    queue.enqueue(b"x")
    assert queue.statistics()[7:9] == (0, 1)
    queue.notify_by(None)
    assert queue.dequeue() == b"x"
    queue.enqueue(b"y")
    assert queue.statistics()[7:9] == (0, 2)


def test_who_gave_up_one_end_is_told_so_by_the_other(queue: DataQueue) -> None:
    producer = DataQueue.from_fd(queue.detach_producer())
    producer.enqueue(b"last")
    producer.close()
    assert list(map(bytes, queue)) == [b"last"]
    with pytest.raises(QueueEnded, match="the producer has closed its end") as refusal:
        queue.dequeue()
    assert type(refusal.value) is QueueEnded
    assert isinstance(refusal.value, EOFError)
    assert refusal.value.death is None


@pytest.mark.parametrize("take", TAKERS.values(), ids=TAKERS)
def test_whatever_takes_the_next_entry_ends_the_step_of_a_loop(
    queue: DataQueue, take: Callable[[DataQueue, float | None], bytes]
) -> None:
    """Q21: the last view of a loop that was left holds no room once the queue is asked for anything next."""
    queue.enqueue(b"first")
    queue.enqueue(b"second")
    step = next(queue)
    assert take(queue, 0) == b"second"
    with pytest.raises(ValueError, match="released"):
        bytes(step)
    assert queue.statistics().lent == 0
