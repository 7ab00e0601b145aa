"""What the trap path alone uses of a ring: entries in parts, looking ahead, counting the unread, and the spread layout.

Both forms, and the plain model, live the same life.
"""

from __future__ import annotations

import itertools
import mmap
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from ring_forms import MAKERS, U32, Bench, MakeRing, Walled, both_forms, interpreted
from ring_model import ModelRing

from machport.ring import Ring, layout, map_shared

SPREAD_MAKERS: dict[str, MakeRing] = {
    "compiled": partial(Ring, spread=True),
    "interpreted": partial(interpreted.Ring, one_process=True, spread=True),
}
both_spread_forms = pytest.mark.parametrize("make", SPREAD_MAKERS.values(), ids=SPREAD_MAKERS.keys())


class SpreadBench(Walled):
    """As ``Bench``, with the sides' fields on cache lines of their own."""

    def __init__(self, make: MakeRing, capacity: int) -> None:
        super().__init__(layout.SPREAD_RING + capacity)
        self.ring = make(self.region, capacity)

    @property
    def fields(self) -> tuple[int, int]:
        head: int = U32.unpack_from(self.region, 0)[0]
        tail: int = U32.unpack_from(self.region, layout.SPREAD_TAIL)[0]
        return head, tail


PARTS = st.lists(st.binary(max_size=20), max_size=5)


def as_any_buffers(parts: Sequence[bytes]) -> list[Any]:
    """The same bytes as buffers of all sorts."""
    kinds: list[Callable[[bytes], Any]] = [bytes, bytearray, memoryview, lambda part: memoryview(bytearray(part))]
    return [kind(part) for kind, part in zip(itertools.cycle(kinds), parts, strict=False)]


class PartsAndWholes(RuleBasedStateMachine):
    """Rings of both layouts and both forms, written in parts, and the model, written whole."""

    @initialize(capacity=st.integers(0, 150))
    def begin(self, capacity: int) -> None:
        self.model = ModelRing(capacity)
        self.benches = [Bench(make, capacity) for make in MAKERS.values()]
        self.spread = [SpreadBench(make, capacity) for make in SPREAD_MAKERS.values()]

    @property
    def rings(self) -> list[Ring]:
        return [*(bench.ring for bench in self.benches), *(bench.ring for bench in self.spread)]

    @rule(parts=PARTS, whole=st.booleans(), buffers=st.booleans())
    def enqueue(self, parts: list[bytes], whole: bool, buffers: bool) -> None:
        added, wake = self.model.enqueue(b"".join(parts))
        answer = (layout.WAKE if wake else layout.ADDED) if added else layout.FULL
        for ring in self.rings:
            given = as_any_buffers(parts) if buffers else tuple(parts)
            assert (ring.enqueue(b"".join(parts)) if whole else ring.enqueue_parts(given)) == answer

    @rule()
    def dequeue(self) -> None:
        expected = self.model.dequeue()
        for ring in self.rings:
            assert ring.dequeue() == expected

    @rule()
    def skip(self) -> None:
        entry = self.model.dequeue()
        for ring in self.rings:
            assert ring.skip() == (layout.EMPTY if entry is None else len(entry))

    @rule(limit=st.integers(0, 3))
    def dequeue_many(self, limit: int) -> None:
        expected = [data for data in (self.model.dequeue() for _ in range(limit)) if data is not None]
        for ring in self.rings:
            assert ring.dequeue_many(limit) == expected

    @invariant()
    def looking_tells_what_is_there_and_moves_nothing(self) -> None:
        entry = self.model.peek()
        for ring in self.rings:
            assert ring.next_size() == (layout.EMPTY if entry is None else len(entry))
            assert ring.unread() == len(self.model.entries)
            assert ring.look(0) == ring.data_available() == bool(self.model.entries)
            assert (ring.head, ring.tail) == (self.model.head, self.model.tail)
            peeked = ring.peek()
            assert (None if peeked is None else bytes(peeked)) == entry

    @invariant()
    def bytes_are_the_same_in_every_form(self) -> None:
        assert self.benches[0].bytes == self.benches[1].bytes
        assert bytes(self.spread[0].region) == bytes(self.spread[1].region)
        capacity = self.model.capacity
        assert self.benches[0].bytes[layout.RING :] == bytes(self.spread[0].region[layout.SPREAD_RING :])
        for bench in self.spread:
            assert bench.fields == (self.model.head, self.model.tail)
            assert len(bench.region) == layout.SPREAD_RING + capacity
            bench.check_canaries()


TestPartsAndWholes = PartsAndWholes.TestCase
TestPartsAndWholes.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


@both_forms
@pytest.mark.parametrize("parts", [(), (b"",), (b"", b"", b"")])
def test_parts_without_bytes_are_an_empty_entry(make: MakeRing, parts: tuple[bytes, ...]) -> None:
    bench = Bench(make, 40)
    assert bench.ring.enqueue_parts(parts) == layout.WAKE
    assert bench.ring.next_size() == 0
    assert bench.ring.dequeue() == b""


@both_forms
@pytest.mark.parametrize("start", range(41))
def test_parts_lie_in_one_piece_wherever_the_ring_stands(make: MakeRing, start: int) -> None:
    """Q6: an entry never wraps in its middle, whatever it is joined of."""
    parts, whole = Bench(make, 40), Bench(make, 40)
    for bench in (parts, whole):
        bench.stand_empty_at(start)
    assert parts.ring.enqueue_parts([b"ab", memoryview(b"cdef"), bytearray(b"g")]) == whole.ring.enqueue(b"abcdefg")
    assert parts.bytes == whole.bytes
    parts.check_canaries()


@both_forms
def test_parts_that_do_not_fit_together_leave_the_ring_as_it_was(make: MakeRing) -> None:
    bench = Bench(make, 40)
    bench.ring.enqueue(b"first")
    before = bench.bytes
    assert bench.ring.enqueue_parts([bytes(20), bytes(20)]) == layout.FULL
    assert bench.ring.refusal == layout.FULL
    assert bench.bytes == before


@both_forms
@pytest.mark.parametrize(("head", "tail"), [(41, 0), (0, 41), (2**32 - 1, 2**32 - 1)])
def test_parts_are_not_written_by_indexes_outside_the_ring(make: MakeRing, head: int, tail: int) -> None:
    """Q39."""
    bench = Bench(make, 40)
    bench.move(head, tail)
    before = bench.bytes
    assert bench.ring.enqueue_parts([b"a", b"b"]) == layout.BROKEN
    assert bench.bytes == before
    bench.check_canaries()


@both_forms
def test_a_part_that_is_no_buffer_is_a_type_error_and_changes_nothing(make: MakeRing) -> None:
    bench = Bench(make, 40)
    before = bench.bytes
    with pytest.raises(TypeError):
        bench.ring.enqueue_parts([b"a", 5])  # type: ignore[list-item]
    assert bench.bytes == before


@both_forms
def test_a_part_that_is_not_contiguous_is_joined(make: MakeRing) -> None:
    bench = Bench(make, 40)
    bench.ring.enqueue_parts([b"<", memoryview(b"a-b-c-")[::2], b">"])
    assert bench.ring.dequeue() == b"<abc>"


@both_forms
@pytest.mark.parametrize("nanoseconds", [0, 1, 1000])
def test_looking_at_an_empty_ring_ends(make: MakeRing, nanoseconds: int) -> None:
    assert not Bench(make, 40).ring.look(nanoseconds)


@both_forms
@given(data=st.data(), capacity=st.integers(0, 64))
@settings(max_examples=200, deadline=None)
def test_counting_and_looking_ahead_in_nonsense_end_inside_the_ring(
    make: MakeRing, data: st.DataObject, capacity: int
) -> None:
    """Q40 and Q41: a consumer that writes nonsense deceives only itself; no more entries than the ring could hold."""
    bench = Bench(make, capacity)
    bench.region[layout.RING :] = data.draw(st.binary(min_size=capacity, max_size=capacity), "content")
    for _ in range(data.draw(st.integers(0, 3), "small sizes")):
        if capacity >= 4:
            offset = data.draw(st.integers(0, capacity - 4), "offset")
            bench.put(layout.RING + offset, data.draw(st.integers(0, 8), "size"))
    index = st.one_of(st.integers(0, capacity), st.integers(0, 2**32 - 1))
    bench.move(data.draw(index, "head"), data.draw(index, "tail"))
    before = bench.bytes
    assert 0 <= bench.ring.unread() <= capacity // layout.ENTRY_HEADER_SIZE
    size = bench.ring.next_size()
    assert size in (layout.EMPTY, layout.CORRUPT) or 0 <= size <= capacity - layout.ENTRY_HEADER_SIZE
    bench.ring.look(0)
    assert bench.bytes == before
    bench.check_canaries()


@both_spread_forms
def test_the_sides_of_a_spread_ring_write_to_cache_lines_of_their_own(make: MakeRing) -> None:
    bench = SpreadBench(make, 100)
    bench.ring.enqueue(b"12345678")
    assert bench.fields == (0, 12)
    assert bytes(bench.region[layout.SPREAD_RING : layout.SPREAD_RING + 12]) == U32.pack(8) + b"12345678"
    bench.ring.dequeue()
    assert bench.fields == (12, 12)
    others = set(range(layout.SPREAD_RING)) - set(range(4)) - set(range(layout.SPREAD_TAIL, layout.SPREAD_TAIL + 4))
    assert not any(bench.region[at] for at in others)


def test_mapped_memory_is_shared_and_takes_no_descriptor() -> None:
    """A daemon has one mapping for each thread of its clients."""
    memory = os.memfd_create("test")
    os.ftruncate(memory, mmap.PAGESIZE)
    before = len(os.listdir("/proc/self/fd"))
    one, two = map_shared(memory, mmap.PAGESIZE), map_shared(memory, mmap.PAGESIZE)
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(memory)
    one[:4] = b"seen"
    assert two[:4] == b"seen"
    assert len(one) == mmap.PAGESIZE
    two.close()
    assert one[:4] == b"seen"
    one.close()


def test_a_mapping_that_is_dropped_is_unmapped() -> None:
    memory = os.memfd_create("test-that-is-dropped")
    os.ftruncate(memory, mmap.PAGESIZE)
    mapping = map_shared(memory, mmap.PAGESIZE)
    os.close(memory)
    assert mapped("test-that-is-dropped") == 1
    del mapping
    assert mapped("test-that-is-dropped") == 0


def mapped(name: str) -> int:
    with open("/proc/self/maps") as maps:
        return sum(name in line for line in maps)


def test_what_cannot_be_mapped_is_the_systems_error() -> None:
    reading, writing = os.pipe()
    with pytest.raises(OSError):
        map_shared(reading, mmap.PAGESIZE)
    os.close(reading)
    os.close(writing)
