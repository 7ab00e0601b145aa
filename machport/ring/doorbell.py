# cython: annotation_typing=False, auto_pickle=False
"""The word by which one side of a ring learns that the other one sleeps.

For the trap path and for data queues.  A sleeper arms its bell, looks at the ring once more, and sleeps; whoever
publishes rings the bell afterwards, and wakes the sleeper only if the bell was armed.  How one sleeps and is woken is
not known here.

No wake-up is lost: the sleeper stores *armed* and then loads the ring's tail, the publisher stores the tail and then
loads *armed*, and a sequentially consistent fence stands between the two on either side.  So at least one of them sees
what the other stored.  No wake-up is given twice: the bell is disarmed by an exchange, which only one of the two wins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from machport.ring import layout, memory

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class Doorbell:
    """One word of shared memory, written by both sides; nothing that it says is believed."""

    def __init__(self, buffer: WriteableBuffer, offset: int) -> None:
        """Use the u32 at ``offset``, a multiple of four, of ``buffer``."""
        self._view = memoryview(buffer).cast("B")[offset : offset + 4]
        self._memory = memory.address(self._view)
        if self._view.nbytes != 4 or self._view.readonly or not memory.aligned(self._memory):
            raise ValueError(f"there is no word to write at offset {offset}")

    def arm(self, way: int = layout.ARMED) -> None:
        """The sleeper: say that this side is about to sleep.  What it looks at afterwards is what counts."""
        memory.exchange(self._memory, 0, way)  # its order is that of a fence before the sleeper's next load
        memory.fence()  # pairs with the fence in ring

    def disarm(self) -> bool:
        """The sleeper: stay awake after all.  False if the other side rang before, and a wake-up is on its way."""
        # Against the exchange in ring: one of them wins.
        return layout.ARMED <= memory.exchange(self._memory, 0, layout.SILENT) <= layout.WAYS

    def is_armed(self, way: int = layout.SILENT) -> bool:
        """Whether it is armed, with ``way`` if one is given."""
        armed = memory.load_relaxed(self._memory, 0)
        return layout.ARMED <= armed <= layout.WAYS and way in (layout.SILENT, armed)

    def ring(self) -> int:
        """The publisher, after it has published: how the other side must be woken, which is this caller's to do.

        ``SILENT`` if it need not be.
        """
        memory.fence()  # pairs with the fence in arm: the tail is stored before the bell is looked at
        if not layout.ARMED <= memory.load_relaxed(self._memory, 0) <= layout.WAYS:
            return layout.SILENT
        way = memory.exchange(self._memory, 0, layout.SILENT)  # against the exchange in disarm: one of them wins
        return way if layout.ARMED <= way <= layout.WAYS else layout.SILENT
