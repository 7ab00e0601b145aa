# C types for traps.py.

cimport cython
from libc.stdint cimport int64_t

cimport machport.abi.constants as c
cimport machport.ring.memory as memory
from machport.abi.traps cimport Batch, number_of, pack_tag, unpack_async
from machport.kernel.kernel cimport Kernel
from machport.kernel.messages cimport abandon, collect, expire, interrupt, mach_msg
from machport.kernel.port cimport Quota
from machport.kernel.task cimport Task
from machport.kernel.waiter cimport Result, Waiter
from machport.server.connection cimport Channel, TaggedCall
from machport.server.dispatch cimport Answer, answer_parts, carry_out_mach_msg, msg_answer, new_answer

@cython.final
cdef class Traps:
    cdef public Kernel kernel
    cdef public object bootstrap
    cdef public object deadlines
    cdef public object broken
    cdef public int64_t descriptor_limit
    cdef public dict refusals
    cdef public int64_t cut_offs
    cdef public object tracer
    cdef int64_t[::1] _counts
    cdef dict _own_calls
    cdef object _wait_writable
    cdef object _released
    cdef list _busy
    cdef int64_t _spin
    cdef int64_t _now
    cdef bint _ends_turn
    cdef set _spent

    @cython.locals(end=int64_t, served=int64_t)
    cpdef bint look(self) except -1
    @cython.locals(channel=Channel, served=int64_t)
    cdef int64_t _turn(self) except -1
    @cython.locals(count=int64_t, task=Task, busy=int64_t, turn=int64_t)
    cdef int64_t _serve(self, Channel channel) except -1
    @cython.locals(channel=Channel)
    cdef _retire(self, int64_t now)
    @cython.locals(quota=Quota)
    cdef _leave(self, Channel channel)
    @cython.locals(quota=Quota)
    cpdef attend(self, Channel channel)
    cpdef forget(self, Channel channel)
    @cython.locals(waiter=Waiter, call=TaggedCall)
    cpdef abandon(self, Channel channel)
    cdef _abandon(self, Waiter waiter)
    cdef _interrupt(self, Waiter waiter)

    @cython.locals(number=int64_t)
    cpdef take(self, Channel channel, object payload, object descriptors)
    @cython.locals(task=Task)
    cdef _carry_out(self, Channel channel, object payload, object descriptors)
    cdef Waiter _carry_out_message(self, Task task, object payload)
    cdef Waiter _mach_msg(
        self, Task task, int64_t option, object buffer, int64_t rcv_limit, int64_t rcv_name, int64_t timeout_ms
    )
    cdef _spend(self, Task task)
    @cython.locals(answer=Answer, task=Task, is_traced=bint, began=int64_t)
    cdef _carry_out_other(self, Channel channel, int64_t number, object payload, object descriptors)
    cpdef drain(self, Channel channel)

    cdef _begun(self, Channel channel, Waiter waiter)
    @cython.locals(waiter=Waiter, changed=list)
    cpdef settle(self)
    cdef _release(self)
    @cython.locals(channel=Channel)
    cdef _changed(self, Waiter waiter)
    cdef _arm(self, object waiting, Waiter waiter)
    cpdef expire(self)

    @cython.locals(task=Task, calls=dict, call=TaggedCall, waiter=Waiter, quota=Quota)
    cdef _begin_tagged(self, Channel channel, object payload)
    @cython.locals(call=TaggedCall)
    cdef _cancel(self, Channel channel, object payload)
    @cython.locals(channel=Channel)
    cdef _changed_tagged(self, TaggedCall call, Waiter waiter)
    cdef _refused(self, int64_t code)
    @cython.locals(answer=Answer)
    cdef _finish_tagged(self, TaggedCall call, Result result)

    @cython.locals(task=Task)
    cdef Waiter _receive_many(self, Channel channel, object payload)
    cdef _send_many(self, Channel channel, object payload)
    @cython.locals(batch=Batch, task=Task, waiter=Waiter, result=Result)
    cdef _send_next(self, Channel channel)
    @cython.locals(batch=Batch, task=Task)
    cdef _sent_one(self, Channel channel, Result result)
    cdef _end_batch(self, Channel channel, int64_t sent, int64_t code)
    @cython.locals(result=Result)
    cdef _finish(self, Channel channel, Waiter waiter)
    @cython.locals(waiter=Waiter, many=Waiter, option=int64_t, parts=list, results=list, size=int64_t, length=int64_t, answer=Answer)
    cdef _go_on(self, Channel channel, Result result)

    @cython.locals(quota=Quota)
    cdef _answer(self, Channel channel, Answer answer)
    cdef _cut_off(self, Channel channel, object error)
    cpdef bint flush(self, Channel channel) except -1
    cdef _keep(self, Channel channel)
