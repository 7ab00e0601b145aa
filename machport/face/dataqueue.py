"""Data queues as a task has them: an end travels like a right, a port is notified, and loops of events are not held up.

``machport.dataqueue`` does the rest, and knows neither tasks nor rights.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
import weakref
from typing import TYPE_CHECKING, Any, Self

from machport import dataqueue
from machport.abi import constants as c
from machport.abi.errors import InvalidArgument, MachError, QueueEmpty, QueueEnded, QueueMisuse
from machport.dataqueue import custody, extension
from machport.dataqueue.end import NAMES
from machport.dataqueue.queue import close_in_order, fail
from machport.face import loops, pickling
from machport.face.rights import AnySendRight, Transfer, require
from machport.face.task import AnyTask


class DataQueue(dataqueue.DataQueue):
    __doc__ = dataqueue.DataQueue.__doc__

    def move_producer(self) -> DataQueueTransfer:
        """Let the producing end go into a message, or to a child of ``Task.spawn`` or ``multiprocessing``.

        A child gets a queue; who receives a message opens one with ``rights[0].open_data_queue()``.
        """
        return QueueTransfer(self, (extension.PRODUCER,))  # type: ignore[return-value]

    def move_consumer(self) -> DataQueueTransfer:
        """Let the consuming end go, as ``move_producer``."""
        return QueueTransfer(self, (extension.CONSUMER,))  # type: ignore[return-value]

    def set_notification_port(self, port: AnySendRight | None) -> None:
        """Producer: send an empty message to ``port`` whenever the consumer may have found the queue empty (Q27).

        The port should have a queue limit of 1, so that one message is pending at most, however many entries were added
        (Q30).  The right stays the caller's, who closes it; a dead port does not stop the queue (Q31).  None switches
        it off.  A consumer that sleeps in ``wait`` or a loop is woken without it.

        Raises:
            QueueMisuse: the producing end is not here.
        """
        name = c.MACH_PORT_NULL if port is None else require(AnySendRight, port, "port").name
        self.notify_by(None if port is None else Notifier(port).send)
        self.memory.set_notification_port(name)

    async def readable(self) -> None:
        """``wait`` while the loop goes on: until there is an entry.  Takes nothing."""
        while not self.wait(timeout=0):
            await self._until_readable(self.fileno())

    async def writable(self, size: int) -> None:
        """``wait_for_room`` while the loop goes on.  Writes nothing."""
        while not self.wait_for_room(size, timeout=0):
            await self._until_readable(self.room_fileno(size))

    async def _until_readable(self, descriptor: int) -> None:
        if descriptor in self._awaited:
            raise QueueMisuse("another coroutine waits at this end of the queue; an end is for one at a time")
        waiting = self._awaited[descriptor] = loops.readiness(descriptor)
        try:
            await waiting.wait()
        finally:
            if self._awaited.get(descriptor) is waiting:
                del self._awaited[descriptor]

    @functools.cached_property
    def _awaited(self) -> dict[int, loops.Readiness]:
        """Descriptors that coroutines wait for."""
        return {}

    def close(self) -> None:
        """Give up the ends that are here, and let the other one's holder know; what is in the ring stays for it."""
        self._end_waits(QueueMisuse("the queue was closed while a coroutine waited at it"))
        super().close()

    def abandon(self) -> None:
        """Give up the ends that are here because of an error: to the other side that is no orderly end."""
        self._end_waits(QueueMisuse("the queue was abandoned while a coroutine waited at it"))
        super().abandon()

    def let_go(self, roles: tuple[int, ...]) -> None:
        """The ends have left: another process has them, or nobody."""
        # Whoever waits looks again: at an end that is still here, or it is told that it is not.
        self._end_waits(None)
        super().let_go(roles)

    def _end_waits(self, error: QueueMisuse | None) -> None:
        """Wake the coroutines that wait, while their descriptors are there."""
        while self._awaited:
            self._awaited.popitem()[1].end(error)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> memoryview:
        """As ``__next__``, while the loop goes on; a cancelled step has taken nothing.

        A loop that always finds an entry gives way to others every millisecond.
        """
        if time.monotonic_ns() - self._gave_way > _TURN:
            await self._give_way()
        while True:
            try:
                try:
                    self._step = self.take_view(timeout=0)
                    return self._step
                except QueueEmpty:
                    await self.readable()
                    self._gave_way = time.monotonic_ns()
            except QueueEnded as error:
                if type(error) is QueueEnded:
                    raise StopAsyncIteration from None
                raise

    #: When the event loop had its last turn.
    _gave_way = 0

    async def _give_way(self) -> None:
        await loops.give_way()
        self._gave_way = time.monotonic_ns()


_NO_QUEUE = (
    "it is an end on its way, and becomes a queue where it arrives; children that are forked get no ends, so let"
    " multiprocessing start them by spawn or forkserver, or use Task.spawn"
)
#: Nanoseconds for which a loop over entries may keep the event loop.
_TURN = 1_000_000
#: In the place of the right that stands for an end, until its task is known.
_NOT_YET: Any = None


class Notifier:
    """Sends the notification of a queue."""

    def __init__(self, port: AnySendRight) -> None:
        self._port = port

    def send(self) -> bool:
        """Whether a message was queued; False if one is pending already, or the port is gone."""
        try:
            port, copy = self._port, c.MACH_MSG_TYPE_COPY_SEND
            port.task.send(port.name, copy, b"", 0, (), (), None, 0)
        except MachError:
            return False
        return True


class QueueTransfer(Transfer):
    """An end of a queue on its way out of this process: what ``move_producer`` and ``move_consumer`` give."""

    __slots__ = ("_roles", "queue")

    brings_queue = True
    #: Whether pickles for processes can have ends of queues yet.
    taught = False

    def __init__(self, queue: DataQueue, roles: tuple[int, ...]) -> None:
        self.queue = queue
        self._roles = roles
        self.disposition = c.MACH_MSG_TYPE_MOVE_SEND
        self.right = _NOT_YET
        self.ticket: Any = None
        if not QueueTransfer.taught:
            QueueTransfer.taught = pickling.teach(QueueTransfer, _reduce)

    def prepare(self, task: AnyTask) -> None:
        if self.right is not None:
            raise InvalidArgument(f"{self!r} is on its way already, or twice in one message", task=task.label)
        descriptor = self.queue.pack(self._roles)
        try:
            self.right = task.fileport(descriptor)
        except BaseException:
            self.queue.keep(self._roles)
            raise
        finally:
            os.close(descriptor)

    def done(self) -> None:
        if self.right is not None:
            self.right.gone("moved away")
            self.queue.let_go(self._roles)
            self.right = _NOT_YET

    def drop(self) -> None:
        """The message was not sent: the end would have gone with it, and is given up."""
        if self.right is not None:
            self.right.close()
            self.queue.let_go(self._roles)
            self.right = _NOT_YET

    def returned(self, name: int) -> None:
        super().returned(name)
        self.undo()

    def undo(self) -> None:
        right, self.right = self.right, _NOT_YET
        if right is not None:
            self.queue.keep(self._roles)
            with contextlib.suppress(MachError):
                right.close()

    def __del__(self) -> None:
        self.undo()

    def leave_with(self, process: Any) -> Any:
        """Let the end go with a process that ``multiprocessing`` starts: what is pickled for it."""
        from multiprocessing.reduction import DupFd

        descriptor = self.queue.pack(self._roles)
        custody.keep_until(descriptor, _Started(process))
        travels = DupFd(descriptor)
        self.queue.let_go(self._roles)
        return travels

    def recall(self) -> None:
        raise InvalidArgument(f"{self!r} does not come back once it is pickled; it is lost if nobody takes it")

    def __reduce__(self) -> Any:
        raise InvalidArgument(
            "an end of a data queue travels in a message, or in what spawn or multiprocessing pickles for a process,"
            " and in no other pickle" + ("" if self.taught else "; import multiprocessing before move_producer()")
        )

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{self!r} has no {name!r}: {_NO_QUEUE}")

    def __iter__(self) -> Any:
        raise QueueMisuse(f"{self!r} has no entries: {_NO_QUEUE}")

    def __repr__(self) -> str:
        return f"<move of the {' and '.join(NAMES[role] for role in self._roles)} of {self.queue!r}>"


if TYPE_CHECKING:

    class DataQueueTransfer(QueueTransfer, DataQueue):
        """To type checkers it is also a queue, as the transfer of a right is a right."""


class _Started:
    """Whether a process of ``multiprocessing`` has its own copy of what it inherits, or never will."""

    def __init__(self, popen: Any) -> None:
        self._popen = weakref.ref(popen)

    def __call__(self) -> bool:
        popen = self._popen()
        return popen is None or hasattr(popen, "pid")


def _reduce(transfer: QueueTransfer) -> Any:
    """How an end is pickled for a process: as its right, or for one that ``multiprocessing`` starts as a descriptor.

    A descriptor needs no daemon; and the end is lost with the process, if that dies before it has taken it.
    """
    process = pickling.process_that_starts()
    if process is None or pickling.carrier_of_thread() is not None:
        return _open, pickling.carry(transfer)
    return _claim, (transfer.leave_with(process),)


def _open(make: Any, arguments: tuple[Any, ...]) -> DataQueue:
    right: AnySendRight = make(*arguments)
    return right.open_data_queue()


def _claim(travels: Any) -> DataQueue:
    queue = DataQueue.from_fd(travels.detach())
    _tell_how_this_child_ends()
    return queue


@functools.cache
def _tell_how_this_child_ends() -> None:
    """Let the ends that are here see whether the child of ``multiprocessing`` that this is fails.

    It comes before the child runs, as its arguments do.  A finalizer would not do: from Python 3.13 on these run when
    ``multiprocessing`` has forgotten the error.
    """
    from multiprocessing.process import BaseProcess

    bootstrap = BaseProcess._bootstrap  # type: ignore[attr-defined]

    def bootstrap_and_close(self: BaseProcess, *arguments: Any, **options: Any) -> int:
        exitcode: int = bootstrap(self, *arguments, **options)
        if exitcode:
            fail()
        close_in_order()
        return exitcode

    BaseProcess._bootstrap = bootstrap_and_close  # type: ignore[attr-defined]
