# C types for waking.py.

cimport machport.ring.memory as memory

cpdef bint sleep(int descriptor) except -1
cpdef int take(int descriptor) except -2
cpdef wake(int descriptor)
