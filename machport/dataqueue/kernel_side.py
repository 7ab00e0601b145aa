"""The two classes of the kernel's side, IODataQueue and IOSharedDataQueue, under the names of their manual.

For ``machport.iokit`` and for services that serve tasks they do not trust: the capacity and the
notification's header are this object's own, so a client can neither widen the ring nor choose what is sent
where (Q36).  A failure is False or None, never an exception.  Source: spec/dataqueue.md, section 5.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, Self

from machport.abi import constants as c
from machport.abi.codes import code_name
from machport.abi.errors import LimitReached, QueueMisuse
from machport.dataqueue import functions
from machport.dataqueue.memory import DataQueueMemory, capacity_for, region_size
from machport.dataqueue.notification import Notifier, header_for, notify
from machport.ring import layout

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

_log: Final = logging.getLogger(__name__)

#: The reader has been told, will be by the message that is pending, or could not be for lack of memory.
_SILENT: Final = frozenset({c.MACH_MSG_SUCCESS, c.MACH_SEND_TIMED_OUT, c.MACH_SEND_NO_BUFFER})


class IODataQueue:
    """A producer in the kernel, or in a service, whose consumer has the memory mapped.

    ``IODataQueueSetNotificationPort`` does not apply to it: the plain region has no appendix.
    """

    _shared = False

    def __init__(self, memory: DataQueueMemory, notifier: Notifier) -> None:
        """Not for callers: use :meth:`withCapacity` or :meth:`withEntries`."""
        self._memory = memory
        self._notifier = notifier
        self._header = bytes(len(header_for(c.MACH_PORT_NULL)))

    @classmethod
    def withCapacity(cls, size: int, notifier: Notifier) -> Self | None:
        """A queue with a ring of ``size`` bytes; None if that is too much for 32 bits or for the machine."""
        try:
            region_size(size, shared=cls._shared)
        except QueueMisuse:
            return None
        try:
            return cls(DataQueueMemory.with_capacity(size, shared=cls._shared), notifier)
        except LimitReached:
            return None

    @classmethod
    def withEntries(cls, numEntries: int, entrySize: int, notifier: Notifier) -> Self | None:
        """A queue that holds ``numEntries`` entries of up to ``entrySize`` bytes each (Q37), or None."""
        try:
            capacity = capacity_for(numEntries, entrySize)
        except QueueMisuse:
            return None
        return cls.withCapacity(capacity, notifier)

    def enqueue(self, data: ReadableBuffer | None, dataSize: int) -> bool:
        """Add an entry (undefined if ``data`` is None); notify if the ring was, or has been, emptied (Q27).

        False if it cannot be added now or ever; a full ring sends nothing, unlike the user's function.  A
        notification that fails never makes it False (Q38).
        """
        if not 0 <= dataSize <= layout.MAX_ENTRY_SIZE:
            return False
        ring = self._memory.ring
        if data is None:
            answer = ring.enqueue_blank(dataSize)
        else:
            source = functions.beginning(data, dataSize)
            if source is None:
                return False
            answer = ring.enqueue(source)
        if answer == layout.WAKE:
            self._send_notification()
        return answer in (layout.ADDED, layout.WAKE)

    def setNotificationPort(self, port: int) -> None:
        """Notify ``port``, a name of the notifier's task, from now on; 0 for nobody.  No right is taken."""
        self._header = header_for(port)

    def getMemoryDescriptor(self) -> DataQueueMemory:
        """The region, not rounded to pages, for the client to map read-write; it stays this object's."""
        return self._memory

    def free(self) -> None:
        """Close the memory here.  A client that has it mapped keeps what is in the ring."""
        self._memory.close()

    def _send_notification(self) -> None:
        code = notify(self._header, self._notifier)
        if code is not None and code not in _SILENT:
            _log.warning("a data queue could not notify its reader: %s", code_name(code))


class IOSharedDataQueue(IODataQueue):
    """A queue that either side may fill, so that a client can send to the kernel through the same calls."""

    _shared = True

    def peek(self) -> memoryview | None:
        """The next entry in place, or None; nothing moves.  The client can still change its bytes (Q21)."""
        return functions.peek(self._memory)

    def dequeue(self, data: WriteableBuffer | None, dataSize: functions.DataSize | None) -> bool:
        """Take the next entry into ``data``, or throw it away if that is None; False for every failure.

        ``dataSize`` goes in as bytes of room and comes out as the entry's size, also if that was too large.
        """
        return functions.dequeue(self._memory, data, dataSize) == c.kIOReturnSuccess
