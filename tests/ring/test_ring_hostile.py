"""Whatever stands in shared memory, an operation touches only the mapped ring and returns.

The other side is random bytes; the ring stands between canaries.  Both forms get the same bytes and must agree.
``test_ring_processes`` does the same with guard pages and a peer that writes *during* the operations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from ring_forms import MAKERS, Bench

from machport.ring import Ring, layout

U32_MAX = 2**32 - 1
CAPACITIES = st.integers(0, 64)


def fields(capacity: int) -> st.SearchStrategy[int]:
    """Offsets and sizes: plausible ones, those near an edge, and any."""
    edges = [0, 1, 3, 4, 5, capacity - 4, capacity - 3, capacity - 1, capacity, capacity + 1, 2**31, U32_MAX - 4]
    near = st.sampled_from([edge for edge in edges if edge >= 0])
    return st.one_of(st.integers(0, capacity), near, st.integers(0, U32_MAX))


def copied(entry: memoryview | None) -> bytes | None:
    return None if entry is None else bytes(entry)


def into(ring: Ring, room: int) -> tuple[int, bytes]:
    buffer = bytearray(room)
    return ring.dequeue_into(buffer), bytes(buffer)


def reserve_and_commit(ring: Ring, size: int) -> int:
    room = ring.reserve(size)
    if room is None:
        return ring.refusal
    room[:] = b"r" * size
    return ring.commit()


PRODUCE: list[Callable[[Ring, int], Any]] = [
    lambda ring, size: ring.enqueue(b"p" * size),
    lambda ring, size: ring.enqueue_blank(size * 2**25),
    lambda ring, size: ring.enqueue_many([b"m" * size] * 3),
    reserve_and_commit,
]
CONSUME: list[Callable[[Ring, int], Any]] = [
    lambda ring, size: ring.dequeue(),
    into,
    lambda ring, size: ring.skip(),
    lambda ring, size: copied(ring.peek()),
    lambda ring, size: ring.dequeue_many(),
    lambda ring, size: ring.data_available(),
]


@given(data=st.data(), capacity=CAPACITIES)
@settings(max_examples=400, deadline=None)
def test_no_garbage_leads_an_operation_out_of_the_ring(data: st.DataObject, capacity: int) -> None:
    """Q39 to Q42."""
    benches = [Bench(make, capacity) for make in MAKERS.values()]
    content = data.draw(st.binary(min_size=capacity, max_size=capacity), "content of the ring")
    head, tail, shared_size = (data.draw(fields(capacity), name) for name in ("head", "tail", "queueSize"))
    sizes = data.draw(st.dictionaries(st.integers(0, max(capacity - 4, 0)), fields(capacity), max_size=4), "sizes")
    for bench in benches:
        bench.region[layout.RING :] = content
        for offset, size in sizes.items():
            if offset + 4 <= capacity:
                bench.put(layout.RING + offset, size)
        bench.move(head, tail)
        bench.put(layout.QUEUE_SIZE, shared_size)
    for _ in range(data.draw(st.integers(1, 4), "operations")):
        operation = data.draw(st.sampled_from(PRODUCE + CONSUME), "operation")
        size = data.draw(st.integers(0, 80), "size")
        before = benches[0].bytes
        results = [operation(bench.ring, size) for bench in benches]
        assert results[0] == results[1]
        assert benches[0].bytes == benches[1].bytes
        for bench in benches:
            bench.check_canaries()
        if operation in CONSUME:
            assert benches[0].bytes[layout.TAIL :] == before[layout.TAIL :], "a consumer writes only head"
        else:
            assert benches[0].bytes[: layout.TAIL] == before[: layout.TAIL], "a producer never writes head"


@given(data=st.data(), capacity=CAPACITIES)
@settings(max_examples=200, deadline=None)
def test_what_a_hostile_producer_makes_readable_lies_inside_the_ring(data: st.DataObject, capacity: int) -> None:
    """Q40: garbage, skipped or repeated entries, but no byte from outside."""
    bench = Bench(MAKERS["compiled"], capacity)
    bench.region[layout.RING :] = b"i" * capacity
    for offset in data.draw(st.lists(st.integers(0, max(capacity - 4, 0)), max_size=3), "places of sizes"):
        if offset + 4 <= capacity:
            bench.put(layout.RING + offset, data.draw(fields(capacity), "size"))
    bench.move(data.draw(fields(capacity), "head"), data.draw(fields(capacity), "tail"))
    entry = bench.ring.peek()
    assert entry is None or bytes(entry) in bench.bytes[layout.RING :]
