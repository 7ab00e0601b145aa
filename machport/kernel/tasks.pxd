# C types for tasks.py.

cimport cython
from libc.stdint cimport int64_t

cimport machport.abi.constants as c
cimport machport.kernel.phase as phase
from machport.kernel.counts cimport Counts
from machport.kernel.kernel cimport Kernel
from machport.kernel.messages cimport interrupt
from machport.kernel.message cimport Message
from machport.kernel.port cimport Port, Quota
from machport.kernel.refusal cimport Refusal
from machport.kernel.release cimport (
    destroy_entry,
    destroy_first,
    destroy_message,
    destroy_port,
    notify_of_death,
    release_reference,
    release_right,
    release_send,
    take_requests,
)
from machport.kernel.rights cimport copyin, copyout, has_right_for, is_nameless
from machport.kernel.space cimport Entry, FreshNames, Space
from machport.kernel.task cimport Task
from machport.kernel.waiter cimport Waiter

@cython.locals(waiter=Waiter)
cpdef task_terminate(Kernel kernel, Task task)
@cython.locals(waiter=Waiter, port=Port)
cpdef begin_termination(Kernel kernel, Task task)
@cython.locals(space=Space)
cpdef end_termination(Kernel kernel, Task task)
@cython.locals(entry=Entry)
cpdef destroy_name(Kernel kernel, Task task, int64_t name)

@cython.final
cdef class Termination:
    cdef readonly Task task
    cdef readonly list names

@cython.locals(ending=int64_t, turn=int64_t)
cpdef carry_on(Kernel kernel, int64_t count)
@cython.locals(requests=list)
cdef object _step(Kernel kernel, object what)
cpdef check_alive(Task task)
@cython.locals(entry=Entry)
cpdef Task resolve_task(Task task, int64_t name)
cpdef int64_t copy_to(Kernel kernel, Task task, Port port) except -1
cpdef int64_t mach_task_self(Kernel kernel, Task task) except -1
@cython.locals(entry=Entry)
cdef _check_sendable(Task caller, int64_t name)
@cython.locals(entry=Entry, port=Port)
cdef Port _copy_of(Kernel kernel, Task caller, int64_t name)
