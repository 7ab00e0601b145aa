"""Tasks and rights whose calls wait as calls do: the thread that makes one stands still until it is answered."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from machport.abi import constants as c
from machport.abi.errors import ClosedRight, DeadPort, InvalidArgument, InvalidName
from machport.client.process import process_task
from machport.face.message import AnyPortDestroyedNotification, DeadNameNotification, Message, NoSendersNotification
from machport.face.rights import AnyPortSet, AnyReceiver, AnyReceiveRight, AnySendRight, Transfer
from machport.face.task import AnyTask

if TYPE_CHECKING:
    from machport.face.watching import Attendant


class SendRight(AnySendRight):
    """The right to send any number of messages to a port."""

    __slots__ = ()

    if TYPE_CHECKING:
        task: Task

        def move(self) -> SendTransfer: ...
        def copy(self) -> SendTransfer: ...

    def send(
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

        If a signal handler raises meanwhile, the message has been sent, or is destroyed with the rights in it.

        Args:
            body: inline data of any length.
            rights: what goes along, each as ``right.move()`` or ``right.copy()``.
            memory: larger regions that go out of line.
            reply_to: a port of this task; the message carries a send-once right to it.
            timeout: seconds to wait for room in the queue, None for as long as it takes.

        Raises:
            DeadPort: the port is dead.
            TimedOut: the queue stayed full; the rights are back.
        """
        disposition = c.MACH_MSG_TYPE_COPY_SEND
        self.task.send(self.name, disposition, body, id, rights, memory, reply_to, timeout)

    def dead(self, timeout: float | None = None) -> DeadNameNotification:
        """Wait for the death of the port.

        Raises:
            TimedOut: it lives after ``timeout`` seconds.
            ClosedRight: the right was given up meanwhile.
        """
        with self.on_dead_name() as watch:
            return watch.wait(timeout)  # type: ignore[no-any-return]

    def send_many(self, bodies: Iterable[bytes | bytearray | memoryview], *, id: int = 0) -> int:
        """Send many messages without waiting for one before the next goes; how many, once each was sent.

        They arrive in their order, and wait for room in the queue as those of ``send`` do.  Every result is looked at.
        If another thread interrupts the sending of a long one that waits for room, that message may come behind the
        others.

        Raises:
            DeadPort: the port is dead, or died; the text says how many messages were sent.
            InvalidArgument, MessageTooLarge: one of them cannot be sent, and none was.
        """
        return self.task.send_many(self.name, bodies, id)

    def call(
        self,
        body: bytes | bytearray | memoryview = b"",
        *,
        id: int = 0,
        rights: Sequence[Transfer] = (),
        memory: Sequence[bytes] = (),
        timeout: float | None = None,
    ) -> Message:
        """Send a request and wait for its one answer.

        Args:
            timeout: seconds to wait for room in the queue, and again for the answer.

        Raises:
            ServerDied: the server is dead, died with the request, or dropped it.
            TimedOut: no room, or no answer, in time; an answer that comes later is thrown away.
        """
        return self.task.call(self.name, c.MACH_MSG_TYPE_COPY_SEND, body, id, rights, memory, timeout)


class Receiving(AnyReceiver):
    """Receiving from a receive right or a port set."""

    __slots__ = ()

    if TYPE_CHECKING:
        task: Task

    def receive(self, timeout: float | None = None) -> Message:
        """The next message or notification.

        Args:
            timeout: seconds to wait; 0 only looks, None waits for as long as it takes.

        Raises:
            TimedOut: nothing came.
            DeadPort: the right was destroyed or moved away meanwhile.
        """
        return self.task.receive(self.name, timeout)

    def receive_many(self, limit: int = 64, timeout: float | None = None) -> list[Message]:
        """Wait for a message, and take up to ``limit`` that are there then, in their order; 1,024 at most.

        Raises:
            TimedOut, DeadPort: as ``receive``; nothing was taken.
        """
        if limit < 1:
            raise InvalidArgument(f"a limit is 1 or more, not {limit}", task=self.task.label)
        return self.task.receive_many(self.name, limit, timeout)

    def reply_and_receive(
        self,
        request: Message,
        body: bytes | bytearray | memoryview = b"",
        *,
        id: int | None = None,
        rights: Sequence[Transfer] = (),
        memory: Sequence[bytes] = (),
        timeout: float | None = None,
    ) -> Message:
        """Answer ``request`` and receive the next message, in one trap: what a server's loop does fastest.

        If whoever asked does not wait any more, the answer and the rights in it are dropped, which is no error here.

        Args:
            timeout: seconds to wait for the next message.

        Raises:
            InvalidArgument, ClosedRight: as ``Message.reply``; nothing was received.
            TimedOut, DeadPort: as ``receive``; the answer was sent.
        """
        name = self.name
        number = (request.id + 100) & 0xFFFFFFFF if id is None else id
        reply = request.open_reply_right()
        return self.task.reply_and_receive(reply, body, number, rights, memory, name, timeout)

    def serve(self, answer: Callable[[Message], bytes | bytearray | memoryview | None]) -> None:
        """Answer every message with what ``answer(message)`` returns, until the right is closed or moved away.

        It does what ``for request in port:`` does with ``with request: request.reply(answer(request))`` in it, in one
        trap a request, and goes on when whoever asked is gone.  So a message that an answer is returned for is closed:
        to keep a right that came along, set its place in ``rights`` to None.  What is returned for one that nobody
        waits for, such as a notification, is not sent.

        A message that None is returned for stays ``answer``'s: it has replied, or will, or closes it.  What ``answer``
        raises ends the serving, and its message is closed, so whoever asked learns that no answer comes.

        Raises:
            ClosedRight: the right was closed before; or a message was answered, or closed, and then an answer returned.
        """
        self._check_there()
        request = self._receive_first()
        while request is not None:
            try:
                body = answer(request)
            except BaseException:
                request.close()
                raise
            request = self._receive_next() if body is None else self._finish(request, body)

    def _finish(self, request: Message, body: bytes | bytearray | memoryview) -> Message | None:
        """Answer a request, give up what is left of it, and receive the next; None if the right is gone."""
        try:
            if request.reply_right is None:
                request.close()
                return self._receive_next()
            # Before it waits: who watches these rights shall not wait for the next request.
            request.close_rights()
            try:
                return self.reply_and_receive(request, body)
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

    # Where None is the answer the right is gone, and be it since a moment ago by another thread's doing.

    def _receive_first(self) -> Message | None:
        try:
            return self.receive()
        except DeadPort:
            return None
        except (ClosedRight, InvalidName):
            if self.closed:
                return None
            raise

    def _receive_next(self) -> Message | None:
        try:
            return self.receive()
        except (DeadPort, ClosedRight, InvalidName):
            return None

    def __iter__(self) -> Iterator[Message]:
        """Messages until the right is closed or moved away."""
        message = None if self.closed else self._receive_first()
        while message is not None:
            yield message
            message = self._receive_next()


class ReceiveRight(Receiving, AnyReceiveRight):
    """The one right to receive a port's messages, and to make rights to send them."""

    __slots__ = ()

    if TYPE_CHECKING:
        task: Task

        def move(self) -> ReceiveTransfer: ...
        def make_send(self) -> SendRight: ...

    def no_senders(self, *, sync: int = 0, timeout: float | None = None) -> NoSendersNotification:
        """Wait until nobody has a send right to the port; see ``request_no_senders`` for ``sync``.

        Raises:
            TimedOut: somebody has one after ``timeout`` seconds.
            ClosedRight: the receive right was given up or moved meanwhile.
        """
        with self.on_no_senders(sync=sync) as watch:
            return watch.wait(timeout)  # type: ignore[no-any-return]


class PortSet(Receiving, AnyPortSet):
    """Receive rights of one task that are received from together, in the order in which messages arrive."""

    __slots__ = ()

    if TYPE_CHECKING:

        def members(self) -> list[ReceiveRight]: ...


if TYPE_CHECKING:
    # As SendOnceTransfer: a right that is on its way.
    from machport.face.rights import RightTransfer

    class SendTransfer(RightTransfer, SendRight):  # type: ignore[misc]
        right: SendRight

    class ReceiveTransfer(RightTransfer, ReceiveRight):  # type: ignore[misc]
        right: ReceiveRight


class PortDestroyedNotification(AnyPortDestroyedNotification):
    """The receive right that would have been destroyed, with its queue and its senders."""

    __slots__ = ()

    if TYPE_CHECKING:

        @property
        def right(self) -> ReceiveRight: ...


class Task(AnyTask):
    __doc__ = AnyTask.__doc__

    send_kind = SendRight
    receive_kind = ReceiveRight
    set_kind = PortSet
    port_destroyed_kind = PortDestroyedNotification
    reply_timeout = None

    def __init__(self, *, label: str | None = None, path: Path | str | None = None) -> None:
        # Said here because what is compiled does not show its arguments.
        super().__init__(label=label, path=path)

    @staticmethod
    def of_process() -> Task:
        """The task of this process, in this form."""
        return task_self()

    def new_attendant(self) -> Attendant:
        """A thread receives for the watches of this task."""
        from machport.face.watching import ThreadAttendant

        return ThreadAttendant(self)

    if TYPE_CHECKING:

        def allocate(self, *, qlimit: int | None = None, label: str = "") -> ReceiveRight: ...
        def allocate_many(self, count: int) -> list[ReceiveRight]: ...
        def port_set(self, *ports: AnyReceiveRight) -> PortSet: ...
        @property
        def bootstrap(self) -> SendRight | None: ...
        def look_up(self, service_name: str) -> SendRight: ...
        def task_for_pid(self, pid: int) -> SendRight: ...
        def check_in(self, service_name: str) -> ReceiveRight: ...


def task_self() -> Task:
    """The task of this process: in a spawned child the one its parent made, otherwise one joined at first use."""
    global _self
    played = process_task.played
    if isinstance(played, Task):
        return played
    connection = process_task.connection
    if _self is None or _self._carrier is not connection:
        _self = Task.__new__(Task)
        _self._attach(connection)
        # It is the process's, and ends with it.
        _self._connection = None
    return _self


_self: Task | None = None
