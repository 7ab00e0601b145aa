"""How traps are carried between a task and the daemon: packets over a local socket.

``endpoint``  where the daemon listens        ``packet``  one trap or answer, with descriptors
``hello``     the first packet of a task

Both sides use this room and neither knows more of the other.  Knows bytes and descriptors, never what a trap means.
"""
