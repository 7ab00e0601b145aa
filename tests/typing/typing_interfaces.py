"""What type checkers say about typed calls; never run.  A line to be refused says so, and where it is not it fails."""

from __future__ import annotations

import contextlib
from typing import Protocol, assert_type

import machport
from machport import aio


class Calculator:
    """A plain class; to mypy its bodies must raise."""

    def divide(self, a: float, b: float) -> float:
        raise NotImplementedError

    @machport.oneway
    def note(self, text: str) -> None:
        raise NotImplementedError


@machport.interface(name="org.example.broker", version=(1, 2), errors=(KeyError,))
class Broker(Protocol):
    """A protocol, whose bodies are nothing."""

    def subscribe(self, port: machport.SendRight, first: int = 0) -> machport.ReceiveRight: ...
    def once(self, right: machport.SendOnceRight) -> None: ...
    def feed(self, queue: machport.DataQueue) -> list[machport.SendRight]: ...


class Divider(Calculator):
    def divide(self, a: float, b: float) -> float:
        return a / b


class Bad(Calculator):
    def divide(self, a: str, b: float) -> float:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return b


class Brokering:
    def __init__(self, port: machport.ReceiveRight) -> None:
        self.port = port

    def subscribe(self, port: machport.SendRight, first: int = 0) -> machport.ReceiveRight:
        # What is moved stands for the right.
        return self.port.move()

    def once(self, right: machport.SendOnceRight) -> None:
        right.send(b"")

    def feed(self, queue: machport.DataQueue) -> list[machport.SendRight]:
        queue.enqueue(b"entry")
        return [self.port.make_send().move()]


def calls(right: machport.SendRight) -> None:
    calculator = machport.proxy(Calculator, right, timeout=5)
    assert_type(calculator, Calculator)
    assert_type(calculator.divide(1, 2), float)
    calculator.note("text")
    calculator.divide("1", 2)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    calculator.divide(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    calculator.multiply(1, 2)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]


def rights(right: machport.SendRight, port: machport.ReceiveRight, queue: machport.DataQueue) -> None:
    broker = machport.proxy(Broker, right)
    assert_type(broker, Broker)
    assert_type(broker.subscribe(right.copy()), machport.ReceiveRight)
    broker.subscribe(right.move(), first=3)
    broker.subscribe(right.task.fileport(0).move())
    broker.subscribe(right.task.fileport(0).copy())
    broker.once(port.make_send_once().move())
    assert_type(broker.feed(queue.move_producer()), list[machport.SendRight])
    broker.subscribe(port.move())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    broker.once(right.copy())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    broker.feed(right.copy())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    # Transfers are what they were for messages.
    right.send(rights=[right.copy(), port.move(), queue.move_consumer()])
    right.send(rights=[right])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]


def serving(port: machport.ReceiveRight, right: machport.SendRight) -> None:
    machport.serve(Calculator, Divider(), port, until_no_senders=True)
    machport.serve(Broker, Brokering(port), port)
    machport.serve(Calculator, Divider(), right)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    machport.proxy(Calculator, port)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@machport.interface(of=Calculator)
class Awaited:
    async def divide(self, a: float, b: float) -> float:
        return a / b

    @machport.oneway
    async def note(self, text: str) -> None:
        pass


class Feed(Protocol):
    async def subscribe(self, port: aio.SendRight) -> aio.ReceiveRight: ...


async def coroutines(right: aio.SendRight, port: aio.ReceiveRight) -> None:
    calculator = machport.proxy(Awaited, right)
    assert_type(calculator, Awaited)
    assert_type(await calculator.divide(1, 2), float)
    await calculator.divide("1", 2)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    feed = machport.proxy(Feed, right)
    assert_type(await feed.subscribe(right.copy()), aio.ReceiveRight)
    await feed.subscribe(port.move())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await machport.serve(Awaited, Awaited(), port, concurrency=3)


def context() -> None:
    assert_type(machport.deadline(1), contextlib.AbstractContextManager[None])
    call = machport.current_call()
    assert_type(call, machport.Call)
    assert_type(call.deadline, float | None)
    assert_type(call.sender, tuple[int, int])
    assert_type(call.pid, int)
    assert_type(call.cancelled, bool)
    try:
        call.stop()
    except machport.RemoteError as error:
        assert_type(error.traceback, str)
    except (machport.BadArguments, machport.InvalidInterface) as error:
        mistake: TypeError = error
        assert_type(error.code, int)
        raise mistake from None
    except (machport.UnknownRoutine, machport.VersionMismatch, machport.ReplyMismatch) as error:
        assert_type(error.code, int)
