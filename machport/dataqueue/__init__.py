"""IOKit's data queue: a ring between two tasks in sealed memory, and the message that says "data available".

``memory``        the memfd and its mapping       ``functions``     the user's functions, by code
``notification``  the message's header            ``kernel_side``   IODataQueue and IOSharedDataQueue
``extension``     what stands behind the appendix ``end``           one end: who has it, and how it waits
``handover``      how an end travels              ``custody``       what children are about to inherit
``queue``         the Python form, with errors and waiting

Rooms above lend the Mach calls.  Imports only ``machport.abi``, ``machport.ring`` and ``machport.peer``.
"""

from machport.dataqueue.memory import DataQueueMemory
from machport.dataqueue.queue import DataQueue, Statistics

__all__ = ["DataQueue", "DataQueueMemory", "Statistics"]
