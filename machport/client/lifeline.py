"""The daemon is given this process's lifeline, by which it sees its death early."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from machport.abi import traps as t
from machport.abi.errors import MachError
from machport.peer import lifeline


def offer(trap: Callable[[bytes, Sequence[int]], object]) -> None:
    """Give it; where that cannot be, deaths are seen later, and nobody is told.

    Args:
        trap: carries a trap on the connection of a task.
    """
    with contextlib.suppress(OSError, MachError):
        held = lifeline.held()
        if held is not None:
            trap(t.LIFELINE.pack(held.offset), [held.descriptor])
