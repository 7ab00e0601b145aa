# C types for dispatch.py.

cimport cython
from libc.stdint cimport int64_t

from machport.abi.traps cimport MsgTrap, Trap, msg_answer_parts, number_of, unpack_msg
from machport.kernel.kernel cimport Kernel
from machport.kernel.messages cimport mach_msg
from machport.kernel.task cimport Task
from machport.kernel.tasks cimport check_alive, resolve_task
from machport.kernel.waiter cimport Result, Waiter

@cython.final
cdef class Answer:
    cdef public tuple parts
    cdef public object descriptors
    cdef public bint gives_descriptors
    cdef public bint keeps_descriptors
    cdef public Result result
    cdef public object rings
    cdef public bint is_on_socket

    @cython.locals(size=int64_t)
    cpdef int64_t size(self) except -1

@cython.final
cdef class Call:
    cdef readonly int kind
    cdef readonly Trap trap
    cdef readonly bint has_words
    cdef readonly object function

@cython.locals(answer=Answer)
cpdef Answer new_answer(tuple parts)
@cython.locals(task=Task, call=Call, trap=Trap, arguments=tuple)
cpdef Answer dispatch(Kernel kernel, Task caller, object payload, object descriptors)
cdef Answer _answer(Trap trap, object value)
@cython.locals(trap=MsgTrap)
cpdef Waiter carry_out_mach_msg(Kernel kernel, Task caller, object payload)
@cython.locals(answer=Answer)
cpdef Answer msg_answer(Result result)
