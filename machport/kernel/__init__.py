"""The kernel: spaces, rights, ports, messages and notifications as one deterministic state machine.

It has no I/O, clock, thread or randomness.  A call answers at once or leaves a waiter, and whoever drives the kernel
owns connections, time and threads.  The daemon, the replay of transcripts and the tests drive the same code.

``kernel``    one kernel's own state              ``rights``    copyin and copyout of single rights
``port``      ports, sets, requests               ``copyin``    a message out of a task
``space``     names and entries                   ``copyout``   a message into one
``task``      tasks                               ``messages``  mach_msg
``message``   messages and notifications          ``ports``     the mach_port_ calls
``queueing``  who gets which message              ``requests``  mach_port_request_notification
``release``   giving up rights; death             ``tasks``     the calls on tasks
``dialect``   where documents and kernels differ      ``invariants`` what holds between any two calls
"""
