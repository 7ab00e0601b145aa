# C types for counts.py.  A port is an object here: port.pxd, which has its type, needs that of messages.

cimport cython
from libc.stdint cimport int64_t

cimport machport.abi.constants as c
from machport.kernel.message cimport Item, Message

@cython.final
cdef class Counts:
    cdef public int64_t sent
    cdef public int64_t sent_bytes
    cdef public int64_t received
    cdef public int64_t received_bytes
    cdef public int64_t queued
    cdef public int64_t ports
    cdef public dict notified

@cython.final
cdef class Note:
    cdef readonly int64_t kind
    cdef readonly object port
    cdef readonly int64_t name
    cdef readonly int64_t task
    cdef readonly object label

@cython.final
cdef class Losses:
    cdef public int64_t ports
    cdef public int64_t returned
    cdef public int64_t send_rights
    cdef public int64_t send_once_rights
    cdef public int64_t messages
    cdef public int64_t bytes
    cdef public dict caused
    cdef public list notes

    cpdef destroyed(self, Message message)
    cpdef notified(self, Message notification, object to, object about)

@cython.final
cdef class LossesByTask:
    cdef dict _of

    @cython.locals(losses=Losses)
    cpdef Losses of(self, int64_t number)
    cpdef Losses take(self, int64_t number)

@cython.locals(size=int64_t, item=Item)
cpdef int64_t memory_size(Message message) except -1
cdef int64_t _name_in(Message notification, object about) except -1
