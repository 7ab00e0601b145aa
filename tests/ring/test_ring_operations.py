"""Each operation of the ring, rule by rule, in both forms."""

from __future__ import annotations

import array
import ctypes
from collections.abc import Callable
from typing import Any

import pytest
from ring_forms import U32, Bench, MakeRing, both_forms

from machport.abi.errors import QueueMisuse
from machport.ring import layout

ADDED, WAKE, FULL, BROKEN, TOO_LARGE = (
    layout.ADDED,
    layout.WAKE,
    layout.FULL,
    layout.BROKEN,
    layout.TOO_LARGE,
)
EMPTY, CORRUPT = layout.EMPTY, layout.CORRUPT

# What each way of consuming gives for the entry that is next.
CONSUMERS: dict[str, Callable[[Bench], bytes | None]] = {
    "dequeue": lambda bench: bench.ring.dequeue(),
    "dequeue_many": lambda bench: next(iter(bench.ring.dequeue_many(1)), None),
    "dequeue_into": lambda bench: into_buffer(bench),
    "peek and skip": lambda bench: peek_and_skip(bench),
}
every_consumer = pytest.mark.parametrize("consume", CONSUMERS.values(), ids=CONSUMERS.keys())


def into_buffer(bench: Bench) -> bytes | None:
    buffer = bytearray(bench.capacity)
    size = bench.ring.dequeue_into(buffer)
    return bytes(buffer[:size]) if size >= 0 else None


def peek_and_skip(bench: Bench) -> bytes | None:
    entry = bench.ring.peek()
    if entry is None:
        assert bench.ring.skip() == bench.ring.absence
        return None
    data = bytes(entry)
    assert bench.ring.skip() == len(data)
    return data


# Layout


@both_forms
def test_the_fields_stand_where_the_layout_says(make: MakeRing) -> None:
    """Section 1: queueSize 0, head 4, tail 8, ring 12; the size first, then the data, nothing between (Q2)."""
    bench = Bench(make, 32)
    bench.ring.enqueue(b"abc")
    bench.ring.enqueue(b"defgh")
    expected = U32.pack(32) + U32.pack(0) + U32.pack(16) + U32.pack(3) + b"abc" + U32.pack(5) + b"defgh"
    assert bench.bytes == expected.ljust(44, b"\0")


@both_forms
@pytest.mark.parametrize("size", range(6))
def test_entries_may_start_at_any_byte(make: MakeRing, size: int) -> None:
    """Q2: no padding, so the size is unaligned after an entry of odd length."""
    bench = Bench(make, 100)
    bench.ring.enqueue(b"x" * size)
    bench.ring.enqueue(b"next")
    assert bench.tail == 4 + size + 8
    assert bench.ring.dequeue_many() == [b"x" * size, b"next"]


@both_forms
@every_consumer
def test_the_consumer_clears_nothing(make: MakeRing, consume: Callable[[Bench], bytes | None]) -> None:
    """Q3."""
    bench = Bench(make, 32)
    bench.ring.enqueue(b"stays")
    before = bench.bytes[layout.RING :]
    assert consume(bench) == b"stays"
    assert bench.bytes[layout.RING :] == before


# The producer


@both_forms
@pytest.mark.parametrize(
    "data",
    [
        b"12345678",
        bytearray(b"12345678"),
        memoryview(b"12345678"),
        memoryview(b"1x2x3x4x5x6x7x8x")[::2],
        array.array("B", b"12345678"),
        array.array("I", [0x34333231, 0x38373635]),
        (ctypes.c_uint32 * 2)(0x34333231, 0x38373635),
    ],
    ids=lambda data: type(data).__name__,
)
def test_any_buffer_can_be_enqueued(make: MakeRing, data: bytes) -> None:
    bench = Bench(make, 64)
    bench.ring.enqueue(data)
    assert bench.ring.dequeue() == b"12345678"


@both_forms
def test_what_is_no_buffer_is_a_type_error_and_changes_nothing(make: MakeRing) -> None:
    bench = Bench(make, 64)
    before = bench.bytes
    not_a_buffer: Any = "text"
    with pytest.raises(TypeError):
        bench.ring.enqueue(not_a_buffer)
    assert bench.bytes == before


@both_forms
def test_a_wrapped_entry_leaves_a_marker_with_its_own_size(make: MakeRing) -> None:
    """Q5 and Q9: the real size at the old tail, where it cannot fit."""
    bench = Bench(make, 40)
    bench.stand_empty_at(30)
    assert bench.ring.enqueue(b"y" * 20) == WAKE
    assert (bench.get(layout.RING + 30), bench.get(layout.RING), bench.tail) == (20, 20, 24)
    assert 30 + 4 + bench.get(layout.RING + 30) > bench.capacity


@both_forms
@pytest.mark.parametrize("left", [0, 1, 2, 3])
def test_no_marker_is_written_where_it_would_not_fit(make: MakeRing, left: int) -> None:
    """Q5: fewer than four bytes remain."""
    bench = Bench(make, 40)
    bench.region[layout.RING + 40 - left :] = b"#" * left
    bench.stand_empty_at(40 - left)
    bench.ring.enqueue(b"y" * 20)
    assert bytes(bench.region[layout.RING + 40 - left :]) == b"#" * left
    bench.check_canaries()
    assert bench.ring.dequeue() == b"y" * 20


@both_forms
def test_a_marker_fits_in_exactly_four_bytes(make: MakeRing) -> None:
    """Q5: Q - tail == 4."""
    bench = Bench(make, 40)
    bench.stand_empty_at(36)
    bench.ring.enqueue(b"y" * 20)
    assert bench.get(layout.RING + 36) == 20
    bench.check_canaries()
    assert bench.ring.dequeue() == b"y" * 20


@both_forms
def test_an_entry_that_ends_exactly_at_the_end_needs_no_marker(make: MakeRing) -> None:
    """Q4: the new tail is Q itself, and the next entry wraps without a marker."""
    bench = Bench(make, 40)
    bench.stand_empty_at(30)
    bench.ring.enqueue(b"y" * 6)
    assert bench.tail == 40
    bench.ring.enqueue(b"z" * 20)
    assert bench.tail == 24
    bench.check_canaries()
    assert bench.ring.dequeue_many() == [b"y" * 6, b"z" * 20]


@both_forms
def test_a_full_ring_is_left_as_it_was(make: MakeRing) -> None:
    bench = Bench(make, 20)
    bench.ring.enqueue(b"0123456789")
    before = bench.bytes
    assert bench.ring.enqueue(b"0123456789") == FULL
    assert bench.ring.enqueue_blank(10) == FULL
    assert bench.ring.enqueue_many([b"0123456789"]) == (0, FULL)
    assert bench.ring.reserve(10) is None
    assert bench.ring.refusal == FULL
    assert bench.bytes == before
    assert bench.ring.refused == 4


@both_forms
@pytest.mark.parametrize(("head", "tail"), [(21, 0), (0, 21), (2**32 - 1, 0), (0, 2**32 - 1), (21, 21)])
def test_a_place_outside_the_ring_stops_the_producer(make: MakeRing, head: int, tail: int) -> None:
    """Q41 and the table of enqueue: Q < tail or Q < head."""
    bench = Bench(make, 20)
    bench.move(head, tail)
    before = bench.bytes
    assert bench.ring.enqueue(b"") == BROKEN
    assert bench.ring.enqueue_blank(0) == BROKEN
    assert bench.ring.enqueue_many([b""]) == (0, BROKEN)
    assert bench.ring.reserve(0) is None
    assert bench.ring.refusal == BROKEN
    assert bench.bytes == before


@both_forms
def test_a_size_that_no_header_can_hold_is_refused(make: MakeRing) -> None:
    """The table of enqueue: dataSize > 2^32 - 1 - 4."""
    bench = Bench(make, 20)
    assert bench.ring.enqueue_blank(layout.MAX_ENTRY_SIZE + 1) == TOO_LARGE
    assert bench.ring.enqueue_blank(layout.MAX_ENTRY_SIZE) == FULL
    assert bench.ring.reserve(layout.MAX_ENTRY_SIZE + 1) is None
    assert bench.ring.refusal == TOO_LARGE


@both_forms
def test_a_blank_entry_reserves_its_room_and_keeps_what_stood_there(make: MakeRing) -> None:
    """Q26: undefined content."""
    bench = Bench(make, 20)
    bench.region[layout.RING + 4 : layout.RING + 8] = b"past"
    assert bench.ring.enqueue_blank(4) == WAKE
    assert bench.ring.dequeue() == b"past"


@both_forms
def test_a_reserved_entry_is_invisible_until_it_is_committed(make: MakeRing) -> None:
    bench = Bench(make, 20)
    room = bench.ring.reserve(5)
    assert room is not None
    room[:] = b"later"
    assert bench.ring.peek() is None
    assert bench.ring.commit() == WAKE
    assert bench.ring.dequeue() == b"later"


@both_forms
def test_a_reservation_can_be_committed_once_and_not_after_another_enqueue(make: MakeRing) -> None:
    bench = Bench(make, 40)
    with pytest.raises(QueueMisuse):
        bench.ring.commit()
    bench.ring.reserve(5)
    bench.ring.commit()
    with pytest.raises(QueueMisuse):
        bench.ring.commit()
    bench.ring.reserve(5)
    bench.ring.enqueue(b"faster")
    before = bench.bytes
    with pytest.raises(QueueMisuse):
        bench.ring.commit()
    assert bench.bytes == before


@both_forms
def test_a_reservation_that_wraps_gets_its_marker_when_committed(make: MakeRing) -> None:
    """Q5 and Q26."""
    bench = Bench(make, 40)
    bench.stand_empty_at(30)
    room = bench.ring.reserve(20)
    assert room is not None
    room[:] = b"w" * 20
    assert bench.get(layout.RING + 30) == 0
    bench.ring.commit()
    assert bench.get(layout.RING + 30) == 20
    assert bench.ring.dequeue() == b"w" * 20


# Who is woken


@both_forms
def test_only_the_entry_that_ends_emptiness_wakes(make: MakeRing) -> None:
    """Q27: the ring was empty by the values first read."""
    bench = Bench(make, 100)
    assert [bench.ring.enqueue(b"x") for _ in range(3)] == [WAKE, ADDED, ADDED]
    bench.ring.dequeue()
    assert bench.ring.enqueue(b"x") == ADDED
    bench.ring.dequeue_many()
    assert bench.ring.enqueue(b"x") == WAKE
    assert bench.ring.wakes == 2


@both_forms
def test_an_entry_wakes_if_the_ring_was_emptied_meanwhile(make: MakeRing) -> None:
    """Q27: for an entry filled in place, "meanwhile" can be long.  The narrow race is in ``test_ring_order``."""
    bench = Bench(make, 100)
    bench.ring.enqueue(b"first")
    assert bench.ring.reserve(4) is not None
    assert bench.ring.dequeue() == b"first"
    assert bench.ring.commit() == WAKE


@both_forms
def test_a_batch_wakes_once(make: MakeRing) -> None:
    """Q27: the consumer never saw the tails inside the batch."""
    bench = Bench(make, 100)
    assert bench.ring.enqueue_many([b"a", b"b", b"c"]) == (3, WAKE)
    assert bench.ring.enqueue_many([b"d"]) == (1, ADDED)
    assert bench.ring.enqueue_many([]) == (0, ADDED)
    assert bench.ring.wakes == 1


@both_forms
def test_a_batch_that_does_not_fit_says_how_much_of_it_was_added(make: MakeRing) -> None:
    bench = Bench(make, 20)
    assert bench.ring.enqueue_many([b"123456", b"123456", b"7"]) == (2, WAKE | FULL)
    assert bench.ring.dequeue_many() == [b"123456", b"123456"]


@both_forms
def test_a_batch_wraps_and_marks_like_single_entries(make: MakeRing) -> None:
    """Q5 inside one batch."""
    entries = [b"a" * 7, b"b" * 9, b"c" * 12]
    together, single = Bench(make, 64), Bench(make, 64)
    for bench in (together, single):
        bench.stand_empty_at(40)
    assert together.ring.enqueue_many(entries) == (3, WAKE)
    for entry in entries:
        single.ring.enqueue(entry)
    assert together.bytes == single.bytes
    assert together.ring.dequeue_many() == entries


@both_forms
def test_a_batch_with_something_that_is_no_buffer_changes_nothing(make: MakeRing) -> None:
    bench = Bench(make, 64)
    before = bench.bytes
    not_a_buffer: Any = "text"
    with pytest.raises(TypeError):
        bench.ring.enqueue_many([b"good", not_a_buffer])
    assert bench.bytes == before


# The consumer


@both_forms
@every_consumer
@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 36])
def test_what_was_enqueued_comes_out(make: MakeRing, consume: Callable[[Bench], bytes | None], size: int) -> None:
    """Q24 for size 0; Q7 for the largest, which ends exactly at the end (peek and dequeue alike, T7)."""
    bench = Bench(make, 40)
    data = bytes(range(size))
    assert bench.ring.enqueue(data) == WAKE
    assert consume(bench) == data
    assert bench.head == bench.tail == size + 4
    assert consume(bench) is None
    assert bench.ring.absence == EMPTY


@both_forms
@every_consumer
@pytest.mark.parametrize("start", range(20, 41))
def test_an_entry_is_found_wherever_the_ring_stood(
    make: MakeRing, consume: Callable[[Bench], bytes | None], start: int
) -> None:
    """Q5 to Q9 at every distance from the end: exact fit, wrap with a marker, wrap without (T7)."""
    bench = Bench(make, 40)
    bench.stand_empty_at(start)
    data = b"wrapped or not"
    bench.ring.enqueue(data)
    assert consume(bench) == data
    assert bench.head == bench.tail
    bench.check_canaries()


@both_forms
def test_peek_moves_nothing_and_shows_the_entry_in_place(make: MakeRing) -> None:
    """Q20."""
    bench = Bench(make, 40)
    bench.ring.enqueue(b"in place")
    before = bench.bytes
    entry = bench.ring.peek()
    assert entry is not None
    assert bytes(entry) == b"in place"
    assert entry.readonly
    assert bench.bytes == before
    bench.region[layout.RING + 4 : layout.RING + 6] = b"IN"
    assert bytes(entry) == b"IN place"


@both_forms
def test_the_size_that_peek_gave_is_not_read_again(make: MakeRing) -> None:
    """Q21: the view keeps the size that was checked."""
    bench = Bench(make, 40)
    bench.ring.enqueue(b"1234")
    entry = bench.ring.peek()
    bench.put(layout.RING, 30)
    assert entry is not None
    assert entry.nbytes == 4


@both_forms
def test_a_buffer_too_small_leaves_the_entry_next(make: MakeRing) -> None:
    """Q23."""
    bench = Bench(make, 40)
    bench.ring.enqueue(b"123456")
    before = bench.bytes
    small = bytearray(b"-----")
    assert bench.ring.dequeue_into(small) == 6
    assert small == b"-----"
    assert bench.bytes == before
    exact = bytearray(6)
    assert bench.ring.dequeue_into(exact) == 6
    assert exact == b"123456"


@both_forms
def test_exactly_the_entry_is_copied(make: MakeRing) -> None:
    bench = Bench(make, 40)
    bench.ring.enqueue(b"123")
    buffer = bytearray(b"-----")
    assert bench.ring.dequeue_into(buffer) == 3
    assert buffer == b"123--"


@both_forms
def test_a_read_only_buffer_is_refused_and_nothing_is_taken(make: MakeRing) -> None:
    bench = Bench(make, 40)
    bench.ring.enqueue(b"123")
    before = bench.bytes
    with pytest.raises(BufferError):
        bench.ring.dequeue_into(memoryview(b"12345"))
    with pytest.raises(BufferError):
        bench.ring.dequeue_into(memoryview(bytearray(9))[::2])
    assert bench.bytes == before


@both_forms
def test_a_batch_takes_no_more_than_its_limit(make: MakeRing) -> None:
    bench = Bench(make, 100)
    bench.ring.enqueue_many([b"a", b"b", b"c"])
    assert bench.ring.dequeue_many(0) == []
    assert bench.ring.dequeue_many(2) == [b"a", b"b"]
    assert bench.ring.dequeue_many(2) == [b"c"]
    assert bench.ring.dequeued == 3


@both_forms
def test_a_batch_gives_what_precedes_a_corrupt_entry(make: MakeRing) -> None:
    bench = Bench(make, 40)
    bench.stand_empty_at(8)
    bench.ring.enqueue_many([b"good", b"bad"])
    for place in (16, 0):  # a size that does not fit reads as a wrap, so both places have to be spoilt (Q9)
        bench.put(layout.RING + place, 1000)
    assert bench.ring.dequeue_many() == [b"good"]
    assert (bench.ring.absence, bench.head) == (CORRUPT, 16)
    assert bench.ring.dequeue_many() == []
    assert (bench.ring.absence, bench.head) == (CORRUPT, 16)


@both_forms
def test_a_batch_never_goes_round_in_circles(make: MakeRing) -> None:
    """Q39: a tail that no entry ends at would keep a trusting reader busy for ever."""
    bench = Bench(make, 40)
    bench.ring.enqueue_many([b"1234", b"5678"])
    bench.put(layout.RING + 16, 1000)
    bench.move(0, 3)
    assert bench.ring.dequeue_many() == [b"1234", b"5678"] * 2 + [b"1234"]
    assert bench.ring.absence == CORRUPT


@both_forms
@every_consumer
@pytest.mark.parametrize("head", [41, 2**31, 2**32 - 1])
def test_a_head_outside_the_ring_is_corrupt(
    make: MakeRing, consume: Callable[[Bench], bytes | None], head: int
) -> None:
    """Q20 and the table of dequeue: head > Q."""
    bench = Bench(make, 40)
    bench.move(head, 0)
    before = bench.bytes
    assert consume(bench) is None
    assert bench.ring.absence == CORRUPT
    assert bench.bytes == before


@both_forms
@every_consumer
@pytest.mark.parametrize("size", [37, 2**31, 2**32 - 4, 2**32 - 1])
def test_a_wrapped_size_outside_the_ring_is_corrupt(
    make: MakeRing, consume: Callable[[Bench], bytes | None], size: int
) -> None:
    """Section 2, step 1: size + 4 <= Q; the sum is not allowed to wrap (Q10)."""
    bench = Bench(make, 40)
    bench.put(layout.RING, size)
    bench.move(38, 5)
    before = bench.bytes
    assert consume(bench) is None
    assert bench.ring.absence == CORRUPT
    assert bench.bytes == before


@both_forms
@pytest.mark.parametrize("capacity", [0, 1, 3])
def test_a_ring_without_room_for_a_size_is_corrupt_when_not_empty(make: MakeRing, capacity: int) -> None:
    bench = Bench(make, capacity)
    bench.move(0, capacity or 1)
    assert bench.ring.dequeue() is None
    assert bench.ring.absence == CORRUPT


@both_forms
def test_a_head_inside_an_entry_is_legal(make: MakeRing) -> None:
    """Q41: it yields whatever size stands there, if it fits."""
    bench = Bench(make, 40)
    bench.ring.enqueue(U32.pack(2) + b"hidden")
    bench.move(4, bench.tail)
    assert bench.ring.dequeue() == b"hi"


@both_forms
def test_data_is_available_when_head_and_tail_differ_whatever_they_are(make: MakeRing) -> None:
    """Q19: no validation."""
    bench = Bench(make, 40)
    assert not bench.ring.data_available()
    bench.move(3, 3)
    assert not bench.ring.data_available()
    bench.move(2**32 - 1, 7)
    assert bench.ring.data_available()
