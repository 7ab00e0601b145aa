"""Calls and their outcomes as messages: a pickle, inline or if it is long out of line, and rights beside it."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from machport.face import pickling
from machport.face.blocking import Task
from machport.face.message import Message
from machport.face.rights import Transfer
from machport.pool.errors import RemoteTraceback

#: Ids of messages: to a worker; from one in answer; and from one on its own account.
CALL: Final = 1
RESULT: Final = 101
EXCEPTION: Final = 102
READY: Final = 201
FAILED: Final = 202
#: Bytes of a pickle that goes inline, which are more than it costs to send them by themselves.
_INLINE_MAX: Final = 1 << 20


class Packed(NamedTuple):
    """The contents of a message."""

    id: int
    data: bytes
    rights: Sequence[Transfer]

    @property
    def body(self) -> bytes:
        return self.data if len(self.data) <= _INLINE_MAX else b""

    @property
    def memory(self) -> Sequence[bytes]:
        return () if len(self.data) <= _INLINE_MAX else (self.data,)

    def undo(self) -> None:
        """It was not sent: what was to go stays here."""
        for transfer in self.rights:
            transfer.undo()


def pack(task: Task, id: int, thing: object) -> Packed:
    """Something for a message of ``task``.

    Raises:
        Exception: it, or what is in it, cannot be pickled.
    """
    return Packed(id, *pickling.dumps(task, thing))


def pack_exception(task: Task, error: BaseException) -> Packed:
    """An exception with the text of its traceback; if it cannot be pickled, the one that says so, with both texts."""
    text = "".join(traceback.format_exception(error))
    try:
        return pack(task, EXCEPTION, (error, text))
    except Exception as unpicklable:
        text += "\n" + "".join(traceback.format_exception_only(unpicklable))
        return pack(task, EXCEPTION, (TypeError(f"an exception cannot be pickled: {error!r}"), text))


def unpack(message: Message) -> Any:
    """What was packed; its rights are taken out of the message.

    Raises:
        Exception: it cannot be unpickled.
    """
    return pickling.loads(message.memory[0] if message.memory else message.view, message.rights)


def unpack_exception(message: Message) -> BaseException:
    """The exception that was packed, with where it was raised as its cause; if it cannot be unpickled, the reason."""
    try:
        error, text = unpack(message)
    except Exception as unreadable:
        return unreadable
    if not isinstance(error, BaseException):
        return TypeError(f"an exception came back as {error!r}")
    error.__cause__ = RemoteTraceback(text)
    return error
