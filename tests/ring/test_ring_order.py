"""The order in which the ring touches shared memory, and how often.

Seen through the interpreted form, whose accesses can be recorded.  The compiled form is the same source; that its
accesses have the order of C11 is for ``test_ring_processes`` to try.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from ring_forms import MAKERS, Bench

from machport.ring import layout, memory

NAMES = {layout.HEAD: "head", layout.TAIL: "tail"}
ACCESSES = ("load_relaxed", "load_acquire", "store_release", "fence", "get_u32", "put_u32", "copy_in", "take")

Race = Callable[[], object]


class Trace:
    """Everything that touched the ring, in order; and something to happen when a certain access begins."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[str] = []
        self.races: dict[str, Race] = {}
        for name in ACCESSES:
            monkeypatch.setattr(memory, name, self.recorded(name, getattr(memory, name)))

    def recorded(self, name: str, access: Callable[..., Any]) -> Callable[..., Any]:
        def record(*args: Any) -> Any:
            where = f" {NAMES.get(args[1], args[1] - layout.RING)}" if args else ""
            self.log.append(name + where)
            if race := self.races.pop(name + where, None):
                length = len(self.log)
                race()
                del self.log[length:]
            return access(*args)

        return record

    def of(self, operation: Callable[[], object]) -> list[str]:
        self.log.clear()
        operation()
        return list(self.log)


@pytest.fixture
def trace(monkeypatch: pytest.MonkeyPatch) -> Trace:
    return Trace(monkeypatch)


@pytest.fixture
def bench() -> Bench:
    return Bench(MAKERS["interpreted"], 40)


READS_OF_THE_PRODUCER = ["load_relaxed tail", "load_acquire head"]
READS_OF_THE_CONSUMER = ["load_relaxed head", "load_acquire tail"]


def test_the_producer_writes_data_then_size_then_tail(trace: Trace, bench: Bench) -> None:
    """Q26, and section 3: release after the data.  Into an empty ring no fence is needed, for it wakes anyway."""
    assert trace.of(lambda: bench.ring.enqueue(b"x")) == [
        *READS_OF_THE_PRODUCER,
        "copy_in 4",
        "put_u32 0",
        "store_release tail",
    ]


def test_the_producer_looks_again_after_a_fence_if_the_ring_was_not_empty(trace: Trace, bench: Bench) -> None:
    """Q11 and section 3: the producer's half of the handshake."""
    bench.ring.enqueue(b"x")
    assert trace.of(lambda: bench.ring.enqueue(b"y"))[-3:] == [
        "store_release tail",
        "fence",
        "load_relaxed head",
    ]


def test_the_producer_writes_the_marker_before_it_publishes(trace: Trace, bench: Bench) -> None:
    """Q5 and Q26."""
    bench.stand_empty_at(30)
    assert trace.of(lambda: bench.ring.enqueue(b"x" * 20)) == [
        *READS_OF_THE_PRODUCER,
        "copy_in 4",
        "put_u32 0",
        "put_u32 30",
        "store_release tail",
    ]


def test_a_batch_publishes_once_after_all_its_data(trace: Trace, bench: Bench) -> None:
    bench.ring.enqueue(b"x")
    log = trace.of(lambda: bench.ring.enqueue_many([b"y", b"z"]))
    assert log == [
        *READS_OF_THE_PRODUCER,
        *("copy_in 9", "put_u32 5", "copy_in 14", "put_u32 10"),
        *("store_release tail", "fence", "load_relaxed head"),
    ]


def test_the_consumer_copies_before_it_gives_the_room_back(trace: Trace, bench: Bench) -> None:
    """Section 3; while entries remain there is no fence to pay."""
    bench.ring.enqueue_many([b"x", b"y"])
    assert trace.of(bench.ring.dequeue) == [
        *READS_OF_THE_CONSUMER,
        "get_u32 0",
        "take 4",
        "store_release head",
    ]


@pytest.mark.parametrize("operation", ["dequeue", "skip", "dequeue_many"])
def test_the_consumer_fences_when_it_has_emptied_the_ring(trace: Trace, bench: Bench, operation: str) -> None:
    """Q11 and Q25: the consumer's half of the handshake."""
    bench.ring.enqueue(b"x")
    assert trace.of(getattr(bench.ring, operation))[-2:] == ["store_release head", "fence"]


@pytest.mark.parametrize("operation", ["peek", "data_available"])
def test_looking_writes_nothing_and_fences_nothing(trace: Trace, bench: Bench, operation: str) -> None:
    """Q19 and Q20."""
    bench.ring.enqueue(b"x")
    log = trace.of(getattr(bench.ring, operation))
    assert not [access for access in log if access.startswith(("store", "put", "fence"))]


@pytest.mark.parametrize("start", range(41))
@pytest.mark.parametrize("operation", ["dequeue", "skip", "peek"])
def test_each_field_and_each_size_is_read_once(trace: Trace, bench: Bench, operation: str, start: int) -> None:
    """Q13 and Q42, wherever the entry lies; and Q8: no size is read where it would not be inside the ring."""
    bench.stand_empty_at(start)
    bench.ring.enqueue(b"x" * 10)
    log = trace.of(getattr(bench.ring, operation))
    reads = [access for access in log if access.startswith(("load", "get"))]
    assert len(reads) == len(set(reads))
    assert reads[:2] == READS_OF_THE_CONSUMER
    assert all(int(read.split()[1]) + 4 <= bench.capacity for read in reads[2:])


def test_a_consumer_that_empties_the_ring_before_the_fence_is_woken(trace: Trace, bench: Bench) -> None:
    """Q27, second half: after the fence head has caught up with the old tail.  The race of Q11, first outcome."""
    bench.ring.enqueue(b"x")
    consumer = MAKERS["interpreted"](bench.region, 40)
    taken: list[bytes | None] = []
    trace.races["copy_in 9"] = lambda: taken.extend([consumer.dequeue(), consumer.dequeue()])
    assert bench.ring.enqueue(b"y") == layout.WAKE
    assert taken == [b"x", None], "the consumer saw an empty ring and would sleep"


def test_a_consumer_that_has_seen_the_new_entry_is_not_woken(trace: Trace, bench: Bench) -> None:
    """Q11, second outcome: its next look at tail finds the entry; head has passed the old tail."""
    bench.ring.enqueue(b"x")
    consumer = MAKERS["interpreted"](bench.region, 40)
    taken: list[bytes] = []
    trace.races["fence"] = lambda: taken.extend(consumer.dequeue_many())
    assert bench.ring.enqueue(b"y") == layout.ADDED
    assert taken == [b"x", b"y"]


def test_a_consumer_that_has_not_finished_is_not_woken(trace: Trace, bench: Bench) -> None:
    """Q27: otherwise no message."""
    bench.ring.enqueue_many([b"x", b"y"])
    trace.races["fence"] = MAKERS["interpreted"](bench.region, 40).dequeue
    assert bench.ring.enqueue(b"z") == layout.ADDED


def test_a_size_that_changes_after_the_check_changes_nothing(trace: Trace, bench: Bench) -> None:
    """Q42: the size validated is the size copied."""
    bench.ring.enqueue(b"1234")
    trace.races["take 4"] = lambda: bench.put(layout.RING, 2**32 - 1)
    assert bench.ring.dequeue() == b"1234"
    assert bench.head == 8
