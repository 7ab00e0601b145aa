# C types for kernel.py.

cimport cython
from libc.stdint cimport int64_t

from machport.kernel.counts cimport Counts, LossesByTask
from machport.kernel.port cimport Port, RequestTable, new_port
from machport.kernel.space cimport Space
from machport.kernel.waiter cimport Line, Waiter

@cython.final
cdef class Kernel:
    cdef readonly object dialect
    cdef readonly bint typed_messages
    cdef readonly bint calls_are_messages
    cdef public Py_ssize_t name_limit
    cdef readonly Space space
    cdef public dict tasks
    cdef public int64_t tasks_made
    cdef public int64_t ending
    cdef readonly Counts counts
    cdef readonly LossesByTask losses
    cdef public list notices
    cdef public object garbage
    cdef public Line woken
    cdef public list changed
    cdef public list released
    cdef public int64_t slice
    cdef public object unfinished
    cdef public list relieved
    cdef public list possible
    cdef public list exceeded

    cpdef wake(self, Waiter waiter, int64_t code=*)
    cpdef bint waits(self, Waiter waiter) noexcept
    cpdef note(self, Waiter waiter)
    cpdef RequestTable new_request_table(self)
    @cython.locals(port=Port)
    cpdef Port kernel_port(self, object kobject)
    cpdef release(self, object kobject)
    cpdef list take_exceeded(self)
    cpdef list take_released(self)
