# The numbers of phase.py as C constants; a test compares the two.

cdef enum:
    DONE = 0
    SEND = 1
    RECEIVE = 2
