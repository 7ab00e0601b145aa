"""The daemon's log to its standard error, which never holds it up and never ends it.

A pipe that nobody reads, a full disk and a closed descriptor cost lines of the log, and nothing else; how many they
were is said with the next line that can be written.  Many warnings of one kind in a short time become one and a count.
"""

from __future__ import annotations

import logging
import os
import select
import time
from collections.abc import Callable
from typing import Final

#: Bytes that a pipe takes whole if it takes anything.
_LINE_MAX: Final = 4096
#: Warnings of one kind that are written in so many seconds.
_MANY: Final = 20
_PAUSE: Final = 10.0


class SteadyHandler(logging.Handler):
    """Writes each record to a descriptor if that can be done at once.

    Args:
        clock: seconds, of which only differences count.
    """

    def __init__(self, descriptor: int = 2, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._clock = clock
        self._lost = 0
        #: Since when a kind is counted, how many were written and how many were not.
        self._kinds: dict[str, tuple[float, int, int]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, or count it."""
        try:
            more = self._of_kind(record)
            if more < 0:
                return
            text = self.format(record) + (f" (and {more} more of this kind)" if more else "")
            if self._lost:
                text = f"{self._lost} lines of this log were lost\n{text}"
            line = f"{text}\n".encode(errors="replace")
            for at in range(0, len(line), _LINE_MAX):
                if not self._write(line[at : at + _LINE_MAX]):
                    self._lost += 1
                    return
            self._lost = 0
        except Exception:
            self._lost += 1

    def _of_kind(self, record: logging.LogRecord) -> int:
        """How many like it were left out before; -1 if this one is to be, too."""
        if record.levelno < logging.WARNING or record.exc_info:
            return 0
        now = self._clock()
        since, count, more = self._kinds.get(record.msg, (now, 0, 0))
        if now - since >= _PAUSE:
            since, count = now, 0
        if count >= _MANY:
            self._kinds[record.msg] = since, count, more + 1
            return -1
        self._kinds[record.msg] = since, count + 1, 0
        return more

    def _write(self, line: bytes) -> bool:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        if not any(events & select.POLLOUT for _, events in poll.poll(0)):
            return False
        return os.write(self._descriptor, line) == len(line)
