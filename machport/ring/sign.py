# cython: annotation_typing=False, auto_pickle=False
"""A word of shared memory that one side writes and the other reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from machport.ring import memory

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class Sign:
    """One word; what the other side writes into it is not believed by anybody but who asks for it."""

    def __init__(self, buffer: WriteableBuffer, offset: int) -> None:
        """Use the u32 at ``offset``, a multiple of four, of ``buffer``."""
        self._view = memoryview(buffer).cast("B")[offset : offset + 4]
        self._memory = memory.address(self._view)
        if self._view.nbytes != 4 or self._view.readonly or not memory.aligned(self._memory):
            raise ValueError(f"there is no word to write at offset {offset}")

    def read(self) -> int:
        """What stands there; what was written before it is visible."""
        return memory.load_acquire(self._memory, 0)

    def write(self, value: int) -> None:
        """Let the other side see this, and everything that was written before."""
        memory.store_release(self._memory, 0, value)
