"""When the calls that threads wait in are over: a heap of times, and whose they are.

Times are those of the monotonic clock, in seconds; the caller looks at it.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from typing import Final

from machport.server.connection import Channel

#: Times of calls that were served before, which are kept until they would come or are more than this.
_STALE: Final = 1000


class Deadlines:
    """The deadlines of all waiting calls.  A channel has at most one, in its ``deadline``."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Channel]] = []
        self._order = itertools.count()
        self._compact_at = _STALE

    def add(self, channel: Channel, time: float) -> None:
        """The channel's call is over at ``time``, unless its deadline changes before."""
        channel.deadline = time
        heapq.heappush(self._heap, (time, next(self._order), channel))
        if len(self._heap) > self._compact_at:
            self._heap = [entry for entry in self._heap if entry[2].deadline == entry[0]]
            heapq.heapify(self._heap)
            self._compact_at = max(_STALE, 2 * len(self._heap))

    def next(self) -> float | None:
        """The earliest time that may matter; None if there is none."""
        return self._heap[0][0] if self._heap else None

    def due(self, now: float) -> Iterator[Channel]:
        """Channels whose deadline has come; each has none any more."""
        while self._heap and self._heap[0][0] <= now:
            time, _, channel = heapq.heappop(self._heap)
            if channel.deadline == time:
                channel.deadline = None
                yield channel
