"""Which message belongs to which routine.

A message id comes from everything that two sides must agree on, so that a request which waits while its server is
replaced is either understood or refused, and never taken for another.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any, Final

#: Ids below are the system's: its notifications are 64 to 77.
_FIRST: Final = 0x1000
#: An id has 31 bits, and its answer's, which is greater by ``REPLY``, too.
_LAST: Final = 0x7FFFFFFF
#: What an answer's id is greater than its request's, as MIG has it.
REPLY: Final = 100


def message_id(*parts: str) -> int:
    """The id of requests that these parts denote together."""
    digest = blake2b("\n".join(parts).encode(), digest_size=8, person=b"machport").digest()
    return _FIRST + int.from_bytes(digest, "little") % (_LAST - REPLY - _FIRST)


#: By this every interface, of whatever version, is asked what it is.
DESCRIBE: Final = message_id("describe the interface of this port")


def spelled(hint: Any) -> str:
    """A type hint as text: the same in every process, whatever module its classes are in there."""
    if hint is None or hint is types.NoneType:
        return "None"
    if hint is ...:
        return "..."
    if isinstance(hint, list):
        return f"[{_joined(hint)}]"
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return f"Annotated[{spelled(arguments[0])}, {', '.join(map(repr, arguments[1:]))}]"
    if origin is typing.Literal:
        return f"Literal[{', '.join(map(repr, arguments))}]"
    if origin in (typing.Union, types.UnionType):
        return " | ".join(sorted(map(spelled, arguments)))
    if origin is not None:
        return f"{spelled(origin)}[{_joined(arguments)}]"
    if isinstance(hint, type):
        return hint.__qualname__
    if hasattr(hint, "__value__"):
        return spelled(hint.__value__)
    if hasattr(hint, "__supertype__"):
        return spelled(hint.__supertype__)
    return str(hint)


def _joined(hints: Iterable[Any]) -> str:
    return ", ".join(map(spelled, hints))
