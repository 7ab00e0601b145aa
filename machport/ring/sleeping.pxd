# C types for sleeping.py.

cimport cython
from libc.stdint cimport int64_t, uint32_t

cimport machport.ring.futex as futex
from machport.ring.doorbell cimport Doorbell
from machport.ring.lifeline cimport Word

cpdef bint is_compiled() noexcept
@cython.locals(answer=int)
cpdef int sleep(Doorbell bell, uint32_t way, Word line, int64_t nanoseconds) except -1
cpdef object sleep_at(int descriptor, int other, int64_t nanoseconds)
cpdef object wake(Doorbell bell)
