"""An entry that is lent keeps its room until nobody looks at it, in both forms."""

from __future__ import annotations

import gc
import os
import pickle
import threading
from typing import Any

import pytest
from ring_forms import Bench, MakeRing, both_forms

from machport.abi.errors import QueueMisuse
from machport.dataqueue import DataQueue
from machport.ring import layout


def filled(make: MakeRing, *entries: bytes, capacity: int = 40) -> Bench:
    bench = Bench(make, capacity)
    assert bench.ring.enqueue_many(entries)[0] == len(entries)
    return bench


def lent(bench: Bench) -> memoryview:
    view: memoryview | None = bench.ring.lend()
    assert view is not None
    return view


@both_forms
def test_what_is_lent_is_taken_and_its_room_is_not_given_back(make: MakeRing) -> None:
    """Q21, Q22: head stays before the oldest entry that is lent."""
    bench = filled(make, b"first", b"second")
    view = lent(bench)
    assert view.readonly
    assert bytes(view) == b"first"
    assert (bench.head, bench.ring.lent, bench.ring.dequeued) == (0, 1, 1)
    assert bench.ring.dequeue() == b"second"
    assert bench.head == 0
    assert not bench.ring.data_available()
    view.release()
    del view
    assert (bench.head, bench.ring.lent) == (bench.tail, 0)


@both_forms
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0), (0, 2, 1), (2, 0, 1)])
def test_rooms_are_given_back_in_order_in_whichever_order_they_are_let_go_of(
    make: MakeRing, order: tuple[int, ...]
) -> None:
    """Q13: head only ever moves to behind entries that nobody looks at."""
    bench = filled(make, b"a", b"bb", b"ccc")
    ends = (5, 11, 18)
    views: list[memoryview | None] = [lent(bench) for _ in range(3)]
    gone: set[int] = set()
    for index in order:
        views[index] = None
        gone.add(index)
        first = next((i for i in range(3) if i not in gone), 3)
        assert bench.head == (0, *ends)[first]
        assert bench.ring.lent == 3 - len(gone)


@both_forms
def test_an_empty_entry_can_be_lent(make: MakeRing) -> None:
    """Q24."""
    bench = filled(make, b"")
    view = lent(bench)
    assert len(view) == 0
    assert bench.head == 0
    del view
    assert bench.head == 4


@both_forms
def test_an_entry_that_wrapped_can_be_lent(make: MakeRing) -> None:
    """Q5, Q6: the bytes that the producer left unused come back with it."""
    bench = filled(make, bytes(26))
    bench.ring.skip()
    bench.ring.enqueue(b"x" * 12)
    view = lent(bench)
    assert bytes(view) == b"x" * 12
    assert bench.head == 30
    del view
    assert bench.head == bench.tail == 16


@both_forms
def test_nothing_is_lent_of_an_empty_or_broken_ring(make: MakeRing) -> None:
    """Q39."""
    bench = Bench(make, 40)
    assert bench.ring.lend() is None
    assert bench.ring.absence == layout.EMPTY
    bench.move(41, 0)
    assert bench.ring.lend() is None
    assert bench.ring.absence == layout.CORRUPT
    assert bench.ring.lent == 0


@both_forms
def test_an_entry_that_is_put_back_is_next_again(make: MakeRing) -> None:
    """Q23; also behind others that are lent, and while somebody still looks at it."""
    bench = filled(make, b"a", b"b", b"c")
    first = lent(bench)
    for _ in range(3):
        second = lent(bench)
        bench.ring.put_back()
        assert bytes(second) == b"b"
        assert bench.ring.dequeued == 1
        assert bench.ring.data_available()
    assert bench.ring.dequeue() == b"b"
    del first
    assert bench.head == 5
    del second
    assert bench.head == 10
    assert bench.ring.dequeue() == b"c"


@both_forms
def test_an_entry_that_was_put_back_does_not_give_room_back(make: MakeRing) -> None:
    """Q21: whoever takes it next does."""
    bench = filled(make, b"a")
    view = lent(bench)
    bench.ring.put_back()
    again = lent(bench)
    del view
    assert bench.head == 0
    del again
    assert bench.head == 5


@both_forms
def test_only_what_is_lent_and_next_to_the_next_can_be_put_back(make: MakeRing) -> None:
    bench = filled(make, b"a", b"b", b"c")
    with pytest.raises(QueueMisuse, match="no entry is lent"):
        bench.ring.put_back()
    view = lent(bench)
    bench.ring.put_back()
    with pytest.raises(QueueMisuse, match="no entry is lent"):
        bench.ring.put_back()
    assert bench.ring.dequeued == 0
    del view
    first = lent(bench)
    assert bench.ring.dequeue() == b"b"
    with pytest.raises(QueueMisuse, match="no entry is lent"):
        bench.ring.put_back()
    second = lent(bench)
    del second
    with pytest.raises(QueueMisuse, match="no entry is lent"):
        bench.ring.put_back()
    assert bench.ring.dequeued == 3
    del first
    assert bench.head == bench.tail


@both_forms
def test_whatever_is_made_of_a_view_keeps_the_room(make: MakeRing) -> None:
    """Q21."""
    bench = filled(make, b"abcdefgh")
    made: list[Any] = [lent(bench)]
    for make_another in (lambda v: v.cast("I"), lambda v: v[2:3], memoryview, pickle.PickleBuffer):
        made.append(make_another(made[0]))
    while made:
        assert (bench.head, bench.ring.lent) == (0, 1)
        made.pop(0)
    assert (bench.head, bench.ring.lent) == (12, 0)


@both_forms
def test_a_view_outlives_everything_else(make: MakeRing) -> None:
    """T15: it keeps the memory."""
    bench = filled(make, b"still here")
    view = lent(bench)
    del bench
    gc.collect()
    assert bytes(view) == b"still here"


@both_forms
def test_the_producer_is_told_when_room_came_back_and_only_then(make: MakeRing) -> None:
    bench = filled(make, b"a", b"b")
    told: list[int] = []
    bench.ring.when_room = lambda: told.append(bench.head)
    first, second = lent(bench), lent(bench)
    del second
    assert told == []
    del first
    assert told == [10]


@both_forms
def test_a_view_can_be_let_go_of_in_any_thread(make: MakeRing) -> None:
    bench = filled(make, b"a")
    held = [lent(bench)]
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    assert bench.head == 5


@both_forms
def test_loans_that_are_forget_loansed_give_nothing_back(make: MakeRing) -> None:
    """T1: they are the parent's of a forked child."""
    bench = filled(make, b"a", b"b")
    first, second = lent(bench), lent(bench)
    bench.ring.forget_loans()
    del second, first
    assert (bench.head, bench.ring.lent) == (0, 0)


def test_a_forked_child_gives_no_room_back() -> None:
    """T1: in memory that both see, the parent's loan stays."""
    with DataQueue(40) as queue:
        queue.enqueue(b"entry")
        held = [queue.take_view()]
        child = os.fork()
        if child == 0:
            held.clear()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert queue.memory.ring.head == 0
        held.clear()
        assert queue.memory.ring.head == 9


@both_forms
@pytest.mark.parametrize("size", [0, 1, 35, 36, 37, 2**32 - 5, 2**32 - 4])
def test_what_fits_is_what_would_be_added(make: MakeRing, size: int) -> None:
    """Q4, Q7, Q10."""
    bench = Bench(make, 40)
    answer = layout.ADDED if size <= 36 else layout.FULL if size <= layout.MAX_ENTRY_SIZE else layout.TOO_LARGE
    # An empty ring that has no room never will.
    assert bench.ring.fits(size) == (layout.STUCK if answer == layout.FULL else answer)
    assert bench.ring.look_for_room(size, 1000)
    before = bench.bytes
    if answer:
        assert bench.ring.enqueue_blank(size) == answer
        assert bench.bytes == before
    assert bench.ring.refused == bool(answer)


@both_forms
def test_nothing_fits_into_a_broken_ring(make: MakeRing) -> None:
    """Q39."""
    bench = Bench(make, 40)
    bench.move(0, 41)
    assert bench.ring.fits(0) == layout.BROKEN
    assert bench.ring.look_for_room(0, 1000)


@both_forms
def test_the_peak_is_the_most_that_was_used_the_unused_end_included(make: MakeRing) -> None:
    """Q6."""
    bench = filled(make, bytes(20))
    assert bench.ring.peak == 24
    bench.ring.skip()
    bench.ring.enqueue(bytes(18))
    assert bench.ring.peak == 40 - 24 + 22
    bench.ring.skip()
    assert bench.ring.peak == 38
