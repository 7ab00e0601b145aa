"""The kernel as a daemon: connections, credentials, deaths and timers around one ``Kernel``.

``daemon``         connections, sockets, the loop     ``traps``         rings looked at, calls answered
``connection``     one task's threads and their rings ``dispatch``      a trap as a call on the kernel
``own_calls``      calls on the daemon itself         ``deadlines``     when calls that wait are over
``door``           who is let in                      ``admission``     how many, and for how long in silence
``access``         who may administer the daemon      ``task_ports``    who may have the port of a process's task
``children``       tasks whose processes are to come  ``bootstrap``     a task of the daemon's own: names to ports
``deaths``         processes that are dying           ``endings``       why a task ended, in words
``obituaries``     how tasks ended, what was lost     ``describing``    what is told of a port
``settings``       what may be chosen                 ``configuration`` the file with limits
``limits``         what each task may have            ``shortage``      when the daemon's memory is nearly used up
``descriptors``    the daemon's own                   ``closer``        files of clients, closed aside
``reporting``      what the daemon tells of itself    ``log``           its events
``tracing``        what its kernel is asked           ``traces``        from when to when that is written
``tracestate``     what a trace begins with           ``lock``          one daemon per socket
``upgrade``        being replaced by a new process    ``takeover``      being the new process
``snapshot``       all this as bytes and descriptors  ``handover``      clients and channels in them
``supervisor``     what a service manager is told     ``fault``         where tests let either process die

Trusts no byte from a client and never waits for one.  Opens nothing that it was not handed or asked to listen on.
"""
