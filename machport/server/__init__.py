"""The kernel as a daemon: connections, credentials, deaths and timers around one ``Kernel``.

``dispatch``    a trap as a call on the kernel      ``children``   tasks whose processes are on their way
``connection``  one task's sockets, one a thread    ``bootstrap``  a task of the daemon's own: names to ports
``daemon``      the loop                            ``closer``     files of clients, closed aside
``lock``        one daemon per socket

Trusts no byte from a client and never waits for one.  Opens nothing that it was not handed or asked to listen on.
"""
