# The bytes of messages as machine words.  words.py says what each function promises, and a test compares the two.
#
# Little endian, as everything of this house.  Nothing here checks an offset; message.py has checked it.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_Check, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.long cimport PyLong_AsUnsignedLongMask
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

cdef extern from "Python.h":
    Py_buffer *PyMemoryView_GET_BUFFER(object view)
    object PyMemoryView_FromObject(object data)
    bint PyBuffer_IsContiguous(Py_buffer *buffer, char order)

cdef enum:
    NATIVE = 1

    HEADER_SIZE = 24
    BODY_SIZE = 28
    PORT_DESCRIPTOR_SIZE = 12
    MEMORY_DESCRIPTOR_SIZE = 16
    MIN_TRAILER = 8
    SEQNO_AT = 8
    SENDER_AT = 12
    AUDIT_AT = 20
    PID_AT = 40
    AUDIT_END = 52
    MAX_SIZE = 50331580
    MAX_PORTS = 16383
    VIEWED_SIZE = 4096

    TOKENS = 10
    LONGEST_TAIL = 3 + 68

ctypedef const char *Address


cdef inline object source(object data):
    if PyBytes_Check(data):
        return data
    view = PyMemoryView_FromObject(data)
    if PyBuffer_IsContiguous(PyMemoryView_GET_BUFFER(view), b"C"):
        return view.cast("B")
    return view.tobytes()


cdef inline Py_ssize_t length(object source) noexcept:
    if PyBytes_Check(source):
        return PyBytes_GET_SIZE(source)
    return PyMemoryView_GET_BUFFER(source).len


cdef inline Address address(object source) noexcept:
    if PyBytes_Check(source):
        return PyBytes_AS_STRING(source)
    return <Address>PyMemoryView_GET_BUFFER(source).buf


cdef inline uint8_t u8(Address memory, Py_ssize_t offset) noexcept:
    return <uint8_t>memory[offset]


cdef inline uint32_t u32(Address memory, Py_ssize_t offset) noexcept:
    cdef uint32_t value
    memcpy(&value, memory + offset, sizeof(value))
    return value


cdef inline uint64_t u64(Address memory, Py_ssize_t offset) noexcept:
    cdef uint64_t value
    memcpy(&value, memory + offset, sizeof(value))
    return value


cdef inline int64_t wrap(int64_t value) noexcept:
    return <uint32_t>value


cdef inline object part(object source, Py_ssize_t start, Py_ssize_t stop):
    if PyBytes_Check(source):
        return PyBytes_FromStringAndSize(PyBytes_AS_STRING(source) + start, stop - start)
    return source[start:stop]


cdef inline bytes rest(object source, Py_ssize_t offset):
    return PyBytes_FromStringAndSize(address(source) + offset, length(source) - offset)


cdef inline object kept(object source, Py_ssize_t offset):
    if length(source) - offset > VIEWED_SIZE:
        return PyMemoryView_FromObject(source)[offset:]
    return rest(source, offset)


cdef inline bytes pack_header(
    int64_t bits, int64_t size, int64_t remote, int64_t local, int64_t voucher, int64_t id
):
    cdef uint32_t[6] words
    words[0] = <uint32_t>bits
    words[1] = <uint32_t>size
    words[2] = <uint32_t>remote
    words[3] = <uint32_t>local
    words[4] = <uint32_t>voucher
    words[5] = <uint32_t>id
    return PyBytes_FromStringAndSize(<Address>words, sizeof(words))


cdef inline bytes pack_message(int64_t bits, int64_t remote, int64_t local, int64_t id, object body):
    cdef Py_ssize_t size = length(body)
    cdef Py_ssize_t total = HEADER_SIZE + ((4 + size + 3) & ~3)
    cdef bytes message = PyBytes_FromStringAndSize(NULL, total)
    cdef char *target = PyBytes_AS_STRING(message)
    cdef uint32_t[7] words
    words[0] = <uint32_t>bits
    words[1] = <uint32_t>total
    words[2] = <uint32_t>remote
    words[3] = <uint32_t>local
    words[4] = 0
    words[5] = <uint32_t>id
    words[6] = <uint32_t>size
    memset(target + total - 4, 0, 4)
    memcpy(target, words, sizeof(words))
    memcpy(target + HEADER_SIZE + 4, address(body), size)
    return message


cdef inline bytes pack_message_head(int64_t bits, int64_t remote, int64_t local, int64_t id, int64_t size):
    cdef uint32_t[7] words
    words[0] = <uint32_t>bits
    words[1] = <uint32_t>(HEADER_SIZE + 4 + ((size + 3) & ~3))
    words[2] = <uint32_t>remote
    words[3] = <uint32_t>local
    words[4] = 0
    words[5] = <uint32_t>id
    words[6] = <uint32_t>size
    return PyBytes_FromStringAndSize(<Address>words, sizeof(words))


cdef inline bytes pack_seven(
    int64_t first, int64_t second, int64_t third, int64_t fourth, int64_t fifth, int64_t sixth, int64_t seventh
):
    cdef uint32_t[7] words
    words[0] = <uint32_t>first
    words[1] = <uint32_t>second
    words[2] = <uint32_t>third
    words[3] = <uint32_t>fourth
    words[4] = <uint32_t>fifth
    words[5] = <uint32_t>sixth
    words[6] = <uint32_t>seventh
    return PyBytes_FromStringAndSize(<Address>words, sizeof(words))


cdef inline bytes pack_tail(int64_t padding, int64_t size, int64_t seqno, object tokens, uint64_t context):
    cdef char[LONGEST_TAIL] tail
    cdef uint32_t[5 + TOKENS] words
    cdef tuple given = tuple(tokens)
    cdef Py_ssize_t at
    if not 0 <= padding <= 3 or not MIN_TRAILER <= size <= LONGEST_TAIL - 3 or len(given) != TOKENS:
        raise ValueError("a trailer of this size, or such tokens, do not exist")
    memset(tail, 0, sizeof(tail))
    words[0] = 0
    words[1] = <uint32_t>size
    words[2] = <uint32_t>seqno
    for at in range(TOKENS):
        words[3 + at] = <uint32_t>PyLong_AsUnsignedLongMask(given[at])
    words[3 + TOKENS] = <uint32_t>context
    words[4 + TOKENS] = <uint32_t>(context >> 32)
    memcpy(tail + padding, words, min(size, <int64_t>sizeof(words)))
    return PyBytes_FromStringAndSize(tail, padding + size)


cdef inline bytes pack_ndr_and_word(int64_t word):
    cdef uint32_t[3] words
    words[0] = 0
    words[1] = 1
    words[2] = <uint32_t>word
    return PyBytes_FromStringAndSize(<Address>words, sizeof(words))
