"""faster-fifo, with bytes as they are instead of pickles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from bench.harness import Session
from bench.peers import Creation, OneWay, Peer, RoundTrip, load

#: Seconds, because a call without a time-out is not offered.
_LONG = 60.0


def _as_it_is(body: Any) -> bytes:
    return bytes(body)


def _queue(octets: int) -> Any:
    load("faster_fifo_reduction")
    return load("faster_fifo").Queue(max_size_bytes=octets, loads=_as_it_is, dumps=_as_it_is)


class _Fifo(Peer):
    modules = ("faster_fifo",)


class FifoRoundTrip(_Fifo, RoundTrip):
    name = "faster-fifo, two of them"

    def prepare(self, session: Session, size: int) -> Any:
        return _queue(1_000_000), _queue(1_000_000)

    def server(self, address: Any) -> tuple[Callable[[], Any], Callable[[Any], object]]:
        return lambda: address[0].get(timeout=_LONG), address[1].put

    def client(self, address: Any) -> Callable[[bytes], Any]:
        put, get = address[0].put, address[1].get

        def call(body: bytes) -> bytes:
            put(body)
            answer: bytes = get(timeout=_LONG)
            return answer

        return call


class FifoOneWay(_Fifo, OneWay):
    name = "faster-fifo, one call an entry"

    def prepare(self, session: Session, size: int) -> Any:
        return _queue(max(1_000_000, 8 * size))

    def consumer(self, address: Any, size: int) -> Callable[[], Any]:
        return lambda: address.get(timeout=_LONG)

    def producer(self, address: Any, size: int) -> Callable[[Any], object]:
        return lambda body: address.put(body, timeout=_LONG)


class FifoManyOneWay(FifoOneWay):
    name = "faster-fifo, many in one call"
    batches: ClassVar = {64: 64, 1024: 64, 4096: 16, 65536: 4, 1 << 20: 2}

    def consumer(self, address: Any, size: int) -> Callable[[], Any]:
        return lambda: address.get_many(timeout=_LONG)

    def producer(self, address: Any, size: int) -> Callable[[Any], object]:
        return lambda bodies: address.put_many(bodies, timeout=_LONG)


class FifoCreation(_Fifo, Creation):
    name = "faster-fifo queue of 64 KiB"

    def begin(self, address: Any) -> None:
        pass

    def make(self, count: int, made: list[Any]) -> list[Any]:
        for _ in range(count):
            made.append(_queue(1 << 16))
        return made

    def unmake(self, made: list[Any]) -> None:
        made.clear()
