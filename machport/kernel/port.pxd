# C types for port.py.  Spaces, entries and lines of waiters are objects here: what has their types needs those of ports.

cimport cython
from libc.stdint cimport int64_t, uint64_t

cimport machport.abi.constants as c
cimport machport.abi.words as words
from machport.kernel.message cimport Message

@cython.final
cdef class Excess:
    cdef readonly object holder
    cdef readonly object what
    cdef readonly int64_t limit
    cdef readonly int64_t use
    cdef readonly Port port
    cdef public int64_t count

@cython.final
cdef class Quota:
    cdef public object holder
    cdef public int64_t messages
    cdef public int64_t bytes
    cdef public int64_t sending
    cdef public int64_t messages_max
    cdef public int64_t bytes_max
    cdef public int64_t sending_max
    cdef public int64_t waiters_max
    cdef public int64_t busy
    cdef public object waiting
    cdef readonly list relieved
    cdef public bint is_relieved
    cdef readonly list exceeded
    cdef public dict noted

    cpdef bint full(self) noexcept
    cpdef relieve(self)
    cpdef wait(self, Port port)
    cpdef note_full(self, Port port)
    @cython.locals(excess=Excess)
    cpdef note(self, object what, int64_t limit, int64_t use, Port port=*)

@cython.final
cdef class Port:
    cdef public bint active
    cdef public bint guarded
    cdef public bint strict
    cdef public bint unreceived
    cdef public object receiver
    cdef public int64_t name
    cdef public Port destination
    cdef public int64_t mscount
    cdef public int64_t srights
    cdef public int64_t sorights
    cdef public int64_t qlimit
    cdef public int64_t seqno
    cdef public Message first
    cdef public Message last
    cdef public int64_t msgcount
    cdef public int64_t bytes
    cdef public Quota quota
    cdef public PortSet pset
    cdef public Ticket ticket
    cdef public Port ns_request
    cdef public Port pd_request
    cdef public RequestTable requests
    cdef public uint64_t context
    cdef public object receivers
    cdef public object senders
    cdef public object kobject
    cdef public object label
    cdef public int64_t last_holder
    cdef public int64_t lost_with

    cdef begin(self, object receiver)
    cpdef bint full(self) noexcept
    @cython.locals(before=Quota)
    cpdef charge_to(self, Quota quota)
    cpdef bint is_wanted(self) except -1
    cpdef append(self, Message message)
    @cython.locals(weight=int64_t)
    cdef _count(self, Message message)
    @cython.locals(message=Message, weight=int64_t, quota=Quota)
    cpdef Message pop(self)
    @cython.locals(before=Message, after=Message)
    cpdef push_back(self, Message message)
    @cython.locals(link=Port, found=set)
    cpdef set above(self)

@cython.locals(port=Port)
cpdef Port new_port(object receiver)
@cython.locals(port=Port)
cdef Port _dead_port()

@cython.final
cdef class Ticket:
    cdef public Port port

@cython.final
cdef class PortSet:
    cdef public bint active
    cdef public int64_t name
    cdef public dict members
    cdef public object order
    cdef public Py_ssize_t _compact_at
    cdef public object receivers

    cpdef insert(self, Port port)
    cdef _compact(self)
    cpdef remove(self, Port port)
    cpdef arrived(self, Port port)
    @cython.locals(ticket=Ticket)
    cpdef Port first(self)

@cython.final
cdef class Request:
    cdef public object entry
    cdef public int64_t name
    cdef public Port notify
    cdef public bint send_possible

    cdef begin(self, object entry, int64_t name, Port notify, bint send_possible)

@cython.locals(request=Request)
cpdef Request new_request(object entry, int64_t name, Port notify, bint send_possible)

cdef class RequestTable:
    cdef public dict armed
    cdef public int64_t next
    cdef public dict slots

    @cython.locals(slot=int64_t)
    cpdef int64_t add(self, Request request) except -1
    cpdef Request cancel(self, int64_t slot)
    cpdef list in_order(self)
    cpdef int64_t _take_slot(self) except -1

cdef class SlottedRequestTable(RequestTable):
    cdef public list free
    cdef public Py_ssize_t size

    cpdef Request cancel(self, int64_t slot)
    cpdef list in_order(self)
    cpdef int64_t _take_slot(self) except -1
