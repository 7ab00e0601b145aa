"""machport's data queue: bulk between two processes, with no daemon between them.

The sides wait by looking at the queue and giving the core away; a program of its own would sleep on the queue's
notification when nothing comes for long.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from multiprocessing.reduction import DupFd
from typing import Any, ClassVar

from bench.harness import Session
from bench.peers import Creation, OneWay, RoundTrip
from machport import iokit
from machport.abi.errors import QueueEmpty, QueueFull
from machport.dataqueue import DataQueue, DataQueueMemory

#: Nanoseconds of one look at an empty queue.
_LOOK = 50_000


class Memory:
    """A queue's memory on its way into another process."""

    def __init__(self, capacity: int) -> None:
        self._memory = DataQueueMemory.with_capacity(capacity, shared=True)

    def __reduce__(self) -> Any:
        return _arrived, (DupFd(self._memory.fileno()),)

    def close(self) -> None:
        self._memory.close()


def _arrived(descriptor: Any) -> DataQueueMemory:
    return DataQueueMemory.from_fd(descriptor.detach())


def capacity(size: int) -> int:
    """Bytes of a queue for messages of this size: small enough for the caches, and some messages at least."""
    return max(256 << 10, 8 * (size + 4))


def looking(memory: DataQueueMemory) -> Callable[[], object]:
    """How to wait a moment for an entry, without sleeping."""
    look: Callable[[int], object] | None = getattr(memory.ring, "look", None)
    return os.sched_yield if look is None else partial(look, _LOOK)


class _Queue(OneWay):
    def prepare(self, session: Session, size: int) -> Any:
        memory = Memory(capacity(size))
        session.callback(memory.close)
        return memory


class QueueOneWay(_Queue):
    name = "machport data queue, one call an entry"

    def consumer(self, address: Any, size: int) -> Callable[[], Any]:
        return taking(address)

    def producer(self, address: Any, size: int) -> Callable[[Any], object]:
        return putting(address)


class QueueViewOneWay(_Queue):
    """The entry is looked at in place, and its room given back when the next is asked for."""

    name = "machport data queue, view"

    def consumer(self, address: Any, size: int) -> Callable[[], Any]:
        look = looking(address)
        seen = False

        def get() -> memoryview:
            nonlocal seen
            if seen:
                iokit.IODataQueueDequeue(address, None, None)
            seen = True
            while (entry := iokit.IODataQueuePeek(address)) is None:
                look()
            return entry

        return get

    def producer(self, address: Any, size: int) -> Callable[[Any], object]:
        return putting(address)


class QueueManyOneWay(_Queue):
    """By the ring itself, as long as ``DataQueue`` has no call for many."""

    name = "machport data queue, many in one call"
    batches: ClassVar = {64: 64, 1024: 64, 4096: 16, 65536: 4, 1 << 20: 2}

    def consumer(self, address: Any, size: int) -> Callable[[], Any]:
        ring, look, limit = address.ring, looking(address), 4 * self.batch(size)

        def get() -> list[bytes]:
            while not (entries := ring.dequeue_many(limit)):
                look()
            some: list[bytes] = entries
            return some

        return get

    def producer(self, address: Any, size: int) -> Callable[[Any], object]:
        ring = address.ring

        def put(entries: list[bytes]) -> None:
            done, _ = ring.enqueue_many(entries)
            while done < len(entries):
                os.sched_yield()
                done += ring.enqueue_many(entries[done:])[0]

        return put


class QueueRoundTrip(RoundTrip):
    name = "machport data queue, two of them"

    def prepare(self, session: Session, size: int) -> Any:
        memories = Memory(capacity(size)), Memory(capacity(size))
        for memory in memories:
            session.callback(memory.close)
        return memories

    def server(self, address: Any) -> tuple[Callable[[], Any], Callable[[Any], object]]:
        return taking(address[0]), putting(address[1])

    def client(self, address: Any) -> Callable[[bytes], Any]:
        put, get = putting(address[0]), taking(address[1])

        def call(body: bytes) -> bytes:
            put(body)
            return get()

        return call


class QueueCreation(Creation):
    name = "machport data queue of 64 KiB"

    def begin(self, address: Any) -> None:
        pass

    def make(self, count: int, made: list[Any]) -> list[Any]:
        for _ in range(count):
            made.append(DataQueueMemory.with_capacity(1 << 16))
        return made

    def unmake(self, made: list[Any]) -> None:
        while made:
            made.pop().close()


def putting(memory: DataQueueMemory) -> Callable[[bytes], None]:
    """How to put an entry into a queue, as soon as there is room."""
    enqueue = DataQueue(memory).enqueue

    def put(entry: bytes) -> None:
        while True:
            try:
                return enqueue(entry)
            except QueueFull:
                os.sched_yield()

    return put


def taking(memory: DataQueueMemory) -> Callable[[], bytes]:
    """How to take the next entry of a queue, as soon as there is one."""
    dequeue, look = DataQueue(memory).dequeue, looking(memory)

    def get() -> bytes:
        while True:
            try:
                return dequeue()
            except QueueEmpty:
                look()

    return get
