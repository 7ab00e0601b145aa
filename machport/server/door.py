"""Who is let in, and how fast: the daemon's user, and root.

Strangers can only come where somebody has opened the directory and the socket to them.  Each is turned away as soon as
its turn comes, at the cost of one descriptor for a moment, and so many at a time that they keep nobody out who waits
behind them, and that whoever is in does not wait for them either.

Those who may come in cost more, and come at a rate: when too many have come at once, the others wait outside for a
moment, and the daemon's time belongs to those who are in.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable
from typing import Final

from machport.peer.attestation import credentials
from machport.server.log import event

_log: Final = logging.getLogger("machport.daemon")
#: Strangers that are turned away before those who are in have their turn.
_STRANGERS_MAX: Final = 64
_ROOT: Final = 0
#: Seconds whose connections may come at once, and after which some may come again.
_BURST: Final = 0.5
_PAUSE: Final = 0.02


class Door:
    """Takes connections.

    Args:
        listener: a listening socket, not blocking.
        rate: how many may come in a second, after as many at once as come in half a second.
        clock: seconds, of which only differences count.

    Attributes:
        strangers: by user, how many connections were turned away.
        opens: when somebody may come in again; None if that is now.
    """

    def __init__(self, listener: socket.socket, rate: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._listener = listener
        self._user = os.getuid()
        self._interval = 1 / max(1, rate)
        self._clock = clock
        #: When the next may come if they come evenly; ``_ahead`` seconds before it at the earliest.
        self._turn = clock()
        self._ahead = max(0.0, _BURST - self._interval)
        self.strangers: dict[int, int] = {}
        self.opens: float | None = None
        # What is said on a connection comes with who says it, from the first packet on.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)

    def accept(self) -> socket.socket:
        """The next connection of somebody who may come in.

        Raises:
            BlockingIOError: nobody is there, or only strangers for now, or too many have come.
            OSError: it cannot be taken.
        """
        now = self._clock()
        if now < self._turn - self._ahead:
            self.opens = max(now + _PAUSE, self._turn - self._ahead)
            raise BlockingIOError
        for _ in range(_STRANGERS_MAX):
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                raise
            except OSError:
                self._took_turn(now)
                raise
            try:
                pid, user, _ = credentials(sock)
            except OSError:
                sock.close()
                raise
            if user in (self._user, _ROOT):
                self._took_turn(now)
                return sock
            sock.close()
            self._note(user, pid)
        raise BlockingIOError

    def reopens(self) -> bool:
        """Whether it was closed, and is open again now."""
        if self.opens is None or self._clock() < self.opens:
            return False
        self.opens = None
        return True

    def _took_turn(self, now: float) -> None:
        self._turn = max(self._turn, now) + self._interval

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
