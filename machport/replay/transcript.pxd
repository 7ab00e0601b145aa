# C types for transcript.py.

from libc.stdint cimport int64_t

cdef class Step:
    cdef public int64_t line
    cdef public int64_t task
    cdef public str operation
    cdef public object arguments
    cdef public list expected
