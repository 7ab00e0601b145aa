# C types for queue.py: what makes the same source a native ring.  Other compiled rooms cimport Ring from here.

cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t

cimport machport.ring.layout as layout
cimport machport.ring.lending as lending
cimport machport.ring.memory as memory

cpdef bint is_compiled() noexcept
cpdef int64_t place(uint64_t head, uint64_t tail, uint64_t size, uint64_t capacity) noexcept

cdef class Ring

@cython.final
cdef class Loan:
    cdef readonly uint64_t begin
    cdef readonly uint64_t end
    cdef readonly bint over
    cdef readonly bint last
    cdef readonly Loan later

@cython.locals(lender=Ring)
cdef void _ended(object ring, object loan) noexcept

@cython.final
cdef class Ring:
    cdef readonly uint32_t capacity
    cdef readonly uint64_t enqueued
    cdef readonly uint64_t dequeued
    cdef readonly uint64_t wakes
    cdef readonly uint64_t refused
    cdef readonly int refusal
    cdef readonly int absence

    cdef object _view
    cdef object _entries
    cdef char *_memory
    cdef uint32_t _head_at
    cdef uint32_t _tail_at
    cdef uint32_t _ring_at

    cdef uint64_t _entry_at
    cdef uint64_t _entry_size
    cdef int64_t _reserved_at
    cdef uint64_t _reserved_size
    cdef uint64_t _reserved_tail

    cdef readonly uint64_t peak
    cdef readonly uint64_t lent
    cdef public object when_room
    cdef Loan _oldest
    cdef Loan _newest
    cdef uint64_t _next

    # the producer
    @cython.locals(size=uint64_t, head=uint64_t, tail=uint64_t, at=int64_t)
    cpdef int enqueue(self, object data) except -1

    @cython.locals(sources=tuple, size=uint64_t, head=uint64_t, tail=uint64_t, at=int64_t, target=uint64_t)
    cpdef int enqueue_parts(self, object parts) except -1

    @cython.locals(head=uint64_t, tail=uint64_t, at=int64_t)
    cpdef int enqueue_blank(self, uint64_t size) except -1

    @cython.locals(
        sources=tuple, size=uint64_t, head=uint64_t, tail=uint64_t, first=uint64_t, at=int64_t, answer=int, count=uint64_t
    )
    cpdef tuple enqueue_many(self, object entries)

    @cython.locals(head=uint64_t, tail=uint64_t, at=int64_t, start=uint64_t)
    cpdef object reserve(self, uint64_t size)

    @cython.locals(head=uint64_t, tail=uint64_t)
    cpdef int commit(self) except -1

    @cython.locals(head=uint64_t, tail=uint64_t, never=bint)
    cpdef int fits(self, uint64_t size) except -1

    @cython.locals(head=uint64_t)
    cpdef bint look_for_room(self, uint64_t size, uint64_t nanoseconds) except -1

    @cython.locals(tail_now=uint64_t)
    cdef int _publish(self, uint64_t head, uint64_t tail, uint64_t at, uint64_t size) noexcept
    cdef void _write_size(self, uint64_t tail, uint64_t at, uint64_t size) noexcept
    cdef bint _consumer_may_sleep(self, uint64_t head, uint64_t tail) noexcept
    @cython.locals(used=uint64_t)
    cdef void _note(self, uint64_t head, uint64_t tail) noexcept
    cdef int _refuse(self, int answer) noexcept

    # the consumer
    @cython.locals(head=uint64_t, tail=uint64_t)
    cpdef bint data_available(self) noexcept

    @cython.locals(head=uint64_t, tail=uint64_t)
    cpdef object peek(self)

    @cython.locals(head=uint64_t)
    cpdef bint look(self, uint64_t nanoseconds) except -1

    @cython.locals(head=uint64_t, tail=uint64_t)
    cpdef int64_t next_size(self) noexcept

    @cython.locals(head=uint64_t, tail=uint64_t, left=uint64_t, count=uint64_t)
    cpdef uint64_t unread(self) noexcept

    @cython.locals(head=uint64_t, tail=uint64_t)
    cpdef object dequeue(self)

    @cython.locals(head=uint64_t, tail=uint64_t)
    cpdef int64_t dequeue_into(self, object buffer) except -3

    @cython.locals(head=uint64_t, tail=uint64_t)
    cpdef int64_t skip(self) noexcept

    @cython.locals(head=uint64_t, tail=uint64_t, left=uint64_t, taken=uint64_t)
    cpdef list dequeue_many(self, uint64_t limit=*)

    @cython.locals(head=uint64_t, tail=uint64_t, loan=Loan, view=object)
    cpdef object lend(self)
    @cython.locals(loan=Loan)
    cpdef object put_back(self)

    cpdef object forget_loans(self)

    cdef uint64_t _first(self) noexcept
    @cython.locals(head=uint64_t)
    cdef void _end(self, Loan loan) noexcept
    cdef bint _find(self, uint64_t head, uint64_t tail) noexcept
    @cython.locals(at=uint64_t, size=uint64_t)
    cdef bint _find_at(self, uint64_t head) noexcept
    cdef void _consume(self, uint64_t tail) noexcept
    cdef void _release(self, uint64_t head, uint64_t tail) noexcept
