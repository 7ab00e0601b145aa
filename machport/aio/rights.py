"""Rights whose calls wait as coroutines do: while they wait the event loop goes on."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from machport.abi.errors import ClosedRight, DeadPort, InvalidArgument, InvalidName
from machport.aio import messages
from machport.face.message import AnyPortDestroyedNotification, DeadNameNotification, Message, NoSendersNotification
from machport.face.rights import AnyPortSet, AnyReceiver, AnyReceiveRight, AnySendRight, Transfer

if TYPE_CHECKING:
    from machport.aio.task import Task


class SendRight(AnySendRight):
    """The right to send any number of messages to a port."""

    __slots__ = ()

    if TYPE_CHECKING:
        task: Task

        def move(self) -> SendTransfer: ...
        def copy(self) -> SendTransfer: ...

    async def send(
        self,
        body: bytes | bytearray | memoryview = b"",
        *,
        id: int = 0,
        rights: Sequence[Transfer] = (),
        memory: Sequence[bytes] = (),
        reply_to: ReceiveRight | None = None,
        timeout: float | None = None,
    ) -> None:
        """Send a message; waits while the port's queue is full.

        If it is cancelled meanwhile, the message has been sent whole, or has come back whole: then its rights are
        there, under the objects that were moved.  While it waits they are not there.

        Args, Raises: as those of ``machport.SendRight.send``.
        """
        await messages.send(self.task, self.name, body, id, rights, memory, reply_to, timeout)

    async def dead(self, timeout: float | None = None) -> DeadNameNotification:
        """Wait for the death of the port.

        Raises:
            TimedOut: it lives after ``timeout`` seconds.
            ClosedRight: the right was given up meanwhile.
        """
        with self.on_dead_name() as watch:
            return await self.task.attendant.result(watch, timeout)  # type: ignore[no-any-return]

    async def send_many(self, bodies: Iterable[bytes | bytearray | memoryview], *, id: int = 0) -> int:
        """Send many messages without waiting for one before the next goes; how many, once each was sent.

        They arrive in their order, and wait for room in the queue as those of ``send`` do.  If it is cancelled, the
        first of them have been sent, up to one, and those behind it have not.

        Raises: as ``machport.SendRight.send_many``.
        """
        return await messages.send_many(self.task, self.name, bodies, id)

    async def call(
        self,
        body: bytes | bytearray | memoryview = b"",
        *,
        id: int = 0,
        rights: Sequence[Transfer] = (),
        memory: Sequence[bytes] = (),
        timeout: float | None = None,
    ) -> Message:
        """Send a request and wait for its one answer.

        If it is cancelled while the port's queue is full, the request has come back whole, and its rights are there
        again; otherwise it was sent, and its answer is thrown away when it comes, with the rights in it.

        Args, Raises: as those of ``machport.SendRight.call``.
        """
        return await messages.call(self.task, self.name, body, id, rights, memory, timeout)


class Receiving(AnyReceiver):
    """Receiving from a receive right or a port set."""

    __slots__ = ()

    if TYPE_CHECKING:
        task: Task

    async def receive(self, timeout: float | None = None) -> Message:
        """The next message or notification.  If it is cancelled it has taken nothing.

        Args, Raises: as those of ``machport.ReceiveRight.receive``.
        """
        return await messages.receive(self.task, self.name, timeout)

    async def receive_many(self, limit: int = 64, timeout: float | None = None) -> list[Message]:
        """Wait for a message, and take up to ``limit`` that are there then, in their order; 1,024 at most.

        If it is cancelled it has taken nothing.

        Raises:
            TimedOut, DeadPort: as ``receive``; nothing was taken.
        """
        if limit < 1:
            raise InvalidArgument(f"a limit is 1 or more, not {limit}", task=self.task.label)
        return await messages.receive_many(self.task, self.name, limit, timeout)

    async def reply_and_receive(
        self,
        request: Message,
        body: bytes | bytearray | memoryview = b"",
        *,
        id: int | None = None,
        rights: Sequence[Transfer] = (),
        memory: Sequence[bytes] = (),
        timeout: float | None = None,
    ) -> Message:
        """Answer ``request`` and receive the next message: what a server's loop does fastest.

        If it is cancelled, the answer was sent and nothing was received; only where the answer goes by a send right to
        a port whose queue is full it may have come back, and ``request.expects_reply`` is true.

        Args, Raises: as those of ``machport.ReceiveRight.reply_and_receive``.
        """
        name = self.name
        number = (request.id + 100) & 0xFFFFFFFF if id is None else id
        reply = request.open_reply_right()
        return await messages.reply_and_receive(self.task, reply, body, number, rights, memory, name, timeout)

    async def serve(
        self,
        answer: Callable[
            [Message],
            bytes | bytearray | memoryview | Awaitable[bytes | bytearray | memoryview | None] | None,
        ],
    ) -> None:
        """Answer every message with what ``answer(message)`` returns, until the right is closed or moved away.

        ``answer`` may be an ordinary function or a coroutine function; one request is answered after the other.  For
        the rest it is as ``machport.ReceiveRight.serve``.  If it is cancelled while ``answer`` runs, its message is
        closed, so whoever asked learns that no answer comes.

        Raises:
            ClosedRight: the right was closed before; or a message was answered, or closed, and then an answer returned.
        """
        self._check_there()
        request = await self._receive_first()
        while request is not None:
            try:
                body = await messages.awaited(answer(request))
            except BaseException:
                request.close()
                raise
            request = await (self._receive_next() if body is None else self._finish(request, body))

    async def _finish(self, request: Message, body: bytes | bytearray | memoryview) -> Message | None:
        """Answer a request, give up what is left of it, and receive the next; None if the right is gone."""
        try:
            if request.reply_right is None:
                request.close()
                return await self._receive_next()
            # Before it waits: who watches these rights shall not wait for the next request.
            request.close_rights()
            try:
                return await self.reply_and_receive(request, body)
            except (DeadPort, InvalidName):
                return None
            except ClosedRight:
                if not self.closed:
                    raise
            with contextlib.suppress(DeadPort):
                request.reply(body)
            return None
        except BaseException:
            request.close()
            raise

    # Where None is the answer the right is gone, and be it since a moment ago by another coroutine's doing.

    async def _receive_first(self) -> Message | None:
        try:
            return await self.receive()
        except DeadPort:
            return None
        except (ClosedRight, InvalidName):
            if self.closed:
                return None
            raise

    async def _receive_next(self) -> Message | None:
        try:
            return await self.receive()
        except (DeadPort, ClosedRight, InvalidName):
            return None

    def __aiter__(self) -> AsyncIterator[Message]:
        """Messages until the right is closed or moved away; a step that is cancelled has taken nothing."""
        return _Messages(self)


class _Messages:
    """The steps of ``async for message in port``."""

    def __init__(self, port: Receiving) -> None:
        self._port = port
        self._receive = port._receive_first

    def __aiter__(self) -> AsyncIterator[Message]:
        return self

    async def __anext__(self) -> Message:
        message = None if self._port.closed else await self._receive()
        if message is None:
            raise StopAsyncIteration
        self._receive = self._port._receive_next
        return message


class ReceiveRight(Receiving, AnyReceiveRight):
    """The one right to receive a port's messages, and to make rights to send them."""

    __slots__ = ()

    if TYPE_CHECKING:
        task: Task

        def move(self) -> ReceiveTransfer: ...
        def make_send(self) -> SendRight: ...

    async def no_senders(self, *, sync: int = 0, timeout: float | None = None) -> NoSendersNotification:
        """Wait until nobody has a send right to the port; see ``request_no_senders`` for ``sync``.

        Raises:
            TimedOut: somebody has one after ``timeout`` seconds.
            ClosedRight: the receive right was given up or moved meanwhile.
        """
        with self.on_no_senders(sync=sync) as watch:
            return await self.task.attendant.result(watch, timeout)  # type: ignore[no-any-return]


if TYPE_CHECKING:
    # As those of machport: a right that is on its way.
    from machport.face.rights import RightTransfer

    class SendTransfer(RightTransfer, SendRight):  # type: ignore[misc]
        right: SendRight

    class ReceiveTransfer(RightTransfer, ReceiveRight):  # type: ignore[misc]
        right: ReceiveRight


class PortSet(Receiving, AnyPortSet):
    """Receive rights of one task that are received from together, in the order in which messages arrive."""

    __slots__ = ()

    if TYPE_CHECKING:

        def members(self) -> list[ReceiveRight]: ...


class PortDestroyedNotification(AnyPortDestroyedNotification):
    """The receive right that would have been destroyed, with its queue and its senders."""

    __slots__ = ()

    if TYPE_CHECKING:

        @property
        def right(self) -> ReceiveRight: ...
