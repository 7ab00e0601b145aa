"""The kernel as a daemon: connections, credentials, deaths and timers around one ``Kernel``.

``dispatch``    a trap as a call on the kernel            ``daemon``   the loop
``connection``  one task's sockets, one thread each       ``lock``     one daemon per socket
``bootstrap``   a task of the daemon's own: names to ports ``closer``   files of clients, closed aside

Trusts no byte from a client and never waits for one.  Opens nothing that it was not handed or asked to listen on.
"""
