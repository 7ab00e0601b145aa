"""The kernel: spaces, rights, ports, messages and notifications as one deterministic state machine.

It has no I/O, clock, thread or randomness.  A call answers at once or leaves a waiter, and whoever drives the kernel
owns connections, time and threads.  The daemon, the replay of transcripts and the tests drive the same code.

``kernel``    one kernel's own state             ``release``   giving up rights; death; notifications
``port``      ports, sets, requests              ``rights``    copyin and copyout
``space``     names and entries                  ``messages``  mach_msg
``task``      tasks                              ``ports``     the mach_port_ calls
``queueing``  who gets which message             ``requests``  mach_port_request_notification
``dialect``   where documents and kernels differ ``tasks``     the calls on tasks
"""
