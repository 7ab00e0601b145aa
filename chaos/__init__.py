"""Long programs that make bad days, to prove what machport promises of them: ``python -m chaos NAME``.

Each is a module with ``run``, and says in its first paragraph what must hold; ``python -m chaos --help`` lists them.
``report`` is what each ends with.  What several of them need is in ``processes``, for data queues, and
``watched_daemon`` and ``checked_daemon``, daemons that can be asked whether they are in order.

A run exits with 0 only if nothing was broken and every figure was reached.  Pauses at random are part of the load;
nothing waits by them.
"""
