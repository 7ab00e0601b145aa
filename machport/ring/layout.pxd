# The numbers of layout.py as C constants; a test compares the two.

from libc.stdint cimport uint64_t

cdef enum:
    QUEUE_SIZE = 0
    HEAD = 4
    TAIL = 8
    RING = 12

    SPREAD_TAIL = 64
    SPREAD_RING = 128

    MEMORY_HEADER_SIZE = 12
    ENTRY_HEADER_SIZE = 4
    MEMORY_APPENDIX_SIZE = 28

    ADDED = 0
    WAKE = 1
    FULL = 2
    BROKEN = 4
    TOO_LARGE = 8
    STUCK = 16

    EMPTY = -1
    CORRUPT = -2

    SILENT = 0
    ARMED = 1
    WAYS = 3

# As 64-bit numbers: a C enumerator of this size would be taken for a negative int.
cdef extern from *:
    """
    #define MACHPORT_MAX_QUEUE_SIZE 0xFFFFFFFFull
    #define MACHPORT_MAX_ENTRY_SIZE 0xFFFFFFFBull
    """
    const uint64_t MAX_QUEUE_SIZE "MACHPORT_MAX_QUEUE_SIZE"
    const uint64_t MAX_ENTRY_SIZE "MACHPORT_MAX_ENTRY_SIZE"
