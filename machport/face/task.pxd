# C types for task.py.

cimport cython
from libc.stdint cimport int64_t

cimport machport.abi.words as w
cimport machport.abi.constants as c
from machport.abi.traps cimport MsgAnswer, MsgTrap, new_msg, unpack_msg_answer, unpack_msg_answers
from machport.client.calls cimport Calls
from machport.face.closing cimport Closing
from machport.face.message cimport Message, received_message
from machport.face.rights cimport Right

cdef class AnyTask(Closing):
    cdef object __weakref__
    cdef public Calls calls
    cdef public object _carrier
    cdef public object _connection
    cdef public object _local
    cdef public list _reply_ports
    cdef public object _attendant
    cdef public object _forms

    @cython.locals(trap=MsgTrap, answer=MsgAnswer, timeout_ms=int64_t)
    cpdef send(
        self, int64_t name, int64_t disposition, object body, object id, object rights, object memory, object reply_to,
        object timeout
    )
    @cython.locals(answer=MsgAnswer, reply_port=int64_t, trap=MsgTrap, message=Message, timeout_ms=int64_t)
    cpdef Message call(
        self, int64_t name, int64_t disposition, object body, object id, object rights, object memory, object timeout
    )
    @cython.locals(option=int64_t)
    cpdef Message receive(self, int64_t name, object timeout)
    @cython.locals(trap=MsgTrap, answer=MsgAnswer, timeout_ms=int64_t)
    cpdef Message reply_and_receive(
        self, Right reply, object body, object id, object rights, object memory, int64_t name, object timeout
    )
    cpdef Message _received(self, MsgAnswer answer, int64_t name)
    cpdef MsgAnswer mach_msg(self, MsgTrap trap)
    cpdef MsgAnswer _carry(self, MsgTrap trap, object rights)
    @cython.locals(bits=int64_t, size=int64_t)
    cpdef MsgTrap _pack(
        self, int64_t name, int64_t disposition, int64_t reply_name, object body, object id, object rights,
        object memory
    )
    cpdef int64_t _take_reply_port(self) except -1
