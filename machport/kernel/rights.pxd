# C types for rights.py.

cimport cython
from libc.stdint cimport int64_t

cimport machport.abi.constants as c
cimport machport.abi.words as words
from machport.abi.message cimport is_disposition
from machport.kernel.kernel cimport Kernel
from machport.kernel.message cimport Item, Message, new_item, new_message
from machport.kernel.port cimport Port
from machport.kernel.refusal cimport Refusal
from machport.kernel.release cimport (
    cancel_no_senders,
    clean_item,
    clear_receiver,
    destroy_message,
    free_entry,
    notify,
    release_right,
)
from machport.kernel.space cimport Entry, Space, new_entry

cpdef int64_t kind_of(int64_t disposition) noexcept
cpdef bint is_send_disposition(int64_t disposition) noexcept
cpdef bint is_nameless(int64_t name) noexcept
@cython.locals(needed=int64_t)
cpdef bint has_right_for(Entry entry, int64_t disposition, bint dead_ok=*) except -1

@cython.locals(deleted=list, notification=Message)
cpdef Port copyin(Kernel kernel, Space space, Entry entry, int64_t disposition)
@cython.locals(port=Port)
cpdef Port copyin_quietly(Kernel kernel, Space space, Entry entry, int64_t disposition, list deleted)
cdef _take_reference(Space space, Entry entry, list deleted)
@cython.locals(notification=Message)
cdef _free(Space space, Entry entry, list deleted)

@cython.locals(entry=Entry)
cpdef int64_t copyout(Space space, Port port, int64_t kind) except -1
@cython.locals(entry=Entry)
cpdef Entry enter_right(Space space, int64_t name, Port port, int64_t kind)
cpdef join_entry(Space space, Entry entry, Port port, int64_t kind)
cpdef tuple copyout_or_destroy(Kernel kernel, Space space, Port port, int64_t kind)
@cython.locals(item=Item, message=Message)
cpdef destroy_refused(Kernel kernel, Port port, int64_t kind)
