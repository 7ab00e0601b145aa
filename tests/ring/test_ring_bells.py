"""Two bells, three ways to sleep, and loans that keep the head behind: in no order of steps do both sleep for ever.

Tried in every order that two processors with store buffers can run it in (``sleep_model``).  What the source does in
these steps is seen in ``test_ring_doorbell``, and raced for real by ``python -m chaos queue_drain``.
"""

from __future__ import annotations

from typing import Any

import pytest
from sleep_model import WAYS, Fault, Machine, consumer, producer

every_way = pytest.mark.parametrize("way", WAYS)
#: Entries, how many the ring has room for, and how many the consumer keeps.
SIZES = [(1, 1, 0), (2, 1, 0), (3, 1, 0), (3, 2, 0), (3, 2, 1), (4, 3, 1), (3, 1, 1), (3, 2, 2), (4, 2, 2)]


@every_way
@pytest.mark.parametrize(("entries", "room", "keep"), SIZES)
def test_in_no_order_of_steps_do_both_sides_sleep_for_ever(way: str, entries: int, room: int, keep: int) -> None:
    """Q11, Q27, Q34, T8: with an entry to take the consumer is awake or will be, and so is the producer with room."""
    machine = Machine(producer(entries, room, way), consumer(entries, keep, way))
    machine.explore()
    assert machine.sleeps or entries == 1, "the orders include those in which somebody sleeps"


WEAKER: dict[str, tuple[str, tuple[int, int, int], dict[str, Any], dict[str, Any]]] = {
    "the producer looks at the bell before its tail is seen": ("bell", (2, 2, 0), {"fence": False}, {}),
    "the same before it sends a packet": ("socket", (2, 2, 0), {"fence": False}, {}),
    "the consumer arms by a store": ("bell", (2, 2, 0), {}, {"fence": False}),
    "the consumer arms by a store, at a socket": ("socket", (2, 2, 0), {}, {"fence": False}),
    "the consumer does not look again": ("bell", (2, 2, 0), {}, {"second_look": False}),
    "the same at a socket": ("socket", (2, 2, 0), {}, {"second_look": False}),
    "the producer arms by a store": ("bell", (2, 1, 0), {"arm": False}, {}),
    "the producer does not look again": ("bell", (2, 1, 0), {"second_look": False}, {}),
    "the consumer looks at the bell before its head is seen": ("bell", (2, 1, 0), {}, {"room_fence": False}),
    "the producer does not tell that it waits": ("bell", (3, 1, 1), {"tell": False}, {}),
    "the same, to a consumer at a socket": ("socket", (3, 1, 1), {"tell": False}, {}),
    "no message for a ring that was empty": ("port", (2, 2, 0), {"rule_27": False}, {}),
    "views are kept, and no message was asked for": ("port", (3, 2, 1), {}, {"ask": False}),
    "views are kept, and it asks by a store": ("port", (3, 2, 1), {}, {"fence": False}),
    "no fence behind the last entry given back": (
        "port",
        (3, 2, 0),
        {},
        {"empty_fence": False, "room_fence": False},
    ),
}


@pytest.mark.parametrize(("way", "sizes", "down", "up"), WEAKER.values(), ids=WEAKER.keys())
def test_without_any_one_of_its_steps_a_wake_up_is_lost(
    way: str, sizes: tuple[int, int, int], down: dict[str, Any], up: dict[str, Any]
) -> None:
    """That the test above says something: the search finds the order in which both sleep."""
    entries, room, keep = sizes
    with pytest.raises(Fault, match="asleep for ever"):
        Machine(producer(entries, room, way, **down), consumer(entries, keep, way, **up)).explore()
