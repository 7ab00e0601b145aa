# cython: annotation_typing=False, auto_pickle=False
# The annotations speak to readers and mypy; the C types are in lifeline.pxd.
"""Lifelines: a process holds a word in shared memory, and others are woken when it goes slack.

The word belongs to a robust mutex that a thread has locked for life.  When the thread ends, by whatever cause, the
system goes through its robust mutexes before it lets go of its memory, marks their words, and wakes who waits.  That
is long before a pidfd or the end of a socket tells: taking down a gigabyte lasts a tenth of a second.

A slack line is a sign and no proof: a thread may end and its process live, a program may be replaced by another, and
whoever holds the word may write what it likes.  ``machport.server.deaths`` makes sure.

Nothing that the holder does to its memory harms who waits: the word is compared by the system, never by this
process, so that memory which is taken away is an error code; and every word gives one sign and is dropped.

Compiled only: there are no interpreted mutexes.  The interpreted form says that it cannot.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from typing import Final

from machport.ring import robust

_WORD: Final = struct.Struct("=I")
_WAITERS: Final = 0x80000000
_OWNER_DIED: Final = 0x40000000
_OWNER: Final = 0x3FFFFFFF
#: Since Linux 5.1.
_FUTURE_WRITE: Final = 0x0010
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW


def is_compiled() -> bool:
    """Whether the native form is loaded, the only one that works."""
    return robust.NATIVE != 0


def hold() -> tuple[int, int]:
    """Let the calling thread hold a word for the rest of its life.

    Returns:
        The descriptor of the memory, which the caller owns and may close, and the offset of the word.

    Raises:
        OSError: the form is interpreted, the system or the C library has no robust mutexes where they are looked
            for, or no memory or descriptor is left.
    """
    if not robust.NATIVE:
        raise OSError(errno.ENOSYS, "lifelines need the native part: python setup.py build_ext --inplace")
    memory = os.memfd_create("machport-lifeline", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.posix_fallocate(memory, 0, robust.page())
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)
        offset = robust.hold(memory)
        if offset < 0:
            raise OSError(-offset, os.strerror(-offset))
        # From here on nobody else who gets the page can write to it, if the system knows this seal.
        with contextlib.suppress(OSError):
            fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _FUTURE_WRITE)
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL)
    except OSError:
        os.close(memory)
        raise
    return memory, offset


def is_slack(descriptor: int, offset: int) -> bool:
    """Whether the thread that held a word has ended."""
    word = os.pread(descriptor, _WORD.size, offset)
    return len(word) < _WORD.size or not _WORD.unpack(word)[0] & _OWNER


def threads_left(process: int) -> int:
    """How many threads are in the list of a process whose first thread is exiting; 0 if that is not.

    A thread that is exiting never returns to its program, and starts no thread.  It is in the list until it has ended
    altogether, and the first one until the whole process has.

    Raises:
        OSError: it cannot be seen.
    """
    count = robust.threads_left(process)
    if count < 0:
        raise OSError(-count, os.strerror(-count))
    return count


class Word:
    """A word that a thread of another process holds.

    Attributes:
        offset: where it is in its page.
        value: what it is as long as the thread lives: its number in its own process namespace, and a flag.
    """

    def __init__(self, descriptor: int, offset: int) -> None:
        """Look at a word as the holder describes it; the descriptor may be closed afterwards.

        Raises:
            ValueError: it is not the sealed memory of a lifeline, or nobody holds the word.
            OSError: the memory cannot be mapped, or the form is interpreted.
        """
        if not robust.NATIVE:
            raise OSError(errno.ENOSYS, "lifelines need the native part")
        seals = 0
        with contextlib.suppress(OSError):
            seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
        # Only memory has seals: a page of a file system that the holder serves could take for ever to come.  A huge
        # page is longer than this and may not come at all.
        if seals & _SEALS != _SEALS or os.fstat(descriptor).st_size != robust.page():
            raise ValueError("a lifeline is a sealed memfd of one page")
        if offset % _WORD.size or offset > robust.page() - _WORD.size:
            raise ValueError(f"there is no word at offset {offset} of a page")
        value = _WORD.unpack(os.pread(descriptor, _WORD.size, offset))[0]
        if value & _OWNER_DIED or not value & _WAITERS or not value & _OWNER:
            raise ValueError(f"the word is {value:#x}, which is not how a thread holds it")
        self.offset = offset
        self.value = value
        self._memory = robust.view(descriptor)

    def is_slack(self) -> bool:
        """Whether the word is not as a living thread holds it.

        A load from the holder's memory: its seals keep it from taking the page away.
        """
        word: int = robust.load(self._memory, self.offset)
        return bool(word != self.value)

    def __del__(self) -> None:
        if robust.NATIVE:
            robust.unview(self._memory)


class Watch:
    """Up to 127 words that one thread waits for, and a bell for the others to call it.

    Everything but ``ring`` is for that thread.

    Raises:
        OSError: the form is interpreted, or the system cannot wait for many words (before Linux 5.16).
    """

    def __init__(self) -> None:
        if not robust.NATIVE:
            raise OSError(errno.ENOSYS, "lifelines need the native part")
        self._held: list[Word | None] = [None]
        self._words = robust.make()
        robust.ring(self._words)
        # The bell rings already, so this does not wait.
        answer = robust.wait(self._words, 0)
        if answer != robust.AGAIN:
            raise OSError(-answer, os.strerror(-answer))
        robust.heard(self._words)

    def __del__(self) -> None:
        if robust.NATIVE:
            robust.free(self._words)

    def __len__(self) -> int:
        """How many words are waited for."""
        return len(self._held) - 1

    def add(self, word: Word) -> bool:
        """Wait for a word, too; False if there is no room."""
        if not robust.add(self._words, word._memory, word.offset, word.value):
            return False
        self._held.append(word)
        return True

    def remove(self, word: Word) -> None:
        """Do not wait for a word any more, if it is waited for."""
        for index in range(1, len(self._held)):
            if self._held[index] is word:
                self._take(index)
                break

    def ring(self) -> None:
        """From another thread: let ``wait`` return, now or when it is called next."""
        robust.ring(self._words)

    def wait(self, seconds: float = -1.0) -> list[Word]:
        """Sleep until a word goes slack, the bell rings, or the time is over; for ever if it is negative.

        Returns:
            The words that gave a sign: they were woken, or cannot be read as they were.  They are waited for no more.

        Raises:
            OSError: the system does not wait.
        """
        answer = robust.wait(self._words, int(seconds * 1e9) if seconds >= 0 else -1)
        robust.heard(self._words)
        if answer > robust.BELL:
            # The system wakes one, and the holder may be a task of several daemons.
            robust.wake(self._words, answer)
            return [self._take(answer)]
        if answer in (robust.AGAIN, robust.FAULT):
            changed = [i for i in range(len(self._held) - 1, 0, -1) if not robust.as_it_was(self._words, i)]
            for index in changed:
                robust.wake(self._words, index)
            return [self._take(index) for index in changed]
        if answer not in (robust.BELL, robust.TIMED_OUT, robust.INTERRUPTED):
            raise OSError(-answer, os.strerror(-answer))
        return []

    def _take(self, index: int) -> Word:
        """Take a word out; the last one gets its place."""
        word, last = self._held[index], self._held.pop()
        if last is not word:
            self._held[index] = last
        robust.remove(self._words, index)
        assert word is not None
        return word
