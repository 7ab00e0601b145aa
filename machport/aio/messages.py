"""Messages to and from the ports of a task, while its event loop goes on.

What is to be received is waited for, and then taken in a step without any await; so is what can be sent at once.  So a
coroutine that is cancelled has taken nothing, and has sent its message whole or has it back.
"""

from __future__ import annotations

import contextlib
import inspect
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence, Sized
from typing import TYPE_CHECKING, Final, TypeVar

from machport.abi import constants as c
from machport.abi import message as layout
from machport.abi.errors import MachError, TimedOut
from machport.abi.traps import MsgAnswer, MsgTrap, new_msg
from machport.aio.pending import Pending
from machport.face.deaths import failure, server_died
from machport.face.loops import give_way
from machport.face.message import Message, SendOnceNotification, received_message
from machport.face.rights import AnyReceiveRight, AnySendRight, SendOnceRight, Transfer, require
from machport.face.task import RCV_LIMIT, RECEIVE_FAILED, TRAILER, Body, milliseconds

if TYPE_CHECKING:
    from machport.aio.task import Task

_T = TypeVar("_T")
#: Calls of one ``send_many`` that are under way at a time.
_WINDOW: Final = 64
#: Bytes of a message that certainly goes by the ring, as those before it and behind it.
_SHORT: Final = 4096
#: Nanoseconds for which a coroutine that never has to wait may keep the loop.
_TURN: Final = 1_000_000


async def send(
    task: Task,
    name: int,
    body: Body,
    id: int,
    rights: Sequence[Transfer],
    memory: Sequence[bytes],
    reply_to: AnyReceiveRight | None,
    timeout: float | None,
) -> None:
    """Send to the send right under ``name``."""
    calls = task.loop_calls()
    reply_name = c.MACH_PORT_NULL if reply_to is None else require(AnyReceiveRight, reply_to, "reply_to").name_in(task)
    timeout_ms = milliseconds(timeout)
    await _take_turns(task)
    trap = task._pack(name, c.MACH_MSG_TYPE_COPY_SEND, reply_name, body, id, rights, memory)
    trap.option |= c.MACH_SEND_TIMEOUT
    answer = task._carry(trap, rights)
    if answer.code == c.MACH_SEND_TIMED_OUT and timeout_ms | (timeout is None) and answer.buffer is not None:
        trap.again(answer.buffer, answer.memory)
        if timeout is None:
            trap.option &= ~c.MACH_SEND_TIMEOUT
        trap.timeout_ms = timeout_ms
        under_way = _UnderWay(task, rights, "send", name)
        with under_way.begin():
            pending = calls.begin(trap, under_way.unclaimed)
        answer = await under_way.finish(calls.finish(pending))
        task._gave_way = time.monotonic_ns()
    if answer.code or len(rights):
        task._settle(answer, rights, "send", name)


async def send_many(task: Task, name: int, bodies: Iterable[Body], id: int) -> int:
    """Send many to the send right under ``name``, one behind the other."""
    calls = task.loop_calls()
    traps = [task._pack(name, c.MACH_MSG_TYPE_COPY_SEND, c.MACH_PORT_NULL, body, id, (), ()) for body in bodies]
    under_way: deque[Pending] = deque()
    sent, refusal = 0, 0

    def note(answer: MsgAnswer) -> None:
        nonlocal sent, refusal
        sent += not answer.code
        refusal = refusal or answer.code
        if answer.buffer is not None:
            with contextlib.suppress(MachError):
                task._take_back(answer, ())

    try:
        at, last = 0, None
        while at < len(traps) or under_way:
            # A long one goes another way: alone, so that it neither overtakes nor is overtaken.
            while at < len(traps) and _may_follow(traps[at], under_way, last):
                last = traps[at]
                under_way.append(calls.begin(last, note))
                at += 1
            first = under_way[0]
            await calls.wait(first, None)
            under_way.popleft()
            if first.error is not None:
                raise first.error
            assert first.answer is not None
            note(first.answer)
    except BaseException:
        # The last one first, so that none is sent whose predecessor comes back.
        while under_way:
            calls.leave(under_way.pop())
        raise
    if refusal:
        raise failure(task, refusal, f"{sent} messages were sent, and not all", call="send_many", name=name)
    return sent


def _may_follow(trap: MsgTrap, under_way: Sized, last: MsgTrap | None) -> bool:
    """Whether a message of many may be sent before those under way are."""
    if not len(under_way) or last is None:
        return True
    return len(under_way) < _WINDOW and max(trap.size(), last.size()) <= _SHORT


async def call(
    task: Task,
    name: int,
    body: Body,
    id: int,
    rights: Sequence[Transfer],
    memory: Sequence[bytes],
    timeout: float | None,
) -> Message:
    """Send a request to the send right under ``name`` and receive its answer, by one call."""
    calls = task.loop_calls()
    timeout_ms = milliseconds(timeout)
    reply_port = task._take_reply_port()
    try:
        trap = task._pack(name, c.MACH_MSG_TYPE_COPY_SEND, reply_port, body, id, rights, memory)
    except BaseException:
        task._keep_reply_port(reply_port)
        raise
    trap.option |= c.MACH_RCV_MSG | TRAILER
    trap.rcv_limit = RCV_LIMIT
    trap.rcv_name = reply_port
    if timeout is not None:
        trap.option |= c.MACH_SEND_TIMEOUT | c.MACH_RCV_TIMEOUT
        trap.timeout_ms = timeout_ms
    under_way = _UnderWay(task, rights, "call", name, reply_port)
    with under_way.begin():
        pending = calls.begin(trap, under_way.unclaimed)
    answer = await under_way.finish(calls.finish(pending))
    try:
        if answer.code == c.MACH_SEND_INVALID_DEST:
            for transfer in rights:
                transfer.undo()
            raise server_died(task, name, answer.code, rule=answer.rule)
        if answer.code or len(rights):
            task._settle(answer, rights, "call", name)
        assert answer.buffer is not None
        message = received_message(task, answer.buffer, answer.memory)
        if isinstance(message, SendOnceNotification):
            raise server_died(task, name, c.MIG_SERVER_DIED, reply_port)
        return message
    finally:
        # What is asked about it is asked before.
        under_way.free_reply_port(answer)


async def receive(task: Task, name: int, timeout: float | None) -> Message:
    """Receive from the receive right or port set under ``name``."""
    calls = task.loop_calls()
    option = c.MACH_RCV_MSG | c.MACH_RCV_TIMEOUT | TRAILER

    def look() -> MsgAnswer | None:
        answer = calls.at_once(new_msg(option, b"", RCV_LIMIT, name))
        return None if answer.code == c.MACH_RCV_TIMED_OUT else answer

    return task._received(await _when_there(task, name, timeout, look), name)


async def receive_many(task: Task, name: int, limit: int, timeout: float | None) -> list[Message]:
    """Wait for a message at the receive right or port set under ``name``; up to ``limit`` that are there then."""

    def look() -> list[Message] | None:
        try:
            return task.receive_many(name, limit, 0)
        except TimedOut:
            return None

    return await _when_there(task, name, timeout, look)


async def reply_and_receive(
    task: Task,
    reply: SendOnceRight | AnySendRight | None,
    body: Body,
    id: int,
    rights: Sequence[Transfer],
    memory: Sequence[bytes],
    name: int,
    timeout: float | None,
) -> Message:
    """Send an answer, and receive from the right under ``name``; one call sends it and waits."""
    calls = task.loop_calls()
    timeout_ms = milliseconds(timeout)
    end = _end(timeout)
    if reply is None:
        task._pack(c.MACH_PORT_DEAD, c.MACH_MSG_TYPE_MOVE_SEND_ONCE, c.MACH_PORT_NULL, body, id, rights, memory)
        for transfer in rights:
            transfer.drop()
        return await receive(task, name, timeout)
    reply_name = reply.name
    trap = task._pack(reply_name, reply.reply_disposition, c.MACH_PORT_NULL, body, id, rights, memory)
    trap.option |= c.MACH_RCV_MSG | c.MACH_RCV_LARGE | TRAILER
    trap.rcv_name = name
    if timeout is not None:
        trap.option |= c.MACH_RCV_TIMEOUT
        trap.timeout_ms = timeout_ms
    answering = _Answering(task, rights, reply, reply_name)
    with answering.begin():
        pending = calls.begin(trap, answering.unclaimed)
    answer = await answering.finish(calls.finish(pending))
    task._gave_way = time.monotonic_ns()
    if answer.code == c.MACH_SEND_INVALID_DEST:
        answering.drop()
        return await receive(task, name, _left(end))
    answering.settle(answer)
    if answer.code != c.MACH_RCV_TOO_LARGE:
        raise failure(task, answer.code, call="receive", name=name, rule=answer.rule)
    return await receive(task, name, _left(end))


async def awaited(value: _T | Awaitable[_T]) -> _T:
    """What a handler gave, whether it is a coroutine or an ordinary function."""
    return await value if inspect.isawaitable(value) else value  # pyright: ignore[reportReturnType]


# Waiting


async def _when_there(task: Task, name: int, timeout: float | None, look: Callable[[], _T | None]) -> _T:
    """What ``look`` finds, as soon as a message is there that nobody else has taken."""
    calls = task.loop_calls()
    timeout_ms = milliseconds(timeout)
    end = _end(timeout)
    await _take_turns(task)
    while True:
        found = look()
        if found is not None:
            return found
        option = c.MACH_RCV_MSG | c.MACH_RCV_LARGE | TRAILER
        if end is not None:
            timeout_ms = milliseconds(_left(end))
            option |= c.MACH_RCV_TIMEOUT
        answer = await calls.finish(calls.begin(new_msg(option, b"", 0, name, timeout_ms)))
        task._gave_way = time.monotonic_ns()
        if answer.code != c.MACH_RCV_TOO_LARGE:
            raise failure(task, answer.code, call="receive", name=name, rule=answer.rule)


async def _take_turns(task: Task) -> None:
    """Let the others of the loop have a turn, if none of the task's coroutines has waited for a while."""
    now = time.monotonic_ns()
    if now - task._gave_way > _TURN:
        await give_way()
        task._gave_way = time.monotonic_ns()


def _end(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout


def _left(end: float | None) -> float | None:
    return None if end is None else max(0.0, end - time.monotonic())


# Rights on their way


class _UnderWay:
    """A message that is being sent, and the rights in it, which are not to be used meanwhile."""

    def __init__(self, task: Task, rights: Sequence[Transfer], call: str, name: int, reply_port: int = 0) -> None:
        self._task = task
        self._rights = rights
        self._call = call
        self._name = name
        self._reply_port = reply_port

    @contextlib.contextmanager
    def begin(self):  # type: ignore[no-untyped-def]
        """Within the block the call is begun; if that fails nothing was sent."""
        try:
            yield
        except BaseException:
            self._not_begun()
            raise
        for transfer in self._rights:
            if transfer.moves:
                transfer.right._gone = "sent"

    def _not_begun(self) -> None:
        for transfer in self._rights:
            transfer.undo()
        if self._reply_port:
            self._task._drop_reply_port(self._reply_port)

    async def finish(self, answer: Awaitable[MsgAnswer]) -> MsgAnswer:
        """Wait for the answer, after which the rights are what it says."""
        try:
            done = await answer
        except MachError:
            # The channel ended: the message went, or was destroyed with the rights in it.
            self._arrive()
            for transfer in self._rights:
                transfer.done()
            if self._reply_port:
                self._task._drop_reply_port(self._reply_port)
            raise
        self._arrive()
        return done

    def _arrive(self) -> None:
        for transfer in self._rights:
            if transfer.moves:
                transfer.right._gone = ""

    def free_reply_port(self, answer: MsgAnswer) -> None:
        """An answer came to the port, which can be used again; or what may still come is thrown away with it."""
        if answer.code:
            self._task._drop_reply_port(self._reply_port)
        else:
            self._task._keep_reply_port(self._reply_port)

    def unclaimed(self, answer: MsgAnswer) -> None:
        """Whoever waited was cancelled: the message came back, or was sent, and what was received goes."""
        self._arrive()
        with contextlib.suppress(MachError):
            if answer.code or len(self._rights):
                self._task._settle(answer, self._rights, self._call, self._name)
        if self._reply_port:
            if answer.buffer is not None and not answer.code:
                with contextlib.suppress(MachError):
                    received_message(self._task, answer.buffer, answer.memory).close()
            self.free_reply_port(answer)


class _Answering(_UnderWay):
    """An answer that is being sent before its sender waits for the next request."""

    def __init__(
        self, task: Task, rights: Sequence[Transfer], reply: SendOnceRight | AnySendRight, reply_name: int
    ) -> None:
        super().__init__(task, rights, "reply", reply_name)
        self._reply = reply

    @contextlib.contextmanager
    def begin(self):  # type: ignore[no-untyped-def]
        with super().begin():
            yield
        self._reply._gone = "used"

    def drop(self) -> None:
        """Nobody waits for it: it goes with the rights in it."""
        self._reply._gone = ""
        with contextlib.suppress(MachError):
            self._reply.close()
        for transfer in self._rights:
            transfer.drop()

    def settle(self, answer: MsgAnswer) -> None:
        """What became of the rights; raise why the answer was not sent, if it was not."""
        if not answer.code or answer.code & RECEIVE_FAILED:
            for transfer in self._rights:
                transfer.done()
            return
        if answer.buffer is not None:
            # It waited for room and came back, with the right that it was to go by.
            self._reply._name = layout.parse(answer.buffer).remote
            for transfer, descriptor in zip(self._rights, layout.parse(answer.buffer).descriptors, strict=False):
                transfer.returned(descriptor.name)
            self._reply._gone = ""
            raise failure(self._task, answer.code, call="reply", name=self._name, rule=answer.rule)
        if answer.code != c.MACH_SEND_INVALID_RIGHT:
            # A body that fails takes the right that it was to go by along (M8).
            self._reply._gone = ""
        self._task._settle(answer, self._rights, "reply", self._name)

    def unclaimed(self, answer: MsgAnswer) -> None:
        self._arrive()
        with contextlib.suppress(MachError):
            if answer.code == c.MACH_SEND_INVALID_DEST:
                self.drop()
            else:
                self.settle(answer)
