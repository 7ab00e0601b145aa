"""The kernel as a daemon: connections, credentials, deaths and timers around one ``Kernel``.

``dispatch``    a trap as a call on the kernel      ``children``   tasks whose processes are on their way
``traps``       rings looked at, calls answered     ``bootstrap``  a task of the daemon's own: names to ports
``connection``  one task's threads and their rings  ``closer``     files of clients, closed aside
``daemon``      connections, sockets, the loop      ``deaths``     processes that are dying, before they are gone
``deadlines``   when calls that wait are over       ``lock``       one daemon per socket
``obituaries``  how tasks ended, what was lost       ``reporting``  what the daemon tells of itself
``tracing``     what its kernel is asked            ``traces``     from when to when that is written
``log``         its events
``upgrade``     being replaced by a new process    ``takeover``   being the new process
``snapshot``    all this as bytes and descriptors  ``handover``   clients and channels in them
``supervisor``  what a service manager is told     ``fault``      where tests let either process die

Trusts no byte from a client and never waits for one.  Opens nothing that it was not handed or asked to listen on.
"""
