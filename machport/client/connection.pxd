# C types for connection.py.  A channel is an object here: what makes channels is looked up, so that it can be another.

cdef class Connection:
    cdef object __weakref__
    cdef public object path
    cdef public object label
    cdef public object self_name
    cdef object _pid
    cdef bint _path_was_given
    cdef object _lock
    cdef object _local
    cdef object _channels
    cdef object _all_channels
    cdef bint _closed
    cdef object _control
    cdef object _forgotten

    cpdef tuple trap(self, object payload, object descriptors=*)
    cpdef list traps(self, object payloads, object answer_max)
    cpdef list stream(self, bytes payload)
    cdef object _channel(self)
