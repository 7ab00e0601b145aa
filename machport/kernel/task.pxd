# C types for task.py.

cimport cython
from libc.stdint cimport int64_t

cimport machport.abi.constants as c
from machport.kernel.port cimport Port, new_port
from machport.kernel.space cimport Space

@cython.final
cdef class Task:
    cdef public object label
    cdef public int64_t number
    cdef public Port port
    cdef public list registered
    cdef public Space space
    cdef public dict special
    cdef public object tokens
    cdef public dict waiters
