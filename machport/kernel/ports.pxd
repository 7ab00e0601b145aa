# C types for ports.py, for the calls that are made often.

cimport cython
from libc.stdint cimport int64_t

cimport machport.abi.constants as c
cimport machport.abi.words as words
from machport.abi.message cimport is_disposition
from machport.kernel.counts cimport Counts
from machport.kernel.kernel cimport Kernel
from machport.kernel.message cimport Message
from machport.kernel.port cimport Port, PortSet, new_port
from machport.kernel.queueing cimport admit_senders, destroy_set, join_set, leave_set, received_size
from machport.kernel.refusal cimport Refusal
from machport.kernel.release cimport (
    destroy_entry,
    free_entry,
    notify,
    release_receive,
    release_reference,
    release_right,
)
from machport.kernel.rights cimport (
    copyin,
    copyout,
    destroy_refused,
    enter_right,
    has_right_for,
    is_nameless,
    join_entry,
    kind_of,
)
from machport.kernel.space cimport Entry, Space, new_entry
from machport.kernel.task cimport Task

@cython.locals(entry=Entry)
cdef Entry _entry(Task task, int64_t name)
@cython.locals(entry=Entry)
cdef Port _receive_right(Task task, int64_t name)
@cython.locals(pset=PortSet)
cdef PortSet _set_entry(Task task, int64_t name)
cdef _check_new_name(int64_t name)
cdef _check_guard(Port port)

@cython.locals(name=int64_t)
cpdef int64_t mach_port_allocate(Kernel kernel, Task task, int64_t right) except -1
cpdef mach_port_allocate_name(Kernel kernel, Task task, int64_t right, int64_t name)
cdef _check_allocatable(int64_t right)
cdef _allocate(Kernel kernel, Space space, int64_t name, int64_t right)
cpdef int64_t mach_reply_port(Kernel kernel, Task task) except -1
cpdef mach_port_rename(Kernel kernel, Task task, int64_t old, int64_t new)
@cython.locals(entry=Entry, found=list)
cpdef list mach_port_names(Kernel kernel, Task task)
cpdef int64_t mach_port_type(Kernel kernel, Task task, int64_t name) except -1

cdef int64_t _right_type(Kernel kernel, int64_t right) except -1
cdef int64_t _urefs_max(int64_t right) noexcept
@cython.locals(type=int64_t, entry=Entry)
cpdef int64_t mach_port_get_refs(Kernel kernel, Task task, int64_t name, int64_t right) except -1
@cython.locals(type=int64_t, entry=Entry, most=int64_t, urefs=int64_t)
cpdef mach_port_mod_refs(Kernel kernel, Task task, int64_t name, int64_t right, int64_t delta)
@cython.locals(deleted=Message)
cdef _destroy_receive(Kernel kernel, Space space, Entry entry, Port port)
@cython.locals(entry=Entry)
cpdef mach_port_deallocate(Kernel kernel, Task task, int64_t name)
@cython.locals(entry=Entry)
cpdef mach_port_destroy(Kernel kernel, Task task, int64_t name)

@cython.locals(port=Port, kind=int64_t)
cpdef mach_port_insert_right(
    Kernel kernel, Task caller, Task task, int64_t name, int64_t right, int64_t disposition
)
@cython.locals(entry=Entry)
cdef Port _copyin_carried(Kernel kernel, Task caller, int64_t name, int64_t disposition)
@cython.locals(entry=Entry, holder=Entry)
cdef _insert(Space space, int64_t name, Port port, int64_t kind)
@cython.locals(entry=Entry, port=Port, kind=int64_t)
cpdef tuple mach_port_extract_right(
    Kernel kernel, Task caller, Task task, int64_t name, int64_t disposition
)

@cython.locals(port=Port, raised=int64_t)
cpdef mach_port_set_qlimit(Kernel kernel, Task task, int64_t name, int64_t qlimit)
@cython.locals(port=Port)
cpdef object mach_port_get_receive_status(Kernel kernel, Task task, int64_t name)
cpdef mach_port_set_mscount(Kernel kernel, Task task, int64_t name, int64_t mscount)
cpdef mach_port_set_seqno(Kernel kernel, Task task, int64_t name, int64_t seqno)
@cython.locals(port=Port)
cpdef list mach_port_get_set_status(Kernel kernel, Task task, int64_t name)
@cython.locals(port=Port, ahead=int64_t, message=Message, number=int64_t)
cpdef object mach_port_peek(Kernel kernel, Task task, int64_t name, int64_t seqno)
@cython.locals(port=Port, pset=PortSet)
cpdef mach_port_move_member(Kernel kernel, Task task, int64_t member, int64_t after)
