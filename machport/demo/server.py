"""The digest server: holds the service port, the queue's notification port and memory, and nothing else."""

from __future__ import annotations

import contextlib
import hashlib
from typing import Final

from machport import (
    DeadPort,
    MachError,
    Message,
    NoSendersNotification,
    ReceiveRight,
    SendRight,
    TimedOut,
    iokit,
)
from machport.demo.protocol import ABANDONED, CAPACITY, ENTRY, MORE, REPLY, REQUEST, SERVER_ENDS, SERVER_ENDS_ID


def serve(
    service: ReceiveRight,
    wakeup: ReceiveRight,
    memory: SendRight,
    room: SendRight,
    report: SendRight,
    generation: int,
) -> None:
    """Answer requests until nobody can make one any more."""
    gone = service.task.allocate()
    service.request_no_senders(gone)
    with iokit.DataQueueMemory.from_fd(memory.open_file()) as queue:
        server = DigestServer(queue, room, generation)
        for message in service.task.port_set(service, wakeup, gone):
            if isinstance(message, NoSendersNotification):
                report.send(SERVER_ENDS.pack(generation, message.count), id=SERVER_ENDS_ID)
                break
            if message.port == service.name:
                server.request(message)
            server.drain()
    for port in (service, wakeup):
        # The end is meant: nobody is to get the port back.  Dropping the right registered before says so.
        registered = port.request_port_destroyed(None)
        if registered is not None:
            registered.close()
        port.close()


class Digest:
    """A request that was received: where its answer goes, and what has come of its bytes."""

    __slots__ = ("hash", "message")

    def __init__(self, message: Message) -> None:
        self.message = message
        self.hash = hashlib.sha256()


class DigestServer:
    """The requests of one server process."""

    def __init__(self, queue: iokit.DataQueueMemory, room: SendRight, generation: int) -> None:
        self._queue: Final = queue
        self._room: Final = room
        self._generation = generation
        self._pending: dict[int, Digest] = {}
        self._newest = -1
        #: Bytes taken since the client was last told of room.  The first drain always tells it: the server before
        #: may have died without.
        self._taken = CAPACITY
        self._stale = 0

    def request(self, message: Message) -> None:
        """A request came; its bytes are in the queue, or will be."""
        (serial,) = REQUEST.unpack(message.body)
        self._pending[serial] = Digest(message)
        self._newest = max(self._newest, serial)

    def drain(self) -> None:
        """Take the bytes of requests that were received; leave those of requests that still wait at the port.

        So when this process is killed, a request that waits has all its bytes, and one that was received comes back
        to the client as a whole.
        """
        while (entry := iokit.IODataQueuePeek(self._queue)) is not None:
            with entry:
                serial, mark = ENTRY.unpack_from(entry)
                if serial > self._newest:
                    break
                self._take(serial, mark, entry[ENTRY.size :])
                self._taken += len(entry)
            iokit.IODataQueueDequeue(self._queue, None, None)
        if self._taken >= CAPACITY // 4:
            self._taken = 0
            # At most one such message waits, like those of the data queue in the other direction.
            with contextlib.suppress(TimedOut, DeadPort):
                self._room.send(timeout=0)

    def _take(self, serial: int, mark: int, data: memoryview) -> None:
        with data:
            digest = self._pending.get(serial)
            if digest is None:
                self._stale += 1
                return
            digest.hash.update(data)
        if mark != MORE:
            del self._pending[serial]
            answer = REPLY.pack(self._generation, mark == ABANDONED, self._stale, digest.hash.digest())
            with contextlib.suppress(MachError):
                digest.message.reply(answer)
            self._stale = 0
