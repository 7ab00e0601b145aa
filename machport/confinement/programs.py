"""Which files it takes to execute a program: itself, and whatever the system starts in its place."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Final

_ELF: Final = b"\x7fELF"
#: Of the header of a 64-bit program: where its table is, the size of an entry, and how many there are.
_HEADER: Final = struct.Struct("<32xQ14xHH")
_ENTRY: Final = struct.Struct("<II3QQ")
_INTERPRETER: Final = 3
#: Scripts may name scripts, of which the system follows a few.
_DEPTH: Final = 5
_LINE_MAX: Final = 256


def files_of(program: str) -> Iterator[str]:
    """The program, and the interpreter that its first line names, or the loader of its libraries.

    Raises:
        OSError: one of them cannot be read.
    """
    for _ in range(_DEPTH):
        yield program
        with open(program, "rb") as file:
            start = file.read(_LINE_MAX)
            if start.startswith(_ELF):
                file.seek(0)
                loader = _loader(file.read(_HEADER.size), file.fileno())
                if loader:
                    yield loader
                return
        if not start.startswith(b"#!"):
            return
        words = start[2:].splitlines()[0].split()
        if not words:
            return
        program = os.fsdecode(words[0])


def _loader(header: bytes, descriptor: int) -> str:
    """The path of the loader; "" if it needs none."""
    if len(header) < _HEADER.size:
        return ""
    table, size, count = _HEADER.unpack(header)
    for index in range(count):
        entry = os.pread(descriptor, _ENTRY.size, table + index * size)
        if len(entry) < _ENTRY.size:
            break
        kind, _, offset, _, _, length = _ENTRY.unpack(entry)
        if kind == _INTERPRETER:
            return os.fsdecode(os.pread(descriptor, length, offset).rstrip(b"\0"))
    return ""
