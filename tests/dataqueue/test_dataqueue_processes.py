"""Any sequence of operations of two real processes, one at each end, does what a plain list does."""

from __future__ import annotations

import ast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from queue_actors import Holder

from machport.abi.errors import PeerDied, QueueEmpty
from machport.dataqueue import DataQueue

CAPACITY = 120
#: With twice the largest entry and its size an entry fits whenever the ring is empty (Q7).
LARGEST = CAPACITY // 2 - 4
SMALL = st.binary(max_size=LARGEST)

#: The producer carries out one expression a line and says what came of it.
PRODUCER = """
def attempt(line):
    try:
        return eval(line)
    except QueueFull:
        return "full"
def written(data):
    with queue.reserve(len(data), 0) as room:
        room[:] = data
def abandoned(data):
    try:
        with queue.reserve(len(data), 0) as room:
            room[:] = data
            raise ZeroDivisionError
    except ZeroDivisionError:
        return "abandoned"
while line := hear():
    say(repr(attempt(line)))
"""


class TwoProcesses(RuleBasedStateMachine):
    """The producer is another process; the consumer is this one."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = DataQueue(CAPACITY)
        self.producer = Holder(self.queue.detach_producer(), PRODUCER)
        self.entries: list[bytes] = []
        self.held: list[tuple[memoryview, bytes]] = []
        assert self.ask("queue.is_producer") is True, "it has arrived"

    def ask(self, line: str) -> object:
        assert self.producer.process.stdin is not None
        self.producer.process.stdin.write(line.encode() + b"\n")
        self.producer.process.stdin.flush()
        return ast.literal_eval(self.producer.line())

    def added(self, data: bytes, outcome: object) -> None:
        assert outcome in (None, "full")
        if outcome is None:
            self.entries.append(data)
        else:
            assert self.entries or self.held, "an empty ring has room for any of these"

    @rule(data=SMALL)
    def enqueue(self, data: bytes) -> None:
        self.added(data, self.ask(f"queue.enqueue({data!r}, 0)"))

    @rule(data=SMALL)
    def write_in_place(self, data: bytes) -> None:
        self.added(data, self.ask(f"written({data!r})"))

    @rule(data=SMALL)
    def abandon(self, data: bytes) -> None:
        assert self.ask(f"abandoned({data!r})") in ("abandoned", "full")

    @rule(batch=st.lists(SMALL, max_size=5))
    def enqueue_many(self, batch: list[bytes]) -> None:
        count = self.ask(f"queue.enqueue_many({batch!r}, 0)")
        assert isinstance(count, int)
        self.entries += batch[:count]

    @rule()
    def dequeue(self) -> None:
        try:
            assert self.queue.dequeue(0) == self.entries.pop(0)
        except QueueEmpty:
            assert not self.entries

    @rule(limit=st.integers(1, 4))
    def dequeue_many(self, limit: int) -> None:
        try:
            taken = self.queue.dequeue_many(limit, 0)
        except QueueEmpty:
            taken = []
        assert taken == self.entries[:limit]
        del self.entries[:limit]

    @rule()
    def look(self) -> None:
        if self.entries:
            with self.queue.peek(0) as entry:
                assert bytes(entry) == self.entries.pop(0)

    @rule()
    def hold(self) -> None:
        if self.entries:
            self.held.append((self.queue.take_view(0), self.entries.pop(0)))

    @rule(data=st.data())
    def let_go(self, data: st.DataObject) -> None:
        if self.held:
            del self.held[data.draw(st.integers(0, len(self.held) - 1))]

    @invariant()
    def what_is_held_stays_as_it_was(self) -> None:
        assert all(bytes(view) == entry for view, entry in self.held)
        assert self.queue.data_available() == bool(self.entries)

    def teardown(self) -> None:
        self.held.clear()
        try:
            # Killed between two operations: everything that was published is there.
            self.producer.kill()
            while self.entries:
                assert self.queue.dequeue() == self.entries.pop(0)
            with pytest.raises(PeerDied) as end:
                self.queue.dequeue()
            assert end.value.death.pid == self.producer.pid
        finally:
            self.producer.__exit__(None, None, None)
            self.queue.close()


TestTwoProcesses = TwoProcesses.TestCase
TestTwoProcesses.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
