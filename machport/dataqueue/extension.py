"""What machport's own sides of a queue tell each other, in memory behind the appendix.

The published layout ends before it, so a program that follows that layout neither sees nor touches it.  Each word has
a cache line of its own.  For this room.
"""

from __future__ import annotations

import mmap
from typing import Final

from machport.ring import layout

#: At the beginning of the extension: it is one.
MAGIC: Final = b"machport"

# Offsets in the extension, by the end of the queue whose holder they are about.
PRODUCER: Final = 0
CONSUMER: Final = 1
SIGN: Final = (64, 128)  #: who has the end: a generation, and one of the states below; written by its holder
WANTED: Final = 68  #: bytes of room that the producer waits for without end, before it arms its bell
BELL: Final = (192, 256)  #: the holder sleeps, and how; written by both
SIZE: Final = 320

# A sign: generation << STATE_BITS | state.
STATE_BITS: Final = 2
STATE: Final = 3
ABANDONED: Final = 0  #: let go of without being closed
HELD: Final = 1
TRAVELLING: Final = 2  #: on its way to another process
CLOSED: Final = 3
GENERATIONS: Final = 1 << 30

# How the holder of an end sleeps, in its bell.
AT_BELL: Final = 1  #: at the bell itself
AT_SOCKET: Final = 2  #: at a descriptor
AT_PORT: Final = 3  #: at the notification port

_LINE: Final = 64


def place(capacity: int) -> int:
    """Where the extension of a queue begins."""
    end = layout.MEMORY_HEADER_SIZE + capacity + layout.MEMORY_APPENDIX_SIZE
    return -(-end // _LINE) * _LINE


def is_in(region: bytes | mmap.mmap, capacity: int) -> bool:
    """Whether a region has an extension."""
    start = place(capacity)
    return len(region) >= start + SIZE and region[start : start + len(MAGIC)] == MAGIC
