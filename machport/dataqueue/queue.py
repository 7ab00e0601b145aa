# cython: annotation_typing=False, auto_pickle=False
# The annotations speak to readers and mypy; the C types are in queue.pxd.
"""A data queue as Python has it: what does not fit is waited for or raised, and an entry is looked at by ``with``.

For the face, which adds how an end travels by a right and how a port is notified.  Knows rings and ends; never ports.
"""

from __future__ import annotations

import atexit
import contextlib
import operator
import os
import sys
import weakref
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from warnings import warn

from machport.abi import constants as c
from machport.abi.errors import (
    CorruptQueue,
    EntryTooLarge,
    ForkedTask,
    InvalidArgument,
    QueueEmpty,
    QueueEnded,
    QueueFull,
    QueueMisuse,
    TimedOut,
)
from machport.dataqueue import extension, handover
from machport.dataqueue.end import NAMES, End
from machport.dataqueue.memory import DataQueueMemory, capacity_for
from machport.peer.introduction import Peer
from machport.ring import layout, memory
from machport.ring.queue import Ring

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

_MANY = 1 << 32
_NEVER = -1
#: In the place of an end, a ring or a queue that is not here.  Every operation looks for it first.
_NONE: Any = None


class Statistics(NamedTuple):
    """A data queue at one moment, as seen from this process.

    Attributes:
        capacity: bytes of the ring.
        used: bytes between head and tail, unused ones at the end included; what the fields say, so a hostile peer can
            lie.
        peak: the most of ``used`` that an operation of this process has seen.
        entries: how many entries are in the ring, those that are lent included.
        lent: how many entries this side still looks at, so that their room is not given back.
        enqueued: entries added here.
        dequeued: entries taken here.
        wakeups: how many times this side woke the other, by its bell, its socket or a message.
        coalesced: how many times the other side needed no waking, because it was awake or a message was pending.
        refusals: how many times an entry found no room, or could not be added at all.
    """

    capacity: int
    used: int
    peak: int
    entries: int
    lent: int
    enqueued: int
    dequeued: int
    wakeups: int
    coalesced: int
    refusals: int


class Block:
    """A view of an entry for the length of a ``with`` block, once."""

    def __init__(self, queue: DataQueue, nanoseconds: int) -> None:
        self._queue = queue
        self._nanoseconds = nanoseconds
        self._view: memoryview = _NONE

    def _open(self) -> DataQueue:
        if self._queue is None:
            raise QueueMisuse("this block is over; ask for a new one")
        return self._queue

    def _close(self) -> DataQueue:
        queue = self._open()
        self._queue = _NONE
        return queue

    def _release(self) -> None:
        """End the view, unless an array of it is kept."""
        view, self._view = self._view, _NONE
        with contextlib.suppress(BufferError):
            view.release()


class Look(Block):
    """The next entry in place: what ``peek`` gives.

    If an array still looks at it when the block ends, its room is given back when that is gone.
    """

    _anchor: object

    def __enter__(self) -> memoryview:
        queue = self._open()
        self._view = queue._lend(self._nanoseconds)
        # Keeps the entry until the block ends, whatever becomes of the view there.
        self._anchor = self._view.obj
        queue._consumer.user = memory.this_thread()
        queue._in_hands = True
        return self._view

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        queue = self._close()
        queue._in_hands = False
        end = queue._consumer
        if end is not None:
            end.user = 0
            if kind is not None:
                end.ring.put_back()
        self._anchor = None
        self._release()


class Room(Block):
    """Room for an entry that is written in place: what ``reserve`` gives.

    Who keeps an array of it and writes there later spoils entries, and no memory of others.
    """

    def __init__(self, queue: DataQueue, size: int, nanoseconds: int) -> None:
        super().__init__(queue, nanoseconds)
        self._size = size

    def __enter__(self) -> memoryview:
        queue = self._open()
        self._view = queue._reserve(self._size, self._nanoseconds)
        queue._producer.user = memory.this_thread()
        queue._reserved = True
        return self._view

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        queue = self._close()
        queue._reserved = False
        end = queue._producer
        if end is not None:
            end.user = 0
            if kind is None:
                end.published(end.ring.commit())
        self._release()
        if end is None and kind is None:
            raise QueueMisuse("the queue was closed before the block ended, and the entry is lost")


class DataQueue:
    """A queue of entries of bytes between one producer and one consumer, in memory that both share.

    A new queue has both ends here.  ``move_producer`` and ``move_consumer`` let one go to another process; what arrives
    there is a queue with that end.  Each end is used by one thread at a time.  Once the other end is gone, the consumer
    takes what is left and then ``QueueEnded`` is raised, ``PeerDied`` if its process died; so every wait has an end.

    Times are in seconds: None waits for as long as it takes, 0 not at all.

    Args:
        capacity: bytes of the ring.  An entry takes 4 more than its data.  With twice the largest entry and its 4
            bytes an entry always fits once the ring is empty (Q7).

    Raises:
        QueueMisuse: no ring has so many bytes.
        LimitReached: there is no memory or no descriptor for it now.
    """

    _producer: End
    _consumer: End
    _out: Ring
    _in: Ring

    def __init__(self, capacity: int) -> None:
        self._begin(DataQueueMemory.with_capacity(int(operator.index(capacity)), extended=True))
        try:
            producer, consumer = handover.new_sockets()
        except BaseException:
            self.memory.close()
            raise
        self._producer = End(extension.PRODUCER, self.memory, producer)
        self._consumer = End(extension.CONSUMER, self.memory, consumer)
        self._producer.sibling, self._consumer.sibling = self._consumer, self._producer
        self._producer.hold(0)
        self._consumer.hold(0)
        self._use()

    @classmethod
    def with_entries(cls, entries: int, size: int) -> Self:
        """A queue that always has room for ``entries`` entries of up to ``size`` bytes each (Q37)."""
        return cls(capacity_for(operator.index(entries), operator.index(size)))

    @classmethod
    def from_fd(cls, fd: int) -> Self:
        """The queue whose end was sent by ``fd``, a descriptor that ``detach_producer`` or its like gave.

        It is closed by this call; what is no socket in which an end could wait stays open.

        Raises:
            QueueMisuse: it brings no end of a queue, or its end was taken already; the text says what was seen.
            LimitReached: the memory cannot be mapped now, or there is no descriptor left.
        """
        memory, sockets, peers = handover.arrived(fd)
        queue = cls.__new__(cls)
        queue._begin(memory)
        try:
            queue._arrive(sockets, peers)
        except OSError as error:
            queue.close()
            raise handover.no_descriptor(error) from error
        except BaseException:
            queue.close()
            raise
        return queue

    def _begin(self, memory: DataQueueMemory) -> None:
        self.memory = memory
        self._producer, self._out = _NONE, _NONE
        self._consumer, self._in = _NONE, _NONE
        self._step: memoryview = _NONE
        self._in_hands = False
        self._reserved = False
        self._forked = False
        self._size = 0
        _open.add(self)

    def _arrive(self, sockets: list[Any], peers: list[Peer | None]) -> None:
        producer, consumer = sockets
        if producer is not None:
            self._producer = End(extension.PRODUCER, self.memory, producer)
        if consumer is not None:
            self._consumer = End(extension.CONSUMER, self.memory, consumer)
        if self._producer is not None and self._consumer is not None:
            self._producer.sibling, self._consumer.sibling = self._consumer, self._producer
        for end in self._ends():
            end.peer = peers[end.role]
            end.arrive()
        self._use()

    def _use(self) -> None:
        if self._producer is not None:
            self._out = self._producer.ring
        if self._consumer is not None:
            self._in = self._consumer.ring
            self._in.when_room = self._consumer.room_was_made

    def _ends(self) -> list[End]:
        return [end for end in (self._producer, self._consumer) if end is not None]

    # What it is

    @property
    def capacity(self) -> int:
        """Bytes of the ring."""
        return self.memory.capacity

    @property
    def closed(self) -> bool:
        """Whether no end is here any more."""
        return self._producer is None and self._consumer is None

    @property
    def is_producer(self) -> bool:
        """Whether entries can be added here."""
        return self._producer is not None

    @property
    def is_consumer(self) -> bool:
        """Whether entries can be taken here."""
        return self._consumer is not None

    @property
    def peer(self) -> Peer | None:
        """The process that has the other end, if it has introduced itself and the end is not here as well."""
        for end in self._ends():
            if end.sibling is None:
                end.is_over()
                return end.peer
        return None

    def statistics(self) -> Statistics:
        """How the queue is now; counts the entries one by one.

        Raises:
            QueueMisuse: it is closed.
        """
        ends = self._ends()
        if not ends:
            raise self._no_end(extension.CONSUMER)
        ring = ends[0].ring
        return Statistics(
            capacity=ring.capacity,
            used=used(ring),
            peak=ring.peak,
            entries=ring.unread(),
            lent=ring.lent,
            enqueued=ring.enqueued,
            dequeued=ring.dequeued,
            wakeups=sum(end.wakeups for end in ends),
            coalesced=sum(end.coalesced for end in ends),
            refusals=ring.refused,
        )

    # The producer

    def enqueue(self, data: ReadableBuffer, timeout: float | None = None) -> None:
        """Copy ``data`` into the ring as one entry; wait while there is no room.

        Args:
            data: anything with the buffer protocol; one that is not contiguous is joined first.

        Raises:
            QueueFull: there is no room, and ``timeout`` is 0.
            TimedOut: there was no room in time.
            QueueMisuse: an entry so large never fits, or this end is not here.
            QueueEnded: the consumer is gone; nothing was written.
            CorruptQueue: the consumer wrote a place outside the ring; nothing was written.
        """
        ring = self._out
        producer = self._producer  # kept: a handler or another thread may close the queue meanwhile
        if producer is None or producer.user:
            self._check_producer()
        if producer.is_over():
            raise producer.ending()
        answer = ring.enqueue(data)
        if answer <= layout.WAKE:
            producer.published(answer)
            return
        self._wait_for_room(producer, answer, memoryview(data).nbytes, until(timeout))
        answer = ring.enqueue(data)
        if answer > layout.WAKE:
            raise refusal(ring, answer, memoryview(data).nbytes)
        producer.published(answer)

    def enqueue_many(self, entries: Iterable[ReadableBuffer], timeout: float | None = None) -> int:
        """Add entries in order, publishing together what fits together; how many were added before the time was over.

        Raises what ``enqueue`` does, but for want of room; entries before were added, and the text says how many.
        """
        given = entries if isinstance(entries, list | tuple) else list(entries)
        ring = self._out
        producer = self._producer
        if producer is None or producer.user:
            self._check_producer()
        if producer.is_over():
            raise producer.ending()
        count, answer = ring.enqueue_many(given)
        producer.published(answer & layout.WAKE)
        if count == len(given):
            return count
        end = until(timeout)
        try:
            while True:
                size = memoryview(given[count]).nbytes
                try:
                    self._wait_for_room(producer, answer & ~layout.WAKE, size, end)
                except (QueueFull, TimedOut):
                    return count
                some, answer = ring.enqueue_many(given[count:])
                producer.published(answer & layout.WAKE)
                count += some
                if count == len(given):
                    return count
        except (QueueMisuse, QueueEnded, CorruptQueue) as error:
            error.says += f"; {count} of {len(given)} entries were added"
            raise

    def reserve(self, size: int, timeout: float | None = None) -> Room:
        """Room for an entry of ``size`` bytes, to be written in place: ``with queue.reserve(n) as room: ...``.

        ``room`` is a writable view.  The entry is published when the block ends, and abandoned if by an exception;
        until then nobody sees it.  Raises what ``enqueue`` does, when the block begins.
        """
        return Room(self, size, nanoseconds_of(timeout))

    def wait_for_room(self, size: int, timeout: float | None = None) -> bool:
        """Wait until an entry of ``size`` bytes fits; False if the time was over before.

        Raises what ``enqueue`` does, but for want of room.
        """
        producer = self._producer
        if producer is None or producer.user:
            self._check_producer()
        self._size = checked_size(size)
        if producer.is_over():
            raise producer.ending()
        answer = producer.ring.fits(size)
        if answer == layout.ADDED:
            return True
        try:
            self._wait_for_room(producer, answer, size, until(timeout))
        except (QueueFull, TimedOut):
            return False
        return True

    def notify_by(self, notify: Callable[[], bool] | None) -> None:
        """Call ``notify`` when a notification port would get a message; it tells whether it was queued.  For the face.

        Raises:
            QueueMisuse: this end is not here.
        """
        if self._producer is None:
            raise self._no_end(extension.PRODUCER)
        producer = self._producer
        producer.notify = notify
        if notify is not None and producer.ring.head != producer.ring.tail:
            # The consumer may sleep at the port already, and the next entry need not be a reason to tell it.
            producer.published(layout.WAKE)

    def _reserve(self, size: int, nanoseconds: int) -> memoryview:
        ring = self._out
        producer = self._producer
        if producer is None or producer.user:
            self._check_producer()
        size = checked_size(size)
        if producer.is_over():
            raise producer.ending()
        view: memoryview | None = ring.reserve(size)
        if view is None:
            self._wait_for_room(producer, ring.refusal, size, nanoseconds if nanoseconds <= 0 else now() + nanoseconds)
            view = ring.reserve(size)
            if view is None:
                raise refusal(ring, ring.refusal, size)
        return view

    def _wait_for_room(self, producer: End, answer: int, size: int, end: int) -> None:
        """Wait for as long as ``answer`` says full, until the time ``end``: -1 for ever, 0 not at all."""
        ring = producer.ring
        if answer != layout.FULL or size + layout.ENTRY_HEADER_SIZE > ring.capacity:
            raise refusal(ring, answer, size)
        self._size = size
        if producer.notify is not None:
            producer.published(layout.WAKE)
        left = end
        while True:
            if end > 0:
                left = max(end - now(), 0)
            ready = producer.wait(size, left)
            if producer.closed:
                raise producer.closed_meanwhile()
            if not ready:
                if end == 0:
                    raise refusal(ring, layout.FULL, size)
                raise TimedOut(f"there was no room for {size} bytes in time", code=c.kIOReturnTimeout)
            answer = ring.fits(size)
            if answer == layout.ADDED:
                return
            if answer != layout.FULL:
                raise refusal(ring, answer, size)

    # The consumer

    def dequeue(self, timeout: float | None = None) -> bytes:
        """Take the next entry; wait while there is none.

        Raises:
            QueueEmpty: there is none, and ``timeout`` is 0.
            TimedOut: none came in time.
            QueueEnded: the producer is gone, and everything was taken.
            CorruptQueue: the producer wrote nonsense.
            QueueMisuse: this end is not here.
        """
        ring = self._in
        consumer = self._consumer  # kept: a handler or another thread may close the queue meanwhile
        if consumer is None or consumer.user:
            self._check_consumer()
        if self._step is not None:
            self._end_step()
        entry = ring.dequeue()
        if entry is None:
            wait_for_entry(consumer, until(timeout))
            entry = ring.dequeue()
            if entry is None:
                raise absence(ring)
        consumer.tell()
        return entry

    def dequeue_into(self, buffer: WriteableBuffer, timeout: float | None = None) -> int:
        """Copy the next entry to the beginning of ``buffer``; its size in bytes.  Waits and raises as ``dequeue``.

        Raises:
            EntryTooLarge: it is larger than the buffer, and still next (Q23).
            BufferError: the buffer is read-only or not contiguous.
        """
        ring = self._in
        consumer = self._consumer
        if consumer is None or consumer.user:
            self._check_consumer()
        if self._step is not None:
            self._end_step()
        size = ring.dequeue_into(buffer)
        if size < 0:
            wait_for_entry(consumer, until(timeout))
            size = ring.dequeue_into(buffer)
            if size < 0:
                raise absence(ring)
        room = memoryview(buffer).nbytes
        if size > room:
            raise EntryTooLarge(f"the next entry has {size} bytes, and the buffer {room}; it is still next", rule="Q23")
        consumer.tell()
        return size

    def dequeue_many(self, limit: int = _MANY, timeout: float | None = None) -> list[bytes]:
        """Take up to ``limit`` entries that are there; wait while there is none.  Raises as ``dequeue``."""
        limit = operator.index(limit)
        if limit < 1:
            raise InvalidArgument(f"a limit is 1 or more, not {limit}")
        ring = self._in
        consumer = self._consumer
        if consumer is None or consumer.user:
            self._check_consumer()
        if self._step is not None:
            self._end_step()
        batch = ring.dequeue_many(min(limit, layout.MAX_QUEUE_SIZE))
        if not batch:
            wait_for_entry(consumer, until(timeout))
            batch = ring.dequeue_many(min(limit, layout.MAX_QUEUE_SIZE))
            if not batch:
                raise absence(ring)
        consumer.tell()
        return batch

    def peek(self, timeout: float | None = None) -> Look:
        """The next entry in place, not copied: ``with queue.peek() as entry: ...``.

        ``entry`` is a read-only view, which the producer's process could still change.  The entry is taken when the
        block ends, and stays the next one if by an exception.  The view ends with the block; arrays that were made of
        it stay as they are, and the entry's room is given back when the last of them is gone.  Waits and raises as
        ``dequeue``, when the block begins.
        """
        return Look(self, nanoseconds_of(timeout))

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until there is an entry; False if the time was over before.

        Raises:
            QueueEnded: the producer is gone, and everything was taken.
        """
        consumer = self._consumer
        if consumer is None or consumer.user:
            self._check_consumer()
        if self._step is not None:
            self._end_step()
        return consumer.wait(0, nanoseconds_of(timeout))

    def data_available(self) -> bool:
        """Whether there is an entry (Q19)."""
        if self._in is None:
            self._check_consumer()
        return self._in.data_available()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> memoryview:
        """The next entry in place: read-only, not copied, taken.  Waits; ends when the producer has closed its end.

        The view ends with the step: it is released when the queue is asked for anything next.  Arrays and parts of it
        that are kept stay as they are, and hold the entry's room until they are gone.  ``map(bytes, queue)`` copies.

        Raises:
            PeerDied: the producer died without closing its end, and everything was taken.
        """
        try:
            self._step = self._lend(_NEVER)
            return self._step
        except QueueEnded as error:
            if type(error) is QueueEnded:
                raise StopIteration from None
            raise

    def _end_step(self) -> None:
        """Release the view of a loop's last step, of which the loop's variable knows until it has the next one."""
        view, self._step = self._step, _NONE
        if view is not None:
            # An array of it stays.
            with contextlib.suppress(BufferError):
                view.release()

    def take_view(self, timeout: float | None = None) -> memoryview:
        """Take the next entry in place: a read-only view; waits and raises as ``dequeue``.

        Its room is given back when the view, and every array and part of it, is gone.
        """
        return self._lend(nanoseconds_of(timeout))

    def _lend(self, nanoseconds: int) -> memoryview:
        ring = self._in
        consumer = self._consumer
        if consumer is None or consumer.user:
            self._check_consumer()
        if self._step is not None:
            self._end_step()
        view: memoryview | None = ring.lend()
        if view is None:
            wait_for_entry(consumer, nanoseconds if nanoseconds <= 0 else now() + nanoseconds)
            view = ring.lend()
            if view is None:
                raise absence(ring)
        return view

    # Event loops

    def fileno(self) -> int:
        """A descriptor for event loops, level-triggered: readable while there is an entry or the producer is gone.

        If only the producer is here: while there is room for an entry of the size last waited for, or the consumer is
        gone.  It may be readable once more than there is something to do; an operation with ``timeout=0`` that finds
        nothing settles that.  It stays this object's.

        Raises:
            QueueMisuse: the queue is closed.
            OSError: there is no descriptor left.
        """
        end = self._producer if self._consumer is None else self._consumer
        if end is None:
            raise self._no_end(extension.CONSUMER)
        return end.fileno(self._size)

    def room_fileno(self, size: int) -> int:
        """The same for the producer, and an entry of ``size`` bytes, also where both ends are here."""
        if self._producer is None:
            raise self._no_end(extension.PRODUCER)
        self._size = checked_size(size)
        producer = self._producer
        descriptor = producer.fileno(size)
        producer.expose(size)
        return descriptor

    # Ends

    def detach_producer(self) -> int:
        """Let the producing end go: a descriptor that brings it to whoever calls ``from_fd``; the caller closes it."""
        return self._detach((extension.PRODUCER,))

    def detach_consumer(self) -> int:
        """Let the consuming end go, as ``detach_producer``."""
        return self._detach((extension.CONSUMER,))

    def _detach(self, roles: tuple[int, ...]) -> int:
        descriptor = self.pack(roles)
        self.let_go(roles)
        return descriptor

    def pack(self, roles: tuple[int, ...]) -> int:
        """A descriptor that brings ends to another process; they are no longer used here until ``keep`` is called.

        For the face.  ``let_go`` follows when it has left, ``keep`` if it has not.

        Raises:
            QueueMisuse: an end is not here, or in use.
            LimitReached: there is no descriptor left.
        """
        self._end_step()
        for role in roles:
            end = self._producer if role == extension.PRODUCER else self._consumer
            if end is None or end.user:
                raise self._no_end(role) if end is None else self._in_use(end)
            if end.travels:
                raise QueueMisuse(f"the {NAMES[role]} of this data queue is on its way to another process already")
            if role == extension.CONSUMER and end.ring.lent:
                raise QueueMisuse(f"{end.ring.lent} entries are still looked at here; let go of their views first")
        return handover.pack(self.memory, [end for end in self._ends() if end.role in roles])

    def keep(self, roles: tuple[int, ...]) -> None:
        """The ends did not leave."""
        for end in self._ends():
            if end.role in roles:
                end.stay()

    def let_go(self, roles: tuple[int, ...]) -> None:
        """The ends have left: another process has them, or nobody."""
        gone = [end for end in self._ends() if end.role in roles]
        if extension.PRODUCER in roles:
            self._producer, self._out = _NONE, _NONE
        if extension.CONSUMER in roles:
            self._consumer, self._in = _NONE, _NONE
        for end in gone:
            end.depart()
        self._close_memory()

    def close(self) -> None:
        """Give up the ends that are here, and let the other one's holder know; what is in the ring stays for it."""
        for end in self._take_out():
            end.close()
        self._close_memory()

    def abandon(self) -> None:
        """Give up the ends that are here because of an error: to the other side that is no orderly end."""
        for end in self._take_out():
            end.abandon()
        self._close_memory()

    def _take_out(self) -> list[End]:
        """The ends that are here, which are not any more.  First, because a handler may come here in the middle."""
        self._end_step()
        ends = self._ends()
        self._producer, self._out = _NONE, _NONE
        self._consumer, self._in = _NONE, _NONE
        return ends

    def _close_memory(self) -> None:
        if self.closed:
            _open.discard(self)
            self.memory.close()

    def forked(self) -> None:
        """In a forked child: this is the parent's."""
        self._forked = True
        # First: what a loop of the parent looks at is released next, and gives no room back here.
        for end in self._ends():
            end.forked()
        self._take_out()
        self._close_memory()

    def _check_producer(self) -> None:
        if self._producer is None:
            raise self._no_end(extension.PRODUCER)
        if self._reserved or self._producer.user not in (0, memory.this_thread()):
            raise self._in_use(self._producer)

    def _check_consumer(self) -> None:
        if self._consumer is None:
            raise self._no_end(extension.CONSUMER)
        if self._in_hands or self._consumer.user not in (0, memory.this_thread()):
            raise self._in_use(self._consumer)

    def _no_end(self, role: int) -> QueueMisuse | ForkedTask:
        if self._forked:
            return ForkedTask(
                "this data queue is of the process that forked this one; move an end here as an argument instead"
            )
        if self.closed:
            return QueueMisuse("this data queue was closed here, or both ends were moved away")
        return QueueMisuse(f"the {NAMES[role]} of this data queue is not here: it was moved to another process")

    def _in_use(self, end: End) -> QueueMisuse:
        if end.user == memory.this_thread():
            what = "looked at" if end.role == extension.CONSUMER else "written in place"
            return QueueMisuse(f"an entry of this queue is being {what}; leave that block first", rule="Q21")
        return QueueMisuse(
            f"thread {end.user} waits at the {NAMES[end.role]} of this queue, or has an entry in its hands; an end is"
            " for one thread at a time"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it; an error abandons it, so that nobody takes what was cut off for what has ended."""
        if error is None or (isinstance(error, SystemExit) and not error.code):
            self.close()
        else:
            self.abandon()

    def __del__(self) -> None:
        if self.memory is not None and not self.closed:
            warn(f"unclosed {self!r}", ResourceWarning, stacklevel=1, source=self)
            if _failed:
                return
            self.abandon()

    def __repr__(self) -> str:
        ends = " and ".join(NAMES[end.role] for end in self._ends()) or "closed"
        return f"<{type(self).__name__} of {self.memory.capacity} bytes, {ends}>"

    def __reduce__(self) -> Any:
        raise InvalidArgument(
            "a data queue does not travel as it is: pass queue.move_producer() or queue.move_consumer()"
        )


_open: weakref.WeakSet[DataQueue] = weakref.WeakSet()


def close_all() -> None:
    """Give up every end of this process, in order; for programs and children that end in order."""
    for queue in list(_open):
        queue.close()


_failed = False


def fail() -> None:
    """The process ends by an error: those who have the other ends shall see how, and no end that is closed in order."""
    global _failed
    _failed = True


def close_in_order() -> None:
    """Give up every end, unless the process ends by an error."""
    error = sys.exc_info()[1]
    if getattr(sys, "last_type", None) is not None or (
        error is not None and (not isinstance(error, SystemExit) or error.code)
    ):
        fail()
    if not _failed:
        close_all()


atexit.register(close_in_order)


def _after_fork() -> None:
    for queue in list(_open):
        queue.forked()


os.register_at_fork(after_in_child=_after_fork)


def refusal(ring: Ring, answer: int, size: int) -> CorruptQueue | QueueMisuse | QueueFull:
    """Why an entry of ``size`` bytes was not added."""
    capacity = ring.capacity
    if answer == layout.BROKEN:
        return CorruptQueue(f"head {ring.head} or tail {ring.tail} is outside the ring of {capacity} bytes", rule="Q41")
    if answer == layout.TOO_LARGE or size + layout.ENTRY_HEADER_SIZE > capacity:
        return QueueMisuse(
            f"an entry of {size} bytes never fits into a ring of {capacity}; the largest has"
            f" {max(capacity - layout.ENTRY_HEADER_SIZE, 0)}",
            rule="Q7",
        )
    if answer == layout.STUCK:
        return QueueMisuse(
            f"the ring is empty at {ring.tail} of {capacity} bytes, and an entry of {size} fits neither behind that"
            f" place nor before it, now or later; make the queue with a capacity of {2 * (size + 4)}",
            rule="Q7",
        )
    return QueueFull(f"no room for {size} bytes in one piece: {used(ring)} of {capacity} are used", rule="Q6")


def used(ring: Ring) -> int:
    """Bytes between head and tail, the unused end of a ring that wrapped included, by what the fields say."""
    between: int = ring.tail - ring.head
    return min(max(between + ring.capacity if between < 0 else between, 0), ring.capacity)


def wait_for_entry(consumer: End, end: int) -> None:
    """Wait until the time ``end``: -1 for ever, 0 not at all."""
    if consumer.ring.absence != layout.EMPTY:
        raise absence(consumer.ring)
    left = max(end - now(), 0) if end > 0 else end
    ready = consumer.wait(0, left)
    if consumer.closed:
        raise consumer.closed_meanwhile()
    if not ready:
        if end == 0:
            raise QueueEmpty("there is no entry in the data queue")
        raise TimedOut("no entry came in time", code=c.kIOReturnTimeout)


def absence(ring: Ring) -> QueueEmpty | CorruptQueue:
    """Why there is no entry."""
    if ring.absence == layout.EMPTY:
        return QueueEmpty("there is no entry in the data queue, though its fields said so a moment ago")
    return CorruptQueue(
        f"the entry at {ring.head} leads outside the ring of {ring.capacity} bytes: the producer wrote nonsense",
        rule="Q39",
    )


def now() -> int:
    return memory.now()


def nanoseconds_of(timeout: float | None) -> int:
    """Nanoseconds of a timeout in seconds, -1 for None.

    Raises:
        InvalidArgument: it is negative, or no number.
    """
    if timeout is None:
        return _NEVER
    if not isinstance(timeout, int | float) or not timeout >= 0:
        raise InvalidArgument(f"a timeout is 0 or more seconds, not {timeout!r}")
    # More than a century is for ever.
    return int(timeout * 1e9) if timeout < 4e9 else _NEVER


def until(timeout: float | None) -> int:
    """When a timeout that begins now is over: -1 for never, 0 for at once."""
    nanoseconds = nanoseconds_of(timeout)
    return nanoseconds if nanoseconds <= 0 else now() + nanoseconds


def checked_size(size: int) -> int:
    """A size that an entry can have, fit or not.

    Raises:
        QueueMisuse: it is negative or does not fit into 32 bits.
    """
    number = operator.index(size)
    if not 0 <= number <= layout.MAX_QUEUE_SIZE:
        raise QueueMisuse(f"an entry has 0 to {layout.MAX_ENTRY_SIZE} bytes, not {size}")
    return number
