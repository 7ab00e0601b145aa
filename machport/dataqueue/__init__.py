"""IOKit's data queue: a ring between two tasks in sealed memory, and the message that says "data available".

``memory``        the memfd and its mapping       ``functions``     the user's functions, by code
``notification``  the message's header            ``kernel_side``   IODataQueue and IOSharedDataQueue
``queue``         the Python form, with errors

Rooms above lend the Mach calls.  Imports only ``machport.abi`` and ``machport.ring``.
"""

from machport.dataqueue.memory import DataQueueMemory
from machport.dataqueue.queue import DataQueue, Statistics

__all__ = ["DataQueue", "DataQueueMemory", "Statistics"]
