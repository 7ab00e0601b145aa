# C types for messages.py.

cimport cython
from libc.stdint cimport int64_t

cimport machport.abi.constants as c
cimport machport.abi.words as words
cimport machport.kernel.phase as phase
from machport.abi.message cimport trailer_size
from machport.kernel.copyin cimport copyin_message
from machport.kernel.copyout cimport copyout_message, copyout_pseudo
from machport.kernel.counts cimport Counts, memory_size
from machport.kernel.kernel cimport Kernel
from machport.kernel.message cimport Message, new_message, word_notification
from machport.kernel.port cimport Port, PortSet, Quota, Request
from machport.kernel.queueing cimport (
    dequeue,
    enqueue,
    peek,
    received_size,
    relieve,
    too_large,
    wait_to_receive,
    wait_to_send,
)
from machport.kernel.refusal cimport Refusal
from machport.kernel.release cimport destroy_message, notify, release_right, take_request
from machport.kernel.space cimport Entry, Space
from machport.kernel.task cimport Task
from machport.kernel.waiter cimport Line, Result, Waiter, new_result, new_waiter

@cython.locals(waiter=Waiter, result=Result)
cpdef Waiter mach_msg(
    Kernel kernel, Task task, int64_t option, object buffer=*, object memory=*, int64_t rcv_limit=*,
    int64_t rcv_name=*, int64_t timeout_ms=*
)
@cython.locals(waiter=Waiter, woken=Line)
cpdef list collect(Kernel kernel)
cpdef expire(Kernel kernel, Waiter waiter)
cpdef interrupt(Kernel kernel, Waiter waiter)
@cython.locals(message=Message)
cpdef abandon(Kernel kernel, Waiter waiter)
cdef _give_up(Kernel kernel, Waiter waiter, int64_t send_code, int64_t receive_code)

@cython.locals(message=Message, port=Port, quota=Quota, counts=Counts)
cdef _start_send(Kernel kernel, Waiter waiter, object buffer, object memory)
@cython.locals(entry=Entry)
cdef _check_need_not_wait(Space space, Quota quota, object buffer)
@cython.locals(message=Message)
cdef _resume_send(Kernel kernel, Waiter waiter)
cdef _sent(Kernel kernel, Waiter waiter)
cdef _accept(Kernel kernel, Port port, Message message)
@cython.locals(reply=Port, reply_type=int64_t, answer=Message)
cdef _answer_for_kernel(Kernel kernel, Message message)
@cython.locals(entry=Entry, request=Request)
cdef _arm_send_possible(Space space, Port port)
@cython.locals(message=Message, space=Space, result=Result)
cdef _pseudo_receive(Kernel kernel, Waiter waiter, int64_t code)

@cython.locals(port=Port, message=Message)
cdef _start_receive(Kernel kernel, Waiter waiter)
@cython.locals(space=Space, entry=Entry, port=Port)
cdef object _receive_source(Kernel kernel, Waiter waiter)
@cython.locals(message=Message, code=int64_t)
cdef _resume_receive(Kernel kernel, Waiter waiter)
@cython.locals(name=int64_t, result=Result)
cdef Result _left_in_queue(Kernel kernel, Waiter waiter, Port port, Message message)
@cython.locals(space=Space, is_too_large=bint)
cdef _receive(Kernel kernel, Waiter waiter, Port port, Message message)
@cython.locals(request=Request)
cdef _fire_send_possible(Kernel kernel, Port port)
