# C types for restoring.py.

cimport cython
from libc.stdint cimport int64_t

cimport machport.abi.constants as c
cimport machport.kernel.phase as phase
from machport.kernel.kernel cimport Kernel
from machport.kernel.message cimport Item, Message, new_item, new_message
from machport.kernel.port cimport Port, PortSet, Request, RequestTable, Ticket, new_port, new_request
from machport.kernel.space cimport Entry, Space, new_entry
from machport.kernel.task cimport Task
from machport.kernel.waiter cimport Line, Result, Waiter, new_result, new_waiter

@cython.final
cdef class _Restoring:
    cdef object object_of_number
    cdef Kernel kernel
    cdef list ports
    cdef list waiters
    cdef list tokens
    cdef dict charged
    cdef bytearray held
    cdef Entry nobody

    cdef Port _port(self, object number)
    cdef Port _real(self, object number)
    @cython.locals(port=Port)
    cdef Port _living(self, object number)
    @cython.locals(entry=Entry, port=Port)
    cdef object _restore_entry(self, Space space, list row)
    @cython.locals(request=Request)
    cdef object _claim(self, Entry entry, Port port)
    @cython.locals(entry=Entry, pset=PortSet, port=Port)
    cdef object _restore_set(self, Space space, object row)
    cdef object _restore_port(self, object number, Port port, object row)
    cdef object _restore_rare(self, object number, Port port, object row)
    @cython.locals(message=Message)
    cdef object _restore_waiting(self, Port port, object row)
    cdef object _restore_object(self, Port port, object number)
    cdef object _check_owner(self, object number, Port port, int64_t flags)
    cdef object _hold(self, object number)
    @cython.locals(port=Port)
    cdef object _check_holders(self)
    @cython.locals(port=Port, link=Port)
    cdef object _check_journeys(self)
    @cython.locals(message=Message)
    cdef Message _restore_message(self, object row, Port remote, bint was_received)
    @cython.locals(port=Port, has_rights=bint)
    cdef Item _restore_item(self, object row, Message message, bint was_received)
    @cython.locals(waiter=Waiter)
    cdef object _restore_line(self, Line line, object source, object row)
    @cython.locals(waiter=Waiter)
    cdef object _restore_senders(self, Port port, object rows)
    @cython.locals(waiter=Waiter)
    cdef Waiter _waiting(self, object number)
    @cython.locals(result=Result)
    cdef Result _restore_result(self, object row)

cdef object _require(bint true, str otherwise)
cdef list _list(object value)
cdef list _row(object value, Py_ssize_t length)
cdef object _number(object value, object most)
cdef bint _flag(object value) except -1
cdef str _text(object value)
cdef bytes _bytes(object value)
