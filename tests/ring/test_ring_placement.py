"""Where an entry goes: pure arithmetic, every case small enough to be tried, and the large ones at their edges."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from ring_forms import interpreted
from ring_model import ModelRing

from machport.ring import layout
from machport.ring.queue import place

U32_MAX = 0xFFFFFFFF

Place = Callable[[int, int, int, int], int]
both_places = pytest.mark.parametrize("where", [place, interpreted.place], ids=["compiled", "interpreted"])


def small_rings() -> Iterator[tuple[int, int, int, int]]:
    for capacity in range(18):
        for head in range(capacity + 1):
            for tail in range(capacity + 1):
                for size in range(capacity + 3):
                    yield head, tail, size, capacity


@both_places
def test_every_small_ring_follows_the_table_of_cases(where: Place) -> None:
    """Section 2, cases A, B, C and full."""
    for head, tail, size, capacity in small_rings():
        expected = ModelRing(capacity, head, tail).where(size)
        assert where(head, tail, size, capacity) == (-1 if expected is None else expected)


@both_places
def test_an_entry_lies_in_one_piece_in_free_bytes_and_never_fills_the_ring(where: Place) -> None:
    """Q1, Q4 and Q6, as a property of every small ring."""
    for head, tail, size, capacity in small_rings():
        at = where(head, tail, size, capacity)
        if at < 0:
            continue
        end = at + layout.ENTRY_HEADER_SIZE + size
        used = range(head, tail) if tail >= head else [*range(head, capacity), *range(tail)]
        assert end <= capacity
        assert not set(range(at, end)) & set(used)
        assert end != head, "a full ring would look empty"


@both_places
def test_the_tail_may_reach_the_very_end_but_never_the_head_from_behind(where: Place) -> None:
    """Q4: A is not strict, B and C are."""
    assert where(0, 90, 6, 100) == 90
    assert where(0, 90, 7, 100) == -1
    assert where(11, 95, 6, 100) == 0
    assert where(10, 95, 6, 100) == -1
    assert where(31, 20, 6, 100) == 20
    assert where(30, 20, 6, 100) == -1


@both_places
def test_the_largest_entry_of_a_fresh_ring_is_four_less_than_its_capacity(where: Place) -> None:
    """Q7."""
    assert where(0, 0, 96, 100) == 0
    assert where(0, 0, 97, 100) == -1


@both_places
def test_an_empty_ring_refuses_what_fits_on_neither_side_of_its_middle(where: Place) -> None:
    """Q7: it is not rewound."""
    assert where(50, 50, 46, 100) == 50
    assert where(50, 50, 47, 100) == -1
    assert where(52, 52, 47, 100) == 0


@both_places
def test_twice_the_largest_entry_is_always_enough_for_an_empty_ring(where: Place) -> None:
    """Q7, last sentence."""
    for size in range(12):
        capacity = 2 * (size + layout.ENTRY_HEADER_SIZE)
        for middle in range(capacity + 1):
            assert where(middle, middle, size, capacity) >= 0


@both_places
@pytest.mark.parametrize("capacity", [U32_MAX, U32_MAX - 12, U32_MAX - 40])
def test_nothing_wraps_near_two_to_the_thirty_two(where: Place, capacity: int) -> None:
    """Q10: a sum that would overflow means "does not fit"."""
    assert where(0, 0, capacity - 4, capacity) == 0
    assert where(0, 0, capacity - 3, capacity) == -1
    assert where(5, capacity, 0, capacity) == 0
    assert where(4, capacity, 0, capacity) == -1
    assert where(0, capacity, layout.MAX_ENTRY_SIZE, capacity) == -1
    assert where(capacity, capacity - 5, 0, capacity) == capacity - 5
    assert where(capacity, capacity - 4, 0, capacity) == -1
    assert where(0, capacity - 10, 6, capacity) == capacity - 10
    assert where(0, capacity - 10, U32_MAX - 10, capacity) == -1


@both_places
@pytest.mark.parametrize("capacity", [0, 1, 3])
def test_a_ring_smaller_than_an_entry_header_takes_nothing(where: Place, capacity: int) -> None:
    for end in range(capacity + 1):
        assert where(end, end, 0, capacity) == -1
