# C types for traps.py.

cimport cython
from libc.stdint cimport int64_t

cimport machport.abi.words as w
from machport.abi.words cimport Address

@cython.final
cdef class Trap:
    cdef readonly int64_t number
    cdef readonly object call
    cdef readonly tuple fields
    cdef readonly object subject
    cdef object _arguments
    cdef Py_ssize_t _arguments_size
    cdef object _results
    cdef Py_ssize_t _results_size
    cdef bint _has_words
    cdef bint _results_have_words

    cpdef tuple unpack(self, object trap)
    cpdef bytes pack_answer(self, object results=*, object words=*)
    cpdef tuple unpack_answer(self, object answer)

@cython.locals(rest=Py_ssize_t)
cdef tuple _unpack(object call, object fields, Py_ssize_t size, bint has_words, object data)
cpdef int64_t number_of(object data) except -1
cpdef bytes pack_refusal(int64_t code, object rule, object says)

@cython.final
cdef class MsgTrap:
    cdef public int64_t option
    cdef public object buffer
    cdef public object memory
    cdef public int64_t rcv_limit
    cdef public int64_t rcv_name
    cdef public int64_t timeout_ms
    cdef public object body

    cpdef int64_t size(self) except -1
    cpdef again(self, object buffer, object memory)
    cpdef object payload(self)

@cython.locals(trap=MsgTrap)
cpdef MsgTrap new_msg(
    int64_t option, object buffer, int64_t rcv_limit=*, int64_t rcv_name=*, int64_t timeout_ms=*, object body=*
)

@cython.final
cdef class MsgAnswer:
    cdef public int64_t code
    cdef public object buffer
    cdef public object memory
    cdef public object rule
    cdef public int64_t taken

    cpdef bytes pack(self)

@cython.locals(size=int64_t)
cpdef tuple msg_answer_parts(
    int64_t code, object head, object inline, object tail, object memory, object rule, int64_t taken
)
cpdef object pack_async(int64_t tag, MsgTrap trap)
cpdef tuple unpack_async(object trap)
cpdef bytes pack_tag(int64_t tag)
cpdef tuple unpack_tagged(object answer)
cpdef bint is_last(object answer) except -1
@cython.locals(length=Py_ssize_t, at=Address, send_size=int64_t, count=int64_t)
cpdef MsgTrap unpack_msg(object trap)
@cython.locals(
    length=Py_ssize_t, at=Address, code=int64_t, has_buffer=bint, size=int64_t, rule_size=int64_t, taken=int64_t,
    count=int64_t, simple=MsgAnswer
)
cpdef MsgAnswer unpack_msg_answer(object answer)

@cython.final
cdef class Batch:
    cdef readonly Py_ssize_t count
    cdef readonly Py_ssize_t sent
    cdef readonly object trap
    cdef Py_ssize_t _at

    @cython.locals(size=Py_ssize_t)
    cpdef object next(self)

@cython.locals(answers=list, at=Py_ssize_t, end=Py_ssize_t, size=Py_ssize_t)
cpdef list unpack_msg_answers(object entry)
@cython.locals(memory=Address, count=Py_ssize_t, size=Py_ssize_t, index=Py_ssize_t)
cdef Py_ssize_t _answer_size(object entry, Py_ssize_t at, Py_ssize_t end) except -1
