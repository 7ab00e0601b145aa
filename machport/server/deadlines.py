"""When the calls that threads wait in are over: a heap of times, and whose they are.

Times are those of the monotonic clock, in seconds; the caller looks at it.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from typing import Final

from machport.server.connection import Channel, TaggedCall

#: Who waits: a thread in its one call, or a call with a tag.
Waiting = Channel | TaggedCall
#: Times of calls that were served before, which are kept until they would come or are more than this.
_STALE: Final = 1000


class Deadlines:
    """The deadlines of all waiting calls.  Who waits has at most one, in its ``deadline``."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Waiting]] = []
        self._order = itertools.count()
        self._compact_at = _STALE

    def add(self, waiting: Waiting, time: float) -> None:
        """The call is over at ``time``, unless its deadline changes before."""
        waiting.deadline = time
        heapq.heappush(self._heap, (time, next(self._order), waiting))
        if len(self._heap) > self._compact_at:
            self._heap = [entry for entry in self._heap if entry[2].deadline == entry[0]]
            heapq.heapify(self._heap)
            self._compact_at = max(_STALE, 2 * len(self._heap))

    def next(self) -> float | None:
        """The earliest time that may matter; None if there is none."""
        return self._heap[0][0] if self._heap else None

    def due(self, now: float) -> Iterator[Waiting]:
        """Whose deadline has come; each has none any more."""
        while self._heap and self._heap[0][0] <= now:
            time, _, waiting = heapq.heappop(self._heap)
            if waiting.deadline == time:
                waiting.deadline = None
                yield waiting
