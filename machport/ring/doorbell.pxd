# C types for doorbell.py.

cimport cython

cimport machport.ring.memory as memory

@cython.final
cdef class Doorbell:
    cdef object _view
    cdef char *_memory

    cpdef arm(self)
    cpdef bint disarm(self) noexcept
    cpdef bint ring(self) noexcept
