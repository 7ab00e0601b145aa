"""The daemon's log: events with fields, one line each, which never hold it up.

An event has a name and fields that stay as they are from version to version; its words are for people.  Where the log
goes to may be a pipe that nobody reads, or be closed: such lines are dropped, and the next one that can be written
says how many.  Many warnings of one kind in a short time become one and a count.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from machport.server.outlet import Outlet

NAME: Final = "machport.daemon"
FORMATS: Final = ("text", "json")
LEVELS: Final = ("debug", "info", "warning", "error")
#: Warnings of one kind that are written in so many seconds.
_MANY: Final = 20
_PAUSE: Final = 10.0


def event(name: str, **fields: object) -> Mapping[str, Any]:
    """The ``extra`` of a log record: which event it is, and its fields."""
    return {"event": name, "fields": fields}


class JsonFormatter(logging.Formatter):
    """A line as an object: time, level, event, its fields, and the words that the text has."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "time": round(record.created, 6),
            "level": record.levelname.lower(),
            "event": getattr(record, "event", "message"),
            **getattr(record, "fields", {}),
            "message": record.getMessage(),
        }
        for more in ("repeated", "dropped"):
            if count := getattr(record, more, 0):
                fields[more] = count
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str)


class TextFormatter(logging.Formatter):
    """A line for people."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(name)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if repeated := getattr(record, "repeated", 0):
            text += f" (and {repeated} more of this kind)"
        if dropped := getattr(record, "dropped", 0):
            text += f" ({dropped} lines before this one were dropped)"
        return text


class Floods(logging.Filter):
    """Lets pass so many warnings of one kind in some seconds, and all else; whoever does harm shall not fill the disk.

    A kind is a text without its values.  Faults, which have tracebacks, always pass.

    Args:
        clock: seconds, of which only differences count.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        #: Since when a kind is counted, how many passed and how many did not.
        self._kinds: dict[str, tuple[float, int, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING or record.exc_info:
            return True
        now = self._clock()
        since, passed, held = self._kinds.get(record.msg, (now, 0, 0))
        if now - since >= _PAUSE:
            since, passed = now, 0
        if passed >= _MANY:
            self._kinds[record.msg] = since, passed, held + 1
            return False
        self._kinds[record.msg] = since, passed + 1, 0
        record.repeated = held
        return True


class Lines(logging.Handler):
    """Writes lines to a descriptor as long as that takes them at once.

    Attributes:
        written, dropped: how many lines.
    """

    def __init__(self) -> None:
        super().__init__()
        self.written = 0
        self.dropped = 0
        self._untold = 0
        self._rest = b""
        self._outlet: Outlet | None = None

    def open(self, descriptor: int) -> None:
        """Write there from now on; nothing is written if it is closed."""
        with contextlib.suppress(OSError):
            self._outlet = Outlet(descriptor)

    def emit(self, record: logging.LogRecord) -> None:
        record.dropped = self._untold
        try:
            line = self.format(record).encode(errors="backslashreplace")
        except Exception as error:
            line = f"an event could not be put into words: {error!r}".encode()
        if self._put(line + b"\n"):
            self.written += 1
            self._untold = 0
        else:
            self.dropped += 1
            self._untold += 1

    def _put(self, data: bytes) -> bool:
        """Whether the line will come out whole; a part of it may go only with the next one."""
        if self._outlet is None:
            return False
        try:
            if self._rest:
                self._rest = self._rest[self._outlet.write(self._rest) :]
                if self._rest:
                    return False
            self._rest = data[self._outlet.write(data) :]
        except OSError:
            return False
        return True

    def close(self) -> None:
        if self._outlet is not None:
            with contextlib.suppress(OSError):
                self._outlet.close()
            self._outlet = None
        super().close()


#: Where the daemon's events go.
lines: Final = Lines()


def set_up(form: str, level: str, descriptor: int = 2) -> None:
    """Log from now on, in one form (``FORMATS``), what is of a level (``LEVELS``) or above."""
    lines.open(descriptor)
    lines.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    lines.addFilter(Floods())
    logger = logging.getLogger()
    logger.addHandler(lines)
    logger.setLevel(level.upper())
