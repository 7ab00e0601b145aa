"""The data queue of IOKit under the names of its manual, with its order of arguments and its codes.

The functions return what the manual says: an ``IOReturn`` or ``mach_return_t``, a bool, a view, or a port name.  None
raises for what a peer wrote into the memory.  ``q`` is a ``DataQueueMemory``, or None for the manual's null.

Ports are names in the task of this process, ``machport.task_self()``; a port of another ``Task`` means nothing here.
``dataSize`` goes in and out like the manual's pointer: anything with a ``value``, such as ``ctypes.c_uint32``.

Source: ``IODataQueueClient.h`` and rules Q14 to Q42 of the specification.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from machport import mach
from machport.abi import constants as c
from machport.abi import message as layout
from machport.abi.errors import MachError
from machport.dataqueue import functions
from machport.dataqueue.functions import DataSize
from machport.dataqueue.kernel_side import IODataQueue as IODataQueue
from machport.dataqueue.kernel_side import IOSharedDataQueue as IOSharedDataQueue
from machport.dataqueue.memory import DataQueueMemory as DataQueueMemory

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

kIOReturnSuccess = c.kIOReturnSuccess
kIOReturnError = c.kIOReturnError
kIOReturnBadArgument = c.kIOReturnBadArgument
kIOReturnNoSpace = c.kIOReturnNoSpace
kIOReturnUnderrun = c.kIOReturnUnderrun
kIOReturnOverrun = c.kIOReturnOverrun


class MachNotifier:
    """Sends and receives a queue's notifications for the task of this process."""

    def send(self, header: bytes) -> int:
        """A copy of the header with timeout 0; what a full queue gave back is dropped again (Q28, Q29)."""
        message = bytearray(header)
        option = c.MACH_SEND_MSG | c.MACH_SEND_TIMEOUT
        try:
            return mach.mach_msg(message, option, len(message), 0, c.MACH_PORT_NULL)
        except MachError as error:
            if error.code & ~c.MACH_MSG_MASK == c.MACH_SEND_TIMED_OUT:
                mach.mach_msg_destroy(message)
            return error.code

    def receive(self, port: int) -> int:
        """One message of any kind, without a limit of time (Q32)."""
        message = bytearray(layout.HEADER_SIZE + layout.MIN_TRAILER)
        try:
            return mach.mach_msg(message, c.MACH_RCV_MSG, 0, len(message), port)
        except MachError as error:
            return error.code


_notifier = MachNotifier()


def IODataQueueAllocateNotificationPort() -> int:
    """A receive right whose queue holds one message; ``MACH_PORT_NULL`` if it cannot be made (Q14)."""
    task = mach.mach_task_self()
    try:
        port = mach.mach_port_allocate(task, c.MACH_PORT_RIGHT_RECEIVE)
    except MachError:
        return c.MACH_PORT_NULL
    try:
        mach.mach_port_set_attributes(task, port, c.MACH_PORT_LIMITS_INFO, [1])
    except MachError:
        mach.mach_port_mod_refs(task, port, c.MACH_PORT_RIGHT_RECEIVE, -1)
        return c.MACH_PORT_NULL
    return port


def IODataQueueSetNotificationPort(q: DataQueueMemory | None, notifyPort: int) -> int:
    """Choose the port that enqueueing notifies, 0 for none; the name is used by whoever enqueues (Q16, Q17)."""
    return functions.set_notification_port(q, notifyPort)


def IODataQueueDataAvailable(q: DataQueueMemory | None) -> bool:
    """Whether there is an entry (Q19)."""
    return functions.data_available(q)


def IODataQueuePeek(q: DataQueueMemory | None) -> memoryview | None:
    """The next entry in place; None if there is none (Q20)."""
    return functions.peek(q)


def IODataQueueDequeue(q: DataQueueMemory | None, data: WriteableBuffer | None, dataSize: DataSize | None) -> int:
    """Take the next entry into ``data``; with None for ``data`` skip it (Q23)."""
    return functions.dequeue(q, data, dataSize)


def IODataQueueEnqueue(q: DataQueueMemory | None, data: ReadableBuffer | None, dataSize: int) -> int:
    """Add an entry, and notify if the queue was empty; Success whenever the entry is in the ring (Q26, Q27, G3)."""
    return functions.enqueue(q, data, dataSize, _notifier).code


def IODataQueueWaitForAvailableData(q: DataQueueMemory | None, notifyPort: int) -> int:
    """Wait for a notification, without looking at the ring: drain it first (Q32 to Q35)."""
    return functions.wait_for_available_data(q, notifyPort, _notifier)
