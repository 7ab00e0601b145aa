"""Confinement of a child: what its process can reach beside the rights it was given, by Landlock and seccomp.

``policy``    what a child may do, as its parent says it
``applying``  take it upon this process, for ever
``landlock``  which files can be opened, which processes signalled
``filters``   which system calls are refused
``bpf``       the filter's program
``syscalls``  numbers of system calls
``programs``  which files it takes to execute a program

What is taken on cannot be laid off, and holds for every process that the confined one starts.

Imports only ``machport.abi``.
"""

from __future__ import annotations

from machport.confinement.applying import Available, available
from machport.confinement.policy import Confinement

__all__ = ["Available", "Confinement", "available"]
