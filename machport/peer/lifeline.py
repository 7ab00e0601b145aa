"""The lifeline of this process, by which others see its death before the system has taken it down.

One for all, held by the thread that first needs it.  That should be the main thread, which as a rule lives as long as
the process; otherwise nobody learns of a death too early, only of none early.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import NamedTuple


class Lifeline(NamedTuple):
    """A word that a thread of this process holds: the memory's descriptor, and where in it."""

    descriptor: int
    file: tuple[int, int]
    offset: int

    @property
    def holds(self) -> bool:
        """Whether its thread lives, and the descriptor was not closed behind our back."""
        # Imported only where it is needed: the package must load fast.
        from machport.ring import lifeline

        with contextlib.suppress(OSError):
            return _file_of(self.descriptor) == self.file and not lifeline.is_slack(self.descriptor, self.offset)
        return False


_held: Lifeline | None = None
# The handler of a signal may come here while its thread is here.
_lock = threading.RLock()


def held() -> Lifeline | None:
    """The lifeline of this process, made now if there is none; None where there can be none."""
    with contextlib.suppress(OSError), _lock:
        return _hold()
    return None


def _hold() -> Lifeline | None:
    global _held
    from machport.ring import lifeline

    if _held is not None and _held.holds:
        return _held
    if _held is not None and threading.get_native_id() != os.getpid():
        # Its page stays mapped.  Threads that come and go may not each leave one behind.
        return None
    _let_go()
    descriptor, offset = lifeline.hold()
    _held = Lifeline(descriptor, _file_of(descriptor), offset)
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
    _lock = threading.RLock()
    _let_go()


os.register_at_fork(after_in_child=_after_fork)
