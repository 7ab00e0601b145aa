# C types for calls.py.

cimport cython

cimport machport.abi.constants as c
from machport.abi.traps cimport MsgAnswer, MsgTrap, Trap, number_of, unpack_msg_answer

@cython.final
cdef class Calls:
    cdef public object carrier

    cdef tuple _trap(self, Trap trap, tuple arguments, object words=*)
    cdef object _one(self, Trap trap, tuple arguments)
    @cython.locals(answer=MsgAnswer)
    cpdef MsgAnswer mach_msg(self, MsgTrap trap)
