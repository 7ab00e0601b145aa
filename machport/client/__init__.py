"""A task's side of its kernel: one trap in, one answer out.

``connection``  the task's connection, and one channel for each of its threads     ``start``     starting a daemon
``channel``     one thread's rings and socket                                      ``lifeline``  what tells of its end
``calls``       every call by its manual name, packed and unpacked                 ``process``   the process's own task
``description`` what is told of a name, its port and who received there

Packing a trap (``calls``) and carrying it (``connection``) meet in one method, ``Connection.trap``.
"""
