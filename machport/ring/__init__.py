"""The native primitive: a single-producer, single-consumer ring of variable-size entries in shared memory.

``layout``   offsets, limits and answers       ``queue``   the ring
``memory``   loads, stores and fences

Imports nothing of machport but the error classes.  Never knows descriptors, ports or waiting.
"""

from machport.ring.queue import Ring, is_compiled

__all__ = ["Ring", "is_compiled"]
