# C types for closing.py.

cdef class Closing:
    pass
