# C types for message.py.  A port is an object here: port.pxd, which has its type, needs that of messages.

cimport cython
from libc.stdint cimport int64_t

cimport machport.abi.constants as c
cimport machport.abi.words as words
from machport.abi.message cimport descriptor_size

@cython.final
cdef class Item:
    cdef public object descriptor
    cdef public int64_t type
    cdef public list ports
    cdef public object memory

    cdef begin(self, object descriptor, int64_t type, list ports, object memory)

@cython.final
cdef class Message:
    cdef public object remote
    cdef public int64_t remote_type
    cdef public object local
    cdef public int64_t local_type
    cdef public int64_t id
    cdef public list items
    cdef public object inline
    cdef public int64_t voucher
    cdef public object tokens
    cdef public bint circular
    cdef public bint asks
    cdef public int64_t seqno
    cdef public int64_t serial
    cdef public bint returned
    cdef public Message next
    cdef public int64_t weight

    cdef begin(self, object remote, int64_t remote_type, int64_t id, object tokens)
    @cython.locals(item=Item)
    cpdef int64_t weigh(self) except -1
    @cython.locals(size=int64_t, item=Item)
    cpdef int64_t size(self) except -1
    @cython.locals(size=int64_t, item=Item)
    cpdef int64_t typed_size(self) except -1

@cython.locals(item=Item)
cpdef Item new_item(object descriptor, int64_t type, list ports, object memory=*)
@cython.locals(message=Message)
cpdef Message new_message(object remote, int64_t remote_type, int64_t id=*, object tokens=*)
cpdef Message send_once_notification(object port)
@cython.locals(message=Message)
cpdef Message word_notification(int64_t id, object port, int64_t word)
@cython.locals(message=Message)
cpdef Message port_destroyed_notification(object port, object right)
