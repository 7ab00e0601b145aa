# C types for channel.py.

cimport cython
from libc.stdint cimport int64_t

cimport machport.ring.layout as layout
cimport machport.ring.memory as memory
cimport machport.ring.waking as waking
from machport.abi.traps cimport is_last, number_of
from machport.ring.doorbell cimport Doorbell
from machport.ring.queue cimport Ring

cdef class Channel:
    cdef object __weakref__
    cdef object _sock
    cdef int _descriptor
    cdef object _rings
    cdef Ring _up
    cdef Ring _down
    cdef Doorbell _daemon_bell
    cdef Doorbell _thread_bell
    cdef int64_t _longest
    cdef int64_t _budget
    cdef int64_t _most
    cdef object _early
    cdef bint _wants_wide
    cdef public bint under_way
    cdef readonly bint closed

    @cython.locals(size=int64_t)
    cpdef tuple trap(self, object payload, object descriptors=*)
    @cython.locals(longest=int64_t)
    cpdef list traps(self, object payloads, int64_t answer_max)
    cpdef list stream(self, bytes payload)

    cpdef _use(self, object pair)
    @cython.locals(outcome=int)
    cpdef _publish(self, object payload)
    cdef _send(self, object payload, object descriptors)
    @cython.locals(count=int64_t)
    cdef int64_t _publish_many(self, object payloads) except -1
    cdef _call_attention(self)
    @cython.locals(window=int64_t, published=int64_t, room=int64_t)
    cdef list _pipeline(self, object payloads, int64_t answer_max)
    @cython.locals(size=int64_t)
    cpdef tuple _answer(self)
    cdef _take_all(self, list answers)
    @cython.locals(size=int64_t)
    cdef _stream(self, list answers)
    cdef _abandon(self)
    @cython.locals(asleep=int64_t)
    cdef _await(self)
    cdef _check_open(self)
    cpdef _sleep(self)

@cython.locals(size=int64_t)
cpdef int64_t payload_size(object payload) except -1
