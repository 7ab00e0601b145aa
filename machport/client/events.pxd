# C types for events.py.

cimport machport.ring.layout as layout
cimport machport.ring.memory as memory
cimport machport.ring.sleeping as sleeping
cimport machport.ring.waking as waking
cimport cython
from libc.stdint cimport int64_t

from machport.abi.traps cimport MsgAnswer, MsgTrap, pack_async, unpack_tagged
from machport.client.channel cimport Channel, payload_size
from machport.ring.queue cimport Ring

cdef class Events(Channel):
    cdef object _connection
    cdef int64_t _last
    cdef dict _under_way
    cdef dict _kept
    cdef object _packets

    @cython.locals(size=int64_t, by_socket=bint, tag=int64_t)
    cpdef int64_t begin(self, MsgTrap trap) except -1
    @cython.locals(tag=int64_t)
    cpdef MsgAnswer call(self, MsgTrap trap)
    cpdef MsgAnswer cancel(self, int64_t tag)
    cpdef list look(self)
    cpdef list take(self)
    cpdef bint wait(self, int64_t nanoseconds) except -1
    cpdef bint arm(self) except -1
    cdef int64_t _next_tag(self) except -1
    cdef list _taken(self)
    @cython.locals(outcome=int, until=int64_t, now=int64_t)
    cdef _write(self, object payload)
    cdef _post(self, object payload)
    @cython.locals(up=Ring, size=int64_t, tag=int64_t)
    cdef _collect(self)
    cpdef _sleep(self)
    @cython.locals(found=bint, kind=int)
    cdef bint _take_packets(self) except -1
