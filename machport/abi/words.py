"""The bytes of messages as machine words: the interpreted twin of ``words.pxd``.

For ``machport.abi`` and ``machport.kernel`` only.  Knows where words are, never what they mean.  Here an offset
that is wrong raises; in C it reads what is there.  So whoever reads has compared the offset with the length.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

#: Whether this is the compiled form.
NATIVE: Final = False

HEADER_SIZE: Final = 24
#: Offset of the descriptors of a complex message.
BODY_SIZE: Final = 28
PORT_DESCRIPTOR_SIZE: Final = 12
MEMORY_DESCRIPTOR_SIZE: Final = 16
MIN_TRAILER: Final = 8
#: Where a trailer has the sequence number, the sender, the audit token and the process number in it; and its end.
SEQNO_AT: Final = 8
SENDER_AT: Final = 12
AUDIT_AT: Final = 20
PID_AT: Final = 40
AUDIT_END: Final = 52
MAX_SIZE: Final = 50_331_580
MAX_PORTS: Final = 16_383
#: Inline data longer than this is not copied: what is kept is a view of the bytes that came.
VIEWED_SIZE: Final = 4096

_HEADER: Final = struct.Struct("<6I")
_SEVEN: Final = struct.Struct("<7I")
_TRAILER: Final = struct.Struct("<15I")
_NDR_AND_WORD: Final = struct.Struct("<8sI")
_NDR: Final = bytes((0, 0, 0, 0, 1, 0, 0, 0))


def source(data: bytes | memoryview) -> bytes | memoryview:
    """``data`` as the functions below take it: bytes that cannot move as long as this object lives."""
    if isinstance(data, bytes):
        return data
    view = memoryview(data)
    return view.cast("B") if view.c_contiguous else view.tobytes()


def length(source: bytes | memoryview) -> int:
    """Bytes of what :func:`source` gave."""
    return len(source)


def address(source: bytes | memoryview) -> bytes | memoryview:
    """What the functions below take as ``memory``: the source itself; in C, the address of its first byte."""
    return source


def u8(memory: bytes | memoryview, offset: int) -> int:
    return memory[offset]


def u32(memory: bytes | memoryview, offset: int) -> int:
    return int.from_bytes(memory[offset : offset + 4], "little")


def u64(memory: bytes | memoryview, offset: int) -> int:
    return int.from_bytes(memory[offset : offset + 8], "little")


def wrap(value: int) -> int:
    """The number as a u32 counts: round and round."""
    return value & 0xFFFFFFFF


def part(source: bytes | memoryview, start: int, stop: int) -> bytes | memoryview:
    """What is from ``start`` to ``stop``: a copy of bytes, or a view of a view."""
    return source[start:stop]


def rest(source: bytes | memoryview, offset: int) -> bytes:
    """A copy of what is behind ``offset``."""
    return bytes(source[offset:])


def kept(source: bytes | memoryview, offset: int) -> bytes | memoryview:
    """What is behind ``offset``, copied if it is short, and otherwise a view."""
    if len(source) - offset > VIEWED_SIZE:
        return memoryview(source)[offset:]
    return bytes(source[offset:])


def pack_header(bits: int, size: int, remote: int, local: int, voucher: int, id: int) -> bytes:
    return _HEADER.pack(bits, size, remote, local, voucher, id)


def pack_message(bits: int, remote: int, local: int, id: int, body: bytes | memoryview) -> bytes:
    """A message without descriptors whose inline data is the length of ``body``, ``body``, and zeros."""
    inline = bytes(body).ljust(len(body) + 3 & ~3, b"\0")
    return pack_message_head(bits, remote, local, id, len(body)) + inline


def pack_message_head(bits: int, remote: int, local: int, id: int, size: int) -> bytes:
    """The same as far as a body of ``size`` bytes: header and length."""
    header = _HEADER.pack(bits, HEADER_SIZE + 4 + (size + 3 & ~3), remote, local, 0, id)
    return header + size.to_bytes(4, "little")


def pack_seven(first: int, second: int, third: int, fourth: int, fifth: int, sixth: int, seventh: int) -> bytes:
    """Seven words, of any numbers: only the lower 32 bits count."""
    numbers = (first, second, third, fourth, fifth, sixth, seventh)
    return _SEVEN.pack(*(number & 0xFFFFFFFF for number in numbers))


def pack_tail(padding: int, size: int, seqno: int, tokens: Sequence[int], context: int) -> bytes:
    """``padding`` zeros and a trailer of ``size`` bytes, which has room for some of what is to be told."""
    words = _TRAILER.pack(0, size, seqno, *tokens, context & 0xFFFFFFFF, context >> 32)
    return bytes(padding) + words[:size].ljust(size, b"\0")


def pack_ndr_and_word(word: int) -> bytes:
    """The inline data of most notifications, and of replies that are only a code."""
    return _NDR_AND_WORD.pack(_NDR, word)
