"""What an answer brings to the caller: a result, or what went wrong."""

from __future__ import annotations

from typing import Any, Final

from machport.abi.errors import ReplyMismatch
from machport.face.message import Message
from machport.interfaces.body import RESULT, Body, Unfit
from machport.interfaces.definition import Interface
from machport.interfaces.failing import error_of, mismatch
from machport.interfaces.naming import DESCRIBE, REPLY

#: What a server says of itself: name, major, minor.
DESCRIPTION: Final = Body([tuple[str, int, int]])


def answered(interface: Interface, answer: Message, number: int, body: Body, where: str) -> tuple[Any, ...]:
    """What an answer brings to the caller; its rights are the caller's.

    Raises:
        Exception: the routine's, or why it was not begun.
        ReplyMismatch: it is no answer of this routine.
    """
    try:
        if answer.id != number + REPLY:
            raise ReplyMismatch(f"the answer has id {answer.id} instead of {number + REPLY}", call=where)
        data = answer.body
        if data[:2] != RESULT:
            raise error_of(interface, data, where)
        try:
            if body.carries:
                return body.unpack(answer)[0][1:]
            return body.unpack_plain(answer)[1:]
        except Unfit as error:
            raise ReplyMismatch(f"the answer does not fit the routine: {error}", call=where) from None
    except BaseException:
        answer.close()
        raise


def check_description(interface: Interface, answer: Message) -> None:
    """Compare what a server says of itself.

    Raises:
        VersionMismatch: it is something else.
    """
    server = answered(interface, answer, DESCRIBE, DESCRIPTION, interface.name)[0]
    if server[:2] != (interface.name, interface.version[0]):
        raise mismatch(interface, server, interface.name)
