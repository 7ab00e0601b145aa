# C types for requests.py.

cimport cython
from libc.stdint cimport int64_t

cimport machport.abi.constants as c
from machport.abi.message cimport is_disposition
from machport.kernel.kernel cimport Kernel
from machport.kernel.message cimport word_notification
from machport.kernel.port cimport Port, Request, RequestTable, new_request
from machport.kernel.refusal cimport Refusal
from machport.kernel.release cimport notify as send_notification
from machport.kernel.release cimport take_request
from machport.kernel.rights cimport (
    copyin,
    copyout_or_destroy,
    destroy_refused,
    has_right_for,
    is_nameless,
    kind_of,
)
from machport.kernel.space cimport Entry, Space
from machport.kernel.task cimport Task

@cython.locals(notify_port=Port, previous=Port)
cpdef int64_t mach_port_request_notification(
    Kernel kernel, Task caller, Task task, int64_t name, int64_t variant, int64_t sync, int64_t notify,
    int64_t notify_type
) except -1
@cython.locals(entry=Entry)
cpdef Port copyin_notify(Kernel kernel, Task caller, int64_t name, int64_t disposition)
@cython.locals(entry=Entry, port=Port)
cdef Port _copyin_notify_by_message(Kernel kernel, Task caller, int64_t name, int64_t disposition)
cdef Port _alive(Port port, object rule)
@cython.locals(entry=Entry)
cdef Entry _entry(Space space, int64_t name)
@cython.locals(entry=Entry)
cdef Port _receive_right(Space space, int64_t name, object rule)
@cython.locals(port=Port, previous=Port)
cdef Port _port_destroyed(Space space, int64_t name, int64_t sync, Port notify)
@cython.locals(port=Port, previous=Port)
cdef Port _no_senders(Kernel kernel, Space space, int64_t name, int64_t sync, Port notify)
@cython.locals(entry=Entry)
cdef Port _dead_name(Kernel kernel, Space space, int64_t name, int64_t sync, Port notify)
@cython.locals(entry=Entry, port=Port, previous=Port)
cdef Port _send_possible(Kernel kernel, Space space, int64_t name, int64_t sync, Port notify)
cdef _notify_of_dead_name(Kernel kernel, Entry entry, Port notify, bint immediate)
@cython.locals(port=Port, previous=Request)
cdef Port _swap_request(Kernel kernel, Entry entry, Port notify, bint send_possible)
