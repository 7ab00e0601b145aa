# C types for copyin.py.

cimport cython
from libc.stdint cimport int64_t

cimport machport.abi.constants as c
cimport machport.abi.message as layout
cimport machport.abi.words as words
from machport.abi.message cimport Parsed
from machport.kernel.kernel cimport Kernel
from machport.kernel.message cimport Item, Message, new_item, new_message
from machport.kernel.port cimport Port
from machport.kernel.refusal cimport Refusal
from machport.kernel.release cimport clean_message, notify
from machport.kernel.rights cimport (
    copyin,
    copyin_quietly,
    has_right_for,
    is_nameless,
    is_send_disposition,
    kind_of,
)
from machport.kernel.space cimport Entry, Space
from machport.kernel.task cimport Task

@cython.locals(parsed=Parsed, space=Space, message=Message)
cpdef Message copyin_message(Kernel kernel, Task task, object buffer, object memory)
@cython.locals(remote=int64_t, local=int64_t, local_ok=bint)
cdef _check_header(Parsed parsed)
cdef list _match_memory(object descriptors, object memory)
@cython.locals(
    remote=int64_t, local=int64_t, destination=Entry, reply=Entry, deleted=list, remote_port=Port,
    local_port=Port, notification=Message, message=Message
)
cdef Message _copyin_header(Kernel kernel, Space space, Parsed parsed, object tokens)
cdef _check_same_name(Entry entry, int64_t remote, int64_t local)
cdef bint _makes(int64_t disposition) noexcept
@cython.locals(item=Item, above=set)
cdef _copyin_body(Kernel kernel, Space space, Message message, object descriptors, object regions)
@cython.locals(entry=Entry, port=Port)
cdef bint _copyin_item(
    Kernel kernel, Space space, Message message, Item item, int64_t name, int64_t disposition, set above
) except -1
