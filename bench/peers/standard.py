"""What Python and Linux have by themselves."""

from __future__ import annotations

import contextlib
import multiprocessing.connection
import os
import select
import socket
from collections.abc import Callable
from typing import Any

from bench.harness import CONTEXT, Session
from bench.peers import Creation, Death, OneWay, RoundTrip

_LONGEST = 1 << 20
_SOCKET_BUFFER = 4 << 20


def _pair() -> tuple[socket.socket, socket.socket]:
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in pair:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER)
    return pair


class SeqpacketRoundTrip(RoundTrip):
    name = "raw SEQPACKET socketpair"

    def prepare(self, session: Session, size: int) -> Any:
        return _pair()

    def server(self, address: Any) -> tuple[Callable[[], Any], Callable[[Any], object]]:
        own = address[0]
        return lambda: own.recv(8192), own.send

    def client(self, address: Any) -> Callable[[bytes], Any]:
        own = address[1]

        def call(body: bytes) -> bytes:
            own.send(body)
            answer: bytes = own.recv(8192)
            return answer

        return call


class SeqpacketOneWay(OneWay):
    name = "raw SEQPACKET socketpair"

    def prepare(self, session: Session, size: int) -> Any:
        return _pair()

    def consumer(self, address: Any, size: int) -> Callable[[], Any]:
        receive = address[0].recv
        return lambda: receive(size)

    def producer(self, address: Any, size: int) -> Callable[[Any], object]:
        send: Callable[[Any], object] = address[1].send
        return send


class SeqpacketServer(RoundTrip):
    """One server for many clients, by epoll."""

    name = "raw SEQPACKET, epoll server"
    ends = False

    def server(self, address: Any) -> tuple[Callable[[], Any], Callable[[Any], object]]:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(address)
        listener.listen()
        clients: dict[int, socket.socket] = {}
        poll = select.epoll()
        poll.register(listener, select.EPOLLIN)
        ready: list[socket.socket] = []
        asking: list[socket.socket] = []

        def receive() -> bytes:
            while True:
                while not ready:
                    for descriptor, _ in poll.poll():
                        if descriptor == listener.fileno():
                            client, _ = listener.accept()
                            clients[client.fileno()] = client
                            poll.register(client, select.EPOLLIN)
                        else:
                            ready.append(clients[descriptor])
                asking[:] = [ready.pop(0)]
                if body := asking[0].recv(8192):
                    return body
                poll.unregister(asking[0])

        return receive, lambda body: asking[0].send(body)

    def client(self, address: Any) -> Callable[[bytes], Any]:
        own = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        own.connect(address)

        def call(body: bytes) -> bytes:
            own.send(body)
            return own.recv(8192)

        return call


class PipeRoundTrip(RoundTrip):
    name = "os.pipe, two of them"

    def prepare(self, session: Session, size: int) -> Any:
        # Connections, because these travel to the processes; they are used as plain descriptors there.
        return CONTEXT.Pipe(duplex=False), CONTEXT.Pipe(duplex=False)

    def server(self, address: Any) -> tuple[Callable[[], Any], Callable[[Any], object]]:
        self._kept = address
        source, target = address[0][0].fileno(), address[1][1].fileno()
        return lambda: os.read(source, 8192), lambda body: os.write(target, body)

    def client(self, address: Any) -> Callable[[bytes], Any]:
        self._kept = address
        source, target = address[1][0].fileno(), address[0][1].fileno()

        def call(body: bytes) -> bytes:
            os.write(target, body)
            return os.read(source, 8192)

        return call


class ConnectionRoundTrip(RoundTrip):
    name = "multiprocessing.Pipe"

    def prepare(self, session: Session, size: int) -> Any:
        return CONTEXT.Pipe()

    def server(self, address: Any) -> tuple[Callable[[], Any], Callable[[Any], object]]:
        return address[0].recv_bytes, address[0].send_bytes

    def client(self, address: Any) -> Callable[[bytes], Any]:
        send, receive = address[1].send_bytes, address[1].recv_bytes

        def call(body: bytes) -> bytes:
            send(body)
            answer: bytes = receive()
            return answer

        return call


class ConnectionOneWay(OneWay):
    name = "multiprocessing.Pipe"

    def prepare(self, session: Session, size: int) -> Any:
        return CONTEXT.Pipe(duplex=False)

    def consumer(self, address: Any, size: int) -> Callable[[], Any]:
        receive: Callable[[], Any] = address[0].recv_bytes
        return receive

    def producer(self, address: Any, size: int) -> Callable[[Any], object]:
        send: Callable[[Any], object] = address[1].send_bytes
        return send


class QueueRoundTrip(RoundTrip):
    name = "multiprocessing.Queue, two of them"

    def prepare(self, session: Session, size: int) -> Any:
        return CONTEXT.Queue(), CONTEXT.Queue()

    def server(self, address: Any) -> tuple[Callable[[], Any], Callable[[Any], object]]:
        return address[0].get, address[1].put

    def client(self, address: Any) -> Callable[[bytes], Any]:
        put, get = address[0].put, address[1].get

        def call(body: bytes) -> bytes:
            put(body)
            answer: bytes = get()
            return answer

        return call


class QueueOneWay(OneWay):
    name = "multiprocessing.Queue"

    def prepare(self, session: Session, size: int) -> Any:
        return CONTEXT.Queue(maxsize=1024 if size <= 4096 else 16)

    def consumer(self, address: Any, size: int) -> Callable[[], Any]:
        get: Callable[[], Any] = address.get
        return get

    def producer(self, address: Any, size: int) -> Callable[[Any], object]:
        put: Callable[[Any], object] = address.put
        return put


# Death


class PidfdDeath(Death):
    name = "pidfd and poll"

    def victim(self, address: Any) -> None:
        pass

    def survivor(self, address: Any, pid: int) -> Callable[[float], object]:
        poll = select.poll()
        poll.register(os.pidfd_open(pid), select.POLLIN)
        return lambda seconds: poll.poll(seconds * 1000)


class SeqpacketDeath(Death):
    name = "raw SEQPACKET, end of file"

    def victim(self, address: Any) -> None:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(address)
        listener.listen()
        self._kept = listener

    def survivor(self, address: Any, pid: int) -> Callable[[float], object]:
        own = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        own.connect(address)

        def wait(seconds: float) -> bool:
            own.settimeout(seconds)
            # The victim never accepted, so its kernel resets the connection.
            try:
                return own.recv(1) == b""
            except ConnectionResetError:
                return True
            except TimeoutError:
                return False

        return wait


class QueueDeath(Death):
    name = "multiprocessing.Queue"

    def prepare(self, session: Session, size: int) -> Any:
        return CONTEXT.Queue()

    def victim(self, address: Any) -> None:
        address.put(b"here")

    def survivor(self, address: Any, pid: int) -> Callable[[float], object]:
        address.get()

        def wait(seconds: float) -> bool:
            with contextlib.suppress(Exception):
                address.get(timeout=seconds)
            return False

        return wait


# Creation


class _Made(Creation):
    def begin(self, address: Any) -> None:
        pass

    def one(self) -> Any:
        raise NotImplementedError

    def make(self, count: int, made: list[Any]) -> list[Any]:
        for _ in range(count):
            made.append(self.one())
        return made

    def unmake(self, made: list[Any]) -> None:
        while made:
            for end in made.pop():
                end.close()


class SocketpairCreation(_Made):
    name = "raw SEQPACKET socketpair"

    def one(self) -> Any:
        return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


class ConnectionCreation(_Made):
    name = "multiprocessing.Pipe"

    def one(self) -> Any:
        return multiprocessing.connection.Pipe()


class QueueCreation(_Made):
    name = "multiprocessing.Queue"

    def one(self) -> Any:
        return (CONTEXT.Queue(),)


class PipeCreation(_Made):
    name = "os.pipe"

    def one(self) -> Any:
        return os.pipe()

    def unmake(self, made: list[Any]) -> None:
        while made:
            for end in made.pop():
                os.close(end)
