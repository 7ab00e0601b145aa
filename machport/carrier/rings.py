"""The memory of one thread's traps: a ring down to the daemon, a ring up to the thread, and a bell for each side.

One sealed memfd, made by the daemon and mapped by both.  The daemon believes nothing that it reads there; the thread
can harm only itself.  The daemon keeps the descriptor, which costs a number and no memory: with it, and with what
``state`` tells, another process can take the daemon's side over.  Knows rings and mappings; never what a trap means, or
how a side sleeps.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections.abc import Sequence
from typing import Final

from machport.abi.errors import LimitReached, ProtocolError, QueueMisuse
from machport.ring import Doorbell, Ring, layout, map_shared

#: Bytes of each ring as a thread gets them: little, because most threads have little to say.
NARROW: Final = 16 * 1024
#: Bytes of each ring once a thread has sent or received something longer.
WIDE: Final = 1024 * 1024

_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_DAEMON_BELL: Final = 0
_THREAD_BELL: Final = 64
_DOWN: Final = 128


class RingPair:
    """The rings of one thread.

    Attributes:
        down: traps; the thread produces.
        up: answers; the daemon produces.
        daemon_bell: armed while nobody looks at ``down``.
        thread_bell: armed while the thread sleeps.
        longest: bytes of the longest entry that always fits once the ring is empty.
        descriptor: the memory, as long as this side owns it until ``close``; -1 if it does not.
    """

    __slots__ = ("_mapping", "daemon_bell", "descriptor", "down", "longest", "thread_bell", "up")

    def __init__(self, mapping: mmap.mmap, descriptor: int = -1) -> None:
        self._mapping = mapping
        self.descriptor = descriptor
        view = memoryview(mapping)
        capacity = (len(mapping) - _DOWN) // 2 - layout.SPREAD_RING
        up = _DOWN + layout.SPREAD_RING + capacity
        self.daemon_bell = Doorbell(view, _DAEMON_BELL)
        self.thread_bell = Doorbell(view, _THREAD_BELL)
        self.down = Ring(view[_DOWN:up], capacity, spread=True)
        self.up = Ring(view[up:], capacity, spread=True)
        self.longest = longest_of(capacity)

    @property
    def is_wide(self) -> bool:
        return self.up.capacity >= WIDE

    def state(self) -> list[list[int]]:
        """What this side remembers beside the memory; for ``resume``."""
        return [self.down.state(), self.up.state()]

    def close(self) -> None:
        """Let go of the descriptor.  The memory goes with the last view of it."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def longest_of(capacity: int) -> int:
    """Bytes of the longest entry that always fits into an empty ring: wherever it stands, a half is free (Q7)."""
    return capacity // 2 - layout.ENTRY_HEADER_SIZE - 1


def create(capacity: int) -> RingPair:
    """New rings of ``capacity`` bytes each, with the descriptor to send to the thread.

    Raises:
        LimitReached: no memory or descriptor is left.
    """
    size = _DOWN + 2 * (layout.SPREAD_RING + capacity)
    try:
        memory = os.memfd_create("machport-traps", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError as error:
        raise _shortage(error) from None
    try:
        os.posix_fallocate(memory, 0, size)
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)
        return RingPair(map_shared(memory, size), memory)
    except OSError as error:
        os.close(memory)
        raise _shortage(error) from None


def attach(memory: int) -> RingPair:
    """The thread's end of rings that the daemon made.  The descriptor stays the caller's.

    Raises:
        ProtocolError: it is no such memory.
        LimitReached: it cannot be mapped now.
    """
    try:
        sealed = fcntl.fcntl(memory, fcntl.F_GET_SEALS) & _SEALS == _SEALS
        size = os.fstat(memory).st_size
    except OSError:
        sealed, size = False, 0
    if not sealed or size not in _SIZES:
        raise ProtocolError("what came as the memory of traps is not that")
    try:
        return RingPair(map_shared(memory, size))
    except OSError as error:
        raise _shortage(error) from None


def resume(memory: int, state: Sequence[Sequence[int]]) -> RingPair:
    """The daemon's end of rings that another process had until now, and which uses them no more.

    Args:
        memory: their descriptor, which is the new rings' if this returns.
        state: what ``RingPair.state`` said there.

    Raises:
        ProtocolError: it is no such memory, or no such state.
        LimitReached: it cannot be mapped now.
    """
    pair = attach(memory)
    try:
        down, up = state
        pair.down.resume(down)
        pair.up.resume(up)
    except (QueueMisuse, TypeError, ValueError) as error:
        raise ProtocolError(f"what came as the state of a thread's rings is not that: {error}") from None
    pair.descriptor = memory
    return pair


_SIZES: Final = {_DOWN + 2 * (layout.SPREAD_RING + capacity) for capacity in (NARROW, WIDE)}


def _shortage(error: OSError) -> LimitReached:
    lacking = "descriptor" if error.errno in (errno.EMFILE, errno.ENFILE) else "memory"
    return LimitReached(f"no {lacking} is left for a thread's traps: {error.strerror}")
