"""Mach ports for Linux processes.

A process holds rights, not addresses.  A right travels only inside a message, and when the other end is gone the
kernel says so.  Bulk data goes through shared-memory queues whose reader is woken by at most one pending message.

``Task`` is where to begin, and ``DataQueue`` for bulk data.  ``machport.mach`` and ``machport.iokit`` have the same
under the names of the manuals.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    PeerDied,
    ProgramNotStarted,
    ProtocolError,
    QueueEmpty,
    QueueEnded,
    QueueFull,
    QueueMisuse,
    ServerDied,
    TimedOut,
)
from machport.face.blocking import PortDestroyedNotification, PortSet, ReceiveRight, SendRight, Task, task_self
from machport.face.message import (
    DeadNameNotification,
    Message,
    NoSendersNotification,
    Notification,
    PortDeletedNotification,
    SendOnceNotification,
    SendPossibleNotification,
)
from machport.face.rights import DeadName, Fileport, Right, SendOnceRight, Transfer
from machport.face.spawn import inherited, spawn
from machport.face.watching import Watch

__all__ = [
    "AlreadyExists",
    "Child",
    "ClosedRight",
    "CorruptQueue",
    "DaemonLost",
    "DaemonUnavailable",
    "DataQueue",
    "DeadName",
    "DeadNameNotification",
    "DeadPort",
    "DeadTask",
    "EntryTooLarge",
    "Fileport",
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
    "PeerDied",
    "PortDeletedNotification",
    "PortDestroyedNotification",
    "PortSet",
    "ProgramNotStarted",
    "ProtocolError",
    "QueueEmpty",
    "QueueEnded",
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
    "Watch",
    "inherited",
    "is_compiled",
    "spawn",
    "task_self",
]

if TYPE_CHECKING:
    from machport.face.child import Child
    from machport.face.dataqueue import DataQueue

is_compiled = form.is_compiled


def __getattr__(name: str) -> object:
    """What not every program needs is imported at its first use."""
    if name == "DataQueue":
        from machport.face.dataqueue import DataQueue

        return DataQueue
    if name == "Child":
        from machport.face.child import Child

        return Child
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
