# C types for player.py.

cimport cython
from libc.stdint cimport int64_t

cimport machport.abi.constants as c
cimport machport.abi.message as layout
cimport machport.kernel.messages as messages
cimport machport.kernel.ports as ports
cimport machport.kernel.requests as requests
cimport machport.kernel.tasks as tasks
from machport.abi.message cimport Parsed
from machport.kernel.kernel cimport Kernel
from machport.kernel.refusal cimport Refusal
from machport.kernel.task cimport Task
from machport.kernel.waiter cimport Result
from machport.replay.transcript cimport Step

@cython.final
cdef class Symbols:
    cdef public str letter
    cdef public int64_t base
    cdef public dict numbers
    cdef public dict symbols

    cpdef object number(self, str symbol)
    cpdef int64_t order(self, object number) except -1
    @cython.locals(symbol=str)
    cpdef str symbol(self, object number)
    cdef _add(self, str symbol, object number)

@cython.final
cdef class Player:
    cdef public Kernel kernel
    cdef public list symbols
    cdef public list tasks
    cdef public Symbols mine

    @cython.locals(task=Task)
    cpdef list perform(self, Step step)
    cpdef tuple carried(self, str text)
    cpdef list allocate(self, Task task, Symbols names, str right)
    cpdef list allocate_name(self, Task task, Symbols names, str name, str right)
    cpdef list deallocate(self, Task task, Symbols names, str name)
    cpdef list destroy(self, Task task, Symbols names, str name)
    cpdef list mod_refs(self, Task task, Symbols names, str name, str right, str delta)
    cpdef list get_refs(self, Task task, Symbols names, str name, str right)
    cpdef list type(self, Task task, Symbols names, str name)
    cpdef list names(self, Task task, Symbols names)
    cpdef list rename(self, Task task, Symbols names, str old, str new)
    cpdef list terminate(self, Task task, Symbols names)
    cpdef list insert_right(self, Task task, Symbols names, str name, str right)
    cpdef list extract_right(self, Task task, Symbols names, str name, str disposition)
    cpdef list request_notification(self, Task task, Symbols names, str name, str variant, str sync, str notify)
    cpdef list set_mscount(self, Task task, Symbols names, str name, str count)
    cpdef list set_seqno(self, Task task, Symbols names, str name, str seqno)
    cpdef list set_qlimit(self, Task task, Symbols names, str name, str qlimit)
    cpdef list get_receive_status(self, Task task, Symbols names, str name)
    cpdef list move_member(self, Task task, Symbols names, str member, str after)
    cpdef list get_set_status(self, Task task, Symbols names, str name)
    cpdef list dump(self, Task task, Symbols names)
    @cython.locals(back=Parsed, result=Result)
    cpdef list send(self, Task task, Symbols names, str remote, str local, str id, str ports)
    @cython.locals(result=Result)
    cpdef list receive(self, Task task, Symbols names, str name, str buffer=*)
    cpdef list listed(self, Task task, Symbols names)
    cpdef str status(self, Task task, Symbols names, object name)
    cpdef str members(self, Task task, Symbols names, object name)
    @cython.locals(parsed=Parsed)
    cpdef str received(self, Result result, bint large)
    cpdef tuple carried_or_null(self, str text, int64_t null_disposition)
    cpdef str right(self, int64_t kind, object name)
    cpdef str rights(self, object descriptors)

cdef object _number(dict table, str text)
cdef str _value(str key, str text)
cdef list _success(str values=*)
cdef str _message_code(int64_t code)
cdef str _id(int64_t id)
