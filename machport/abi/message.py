"""The layout of a Mach message: header, descriptors, inline data, trailer.

Knows bytes, sizes and offsets.  Never knows what a name denotes.  Little endian, 64-bit user layout, as in section 1
and 8 of the specification of messages.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from machport.abi import constants as c
from machport.abi import words

HEADER: Final = struct.Struct("<6I")
COUNT: Final = struct.Struct("<I")
PORT_DESCRIPTOR: Final = struct.Struct("<IIHBB")
MEMORY_DESCRIPTOR: Final = struct.Struct("<QBBBBI")
TRAILER: Final = struct.Struct("<15I")
NDR: Final = bytes((0, 0, 0, 0, 1, 0, 0, 0))

HEADER_SIZE: Final = words.HEADER_SIZE
#: Offset of the descriptors of a complex message.
BODY_SIZE: Final = words.BODY_SIZE
#: Offset of the payload of a dead-name, port-deleted, send-possible or no-senders notification.
NOTIFICATION_PAYLOAD: Final = 32
MAX_SIZE: Final = words.MAX_SIZE
MAX_PORTS: Final = words.MAX_PORTS

#: Bytes of a trailer by its requested elements (M34).
TRAILER_SIZES: Final = {0: 8, 1: 12, 2: 20, 3: 52, 4: 60, 7: 68}
MIN_TRAILER: Final = words.MIN_TRAILER
KERNEL_TOKENS: Final = (0, 1, *(0,) * 8)

#: Field masks of ``msgh_bits``; whatever else a sender sets is cleared.
USER_BITS: Final = c.MACH_MSGH_BITS_USER
COMPLEX: Final = c.MACH_MSGH_BITS_COMPLEX


#: Makes a named tuple without a function of Python, at whose begin handlers of signals may run: whoever has received a
#: message must not lose it there.
_new: Final[Any] = tuple.__new__


class Descriptor(NamedTuple):
    """One descriptor of a complex message, of any type.

    ``name`` is the port of a port descriptor; ``address`` and ``size`` belong to memory (bytes) and port arrays
    (number of names).  Fields of the other kind are 0.
    """

    type: int
    disposition: int = 0
    name: int = 0
    address: int = 0
    size: int = 0
    deallocate: int = 0
    copy: int = 0

    def pack(self) -> bytes:
        if self.type == c.MACH_MSG_PORT_DESCRIPTOR:
            return PORT_DESCRIPTOR.pack(self.name, 0, 0, self.disposition, self.type)
        return MEMORY_DESCRIPTOR.pack(self.address, self.deallocate, self.copy, self.disposition, self.type, self.size)


def port_descriptor(name: int, disposition: int) -> Descriptor:
    """A right of one port."""
    return Descriptor(c.MACH_MSG_PORT_DESCRIPTOR, disposition, name)


def memory_descriptor(size: int, *, address: int = 0, deallocate: bool = False) -> Descriptor:
    """Out-of-line memory of ``size`` bytes."""
    return Descriptor(c.MACH_MSG_OOL_DESCRIPTOR, 0, 0, address, size, int(deallocate), c.MACH_MSG_VIRTUAL_COPY)


def port_array_descriptor(count: int, disposition: int, *, address: int = 0) -> Descriptor:
    """An out-of-line array of ``count`` names, all taken with one disposition."""
    return Descriptor(c.MACH_MSG_OOL_PORTS_DESCRIPTOR, disposition, 0, address, count, 0, c.MACH_MSG_VIRTUAL_COPY)


def bits(remote: int, local: int = 0, *, complex: bool = False) -> int:
    """``msgh_bits`` of two dispositions."""
    return remote | local << 8 | (COMPLEX if complex else 0)


class Parsed:
    """A message taken apart; ``code`` is 0, or the first of the layout checks that failed (M section 3, 1-5).

    ``inline_at`` is where the inline data begins, which ``scan`` leaves where it is.
    """

    __slots__ = ("bits", "code", "descriptors", "id", "inline", "inline_at", "local", "remote", "voucher")

    def begin(self, code: int) -> None:
        self.code = code
        self.bits = 0
        self.remote = 0
        self.local = 0
        self.voucher = 0
        self.id = 0
        self.descriptors: Sequence[Descriptor] = ()
        self.inline_at = words.HEADER_SIZE
        self.inline = b""

    @property
    def remote_disposition(self) -> int:
        return self.bits & c.MACH_MSGH_BITS_REMOTE_MASK

    @property
    def local_disposition(self) -> int:
        return self.bits >> 8 & c.MACH_MSGH_BITS_REMOTE_MASK

    @property
    def voucher_disposition(self) -> int:
        return self.bits >> 16 & c.MACH_MSGH_BITS_REMOTE_MASK


def _new_parsed(code: int) -> Parsed:
    parsed = Parsed.__new__(Parsed)
    parsed.begin(code)
    return parsed


def pack(
    bits: int,
    remote: int,
    local: int = 0,
    id: int = 0,
    *,
    descriptors: Sequence[Descriptor] = (),
    inline: bytes = b"",
    voucher: int = 0,
) -> bytes:
    """A message as it is sent; the complex bit follows from the descriptors, or from ``bits``."""
    body = b""
    if descriptors or bits & COMPLEX:
        bits |= COMPLEX
        body = COUNT.pack(len(descriptors)) + b"".join([d.pack() for d in descriptors])
    size = words.HEADER_SIZE + len(body) + len(inline)
    return HEADER.pack(bits, size, remote, local, voucher, id) + body + inline


def parse(buffer: bytes | memoryview, sent: bool = False) -> Parsed:
    """Take a message apart; with ``sent`` also apply the sender's checks on sizes, types and dispositions.

    Never raises on foreign bytes: what is wrong with them is ``Parsed.code``.
    """
    source = words.source(buffer)
    parsed = scan(source, sent)
    if not parsed.code:
        parsed.inline = words.rest(source, parsed.inline_at)
    return parsed


def scan(source: bytes | memoryview, sent: bool) -> Parsed:
    """The same without the inline data, for what ``words.source`` gave."""
    size = words.length(source)
    if size < words.HEADER_SIZE or (sent and size % 4):
        return _new_parsed(c.MACH_SEND_MSG_TOO_SMALL)
    if sent and size > words.MAX_SIZE:
        return _new_parsed(c.MACH_SEND_TOO_LARGE)
    memory = words.address(source)
    bits = words.u32(memory, 0) & c.MACH_MSGH_BITS_USER
    descriptors: list[Descriptor] | None = None
    offset = words.HEADER_SIZE
    if bits & c.MACH_MSGH_BITS_COMPLEX:
        descriptors = []
        code, offset = _scan_descriptors(memory, size, sent, descriptors)
        if code:
            return _new_parsed(code)
    parsed = _new_parsed(0)
    parsed.bits = bits
    parsed.remote = words.u32(memory, 8)
    parsed.local = words.u32(memory, 12)
    parsed.voucher = words.u32(memory, 16)
    parsed.id = words.u32(memory, 20)
    if descriptors is not None:
        parsed.descriptors = descriptors
    parsed.inline_at = offset
    return parsed


def _scan_descriptors(
    memory: bytes | memoryview, size: int, sent: bool, descriptors: list[Descriptor]
) -> tuple[int, int]:
    """Append the descriptors of a complex message; a code, or 0 and where they end."""
    if size < words.BODY_SIZE:
        return c.MACH_SEND_MSG_TOO_SMALL, 0
    count = words.u32(memory, words.HEADER_SIZE)
    if count * words.PORT_DESCRIPTOR_SIZE > size - words.BODY_SIZE:
        return c.MACH_SEND_MSG_TOO_SMALL, 0
    if sent and count > words.MAX_PORTS:
        # Looked at before the descriptors are, which may be millions.
        return c.MACH_SEND_TOO_LARGE, 0
    offset, ports, wrong_type = words.BODY_SIZE, 0, False
    for _ in range(count):
        if offset + words.PORT_DESCRIPTOR_SIZE > size:
            return c.MACH_SEND_MSG_TOO_SMALL, 0
        kind = words.u8(memory, offset + 11)
        disposition = words.u8(memory, offset + 10)
        if kind == c.MACH_MSG_PORT_DESCRIPTOR:
            descriptors.append(_new(Descriptor, (kind, disposition, words.u32(memory, offset), 0, 0, 0, 0)))
            offset += words.PORT_DESCRIPTOR_SIZE
            ports += 1
            wrong_type |= not is_disposition(disposition)
            continue
        if offset + words.MEMORY_DESCRIPTOR_SIZE > size:
            return c.MACH_SEND_MSG_TOO_SMALL, 0
        length = words.u32(memory, offset + 12)
        copy = words.u8(memory, offset + 9)
        deallocate = words.u8(memory, offset + 8)
        descriptors.append(
            _new(Descriptor, (kind, disposition, 0, words.u64(memory, offset), length, deallocate, copy))
        )
        offset += words.MEMORY_DESCRIPTOR_SIZE
        if kind == c.MACH_MSG_OOL_PORTS_DESCRIPTOR:
            ports += length
            wrong_type |= not is_disposition(disposition)
        wrong_type |= not c.MACH_MSG_OOL_DESCRIPTOR <= kind <= c.MACH_MSG_OOL_VOLATILE_DESCRIPTOR
        wrong_type |= copy != c.MACH_MSG_PHYSICAL_COPY and copy != c.MACH_MSG_VIRTUAL_COPY
    if sent and ports > words.MAX_PORTS:
        return c.MACH_SEND_TOO_LARGE, 0
    if sent and wrong_type:
        return c.MACH_SEND_INVALID_TYPE, 0
    return 0, offset


def descriptor_size(type: int) -> int:
    """Bytes of a descriptor of one type."""
    return words.PORT_DESCRIPTOR_SIZE if type == c.MACH_MSG_PORT_DESCRIPTOR else words.MEMORY_DESCRIPTOR_SIZE


def is_disposition(disposition: int) -> bool:
    """Whether a number says how a right is taken."""
    return c.MACH_MSG_TYPE_MOVE_RECEIVE <= disposition <= c.MACH_MSG_TYPE_MAKE_SEND_ONCE


def body_rights(message: Parsed, memory: Sequence[bytes] = ()) -> list[tuple[int, int]]:
    """The (name, disposition) of every right in a message's descriptors and port arrays, null and dead left out.

    ``memory`` is what the out-of-line descriptors point to, one region for each.
    """
    rights: list[tuple[int, int]] = []
    regions = iter(memory)
    for descriptor in message.descriptors:
        if descriptor.type == c.MACH_MSG_PORT_DESCRIPTOR:
            rights.append((descriptor.name, descriptor.disposition))
            continue
        region = next(regions, b"")
        if descriptor.type == c.MACH_MSG_OOL_PORTS_DESCRIPTOR:
            names = struct.unpack_from(f"<{len(region) // 4}I", region)
            rights.extend((name, descriptor.disposition) for name in names)
    return [(name, kind) for name, kind in rights if name not in (c.MACH_PORT_NULL, c.MACH_PORT_DEAD)]


def trailer_size(option: int) -> int:
    """Bytes of the trailer that receive options ask for; 0 if the request itself is not valid (M34)."""
    if option >> c.MACH_RCV_TRAILER_TYPE_SHIFT & c.MACH_RCV_TRAILER_FIELD_MASK:
        return 0
    elements = option >> c.MACH_RCV_TRAILER_ELEMENTS_SHIFT & c.MACH_RCV_TRAILER_FIELD_MASK
    if elements == c.MACH_RCV_TRAILER_NULL:
        return words.MIN_TRAILER
    if elements == c.MACH_RCV_TRAILER_SEQNO:
        return 12
    if elements == c.MACH_RCV_TRAILER_SENDER:
        return 20
    if elements == c.MACH_RCV_TRAILER_AUDIT:
        return 52
    if elements == c.MACH_RCV_TRAILER_CTX:
        return 60
    return 68 if elements == c.MACH_RCV_TRAILER_AV else 0


def pack_trailer(size: int, seqno: int, tokens: Sequence[int], context: int) -> bytes:
    """A trailer of ``size`` bytes; ``tokens`` are the two words of the sender and the eight of the audit token."""
    return words.pack_tail(0, size, seqno, tokens, context)


class Trailer(NamedTuple):
    """What a trailer tells; fields that were not requested are None."""

    size: int
    seqno: int | None = None
    sender: tuple[int, int] | None = None
    audit: tuple[int, ...] | None = None
    context: int | None = None


def parse_trailer(buffer: bytes | memoryview) -> Trailer:
    """The trailer that follows a received message at its rounded-up end (M33)."""
    _, size = struct.unpack_from("<II", buffer)
    told = struct.unpack_from(f"<{(min(size, len(buffer)) - 8) // 4}I", buffer, 8)
    return Trailer(
        size,
        told[0] if len(told) >= 1 else None,
        (told[1], told[2]) if len(told) >= 3 else None,
        tuple(told[3:11]) if len(told) >= 11 else None,
        told[11] | told[12] << 32 if len(told) >= 13 else None,
    )


def round_up(size: int) -> int:
    """Where the trailer of a message of ``size`` bytes begins."""
    return size + 3 & ~3


def is_compiled() -> bool:
    """Whether this is the compiled form; the kernel's is the same."""
    return words.NATIVE != 0
