# C types for refusal.py.

from libc.stdint cimport int64_t

cdef class Refusal(Exception):
    cdef public int64_t code
    cdef public object rule
    cdef public object says
    cdef public Py_ssize_t taken
