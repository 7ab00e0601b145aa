"""Views of shared memory that tell when the last of them is gone: the interpreted twin of ``lending.pxd``.

For ``machport.ring.queue`` only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class _Hold:
    """What all views of a lent entry keep alive."""

    def __init__(self, ring: Any, loan: Any, ended: Callable[[Any, Any], None]) -> None:
        self._ring = ring
        self._loan = loan
        self._ended = ended

    def __del__(self) -> None:
        self._ended(self._ring, self._loan)


def lend(
    memory: memoryview, offset: int, size: int, ring: Any, loan: Any, ended: Callable[[Any, Any], None]
) -> memoryview:
    """A read-only view of ``size`` bytes at ``offset``; ``ended(ring, loan)`` is called when nobody has it any more.

    Nor anything that is made of it.  ``ended`` must not raise, and ``ring`` must keep the memory.
    """
    # Imported only where it is used: the compiled form does without.
    import ctypes

    room = (ctypes.c_char * size).from_buffer(memory, offset)
    room.hold = _Hold(ring, loan, ended)  # type: ignore[attr-defined]
    return memoryview(room).cast("B").toreadonly()
