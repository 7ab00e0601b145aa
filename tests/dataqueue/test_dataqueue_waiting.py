"""Whoever waits is woken, a descriptor tells what an operation would find, and an end is for one thread."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from actors import PATIENCE
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from queue_actors import Holder, Waiter, bell, is_readable, until, until_asleep

from machport.abi.errors import QueueEmpty, QueueEnded, QueueFull, QueueMisuse, TimedOut
from machport.dataqueue import DataQueue, extension

CAPACITY = 100
LARGEST = CAPACITY - 4
#: Always fits into an empty ring.
HALF = CAPACITY // 2 - 4
PRODUCER, CONSUMER = extension.PRODUCER, extension.CONSUMER


@pytest.fixture
def queue() -> Iterator[DataQueue]:
    with DataQueue(CAPACITY) as queue:
        yield queue


@pytest.fixture
def split() -> Iterator[tuple[DataQueue, DataQueue]]:
    """Producer and consumer as two objects, each of which takes the other's holder for a process."""
    with DataQueue(CAPACITY) as consumer, DataQueue.from_fd(consumer.detach_producer()) as producer:
        yield producer, consumer


@pytest.fixture(params=["0", "80"], ids=["asleep at once", "looks first"])
def spin(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MACHPORT_SPIN_US", request.param)


# Threads


@pytest.mark.parametrize("expose", [False, True], ids=["bell", "socket"])
def test_a_consumer_that_waits_is_woken_by_an_entry(spin: None, expose: bool) -> None:
    """Q11, Q25, Q27."""
    with DataQueue(CAPACITY) as queue:
        if expose:
            queue.fileno()
        for turn in range(10):
            waiter = Waiter(queue.dequeue)
            until_asleep(queue, CONSUMER)
            queue.enqueue(bytes([turn]))
            assert waiter.finish() == bytes([turn])


@pytest.mark.parametrize("expose", [False, True], ids=["bell", "socket"])
def test_a_producer_that_waits_is_woken_by_room(spin: None, expose: bool) -> None:
    """Section 2: in whichever way the room comes back, and only when it is enough."""
    ways: list[Callable[[DataQueue], object]] = [
        lambda queue: queue.dequeue(),
        lambda queue: queue.dequeue_into(bytearray(LARGEST)),
        lambda queue: queue.dequeue_many(),
        lambda queue: len(queue.take_view()),
    ]
    for way in ways:
        with DataQueue(CAPACITY) as queue:
            if expose:
                queue.room_fileno(HALF)
            queue.enqueue(bytes(LARGEST))
            waiter = Waiter(partial(queue.enqueue, b"x" * HALF))
            until_asleep(queue, PRODUCER)
            way(queue)
            waiter.finish()
            assert queue.dequeue() == b"x" * HALF


def test_room_that_is_not_enough_wakes_nobody_for_good(spin: None, queue: DataQueue) -> None:
    queue.enqueue_many([bytes(20)] * 4)
    waiter = Waiter(lambda: queue.enqueue(b"x" * 60))
    for _ in range(3):
        until_asleep(queue, PRODUCER)
        queue.dequeue()
    waiter.finish()
    assert queue.dequeue_many() == [bytes(20), b"x" * 60]


def test_many_entries_are_added_as_room_comes_back(spin: None, queue: DataQueue) -> None:
    entries = [bytes([number]) * 30 for number in range(20)]
    waiter = Waiter(lambda: queue.enqueue_many(entries))
    assert [queue.dequeue(PATIENCE) for _ in entries] == entries
    assert waiter.finish() == 20


def test_a_ring_that_becomes_empty_at_a_bad_place_ends_the_wait_of_its_producer(queue: DataQueue) -> None:
    """Q7: nothing will ever make room, so it is not waited for."""
    queue.enqueue(bytes(46))
    waiter = Waiter(lambda: queue.enqueue(bytes(60)))
    until_asleep(queue, PRODUCER)
    queue.dequeue()
    with pytest.raises(QueueMisuse, match="now or later") as refusal:
        waiter.finish()
    assert refusal.value.rule == "Q7"


def test_time_that_is_over_leaves_everything_as_it_was(spin: None, queue: DataQueue) -> None:
    for _ in range(3):
        with pytest.raises(TimedOut):
            queue.dequeue(0.001)
        assert not queue.wait(0.001)
        assert bell(queue, CONSUMER) == 0
    queue.enqueue(bytes(LARGEST))
    for _ in range(3):
        with pytest.raises(TimedOut):
            queue.enqueue(b"x", 0.001)
        assert queue.enqueue_many([b"x"], 0.001) == 0
        assert not queue.wait_for_room(1, 0.001)
        assert bell(queue, PRODUCER) == 0
    assert queue.dequeue_many() == [bytes(LARGEST)]


@pytest.mark.parametrize("expose", [False, True], ids=["bell", "socket"])
@pytest.mark.parametrize("timeout", [3e6, 1e8, 1e12, float("inf")])
def test_a_very_long_time_is_a_time_like_any_other(queue: DataQueue, timeout: float, expose: bool) -> None:
    if expose:
        queue.fileno()
    waiter = Waiter(lambda: queue.dequeue(timeout))
    until_asleep(queue, CONSUMER)
    queue.enqueue(b"entry")
    assert waiter.finish() == b"entry"


def test_a_signal_is_handled_while_a_queue_is_waited_for(queue: DataQueue) -> None:
    """What the handler raises is raised, and nothing is taken."""

    class Stop(Exception):
        pass

    def handler(*_: object) -> None:
        raise Stop

    def interrupt() -> None:
        until_asleep(queue, CONSUMER)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        waiter = Waiter(interrupt)
        with pytest.raises(Stop):
            queue.dequeue(PATIENCE)
        waiter.finish()
    finally:
        signal.signal(signal.SIGUSR1, before)
    queue.enqueue(b"entry")
    assert queue.dequeue() == b"entry"


# One thread for each end


def test_an_end_at_which_one_thread_waits_is_refused_to_others(queue: DataQueue) -> None:
    waiter = Waiter(queue.dequeue)
    until_asleep(queue, CONSUMER)
    uses: list[Callable[[], Any]] = [
        lambda: queue.dequeue(0),
        lambda: queue.dequeue_many(timeout=0),
        lambda: queue.dequeue_into(bytearray()),
        lambda: queue.peek(0).__enter__(),
        lambda: queue.wait(0),
        lambda: queue.take_view(0),
        queue.detach_consumer,
    ]
    for use in uses:
        with pytest.raises(QueueMisuse, match=r"thread \d+ waits at the consumer of this queue"):
            use()
    queue.enqueue(b"entry")
    assert waiter.finish() == b"entry"
    queue.enqueue(b"another")
    assert queue.dequeue() == b"another"


def test_an_end_with_an_entry_in_one_threads_hands_is_refused_to_others(queue: DataQueue) -> None:
    queue.enqueue(b"entry")
    adds: list[Callable[[], Any]] = [
        lambda: queue.enqueue(b""),
        lambda: queue.enqueue_many([b""]),
        lambda: queue.reserve(0).__enter__(),
        lambda: queue.wait_for_room(0),
        queue.detach_producer,
    ]
    with queue.peek(), queue.reserve(1):
        adds += [queue.dequeue, lambda: queue.peek().__enter__(), lambda: next(queue), queue.wait]
        for use in adds:
            with pytest.raises(QueueMisuse, match="an end is for one thread at a time"):
                Waiter(use).finish()


def test_two_threads_may_use_an_end_one_after_the_other(queue: DataQueue) -> None:
    for _ in range(3):
        Waiter(lambda: queue.enqueue(b"entry")).finish()
        assert Waiter(queue.dequeue).finish() == b"entry"


def test_who_waits_for_room_that_it_holds_itself_is_not_let_wait_for_ever(
    split: tuple[DataQueue, DataQueue], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Q21: the producer waits for room, the consumer for an entry, and looks at the entries that take the room."""
    producer, consumer = split
    producer.enqueue(bytes(LARGEST))
    view = consumer.take_view()
    waiter = Waiter(lambda: producer.enqueue(b"next"))
    until_asleep(consumer, PRODUCER)
    monkeypatch.setattr("threading.active_count", lambda: 1)
    with pytest.raises(QueueMisuse, match="wait for ever: the producer of a data queue waits for room"):
        consumer.dequeue()
    del view
    waiter.finish()
    assert consumer.dequeue() == b"next"


def test_a_producer_that_waited_for_more_once_is_not_waited_for_by_who_looks_at_entries(
    split: tuple[DataQueue, DataQueue],
) -> None:
    """T15, Q34: its descriptor says what it wants by now, and there is room for that."""
    producer, consumer = split
    producer.enqueue(bytes(HALF))
    producer.enqueue(bytes(HALF))
    waiter = Waiter(lambda: producer.enqueue(bytes(HALF)))
    until_asleep(producer, PRODUCER)
    consumer.dequeue_many()
    waiter.finish()
    producer.enqueue(bytes(20))
    kept = [consumer.take_view(), consumer.take_view()]
    assert is_readable(producer.room_fileno(1))
    assert not consumer._ends()[0]._producer_wants_more()
    del kept


def test_another_thread_can_let_go_of_what_the_producer_waits_for(split: tuple[DataQueue, DataQueue]) -> None:
    producer, consumer = split
    producer.enqueue(bytes(LARGEST))
    views = [consumer.take_view()]
    adding, taking = Waiter(lambda: producer.enqueue(b"next")), Waiter(consumer.dequeue)
    until_asleep(consumer, PRODUCER)
    until_asleep(consumer, CONSUMER)
    views.clear()
    assert taking.finish() == b"next"
    adding.finish()


# Descriptors


def ready(descriptor: int) -> list[bool]:
    """What each way to look at a descriptor says of it."""
    epoll = select.epoll()
    with epoll:
        epoll.register(descriptor, select.EPOLLIN)
        return [bool(select.select([descriptor], [], [], 0)[0]), is_readable(descriptor), bool(epoll.poll(0))]


def settle(use: Callable[[], object]) -> None:
    with pytest.raises((QueueEmpty, QueueFull)):
        use()


@pytest.mark.parametrize("apart", [False, True], ids=["one object", "two objects"])
def test_a_consumers_descriptor_is_readable_while_there_is_an_entry(queue: DataQueue, apart: bool) -> None:
    producer = DataQueue.from_fd(queue.detach_producer()) if apart else queue
    descriptor = queue.fileno()
    assert queue.fileno() == descriptor
    settle(lambda: queue.dequeue(0))
    for _ in range(3):
        assert ready(descriptor) == [False] * 3
        producer.enqueue_many([b"a", b"b"])
        for _ in range(2):
            assert ready(descriptor) == [True] * 3
            queue.dequeue(0)
        settle(lambda: queue.dequeue(0))
    if apart:
        producer.close()
        assert ready(descriptor) == [True] * 3


def test_a_descriptor_that_is_first_asked_for_when_there_is_an_entry_is_readable(queue: DataQueue) -> None:
    queue.enqueue(b"entry")
    assert is_readable(queue.fileno())
    queue.dequeue(0)
    settle(lambda: queue.dequeue(0))
    assert not is_readable(queue.fileno())


@pytest.mark.parametrize("apart", [False, True], ids=["one object", "two objects"])
def test_a_producers_descriptor_is_readable_while_there_is_room(queue: DataQueue, apart: bool) -> None:
    consumer = DataQueue.from_fd(queue.detach_consumer()) if apart else queue
    descriptor = queue.room_fileno(HALF)
    assert is_readable(descriptor)
    for _ in range(3):
        while queue.wait_for_room(HALF, 0):
            queue.enqueue(bytes(HALF))
        assert ready(descriptor) == [False] * 3
        with consumer.peek():
            assert not is_readable(descriptor)
        assert ready(descriptor) == [True] * 3
        while consumer.data_available():
            consumer.dequeue()
    queue.enqueue_many([bytes(HALF)] * 2, 0)
    settle(lambda: queue.enqueue(bytes(HALF), 0))
    assert not is_readable(descriptor)
    if apart:
        assert queue.fileno() == descriptor
        consumer.close()
        assert is_readable(descriptor)


def test_a_producers_descriptor_is_readable_when_there_will_never_be_room(queue: DataQueue) -> None:
    """Q7: so that who waits for it tries, and is told."""
    queue.enqueue(bytes(46))
    assert is_readable(queue.room_fileno(LARGEST + 1))
    descriptor = queue.room_fileno(60)
    assert not is_readable(descriptor)
    queue.dequeue()
    assert is_readable(descriptor)
    with pytest.raises(QueueMisuse):
        queue.enqueue(bytes(60), 0)


@pytest.mark.parametrize("spin_us", ["0", "80"])
def test_a_descriptor_stays_right_after_a_wait(monkeypatch: pytest.MonkeyPatch, spin_us: str) -> None:
    """A wait that found nothing in time, and one that was woken, take nothing away from who polls next."""
    monkeypatch.setenv("MACHPORT_SPIN_US", spin_us)
    with DataQueue(CAPACITY) as queue:
        descriptor = queue.fileno()
        with pytest.raises(TimedOut):
            queue.dequeue(0.001)
        queue.enqueue(b"a")
        assert is_readable(descriptor)
        queue.dequeue()
        waiter = Waiter(queue.wait)
        until_asleep(queue, CONSUMER)
        queue.enqueue(b"b")
        assert waiter.finish()
        assert is_readable(descriptor)


def test_asking_who_the_other_side_is_takes_no_wake_up_away(split: tuple[DataQueue, DataQueue]) -> None:
    """What the peer's introductions come by is what wakes the descriptor."""
    producer, consumer = split
    descriptor = consumer.fileno()
    settle(lambda: consumer.dequeue(0))
    os.close(producer.pack((PRODUCER,)))  # nobody is known to have it now, so that each question looks around
    producer.enqueue(b"entry")
    assert consumer.peer is not None
    assert is_readable(descriptor)
    producer.keep((PRODUCER,))
    assert consumer.dequeue() == b"entry"


def test_descriptors_of_both_ends_of_one_queue_tell_of_their_own_end(queue: DataQueue) -> None:
    room, entry = queue.room_fileno(LARGEST), queue.fileno()
    assert (is_readable(room), is_readable(entry)) == (True, False)
    queue.enqueue(bytes(LARGEST))
    settle(lambda: queue.enqueue(bytes(LARGEST), 0))
    assert (is_readable(room), is_readable(entry)) == (False, True)


def test_a_descriptor_is_readable_when_the_other_side_died(queue: DataQueue) -> None:
    """T15: until it was seen, and ever after."""
    with Holder(queue.detach_producer(), "say('there'); hear()") as holder:
        holder.line()
        descriptor = queue.fileno()
        until(lambda: queue.peer is not None)
        settle(lambda: queue.dequeue(0))
        holder.process.kill()
        assert is_readable(descriptor, PATIENCE)
        with pytest.raises(QueueEnded):
            queue.dequeue(0)
        assert is_readable(descriptor)


def test_a_loop_of_events_reads_all_that_another_process_writes(queue: DataQueue) -> None:
    """Level-triggered, and no wake-up is lost, however the two come together."""
    count = 2000
    source = f"for n in range({count}): queue.enqueue(b'%d' % n)\nqueue.close(); hear()"
    taken: list[bytes] = []

    async def read() -> None:
        done = asyncio.get_running_loop().create_future()

        def take() -> None:
            try:
                taken.append(queue.dequeue(0))
            except QueueEmpty:
                pass
            except QueueEnded:
                done.set_result(None)

        loop = asyncio.get_running_loop()
        loop.add_reader(queue.fileno(), take)
        try:
            await asyncio.wait_for(done, PATIENCE)
        finally:
            loop.remove_reader(queue.fileno())

    with Holder(queue.detach_producer(), source):
        asyncio.run(read())
    assert taken == [b"%d" % number for number in range(count)]


def test_a_loop_of_events_writes_all_that_another_process_reads(queue: DataQueue) -> None:
    count = 2000
    source = f"assert [int(bytes(e)) for e in queue] == list(range({count})); say('right'); hear()"

    def write() -> None:
        poll = select.poll()
        poll.register(queue.room_fileno(4), select.POLLIN)
        for number in range(count):
            while True:
                try:
                    queue.enqueue(b"%d" % number, 0)
                    break
                except QueueFull:
                    assert poll.poll(PATIENCE * 1000)
        queue.close()

    with Holder(queue.detach_consumer(), source) as holder:
        write()
        assert holder.line() == "right"


@pytest.mark.parametrize("spin_us", ["0", "80"])
def test_two_processes_that_wait_for_each_other_lose_no_wake_up(monkeypatch: pytest.MonkeyPatch, spin_us: str) -> None:
    """Q11: a ring of one entry, so that each entry is waited for, and each room."""
    monkeypatch.setenv("MACHPORT_SPIN_US", spin_us)
    count = 2000
    with DataQueue(16) as queue:
        source = f"for n in range({count}): queue.enqueue(b'%4d' % n, {PATIENCE})\n"
        with Holder(queue.detach_producer(), source):
            taken = [int(entry) for entry in map(bytes, queue)]
    assert taken == list(range(count))


# Any sequence


class TwoObjectsAndAModel(RuleBasedStateMachine):
    """Producer and consumer as two objects do what a list does, whose room is counted by one that never waits."""

    @initialize(apart=st.booleans())
    def begin(self, apart: bool) -> None:
        self.consumer = DataQueue(CAPACITY)
        self.producer = DataQueue.from_fd(self.consumer.detach_producer()) if apart else self.consumer
        self.entries: list[bytes] = []
        self.lent: list[tuple[memoryview, bytes]] = []
        self.readable = self.consumer.fileno()

    @rule(data=st.binary(max_size=60))
    def enqueue(self, data: bytes) -> None:
        try:
            self.producer.enqueue(data, 0)
        except QueueFull:
            assert self.entries or self.lent
        except QueueMisuse:
            assert not self.entries
        else:
            self.entries.append(data)

    @rule(data=st.lists(st.binary(max_size=20), max_size=5))
    def enqueue_many(self, data: list[bytes]) -> None:
        self.entries += data[: self.producer.enqueue_many(data, 0)]

    @rule(data=st.binary(max_size=20), fails=st.booleans())
    def reserve(self, data: bytes, fails: bool) -> None:
        if self.producer.wait_for_room(len(data), 0):
            try:
                with self.producer.reserve(len(data), 0) as room:
                    room[:] = data
                    if fails:
                        raise ZeroDivisionError
            except ZeroDivisionError:
                return
            self.entries.append(data)

    def taken(self, take: Callable[[], Any]) -> Any:
        if self.entries:
            return take()
        with pytest.raises(QueueEmpty):
            take()
        return None

    @rule()
    def dequeue(self) -> None:
        entry = self.taken(lambda: self.consumer.dequeue(0))
        assert entry is None or entry == self.entries.pop(0)

    @rule(limit=st.integers(1, 4))
    def dequeue_many(self, limit: int) -> None:
        batch = self.taken(lambda: self.consumer.dequeue_many(limit, 0)) or []
        assert batch == self.entries[:limit]
        del self.entries[:limit]

    @rule()
    def take_view(self) -> None:
        view = self.taken(lambda: self.consumer.take_view(0))
        if view is not None:
            self.lent.append((view, self.entries.pop(0)))

    @rule(choice=st.integers(0, 100))
    def let_go(self, choice: int) -> None:
        if self.lent:
            self.lent.pop(choice % len(self.lent))

    @rule(fails=st.booleans(), keep=st.booleans())
    def peek(self, fails: bool, keep: bool) -> None:
        if self.entries:
            try:
                with self.consumer.peek(0) as entry:
                    assert entry == self.entries[0]
                    if keep:
                        self.lent.append((entry[:], self.entries[0]))
                    if fails:
                        raise ZeroDivisionError
            except ZeroDivisionError:
                return
            self.entries.pop(0)

    @rule()
    def move_the_consumer(self) -> None:
        if self.consumer is not self.producer and not self.lent:
            self.consumer = DataQueue.from_fd(self.consumer.detach_consumer())
            self.readable = self.consumer.fileno()

    @rule()
    def move_the_producer(self) -> None:
        if self.consumer is not self.producer:
            self.producer = DataQueue.from_fd(self.producer.detach_producer())

    @invariant()
    def they_agree(self) -> None:
        assert self.consumer.data_available() == bool(self.entries)
        assert self.consumer.statistics().lent == len({id(view.obj) for view, _ in self.lent})
        assert all(view == data for view, data in self.lent)
        if self.entries:
            assert is_readable(self.readable)

    def teardown(self) -> None:
        if hasattr(self, "consumer"):
            self.lent.clear()
            self.producer.close()
            self.consumer.close()


TestTwoObjectsAndAModel = TwoObjectsAndAModel.TestCase
TestTwoObjectsAndAModel.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
