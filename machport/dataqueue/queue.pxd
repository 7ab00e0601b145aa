# C types for queue.py.

cimport cython
from libc.stdint cimport int64_t, uint64_t

cimport machport.ring.layout as layout
cimport machport.ring.memory as memory
from machport.dataqueue.end cimport End
from machport.ring.queue cimport Ring

cdef class DataQueue

cdef class Block:
    cdef DataQueue _queue
    cdef int64_t _nanoseconds
    cdef object _view

    cdef DataQueue _open(self)
    cdef DataQueue _close(self)
    cdef object _release(self)

@cython.final
cdef class Look(Block):
    cdef object _anchor

@cython.final
cdef class Room(Block):
    cdef object _size

cdef class DataQueue:
    cdef object __weakref__
    cdef readonly object memory
    cdef End _producer
    cdef End _consumer
    cdef Ring _out
    cdef Ring _in
    cdef public object _step
    cdef bint _in_hands
    cdef bint _reserved
    cdef bint _forked
    cdef uint64_t _size

    @cython.locals(ring=Ring, producer=End, answer=int)
    cpdef enqueue(self, object data, object timeout=*)
    @cython.locals(ring=Ring, producer=End, count=Py_ssize_t, answer=int, some=Py_ssize_t, end=int64_t)
    cpdef enqueue_many(self, object entries, object timeout=*)
    @cython.locals(ring=Ring, producer=End)
    cdef object _reserve(self, object size, int64_t nanoseconds)
    @cython.locals(ring=Ring, left=int64_t, ready=bint)
    cdef object _wait_for_room(self, End producer, int answer, uint64_t size, int64_t end)
    @cython.locals(ring=Ring, consumer=End)
    cpdef dequeue(self, object timeout=*)
    @cython.locals(ring=Ring, consumer=End, size=int64_t, room=int64_t)
    cpdef dequeue_into(self, object buffer, object timeout=*)
    @cython.locals(ring=Ring, consumer=End)
    cpdef dequeue_many(self, object limit=*, object timeout=*)
    @cython.locals(ring=Ring, consumer=End)
    cdef object _lend(self, int64_t nanoseconds)
    cpdef _end_step(self)
    cdef object _check_producer(self)
    cdef object _check_consumer(self)

cdef object refusal(Ring ring, int answer, uint64_t size)
@cython.locals(left=int64_t, ready=bint)
cdef object wait_for_entry(End consumer, int64_t end)
cdef object absence(Ring ring)
cdef int64_t now() except -1
cdef int64_t nanoseconds_of(object timeout) except -2
cdef int64_t until(object timeout) except -2
