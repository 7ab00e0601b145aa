"""machport's peers for another harness, the one that measured what machport is compared with.

    BENCH_EXTRA=/path/to/bench/peers_machport.py python bench.py rtt --only machport

That harness has a module ``core`` with a register of classes for each of ``rtt``, ``stream``, ``death`` and ``scale``.
Here its roles are played by the peers of this package, so that both harnesses measure the same code.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.harness import Session
from bench.peers import OneWay, Peer, machport_daemon, machport_queue

#: Bytes, where that harness does not say.
_LARGEST = 8192


class _Adapted:
    """What that harness expects of every peer."""

    ours: Any
    aio = False
    size = _LARGEST
    params: dict[str, Any]

    def setup(self, tmp: str) -> Any:
        """In the controlling process: start a daemon, or make memory."""
        self._session = Session()
        self._session.__enter__()
        peer = self.ours()
        address = peer.prepare(self._session, self.size)
        return address, tuple(peer.helpers)

    def cleanup(self, state: Any) -> None:
        self._session.close()


class _RoundTrip(_Adapted):
    def server(self, state: Any, ready: Callable[[], object]) -> Any:
        self._peer = self.ours()
        both = self._peer.server(state[0])
        ready()
        return both

    def client(self, state: Any) -> Any:
        self._peer = self.ours()
        return self._peer.client(state[0])


class _Stream(_Adapted):
    batch = False
    max_size = None
    batch_len: dict[int, int]

    def consumer(self, state: Any, ready: Callable[[], object]) -> Any:
        self._peer = self.ours()
        get = self._peer.consumer(state[0], self.params["size"])
        ready()
        return get

    def producer(self, state: Any) -> Any:
        self._peer = self.ours()
        return self._peer.producer(state[0], self.params["size"])


class _Death(_Adapted):
    def victim(self, state: Any, ready: Callable[[], object]) -> None:
        self._peer = self.ours()
        self._peer.victim(state[0])
        ready()

    def survivor(self, state: Any, armed: Callable[[], object], deadline: float) -> object:
        self._peer = self.ours()
        wait = self._peer.survivor(state[0], 0)
        armed()
        return wait(deadline)


class _Scale(_Adapted):
    _peer: Any = None

    def make(self, count: int, state: Any) -> Any:
        if self._peer is None:
            self._peer = self.ours()
            self._peer.begin(state[0])
        # Where it stopped, if it does not reach its number.
        self.made = 0
        endpoints: list[Any] = []
        try:
            return self._peer.make(count, endpoints)
        finally:
            self.made = len(endpoints)

    def unmake(self, endpoints: list[Any]) -> None:
        self._peer.unmake(endpoints)


def _adapt(kind: str, name: str, ours: type[Peer]) -> None:
    """Register one of our peers with the other harness, if this machport has what it needs."""
    if ours.missing():
        return
    bases = {"rtt": _RoundTrip, "stream": _Stream, "death": _Death, "scale": _Scale}
    members: dict[str, Any] = {"name": name, "note": "", "ours": ours}
    if issubclass(ours, OneWay):
        # That harness has pools of 256 small messages and of 8 large ones, and a size of its own between ours.
        sizes = (64, 1024, 65536, 1 << 20)
        batches = {size: ours.batches.get(size, 64) for size in sizes}
        members |= {"batch": bool(ours.batches), "batch_len": batches}
    import_module("core").register(kind)(type(ours.__name__, (bases[kind],), members))


_adapt("rtt", "machport daemon call/reply", machport_daemon.CallRoundTrip)
_adapt("rtt", "machport data queue pair", machport_queue.QueueRoundTrip)
_adapt("stream", "machport daemon send/receive", machport_daemon.SendOneWay)
_adapt("stream", "machport daemon send_many/receive_many", machport_daemon.SendManyOneWay)
_adapt("stream", "machport data queue one by one", machport_queue.QueueOneWay)
_adapt("stream", "machport data queue many", machport_queue.QueueManyOneWay)
_adapt("stream", "machport data queue view", machport_queue.QueuePeekOneWay)
_adapt("death", "machport daemon dead name", machport_daemon.DeadNameDeath)
_adapt("scale", "machport daemon port", machport_daemon.PortCreation)
_adapt("scale", "machport daemon many ports", machport_daemon.ManyPortsCreation)
_adapt("scale", "machport data queue of 64 KiB", machport_queue.QueueCreation)
