"""Another object goes on with a ring: what is in the memory is there, and what is not comes along."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ring_forms import MAKERS, MakeRing, both_forms

from machport.abi.errors import QueueMisuse
from machport.ring import Ring, layout

CAPACITY = 64
NAMES = ("enqueued", "dequeued", "wakes", "refused", "refusal", "absence", "peak")


def counts(ring: Ring) -> list[int]:
    return [getattr(ring, name) for name in NAMES]


@given(
    form=st.sampled_from(sorted(MAKERS)),
    steps=st.lists(st.one_of(st.binary(max_size=40), st.none()), max_size=30),
    turn=st.integers(0, 30),
)
def test_a_ring_that_another_object_takes_over_answers_as_if_none_had(
    form: str, steps: list[bytes | None], turn: int
) -> None:
    """Whatever was done before, in both forms."""
    memories = [memoryview(bytearray(layout.MEMORY_HEADER_SIZE + CAPACITY)) for _ in range(2)]
    one, other = (MAKERS[form](memory, CAPACITY) for memory in memories)
    for index, step in enumerate(steps):
        if index == turn:
            state = other.state()
            other = MAKERS[form](memories[1], CAPACITY)
            other.resume(state)
        for ring in (one, other):
            ring.dequeue() if step is None else ring.enqueue(step)
        assert counts(one) == counts(other)
        assert one.unread() == other.unread()
    assert memories[0] == memories[1]


@both_forms
def test_a_ring_with_entries_lent_stays_where_their_views_are(make: MakeRing) -> None:
    ring = make(memoryview(bytearray(layout.MEMORY_HEADER_SIZE + CAPACITY)), CAPACITY)
    ring.enqueue(b"entry")
    view = ring.lend()
    with pytest.raises(QueueMisuse, match="let go of their views"):
        ring.state()
    del view
    assert ring.state()[:2] == [1, 1]


WRONG = (-3, 2**63, 1.0, "1", None, True)
GOOD = [3, 2, 1, 0, layout.FULL, layout.EMPTY, 12]


@both_forms
@pytest.mark.parametrize(
    "state",
    [
        None,
        7,
        "state",
        [],
        GOOD[:-1],
        [*GOOD, 0],
        *(
            [*GOOD[:index], wrong, *GOOD[index + 1 :]]
            for index in range(7)
            for wrong in (-3, 2**63, 1.0, "1", None, True)
        ),
        [*GOOD[:4], 3, *GOOD[5:]],
        [*GOOD[:5], 0, *GOOD[6:]],
    ],
)
def test_what_is_no_state_of_a_ring_changes_nothing(make: MakeRing, state: Any) -> None:
    ring = make(memoryview(bytearray(layout.MEMORY_HEADER_SIZE + CAPACITY)), CAPACITY)
    ring.resume(GOOD)
    with pytest.raises(QueueMisuse, match="not the state of a ring"):
        ring.resume(state)
    assert ring.state() == GOOD
