# C types for copyout.py.

cimport cython
from libc.stdint cimport int64_t, uint64_t

cimport machport.abi.constants as c
cimport machport.abi.message as layout
cimport machport.abi.words as words
from machport.abi.message cimport Parsed
from machport.kernel.counts cimport Counts, memory_size
from machport.kernel.kernel cimport Kernel
from machport.kernel.message cimport Item, Message
from machport.kernel.port cimport Port
from machport.kernel.queueing cimport received_size, serve
from machport.kernel.refusal cimport Refusal
from machport.kernel.release cimport clean_message, release_right, release_send
from machport.kernel.rights cimport copyin, copyout, copyout_or_destroy, has_right_for, is_nameless
from machport.kernel.space cimport Entry, Space
from machport.kernel.task cimport Task
from machport.kernel.waiter cimport Result, new_result

@cython.locals(
    code=int64_t, remote=int64_t, local=int64_t, result=Result, bits=int64_t, length=int64_t,
    trailer=int64_t, context=uint64_t, shortages=int64_t
)
cpdef Result copyout_message(
    Kernel kernel, Space space, Port port, Message message, int64_t option, bint is_too_large
)
@cython.locals(port=Port, here=bint, name=int64_t)
cdef int64_t _consume_destination(Kernel kernel, Space space, Message message) except -1
@cython.locals(reply=Port)
cdef int64_t _destroy_on_reception(Kernel kernel, Message message) except -1
@cython.locals(item=Item, port=Port, kind=int64_t, shortages=int64_t, bits=int64_t, is_array=bint, virtual=bint)
cdef tuple _copyout_body(Kernel kernel, Space space, Message message, Result result)
@cython.locals(result=Result, bits=int64_t, remote=int64_t, local=int64_t)
cpdef Result copyout_pseudo(Kernel kernel, Space space, Message message, int64_t code)
@cython.locals(message=Message, port=Port, space=Space, given=Parsed, item=Item, right=Port)
cpdef take_back(Kernel kernel, Task task, Result result)
@cython.locals(entry=Entry)
cdef Port _retake(Kernel kernel, Space space, int64_t name, int64_t kind)
