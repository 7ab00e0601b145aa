"""Mach ports for Linux processes.

A process holds rights, not addresses.  A right travels only inside a message, and when the other end is gone the
kernel says so.  Bulk data goes through shared-memory queues whose reader is woken by at most one pending message.

``Task`` is where to begin.  ``machport.mach`` and ``machport.iokit`` have the same under the names of the manuals.
"""

from __future__ import annotations

from machport import form
from machport.abi.errors import (
    AlreadyExists,
    ClosedRight,
    CorruptQueue,
    DaemonLost,
    DaemonUnavailable,
    DeadPort,
    DeadTask,
    EntryTooLarge,
    ForkedTask,
    Interrupted,
    InvalidArgument,
    InvalidName,
    InvalidRight,
    LimitReached,
    MachError,
    MessageTooLarge,
    ProtocolError,
    QueueEmpty,
    QueueFull,
    QueueMisuse,
    ServerDied,
    TimedOut,
)
from machport.face.message import (
    DeadNameNotification,
    Message,
    NoSendersNotification,
    Notification,
    PortDeletedNotification,
    PortDestroyedNotification,
    SendOnceNotification,
    SendPossibleNotification,
)
from machport.face.rights import DeadName, PortSet, ReceiveRight, Right, SendOnceRight, SendRight, Transfer
from machport.face.spawn import Child
from machport.face.task import Task, task_self

__all__ = [
    "AlreadyExists",
    "Child",
    "ClosedRight",
    "CorruptQueue",
    "DaemonLost",
    "DaemonUnavailable",
    "DeadName",
    "DeadNameNotification",
    "DeadPort",
    "DeadTask",
    "EntryTooLarge",
    "ForkedTask",
    "Interrupted",
    "InvalidArgument",
    "InvalidName",
    "InvalidRight",
    "LimitReached",
    "MachError",
    "Message",
    "MessageTooLarge",
    "NoSendersNotification",
    "Notification",
    "PortDeletedNotification",
    "PortDestroyedNotification",
    "PortSet",
    "ProtocolError",
    "QueueEmpty",
    "QueueFull",
    "QueueMisuse",
    "ReceiveRight",
    "Right",
    "SendOnceNotification",
    "SendOnceRight",
    "SendPossibleNotification",
    "SendRight",
    "ServerDied",
    "Task",
    "TimedOut",
    "Transfer",
    "is_compiled",
    "task_self",
]

is_compiled = form.is_compiled
