"""Bodies of requests and answers: what is written, read and checked, without any I/O.

A body is a MessagePack array: of a request its deadline and its arguments, of an answer a code and the result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import inspect

from machport.abi import message as layout
from machport.abi.errors import InvalidInterface, MachError
from machport.face.message import Message
from machport.interfaces import carrying

#: What an answer with a result begins with: an array of two, and code 0.
RESULT: Final = b"\x92\x00"
#: Types whose values need no second look before they are sent: what is encoded is decoded by the same hint.
_EXACT: Final = (bool, int, float, str, bytes, type(None))

#: Bytes that a body has room for in a message.
LONGEST: Final = layout.MAX_SIZE - 64 * 1024

Head = int | None


class Unfit(Exception):
    """A value, or a body from outside, that does not fit the hints; the text says where."""


class Packed(NamedTuple):
    """A body and what goes beside it."""

    body: bytes
    rights: Sequence[Any] = ()
    memory: Sequence[Any] = ()


class Body:
    """The form of one body.

    Attributes:
        carries: whether anything may go beside it.
        waiting: kinds of right in the hints whose calls wait.
    """

    def __init__(self, hints: Sequence[Any]) -> None:
        """Of a head, an integer or None, and one value for each hint.

        Raises:
            InvalidInterface: MessagePack has no form for a hint.
        """
        found = _Found()
        for hint in hints:
            found.look_at(hint)
        self.carries = found.carried
        self.waiting = frozenset(found.waiting)
        self._count = len(hints)
        #: Values that are memory themselves, and whether each may be None.
        self._regions = {at + 1: optional for at, hint in enumerate(hints) for optional in _region(hint)}
        types = [Head, *hints]
        for at in self._regions:
            self.carries = True
            types[at] = Any
        #: Views of memory within other values look into the message.
        self._views = found.views
        self._exact = tuple(types[1:]) if all(hint in _EXACT for hint in types[1:]) else None
        hooks: dict[str, Any] = {}
        if self.carries:
            hooks = {"dec_hook": carrying.decode_hook, "ext_hook": carrying.extension_hook}
        else:
            hooks = {"ext_hook": _no_extension}
        form: Any = tuple[tuple(types)]  # type: ignore[misc]
        self._encode: Callable[[Any], bytes] = msgspec.msgpack.Encoder(
            enc_hook=carrying.encode_hook if self.carries else _no_object
        ).encode
        self._decode: Callable[[Any], tuple[Any, ...]] = msgspec.msgpack.Decoder(form, **hooks).decode

    def pack(self, head: Head, values: Sequence[Any]) -> Packed:
        """Write a body.

        Raises:
            Unfit: a value is not of the type that its hint says.
            InvalidArgument: a right, or a data queue, was given as it is.
        """
        if not self.carries:
            return Packed(self.pack_plain(head, values))
        sent = carrying.Sent()
        try:
            if self._regions:
                values = [
                    sent.place_region(value) if at in self._regions and value is not None else value
                    for at, value in enumerate(values, 1)
                ]
            body = carrying.encoding_into(sent, self._encode, (head, *values))
            self._read(body, sent)
        except MachError:
            raise
        except Exception as error:
            raise Unfit(str(error)) from None
        return Packed(body, sent.rights, sent.memory)

    def pack_plain(self, head: Head, values: Sequence[Any]) -> bytes:
        """The same, if nothing goes beside it."""
        try:
            body = self._encode((head, *values))
            if tuple(map(type, values)) != self._exact:
                # What the other side would say to it.
                self._decode(body)
        except MachError:
            raise
        except Exception as error:
            raise Unfit(str(error)) from None
        return body

    def unpack_plain(self, message: Message) -> tuple[Any, ...]:
        """Head and values of a message beside whose body nothing may go.

        Raises:
            Unfit: the body is something else, or there is something beside it.
        """
        if message.rights or message.memory:
            raise Unfit("the message carries rights or memory that no argument names")
        try:
            return self._decode(message.view if self._views else message.body)
        except Exception as error:
            raise Unfit(str(error)) from None

    def unpack(self, message: Message) -> tuple[tuple[Any, ...], carrying.Received]:
        """Head and values of a message, and what came beside the body, which is the caller's now.

        Raises:
            Unfit: the body is something else, or does not name just what is beside it; all of that is the message's.
        """
        received = carrying.Received(message)
        try:
            values = self._read(message.view if self._views else message.body, received)
        except BaseException as error:
            received.give_up()
            if isinstance(error, Exception):
                raise Unfit(str(error)) from None
            raise
        received.keep()
        return values, received

    def _read(self, body: bytes | memoryview, carried: carrying.Carried) -> tuple[Any, ...]:
        values: tuple[Any, ...] = carrying.decoding_from(carried, self._decode, body)
        if self._regions:
            values = tuple(
                carried.take_region(value)
                if at in self._regions and not (value is None and self._regions[at])
                else value
                for at, value in enumerate(values)
            )
        carried.finish()
        return values


class _Found:
    """What is within hints."""

    def __init__(self) -> None:
        self.carried = False
        self.waiting: set[type] = set()
        self.views = False
        self._seen: set[int] = set()
        self._kept: list[object] = []

    def look_at(self, hint: Any) -> None:
        if _region(hint):
            return
        try:
            # With a decoder made for it: some hints are refused only then.
            msgspec.msgpack.Decoder(hint, dec_hook=carrying.decode_hook)
            self._walk(inspect.type_info(hint))
        except (TypeError, ValueError, NameError) as error:
            if isinstance(error, MachError):
                raise
            raise InvalidInterface(f"values of this type cannot go into a message: {error}") from None

    def _walk(self, thing: object) -> None:
        if id(thing) in self._seen:
            return
        self._seen.add(id(thing))
        self._kept.append(thing)
        if isinstance(thing, inspect.CustomType):
            if not carrying.is_carried(thing.cls):
                raise InvalidInterface(
                    f"values of class {thing.cls.__name__} cannot go into a message; make it a dataclass, or a "
                    "msgspec.Struct"
                )
            self.carried = True
            if carrying.waits(thing.cls):
                self.waiting.add(thing.cls)
        elif isinstance(thing, inspect.MemoryViewType):
            self.views = True
        elif isinstance(thing, inspect.Type | inspect.Field):
            for name in thing.__struct_fields__:
                self._walk(getattr(thing, name))
        elif isinstance(thing, tuple):
            for part in thing:
                self._walk(part)


def _region(hint: Any) -> tuple[bool, ...]:
    """Whether a hint says that the value itself is memory, or may be None instead; nothing if it is another hint."""
    if hint is memoryview:
        return (False,)
    return (True,) if hint == memoryview | None else ()


def _no_object(thing: object) -> Any:
    raise TypeError(f"no hint takes an object of type `{type(thing).__name__}`")


def _no_extension(code: int, data: memoryview) -> Any:
    raise ValueError("there is a right or memory where no hint takes one")
