"""What goes beside the body of a message: rights, ends of data queues, and memory.

In the body stands a placeholder, a MessagePack extension that says where in ``message.rights`` or ``message.memory``
the thing is.  A placeholder from outside is not trusted: it must be of the kind that a hint asks for there, and each
right and each region is taken once, neither twice nor never.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import typing
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import msgspec
from msgspec.msgpack import Ext

from machport.abi.errors import InvalidArgument, MachError
from machport.face.blocking import ReceiveRight, SendRight
from machport.face.dataqueue import DataQueue, QueueTransfer
from machport.face.message import Message
from machport.face.rights import AnyReceiveRight, AnySendRight, DeadName, Right, SendOnceRight, Transfer

_RIGHT: Final = 1
_REGION: Final = 2
_ARRAY: Final = 3

#: Kinds of right that a hint may ask for; ``Right`` takes any, also a dead name.
RIGHTS: Final = (Right, SendRight, SendOnceRight, ReceiveRight)


_Place = TypeVar("_Place", bound="Place")


class Place(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """Where a right or a region is in its message."""

    index: int


class ArrayPlace(Place):
    """Where the elements of an array are, and what they are."""

    dtype: str
    shape: tuple[typing.Annotated[int, msgspec.Meta(ge=0)], ...]


_encode = msgspec.msgpack.Encoder().encode
_place = msgspec.msgpack.Decoder(Place)
_array_place = msgspec.msgpack.Decoder(ArrayPlace)


class Placeholder:
    """An extension that was read, before a hint has asked for it."""

    __slots__ = ("code", "data")

    def __init__(self, code: int, data: bytes) -> None:
        self.code = code
        self.data = data


def _read(decoder: msgspec.msgpack.Decoder[_Place], placeholder: Placeholder) -> _Place:
    try:
        return decoder.decode(placeholder.data)
    except ValueError:
        raise ValueError("a place beside the body that cannot be read") from None


class Carried:
    """What goes along with one message, of which the hints take each thing once.

    Attributes:
        rights: as the message has them.
        memory: as the message has it.
    """

    def __init__(self, rights: Sequence[Any], memory: Sequence[Any]) -> None:
        self.rights = rights
        self.memory = memory
        self._placeholders = 0
        self._rights_taken: dict[int, Any] = {}
        self._regions_taken: set[int] = set()

    def placeholder(self, code: int, data: memoryview) -> Placeholder:
        self._placeholders += 1
        return Placeholder(code, bytes(data))

    def take(self, hint: Any, placeholder: object) -> Any:
        """What a hint asks for.  Refusals are ValueErrors, to which the decoder adds where they happened."""
        if not isinstance(placeholder, Placeholder):
            raise ValueError(f"Expected `{_name(hint)}`, got `{type(placeholder).__name__}`")
        kind = typing.get_origin(hint) or hint
        if is_right(kind):
            return self._take_right(kind, placeholder)
        if kind is DataQueue:
            return self._take_queue(placeholder)
        return self._take_array(hint, placeholder)

    def take_region(self, placeholder: object) -> memoryview:
        """The region that an argument of type ``memoryview`` is."""
        if not isinstance(placeholder, Placeholder) or placeholder.code != _REGION:
            raise ValueError("Expected `memoryview`, out of line")
        return memoryview(self._region(_read(_place, placeholder).index))

    def finish(self) -> None:
        """Everything was read.

        Raises:
            ValueError: there is something that no hint took.
        """
        if self._placeholders != len(self._rights_taken) + len(self._regions_taken):
            raise ValueError("there is a right or memory where no hint takes one")
        if len(self._rights_taken) != len(self.rights) or len(self._regions_taken) != len(self.memory):
            raise ValueError("the message carries rights or memory that no argument names")

    def right(self, kind: type[Right], index: int) -> Any:
        """What the hint gets for the right at this place."""
        raise NotImplementedError

    def queue(self, index: int) -> DataQueue:
        """What the hint gets for the end of a data queue at this place."""
        raise NotImplementedError

    def _take_right(self, kind: type[Right], placeholder: Placeholder) -> Any:
        index = self._place_of_right(kind, placeholder)
        right = self._rights_taken[index] = self.right(kind, index)
        return right

    def _take_queue(self, placeholder: Placeholder) -> DataQueue:
        index = self._place_of_right(DataQueue, placeholder)
        queue = self._rights_taken[index] = self.queue(index)
        return queue

    def _place_of_right(self, kind: type, placeholder: Placeholder) -> int:
        if placeholder.code != _RIGHT:
            raise ValueError(f"Expected `{kind.__name__}`, got something else that goes beside the body")
        index = _read(_place, placeholder).index
        if not 0 <= index < len(self.rights):
            raise ValueError(f"there is no right {index} in the message")
        if index in self._rights_taken:
            raise ValueError(f"right {index} of the message is named twice")
        return index

    def _region(self, index: int) -> Any:
        if not 0 <= index < len(self.memory):
            raise ValueError(f"there is no memory {index} in the message")
        if index in self._regions_taken:
            raise ValueError(f"memory {index} of the message is named twice")
        self._regions_taken.add(index)
        return self.memory[index]

    def _take_array(self, hint: Any, placeholder: Placeholder) -> Any:
        numpy = sys.modules["numpy"]
        if placeholder.code != _ARRAY:
            raise ValueError(f"Expected `{_name(hint)}`, got something else that goes beside the body")
        place = _read(_array_place, placeholder)
        region = self._region(place.index)
        try:
            dtype = numpy.dtype(place.dtype)
            if dtype.hasobject:
                raise ValueError("its elements are objects")
            size = dtype.itemsize
            for length in place.shape:
                size *= length
            if size != len(region):
                raise ValueError(f"{len(region)} bytes are not {place.shape} of {dtype}")
            array = numpy.ndarray(place.shape, dtype, region)
        except Exception as error:
            raise ValueError(f"no array: {error}") from None
        wanted = element_type(hint)
        if wanted is not None and not issubclass(dtype.type, wanted):
            raise ValueError(f"Expected elements of type `{wanted.__name__}`, got `{dtype}`")
        return array


class Received(Carried):
    """What came with a message, whose rights become those of whoever takes them."""

    def __init__(self, message: Message) -> None:
        super().__init__(message.rights, message.memory)
        self._queues: list[DataQueue] = []

    def right(self, kind: type[Right], index: int) -> Any:
        right = self.rights[index]
        if not isinstance(right, kind):
            raise ValueError(_unfit(kind, right))
        return right

    def queue(self, index: int) -> DataQueue:
        right = self.rights[index]
        if not isinstance(right, AnySendRight):
            raise ValueError(_unfit(DataQueue, right))
        queue = right.open_data_queue()
        self._queues.append(queue)
        return queue

    def keep(self) -> None:
        """What was taken is not the message's any more, and stays when that is closed."""
        assert isinstance(self.rights, list)
        self._taken_rights = list(self.rights)
        self.rights[:] = [None] * len(self.rights)

    _taken_rights: Sequence[Right | None] = ()

    def give_up(self) -> None:
        """The call came to nothing: what was taken is given up, unless it was closed or has gone elsewhere."""
        for queue in self._queues:
            queue.abandon()
        for right in self._taken_rights:
            if right is not None:
                with contextlib.suppress(MachError):
                    right.close()


class Sent(Carried):
    """What goes with a message, collected while its body is written, and checked before it is sent."""

    def __init__(self) -> None:
        super().__init__([], [])

    def place(self, thing: object) -> Ext:
        """Put something beside the body; what stands for it there.

        Raises:
            TypeError: it cannot go.
        """
        if isinstance(thing, Transfer):
            self.rights.append(thing)  # type: ignore[attr-defined]
            return Ext(_RIGHT, _encode(Place(len(self.rights) - 1)))
        numpy = sys.modules.get("numpy")
        if numpy is not None and isinstance(thing, numpy.ndarray):
            return self._place_array(numpy, thing)
        if isinstance(thing, Right):
            ways = "right.move() or right.copy()" if isinstance(thing, AnySendRight) else "right.move()"
            raise InvalidArgument(f"{thing!r} cannot go into a message as it is; give {ways}")
        if isinstance(thing, DataQueue):
            raise InvalidArgument(
                f"{thing!r} cannot go into a message as it is; give queue.move_producer() or queue.move_consumer()"
            )
        raise TypeError(f"objects of type {type(thing).__name__} cannot go into a message")

    def place_region(self, thing: object) -> Ext:
        """The same for a buffer of bytes."""
        if not isinstance(thing, memoryview | bytes | bytearray):
            raise TypeError(f"expected `memoryview`, got `{type(thing).__name__}`")
        view = memoryview(thing)
        if not view.c_contiguous:
            raise TypeError("a memoryview goes into a message only if it is contiguous")
        self._append(view.cast("B") if view.nbytes else b"")
        return Ext(_REGION, _encode(Place(len(self.memory) - 1)))

    def _place_array(self, numpy: Any, array: Any) -> Ext:
        if array.dtype.hasobject or numpy.dtype(array.dtype.str) != array.dtype:
            raise TypeError(f"an array of {array.dtype} cannot go into a message")
        elements = numpy.ascontiguousarray(array).reshape(-1)
        self._append(memoryview(elements.view(numpy.uint8)) if elements.nbytes else b"")
        return Ext(_ARRAY, _encode(ArrayPlace(len(self.memory) - 1, array.dtype.str, array.shape)))

    def _append(self, region: Any) -> None:
        self.memory.append(region)  # type: ignore[attr-defined]

    def right(self, kind: type[Right], index: int) -> Any:
        transfer = self.rights[index]
        if isinstance(transfer, QueueTransfer) or not isinstance(transfer.right, _sent_as(kind)):
            raise ValueError(f"Expected `{kind.__name__}`, got {transfer!r}")
        right = transfer.right
        # What the decoder shall see in the place of a right that will be of this kind when it has arrived.
        if isinstance(right, kind):
            return right
        stand_in = kind(right.task, right.name)
        stand_in.gone("only looked at")
        return stand_in

    def queue(self, index: int) -> DataQueue:
        transfer = self.rights[index]
        if not isinstance(transfer, QueueTransfer):
            raise ValueError(f"Expected `DataQueue`, got {transfer!r}")
        return transfer.queue


def element_type(hint: Any) -> Any:
    """The type of elements that a hint for an array asks for; None if it asks for none."""
    arguments = typing.get_args(hint)
    elements = typing.get_args(arguments[1]) if len(arguments) == 2 else ()
    return elements[0] if elements and isinstance(elements[0], type) else None


def waits(kind: type) -> bool:
    """Whether a class is of rights whose calls wait, in one way or the other."""
    return issubclass(kind, AnySendRight | AnyReceiveRight)


def is_right(kind: type) -> bool:
    """Whether a class is a kind of right that a hint may ask for."""
    if kind in RIGHTS:
        return True
    aio = sys.modules.get("machport.aio")
    return aio is not None and kind in (aio.SendRight, aio.ReceiveRight)


def _sent_as(kind: type[Right]) -> type[Right]:
    """What becomes one of a kind where it arrives."""
    for base in (AnySendRight, AnyReceiveRight):
        if issubclass(kind, base):
            return base
    return kind


def is_carried(kind: type) -> bool:
    """Whether things of a class go beside the body."""
    if is_right(kind) or kind is DataQueue:
        return True
    numpy = sys.modules.get("numpy")
    return numpy is not None and kind is numpy.ndarray


# The hooks of the codec know what they work for by this alone.


class _Local(threading.local):
    carried: Any = None


_local = _Local()


def encoding_into(sent: Sent, encode: Callable[[Any], bytes], value: object) -> bytes:
    """Encode a value, and collect what goes beside it."""
    outer, _local.carried = _local.carried, sent
    try:
        return encode(value)
    finally:
        _local.carried = outer


def decoding_from(carried: Carried, decode: Callable[[Any], Any], body: bytes | memoryview) -> Any:
    """Decode a body beside which something went."""
    # Decoding may run what belongs to a class of the user's, which may make calls of its own.
    outer, _local.carried = _local.carried, carried
    try:
        return decode(body)
    finally:
        _local.carried = outer


def encode_hook(thing: object) -> Ext:
    placed: Ext = _local.carried.place(thing)
    return placed


def extension_hook(code: int, data: memoryview) -> object:
    return _local.carried.placeholder(code, data)


def decode_hook(hint: Any, value: object) -> Any:
    return _local.carried.take(hint, value)


def _name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint)


def _unfit(kind: type, right: Right | None) -> str:
    if isinstance(right, DeadName):
        return f"Expected `{kind.__name__}`, but its port died on the way"
    return f"Expected `{kind.__name__}`, got {'no right' if right is None else f'a {right.type_name}'}"
