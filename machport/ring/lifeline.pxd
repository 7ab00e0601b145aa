# C types for lifeline.py.

cimport cython
from libc.stdint cimport uint32_t

cimport machport.ring.robust as robust

cpdef bint is_compiled() noexcept
cpdef int threads_left(int process) except? -1

@cython.final
cdef class Word:
    cdef readonly uint32_t offset
    cdef readonly uint32_t value
    cdef char *_memory

    @cython.locals(word=uint32_t)
    cpdef bint is_slack(self) noexcept

@cython.final
cdef class Watch:
    cdef list _held
    cdef robust.words *_words

    cpdef bint add(self, Word word) except -1
    cpdef object remove(self, Word word)
    cpdef object ring(self)
    cpdef list wait(self, double seconds=*)
    cdef Word _take(self, uint32_t index)
