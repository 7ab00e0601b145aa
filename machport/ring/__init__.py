"""The native primitives: a single-producer, single-consumer ring of variable-size entries in shared memory; and
lifelines, words that go slack when the thread that holds them ends.

``layout``   offsets, limits and answers       ``queue``     the ring
``memory``   loads, stores and fences
``robust``   robust mutexes and their words    ``lifeline``  holding a word, and waiting for those of others

Imports nothing of machport but the error classes.  Never knows ports; the ring never knows descriptors or waiting.
"""

from machport.ring.queue import Ring, is_compiled

__all__ = ["Ring", "is_compiled"]
