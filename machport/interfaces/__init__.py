"""Typed calls: a class with type hints describes the calls of a port, as MIG's definitions do.

``declaring``   what a class says about itself     ``calling``    the caller's side
``definition``  a class, read and checked          ``serving``    the server's side
``naming``      message ids, and what they come    ``failing``    exceptions that travel
                from                               ``deadlines``  time, and the call that is being served
``body``        bodies of messages: no I/O
``carrying``    what goes beside a body: rights, data queues, memory
"""
