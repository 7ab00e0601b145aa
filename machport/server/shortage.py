"""What the daemon does when its own memory is nearly used up: the largest holders get nothing more, and all others do.

The system would end the whole daemon, or let some allocation in the middle of anything fail.  So the daemon looks at
itself every few milliseconds, and leaves a part of what it may have untouched.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from machport.server.limits import Account, quota_of
from machport.server.log import event

_log: Final = logging.getLogger("machport.daemon")
#: Seconds between two looks.
_PAUSE: Final = 0.01
#: Bytes that a name, and a message beside its content, take about.
_NAME: Final = 480
_MESSAGE: Final = 400
#: A holder with less than this part of all that is held is never to blame.
_SHARE: Final = 8
#: Bytes that anybody may hold; and if nobody holds such a part.
_SMALL: Final = 4 << 20
_LEAST: Final = 64 << 10


class Shortage:
    """The daemon's memory.

    Args:
        limit: bytes that it may have; 0 for half of what the system or a limit of the process allows.
        accounts: of all tasks.
        clock: seconds, of which only differences count.
    """

    def __init__(
        self,
        limit: int,
        accounts: Callable[[], Iterable[Account]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._resident_max = limit or _resident_limit() // 2
        self._virtual_max = _virtual_limit()
        self._accounts = accounts
        self._clock = clock
        self._next = 0.0
        self._held: list[Account] = []
        #: Bytes of the daemon when it last held anybody.
        self._size = 0
        with contextlib.suppress(OSError):
            self._statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)

    @property
    def is_there(self) -> bool:
        return bool(self._held)

    def look(self) -> None:
        """Look at the daemon's memory, if it is time to."""
        now = self._clock()
        if now < self._next:
            return
        self._next = now + _PAUSE
        virtual, resident = self._sizes()
        if resident >= self._resident_max or virtual >= self._virtual_max:
            self._hold(virtual + resident)
        elif self._held and resident < self._resident_max * 0.9 and virtual < self._virtual_max * 0.95:
            self.release()

    def release(self) -> None:
        """Everybody has the limits of the settings again."""
        held, self._held = self._held, []
        self._size = 0
        for account in held:
            if account.task.active:
                account.limit_to(account.limits)

    def _hold(self, present: int) -> None:
        """Nothing more for those with a large part; or for the largest that have one together.

        Of the latter there are more whenever the daemon has grown nevertheless: it grows no smaller at once.
        """
        held = set(self._held)
        sizes = [(size_of(account), account) for account in self._accounts() if account not in held]
        total = sum(size for size, _ in sizes)
        largest = [(size, account) for size, account in sizes if size > _SMALL and size * _SHARE > total]
        if not largest and (not held or present > self._size + _SMALL):
            largest = list(_largest(sizes, total))
        if largest:
            self._size = present
        for size, account in largest:
            _log.warning(
                "memory is short: task %s of process %d has about %d MiB of the daemon's and gets no more",
                account.task.label,
                account.pid,
                size >> 20,
                extra=event("memory_short", task=account.task.number, label=account.task.label, pid=account.pid),
            )
            self._held.append(account)
            account.task.space.limit = len(account.task.space.entries) + account.task.space.lent
            quota = quota_of(account.task)
            quota.sending_max = quota.sending
            quota.limit_to(quota.messages, quota.bytes)

    def _sizes(self) -> tuple[int, int]:
        pages = os.pread(self._statm, 64, 0).split()
        return int(pages[0]) * resource.getpagesize(), int(pages[1]) * resource.getpagesize()


def _largest(sizes: list[tuple[int, Account]], total: int) -> Iterator[tuple[int, Account]]:
    """The largest of those that hold something, until together they have a large part."""
    part = 0
    for size, account in sorted(sizes, key=lambda pair: -pair[0]):
        if size <= _LEAST or part * _SHARE > total:
            return
        part += size
        yield size, account


def size_of(account: Account) -> int:
    """Bytes of the daemon that a task's rights and messages take about; those of its waiting children are its own."""
    space = account.task.space
    if space.maker is not None:
        return 0
    quota = quota_of(account.task)
    names = len(space.entries) + space.lent
    return names * _NAME + quota.messages * _MESSAGE + quota.bytes + quota.sending


def _resident_limit() -> int:
    limit = os.sysconf("SC_PHYS_PAGES") * resource.getpagesize()
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            limit = min(limit, int(Path(path).read_text()))
    return limit


def _virtual_limit() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return (1 << 62) if soft == resource.RLIM_INFINITY else soft * 3 // 4
