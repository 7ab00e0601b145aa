"""Long programs that try to break what data queues promise: ``python -m chaos NAME [--seconds N] [--seed N]``.

``drain``      the race of draining against adding, with every way to sleep and to be woken
``scribble``   a process at the other end that writes and sends what it likes
``kills``      processes that are killed at any instant, one after the other
``processes``  what these have in common

Each ends with a report, and with 0 only if nothing was broken.  Pauses at random are part of the load; nothing waits by
them.
"""
