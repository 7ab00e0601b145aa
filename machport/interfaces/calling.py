"""The caller's side: an object whose methods are the routines of a port's interface."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from machport.abi.errors import DeadPort, InvalidInterface, ServerDied
from machport.face.blocking import SendRight
from machport.face.rights import AnySendRight, require
from machport.interfaces.body import Packed, Unfit
from machport.interfaces.deadlines import checked_seconds, end_of_call, time_left
from machport.interfaces.definition import Interface, Routine, check_face, interface_of
from machport.interfaces.naming import DESCRIBE, REPLY
from machport.interfaces.results import answered, check_description

if TYPE_CHECKING:
    from machport import aio

_Interface = TypeVar("_Interface")

#: Attribute of a proxy.
_LINK = "_machport_link"
_PROXY = "__machport_proxy__"


def proxy(
    interface: Callable[..., _Interface], right: SendRight | aio.SendRight, *, timeout: float | None = None
) -> _Interface:
    """An object whose methods call the server of a port.

    With a right of ``machport.aio`` the interface's routines are coroutines, and so are the methods.

    The first call asks which interface the server has, and so does the first after a ``ServerDied``.  The right stays
    the caller's.

    Args:
        interface: the class that describes the calls.
        timeout: seconds that each call may take; None for as long as it takes.

    Raises:
        InvalidInterface: the class describes no interface that is called in this way.

    The methods raise, besides what their routines raise:
        BadArguments: arguments do not fit the hints; the routine was not begun.
        ServerDied: the server is dead, died with the request, or dropped it.
        TimedOut: there was no answer in time.
        RemoteError: the routine raised something that does not travel as it is.
        VersionMismatch, UnknownRoutine: the server has another interface; the routine was not begun.
        ReplyMismatch: the answer is none of this routine.
    """
    read = interface_of(interface)
    awaits = type(right).__module__ == "machport.aio.rights"
    check_face(read, awaits, "right")
    seconds = None if timeout is None else checked_seconds(timeout)
    require(AnySendRight, right, "right")
    link: Any
    if awaits:
        from machport.interfaces.awaited import Link

        link = Link(read, cast("aio.SendRight", right), seconds)
    else:
        link = _Link(read, require(SendRight, right, "right"), seconds)
    made: object = object.__new__(_proxy_class(read))
    setattr(made, _LINK, link)
    return cast(_Interface, made)


class _Link:
    """Where the calls of a proxy go."""

    __slots__ = ("call", "checked", "interface", "right", "timeout")

    def __init__(self, interface: Interface, right: SendRight, timeout: float | None) -> None:
        self.interface = interface
        self.right = right
        self.call = right.call
        self.timeout = timeout
        self.checked = False

    def check(self, end: int | None) -> None:
        """Ask the server what it is.

        Raises:
            VersionMismatch: something else.
        """
        name = self.interface.name
        check_description(self.interface, self.call(b"\x91\xc0", id=DESCRIBE, timeout=time_left(end, name)))
        self.checked = True


def _proxy_class(read: Interface) -> type:
    """The class of proxies of an interface, which is made once."""
    made = vars(read.described).get(_PROXY)
    if made is None:
        methods = {name: _method(read, routine) for name, routine in read.routines.items()}
        namespace = {
            **methods,
            "__repr__": _shown,
            "__module__": read.described.__module__,
            "__doc__": read.described.__doc__,
        }
        try:
            made = type(read.described)(f"{read.described.__name__}Proxy", (read.described,), namespace)
            object.__new__(made)
        except TypeError as error:
            raise InvalidInterface(f"there can be no proxy of {read.name}: {error}") from None
        setattr(read.described, _PROXY, made)
    return cast(type, made)


def _shown(self: object) -> str:
    link = getattr(self, _LINK)
    return f"<proxy of {link.interface.title} by {link.right!r}>"


def _method(interface: Interface, routine: Routine) -> Callable[..., Any]:
    """The method of a proxy for one routine."""
    # Looked up once, because each costs as much as the rest of some steps.
    request, answer, bind, where, number = routine.request, routine.answer, routine.bind, routine.where, routine.id
    count = routine.positional if not routine.keywords else -1
    pack_plain, unpack_plain = request.pack_plain, answer.unpack_plain
    result_id = number + REPLY

    def called(self: Any, /, *arguments: Any, **keywords: Any) -> Any:
        if keywords or len(arguments) != count:
            arguments = bind(arguments, keywords)
        link: _Link = self._machport_link
        end = end_of_call(link.timeout)
        try:
            packed = Packed(pack_plain(end, arguments)) if not request.carries else request.pack(end, arguments)
        except Unfit as error:
            raise routine.bad_arguments(str(error)) from None
        try:
            if not link.checked:
                link.check(end)
            message = link.call(
                packed.body, id=number, rights=packed.rights, memory=packed.memory, timeout=time_left(end, where)
            )
        except ServerDied:
            link.checked = False
            raise
        return answered(interface, message, number, answer, where)[0]

    def called_plainly(self: Any, /, *arguments: Any, **keywords: Any) -> Any:
        # The same as above for what most routines are: nothing goes beside the bodies.
        if keywords or len(arguments) != count:
            arguments = bind(arguments, keywords)
        link: _Link = self._machport_link
        end = end_of_call(link.timeout)
        try:
            body = pack_plain(end, arguments)
        except Unfit as error:
            raise routine.bad_arguments(str(error)) from None
        try:
            if not link.checked:
                link.check(end)
            message = link.call(body, id=number, timeout=time_left(end, where))
        except ServerDied:
            link.checked = False
            raise
        if message.id == result_id:
            try:
                code, result = unpack_plain(message)
                if code == 0:
                    return result
            except Unfit:
                pass
        return answered(interface, message, number, answer, where)[0]

    def sent(self: Any, /, *arguments: Any, **keywords: Any) -> None:
        if keywords or len(arguments) != count:
            arguments = bind(arguments, keywords)
        link: _Link = self._machport_link
        end = end_of_call(link.timeout)
        try:
            packed = request.pack(end, arguments)
        except Unfit as error:
            raise routine.bad_arguments(str(error)) from None
        if not link.checked:
            link.check(end)
        timeout = time_left(end, where)
        try:
            link.right.send(packed.body, id=number, rights=packed.rights, memory=packed.memory, timeout=timeout)
        except DeadPort:
            # Another server may be there the next time.
            link.checked = False
            raise

    if routine.oneway:
        method: Callable[..., Any] = sent
    else:
        method = called if request.carries or answer.carries else called_plainly
    if routine.coroutine:
        from machport.interfaces import awaited

        method = awaited.method(interface, routine)
    method.__name__ = routine.name
    method.__qualname__ = routine.function.__qualname__
    method.__doc__ = routine.function.__doc__
    method.__module__ = routine.function.__module__
    method.__signature__ = routine.signature  # type: ignore[attr-defined]
    return method
