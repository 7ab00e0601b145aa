"""A data queue as Python has it: refusals are raised, and an entry is looked at by ``with``.

For the face, which adds waiting.  Knows a ring and a callable that wakes the other side; never knows ports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from machport.abi.errors import CorruptQueue, QueueEmpty, QueueFull, QueueMisuse
from machport.ring import layout

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    from machport.dataqueue.memory import DataQueueMemory


@dataclass(frozen=True, slots=True)
class Statistics:
    """A data queue at one moment, as seen from one side.

    Attributes:
        capacity: bytes of the ring.
        used: bytes between head and tail, wasted ones included; what the fields say, so a hostile peer can
            lie.
        enqueued: entries added by this side.
        dequeued: entries taken or skipped by this side.
        notifications: times that this side had reason to wake the other.
        refusals: entries that were not added, for want of room or because the peer broke the ring.
    """

    capacity: int
    used: int
    enqueued: int
    dequeued: int
    notifications: int
    refusals: int


def _nobody() -> None:
    """Wakes nobody: for a consumer, or a pair that look by themselves."""


class DataQueue:
    """One side, or both, of a data queue.

    Args:
        memory: the queue's memory; who opened it closes it.
        notify: wakes the consumer; called after an entry went into a ring that the consumer may have seen
            empty, and
            when the ring is full.
    """

    def __init__(self, memory: DataQueueMemory, notify: Callable[[], object] = _nobody) -> None:
        self._ring = memory.ring
        self._notify = notify
        self._looking = False

    def enqueue(self, data: ReadableBuffer) -> None:
        """Copy ``data`` into the ring as one entry.

        Raises:
            QueueFull: there is no room now; nothing was written.
            QueueMisuse: the entry is larger than the ring could ever hold.
            CorruptQueue: the consumer wrote a place outside the ring; nothing was written.
        """
        answer = self._ring.enqueue(data)
        if answer == layout.ADDED:
            return
        if answer == layout.WAKE:
            self._notify()
            return
        self._refuse(answer, memoryview(data).nbytes)

    def dequeue(self) -> bytes:
        """Take the next entry.

        Raises:
            QueueEmpty: there is none.
            CorruptQueue: the producer wrote nonsense.
        """
        self._check_not_looking()
        entry = self._ring.dequeue()
        if entry is None:
            raise self._absence()
        return entry

    @contextmanager
    def peek(self) -> Iterator[memoryview]:
        """The next entry in place, read-only, not copied; taken if the block ends without an exception.

        The view ends with the block, because the producer may use the room again.

        Raises:
            QueueEmpty: there is none.
            CorruptQueue: the producer wrote nonsense.
            QueueMisuse: this side looks at an entry already.
        """
        self._check_not_looking()
        entry = self._ring.peek()
        if entry is None:
            raise self._absence()
        self._looking = True
        try:
            with entry:
                yield entry
        finally:
            self._looking = False
        self._ring.skip()

    def drain(self) -> Iterator[bytes]:
        """Take entries until the ring is empty.

        Raises:
            CorruptQueue: the producer wrote nonsense; entries before it have been given.
        """
        while True:
            try:
                entry = self.dequeue()
            except QueueEmpty:
                return
            yield entry

    def statistics(self) -> Statistics:
        """How the queue is now; costs two loads."""
        ring = self._ring
        used = ring.tail - ring.head
        return Statistics(
            capacity=ring.capacity,
            used=min(used % ring.capacity if used < 0 else used, ring.capacity) if ring.capacity else 0,
            enqueued=ring.enqueued,
            dequeued=ring.dequeued,
            notifications=ring.wakes,
            refusals=ring.refused,
        )

    def _refuse(self, answer: int, size: int) -> None:
        capacity = self._ring.capacity
        if answer == layout.BROKEN:
            raise CorruptQueue(
                f"head {self._ring.head} or tail {self._ring.tail} is outside the ring of {capacity} bytes",
                rule="Q41",
            )
        if answer == layout.TOO_LARGE or size + layout.ENTRY_HEADER_SIZE > capacity:
            raise QueueMisuse(
                f"an entry of {size} bytes never fits into a ring of {capacity}; the largest has"
                f" {max(capacity - layout.ENTRY_HEADER_SIZE, 0)}",
                rule="Q7",
            )
        self._notify()
        raise QueueFull(
            f"no room for {size} bytes in one piece: {self.statistics().used} of {capacity} are used",
            rule="Q6",
        )

    def _absence(self) -> QueueEmpty | CorruptQueue:
        if self._ring.absence == layout.EMPTY:
            return QueueEmpty("there is no entry in the data queue")
        return CorruptQueue(
            f"the entry at {self._ring.head} leads outside the ring of {self._ring.capacity} bytes",
            rule="Q39",
        )

    def _check_not_looking(self) -> None:
        if self._looking:
            raise QueueMisuse("an entry of this queue is being looked at; leave that block first", rule="Q21")
