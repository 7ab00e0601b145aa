"""The ring of the specification, restated as plainly as possible: what the tests compare both forms with.

Written from the tables of spec/dataqueue.md, section 2; shares no line with the ring.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


@dataclass
class ModelRing:
    """A ring whose entries are remembered with their places, not found by reading memory."""

    capacity: int
    head: int = 0
    tail: int = 0
    entries: deque[tuple[int, bytes]] = field(default_factory=deque)

    def where(self, size: int) -> int | None:
        """The offset that the table of cases A, B and C gives, or None for full."""
        e, q, head, tail = size + 4, self.capacity, self.head, self.tail
        if tail >= head and tail + e <= q and tail + e < 2**32:
            return tail
        if tail >= head and head > e:
            return 0
        if tail < head and head - tail > e:
            return tail
        return None

    def enqueue(self, data: bytes) -> tuple[bool, bool]:
        """Whether it was added, and whether the consumer must be told."""
        at = self.where(len(data))
        if at is None:
            return False, False
        was_empty = self.head == self.tail
        self.entries.append((at, data))
        self.tail = at + 4 + len(data)
        return True, was_empty

    def dequeue(self) -> bytes | None:
        if not self.entries:
            return None
        at, data = self.entries.popleft()
        self.head = at + 4 + len(data)
        return data

    def peek(self) -> bytes | None:
        return self.entries[0][1] if self.entries else None
