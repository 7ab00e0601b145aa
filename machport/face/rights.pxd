# C types for rights.py.

cimport cython
from libc.stdint cimport int64_t

cimport machport.abi.constants as c

from machport.face.closing cimport Closing

cdef class Right(Closing):
    cdef object __weakref__
    cdef public object task
    cdef public int64_t _name
    cdef public object _gone
    cdef public bint _borrowed
    cdef public bint _quiet

    cpdef _check_there(self)
    cpdef object name_in(self, object task)
    cpdef move(self)

cdef class Transfer:
    cdef public Right right
    cdef public int64_t disposition
    cdef public object ticket

    cpdef prepare(self, object task)
    cpdef undo(self)
    cpdef done(self)

cdef class AnySendRight(Right):
    pass

cdef class Fileport(AnySendRight):
    pass

cdef class SendOnceRight(Right):
    pass

cdef class DeadName(Right):
    pass

cdef class AnyReceiver(Right):
    pass

cdef class AnyReceiveRight(AnyReceiver):
    pass

cdef class AnyPortSet(AnyReceiver):
    cdef public dict _members
    cdef public Py_ssize_t _many

@cython.locals(right=Right)
cpdef Right received_right(object task, int64_t name, int64_t kind)
