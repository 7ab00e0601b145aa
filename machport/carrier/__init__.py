"""How traps are carried between a task and the daemon: rings for each thread, and a local socket beside them.

``endpoint``  where the daemon listens        ``rings``     the memory of one thread's traps and answers
``hello``     the first packet of a task      ``packet``    what does not fit there, with descriptors

Both sides use this room and neither knows more of the other.  Knows bytes and descriptors, never what a trap means.
"""
