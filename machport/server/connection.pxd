# C types for connection.py.

cimport cython
from libc.stdint cimport int64_t, uint64_t

cimport machport.ring.layout as layout
cimport machport.ring.waking as waking
from machport.abi.traps cimport Batch
from machport.kernel.task cimport Task
from machport.kernel.waiter cimport Waiter
from machport.ring.doorbell cimport Doorbell
from machport.ring.queue cimport Ring
from machport.server.dispatch cimport Answer

cdef class Channel

@cython.final
cdef class TaggedCall:
    cdef readonly Channel channel
    cdef readonly int64_t tag
    cdef public Waiter waiter
    cdef public object deadline

@cython.final
cdef class Channel:
    cdef public object sock
    cdef int _descriptor
    cdef public object closer
    cdef public object client
    cdef public Task task
    cdef public object rings
    cdef Ring _up
    cdef Ring _down
    cdef Doorbell _thread_bell
    cdef Doorbell _daemon_bell
    cdef int64_t _longest
    cdef public Waiter waiter
    cdef public dict tagged
    cdef public Batch batch
    cdef public Waiter many
    cdef public int64_t left
    cdef public int64_t memory
    cdef public int64_t kept
    cdef public object deadline
    cdef public bint by_ring
    cdef public object outbox
    cdef public list delivered
    cdef public bint reset
    cdef public object peer
    cdef public bint is_busy
    cdef public int64_t looked_at

    cpdef use(self, object rings)
    cpdef bytes next_trap(self)
    cpdef begin(self, bint by_ring)
    cpdef dict tagged_calls(self)
    cpdef is_expected(self)
    cpdef bint answer(self, Answer answer) except -1
    @cython.locals(answer=Answer)
    cpdef bint flush(self) except -1
    cdef bint _write(self, Answer answer) except -1
    cdef _written(self, Answer answer)
    cdef _note(self, uint64_t number, Answer answer)
    cdef bint _goes_by_socket(self, Answer answer) except -1
    @cython.locals(outcome=int)
    cdef bint _enqueue(self, tuple parts) except -1
    cdef bint _write_to_socket(self, Answer answer) except -1
    cpdef int64_t room(self) noexcept
    @cython.locals(read=int64_t)
    cdef list _unread(self)
    cpdef bint is_quiet(self) except -1
