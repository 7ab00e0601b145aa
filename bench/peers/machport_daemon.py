"""machport through its daemon: calls, sends, dead names, ports.

A private daemon serves each measurement.  The processes find each other by a service's name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

import machport
from bench.harness import Session
from bench.loops import LAST
from bench.peers import AsyncRoundTrip, Creation, Death, OneWay, Peer, RoundTrip
from machport import aio

SERVICE = "bench"
#: Bytes that may wait in a port's queue, and so messages: as many as a port holds, but no more than memory likes.
_QUEUED = 16 << 20


def qlimit(size: int) -> int:
    """How many messages of this size may wait in a queue."""
    return max(4, min(1024, _QUEUED // size))


class _Daemon(Peer):
    def prepare(self, session: Session, size: int) -> Any:
        daemon = session.daemon()
        self.helpers = (daemon.pid,)
        return str(daemon.path)


def answering(port: machport.ReceiveRight) -> tuple[Callable[[], bytes], Callable[[bytes], object]]:
    """Receive and reply; if the port can, the reply goes in the trap of the next receive."""
    request: machport.Message | None = None
    kept: bytes | None = None
    both: Callable[[machport.Message, bytes], machport.Message] | None = getattr(port, "reply_and_receive", None)

    def receive() -> bytes:
        nonlocal request, kept
        if both is not None and request is not None and kept is not None:
            request, kept = both(request, kept), None
        else:
            request = port.receive()
        return request.body

    def reply(body: bytes) -> None:
        nonlocal kept
        assert request is not None
        if both is None or len(body) == 1:
            request.reply(body)
        else:
            kept = body

    return receive, reply


class CallRoundTrip(_Daemon, RoundTrip):
    name = "machport call and reply"

    def server(self, address: Any) -> tuple[Callable[[], Any], Callable[[Any], object]]:
        self._task = machport.Task(path=address)
        return answering(self._task.check_in(SERVICE))

    def client(self, address: Any) -> Callable[[bytes], Any]:
        self._task = machport.Task(path=address)
        call = self._task.look_up(SERVICE).call
        return lambda body: call(body).body


class _Traced(Peer):
    """The daemon writes a trace to a file."""

    def prepare(self, session: Session, size: int) -> Any:
        daemon = session.daemon("--trace", str(session.directory / "trace"))
        self.helpers = (daemon.pid,)
        return str(daemon.path)


class TracedCallRoundTrip(_Traced, CallRoundTrip):
    name = "machport call and reply, traced"


class AwaitedRoundTrip(_Daemon, AsyncRoundTrip):
    """Both sides are coroutines in loops of asyncio."""

    name = "machport.aio call and serve"

    async def serve(self, address: Any, ready: Callable[[], object]) -> None:
        with aio.Task(path=address) as task:
            port = task.check_in(SERVICE)
            ready()
            request = await port.receive()
            while len(request.body) != len(LAST):
                request = await port.reply_and_receive(request, request.body)
            request.reply(request.body)

    async def connect(self, address: Any) -> Callable[[bytes], Awaitable[Any]]:
        self._task = aio.Task(path=address)
        right = self._task.look_up(SERVICE)

        async def call(body: bytes) -> bytes:
            return (await right.call(body)).body

        return call


class CallsToServer(CallRoundTrip):
    """Many clients of one server; none of them ends it."""

    ends = False


class SendOneWay(_Daemon, OneWay):
    name = "machport send, one trap a message"

    def consumer(self, address: Any, size: int) -> Callable[[], Any]:
        self._task = machport.Task(path=address)
        port = self._task.check_in(SERVICE)
        port.set_qlimit(qlimit(size))
        receive = port.receive
        return lambda: receive().body

    def producer(self, address: Any, size: int) -> Callable[[Any], object]:
        self._task = machport.Task(path=address)
        # Whatever became of a message, send says it by returning or raising.
        return self._task.look_up(SERVICE).send


class TracedSendOneWay(_Traced, SendOneWay):
    name = "machport send, one trap a message, traced"


class SendManyOneWay(_Daemon, OneWay):
    name = "machport send_many and receive_many"
    batches: ClassVar = {64: 64, 1024: 64, 4096: 64, 65536: 8, 1 << 20: 2}

    @classmethod
    def missing(cls) -> str:
        return "" if hasattr(machport.SendRight, "send_many") else "SendRight.send_many of a later machport"

    def consumer(self, address: Any, size: int) -> Callable[[], Any]:
        self._task = machport.Task(path=address)
        port: Any = self._task.check_in(SERVICE)
        port.set_qlimit(qlimit(size))
        receive_many, limit = port.receive_many, 4 * self.batch(size)
        return lambda: [message.body for message in receive_many(limit)]

    def producer(self, address: Any, size: int) -> Callable[[Any], object]:
        self._task = machport.Task(path=address)
        right: Any = self._task.look_up(SERVICE)
        send_many = right.send_many

        def put(bodies: list[bytes]) -> None:
            sent = send_many(bodies)
            if sent != len(bodies):
                raise RuntimeError(f"{sent} of {len(bodies)} messages were sent")

        return put


class DeadNameDeath(_Daemon, Death):
    name = "machport dead-name notification"

    def victim(self, address: Any) -> None:
        self._task = machport.Task(path=address)
        self._port = self._task.check_in(SERVICE)

    def survivor(self, address: Any, pid: int) -> Callable[[float], object]:
        self._task = machport.Task(path=address)
        self._right = self._task.look_up(SERVICE)
        deaths = self._task.allocate()
        self._right.request_dead_name(deaths)

        def wait(seconds: float) -> bool:
            try:
                return isinstance(deaths.receive(seconds), machport.DeadNameNotification)
            except machport.TimedOut:
                return False

        return wait


class PortCreation(_Daemon, Creation):
    name = "machport port, one by one"

    def begin(self, address: Any) -> None:
        self._task = machport.Task(path=address)

    def make(self, count: int, made: list[Any]) -> list[Any]:
        for _ in range(count):
            made.append(self._task.allocate())
        return made

    def unmake(self, made: list[Any]) -> None:
        for port in made:
            port.close()


class ManyPortsCreation(PortCreation):
    name = "machport ports, many in one call"

    @classmethod
    def missing(cls) -> str:
        return "" if hasattr(machport.Task, "allocate_many") else "Task.allocate_many of a later machport"

    def make(self, count: int, made: list[Any]) -> list[Any]:
        task: Any = self._task
        made.extend(task.allocate_many(count))
        return made

    def unmake(self, made: list[Any]) -> None:
        task: Any = self._task
        task.close_many(made)
