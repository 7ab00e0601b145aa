"""Messages as bytes: layout, checks, trailers."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machport.abi import constants as c
from machport.abi import message as layout
from machport.abi.message import Descriptor

U32 = st.integers(0, 0xFFFFFFFF)
DISPOSITION = st.integers(c.MACH_MSG_TYPE_MOVE_RECEIVE, c.MACH_MSG_TYPE_MAKE_SEND_ONCE)
PORTS = st.builds(layout.port_descriptor, U32, DISPOSITION)
REGIONS = st.builds(
    Descriptor,
    type=st.sampled_from([c.MACH_MSG_OOL_DESCRIPTOR, c.MACH_MSG_OOL_VOLATILE_DESCRIPTOR]),
    disposition=st.just(0),
    name=st.just(0),
    address=st.integers(0, (1 << 64) - 1),
    size=U32,
    deallocate=st.integers(0, 1),
    copy=st.integers(0, 1),
)
ARRAYS = st.builds(layout.port_array_descriptor, st.integers(0, 1000), DISPOSITION)
INLINE = st.integers(0, 8).flatmap(lambda words: st.binary(min_size=4 * words, max_size=4 * words))
PROFILE = settings(derandomize=True, database=None, deadline=None, print_blob=True)


@PROFILE
@given(
    st.binary(max_size=200) | st.binary(min_size=24, max_size=120).map(lambda b: b[:3] + b"\x80" + b[4:]), st.booleans()
)
def test_foreign_bytes_never_raise(data: bytes, sent: bool) -> None:
    """Whatever the bytes, the answer is a message or the code of the first check that failed."""
    for buffer in (data, memoryview(data)):
        parsed = layout.parse(buffer, sent=sent)
        assert parsed.code == 0 or parsed.code & 0x10000000
        assert parsed.code == 0 or not parsed.descriptors


@PROFILE
@given(
    bits=U32.map(lambda bits: bits & 0x1F1F1F),
    remote=U32,
    local=U32,
    id=U32,
    voucher=U32,
    descriptors=st.lists(PORTS | REGIONS | ARRAYS, max_size=6),
    inline=INLINE,
)
def test_what_is_packed_is_parsed(
    bits: int, remote: int, local: int, id: int, voucher: int, descriptors: list[Descriptor], inline: bytes
) -> None:
    """Pack and parse are inverse, for the sender's checks as well."""
    buffer = layout.pack(bits, remote, local, id, descriptors=descriptors, inline=inline, voucher=voucher)
    assert struct.unpack_from("<I", buffer, 4) == (len(buffer),)
    for sent in (False, True):
        parsed = layout.parse(buffer, sent=sent)
        assert parsed.code == 0
        assert parsed.bits == bits | (c.MACH_MSGH_BITS_COMPLEX if descriptors else 0)
        assert (parsed.remote, parsed.local, parsed.id, parsed.voucher) == (remote, local, id, voucher)
        assert list(parsed.descriptors) == descriptors
        assert parsed.inline == inline


def test_the_offsets_of_the_header() -> None:
    """Section 1 of messages: bits, size, remote, local, voucher, id."""
    buffer = layout.pack(layout.bits(19, 21), 0xAAAA, 0xBBBB, 0xDDDD, voucher=0xCCCC)
    assert struct.unpack("<6I", buffer) == (0x1513, 24, 0xAAAA, 0xBBBB, 0xCCCC, 0xDDDD)


def test_the_offsets_of_descriptors() -> None:
    """Section 1 of messages: the type byte is at offset 11 of each."""
    port = layout.port_descriptor(0x11223344, 17).pack()
    assert port == bytes.fromhex("44332211 00000000 0000 11 00")
    memory = layout.memory_descriptor(7, address=0x1122334455667788, deallocate=True).pack()
    assert memory == bytes.fromhex("8877665544332211 01 01 00 01 07000000")
    array = layout.port_array_descriptor(3, 18).pack()
    assert array == bytes.fromhex("0000000000000000 00 01 12 02 03000000")


def test_the_fields_of_the_bits() -> None:
    """Remote in bits 0-4, local in 8-12, voucher in 16-20; the rest is cleared."""
    parsed = layout.parse(layout.pack(0x7FF5F5F3, 1))
    assert parsed.bits == 0x00151513
    assert (parsed.remote_disposition, parsed.local_disposition, parsed.voucher_disposition) == (0x13, 0x15, 0x15)


@pytest.mark.parametrize(
    ("buffer", "code"),
    [
        (b"", c.MACH_SEND_MSG_TOO_SMALL),
        (bytes(23), c.MACH_SEND_MSG_TOO_SMALL),
        (bytes(25), c.MACH_SEND_MSG_TOO_SMALL),
        (bytes(24), 0),
        (struct.pack("<6I", c.MACH_MSGH_BITS_COMPLEX, 0, 0, 0, 0, 0), c.MACH_SEND_MSG_TOO_SMALL),
        (struct.pack("<7I", c.MACH_MSGH_BITS_COMPLEX, 0, 0, 0, 0, 0, 0), 0),
        (struct.pack("<7I", c.MACH_MSGH_BITS_COMPLEX, 0, 0, 0, 0, 0, 1), c.MACH_SEND_MSG_TOO_SMALL),
        (layout.pack(0, 0, descriptors=[layout.port_descriptor(0, 15)]), c.MACH_SEND_INVALID_TYPE),
        (layout.pack(0, 0, descriptors=[Descriptor(9)]), c.MACH_SEND_INVALID_TYPE),
        (layout.pack(0, 0, descriptors=[Descriptor(4)]), c.MACH_SEND_INVALID_TYPE),
        (layout.pack(0, 0, descriptors=[Descriptor(1, copy=2)]), c.MACH_SEND_INVALID_TYPE),
        (layout.pack(0, 0, descriptors=[layout.port_array_descriptor(16384, 17)]), c.MACH_SEND_TOO_LARGE),
        (layout.pack(0, 0, descriptors=[layout.port_array_descriptor(16383, 17)]), 0),
        (bytes(layout.MAX_SIZE), 0),
        (bytes(layout.MAX_SIZE + 4), c.MACH_SEND_TOO_LARGE),
    ],
)
def test_the_senders_checks(buffer: bytes, code: int) -> None:
    """Section 3 of messages, steps 1, 2 and 5."""
    assert layout.parse(buffer, sent=True).code == code


@pytest.mark.parametrize("elements", range(16))
def test_trailer_sizes(elements: int) -> None:
    """M34: 0 for what cannot be asked for."""
    option = elements << c.MACH_RCV_TRAILER_ELEMENTS_SHIFT
    assert layout.trailer_size(option) == {0: 8, 1: 12, 2: 20, 3: 52, 4: 60, 7: 68}.get(elements, 0)
    assert layout.trailer_size(option | 1 << c.MACH_RCV_TRAILER_TYPE_SHIFT) == 0
    assert layout.trailer_size(option | c.MACH_RCV_MSG | c.MACH_RCV_LARGE) == layout.trailer_size(option)


@PROFILE
@given(
    size=st.sampled_from(sorted(layout.TRAILER_SIZES.values())),
    seqno=U32,
    tokens=st.lists(U32, min_size=10, max_size=10),
    context=st.integers(0, (1 << 64) - 1),
)
def test_a_trailer_tells_what_its_size_has_room_for(size: int, seqno: int, tokens: list[int], context: int) -> None:
    """M33, M34."""
    buffer = layout.pack_trailer(size, seqno, tokens, context)
    assert len(buffer) == size
    trailer = layout.parse_trailer(buffer)
    assert trailer.size == size
    assert trailer.seqno == (seqno if size >= 12 else None)
    assert trailer.sender == ((tokens[0], tokens[1]) if size >= 20 else None)
    assert trailer.audit == (tuple(tokens[2:]) if size >= 52 else None)
    assert trailer.context == (context if size >= 60 else None)


@PROFILE
@given(st.binary(max_size=100))
def test_a_trailer_of_foreign_bytes_is_read_or_refused(data: bytes) -> None:
    """It is cut to what is there; too little is an error of the layout."""
    if len(data) < layout.MIN_TRAILER or struct.unpack_from("<I", data, 4)[0] < layout.MIN_TRAILER:
        with pytest.raises(struct.error):
            layout.parse_trailer(data)
    else:
        layout.parse_trailer(data)


@pytest.mark.parametrize(("size", "start"), [(24, 24), (25, 28), (26, 28), (27, 28), (28, 28)])
def test_a_trailer_begins_at_a_multiple_of_4(size: int, start: int) -> None:
    """M33."""
    assert layout.round_up(size) == start
