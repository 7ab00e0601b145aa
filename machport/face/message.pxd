# C types for message.py.

cimport cython
from libc.stdint cimport int64_t

cimport machport.abi.constants as c
cimport machport.abi.words as w
from machport.abi.message cimport round_up
from machport.abi.words cimport Address
from machport.face.closing cimport Closing
from machport.face.rights cimport AnySendRight, DeadName, Right, SendOnceRight, received_right

cdef class Message(Closing):
    cdef object __weakref__
    cdef public object task
    cdef public int64_t id
    cdef public int64_t port
    cdef public Right reply_right
    cdef public list rights
    cdef public list memory
    cdef public int64_t seqno
    cdef public object sender
    cdef public int64_t pid
    cdef object _buffer
    cdef Py_ssize_t _inline_at
    cdef Py_ssize_t _inline_end

    @cython.locals(at=Address, tail=Py_ssize_t, bits=int64_t)
    cpdef Message begin(self, object task, object buffer, Py_ssize_t size, object memory)
    @cython.locals(start=Py_ssize_t, stop=Py_ssize_t, length=Py_ssize_t)
    cdef tuple _body_range(self)
    cpdef Right open_reply_right(self)

cdef class Notification(Message):
    pass

@cython.locals(at=Address, size=Py_ssize_t, tail=Py_ssize_t, message=Message)
cpdef Message received_message(object task, object buffer, object memory)
