"""Who is at the other end: which process, whether it lives, and how it ended.

``lifeline``      the word that this process holds as long as it lives
``attestation``   who connected, as the system attests it
``introduction``  how two ends of a socket learn of each other's processes
``liveness``      whether a process is dead, before its pidfd tells
``death``         how a process, or its task, ended, as far as the system tells

Imports only ``machport.abi`` and ``machport.ring``.
"""
