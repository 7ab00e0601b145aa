"""Inputs made from others by a seed: where nobody tells what they reached."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from typing import Final

from machport.abi import traps as t

#: Words that something is compared with somewhere.
WORDS: Final = (
    *(0, 1, 2, 3, 4, 16, 17, 18, 19, 20, 21, 0x1000, 0x103, 0x203, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF),
    *t.TRAPS,
)
_LONGEST: Final = 600


class Feeder:
    """Inputs by a seed: honest ones, and what becomes of them when they are changed, some a little and some a lot.

    Args:
        seeds: inputs to begin with.
    """

    def __init__(self, seeds: Sequence[bytes], seed: int) -> None:
        self._chance = random.Random(seed)
        self._pool = [*seeds, b""]

    def next(self) -> bytes:
        """Another input."""
        chance = self._chance
        data = bytearray(chance.choice(self._pool))
        for _ in range(chance.choice((0, 1, 1, 2, 2, 4, 8))):
            chance.choice(_CHANGES)(chance, data, self._pool)
        made = bytes(data[:_LONGEST])
        if chance.random() < 0.02 and len(self._pool) < 500:
            self._pool.append(made)
        return made


def _flip(chance: random.Random, data: bytearray, pool: Sequence[bytes]) -> None:
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _set(chance: random.Random, data: bytearray, pool: Sequence[bytes]) -> None:
    if data:
        data[chance.randrange(len(data))] = chance.randrange(256)


def _word(chance: random.Random, data: bytearray, pool: Sequence[bytes]) -> None:
    word = struct.pack(chance.choice(("<I", ">I")), chance.choice(WORDS) & 0xFFFFFFFF)
    at = chance.randrange(len(data) + 1)
    data[at : at + chance.choice((0, 4))] = word


def _insert(chance: random.Random, data: bytearray, pool: Sequence[bytes]) -> None:
    at = chance.randrange(len(data) + 1)
    data[at:at] = chance.randbytes(chance.choice((1, 1, 2, 4, 16)))


def _cut(chance: random.Random, data: bytearray, pool: Sequence[bytes]) -> None:
    begin = chance.randrange(len(data) + 1)
    del data[begin : begin + chance.choice((1, 2, 4, 8, _LONGEST))]


def _again(chance: random.Random, data: bytearray, pool: Sequence[bytes]) -> None:
    begin = chance.randrange(len(data) + 1)
    data[begin:begin] = data[begin : begin + chance.choice((1, 4, 8, 40))]


def _splice(chance: random.Random, data: bytearray, pool: Sequence[bytes]) -> None:
    other = chance.choice(pool)
    data[chance.randrange(len(data) + 1) :] = other[chance.randrange(len(other) + 1) :]


_CHANGES: Final[list[Callable[[random.Random, bytearray, Sequence[bytes]], None]]] = [
    _flip,
    _set,
    _set,
    _word,
    _insert,
    _cut,
    _again,
    _splice,
]
