"""Who is let in: the daemon's user, and root.

Strangers can only come where somebody has opened the directory and the socket to them.  Each is turned away as soon as
its turn comes, at the cost of one descriptor for a moment, and so many at a time that they keep nobody out who waits
behind them, and that whoever is in does not wait for them either.
"""

from __future__ import annotations

import logging
import os
import socket
from typing import Final

from machport.peer.attestation import credentials
from machport.server.log import event

_log: Final = logging.getLogger("machport.daemon")
#: Strangers that are turned away before those who are in have their turn.
_STRANGERS_MAX: Final = 64
_ROOT: Final = 0


class Door:
    """Takes connections.

    Args:
        listener: a listening socket, not blocking.

    Attributes:
        strangers: by user, how many connections were turned away.
    """

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._user = os.getuid()
        self.strangers: dict[int, int] = {}
        # What is said on a connection comes with who says it, from the first packet on.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)

    def accept(self) -> socket.socket:
        """The next connection of somebody who may come in.

        Raises:
            BlockingIOError: nobody is there, or only strangers for now.
            OSError: it cannot be taken.
        """
        for _ in range(_STRANGERS_MAX):
            sock, _ = self._listener.accept()
            try:
                pid, user, _ = credentials(sock)
            except OSError:
                sock.close()
                raise
            if user in (self._user, _ROOT):
                return sock
            sock.close()
            self._note(user, pid)
        raise BlockingIOError

    def _note(self, user: int, pid: int) -> None:
        """Say so in the log, but ever more seldom: the log is no way to do harm either."""
        count = self.strangers[user] = self.strangers.get(user, 0) + 1
        if count & (count - 1) == 0:
            _log.warning(
                "user %d, process %d, was refused; %d times so far",
                user,
                pid,
                count,
                extra=event("user_refused", uid=user, pid=pid, count=count),
            )
