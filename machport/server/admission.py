"""Who may be connected: how many in all, how many of one process, and how long one may say nothing.

Whoever connects must say hello soon.  When there are too many that have not, the oldest of them goes, first of all one
of the same process: a client that means well speaks at once.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from machport.abi import constants as c
from machport.kernel.refusal import Refusal
from machport.peer.attestation import Peer
from machport.server.configuration import DaemonLimits
from machport.server.connection import Channel

#: Connections that one process may have, unless the settings say more.
_PER_PROCESS: Final = 1024


class Admission:
    """The connections that have not said hello, and how many have.

    Args:
        descriptors: how many the daemon may have for its clients.
        clock: seconds, of which only differences count.
    """

    def __init__(self, limits: DaemonLimits, descriptors: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.connections_max = limits.connections or max(2, descriptors // 3)
        self.per_process_max = limits.connections_per_process or max(1, min(_PER_PROCESS, self.connections_max // 4))
        # Each has a socket and a pidfd.
        self._silent_max = min(limits.silent, max(2, descriptors // 8))
        self._silent_per_process = min(limits.silent_per_process, self._silent_max)
        self._patience = limits.hello_seconds
        self._clock = clock
        self._silent: dict[Channel, tuple[Peer, float]] = {}
        self._connections: Counter[int] = Counter()
        self._count = 0

    def come(self, channel: Channel, peer: Peer) -> list[tuple[Channel, Peer]]:
        """Somebody has connected; who is to be turned away for it."""
        self._silent[channel] = peer, self._clock() + self._patience
        same = [channel for channel, (other, _) in self._silent.items() if other.pid == peer.pid]
        if len(same) > self._silent_per_process:
            return [(same[0], self.leave(same[0]))]
        if len(self._silent) > self._silent_max:
            oldest = next(iter(self._silent))
            return [(oldest, self.leave(oldest))]
        return []

    def leave(self, channel: Channel) -> Peer:
        """A connection is silent no more: it has spoken, or is gone."""
        return self._silent.pop(channel)[0]

    def next(self) -> float | None:
        """When the next silent connection has been silent for too long."""
        for _, deadline in self._silent.values():
            return deadline
        return None

    def overdue(self) -> list[tuple[Channel, Peer]]:
        """Those that have been silent for too long."""
        now = self._clock()
        found = [channel for channel, (_, deadline) in self._silent.items() if deadline <= now]
        return [(channel, self.leave(channel)) for channel in found]

    @property
    def silent(self) -> dict[Channel, Peer]:
        """Who has not said hello, the oldest first."""
        return {channel: peer for channel, (peer, _) in self._silent.items()}

    def count(self, peer: Peer) -> None:
        """A connection that was admitted before."""
        self._connections[peer.pid] += 1
        self._count += 1

    def admit(self, peer: Peer) -> None:
        """One more connection of a process.

        Raises:
            Refusal: KERN_RESOURCE_SHORTAGE, there are too many.
        """
        has = self._connections[peer.pid]
        if has >= self.per_process_max:
            says = f"process {peer.pid} may have {self.per_process_max} connections, and has {has}"
        elif self._count >= self.connections_max:
            says = f"the daemon may have {self.connections_max} connections, and has {self._count}"
        else:
            self.count(peer)
            return
        if not has:
            del self._connections[peer.pid]
        raise Refusal(c.KERN_RESOURCE_SHORTAGE, "limits", says)

    def dismiss(self, peer: Peer) -> None:
        """A connection that was admitted has ended."""
        self._count -= 1
        self._connections[peer.pid] -= 1
        if not self._connections[peer.pid]:
            del self._connections[peer.pid]
