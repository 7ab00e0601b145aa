# C types for release.py.

cimport cython
from libc.stdint cimport int64_t

cimport machport.abi.constants as c
from machport.kernel.counts cimport Counts, Losses, LossesByTask
from machport.kernel.kernel cimport Kernel
from machport.kernel.message cimport (
    Item,
    Message,
    port_destroyed_notification,
    send_once_notification,
    word_notification,
)
from machport.kernel.port cimport Port, Request, RequestTable
from machport.kernel.queueing cimport destroy_set, enqueue, leave_set, wake_all
from machport.kernel.space cimport Entry, Space
from machport.kernel.task cimport Task

@cython.locals(port=Port)
cpdef notify(Kernel kernel, Message notification, object about=*)

cpdef release_send(Kernel kernel, Port port)
@cython.locals(ns_request=Port)
cpdef Message drop_send(Kernel kernel, Port port)
cpdef release_send_once(Kernel kernel, Port port)
cpdef release_right(Kernel kernel, Port port, int64_t type)

cpdef clear_receiver(Kernel kernel, Port port)
@cython.locals(ns_request=Port)
cpdef cancel_no_senders(Kernel kernel, Port port)
@cython.locals(pd_request=Port, losses=Losses)
cpdef release_receive(Kernel kernel, Port port)
@cython.locals(ns_request=Port, request=Request, losses=Losses)
cpdef destroy_port(Kernel kernel, Port port)
@cython.locals(message=Message, losses=Losses)
cpdef destroy_first(Kernel kernel, Port port)
@cython.locals(requests=RequestTable)
cpdef list take_requests(Port port)
@cython.locals(entry=Entry)
cpdef notify_of_death(Kernel kernel, Request request)

@cython.locals(done=int64_t)
cpdef destroy_message(Kernel kernel, Message message)
@cython.locals(item=Item)
cpdef clean_message(Kernel kernel, Message message)
@cython.locals(port=Port)
cpdef clean_item(Kernel kernel, Item item)
cdef bint _was_made(Item item) except -1
cdef _was_unreceived(Port port)

@cython.locals(request=Request)
cpdef Request take_request(Entry entry)
@cython.locals(request=Request)
cpdef Message free_entry(Space space, Entry entry)
@cython.locals(port=Port, type=int64_t, deleted=Message, no_senders=Message, losses=Losses)
cpdef destroy_entry(Kernel kernel, Space space, Entry entry)
@cython.locals(port=Port)
cpdef release_reference(Kernel kernel, Space space, Entry entry, int64_t count=*)
