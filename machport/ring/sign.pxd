# C types for sign.py.

cimport cython
from libc.stdint cimport uint32_t

cimport machport.ring.memory as memory

@cython.final
cdef class Sign:
    cdef object _view
    cdef char *_memory

    cpdef uint32_t read(self) noexcept
    cpdef object write(self, uint32_t value)
