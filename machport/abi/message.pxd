# C types for message.py.

cimport cython
from libc.stdint cimport int64_t, uint64_t

cimport machport.abi.constants as c
cimport machport.abi.words as words
from machport.abi.words cimport Address

@cython.final
cdef class Parsed:
    cdef public int64_t code
    cdef public int64_t bits
    cdef public int64_t remote
    cdef public int64_t local
    cdef public int64_t voucher
    cdef public int64_t id
    cdef public object descriptors
    cdef public Py_ssize_t inline_at
    cdef public object inline

    cdef begin(self, int64_t code)

cpdef bint is_compiled() noexcept

@cython.locals(parsed=Parsed)
cdef Parsed _new_parsed(int64_t code)
cpdef Parsed parse(object buffer, bint sent=*)
@cython.locals(
    size=Py_ssize_t, memory=Address, bits=int64_t, descriptors=list, offset=Py_ssize_t, code=int64_t, parsed=Parsed
)
cpdef Parsed scan(object source, bint sent)
@cython.locals(
    count=Py_ssize_t, offset=Py_ssize_t, ports=int64_t, wrong_type=bint, kind=int64_t, disposition=int64_t,
    length=int64_t, copy=int64_t
)
cdef tuple _scan_descriptors(Address memory, Py_ssize_t size, bint sent, list descriptors)

cpdef int64_t descriptor_size(int64_t type) noexcept
cpdef bint is_disposition(int64_t disposition) noexcept
@cython.locals(elements=int64_t)
cpdef int64_t trailer_size(int64_t option) noexcept
cpdef bytes pack_trailer(int64_t size, int64_t seqno, object tokens, uint64_t context)
cpdef int64_t round_up(int64_t size) noexcept
