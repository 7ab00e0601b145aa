"""The client: asks for the digest of every file, some at once, and asks again for what comes back unanswered."""

from __future__ import annotations

import os
import stat
import time
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from machport import Message, Notification, ReceiveRight, SendOnceNotification, SendRight, iokit
from machport.demo.protocol import (
    ABANDONED,
    CHUNK,
    ENTRY,
    LAST,
    MORE,
    PROGRESS,
    PROGRESS_ID,
    REPLY,
    REQUEST,
    REQUEST_ID,
    SUMMARY_ID,
    WINDOW,
    FileResult,
    Summary,
)

#: Answers between two reports of progress.
_REPORT_EVERY: Final = 16


def ask_for_all(
    service: SendRight,
    wakeup: SendRight,
    memory: SendRight,
    room: ReceiveRight,
    report: SendRight,
    directory: str,
    leave_out: frozenset[str],
) -> None:
    """Ask for every file below a directory, report progress, and in the end everything."""
    with iokit.DataQueueMemory.from_fd(memory.open_file()) as queue:
        iokit.IODataQueueSetNotificationPort(queue, wakeup.name)
        client = DigestClient(queue, service, room, report)
        client.run(walk(Path(directory), leave_out))
    report.send(id=SUMMARY_ID, memory=[client.summary.pack()])


def walk(directory: Path, leave_out: frozenset[str]) -> Iterator[FileResult]:
    """Every regular file below a directory in a fixed order; what cannot be looked at, with its error.

    Folders with a name in ``leave_out`` are not entered.
    """
    unreadable: list[OSError] = []
    for folder, folders, names in os.walk(directory, onerror=unreadable.append):
        folders[:] = sorted(set(folders) - leave_out)
        for name in sorted(names):
            path = os.path.join(folder, name)
            try:
                if stat.S_ISREG(os.stat(path).st_mode):
                    yield FileResult(path)
            except OSError as error:
                yield FileResult(path, error=error.strerror or str(error))
        while unreadable:
            problem = unreadable.pop()
            yield FileResult(str(problem.filename), error=problem.strerror or str(problem))


class Slot:
    """A request under way, and the port that its one answer comes to."""

    __slots__ = ("file", "port", "serial")

    def __init__(self, port: ReceiveRight) -> None:
        self.port = port
        self.file: FileResult | None = None
        self.serial = -1


class DigestClient:
    """The requests of one client process."""

    def __init__(self, queue: iokit.DataQueueMemory, service: SendRight, room: ReceiveRight, report: SendRight) -> None:
        self.summary = Summary()
        self._queue = queue
        self._service = service
        self._report = report
        self._room = room
        self._slots = {slot.port.name: slot for slot in (Slot(room.task.allocate()) for _ in range(WINDOW))}
        self._events = room.task.port_set(room, *(slot.port for slot in self._slots.values()))
        self._free = deque(self._slots.values())
        self._again: deque[FileResult] = deque()
        self._serial = 0
        self._answered = self._bytes = self._generation = 0
        self._seen: Counter[str] = Counter()

    def run(self, files: Iterator[FileResult]) -> None:
        """Have every file answered."""
        began = time.monotonic()
        while True:
            while not self._free:
                self._take_event()
            file = self._again.popleft() if self._again else next(files, None)
            if file is not None:
                if not file.attempts:
                    self.summary.files.append(file)
                if not file.error:
                    self._ask(self._free.popleft(), file)
            elif len(self._free) < WINDOW:
                self._take_event()
            else:
                break
        self._progress()
        self.summary.seconds = time.monotonic() - began
        self.summary.notifications = dict(self._seen)

    def _ask(self, slot: Slot, file: FileResult) -> None:
        try:
            content = open(file.path, "rb")  # noqa: SIM115 - closed in _stream
        except OSError as error:
            file.error = error.strerror or str(error)
            self._free.append(slot)
            return
        with content:
            file.attempts += 1
            file.size = 0
            slot.file, slot.serial = file, self._serial
            self._serial += 1
            self._service.send(REQUEST.pack(slot.serial), id=REQUEST_ID, reply_to=slot.port)
            self._stream(slot, slot.serial, file, content)

    def _stream(self, slot: Slot, serial: int, file: FileResult, content: BinaryIO) -> None:
        """Put the bytes of a file into the queue, unless the request comes back meanwhile."""
        while True:
            mark = LAST
            try:
                chunk = content.read(CHUNK)
                if len(chunk) == CHUNK:
                    mark = MORE
            except OSError as error:
                chunk, mark = b"", ABANDONED
                file.error = error.strerror or str(error)
            file.size += len(chunk)
            entry = ENTRY.pack(serial, mark) + chunk
            while iokit.IODataQueueEnqueue(self._queue, entry, len(entry)) == iokit.kIOReturnOverrun:
                self.summary.waits_for_room += 1
                self._take_event()
                if slot.serial != serial:
                    return
            self.summary.entries += 1
            if mark != MORE:
                return

    def _take_event(self) -> None:
        """Wait for room in the queue or for an answer, whichever comes first."""
        message = self._events.receive()
        if isinstance(message, Notification):
            self._seen[type(message).__name__] += 1
        slot = self._slots.get(message.port)
        if slot is None or slot.file is None:
            return
        file, slot.file, slot.serial = slot.file, None, -1
        self._free.append(slot)
        if isinstance(message, SendOnceNotification):
            self.summary.came_back += 1
            if not file.error:
                self._again.append(file)
        else:
            self._answer(file, message)

    def _answer(self, file: FileResult, message: Message) -> None:
        generation, abandoned, stale, digest = REPLY.unpack(message.body)
        file.answers += 1
        file.digest = "" if abandoned else digest.hex()
        self.summary.stale_entries += stale
        self._answered += 1
        self._bytes += file.size
        if generation != self._generation or self._answered % _REPORT_EVERY == 0:
            self._generation = generation
            self._progress()

    def _progress(self) -> None:
        state = PROGRESS.pack(self._answered, self._bytes, self.summary.came_back, self._generation)
        self._report.send(state, id=PROGRESS_ID)
