"""Access to memory that two sides share: the interpreted twin of ``memory.pxd``.

For ``machport.ring.queue`` only.  Python has no memory order.  Here the interpreter lock orders everything,
so these functions are right between threads of one process and wrong between processes (Q12); the ring
refuses the latter.  Knows nothing of rings: only bytes at offsets.  An offset that is wrong raises here, and
writes somewhere in C.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from _typeshed import ReadableBuffer, WriteableBuffer

#: Whether this is the form with real memory order.
NATIVE: Final = False

_U32: Final = struct.Struct("=I")
_WAKE_SIZE: Final = 8


def address(view: memoryview) -> memoryview:
    """What the other functions take as ``memory``: the view itself; in C, the address of its first byte."""
    return view


def aligned(memory: memoryview) -> bool:
    """Whether 32-bit fields at multiples of four can be accessed atomically."""
    return True


def load_relaxed(memory: memoryview, offset: int) -> int:
    """A u32 that only this side writes."""
    value: int = _U32.unpack_from(memory, offset)[0]
    return value


def load_acquire(memory: memoryview, offset: int) -> int:
    """A u32 that the other side stored with release: what it wrote before is visible afterwards."""
    value: int = _U32.unpack_from(memory, offset)[0]
    return value


def store_release(memory: memoryview, offset: int, value: int) -> None:
    """Store a u32 after everything this side has read or written before."""
    _U32.pack_into(memory, offset, value)


def fence() -> None:
    """A sequentially consistent fence: the only order between a store before and a load after."""


def exchange(memory: memoryview, offset: int, value: int) -> int:
    """Store a u32 and return what was there, in one step and in one order with all other exchanges and fences."""
    before: int = _U32.unpack_from(memory, offset)[0]
    _U32.pack_into(memory, offset, value)
    return before


def look(memory: memoryview, offset: int, value: int, nanoseconds: int) -> bool:
    """Wait, without sleeping, until the u32 is another than ``value``, for at most about this time; whether it is.

    What the other side wrote before it stored the other value is visible then.
    """
    if load_acquire(memory, offset) != value:
        return True
    end = time.monotonic_ns() + nanoseconds
    while time.monotonic_ns() < end:
        os.sched_yield()
        if load_acquire(memory, offset) != value:
            return True
    return False


def map_over(memory: memoryview, size: int, descriptor: int) -> None:
    """Let the pages at ``memory`` be those behind a descriptor.  Not possible from here."""
    raise NotImplementedError


def now() -> int:
    """Nanoseconds of the monotonic clock."""
    return time.monotonic_ns()


def this_thread() -> int:
    """The number of the calling thread, as ``threading.get_ident`` has it."""
    return threading.get_ident()


def give_way() -> None:
    """Let others have the processor, if somebody waits for it."""
    os.sched_yield()


def take_wake(descriptor: int, wait: int) -> int:
    """Take a packet of eight zeros out of a socket: 1; 0 if another stands there; -1 if none does, without waiting."""
    with socket.socket(fileno=os.dup(descriptor)) as sock:
        try:
            packet = sock.recv(_WAKE_SIZE + 1, socket.MSG_PEEK | (0 if wait else socket.MSG_DONTWAIT))
        except BlockingIOError:
            return -1
        if packet != bytes(_WAKE_SIZE):
            return 0
        sock.recv(_WAKE_SIZE)
    return 1


def send_wake(descriptor: int) -> None:
    """Send a packet of eight zeros, if there is room and somebody."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as sock:
        sock.send(bytes(_WAKE_SIZE), socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)


def check_signals() -> None:
    """Run handlers of signals that have arrived; what they raise is raised.  The interpreter does so by itself."""


def get_u32(memory: memoryview, offset: int) -> int:
    """A u32 at any offset, aligned or not."""
    value: int = _U32.unpack_from(memory, offset)[0]
    return value


def put_u32(memory: memoryview, offset: int, value: int) -> None:
    """Write a u32 at any offset, aligned or not."""
    _U32.pack_into(memory, offset, value)


def readable(data: ReadableBuffer) -> bytes | memoryview:
    """``data`` as :func:`copy_in` takes it.  May run code of the caller's, so it comes before any load."""
    return data if isinstance(data, bytes) else memoryview(data).tobytes()


def readable_parts(parts: Sequence[ReadableBuffer]) -> Sequence[bytes | memoryview]:
    """``parts`` as :func:`readable` gives each of them; a tuple of bytes is as it is."""
    return [readable(part) for part in parts]


def writable(buffer: WriteableBuffer) -> memoryview:
    """``buffer`` as :func:`copy_out` takes it; ``BufferError`` if it is read-only or not contiguous."""
    view = memoryview(buffer)
    if view.readonly or not view.c_contiguous:
        raise BufferError("the buffer must be writable and contiguous")
    return view.cast("B")


def length(source: bytes | memoryview) -> int:
    """Bytes of what :func:`readable` or :func:`writable` gave."""
    return len(source)


def copy_in(memory: memoryview, offset: int, source: bytes | memoryview, size: int) -> None:
    """Copy the first ``size`` bytes of ``source`` to ``offset``."""
    memory[offset : offset + size] = source[:size]


def copy_out(memory: memoryview, offset: int, target: memoryview, size: int) -> None:
    """Copy ``size`` bytes at ``offset`` to the beginning of ``target``."""
    target[:size] = memory[offset : offset + size]


def take(memory: memoryview, offset: int, size: int) -> bytes:
    """A copy of ``size`` bytes at ``offset``."""
    return bytes(memory[offset : offset + size])
