# C types for space.py.  A task is an object here: task.pxd, which has its type, needs that of spaces.

cimport cython
from libc.stdint cimport int64_t

cimport machport.abi.constants as c
from machport.kernel.port cimport Port, PortSet, Quota, Request
from machport.kernel.refusal cimport Refusal

@cython.final
cdef class Entry:
    cdef public int64_t name
    cdef public int64_t type
    cdef public int64_t urefs
    cdef public int64_t request
    cdef public Port port
    cdef public Port died
    cdef public PortSet pset

    cdef begin(self, int64_t name, int64_t type, int64_t urefs, Port port, PortSet pset)
    @cython.locals(request=Request)
    cpdef int64_t reported_type(self) except -1

@cython.locals(entry=Entry)
cpdef Entry new_entry(int64_t name, int64_t type, int64_t urefs, Port port=*, PortSet pset=*)

@cython.final
cdef class Space:
    cdef public bint active
    cdef public object task
    cdef public Py_ssize_t limit
    cdef public Space maker
    cdef public Py_ssize_t lent
    cdef public dict entries
    cdef public dict by_port
    cdef public NamePicker names
    cdef public Quota quota

    @cython.locals(entry=Entry, port=Port)
    cpdef Entry lookup(self, int64_t name)
    cdef _bury(self, Entry entry, Port port)
    @cython.locals(entry=Entry, found=list)
    cpdef list living_entries(self)
    cpdef int64_t pick_name(self) except -1
    cpdef check_room(self)
    cpdef add(self, Entry entry)
    cpdef free(self, Entry entry)
    @cython.locals(request=Request)
    cpdef rename(self, Entry entry, int64_t name)

cdef class NamePicker:
    cpdef int64_t pick(self, dict used) except -1
    cpdef freed(self, int64_t name)

cdef class GenerationNames(NamePicker):
    cdef public object free
    cdef public bytearray generations

    @cython.locals(index=Py_ssize_t, generation=int64_t, name=int64_t)
    cpdef int64_t pick(self, dict used) except -1
    @cython.locals(index=Py_ssize_t, generation=int64_t)
    cpdef freed(self, int64_t name)

cdef class FreshNames(NamePicker):
    cdef public int64_t last

    cpdef int64_t pick(self, dict used) except -1
    cpdef freed(self, int64_t name)
