# C types for saving.py.

cimport cython
from libc.stdint cimport int64_t

cimport machport.abi.constants as c
from machport.kernel.kernel cimport Kernel
from machport.kernel.message cimport Item, Message
from machport.kernel.port cimport Port, PortSet, Ticket
from machport.kernel.space cimport Entry, Space
from machport.kernel.task cimport Task
from machport.kernel.waiter cimport Line, Result, Waiter

@cython.final
cdef class _Saving:
    cdef Kernel kernel
    cdef object number_of_object
    cdef object saved
    cdef dict tasks
    cdef dict ports
    cdef dict waiters
    cdef list found
    cdef dict tokens
    cdef Py_ssize_t standing

    @cython.locals(count=object)
    cdef object _port(self, Port port)
    cdef object _tokens(self, object tokens)
    @cython.locals(space=Space, entries=list, sets=list, entry=Entry)
    cdef list _save_task(self, Task task)
    @cython.locals(port=Port, ticket=Ticket)
    cdef list _save_set(self, PortSet pset)
    @cython.locals(rows=list, port=Port)
    cdef list _save_ports(self)
    @cython.locals(flags=int)
    cdef list _save_port(self, Port port)
    @cython.locals(holder=object)
    cdef list _save_rare(self, Port port)
    cdef object _last_holder(self, Port port)
    @cython.locals(rows=list)
    cdef list _save_queue(self, Message message)
    cdef object _save_object(self, Port port)
    @cython.locals(flags=int, items=list, item=Item)
    cdef list _save_message(self, Message message, bint was_received=*)
    @cython.locals(ports=list, port=Port)
    cdef list _save_item(self, Item item, bint was_received)
    @cython.locals(waiter=Waiter)
    cdef list _save_senders(self, Line line)
    cdef object _stands(self, Waiter waiter)
    cdef list _save_waiter(self, Waiter waiter)
    cdef list _save_result(self, Result result)
