"""The two forms of the ring, side by side in one test run, and memory to try them on."""

from __future__ import annotations

import ctypes
import importlib.util
import struct
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest

import machport.ring
from machport.ring import Ring, layout

ROOM = Path(machport.ring.__file__).parent
#: Where child processes find the machport that is under test.
PROJECT = ROOM.parents[1]
U32 = struct.Struct("=I")
CANARY = b"\xca\xfe" * 32


def load_interpreted() -> ModuleType:
    """``queue.py`` as plain Python, beside the compiled module of the same source."""
    name = "machport_ring_queue_interpreted"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOM / "queue.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


interpreted = load_interpreted()

MakeRing = Callable[[memoryview, int], Ring]
MAKERS: dict[str, MakeRing] = {
    "compiled": Ring,
    "interpreted": partial(interpreted.Ring, one_process=True),
}
both_forms = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())


#: Whether this process runs under AddressSanitizer, as those of `make test-asan` do.
SANITIZED = hasattr(ctypes.CDLL(None), "__asan_init")


class Walled:
    """Memory with canaries on both sides: whoever writes there is found by the test, who reads there by a sanitizer."""

    def __init__(self, size: int) -> None:
        self._all = bytearray(CANARY + bytes(size) + CANARY)
        self.region = memoryview(self._all)[len(CANARY) : len(CANARY) + size]
        self._forbid(True)

    def _forbid(self, forbidden: bool) -> None:
        """Let the sanitizer, if there is one, report every access to the canaries, or none."""
        if SANITIZED:
            start = ctypes.addressof(ctypes.c_char.from_buffer(self._all))
            mark = ctypes.CDLL(None)[f"__asan_{'' if forbidden else 'un'}poison_memory_region"]
            for canary in (start, start + len(CANARY) + len(self.region)):
                mark(ctypes.c_void_p(canary), ctypes.c_size_t(len(CANARY)))

    def check_canaries(self) -> None:
        self._forbid(False)
        assert self._all.startswith(CANARY)
        assert self._all.endswith(CANARY)
        self._forbid(True)


class Bench(Walled):
    """A ring in memory that the test can see and spoil, with canaries on both sides."""

    def __init__(self, make: MakeRing, capacity: int) -> None:
        super().__init__(layout.MEMORY_HEADER_SIZE + capacity)
        self.capacity = capacity
        U32.pack_into(self.region, layout.QUEUE_SIZE, capacity)
        self.ring = make(self.region, capacity)

    def get(self, offset: int) -> int:
        value: int = U32.unpack_from(self.region, offset)[0]
        return value

    def put(self, offset: int, value: int) -> None:
        U32.pack_into(self.region, offset, value)

    @property
    def head(self) -> int:
        return self.get(layout.HEAD)

    @property
    def tail(self) -> int:
        return self.get(layout.TAIL)

    def move(self, head: int, tail: int) -> None:
        """Both sides at chosen places, as after a life of entries."""
        self.put(layout.HEAD, head)
        self.put(layout.TAIL, tail)

    def stand_empty_at(self, offset: int) -> None:
        self.move(offset, offset)

    @property
    def bytes(self) -> bytes:
        """Everything, header included: what a refused call must not change."""
        return bytes(self.region)
