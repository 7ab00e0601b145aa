"""The layout of a Mach message: header, descriptors, inline data, trailer.

Knows bytes, sizes and offsets.  Never knows what a name denotes.  Little endian, 64-bit user layout, as in section 1
and 8 of the specification of messages.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from machport.abi import constants as c

HEADER: Final = struct.Struct("<6I")
COUNT: Final = struct.Struct("<I")
PORT_DESCRIPTOR: Final = struct.Struct("<IIHBB")
MEMORY_DESCRIPTOR: Final = struct.Struct("<QBBBBI")
TRAILER: Final = struct.Struct("<15I")
NDR: Final = bytes((0, 0, 0, 0, 1, 0, 0, 0))

HEADER_SIZE: Final = 24
#: Offset of the descriptors of a complex message.
BODY_SIZE: Final = 28
#: Offset of the payload of a dead-name, port-deleted, send-possible or no-senders notification.
NOTIFICATION_PAYLOAD: Final = 32
MAX_SIZE: Final = 50_331_580
MAX_PORTS: Final = 16_383

#: Bytes of a trailer by its requested elements (M34).
TRAILER_SIZES: Final = {0: 8, 1: 12, 2: 20, 3: 52, 4: 60, 7: 68}
MIN_TRAILER: Final = 8
KERNEL_TOKENS: Final = (0, 1, *(0,) * 8)

#: Field masks of ``msgh_bits``; whatever else a sender sets is cleared.
USER_BITS: Final = c.MACH_MSGH_BITS_USER
COMPLEX: Final = c.MACH_MSGH_BITS_COMPLEX


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


class Parsed(NamedTuple):
    """A message taken apart; ``code`` is 0, or the first of the layout checks that failed (M section 3, 1-5)."""

    code: int
    bits: int = 0
    remote: int = 0
    local: int = 0
    voucher: int = 0
    id: int = 0
    descriptors: Sequence[Descriptor] = ()
    inline: bytes = b""

    @property
    def remote_disposition(self) -> int:
        return self.bits & 0x1F

    @property
    def local_disposition(self) -> int:
        return self.bits >> 8 & 0x1F

    @property
    def voucher_disposition(self) -> int:
        return self.bits >> 16 & 0x1F


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
        body = COUNT.pack(len(descriptors)) + b"".join(d.pack() for d in descriptors)
    size = HEADER_SIZE + len(body) + len(inline)
    return HEADER.pack(bits, size, remote, local, voucher, id) + body + inline


def parse(buffer: bytes | memoryview, *, sent: bool = False) -> Parsed:
    """Take a message apart; with ``sent`` also apply the sender's checks on sizes, types and dispositions.

    Never raises on foreign bytes: what is wrong with them is ``Parsed.code``.
    """
    size = len(buffer)
    if size < HEADER_SIZE or (sent and size % 4):
        return Parsed(c.MACH_SEND_MSG_TOO_SMALL)
    header_bits, _, remote, local, voucher, id = HEADER.unpack_from(buffer)
    header_bits &= USER_BITS
    if sent and size > MAX_SIZE:
        return Parsed(c.MACH_SEND_TOO_LARGE)
    if not header_bits & COMPLEX:
        return Parsed(0, header_bits, remote, local, voucher, id, (), bytes(buffer[HEADER_SIZE:]))
    if size < BODY_SIZE:
        return Parsed(c.MACH_SEND_MSG_TOO_SMALL)
    (count,) = COUNT.unpack_from(buffer, HEADER_SIZE)
    if count * PORT_DESCRIPTOR.size > size - BODY_SIZE:
        return Parsed(c.MACH_SEND_MSG_TOO_SMALL)
    if sent and count > MAX_PORTS:
        # Looked at before the descriptors are, which may be millions.
        return Parsed(c.MACH_SEND_TOO_LARGE)
    offset, ports, wrong_type = BODY_SIZE, 0, False
    descriptors = []
    for _ in range(count):
        if offset + PORT_DESCRIPTOR.size > size:
            return Parsed(c.MACH_SEND_MSG_TOO_SMALL)
        kind = buffer[offset + 11]
        if kind == c.MACH_MSG_PORT_DESCRIPTOR:
            name, _, _, disposition, _ = PORT_DESCRIPTOR.unpack_from(buffer, offset)
            descriptors.append(Descriptor(kind, disposition, name))
            offset += PORT_DESCRIPTOR.size
            ports += 1
            wrong_type |= not _is_disposition(disposition)
            continue
        if offset + MEMORY_DESCRIPTOR.size > size:
            return Parsed(c.MACH_SEND_MSG_TOO_SMALL)
        address, deallocate, copy, disposition, _, length = MEMORY_DESCRIPTOR.unpack_from(buffer, offset)
        descriptors.append(Descriptor(kind, disposition, 0, address, length, deallocate, copy))
        offset += MEMORY_DESCRIPTOR.size
        if kind == c.MACH_MSG_OOL_PORTS_DESCRIPTOR:
            ports += length
            wrong_type |= not _is_disposition(disposition)
        wrong_type |= kind not in _MEMORY_KINDS or copy not in _COPY_OPTIONS
    if sent and ports > MAX_PORTS:
        return Parsed(c.MACH_SEND_TOO_LARGE)
    if sent and wrong_type:
        return Parsed(c.MACH_SEND_INVALID_TYPE)
    return Parsed(0, header_bits, remote, local, voucher, id, descriptors, bytes(buffer[offset:]))


_MEMORY_KINDS: Final = (
    c.MACH_MSG_OOL_DESCRIPTOR,
    c.MACH_MSG_OOL_PORTS_DESCRIPTOR,
    c.MACH_MSG_OOL_VOLATILE_DESCRIPTOR,
)
_COPY_OPTIONS: Final = (c.MACH_MSG_PHYSICAL_COPY, c.MACH_MSG_VIRTUAL_COPY)


def _is_disposition(disposition: int) -> bool:
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
    """Bytes of the trailer that receive options ask for; 0 if the request itself is not valid."""
    if option >> c.MACH_RCV_TRAILER_TYPE_SHIFT & 0xF:
        return 0
    return TRAILER_SIZES.get(option >> c.MACH_RCV_TRAILER_ELEMENTS_SHIFT & 0xF, 0)


def pack_trailer(size: int, seqno: int, tokens: Sequence[int], context: int) -> bytes:
    """A trailer of ``size`` bytes; ``tokens`` are the two words of the sender and the eight of the audit token."""
    if size == MIN_TRAILER:
        return struct.pack("<II", 0, MIN_TRAILER)
    low, high = context & 0xFFFFFFFF, context >> 32
    return TRAILER.pack(0, size, seqno & 0xFFFFFFFF, *tokens, low, high)[:size].ljust(size, b"\0")


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
    words = struct.unpack_from(f"<{(min(size, len(buffer)) - 8) // 4}I", buffer, 8)
    return Trailer(
        size,
        words[0] if len(words) >= 1 else None,
        (words[1], words[2]) if len(words) >= 3 else None,
        tuple(words[3:11]) if len(words) >= 11 else None,
        words[11] | words[12] << 32 if len(words) >= 13 else None,
    )


def round_up(size: int) -> int:
    """Where the trailer of a message of ``size`` bytes begins."""
    return size + 3 & ~3
