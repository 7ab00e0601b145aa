"""Closing files of clients, which may take as long as a client likes: a socket lingers, a file system does not answer.

The loop hands them over, and as a rule they are closed when it goes on.  Beside each thread that closes a file another
one is free for the next, so a file that takes its time holds up nobody.  The last thread of those that there may be has
nobody beside it: it turns the lingering of sockets off.  Others leave it, as it is an option of everybody who has the
socket.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Final

from machport.server.log import event

_log: Final = logging.getLogger("machport.daemon")
#: Seconds that the loop gives a close to be done with; it takes a thousandth of that.
_GRACE: Final = 0.01
#: Threads at most; without files that take their time there are two.
THREADS_MAX: Final = 16
#: SO_LINGER that is off.
_NO_LINGERING: Final = bytes(8)


class _Batch:
    """Files that are closed together: those that no thread has begun with, and how many are not closed yet."""

    def __init__(self, files: Sequence[int]) -> None:
        self.files = deque(files)
        self.left = len(files)
        self.is_late = False
        self.done = threading.Event()


class Closer:
    """Threads that close descriptors, started as they are needed.  Nobody waits for them at the end.

    Args:
        close: closes one.
    """

    def __init__(self, close: Callable[[int], object] = os.close) -> None:
        self._close = close
        self._queue: SimpleQueue[_Batch] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._free = 0
        self._is_held_up = False

    def close(self, descriptors: Sequence[int]) -> None:
        """Close files that came from a client."""
        if not descriptors:
            return
        if not self._threads:
            self._start()
        batch = _Batch(descriptors)
        # When every thread is held up, the loop is not.
        batch.is_late = self._is_held_up and not self._free
        self._queue.put(batch)
        if batch.is_late:
            return
        if batch.done.wait(_GRACE):
            self._is_held_up = False
            return
        self._is_held_up = not self._free
        if self._is_held_up:
            says = "files of clients wait to be closed: %d threads are held up by others"
            _log.warning(says, self._threads, extra=event("closing_held_up", threads=self._threads))
        # Another thread goes on with the rest.
        batch.is_late = True
        self._queue.put(batch)

    def _start(self) -> None:
        # The system may have none; it is asked again for the next file.
        with contextlib.suppress(RuntimeError):
            threading.Thread(target=self._run, name="closer", daemon=True).start()
            self._threads += 1
            self._free += 1

    def _run(self) -> None:
        while True:
            batch = self._queue.get()
            with self._lock:
                self._free -= 1
                if not self._free and self._threads < THREADS_MAX:
                    self._start()
                is_last = not self._free
            closed = self._close_files(batch, is_last)
            with self._lock:
                self._free += 1
                batch.left -= closed
                if not batch.left:
                    batch.done.set()

    def _close_files(self, batch: _Batch, is_last: bool) -> int:
        """Close what nobody else has begun with; how many files that were."""
        closed = 0
        with contextlib.suppress(IndexError):
            while True:
                descriptor = batch.files.popleft()
                if batch.is_late and batch.files:
                    self._queue.put(batch)
                if is_last:
                    _stop_lingering(descriptor)
                with contextlib.suppress(OSError):
                    self._close(descriptor)
                closed += 1
        return closed


def _stop_lingering(descriptor: int) -> None:
    with contextlib.suppress(OSError):
        sock = socket.socket(fileno=descriptor)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGERING)
        finally:
            sock.detach()
