# C types for queueing.py.

cimport cython
from libc.stdint cimport int64_t

cimport machport.abi.constants as c
cimport machport.kernel.phase as phase
from machport.abi.message cimport trailer_size
from machport.kernel.counts cimport Counts
from machport.kernel.kernel cimport Kernel
from machport.kernel.message cimport Message
from machport.kernel.port cimport Port, PortSet, Quota
from machport.kernel.waiter cimport Line, Waiter

cpdef enqueue(Kernel kernel, Port port, Message message)
@cython.locals(message=Message)
cpdef Message dequeue(Kernel kernel, Port port)
@cython.locals(port=Port, pset=PortSet)
cpdef Port peek(object source)
cpdef admit_senders(Kernel kernel, Port port, int64_t most)
@cython.locals(quota=Quota)
cdef _admit_next(Kernel kernel, Port port)
cdef _wait_for_quota(Port port)
@cython.locals(quota=Quota, port=Port)
cpdef relieve(Kernel kernel)
@cython.locals(waiter=Waiter, message=Message, senders=Line)
cdef _admit(Kernel kernel, Port port, int64_t most)
cpdef serve(Kernel kernel, Port port)
@cython.locals(port=Port, waiter=Waiter, message=Message)
cdef _serve_receivers(Kernel kernel, object source, Line receivers)
cpdef int64_t received_size(Kernel kernel, Message message) except -1
@cython.locals(trailer=int64_t)
cpdef bint too_large(Kernel kernel, Message message, Waiter waiter) except -1
@cython.locals(port=Port, pset=PortSet, line=Line)
cpdef wait_to_receive(Waiter waiter, object source)
cpdef wait_to_send(Waiter waiter, Port port, Message message)
cpdef leave_set(Port port)
cpdef join_set(Kernel kernel, Port port, PortSet pset)
@cython.locals(port=Port)
cpdef destroy_set(Kernel kernel, PortSet pset)
cpdef wake_all(Kernel kernel, Line line, int64_t code)
