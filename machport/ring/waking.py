# cython: annotation_typing=False, auto_pickle=False
"""Sleeping at a SOCK_SEQPACKET socket until the other side sends the packet that wakes.

The packet is eight zeros.  Any other packet is left in the socket for whoever reads it.  Here because it is what stands
between a sleeper and its answer: one system call to wake, two to be woken, and no Python in between.
"""

from __future__ import annotations

from machport.ring import memory

WOKEN = 1
OTHER = 0
NOTHING = -1


def sleep(descriptor: int) -> bool:
    """Wait for a packet; True if it was one that wakes, which is taken, or a signal.  False: look at the socket.

    Signals are handled, and what their handlers raise is raised.  They may have closed the descriptor.

    Raises:
        OSError: the connection is broken.
    """
    return memory.take_wake(descriptor, 1) == WOKEN


def take(descriptor: int) -> int:
    """Take a packet that wakes, if it is next: ``WOKEN``, ``OTHER`` for another packet or the end, or ``NOTHING``."""
    return memory.take_wake(descriptor, 0)


def wake(descriptor: int) -> None:
    """Send the packet.  Who does not take packets does not sleep, and who is gone shows it by the end of its socket."""
    memory.send_wake(descriptor)
