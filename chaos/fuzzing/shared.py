"""Rings whose other side writes what it likes, between any two operations."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable
from typing import Final

from machport.abi.errors import QueueMisuse
from machport.ring import Ring, layout

_CAPACITY: Final = 120
_MARGIN: Final = 64
_STEPS: Final = 48
_CANARY: Final = b"\xa5" * _MARGIN
_TEMPTING: Final = (
    0,
    1,
    3,
    4,
    8,
    _CAPACITY - 4,
    _CAPACITY,
    _CAPACITY + 4,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFC,
    0xFFFFFFFF,
)
Call = tuple[Callable[[bytes], None], list[bytes]]


def new_rings() -> Call:
    """Operations, one for each two bytes, among which the memory is written to."""
    seeds = [
        bytes((0, 9, 0, 20, 6, 0, 6, 0, 6, 0)),
        bytes((1, 9, 7, 0, 2, 3, 8, 0, 9, 0, 10, 0)),
        bytes((0, 30, 0, 30, 0, 30, 12, 0, 13, 4, 11, 0, 14, 3, 6, 0)),
        bytes((16, 9, 6, 0, 17, 0x48, 7, 0, 18, 5, 12, 0, 19, 9, 9, 0)),
    ]
    return _Rings().call, seeds


class _Rings:
    """Two rings that are used again for every input, each between canaries."""

    def __init__(self) -> None:
        self._rings = []
        for spread in (False, True):
            header = layout.SPREAD_RING if spread else layout.MEMORY_HEADER_SIZE
            size = header + _CAPACITY
            whole = bytearray(_CANARY + bytes(size) + _CANARY)
            view = memoryview(whole)[_MARGIN : _MARGIN + size]
            tail = layout.SPREAD_TAIL if spread else layout.TAIL
            self._rings.append((whole, view, 0 if spread else layout.HEAD, tail, header, spread))

    def call(self, data: bytes) -> None:
        whole, view, head, tail, header, spread = self._rings[len(data) & 1]
        view[:] = bytes(len(view))
        ring = Ring(view, _CAPACITY, one_process=True, spread=spread)
        lent: list[memoryview] = []
        for at in range(0, min(len(data) - 1, 2 * _STEPS), 2):
            self._step(ring, view, (head, tail, header), lent, data[at], data[at + 1])
        lent.clear()
        assert whole.startswith(_CANARY) and whole.endswith(_CANARY)

    def _step(
        self, ring: Ring, view: memoryview, places: tuple[int, int, int], lent: list[memoryview], kind: int, value: int
    ) -> None:
        head, tail, header = places
        kind %= 20
        if kind == 0:
            ring.enqueue(bytes([value]) * value)
        elif kind == 1:
            ring.enqueue_parts((b"a" * (value % 7), bytes(value)))
        elif kind == 2:
            ring.enqueue_many([bytes(value % 50)] * (value % 5))
        elif kind == 3:
            ring.enqueue_blank(value)
        elif kind == 4:
            reserved = ring.reserve(value)
            if reserved is not None:
                reserved[:] = bytes(len(reserved))
        elif kind == 5:
            with contextlib.suppress(QueueMisuse):
                ring.commit()
        elif kind == 6:
            entry = ring.dequeue()
            assert entry is None or len(entry) <= _CAPACITY
        elif kind == 7:
            peeked = ring.peek()
            assert peeked is None or peeked.nbytes <= _CAPACITY
        elif kind == 8:
            ring.dequeue_into(bytearray(value))
        elif kind == 9:
            assert sum(map(len, ring.dequeue_many(value + 1))) <= _CAPACITY
        elif kind == 10:
            ring.skip()
        elif kind == 11:
            view_lent = ring.lend()
            if view_lent is not None:
                lent.append(view_lent)
        elif kind == 12:
            assert ring.next_size() <= _CAPACITY
        elif kind == 13:
            ring.fits(value)
        elif kind == 14:
            if lent:
                lent.pop(value % len(lent))
        elif kind == 15:
            assert 0 <= ring.unread() <= max(ring.enqueued, _CAPACITY)
            assert ring.data_available() in (True, False)
        elif kind == 16:
            struct.pack_into("=I", view, tail, value)
        elif kind == 17:
            struct.pack_into("=I", view, head if value & 64 else tail, _TEMPTING[value % len(_TEMPTING)])
        elif kind == 18:
            place = header + value % (_CAPACITY - 4)
            struct.pack_into("=I", view, place & ~3, _TEMPTING[value % len(_TEMPTING)])
        else:
            view[value % len(view)] = value
