"""Mach ports for Linux processes.

A process holds rights, not addresses.  A right travels only inside a message, and when the other end is gone the
kernel says so.  Bulk data goes through shared-memory queues whose reader is woken by at most one pending message.

``Task`` is where to begin, ``DataQueue`` for bulk data, and ``serve`` and ``proxy`` for typed calls.
``machport.mach`` and ``machport.iokit`` have the same under the names of the manuals.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from machport import form
from machport.abi.errors import (
    AccessDenied,
    AlreadyExists,
    BadArguments,
    Bug,
    ClosedRight,
    ConfinementUnavailable,
    CorruptQueue,
    DaemonGone,
    DaemonLost,
    DaemonUnavailable,
    DeadPort,
    DeadTask,
    EntryTooLarge,
    ForkedTask,
    Interrupted,
    InvalidArgument,
    InvalidInterface,
    InvalidName,
    InvalidRight,
    LimitReached,
    LoopMisuse,
    MachError,
    MessageTooLarge,
    Misuse,
    NotNow,
    PeerDied,
    PeerFault,
    PeerGone,
    ProgramNotStarted,
    ProtocolError,
    QueueEmpty,
    QueueEnded,
    QueueFull,
    QueueMisuse,
    RemoteError,
    ReplyMismatch,
    ServerDied,
    TimedOut,
    UnknownRoutine,
    VersionMismatch,
)
from machport.abi.limits import Limits
from machport.client.description import Description
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
from machport.peer.death import Obituary

__all__ = [
    "AccessDenied",
    "AlreadyExists",
    "BadArguments",
    "Bug",
    "Call",
    "Child",
    "ClosedRight",
    "Confinement",
    "ConfinementUnavailable",
    "CorruptQueue",
    "DaemonGone",
    "DaemonLost",
    "DaemonUnavailable",
    "DataQueue",
    "DeadName",
    "DeadNameNotification",
    "DeadPort",
    "DeadTask",
    "Description",
    "EntryTooLarge",
    "Fileport",
    "ForkedTask",
    "Interrupted",
    "InvalidArgument",
    "InvalidInterface",
    "InvalidName",
    "InvalidRight",
    "LimitReached",
    "Limits",
    "LoopMisuse",
    "MachError",
    "Message",
    "MessageTooLarge",
    "Misuse",
    "NoSendersNotification",
    "NotNow",
    "Notification",
    "Obituary",
    "PeerDied",
    "PeerFault",
    "PeerGone",
    "PoolBroken",
    "PoolShutDown",
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
    "RemoteError",
    "ReplyMismatch",
    "Right",
    "SendOnceNotification",
    "SendOnceRight",
    "SendPossibleNotification",
    "SendRight",
    "ServerDied",
    "Task",
    "TimedOut",
    "Transfer",
    "UnknownRoutine",
    "VersionMismatch",
    "Watch",
    "WorkerDied",
    "WorkerPool",
    "aio",
    "current_call",
    "deadline",
    "inherited",
    "interface",
    "is_compiled",
    "oneway",
    "proxy",
    "serve",
    "spawn",
    "task_self",
]

if TYPE_CHECKING:
    from machport import aio
    from machport.confinement.policy import Confinement
    from machport.face.child import Child
    from machport.face.dataqueue import DataQueue
    from machport.interfaces.calling import proxy
    from machport.interfaces.deadlines import Call, current_call, deadline
    from machport.interfaces.declaring import interface, oneway
    from machport.interfaces.serving import serve
    from machport.pool.errors import PoolBroken, PoolShutDown, WorkerDied
    from machport.pool.executor import WorkerPool

#: Modules that not every program needs, and what is exported from each.
_LATER = {
    "Call": "machport.interfaces.deadlines",
    "Child": "machport.face.child",
    "DataQueue": "machport.face.dataqueue",
    "current_call": "machport.interfaces.deadlines",
    "deadline": "machport.interfaces.deadlines",
    "interface": "machport.interfaces.declaring",
    "oneway": "machport.interfaces.declaring",
    "proxy": "machport.interfaces.calling",
    "serve": "machport.interfaces.serving",
}

is_compiled = form.is_compiled


#: What not every program needs, and the module that has it.
_LATER = {
    "Call": "machport.interfaces.deadlines",
    "Child": "machport.face.child",
    "Confinement": "machport.confinement.policy",
    "DataQueue": "machport.face.dataqueue",
    "PoolBroken": "machport.pool.errors",
    "PoolShutDown": "machport.pool.errors",
    "WorkerDied": "machport.pool.errors",
    "WorkerPool": "machport.pool.executor",
    "current_call": "machport.interfaces.deadlines",
    "deadline": "machport.interfaces.deadlines",
    "interface": "machport.interfaces.declaring",
    "oneway": "machport.interfaces.declaring",
    "proxy": "machport.interfaces.calling",
    "serve": "machport.interfaces.serving",
}


def __getattr__(name: str) -> object:
    """What not every program needs is imported at its first use."""
    if name == "aio":
        return importlib.import_module("machport.aio")
    if name in _LATER:
        thing = globals()[name] = getattr(importlib.import_module(_LATER[name]), name)
        return thing
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
