# C types for tasks.py.

cimport cython
from libc.stdint cimport int64_t

cimport machport.abi.constants as c
cimport machport.kernel.phase as phase
from machport.kernel.kernel cimport Kernel
from machport.kernel.messages cimport interrupt
from machport.kernel.port cimport Port
from machport.kernel.refusal cimport Refusal
from machport.kernel.release cimport destroy_entry, destroy_port, release_reference, release_right, release_send
from machport.kernel.rights cimport copyin, copyout, has_right_for, is_nameless
from machport.kernel.space cimport Entry
from machport.kernel.task cimport Task
from machport.kernel.waiter cimport Waiter

@cython.locals(waiter=Waiter, port=Port, entry=Entry)
cpdef task_terminate(Kernel kernel, Task task)
cpdef check_alive(Task task)
@cython.locals(entry=Entry)
cpdef Task resolve_task(Task task, int64_t name)
cpdef int64_t copy_to(Kernel kernel, Task task, Port port) except -1
cpdef int64_t mach_task_self(Kernel kernel, Task task) except -1
@cython.locals(entry=Entry)
cdef _check_sendable(Task caller, int64_t name)
@cython.locals(entry=Entry, port=Port)
cdef Port _copy_of(Kernel kernel, Task caller, int64_t name)
