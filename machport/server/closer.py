"""Closing files of clients, which may take as long as a client likes: a socket can be made to linger.

The loop hands them over and goes on.  As a rule they are closed when it does; while one lingers, the rest wait for it.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Sequence
from queue import SimpleQueue
from typing import Final

#: Seconds that the loop gives a close to be done with; it takes a thousandth of that.
_GRACE: Final = 0.01


class Closer:
    """A thread that closes descriptors, started with the first of them."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[tuple[Sequence[int], threading.Event]] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._behind: threading.Event | None = None

    def close(self, descriptors: Sequence[int]) -> None:
        """Close files that came from a client."""
        if not descriptors:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="closer", daemon=True)
            self._thread.start()
        done = threading.Event()
        self._queue.put((descriptors, done))
        # A file that lingers is waited for once, not once for each that comes after it.
        if self._behind is None or self._behind.is_set():
            self._behind = None if done.wait(_GRACE) else done

    def _run(self) -> None:
        while True:
            descriptors, done = self._queue.get()
            for descriptor in descriptors:
                with contextlib.suppress(OSError):
                    os.close(descriptor)
            done.set()
