"""The server's side: a loop that lets an object carry out the requests of a port."""

from __future__ import annotations

import contextlib
import inspect
import logging
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, overload

from machport.abi import constants as c
from machport.abi.errors import DeadPort, InvalidInterface, MachError
from machport.face.blocking import ReceiveRight
from machport.face.message import Message, NoSendersNotification
from machport.face.rights import AnyReceiveRight, SendOnceRight, require
from machport.interfaces.body import LONGEST, Body, Packed, Unfit
from machport.interfaces.carrying import Received
from machport.interfaces.deadlines import Call, scope
from machport.interfaces.definition import Interface, Routine, check_face, interface_of
from machport.interfaces.failing import raised, refusal
from machport.interfaces.naming import DESCRIBE

if TYPE_CHECKING:
    from machport import aio

log = logging.getLogger("machport.interface")

_Handler = Callable[[Message], bytes | None]


@overload
def serve(interface: type, implementation: object, port: ReceiveRight, *, until_no_senders: bool = False) -> None: ...
@overload
def serve(
    interface: type,
    implementation: object,
    port: aio.ReceiveRight,
    *,
    until_no_senders: bool = False,
    concurrency: int = 100,
) -> Coroutine[Any, Any, None]: ...
def serve(
    interface: type, implementation: object, port: Any, *, until_no_senders: bool = False, concurrency: int = 100
) -> Coroutine[Any, Any, None] | None:
    """Let an object carry out the requests that come to a port, one after the other.

    It ends when the port is closed or moved away, when a routine has asked for it by ``current_call().stop()``, and
    when nobody can call any more if that is asked for.

    Rights and data queues among the arguments are the implementation's, unless its method raises: then they are given
    up, as is everything in a request that is refused.

    With a port of ``machport.aio`` it is awaited, the methods are coroutines, and up to ``concurrency`` run at a time.
    One whose caller has given up or died is cancelled, and none outlives the serving: what has begun when it ends is
    finished, or cancelled with it.

    Args:
        interface: the class that describes the calls.
        implementation: an object with these methods.
        until_no_senders: end when the last send right that was made is gone; it takes the place of any other request
            for a no-senders notification of this port.

    Raises:
        InvalidInterface: the class describes no interface, or the object lacks methods, or has others.
        ClosedRight: the right was closed before.
    """
    read = interface_of(interface)
    require(AnyReceiveRight, port, "port")
    awaits = type(port).__module__ == "machport.aio.rights"
    check_face(read, awaits, "port")
    if awaits:
        from machport.interfaces.concurrent import Service

        return Service(read, implementation, port, concurrency).serve(until_no_senders)
    service = _Service(read, implementation, require(ReceiveRight, port, "port"))
    if until_no_senders:
        service.watch_senders()
    with contextlib.suppress(_Stopped):
        port.serve(service.answer)
    return None


class _Stopped(BaseException):
    """The loop is to end; everything was answered."""


class _Service:
    """An object that serves a port.

    A body is returned to the loop, which answers with it and receives the next request in one trap.
    """

    def __init__(self, interface: Interface, implementation: object, port: ReceiveRight) -> None:
        self._interface = interface
        self._port = port
        self._watches = False
        self._stopping = False
        self._handlers: dict[int, _Handler] = {DESCRIBE: self._describe}
        for routine in interface.routines.values():
            method = checked_method(interface, routine, implementation)
            self._handlers[routine.id] = self._handler(routine, method)
        self._description = Body([tuple[str, int, int]]).pack_plain(0, ((interface.name, *interface.version),))

    def answer(self, message: Message) -> bytes | None:
        """What the loop does with a message."""
        handler = self._handlers.get(message.id)
        answer = self._refuse_id(message) if handler is None else handler(message)
        if self._stopping:
            if answer is not None and message.expects_reply:
                with contextlib.suppress(DeadPort):
                    message.reply(answer)
            message.close()
            raise _Stopped
        return answer

    def stop(self) -> None:
        self._stopping = True

    def watch_senders(self) -> None:
        """Let the port have a message when its last send right has gone, if one was made."""
        self._watches = True
        before = self._port.request_no_senders(self._port, sync=1)
        if before is not None:
            before.close()

    def _describe(self, message: Message) -> bytes | None:
        return self._description if waits(message) else _ignored(message)

    def _refuse_id(self, message: Message) -> bytes | None:
        if self._watches and isinstance(message, NoSendersNotification):
            if message.count >= self._port.status().mscount:
                self.stop()
            else:
                self.watch_senders()
            return _ignored(message)
        if not waits(message):
            return _ignored(message)
        return refusal(self._interface, c.MIG_BAD_ID, f"there is no such routine there, id {message.id}")

    def _handler(self, routine: Routine, method: Callable[..., Any]) -> _Handler:
        """What is done with the requests for one routine."""
        if routine.keywords:
            method = _by_keyword(method, routine.positional, routine.keywords)
        if routine.oneway:
            return self._handler_of_oneway(routine, method)
        if routine.request.carries or routine.answer.carries:
            return self._handler_that_carries(routine, method)
        interface, stop = self._interface, self.stop
        unpack, pack = routine.request.unpack_plain, routine.answer.pack_plain
        set_scope, reset_scope, now = scope.set, scope.reset, time.monotonic_ns

        def handle(message: Message) -> bytes | None:
            if type(message.reply_right) is not SendOnceRight:
                return _ignored(message)
            try:
                values = unpack(message)
            except Unfit as error:
                return refusal(interface, c.MIG_TYPE_ERROR, f"{routine.where}: {routine.located(str(error))}")
            end = values[0]
            if end is not None and now() >= end:
                return late(interface, routine)
            token = set_scope(Call(end, message, stop))
            try:
                result = method(*values[1:])
            except Exception as error:
                return raised(interface, error)
            finally:
                reset_scope(token)
            try:
                body = pack(0, (result,))
                return body if len(body) <= LONGEST else too_long(interface, routine, len(body))
            except Unfit as error:
                return unfit_result(interface, routine, error)

        return handle

    def _handler_that_carries(self, routine: Routine, method: Callable[..., Any]) -> _Handler:
        interface = self._interface

        def handle(message: Message) -> bytes | None:
            if not waits(message):
                return _ignored(message)
            try:
                values, received = opened(routine, message)
            except Unfit as error:
                return refusal(interface, c.MIG_TYPE_ERROR, f"{routine.where}: {routine.located(str(error))}")
            if values[0] is not None and time.monotonic_ns() >= values[0]:
                received.give_up()
                return late(interface, routine)
            token = scope.set(Call(values[0], message, self.stop))
            try:
                result = method(*values[1:])
            except BaseException as error:
                received.give_up()
                if isinstance(error, Exception):
                    return raised(interface, error)
                raise
            finally:
                scope.reset(token)
            try:
                packed = routine.answer.pack(0, (result,))
                if packed.rights or packed.memory:
                    reply(message, packed)
                    return None
                if len(packed.body) > LONGEST:
                    return too_long(interface, routine, len(packed.body))
                return packed.body
            except (Unfit, MachError) as error:
                return unfit_result(interface, routine, error)

        return handle

    def _handler_of_oneway(self, routine: Routine, method: Callable[..., Any]) -> _Handler:
        def handle(message: Message) -> None:
            with message:
                try:
                    values, received = opened(routine, message)
                except Unfit as error:
                    log.warning("%s, one-way, was not begun: %s", routine.where, routine.located(str(error)))
                    return
                if values[0] is not None and time.monotonic_ns() >= values[0]:
                    received.give_up()
                    log.warning("%s, one-way, was not begun: its time was over", routine.where)
                    return
                token = scope.set(Call(values[0], message, self.stop))
                try:
                    result = method(*values[1:])
                    if result is not None:
                        log.warning("%s, one-way, returned %.100r, which goes nowhere", routine.where, result)
                except BaseException as error:
                    received.give_up()
                    if not isinstance(error, Exception):
                        raise
                    log.exception("%s, one-way, raised", routine.where)
                finally:
                    scope.reset(token)

        return handle


def opened(routine: Routine, message: Message) -> tuple[tuple[Any, ...], Received]:
    """Deadline and arguments of a request."""
    return routine.request.unpack(message)


def reply(message: Message, packed: Packed) -> None:
    """Answer with rights or memory; they go with the answer, be it that nobody waits for it any more."""
    try:
        message.reply(packed.body, rights=packed.rights, memory=packed.memory)
    except DeadPort:
        for transfer in packed.rights:
            transfer.prepare(message.task)
            transfer.drop()
    message.close()


def waits(message: Message) -> bool:
    """Whether somebody waits for an answer, as callers do: by a right that no full queue can hold up."""
    return type(message.reply_right) is SendOnceRight


def _ignored(message: Message) -> bytes | None:
    message.close()
    return None


def late(interface: Interface, routine: Routine) -> bytes:
    return refusal(interface, c.KERN_OPERATION_TIMED_OUT, "it was not begun: its time was over")


def too_long(interface: Interface, routine: Routine, size: int) -> bytes:
    says = f"{size} bytes are more than a message's {LONGEST}; return a memoryview, or a data queue"
    return unfit_result(interface, routine, Unfit(says))


def unfit_result(interface: Interface, routine: Routine, error: Exception) -> bytes:
    """The answer if the result cannot be one; the caller can do nothing about it, so the server's log has it, too."""
    text = f"what {routine.where} returned does not fit its hint: {error}"
    log.error("%s", text)
    return raised(interface, InvalidInterface(text))


def checked_method(interface: Interface, routine: Routine, implementation: object) -> Callable[..., Any]:
    """The method of an implementation that carries out a routine.

    Raises:
        InvalidInterface: there is none, or it takes other arguments.
    """
    where = f"{type(implementation).__name__}.{routine.name}"
    method: Callable[..., Any] | None = getattr(implementation, routine.name, None)
    # A class may describe its own calls; in a subclass that has not its own method, the description is none.
    described = getattr(method, "__func__", None) is routine.function
    if method is None or not callable(method) or (described and type(implementation) is not interface.described):
        raise InvalidInterface(f"{where} is not there; {interface.name} has {routine.text}")
    if inspect.iscoroutinefunction(method) != routine.coroutine:
        kinds = ("a coroutine", "a function") if routine.coroutine else ("a function", "a coroutine")
        raise InvalidInterface(f"{where} must be {kinds[0]}, as in {interface.name}, and is {kinds[1]}")
    try:
        signature = inspect.signature(method)
        positional = [p.name for p in routine.parameters if p.name not in routine.keywords]
        bound = signature.bind(*positional, **{name: name for name in routine.keywords})
    except (TypeError, ValueError) as error:
        raise InvalidInterface(f"{where} cannot be called as {routine.text}: {error}") from None
    for name, value in bound.arguments.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.POSITIONAL_OR_KEYWORD and name != value:
            raise InvalidInterface(f"{where} calls {name} what {interface.name} calls {value}: {routine.text}")
    return method


def _by_keyword(method: Callable[..., Any], positional: int, keywords: tuple[str, ...]) -> Callable[..., Any]:
    """The method, called with all arguments by position."""
    return lambda *values: method(*values[:positional], **dict(zip(keywords, values[positional:], strict=True)))
