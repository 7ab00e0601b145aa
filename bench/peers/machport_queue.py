"""machport's data queue: bulk between two processes, with no daemon between them.

Both sides wait in the queue's own calls, which look for a while and then sleep.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from multiprocessing.reduction import DupFd
from typing import Any, ClassVar

from bench.harness import Session
from bench.peers import Creation, OneWay, RoundTrip
from machport.dataqueue import DataQueue
from machport.ring import spinning


class Ends:
    """Both ends of a queue on their way: every process of the measurement gets this, and takes one of them."""

    def __init__(self, capacity: int) -> None:
        queue = DataQueue(capacity)
        self._descriptors = queue.detach_producer(), queue.detach_consumer()

    def __reduce__(self) -> Any:
        return _arrived, tuple(map(DupFd, self._descriptors))

    def producer(self) -> DataQueue:
        """Take the producing end; the other is somebody else's."""
        return self._take(0)

    def consumer(self) -> DataQueue:
        """Take the consuming end; the other is somebody else's."""
        return self._take(1)

    def _take(self, role: int) -> DataQueue:
        os.close(self._descriptors[1 - role])
        return DataQueue.from_fd(self._descriptors[role])

    def close(self) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)


def _arrived(*descriptors: Any) -> Ends:
    ends = Ends.__new__(Ends)
    ends._descriptors = descriptors[0].detach(), descriptors[1].detach()
    return ends


def capacity(size: int) -> int:
    """Bytes of a queue for messages of this size: small enough for the caches, and some messages at least."""
    return max(256 << 10, 8 * (size + 4))


def prepared(session: Session, octets: int) -> Ends:
    """The ends of a queue of so many bytes, in the controlling process."""
    ends = Ends(octets)
    session.callback(ends.close)
    return ends


class QueueOneWay(OneWay):
    name = "machport data queue, one call an entry"

    def prepare(self, session: Session, size: int) -> Any:
        return prepared(session, capacity(size))

    def consumer(self, address: Any, size: int) -> Callable[[], Any]:
        take: Callable[[], Any] = address.consumer().dequeue
        return take

    def producer(self, address: Any, size: int) -> Callable[[Any], object]:
        put: Callable[[Any], object] = address.producer().enqueue
        return put


class QueuePeekOneWay(QueueOneWay):
    """The entry is looked at in place, and its room given back when the next is asked for."""

    name = "machport data queue, peek"

    def consumer(self, address: Any, size: int) -> Callable[[], Any]:
        return _looking(address.consumer()).__next__


def _looking(queue: DataQueue) -> Iterator[memoryview]:
    while True:
        with queue.peek() as entry:
            yield entry


class QueueLoopOneWay(QueueOneWay):
    """The same by a loop over the queue: the room is given back when the view goes."""

    name = "machport data queue, loop"

    def consumer(self, address: Any, size: int) -> Callable[[], Any]:
        take: Callable[[], Any] = iter(address.consumer()).__next__
        return take


class QueueManyOneWay(QueueOneWay):
    name = "machport data queue, many in one call"
    batches: ClassVar = {64: 64, 1024: 64, 4096: 16, 65536: 4, 1 << 20: 2}

    def consumer(self, address: Any, size: int) -> Callable[[], Any]:
        take, limit = address.consumer().dequeue_many, 4 * self.batch(size)
        return lambda: take(limit)

    def producer(self, address: Any, size: int) -> Callable[[Any], object]:
        put: Callable[[Any], object] = address.producer().enqueue_many
        return put


class QueueRoundTrip(RoundTrip):
    name = "machport data queue, two of them"

    def prepare(self, session: Session, size: int) -> Any:
        return prepared(session, capacity(size)), prepared(session, capacity(size))

    def server(self, address: Any) -> tuple[Callable[[], Any], Callable[[Any], object]]:
        return address[0].consumer().dequeue, address[1].producer().enqueue

    def client(self, address: Any) -> Callable[[bytes], Any]:
        put, get = address[0].producer().enqueue, address[1].consumer().dequeue

        def call(body: bytes) -> bytes:
            put(body)
            answer: bytes = get()
            return answer

        return call


class SleepingQueueRoundTrip(QueueRoundTrip):
    """Both sides sleep at once when there is nothing."""

    name = "machport data queue, two of them, asleep"

    def server(self, address: Any) -> tuple[Callable[[], Any], Callable[[Any], object]]:
        os.environ[spinning.VARIABLE] = "0"
        return super().server(address)

    def client(self, address: Any) -> Callable[[bytes], Any]:
        os.environ[spinning.VARIABLE] = "0"
        return super().client(address)


class QueueCreation(Creation):
    name = "machport data queue of 64 KiB"

    def begin(self, address: Any) -> None:
        pass

    def make(self, count: int, made: list[Any]) -> list[Any]:
        for _ in range(count):
            made.append(DataQueue(1 << 16))
        return made

    def unmake(self, made: list[Any]) -> None:
        while made:
            made.pop().close()
