"""Tasks and rights for coroutines: ``await right.call(...)``, ``async for message in port``.

The same names and parameters as in ``machport``; what waits there is awaited here, under asyncio, uvloop or trio.  One
descriptor for a task, no threads; and whatever is cancelled has taken nothing.

``task``      a task, and children      ``pending``  calls under way; ``asyncio_calls`` and ``trio_calls`` look for them
``rights``    what is awaited           ``messages`` how, and what becomes of rights if it is cancelled
``watching``  notifications
"""

from __future__ import annotations

from machport.aio.rights import PortDestroyedNotification, PortSet, ReceiveRight, SendRight
from machport.aio.task import Child, Task, task_self

__all__ = [
    "Child",
    "PortDestroyedNotification",
    "PortSet",
    "ReceiveRight",
    "SendRight",
    "Task",
    "task_self",
]
