# C types for doorbell.py.

cimport cython
from libc.stdint cimport uint32_t

cimport machport.ring.layout as layout
cimport machport.ring.memory as memory

@cython.final
cdef class Doorbell:
    cdef object _view
    cdef char *_memory

    cpdef arm(self, uint32_t way=*)
    @cython.locals(way=uint32_t)
    cpdef bint disarm(self) noexcept
    @cython.locals(armed=uint32_t)
    cpdef bint is_armed(self, uint32_t way=*) noexcept
    @cython.locals(way=uint32_t)
    cpdef int ring(self) noexcept
