"""The lifeline of this process, by which the daemon sees its death before the system has taken it down.

One for all tasks of the process, held by the thread that joins the first of them.  That should be the main thread,
which as a rule lives as long as the process; the daemon learns of no death too early otherwise, only of none early.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

from machport.abi import traps as t
from machport.abi.errors import MachError


class _Lifeline(NamedTuple):
    descriptor: int
    file: tuple[int, int]
    offset: int

    @property
    def holds(self) -> bool:
        """Whether its thread lives, and the descriptor was not closed behind our back."""
        # Imported only where a task is joined: the package must load fast.
        from machport.ring import lifeline

        with contextlib.suppress(OSError):
            return _file_of(self.descriptor) == self.file and not lifeline.is_slack(self.descriptor, self.offset)
        return False


_held: _Lifeline | None = None
_lock = threading.Lock()


def offer(trap: Callable[[bytes, Sequence[int]], object]) -> None:
    """Give the daemon this process's lifeline; where that cannot be, deaths are seen later, and nobody is told.

    Args:
        trap: carries a trap on the connection of a task.
    """
    with contextlib.suppress(OSError, MachError):
        with _lock:
            held = _hold()
        if held is not None:
            trap(t.LIFELINE.pack(held.offset), [held.descriptor])


def _hold() -> _Lifeline | None:
    """The lifeline of this process, made now if there is none."""
    global _held
    from machport.ring import lifeline

    if _held is not None and _held.holds:
        return _held
    if _held is not None and threading.get_native_id() != os.getpid():
        # Its page stays mapped.  Threads that come and go may not each leave one behind.
        return None
    _let_go()
    descriptor, offset = lifeline.hold()
    _held = _Lifeline(descriptor, _file_of(descriptor), offset)
    return _held


def _let_go() -> None:
    """Close the descriptor, unless it is another file's by now."""
    global _held
    held, _held = _held, None
    with contextlib.suppress(OSError):
        if held is not None and _file_of(held.descriptor) == held.file:
            os.close(held.descriptor)


def _file_of(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def _after_fork() -> None:
    """In a forked child: the lifeline is its parent's, and its page is not mapped here."""
    global _lock
    _lock = threading.Lock()
    _let_go()


os.register_at_fork(after_in_child=_after_fork)
