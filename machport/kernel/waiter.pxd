# C types for waiter.py.

cimport cython
from libc.stdint cimport int64_t

cimport machport.abi.constants as c
cimport machport.kernel.phase as phase
from machport.kernel.message cimport Message
from machport.kernel.port cimport Port, Quota
from machport.kernel.task cimport Task

@cython.final
cdef class Result:
    cdef public int64_t code
    cdef public object head
    cdef public object inline
    cdef public object tail
    cdef public object memory
    cdef public object rule
    cdef public Py_ssize_t taken
    cdef public int64_t serial
    cdef public Message received
    cdef public Port port

    cdef begin(self, int64_t code, object rule)

@cython.locals(result=Result)
cpdef Result new_result(int64_t code, object rule=*)

@cython.final
cdef class Waiter:
    cdef public Task task
    cdef public int64_t option
    cdef public int64_t rcv_limit
    cdef public int64_t rcv_name
    cdef public int64_t timeout_ms
    cdef public int phase
    cdef public Line line
    cdef public Waiter before
    cdef public Waiter after
    cdef public bint changed
    cdef public Message message
    cdef public object source
    cdef public int64_t woken_code
    cdef public Result result
    cdef public object owner

    cdef begin(
        self, Task task, int64_t option, int64_t rcv_limit, int64_t rcv_name, int64_t timeout_ms
    )
    cpdef wait_in(self, Line line, int what_for)
    cpdef leave(self)
    @cython.locals(quota=Quota)
    cdef _count_sending(self, int64_t sign)
    cpdef finish(self, Result result)

@cython.locals(waiter=Waiter)
cpdef Waiter new_waiter(Task task, int64_t option, int64_t rcv_limit, int64_t rcv_name, int64_t timeout_ms)

@cython.final
cdef class Line:
    cdef public Waiter first
    cdef public Waiter last

    cpdef append(self, Waiter waiter)
    @cython.locals(before=Waiter, after=Waiter)
    cpdef remove(self, Waiter waiter)
