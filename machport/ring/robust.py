"""Robust mutexes, and waiting for many of them: the interpreted twin of ``robust.pxd``.

For ``machport.ring.lifeline`` only.  Python has neither, so nothing here does anything; this file says what the
native functions promise, and ``NATIVE`` that they are missing.  They return minus an ``errno`` where they can fail.
"""

from __future__ import annotations

import errno
from typing import Any, Final

#: Whether this is the form that works.
NATIVE: Final = False
#: What ``wait`` answers if the bell rang.
BELL: Final = 0
AGAIN: Final = -errno.EAGAIN
FAULT: Final = -errno.EFAULT
TIMED_OUT: Final = -errno.ETIMEDOUT
INTERRUPTED: Final = -errno.EINTR


def page() -> int:
    """Bytes of a page, which is what a lifeline has."""
    return 0


def hold(descriptor: int) -> int:
    """Lock a robust mutex in a page of shared memory by this thread, for life; the offset of its word.

    The page stays mapped, because the C library has it in a list of the thread, and no forked child gets it.
    """
    return -errno.ENOSYS


def view(descriptor: int) -> Any:
    """Map a sealed page of somebody else's, to be waited for.

    Raises:
        OSError: it cannot be mapped.
    """
    raise OSError(errno.ENOSYS, "not built")


def unview(memory: Any) -> None:
    """Undo ``view``."""


def load(memory: Any, offset: int) -> int:
    """The word as it stands."""
    return 0


def make() -> Any:
    """A bell, and room for 127 words."""


def free(words: Any) -> None:
    """Undo ``make``."""


def add(words: Any, memory: Any, offset: int, value: int) -> bool:
    """Wait for a word, too, as long as it is ``value``; False if there is no room.  Its index is the next one."""
    return False


def remove(words: Any, index: int) -> None:
    """Do not wait for it any more; the last one gets its index."""


def ring(words: Any) -> None:
    """From another thread: let ``wait`` return, this time or the next."""


def heard(words: Any) -> None:
    """The bell may ring again."""


def wait(words: Any, nanoseconds: int) -> int:
    """Sleep, without the interpreter lock, until a word is woken, and for ever if ``nanoseconds`` is negative.

    Returns:
        The index of the word; ``AGAIN`` if one of them is not what it was, ``FAULT`` if one cannot be read,
        ``TIMED_OUT``, or ``INTERRUPTED``.
    """
    return -errno.ENOSYS


def as_it_was(words: Any, index: int) -> bool:
    """Whether a word can be read and is what it was."""
    return False


def wake(words: Any, index: int) -> None:
    """Wake whoever else waits for a word."""


def threads_left(process: int) -> int:
    """How many threads a process has whose first thread is exiting; 0 if that is not."""
    return -errno.ENOSYS
