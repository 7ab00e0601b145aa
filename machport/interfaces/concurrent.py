"""The server's side for coroutines: as ``serving``, many at a time, under asyncio or trio."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

from machport.abi import constants as c
from machport.abi.errors import ClosedRight, DeadPort, InvalidArgument, InvalidName, MachError
from machport.face import loops
from machport.face.message import Message, NoSendersNotification
from machport.interfaces.body import LONGEST, Unfit
from machport.interfaces.carrying import Received
from machport.interfaces.deadlines import Call, scope
from machport.interfaces.definition import Interface, Routine
from machport.interfaces.failing import raised, refusal
from machport.interfaces.naming import DESCRIBE
from machport.interfaces.results import DESCRIPTION
from machport.interfaces.serving import checked_method, late, log, opened, reply, too_long, unfit_result, waits

if TYPE_CHECKING:
    from machport.aio.rights import ReceiveRight

#: Seconds after which a routine that runs is told when its caller goes; shorter ones need no notification.
_SHORT = 0.01

_Begin = Callable[..., Callable[[], object]]


class Service:
    """An object that serves a port with coroutines."""

    def __init__(self, interface: Interface, implementation: object, port: ReceiveRight, concurrency: int) -> None:
        if type(concurrency) is not int or concurrency < 1:
            raise InvalidArgument(f"a concurrency is 1 or more, not {concurrency!r}")
        if port.closed:
            raise ClosedRight("the right to serve was closed, moved or used up before")
        self._interface = interface
        self._port = port
        self._concurrency = concurrency
        self._watches = False
        self._routines = {
            routine.id: (routine, checked_method(interface, routine, implementation))
            for routine in interface.routines.values()
        }
        self._stop: Callable[[], object] = int

    async def serve(self, until_no_senders: bool) -> None:
        """Carry out requests until the port is gone, or a routine has asked for the end."""
        if until_no_senders:
            self._watch_senders()
        try:
            async with _group() as begin:
                self._stop = begin(self._receive, begin)
        except BaseExceptionGroup as group:
            # What ends the serving is one thing as a rule, and then it is raised as in the ordinary loop.
            if len(group.exceptions) == 1:
                raise group.exceptions[0] from None
            raise

    async def _receive(self, begin: _Begin) -> None:
        room = _semaphore(self._concurrency)
        while True:
            await room.acquire()
            try:
                message = await self._port.receive()
            except (DeadPort, ClosedRight, InvalidName):
                return
            if not self._begin(message, begin, room):
                room.release()

    def _begin(self, message: Message, begin: _Begin, room: Any) -> bool:
        """Answer a request, or begin to; whether something runs for it."""
        found = self._routines.get(message.id)
        if found is None:
            self._answer_others(message)
            return False
        routine, method = found
        if not routine.oneway and not waits(message):
            message.close()
            return False
        try:
            values, received = opened(routine, message)
        except Unfit as error:
            text = routine.located(str(error))
            if routine.oneway:
                log.warning("%s, one-way, was not begun: %s", routine.where, text)
            self._answer(message, refusal(self._interface, c.MIG_TYPE_ERROR, f"{routine.where}: {text}"))
            return False
        if values[0] is not None and time.monotonic_ns() >= values[0]:
            received.give_up()
            if routine.oneway:
                log.warning("%s, one-way, was not begun: its time was over", routine.where)
            self._answer(message, late(self._interface, routine))
            return False
        running = _Running(message, begin)
        running.cancel = begin(self._run, routine, method, values, received, running, room)
        return True

    async def _run(
        self,
        routine: Routine,
        method: Callable[..., Awaitable[Any]],
        values: tuple[Any, ...],
        received: Received,
        running: _Running,
        room: Any,
    ) -> None:
        """One call, in a coroutine of its own."""
        message = running.message
        token = scope.set(Call(values[0], message, self._end))
        try:
            watching = begin_later(running)
            try:
                arguments, keywords = values[1 : routine.positional + 1], values[routine.positional + 1 :]
                result = await method(*arguments, **dict(zip(routine.keywords, keywords, strict=True)))
            finally:
                watching()
                running.finish()
            if not routine.oneway:
                self._answer_with(routine, message, result)
        except Exception as error:
            received.give_up()
            if routine.oneway:
                log.exception("%s, one-way, raised", routine.where)
            self._answer(message, raised(self._interface, error))
        except BaseException:
            received.give_up()
            raise
        finally:
            message.close()
            scope.reset(token)
            room.release()

    def _answer_with(self, routine: Routine, message: Message, result: object) -> None:
        try:
            packed = routine.answer.pack(0, (result,))
            if len(packed.body) > LONGEST:
                self._answer(message, too_long(self._interface, routine, len(packed.body)))
            else:
                reply(message, packed)
        except (Unfit, MachError) as error:
            self._answer(message, unfit_result(self._interface, routine, error))

    def _answer(self, message: Message, body: bytes) -> None:
        # Never by a send right, whose full queue would be the server's trouble.
        if waits(message) and message.expects_reply:
            with contextlib.suppress(DeadPort):
                message.reply(body)
        message.close()

    def _answer_others(self, message: Message) -> None:
        if message.id == DESCRIBE and waits(message):
            described = (self._interface.name, *self._interface.version)
            self._answer(message, DESCRIPTION.pack_plain(0, (described,)))
        elif self._watches and isinstance(message, NoSendersNotification):
            message.close()
            if message.count >= self._port.status().mscount:
                self._end()
            else:
                self._watch_senders()
        elif waits(message):
            text = f"there is no such routine there, id {message.id}"
            self._answer(message, refusal(self._interface, c.MIG_BAD_ID, text))
        else:
            message.close()

    def _watch_senders(self) -> None:
        self._watches = True
        before = self._port.request_no_senders(self._port, sync=1)
        if before is not None:
            before.close()

    def _end(self) -> None:
        self._stop()


class _Running:
    """A call that is carried out, and cancelled when its caller goes."""

    def __init__(self, message: Message, begin: _Begin) -> None:
        self.message = message
        self.begin = begin
        self.cancel: Callable[[], object] = int
        self._watch: Any = None

    async def watch(self) -> None:
        await _sleep(_SHORT)
        right = self.message.reply_right
        if right is not None and not right.closed:
            self._watch = right.on_dead_name(lambda _: self.cancel())

    def finish(self) -> None:
        if self._watch is not None:
            self._watch.callback = None
            self._watch.close()


def begin_later(running: _Running) -> Callable[[], object]:
    return running.begin(running.watch)


def _in_trio() -> bool:
    return loops.running_library() == loops.TRIO


def _semaphore(count: int) -> Any:
    library = "trio" if _in_trio() else "asyncio"
    return sys.modules[library].Semaphore(count)


async def _sleep(seconds: float) -> None:
    await sys.modules["trio" if _in_trio() else "asyncio"].sleep(seconds)


@contextlib.asynccontextmanager
async def _group() -> AsyncIterator[_Begin]:
    """Begins coroutines that end in the block, each with what cancels it."""
    if _in_trio():
        trio = loops.trio_library()
        async with trio.open_nursery() as nursery:

            def begin_in_trio(function: Callable[..., Awaitable[None]], *arguments: Any) -> Callable[[], object]:
                cancelling = trio.CancelScope()

                async def run() -> None:
                    with cancelling:
                        await function(*arguments)

                nursery.start_soon(run)
                cancel: Callable[[], object] = cancelling.cancel
                return cancel

            yield begin_in_trio
    else:
        import asyncio

        async with asyncio.TaskGroup() as group:

            def begin(function: Callable[..., Any], *arguments: Any) -> Callable[[], object]:
                return group.create_task(function(*arguments)).cancel

            yield begin
