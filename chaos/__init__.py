"""Long programs that make bad days, to prove what machport promises of them: ``python -m chaos NAME``.

Each is a module with ``run``, and says in its first line what must hold.  ``queue_drain``, ``queue_scribble`` and
``queue_kills`` are about data queues; what they have in common is in ``processes``.  ``report`` is what each ends with.  ``transcripts`` holds a
daemon against a real kernel, by ``checked_daemon``, whose kernel can be asked whether it is in order.

A run exits with 0 only if nothing was broken and every figure was reached.  Pauses at random are part of the load;
nothing waits by them.
"""
