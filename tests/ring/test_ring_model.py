"""Any sequence of honest operations does what the plain model says, in both forms at once."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from ring_forms import MAKERS, Bench
from ring_model import ModelRing

from machport.abi.errors import QueueMisuse
from machport.ring import layout

SMALL = st.binary(max_size=40)


@dataclass
class ModelLoan:
    """An entry that is lent: from where, up to where its room comes back, its content, and the views of both forms."""

    begin: int
    end: int
    data: bytes
    views: list[memoryview]
    over: bool = False
    fresh: bool = True


class BothFormsAndTheModel(RuleBasedStateMachine):
    """The compiled ring, the interpreted one and the model live the same life."""

    @initialize(capacity=st.integers(0, 120))
    def begin(self, capacity: int) -> None:
        self.model = ModelRing(capacity)
        self.loans: list[ModelLoan] = []
        self.benches = [Bench(make, capacity) for make in MAKERS.values()]

    def add(self, data: bytes) -> tuple[bool, bool]:
        """The producer knows only the head that was given back."""
        taken, self.model.head = self.model.head, self.given_back
        try:
            return self.model.enqueue(data)
        finally:
            self.model.head = taken

    @property
    def given_back(self) -> int:
        return self.loans[0].begin if self.loans else self.model.head

    def take(self) -> bytes | None:
        """Entries behind a loan come back with it."""
        data = self.model.dequeue()
        if data is not None and self.loans:
            self.loans[-1].end = self.model.head
            self.loans[-1].fresh = False
        return data

    @rule(data=SMALL)
    def enqueue(self, data: bytes) -> None:
        added, wake = self.add(data)
        answer = (layout.WAKE if wake else layout.ADDED) if added else layout.FULL
        for bench in self.benches:
            assert bench.ring.enqueue(data) == answer

    @rule(data=SMALL)
    def reserve_and_commit(self, data: bytes) -> None:
        added, wake = self.add(data)
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
            added, wake = self.add(data)
            if not added:
                answer |= layout.FULL
                break
            count += 1
            answer |= layout.WAKE if wake else layout.ADDED
        for bench in self.benches:
            assert bench.ring.enqueue_many(batch) == (count, answer)

    @rule()
    def dequeue(self) -> None:
        expected = self.take()
        for bench in self.benches:
            assert bench.ring.dequeue() == expected

    @rule(room=st.integers(0, 40))
    def dequeue_into(self, room: int) -> None:
        entry = self.model.peek()
        if entry is not None and len(entry) <= room:
            self.take()
        for bench in self.benches:
            buffer = bytearray(room)
            size = bench.ring.dequeue_into(buffer)
            assert size == (layout.EMPTY if entry is None else len(entry))
            if entry is not None and len(entry) <= room:
                assert buffer == entry.ljust(room, b"\0")

    @rule()
    def skip(self) -> None:
        entry = self.take()
        for bench in self.benches:
            assert bench.ring.skip() == (layout.EMPTY if entry is None else len(entry))

    @rule(limit=st.integers(0, 5))
    def dequeue_many(self, limit: int) -> None:
        expected = [data for data in (self.take() for _ in range(limit)) if data is not None]
        for bench in self.benches:
            assert bench.ring.dequeue_many(limit) == expected

    @rule()
    def lend(self) -> None:
        begin = self.model.head
        data = self.model.dequeue()
        views = [bench.ring.lend() for bench in self.benches]
        if data is None:
            assert views == [None, None]
            return
        loan = ModelLoan(begin, self.model.head, data, [view for view in views if view is not None])
        assert len(loan.views) == 2
        self.loans.append(loan)

    @precondition(lambda self: self.loans and self.loans[-1].fresh and not self.loans[-1].over)
    @rule()
    def put_back(self) -> None:
        loan = self.loans[-1]
        loan.fresh = False
        self.model.entries.appendleft((loan.end - 4 - len(loan.data), loan.data))
        self.model.head = loan.end = loan.begin
        for bench in self.benches:
            bench.ring.put_back()

    @precondition(lambda self: not (self.loans and self.loans[-1].fresh and not self.loans[-1].over))
    @rule()
    def put_nothing_back(self) -> None:
        for bench in self.benches:
            with pytest.raises(QueueMisuse):
                bench.ring.put_back()

    @precondition(lambda self: any(not loan.over for loan in self.loans))
    @rule(choice=st.integers(0, 1000))
    def let_go(self, choice: int) -> None:
        held = [loan for loan in self.loans if not loan.over]
        loan = held[choice % len(held)]
        loan.over = True
        loan.views.clear()
        while self.loans and self.loans[0].over:
            self.loans.pop(0)

    @invariant()
    def they_agree(self) -> None:
        for bench in self.benches:
            assert (bench.head, bench.tail) == (self.given_back, self.model.tail)
            assert bench.ring.lent == sum(not loan.over for loan in self.loans)
            assert all(view == loan.data for loan in self.loans for view in loan.views)
            assert bench.ring.data_available() == bool(self.model.entries)
            peeked = bench.ring.peek()
            assert (None if peeked is None else bytes(peeked)) == self.model.peek()
            bench.check_canaries()
        assert self.benches[0].bytes == self.benches[1].bytes


TestBothFormsAndTheModel = BothFormsAndTheModel.TestCase
TestBothFormsAndTheModel.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
