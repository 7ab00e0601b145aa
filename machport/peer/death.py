"""How a process ended: who it was, and what the system tells of the end.

The system tells it to whoever holds a pidfd, to the parent at once and to others (since Linux 6.15) when the parent has
collected the process.  So what is not known yet may be known later: ask again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
import struct
import time
from typing import Final

#: PIDFD_GET_INFO for the first version of its structure: mask, cgroup, eleven numbers, and the wait status.
_GET_INFO: Final = 0xC040FF0B
_INFO: Final = struct.Struct("=QQ11Ii")
_INFO_EXIT: Final = 1 << 3


class Death:
    """The end of a process.

    Attributes:
        pid: its number, as this process saw it.
        label: what it called itself; not attested.
        when: when its end was noticed here, in seconds since the epoch.
    """

    def __init__(self, pid: int, label: str, pidfd: int, *, dead: bool = False) -> None:
        """Take a pidfd over, which is closed as soon as there is nothing more to ask; -1 for none.

        Args:
            dead: it is known to be dead, whatever the pidfd says by now.
        """
        self._dead = dead or pidfd < 0
        self.pid = pid
        self.label = label
        self.when = time.time()
        self._pidfd = pidfd
        self._status: int | None = None

    @property
    def signal(self) -> int | None:
        """The signal that killed it; None if none did, or if that is not known, or not known yet."""
        status = self._wait_status()
        return os.WTERMSIG(status) if status is not None and os.WIFSIGNALED(status) else None

    @property
    def exit_code(self) -> int | None:
        """What it exited with; None if it was killed, or if that is not known, or not known yet."""
        status = self._wait_status()
        return os.WEXITSTATUS(status) if status is not None and os.WIFEXITED(status) else None

    def wait(self, timeout: float = 1.0) -> bool:
        """Wait until the system says how it ended, for so many seconds at most; whether it has.

        It says so when the process has let go of all it had; to others than its parent when that has collected it.
        """
        end = time.monotonic() + timeout
        # Readable when it has ended, and hung up when it was collected.
        for events in (select.POLLIN, 0):
            if self._wait_status() is not None or self._pidfd < 0:
                break
            poll = select.poll()
            poll.register(self._pidfd, events)
            poll.poll(max(end - time.monotonic(), 0) * 1000)
        return self._wait_status() is not None

    def _wait_status(self) -> int | None:
        if self._status is None and self._pidfd >= 0:
            self._status = wait_status(self._pidfd)
            if self._status is not None:
                self._close()
        return self._status

    def _has_ended(self) -> bool:
        if self._dead or self._pidfd < 0:
            return True
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def _close(self) -> None:
        pidfd, self._pidfd = self._pidfd, -1
        if pidfd >= 0:
            with contextlib.suppress(OSError):
                os.close(pidfd)

    def __del__(self) -> None:
        self._close()

    def __str__(self) -> str:
        if not self.pid and not self.label:
            return "nobody had it"
        who = f"process {self.pid}" + (f" ({self.label})" if self.label else "")
        number, code = self.signal, self.exit_code
        if number is not None:
            with contextlib.suppress(ValueError):
                return f"{who} was killed by {signal.Signals(number).name}"
            return f"{who} was killed by signal {number}"
        if code is not None:
            return f"{who} exited with {code}"
        return f"{who} has ended, and the system has not said how" if self._has_ended() else f"{who} lives"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self}>"

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (self.pid, self.label, self.when, self._wait_status())


def _rebuild(pid: int, label: str, when: float, status: int | None) -> Death:
    death = Death(pid, label, -1)
    death.when = when
    death._status = status
    return death


def wait_status(pidfd: int) -> int | None:
    """How the process of a pidfd ended, as ``wait`` has it; None if it has not, or nobody may know, or not yet."""
    with contextlib.suppress(OSError):
        child = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if child is not None:
            if child.si_code == os.CLD_EXITED:
                return child.si_status << 8
            return child.si_status | (0x80 if child.si_code == os.CLD_DUMPED else 0)
    try:
        answer = fcntl.ioctl(pidfd, _GET_INFO, _INFO.pack(_INFO_EXIT, *([0] * 13)))
    except OSError as error:
        if error.errno not in (errno.ENOTTY, errno.EINVAL, errno.ESRCH, errno.EREMOTE, errno.EPERM):
            raise
        return None
    mask, *_, status = _INFO.unpack(answer)
    return int(status) if mask & _INFO_EXIT else None
