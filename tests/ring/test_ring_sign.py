"""A sign is one word that one side writes and the other reads."""

from __future__ import annotations

import threading

import pytest
from ring_forms import U32

from machport.ring.sign import Sign


def test_what_is_written_is_read_at_the_other_side() -> None:
    memory = bytearray(16)
    writer, reader = Sign(memory, 4), Sign(memory, 4)
    for value in (0, 1, 2**32 - 1):
        writer.write(value)
        assert reader.read() == value
        assert bytes(memory) == bytes(4) + U32.pack(value) + bytes(8)


@pytest.mark.parametrize("offset", [-4, 1, 2, 14, 16, 400])
def test_a_sign_stands_where_there_is_an_aligned_word(offset: int) -> None:
    with pytest.raises(ValueError, match="there is no word"):
        Sign(bytearray(16), offset)


def test_a_sign_is_not_written_where_nothing_can_be() -> None:
    with pytest.raises(ValueError, match="there is no word"):
        Sign(bytes(16), 0)


def test_what_was_written_before_a_sign_is_seen_with_it() -> None:
    """Section 3: the writer releases, the reader acquires."""
    memory = bytearray(128)
    sign = Sign(memory, 0)

    def write() -> None:
        for number in range(1, 2000):
            U32.pack_into(memory, 64, number)
            sign.write(number)

    thread = threading.Thread(target=write)
    thread.start()
    while (seen := sign.read()) < 1999:
        assert U32.unpack_from(memory, 64)[0] >= seen
    thread.join()
