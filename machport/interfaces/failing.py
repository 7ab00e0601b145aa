"""Answers that say what went wrong: refusals of the server, and exceptions of its routines.

Nothing that the other side names is imported or looked up anywhere but among the builtin exceptions and those that the
interface declares.
"""

from __future__ import annotations

import builtins
import traceback
from typing import Any, Final

import msgspec

from machport.abi import constants as c
from machport.abi.errors import (
    BadArguments,
    MachError,
    RemoteError,
    ReplyMismatch,
    TimedOut,
    UnknownRoutine,
    VersionMismatch,
)
from machport.interfaces.definition import Interface, title

#: Characters of a text and of a traceback that travel, and bytes of an exception with its arguments.
_TEXT: Final = 10_000
_TRACEBACK: Final = 30_000
_SIZE: Final = 1 << 20

BUILTIN: Final[dict[str, type[Exception]]] = {
    name: kind
    for name, kind in vars(builtins).items()
    if isinstance(kind, type)
    and issubclass(kind, Exception)
    and kind.__name__ == name
    # They would end a loop of the caller's without a word.
    and not issubclass(kind, StopIteration | StopAsyncIteration)
}

_REFUSALS: Final[dict[int, type[MachError]]] = {
    c.MIG_TYPE_ERROR: BadArguments,
    c.MIG_BAD_ID: UnknownRoutine,
    c.KERN_OPERATION_TIMED_OUT: TimedOut,
}


class Failure(msgspec.Struct, array_like=True, omit_defaults=True):
    """An answer without a result.

    Attributes:
        code: MIG_REMOTE_ERROR if the routine raised, otherwise why it was not begun.
        text: what is wrong.
        server: name, major and minor of the server's interface.
        kind: the exception's class.
        arguments: the exception's; None if it does not travel as what it is, whatever it is called.
        state: attributes of an exception that the interface declares.
        trace: where it was raised.
    """

    code: int
    text: str
    server: tuple[str, int, int]
    kind: str = ""
    arguments: list[Any] | None = None
    state: dict[str, Any] = {}
    trace: str = ""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Failure).decode


def refusal(interface: Interface, code: int, text: str) -> bytes:
    """The answer to a request that is not begun."""
    return _encode(Failure(code, _sendable(text[:_TEXT]), (interface.name, *interface.version)))


def raised(interface: Interface, error: BaseException) -> bytes:
    """The answer for an exception of a routine."""
    kind = type(error)
    name = kind.__qualname__
    failure = Failure(
        c.MIG_REMOTE_ERROR,
        _sendable(_text_of(error)[:_TEXT]),
        (interface.name, *interface.version),
        _sendable(name[:_TEXT]),
        trace=_sendable(_where_raised(error)[-_TRACEBACK:]),
    )
    declared = name in interface.errors
    if _known(interface, name) is not kind:
        return _encode(failure)
    state = {key: value for key, value in vars(error).items() if not key.startswith("__")} if declared else {}
    try:
        answer = _encode(msgspec.structs.replace(failure, arguments=list(error.args), state=state))
        if len(answer) <= _SIZE:
            return answer
    except Exception:
        pass
    # Arguments that cannot travel; what they say does.
    return _encode(msgspec.structs.replace(failure, arguments=[failure.text]))


def error_of(interface: Interface, body: bytes, where: str) -> Exception:
    """The exception that an answer without a result is for the caller."""
    try:
        failure = _decode(body)
    except Exception as error:
        return ReplyMismatch(f"the answer is neither a result nor a failure: {error}", call=where)
    name, major, minor = failure.server
    if failure.code == c.MIG_REMOTE_ERROR:
        return _exception_of(interface, failure, where)
    if failure.code == c.MIG_BAD_ID and (name, major) != (interface.name, interface.version[0]):
        return mismatch(interface, failure.server, where)
    kind = _REFUSALS.get(failure.code)
    if kind is None:
        return ReplyMismatch(f"the answer has code {failure.code}, which no server gives", call=where)
    return kind(f"{failure.text} (the server has {title(name, major, minor)})", code=failure.code, call=where)


def mismatch(interface: Interface, server: tuple[str, int, int], where: str) -> VersionMismatch:
    return VersionMismatch(
        f"the server has {title(*server)}, and this caller has {interface.title}; the call was not begun", call=where
    )


def _exception_of(interface: Interface, failure: Failure, where: str) -> Exception:
    error = _same_class(interface, failure)
    if error is None:
        error = RemoteError(f"{failure.kind}: {failure.text}", call=where)
        error.type_name, error.text, error.traceback = failure.kind, failure.text, failure.trace
    error.add_note(f"Raised by the server of {interface.name}:\n{failure.trace}")
    return error


def _same_class(interface: Interface, failure: Failure) -> Exception | None:
    kind = _known(interface, failure.kind)
    if kind is None or failure.arguments is None:
        return None
    try:
        if failure.kind not in interface.errors:
            return kind(*failure.arguments)
        # Its constructor may take other arguments than it gives to its base.
        error = kind.__new__(kind, *failure.arguments)
        error.args = tuple(failure.arguments)
        vars(error).update({key: value for key, value in failure.state.items() if not key.startswith("__")})
    except Exception:
        return None
    return error


def _known(interface: Interface, name: str) -> type[Exception] | None:
    """The class that travels under a name."""
    return interface.errors.get(name) or BUILTIN.get(name)


def _where_raised(error: BaseException) -> str:
    # The first frame is this package's.
    trace = error.__traceback__
    return "".join(traceback.format_exception(type(error), error, trace and (trace.tb_next or trace)))


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return ""


def _sendable(text: str) -> str:
    """Text that MessagePack can have, and not more of it than is useful."""
    return text.encode("utf-8", "replace").decode()
