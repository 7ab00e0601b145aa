# C types for transcript.py.

cimport cython
from libc.stdint cimport int64_t

@cython.final
cdef class Step:
    cdef public int64_t line
    cdef public int64_t task
    cdef public str operation
    cdef public object arguments
    cdef public list expected

@cython.locals(line=str, mark=str, steps=list, expected=list, operation=tuple, index=Py_ssize_t, last=Py_ssize_t)
cdef object _scenario(object path, list lines, Py_ssize_t at, dict operations)
