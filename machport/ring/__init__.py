"""The native primitives: a single-producer, single-consumer ring of variable-size entries in shared memory; and
lifelines, words that go slack when the thread that holds them ends.

``layout``    offsets, limits and answers       ``queue``     the ring
``memory``    loads, stores and fences          ``doorbell``  the word by which a sleeper is woken
``lending``   views that tell when they are gone ``sign``      a word that one side writes
``mapping``   memory without a descriptor       ``lifeline``  holding a word, and waiting for those of others
``robust``    robust mutexes and their words    ``waking``    sleeping at a socket
``futex``     sleeping at a word                ``sleeping``  sleeping at a doorbell and a lifeline
``spinning``  how long a side looks before it sleeps

Imports nothing of machport but the error classes.  Never knows ports; the ring never knows descriptors or how somebody
sleeps.
"""

from machport.ring.doorbell import Doorbell
from machport.ring.mapping import map_shared
from machport.ring.queue import Ring, is_compiled
from machport.ring.sign import Sign

__all__ = ["Doorbell", "Ring", "Sign", "is_compiled", "map_shared"]
