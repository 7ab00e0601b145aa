"""Any sequence of honest operations does what the plain model says, in both forms at once."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from ring_forms import MAKERS, Bench
from ring_model import ModelRing

from machport.ring import layout

SMALL = st.binary(max_size=40)


class BothFormsAndTheModel(RuleBasedStateMachine):
    """The compiled ring, the interpreted one and the model live the same life."""

    @initialize(capacity=st.integers(0, 120))
    def begin(self, capacity: int) -> None:
        self.model = ModelRing(capacity)
        self.benches = [Bench(make, capacity) for make in MAKERS.values()]

    @rule(data=SMALL)
    def enqueue(self, data: bytes) -> None:
        added, wake = self.model.enqueue(data)
        answer = (layout.WAKE if wake else layout.ADDED) if added else layout.FULL
        for bench in self.benches:
            assert bench.ring.enqueue(data) == answer

    @rule(data=SMALL)
    def reserve_and_commit(self, data: bytes) -> None:
        added, wake = self.model.enqueue(data)
        for bench in self.benches:
            room = bench.ring.reserve(len(data))
            assert (room is not None) == added
            if room is not None:
                room[:] = data
                assert bench.ring.commit() == (layout.WAKE if wake else layout.ADDED)

    @rule(batch=st.lists(SMALL, max_size=6))
    def enqueue_many(self, batch: list[bytes]) -> None:
        count, answer = 0, layout.ADDED
        for data in batch:
            added, wake = self.model.enqueue(data)
            if not added:
                answer |= layout.FULL
                break
            count += 1
            answer |= layout.WAKE if wake else layout.ADDED
        for bench in self.benches:
            assert bench.ring.enqueue_many(batch) == (count, answer)

    @rule()
    def dequeue(self) -> None:
        expected = self.model.dequeue()
        for bench in self.benches:
            assert bench.ring.dequeue() == expected

    @rule(room=st.integers(0, 40))
    def dequeue_into(self, room: int) -> None:
        entry = self.model.peek()
        if entry is not None and len(entry) <= room:
            self.model.dequeue()
        for bench in self.benches:
            buffer = bytearray(room)
            size = bench.ring.dequeue_into(buffer)
            assert size == (layout.EMPTY if entry is None else len(entry))
            if entry is not None and len(entry) <= room:
                assert buffer == entry.ljust(room, b"\0")

    @rule()
    def skip(self) -> None:
        entry = self.model.dequeue()
        for bench in self.benches:
            assert bench.ring.skip() == (layout.EMPTY if entry is None else len(entry))

    @rule(limit=st.integers(0, 5))
    def dequeue_many(self, limit: int) -> None:
        expected = [data for data in (self.model.dequeue() for _ in range(limit)) if data is not None]
        for bench in self.benches:
            assert bench.ring.dequeue_many(limit) == expected

    @invariant()
    def they_agree(self) -> None:
        for bench in self.benches:
            assert (bench.head, bench.tail) == (self.model.head, self.model.tail)
            assert bench.ring.data_available() == bool(self.model.entries)
            peeked = bench.ring.peek()
            assert (None if peeked is None else bytes(peeked)) == self.model.peek()
            bench.check_canaries()
        assert self.benches[0].bytes == self.benches[1].bytes


TestBothFormsAndTheModel = BothFormsAndTheModel.TestCase
TestBothFormsAndTheModel.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
