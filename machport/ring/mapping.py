# cython: annotation_typing=False, auto_pickle=False
"""Shared memory mapped without a descriptor of the mapping's own.

Python keeps a copy of the descriptor in each mapping up to version 3.12.  A daemon with a mapping for each thread of
its clients would need twice as many.  Knows nothing of what is in the memory.
"""

from __future__ import annotations

import mmap

from machport.ring import memory


def map_shared(descriptor: int, size: int) -> mmap.mmap:
    """The first ``size`` bytes behind a descriptor, readable and writable; the descriptor may be closed at once.

    Raises:
        OSError: the system does not map it.
    """
    if not memory.NATIVE:
        return mmap.mmap(descriptor, size)
    # Room that nobody knows, over which the shared memory is laid; the object unmaps the range, whatever is there.
    room = mmap.mmap(-1, size)
    memory.map_over(memory.address(memoryview(room)), size, descriptor)
    return room
