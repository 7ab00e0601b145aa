"""iceoryx2: slices of bytes, copied in and out as the quickest way that Python has."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from bench.harness import Session
from bench.peers import Creation, OneWay, Peer, RoundTrip, load

_LONGEST = 8192


class _Ipc(Peer):
    modules = ("iceoryx2",)

    def prepare(self, session: Session, size: int) -> Any:
        session.callback(self._sweep)
        return f"bench/{session.directory.name}"

    def _sweep(self) -> None:
        """Take away what processes that were killed have left in shared memory."""
        self.open()
        self.node.try_cleanup_dead_nodes()
        del self.node

    def open(self) -> None:
        self.iox = load("iceoryx2")
        self.iox.set_log_level(self.iox.LogLevel.Fatal)
        self.node = self.iox.NodeBuilder.new().create(self.iox.ServiceType.Ipc)
        self._kept: list[Any] = []

    def service(self, name: str) -> Any:
        return self.node.service_builder(self.iox.ServiceName.new(name))

    def event(self, name: str) -> Any:
        event = self.service(name).event().open_or_create()
        self._kept.append(event)
        return event

    def channel(self, name: str, buffered: int = 0) -> Any:
        builder = self.service(name).publish_subscribe(self.iox.Slice[ctypes.c_uint8]).enable_safe_overflow(False)
        if buffered:
            builder = builder.subscriber_max_buffer_size(buffered)
        channel = builder.open_or_create()
        self._kept.append(channel)
        return channel


def _fill(sample: Any, body: bytes) -> None:
    ctypes.memmove(sample.payload().data_ptr, body, len(body))
    sample.assume_init().send()


def _copy(sample: Any) -> bytes:
    payload = sample.payload()
    body = ctypes.string_at(payload.data_ptr, payload.number_of_elements)
    sample.delete()
    return body


class PollingRoundTrip(_Ipc, RoundTrip):
    """Two channels, one each way; both sides look without end."""

    name = "iceoryx2 pub/sub, busy polling"
    blocking = False

    def server(self, address: Any) -> tuple[Callable[[], Any], Callable[[Any], object]]:
        self.open()
        return self._receiving(f"{address}/there"), self._sending(f"{address}/back")

    def client(self, address: Any) -> Callable[[bytes], Any]:
        self.open()
        send, receive = self._sending(f"{address}/there"), self._receiving(f"{address}/back")

        def call(body: bytes) -> bytes:
            send(body)
            return receive()

        return call

    def _sending(self, name: str) -> Callable[[bytes], None]:
        publisher = self.channel(name).publisher_builder().initial_max_slice_len(_LONGEST).create()
        notify = self.event(name).notifier_builder().create().notify if self.blocking else None

        def send(body: bytes) -> None:
            _fill(publisher.loan_slice_uninit(len(body)), body)
            if notify is not None:
                notify()

        return send

    def _receiving(self, name: str) -> Callable[[], bytes]:
        receive = self.channel(name).subscriber_builder().create().receive
        wait = self.event(name).listener_builder().create().blocking_wait if self.blocking else None

        def get() -> bytes:
            while (sample := receive()) is None:
                if wait is not None:
                    wait()
            return _copy(sample)

        return get


class BlockingRoundTrip(PollingRoundTrip):
    name = "iceoryx2 pub/sub, blocking"
    blocking = True


class RequestRoundTrip(_Ipc, RoundTrip):
    name = "iceoryx2 request-response, blocking"

    def _service(self, address: str) -> Any:
        octets = self.iox.Slice[ctypes.c_uint8]
        service = self.service(address).request_response(octets, octets).open_or_create()
        self._kept.append(service)
        return service

    def server(self, address: Any) -> tuple[Callable[[], Any], Callable[[Any], object]]:
        self.open()
        server = self._service(address).server_builder().initial_max_slice_len(_LONGEST).create()
        wait = self.event(f"{address}/there").listener_builder().create().blocking_wait
        notify = self.event(f"{address}/back").notifier_builder().create().notify
        asked: list[Any] = []

        def receive() -> bytes:
            while (request := server.receive()) is None:
                wait()
            asked[:] = [request]
            payload = request.payload()
            return ctypes.string_at(payload.data_ptr, payload.number_of_elements)

        def reply(body: bytes) -> None:
            _fill(asked[0].loan_slice_uninit(len(body)), body)
            asked.pop().delete()
            notify()

        return receive, reply

    def client(self, address: Any) -> Callable[[bytes], Any]:
        self.open()
        client = self._service(address).client_builder().initial_max_slice_len(_LONGEST).create()
        wait = self.event(f"{address}/back").listener_builder().create().blocking_wait
        notify = self.event(f"{address}/there").notifier_builder().create().notify

        def call(body: bytes) -> bytes:
            request = client.loan_slice_uninit(len(body))
            ctypes.memmove(request.payload().data_ptr, body, len(body))
            pending = request.assume_init().send()
            notify()
            while (response := pending.receive()) is None:
                wait()
            answer = _copy(response)
            pending.delete()
            return answer

        return call


class PollingOneWay(_Ipc, OneWay):
    name = "iceoryx2 pub/sub, busy polling"
    blocking = False
    buffered = 16

    def consumer(self, address: Any, size: int) -> Callable[[], Any]:
        self.open()
        channel = self.channel(address, self.buffered)
        receive = channel.subscriber_builder().buffer_size(self.buffered).create().receive
        listener = self.event(address).listener_builder().create() if self.blocking else None
        moment = self.iox.Duration.from_millis(20)

        def get() -> bytes:
            while (sample := receive()) is None:
                if listener is not None:
                    listener.timed_wait(moment)
            return _copy(sample)

        return get

    def producer(self, address: Any, size: int) -> Callable[[Any], object]:
        self.open()
        builder = self.channel(address, self.buffered).publisher_builder().initial_max_slice_len(size)
        strategy = self.iox.BackpressureStrategy.RetryUntilDelivered
        publisher = builder.backpressure_strategy(strategy).create()
        notify = self.event(address).notifier_builder().create().notify if self.blocking else None

        def put(body: bytes) -> None:
            _fill(publisher.loan_slice_uninit(len(body)), body)
            if notify is not None:
                notify()

        return put


class BlockingOneWay(PollingOneWay):
    name = "iceoryx2 pub/sub, blocking"
    blocking = True


class ListenerCreation(_Ipc, Creation):
    name = "iceoryx2 event service and listener"

    def begin(self, address: Any) -> None:
        self.open()
        self._address = address
        self._count = 0

    def make(self, count: int, made: list[Any]) -> list[Any]:
        for _ in range(count):
            self._count += 1
            service = self.service(f"{self._address}/{self._count}").event().open_or_create()
            made.append((service, service.listener_builder().create()))
        return made

    def unmake(self, made: list[Any]) -> None:
        while made:
            made.pop()[1].delete()
