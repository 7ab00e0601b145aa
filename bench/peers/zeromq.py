"""pyzmq, over ipc."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.harness import Session
from bench.peers import Creation, Death, OneWay, Peer, RoundTrip, load


class _Zmq(Peer):
    modules = ("zmq",)

    def prepare(self, session: Session, size: int) -> Any:
        return f"ipc://{session.directory}/zmq"

    def bound(self, kind: str, address: str) -> Any:
        socket = self._socket(kind)
        socket.bind(address)
        return socket

    def connected(self, kind: str, address: str) -> Any:
        socket = self._socket(kind)
        socket.connect(address)
        return socket

    def _socket(self, kind: str) -> Any:
        zmq = load("zmq")
        self.context = zmq.Context()
        return self.context.socket(getattr(zmq, kind))


class ReqRoundTrip(_Zmq, RoundTrip):
    name = "pyzmq REQ and REP"
    kinds = ("REP", "REQ")

    def server(self, address: Any) -> tuple[Callable[[], Any], Callable[[Any], object]]:
        own = self.bound(self.kinds[0], address)
        return own.recv, own.send

    def client(self, address: Any) -> Callable[[bytes], Any]:
        own = self.connected(self.kinds[1], address)
        send, receive = own.send, own.recv

        def call(body: bytes) -> bytes:
            send(body)
            answer: bytes = receive()
            return answer

        return call


class PairRoundTrip(ReqRoundTrip):
    name = "pyzmq PAIR"
    kinds = ("PAIR", "PAIR")


class ReqServer(ReqRoundTrip):
    """Many clients of one server; none of them ends it."""

    ends = False


class PushOneWay(_Zmq, OneWay):
    name = "pyzmq PUSH and PULL"

    def consumer(self, address: Any, size: int) -> Callable[[], Any]:
        receive: Callable[[], Any] = self.bound("PULL", address).recv
        return receive

    def producer(self, address: Any, size: int) -> Callable[[Any], object]:
        send: Callable[[Any], object] = self.connected("PUSH", address).send
        return send


class MonitorDeath(_Zmq, Death):
    name = "pyzmq socket monitor"

    def victim(self, address: Any) -> None:
        self._own = self.bound("PAIR", address)

    def survivor(self, address: Any, pid: int) -> Callable[[float], object]:
        zmq = load("zmq")
        own = self._socket("PAIR")
        monitor = own.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
        own.connect(address)
        self._kept = own
        monitor.recv_multipart()
        return lambda seconds: monitor.poll(seconds * 1000)


class SocketCreation(_Zmq, Creation):
    name = "pyzmq PAIR socket, bound"

    def begin(self, address: Any) -> None:
        self._zmq = load("zmq")
        self._context = self._zmq.Context()
        self._context.set(self._zmq.MAX_SOCKETS, 65_000)
        self._address = address
        self._count = 0

    def make(self, count: int, made: list[Any]) -> list[Any]:
        for _ in range(count):
            socket = self._context.socket(self._zmq.PAIR)
            self._count += 1
            socket.bind(f"{self._address}{self._count}")
            made.append(socket)
        return made

    def unmake(self, made: list[Any]) -> None:
        for socket in made:
            socket.close(linger=0)
