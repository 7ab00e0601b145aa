"""The functions of IODataQueueClient: conditions in the manual's order, codes and effects.

For ``machport.iokit``, which gives them their manual names and a task.
``IODataQueueAllocateNotificationPort`` is nothing but Mach calls and is not here.  Never raises for what a
peer wrote; knows no task, and sends and receives only through what the caller lends.  Source:
spec/dataqueue.md, section 4, with the adopted column of section 8.

The capacity used is the one trusted when the memory was mapped (Q36).  The notification's header, though, is
read from the memory, as Apple's function does; to notify for a peer that is not trusted use the private
header of :class:`machport.dataqueue.kernel_side.IODataQueue`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from machport.abi import constants as c
from machport.dataqueue.notification import Notifier, Waiter, notify
from machport.ring import layout

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

    from machport.dataqueue.memory import DataQueueMemory

_ABSENCE_CODES: Final = {layout.EMPTY: c.kIOReturnUnderrun, layout.CORRUPT: c.kIOReturnError}


class DataSize(Protocol):
    """A size that goes in and out, like ``ctypes.c_uint32``."""

    value: int


class Enqueued(NamedTuple):
    """What became of an entry, and separately what became of its notification (G3).

    Attributes:
        code: the ``IOReturn``; Success whenever the entry is in the ring.
        notification: the ``mach_msg`` code of the notification, or None if none was sent.
    """

    code: int
    notification: int | None = None


def set_notification_port(queue: DataQueueMemory | None, port: int) -> int:
    """Choose the port that enqueue notifies, 0 for none; not checked, and no right is taken (Q16 to Q18)."""
    if queue is None or not queue.shared:
        return c.kIOReturnBadArgument
    queue.set_notification_port(port)
    return c.kIOReturnSuccess


def data_available(queue: DataQueueMemory | None) -> bool:
    """Whether there is something to dequeue (Q19)."""
    return queue is not None and queue.ring.data_available()


def peek(queue: DataQueueMemory | None) -> memoryview | None:
    """The next entry in place, or None; nothing moves (Q20)."""
    return None if queue is None else queue.ring.peek()


def dequeue(queue: DataQueueMemory | None, data: WriteableBuffer | None, data_size: DataSize | None) -> int:
    """Take the next entry into ``data``, or throw it away if that is None (Q23 to Q25).

    Args:
        queue: the queue; None is refused.
        data: where the entry's bytes go.
        data_size: in: bytes of ``data`` that may be used.  Out: the entry's size, also after NoSpace (G1).

    Returns:
      Success, BadArgument, Underrun, Error or NoSpace, by the first condition of the table that holds.
        BadArgument also for what C cannot check: a buffer that is read-only or smaller than ``data_size``
        says.
    """
    if queue is None:
        return c.kIOReturnBadArgument
    if data is None:
        return _ABSENCE_CODES.get(queue.ring.skip(), c.kIOReturnSuccess)
    if data_size is None:
        return c.kIOReturnBadArgument
    room = data_size.value
    target = memoryview(data)
    if target.readonly or not 0 <= room <= target.nbytes:
        return c.kIOReturnBadArgument
    size = queue.ring.dequeue_into(target.cast("B")[:room])
    if size < 0:
        return _ABSENCE_CODES[size]
    data_size.value = size
    return c.kIOReturnSuccess if size <= room else c.kIOReturnNoSpace


def enqueue(queue: DataQueueMemory | None, data: ReadableBuffer | None, data_size: int, notifier: Notifier) -> Enqueued:
    """Add the first ``data_size`` bytes of ``data`` as an entry; notify if Q27 or a full ring asks for it.

    Args:
        queue: the queue; None is refused.
        data: the bytes, or None to reserve room with undefined content (Q26).
        data_size: bytes of the entry.
        notifier: sends for this task.

    Returns:
        Success, BadArgument, Overrun or Underrun, and the notification's own code.  BadArgument also for what
        C cannot check: fewer bytes in ``data`` than ``data_size`` says.
    """
    if queue is None:
        return Enqueued(c.kIOReturnBadArgument)
    if data_size > layout.MAX_ENTRY_SIZE:
        return Enqueued(c.kIOReturnOverrun)
    if data_size < 0:
        return Enqueued(c.kIOReturnBadArgument)
    if data is None:
        answer = queue.ring.enqueue_blank(data_size)
    else:
        source = beginning(data, data_size)
        if source is None:
            return Enqueued(c.kIOReturnBadArgument)
        answer = queue.ring.enqueue(source)
    if answer == layout.ADDED:
        return Enqueued(c.kIOReturnSuccess)
    if answer == layout.WAKE:
        return Enqueued(c.kIOReturnSuccess, notify(queue.notification_header, notifier))
    if answer == layout.FULL:
        return Enqueued(c.kIOReturnOverrun, notify(queue.notification_header, notifier))
    return Enqueued(c.kIOReturnUnderrun)


def beginning(data: ReadableBuffer, size: int) -> memoryview | None:
    """The first ``size`` bytes of ``data``; None if it has fewer."""
    view = memoryview(data).cast("B")
    return view[:size] if size <= view.nbytes else None


def wait_for_available_data(queue: DataQueueMemory | None, port: int, waiter: Waiter) -> int:
    """Receive one message on ``port``, whatever it is, without looking at the ring (Q32 to Q35).

    Drain first: waiting on a ring that holds data whose message was taken already can sleep for ever (Q34).
    """
    if queue is None or port == c.MACH_PORT_NULL:
        return c.kIOReturnBadArgument
    return waiter.receive(port)
