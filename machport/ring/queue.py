# cython: annotation_typing=False, auto_pickle=False
# The annotations speak to readers and mypy; the C types are in queue.pxd.
"""The ring: variable-size entries between one producer and one consumer, in memory that neither has to trust.

For ``machport.dataqueue`` and for the trap path of ``machport.client`` and ``machport.server``.  Knows memory
and arithmetic; never knows descriptors, ports, waiting, or who is at the other side.  Rule numbers are those
of spec/dataqueue.md.

One source, two forms.  Compiled (with the types of ``queue.pxd`` and the memory order of ``memory.pxd``) it
is right between processes.  Interpreted it is right between threads of one process, one thread for each side.

Nothing that the other side writes is believed.  ``head`` and ``tail`` are read once per operation into
locals, a size once into this object's own fields, and each is compared with the capacity before it is used
(Q13, Q39 to Q42).

No operation but :meth:`Ring.look` lets go of the interpreter lock, not even to copy.  So two threads that use
the same side of a compiled ring take turns, and need no lock of their own.

An entry can be lent: its room is not given back as long as somebody looks at it, and entries behind it can be taken
meanwhile.  The field ``head`` stays before the oldest entry that is lent, so the producer cannot tell from it that the
ring has been emptied; whoever lends and then sleeps must be woken by another sign than Q27's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from machport.abi.errors import QueueMisuse
from machport.ring import layout, lending, memory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from _typeshed import ReadableBuffer, WriteableBuffer


def is_compiled() -> bool:
    """Whether the native form is loaded, the only one that works between processes."""
    return memory.NATIVE != 0


def place(head: int, tail: int, size: int, capacity: int) -> int:
    """Where an entry of ``size`` bytes goes: its offset in the ring, or -1 if there is no room (Q4 to Q7).

    Pure arithmetic for ``head`` and ``tail`` up to ``capacity``; all sums stay far below 64 bits (Q10).
    """
    need = size + layout.ENTRY_HEADER_SIZE
    if tail < head:
        return tail if head - tail > need else -1
    if tail + need <= capacity:
        return tail
    return 0 if head > need else -1


#: More than a counter will ever count to, and what a producer may have been answered last.
_COUNT_MAX = 2**63 - 1
_REFUSALS = (layout.ADDED, layout.FULL, layout.BROKEN, layout.TOO_LARGE)

#: In the place of a loan where there is none; whoever reads it looks.
_NONE: Any = None


class Loan:
    """Where an entry that is lent began, and up to where its room is free when it and all before it are over."""

    def __init__(self, begin: int, end: int) -> None:
        self.begin = begin
        self.end = end
        self.last = True
        self.over = False
        self.later: Loan = _NONE


def _ended(ring: Any, loan: Any) -> None:
    """Nobody looks at a lent entry any more."""
    lender: Ring = ring
    lender._end(loan)


class Ring:
    """One ring in memory that somebody else may write to at any moment.

    The memory stays mapped as long as this object or a view that it gave lives, whoever closes what.
    An object can serve either side or both; it counts what was done through it.

    Attributes:
        capacity: bytes of the ring, as trusted at construction; the field in the memory is never read (Q36).
        enqueued: entries put into the ring.
        dequeued: entries taken or skipped.
        wakes: answers with ``WAKE``.
        refused: answers with ``FULL``, ``BROKEN`` or ``TOO_LARGE``.
        refusal: the last of these answers; tells why :meth:`reserve` returned None.
        absence: ``EMPTY`` or ``CORRUPT``: why the consumer's last call gave nothing, or less than asked.
        peak: the most bytes between head and tail that an operation of this object has seen.
        lent: how many entries are lent.
        when_room: called when the end of a loan has given room back; in any thread, and must not raise.
    """

    def __init__(
        self, buffer: WriteableBuffer, capacity: int, *, one_process: bool = False, spread: bool = False
    ) -> None:
        """Use ``buffer``: 12 bytes of header, ``capacity`` bytes of ring, and perhaps an appendix.

        Args:
            buffer: writable contiguous bytes, for example a shared ``mmap``.
            capacity: the trusted Q, in bytes.
            one_process: both sides are in this process.  The interpreted form works in no other case.
            spread: a ring of machport's own, not of the published layout: a header of 128 bytes, in which the sides
                do not share a cache line.

        Raises:
            QueueMisuse: the buffer cannot hold such a ring, or the interpreted form was asked to serve two
                processes.
        """
        if not (memory.NATIVE or one_process):
            raise QueueMisuse(
                "the interpreted ring has no memory order between processes: build the native part"
                " (`python setup.py build_ext --inplace`); or pass one_process=True if there is only one",
                rule="Q12",
            )
        view = memoryview(buffer).cast("B")
        if view.readonly:
            raise QueueMisuse("the memory of a ring must be writable; this buffer is read-only")
        header = layout.SPREAD_RING if spread else layout.MEMORY_HEADER_SIZE
        if not 0 <= capacity <= layout.MAX_QUEUE_SIZE or header + capacity > view.nbytes:
            raise QueueMisuse(
                f"a ring of {capacity} bytes needs {header} + {capacity} bytes of memory,"
                f" and this buffer has {view.nbytes}",
                rule="Q36",
            )
        if not memory.aligned(memory.address(view)):
            raise QueueMisuse("the memory of a ring must begin at a multiple of 4 bytes, as any mapping does")
        self._view = view
        self._entries = view.toreadonly()
        self._memory = memory.address(view)
        self.capacity = capacity
        self._head_at = 0 if spread else layout.HEAD
        self._tail_at = layout.SPREAD_TAIL if spread else layout.TAIL
        self._ring_at = header
        self.enqueued = 0
        self.dequeued = 0
        self.wakes = 0
        self.refused = 0
        self.refusal = layout.ADDED
        self.absence = layout.EMPTY
        self._entry_at = 0
        self._entry_size = 0
        self._reserved_at = -1
        self._reserved_size = 0
        self._reserved_tail = 0
        self.peak = 0
        self.lent = 0
        self.when_room: Callable[[], object] | None = None
        self._oldest: Loan = _NONE
        self._newest: Loan = _NONE
        self._next = 0

    # Another object takes this one's place

    def state(self) -> list[int]:
        """What this object remembers that the memory does not; for ``resume`` of an object in another process.

        Raises:
            QueueMisuse: entries are lent, and their views cannot go to another process.
        """
        if self.lent:
            raise QueueMisuse("entries of this ring are lent; let go of their views first")
        return [self.enqueued, self.dequeued, self.wakes, self.refused, self.refusal, self.absence, self.peak]

    def resume(self, state: Sequence[int]) -> None:
        """Go on where the object was that ``state`` is of; that one must not be used any more.

        Raises:
            QueueMisuse: it is not the state of a ring.
        """
        good = type(state) in (list, tuple) and len(state) == 7 and all(type(number) is int for number in state)
        good = good and all(0 <= state[index] <= _COUNT_MAX for index in (0, 1, 2, 3, 6))
        if not good or state[4] not in _REFUSALS or state[5] not in (layout.EMPTY, layout.CORRUPT):
            raise QueueMisuse("this is not the state of a ring")
        enqueued, dequeued, wakes, refused, refusal, absence, peak = state
        self.enqueued = enqueued
        self.dequeued = dequeued
        self.wakes = wakes
        self.refused = refused
        self.refusal = refusal
        self.absence = absence
        self.peak = peak

    # Looking without taking part

    @property
    def head(self) -> int:
        """The field as it stands; a hostile consumer may have written anything."""
        return memory.load_relaxed(self._memory, self._head_at)

    @property
    def tail(self) -> int:
        """The field as it stands; a hostile producer may have written anything."""
        return memory.load_relaxed(self._memory, self._tail_at)

    # The producer

    def enqueue(self, data: ReadableBuffer) -> int:
        """Copy ``data`` into the ring as one entry.

        Returns:
            ``ADDED``, or ``WAKE`` if it was added and the consumer has to be told (Q27); ``FULL``, ``BROKEN``
            or ``TOO_LARGE`` if nothing was written.
        """
        # First, because making a view may run code of the caller's, and that could use this ring.
        source = memory.readable(data)
        size = memory.length(source)
        if size > layout.MAX_ENTRY_SIZE:
            return self._refuse(layout.TOO_LARGE)
        tail = memory.load_relaxed(self._memory, self._tail_at)  # our own
        head = memory.load_acquire(self._memory, self._head_at)  # pairs with the release in _release
        if head > self.capacity or tail > self.capacity:
            return self._refuse(layout.BROKEN)
        at = place(head, tail, size, self.capacity)
        if at < 0:
            return self._refuse(layout.FULL)
        memory.copy_in(self._memory, self._ring_at + layout.ENTRY_HEADER_SIZE + at, source, size)
        return self._publish(head, tail, at, size)

    def enqueue_parts(self, parts: Sequence[ReadableBuffer]) -> int:
        """Copy ``parts``, one behind the other, into the ring as one entry; answers as :meth:`enqueue` does."""
        sources = memory.readable_parts(parts)
        size = 0
        for source in sources:
            size += memory.length(source)
        if size > layout.MAX_ENTRY_SIZE:
            return self._refuse(layout.TOO_LARGE)
        tail = memory.load_relaxed(self._memory, self._tail_at)  # our own
        head = memory.load_acquire(self._memory, self._head_at)  # pairs with the release in _release
        if head > self.capacity or tail > self.capacity:
            return self._refuse(layout.BROKEN)
        at = place(head, tail, size, self.capacity)
        if at < 0:
            return self._refuse(layout.FULL)
        target = self._ring_at + layout.ENTRY_HEADER_SIZE + at
        for source in sources:
            memory.copy_in(self._memory, target, source, memory.length(source))
            target += memory.length(source)
        return self._publish(head, tail, at, size)

    def enqueue_blank(self, size: int) -> int:
        """Add an entry of ``size`` bytes with undefined content; answers as :meth:`enqueue` does (Q26)."""
        if size > layout.MAX_ENTRY_SIZE:
            return self._refuse(layout.TOO_LARGE)
        tail = memory.load_relaxed(self._memory, self._tail_at)  # our own
        head = memory.load_acquire(self._memory, self._head_at)  # pairs with the release in _release
        if head > self.capacity or tail > self.capacity:
            return self._refuse(layout.BROKEN)
        at = place(head, tail, size, self.capacity)
        if at < 0:
            return self._refuse(layout.FULL)
        return self._publish(head, tail, at, size)

    def enqueue_many(self, entries: Sequence[ReadableBuffer]) -> tuple[int, int]:
        """Add as many of ``entries`` as fit, in order, and publish them together.

        Returns:
            How many were added, counted from the first, and the answer: ``ADDED`` or ``WAKE``, plus what
            refused the next one if there is a next one.
        """
        sources = memory.readable_parts(entries)
        tail = memory.load_relaxed(self._memory, self._tail_at)  # our own
        head = memory.load_acquire(self._memory, self._head_at)  # pairs with the release in _release
        if head > self.capacity or tail > self.capacity:
            return 0, self._refuse(layout.BROKEN) if sources else layout.ADDED
        first = tail
        count = 0
        answer = layout.ADDED
        for source in sources:
            size = memory.length(source)
            if size > layout.MAX_ENTRY_SIZE:
                answer = self._refuse(layout.TOO_LARGE)
                break
            at = place(head, tail, size, self.capacity)
            if at < 0:
                answer = self._refuse(layout.FULL)
                break
            memory.copy_in(self._memory, self._ring_at + layout.ENTRY_HEADER_SIZE + at, source, size)
            self._write_size(tail, at, size)
            tail = at + layout.ENTRY_HEADER_SIZE + size
            count += 1
        if count:
            # The consumer never saw the tails between, so Q27's "old tail" is that before the batch.
            memory.store_release(self._memory, self._tail_at, tail)  # pairs with the acquire in _find
            self.enqueued += count
            self._note(head, tail)
            if self._consumer_may_sleep(head, first):
                answer |= layout.WAKE
        return count, answer

    def reserve(self, size: int) -> memoryview | None:
        """Room for an entry of ``size`` bytes, to be filled in place and published by :meth:`commit`.

        Until then the consumer sees nothing, and a producer that is killed has left nothing.  Any other
        enqueue takes the same place and so cancels the reservation.

        Returns:
            A writable view, or None with the answer in ``refusal``.
        """
        self._reserved_at = -1
        if size > layout.MAX_ENTRY_SIZE:
            self._refuse(layout.TOO_LARGE)
            return None
        tail = memory.load_relaxed(self._memory, self._tail_at)  # our own
        head = memory.load_acquire(self._memory, self._head_at)  # pairs with the release in _release
        if head > self.capacity or tail > self.capacity:
            self._refuse(layout.BROKEN)
            return None
        at = place(head, tail, size, self.capacity)
        if at < 0:
            self._refuse(layout.FULL)
            return None
        self._reserved_at = at
        self._reserved_size = size
        self._reserved_tail = tail
        start = self._ring_at + layout.ENTRY_HEADER_SIZE + at
        return self._view[start : start + size]

    def commit(self) -> int:
        """Publish the entry that :meth:`reserve` made room for: ``ADDED`` or ``WAKE``.

        Raises:
            QueueMisuse: nothing is reserved, or another entry has taken the room since.
        """
        tail = memory.load_relaxed(self._memory, self._tail_at)  # our own
        if self._reserved_at < 0 or self._reserved_tail != tail:
            raise QueueMisuse("no room is reserved; commit once for each reserve, with no enqueue between")
        head = memory.load_acquire(self._memory, self._head_at)  # pairs with the release in _release
        at = self._reserved_at
        self._reserved_at = -1
        return self._publish(head, tail, at, self._reserved_size)

    def fits(self, size: int) -> int:
        """Whether an entry of ``size`` bytes would be added now: ``ADDED``, or what would refuse it.

        ``STUCK`` where it is refused for ever, because the ring is too small or empty at such a place.
        """
        if size > layout.MAX_ENTRY_SIZE:
            return layout.TOO_LARGE
        tail = memory.load_relaxed(self._memory, self._tail_at)  # our own
        head = memory.load_acquire(self._memory, self._head_at)  # pairs with the release in _release
        if head > self.capacity or tail > self.capacity:
            return layout.BROKEN
        if place(head, tail, size, self.capacity) >= 0:
            return layout.ADDED
        never = head == tail or size + layout.ENTRY_HEADER_SIZE > self.capacity
        return layout.STUCK if never else layout.FULL

    def look_for_room(self, size: int, nanoseconds: int) -> bool:
        """Wait until the consumer gives room back, without sleeping, for at most about this time; whether it is enough.

        Lets go of the interpreter lock and handles signals as ``look`` does.
        """
        head = memory.load_relaxed(self._memory, self._head_at)  # what fits loads may be newer, and then this is enough
        if self.fits(size) != layout.FULL:
            return True
        if not memory.look(self._memory, self._head_at, head, nanoseconds):
            memory.check_signals()
        return self.fits(size) != layout.FULL

    def _publish(self, head: int, tail: int, at: int, size: int) -> int:
        """Make the entry at ``at``, whose data is in place, visible."""
        self._write_size(tail, at, size)
        tail_now = at + layout.ENTRY_HEADER_SIZE + size
        memory.store_release(self._memory, self._tail_at, tail_now)  # pairs with the acquire in _find
        self.enqueued += 1
        self._note(head, tail_now)
        return layout.WAKE if self._consumer_may_sleep(head, tail) else layout.ADDED

    def _write_size(self, tail: int, at: int, size: int) -> None:
        memory.put_u32(self._memory, self._ring_at + at, size)
        if at != tail and self.capacity - tail >= layout.ENTRY_HEADER_SIZE:
            # The marker: a size that cannot fit here sends the reader to offset 0 (Q5, Q9).
            memory.put_u32(self._memory, self._ring_at + tail, size)

    def _consumer_may_sleep(self, head: int, tail: int) -> bool:
        """After publishing behind the old ``tail``: could the consumer have seen an empty ring (Q27)?"""
        if head != tail:
            # Pairs with the fence in _release: either the consumer's next look finds our tail, or we find its
            # head.
            memory.fence()
            if memory.load_relaxed(self._memory, self._head_at) != tail:
                return False
        self.wakes += 1
        return True

    def _note(self, head: int, tail: int) -> None:
        """Remember how full the ring was, the unused end of a ring that wrapped included.

        The other side's field may be anything; who lets it lie outside the ring gets no more than a full one.
        """
        used = tail - head if tail >= head else tail + self.capacity - min(head, self.capacity)
        self.peak = max(self.peak, min(used, self.capacity))

    def _refuse(self, answer: int) -> int:
        self.refused += 1
        self.refusal = answer
        return answer

    # The consumer

    def data_available(self) -> bool:
        """Whether head and tail differ; says nothing about what stands there (Q19)."""
        head = self._first()
        tail = memory.load_acquire(self._memory, self._tail_at)  # pairs with the release in _publish
        return head != tail

    def look(self, nanoseconds: int) -> bool:
        """Wait for an entry without sleeping, for at most about this time; whether there is one.

        Lets go of the processor again and again, and of the interpreter lock, unless the entry comes at once.  Signals
        that arrived meanwhile are handled before this returns False, and what their handlers raise is raised.
        """
        head = self._first()
        if memory.look(self._memory, self._tail_at, head, nanoseconds):
            return True
        memory.check_signals()
        return False

    def next_size(self) -> int:
        """Bytes of the next entry, which stays; ``EMPTY`` or ``CORRUPT`` if there is none."""
        head = self._first()
        tail = memory.load_acquire(self._memory, self._tail_at)  # pairs with the release in _publish
        return self._entry_size if self._find(head, tail) else self.absence

    def unread(self) -> int:
        """How many entries are in the ring; for the producer, who asks how far the consumer came.

        Counts the entries before anything that is not one, so a consumer that writes nonsense deceives only itself.
        """
        head = memory.load_acquire(self._memory, self._head_at)  # pairs with the release in _release
        tail = memory.load_relaxed(self._memory, self._tail_at)  # our own
        count = 0
        left = self.capacity
        while self._find(head, tail):
            if self._entry_size + layout.ENTRY_HEADER_SIZE > left:
                break
            left -= self._entry_size + layout.ENTRY_HEADER_SIZE
            head = self._entry_at + self._entry_size - self._ring_at
            count += 1
        return count

    def peek(self) -> memoryview | None:
        """The next entry in place, read-only, or None; nothing moves (Q20 to Q22).

        The view stays readable for ever.  Its content is the entry's only until the entry is dequeued, and a
        hostile producer can change it even before: whoever distrusts it copies before checking.
        """
        head = self._first()
        tail = memory.load_acquire(self._memory, self._tail_at)  # pairs with the release in _publish
        if not self._find(head, tail):
            return None
        return self._entries[self._entry_at : self._entry_at + self._entry_size]

    def dequeue(self) -> bytes | None:
        """Take the next entry, or None with the reason in ``absence``."""
        head = self._first()
        tail = memory.load_acquire(self._memory, self._tail_at)  # pairs with the release in _publish
        if not self._find(head, tail):
            return None
        data = memory.take(self._memory, self._entry_at, self._entry_size)
        self._note(head, tail)
        self._consume(tail)
        return data

    def dequeue_into(self, buffer: WriteableBuffer) -> int:
        """Copy the next entry to the beginning of ``buffer`` and take it, if it fits.

        Returns:
            The entry's size in bytes; ``EMPTY`` or ``CORRUPT`` if there is none.  A size larger than the
            buffer means that nothing was copied and that the entry is still next (Q23).
        """
        target = memory.writable(buffer)
        head = self._first()
        tail = memory.load_acquire(self._memory, self._tail_at)  # pairs with the release in _publish
        if not self._find(head, tail):
            return self.absence
        if self._entry_size <= memory.length(target):
            memory.copy_out(self._memory, self._entry_at, target, self._entry_size)
            self._note(head, tail)
            self._consume(tail)
        return self._entry_size

    def lend(self) -> memoryview | None:
        """Take the next entry without a copy, or None with the reason in ``absence``.

        Its room is given back when this view, and whatever was made of it, is gone, and those of all entries before it.
        Any number of entries can be lent.  The view is read-only; a hostile producer can change what it shows.
        """
        head = self._first()
        tail = memory.load_acquire(self._memory, self._tail_at)  # pairs with the release in _publish
        if not self._find(head, tail):
            return None
        self._note(head, tail)
        loan = Loan(head, self._entry_at + self._entry_size - self._ring_at)
        view: memoryview = lending.lend(self._memory, self._entry_at, self._entry_size, self, loan, _ended)
        if self._oldest is None:
            self._oldest = loan
        else:
            self._newest.later = loan
        self._newest = loan
        self._next = loan.end
        self.lent += 1
        self.dequeued += 1
        return view

    def put_back(self) -> None:
        """Let the entry that was lent last, which somebody still looks at, be the next one again."""
        loan = self._newest
        if loan is None or loan.over or not loan.last:
            raise QueueMisuse("no entry is lent that could be put back")
        self._next = loan.end = loan.begin
        loan.last = False
        self.dequeued -= 1

    def skip(self) -> int:
        """Take the next entry unseen: its size in bytes, or ``EMPTY`` or ``CORRUPT``."""
        head = self._first()
        tail = memory.load_acquire(self._memory, self._tail_at)  # pairs with the release in _publish
        if not self._find(head, tail):
            return self.absence
        self._consume(tail)
        return self._entry_size

    def dequeue_many(self, limit: int = layout.MAX_QUEUE_SIZE) -> list[bytes]:
        """Take up to ``limit`` entries and give their room back together.

        Takes what had been published when it began; a corrupt entry ends the list, with the reason in
        ``absence``.
        """
        batch: list[bytes] = []
        head = self._first()
        tail = memory.load_acquire(self._memory, self._tail_at)  # pairs with the release in _publish
        taken = 0
        self._note(head, tail)
        # A tail that no sequence of entries reaches would lead round the ring for ever; honest entries of one
        # moment never take more than the ring.
        left = self.capacity
        while taken < limit and self._find(head, tail):
            if self._entry_size + layout.ENTRY_HEADER_SIZE > left:
                self.absence = layout.CORRUPT
                break
            left -= self._entry_size + layout.ENTRY_HEADER_SIZE
            batch.append(memory.take(self._memory, self._entry_at, self._entry_size))
            head = self._entry_at + self._entry_size - self._ring_at
            taken += 1
        if taken:
            self._release(head, tail)
            self.dequeued += taken
        return batch

    def _first(self) -> int:
        """Where the next entry is looked for: at head, or behind what is lent."""
        if self._oldest is None:
            return memory.load_relaxed(self._memory, self._head_at)  # our own
        return self._next

    def forget_loans(self) -> None:
        """In a forked child: what is lent is the parent's, and the end of a view here gives no room back."""
        self._oldest = self._newest = _NONE

    def _end(self, loan: Loan) -> None:
        """Nobody looks at an entry any more: give its room back, if no older one is looked at."""
        loan.over = True
        self.lent -= 1
        if self._oldest is not loan:
            return
        head = loan.end
        loan = loan.later
        while loan is not None and loan.over:
            head = loan.end
            loan = loan.later
        self._oldest = loan
        if loan is None:
            self._newest = _NONE
        memory.store_release(self._memory, self._head_at, head)  # pairs with the producer's acquire of head
        memory.fence()  # as in _release: the ring may look empty now
        if self.when_room is not None:
            self.when_room()

    def _find(self, head: int, tail: int) -> bool:
        """Find the next entry's data: where it is and its size, both checked; or the reason why not."""
        if head == tail:
            self.absence = layout.EMPTY
            return False
        if head <= self.capacity and self._find_at(head):
            return True
        self.absence = layout.CORRUPT
        return False

    def _find_at(self, head: int) -> bool:
        # With fewer bytes left than a size takes, reading one would leave the ring (Q8).
        if self.capacity - head >= layout.ENTRY_HEADER_SIZE:
            size = memory.get_u32(self._memory, self._ring_at + head)
            if size <= self.capacity - head - layout.ENTRY_HEADER_SIZE:
                self._entry_at = self._ring_at + head + layout.ENTRY_HEADER_SIZE
                self._entry_size = size
                return True
        # The producer wrapped: what stands here is a marker or nothing, and the entry is at 0 (Q6, Q9).
        if self.capacity < layout.ENTRY_HEADER_SIZE:
            return False
        size = memory.get_u32(self._memory, self._ring_at)
        self._entry_at = self._ring_at + layout.ENTRY_HEADER_SIZE
        self._entry_size = size
        return size <= self.capacity - layout.ENTRY_HEADER_SIZE

    def _consume(self, tail: int) -> None:
        """Give the room of the entry found back to the producer."""
        self._release(self._entry_at + self._entry_size - self._ring_at, tail)
        self.dequeued += 1

    def _release(self, head: int, tail: int) -> None:
        if self._oldest is not None:
            self._next = self._newest.end = head
            self._newest.last = False
            return
        memory.store_release(self._memory, self._head_at, head)  # pairs with the producer's acquire of head
        if head == tail:
            # The ring looks empty and the consumer may sleep now.  Pairs with the fence in
            # _consumer_may_sleep (Q25).
            memory.fence()
