# C types for end.py.

cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t

cimport machport.ring.layout as layout
cimport machport.ring.memory as memory
from machport.ring.doorbell cimport Doorbell
from machport.ring.lifeline cimport Word
from machport.ring.queue cimport Ring
from machport.ring.sign cimport Sign
from machport.ring.sleeping cimport sleep, sleep_at

cdef int _PRODUCER, _AT_BELL, _AT_SOCKET, _AT_PORT
cdef uint32_t _STATE, _ABANDONED, _HELD, _TRAVELLING, _CLOSED

@cython.final
cdef class End:
    cdef readonly int role
    cdef readonly Ring ring
    cdef readonly object sock
    cdef int _descriptor
    cdef Sign _sign
    cdef Sign _other_sign
    cdef Doorbell _bell
    cdef Doorbell _other_bell
    cdef Sign _wanted
    cdef public End sibling
    cdef public object peer
    cdef Word _line
    cdef uint32_t _known
    cdef readonly bint over
    cdef readonly bint closed
    cdef bint _abandoned
    cdef object _death
    cdef public uint64_t user
    cdef readonly uint64_t wakeups
    cdef readonly uint64_t coalesced
    cdef public object notify
    cdef bint _bells
    cdef int64_t _budget
    cdef int64_t _most
    cdef object _epoll
    cdef int _event
    cdef int _watched
    cdef int _waiting
    cdef bint _owes

    cpdef published(self, int answer)
    @cython.locals(way=int)
    cpdef bint tell(self) except -1
    @cython.locals(sign=uint32_t, line=Word)
    cpdef bint is_over(self) except -1
    @cython.locals(state=uint32_t, sign_left=uint32_t)
    cdef bint _look_around(self, uint32_t sign) except -1
    cpdef bint is_ready(self, uint64_t wanted) except -1
    @cython.locals(begun=int64_t, budget=int64_t, before=uint64_t, waited=int64_t)
    cpdef bint wait(self, uint64_t wanted, int64_t nanoseconds) except -1
    cdef bint _at_the_end(self, uint64_t wanted) except -1
    @cython.locals(end=int64_t)
    cdef bint _look(self, uint64_t wanted, int64_t budget) except -1
    @cython.locals(way=int, left=int64_t)
    cdef bint _sleep(self, uint64_t wanted, int64_t nanoseconds, int64_t begun) except -1
    cdef int _way(self) noexcept
    cdef bint _await_notification(self) except -1
