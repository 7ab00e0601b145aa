"""The ring's numbers: where the fields stand, how big things may be, and what an operation answers.

For everybody who reads or makes a ring.  Knows no memory and no operation.  ``layout.pxd`` has the same
numbers for the compiled form.  Source: spec/dataqueue.md, sections 1 and 4.
"""

from __future__ import annotations

from typing import Final

# Offsets in the memory.  Every field is a u32 in host byte order.
QUEUE_SIZE: Final = 0  #: bytes of the ring, Q; written by the creator only
HEAD: Final = 4  #: offset of the next entry to read, 0...Q; written by the consumer
TAIL: Final = 8  #: offset where the next entry goes, 0...Q; written by the producer
RING: Final = 12  #: the Q bytes of the ring

# The same where nobody else reads the layout, with what each side writes on cache lines of its own: no capacity field,
# HEAD at 0.
SPREAD_TAIL: Final = 64
SPREAD_RING: Final = 128

# Sizes, in bytes.
MEMORY_HEADER_SIZE: Final = 12
ENTRY_HEADER_SIZE: Final = 4
MEMORY_APPENDIX_SIZE: Final = 28  #: version and Mach header, behind the ring of a shared queue
MAX_QUEUE_SIZE: Final = 0xFFFFFFFF
MAX_ENTRY_SIZE: Final = 0xFFFFFFFB  #: 2^32 - 1 - 4: size and entry header still make a u32

# What the producer's operations answer.  Bits, because a batch can end full and have to wake the consumer
# too.
ADDED: Final = 0  #: the entry is in the ring, and the consumer will find it by itself
WAKE: Final = 1  #: the entry is in the ring, and the consumer may be asleep: notify (Q27)
FULL: Final = 2  #: no room now; nothing was written
BROKEN: Final = 4  #: head or tail is outside the ring; nothing was written
TOO_LARGE: Final = 8  #: no ring of this layout could hold the entry; nothing was written
STUCK: Final = 16  #: no room now or later: too small a ring, or one that is empty where it fits nowhere (Q7)

# What the consumer's operations answer where there is no entry.  Negative, because a size stands in their
# place.
EMPTY: Final = -1
CORRUPT: Final = -2  #: head or a size points outside the ring

# What stands in a doorbell.
SILENT: Final = 0
ARMED: Final = 1
WAYS: Final = 3  #: it can be armed with any number from 1 to this, which tells those who agree on it how one sleeps
