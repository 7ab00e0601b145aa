"""Where the daemon writes what nobody waits for: its log, and a trace.

Others share the descriptor, and may let it block at any time; the daemon must not wait for them.  So a pipe, a device
or a terminal gets a description of the daemon's own, and to a socket each piece goes with a flag.
"""

from __future__ import annotations

import os
import socket
import stat


class Outlet:
    """Writes to what a descriptor stands for, and never waits.

    Args:
        descriptor: stays the caller's.

    Raises:
        OSError: it is closed, or cannot be opened again.
    """

    def __init__(self, descriptor: int) -> None:
        self._socket: socket.socket | None = None
        kind = os.fstat(descriptor).st_mode
        if stat.S_ISSOCK(kind):
            self._socket = socket.socket(fileno=os.dup(descriptor))
            self._descriptor = self._socket.fileno()
        elif stat.S_ISFIFO(kind) or stat.S_ISCHR(kind):
            way = f"/proc/self/fd/{descriptor}"
            self._descriptor = os.open(way, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        else:
            self._descriptor = os.dup(descriptor)

    def fileno(self) -> int:
        return self._descriptor

    def write(self, data: bytes) -> int:
        """How much of it was taken.

        Raises:
            BlockingIOError: nothing is taken now.
            OSError: nothing will be.
        """
        if self._socket is not None:
            return self._socket.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        return os.write(self._descriptor, data)

    def close(self) -> None:
        """Let go of it.  Again does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if self._socket is not None:
            self._socket.close()
        elif descriptor >= 0:
            os.close(descriptor)
