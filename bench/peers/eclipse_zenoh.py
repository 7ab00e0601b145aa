"""Zenoh: two peers over one unix socket, without looking for others."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

from bench.harness import Failed, Session
from bench.peers import Creation, Death, OneWay, Peer, RoundTrip, load

_KEY = "machport/bench"


class _Zenoh(Peer):
    modules = ("zenoh",)

    def prepare(self, session: Session, size: int) -> Any:
        return f"unixsock-stream/{session.directory}/zenoh"

    def open(self, address: str, *, listen: bool) -> Any:
        zenoh = load("zenoh")
        settings = {
            "mode": "peer",
            "scouting/multicast/enabled": False,
            "scouting/gossip/enabled": False,
            "listen/endpoints": [address] if listen else [],
            "connect/endpoints": [] if listen else [address],
        }
        config = zenoh.Config()
        for key, value in settings.items():
            config.insert_json5(key, json.dumps(value))
        self.zenoh = zenoh
        self.session = zenoh.open(config)
        return self.session


def _matched(declared: Any) -> None:
    for _ in range(250):
        if declared.matching_status:
            return
        time.sleep(0.02)
    raise Failed("zenoh did not find the other side")


class QueryRoundTrip(_Zenoh, RoundTrip):
    name = "zenoh query"

    def server(self, address: Any) -> tuple[Callable[[], Any], Callable[[Any], object]]:
        queryable = self.open(address, listen=True).declare_queryable(_KEY)
        self._kept = queryable
        asked: list[Any] = []

        def receive() -> bytes:
            asked[:] = [queryable.recv()]
            return bytes(asked[0].payload)

        def reply(body: bytes) -> None:
            with asked.pop() as query:
                query.reply(_KEY, body)

        return receive, reply

    def client(self, address: Any) -> Callable[[bytes], Any]:
        querier = self.open(address, listen=False).declare_querier(_KEY)
        _matched(querier)

        def call(body: bytes) -> bytes:
            for answer in querier.get(payload=body):
                return bytes(answer.ok.payload)
            raise Failed("no answer by zenoh")

        return call


class PublishOneWay(_Zenoh, OneWay):
    name = "zenoh pub/sub"

    def consumer(self, address: Any, size: int) -> Callable[[], Any]:
        session = self.open(address, listen=True)
        self._kept = session.declare_subscriber(_KEY, self.zenoh.handlers.FifoChannel(64))
        receive = self._kept.recv
        return lambda: bytes(receive().payload)

    def producer(self, address: Any, size: int) -> Callable[[Any], object]:
        session = self.open(address, listen=False)
        publisher = session.declare_publisher(
            _KEY,
            congestion_control=self.zenoh.CongestionControl.BLOCK,
            reliability=self.zenoh.Reliability.RELIABLE,
        )
        _matched(publisher)
        put: Callable[[Any], object] = publisher.put
        return put


class LivelinessDeath(_Zenoh, Death):
    name = "zenoh liveliness token"

    def victim(self, address: Any) -> None:
        self._token = self.open(address, listen=True).liveliness().declare_token(_KEY)

    def survivor(self, address: Any, pid: int) -> Callable[[float], object]:
        session = self.open(address, listen=False)
        here, gone = threading.Event(), threading.Event()

        def look(sample: Any) -> None:
            (here if sample.kind == self.zenoh.SampleKind.PUT else gone).set()

        self._kept = session.liveliness().declare_subscriber(_KEY, look, history=True)
        if not here.wait(5):
            raise Failed("zenoh did not show the victim's token")
        return gone.wait


class SubscriberCreation(_Zenoh, Creation):
    name = "zenoh subscriber"

    def begin(self, address: Any) -> None:
        self.open(address, listen=True)
        self._count = 0

    def make(self, count: int, made: list[Any]) -> list[Any]:
        for _ in range(count):
            self._count += 1
            made.append(self.session.declare_subscriber(f"{_KEY}/{self._count}", lambda sample: None))
        return made

    def unmake(self, made: list[Any]) -> None:
        for subscriber in made:
            subscriber.undeclare()
