"""How a process, or its task, ended: who it was, and what the system tells of the end.

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
from collections.abc import Callable
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

    @classmethod
    def of_child(cls, pid: int, label: str, exitcode: int) -> Death:
        """That of a child of this process: what it exited with, or minus the signal that killed it."""
        return _rebuild(pid, label, time.time(), -exitcode if exitcode < 0 else exitcode << 8)

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
        known = self._wait_status() is not None
        if known:
            self._close()
        return known

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
        return (
            f"{who} {self._how() or 'has ended, and the system has not said how'}"
            if self._has_ended()
            else f"{who} lives"
        )

    def _how(self) -> str:
        """What happened to it; "" if that is not known."""
        number, code = self.signal, self.exit_code
        if number is not None:
            with contextlib.suppress(ValueError):
                return f"was killed by {signal.Signals(number).name}"
            return f"was killed by signal {number}"
        return "" if code is None else f"exited with {code}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self}>"

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (self.pid, self.label, self.when, self._wait_status())


def _rebuild(pid: int, label: str, when: float, status: int | None) -> Death:
    death = Death(pid, label, -1)
    death.when = when
    death._status = status
    return death


#: Why a task ended whose process may have been about to end: so it is found out how that ended, too.
LET_GO: Final = "let its connection go"


class Obituary(Death):
    """The end of a task, as its daemon tells it.  Equal ones are of the same task.

    Attributes:
        pid: number of its process, as the daemon saw it; 0 if it had none.
        label: what the task called itself, with that number.
        when: when the daemon noticed, in seconds since the epoch.
        reason: what ended the task if it was not the end of its process, such as "closed its task"; else "".  It does
            not count once it is known how the process ended.
    """

    def __init__(
        self,
        label: str,
        pid: int,
        when: float,
        *,
        status: int | None = None,
        reason: str = "",
        ask_again: Callable[[], int | None] | None = None,
    ) -> None:
        """Tell what is known so far.

        Args:
            status: how the process ended, as ``wait`` has it; None if that is not known yet.
            ask_again: what may know it later.
        """
        super().__init__(pid, label, -1)
        self.when = when
        self.reason = reason
        self._status = status
        self._ask_again = ask_again

    @property
    def status(self) -> int | None:
        """How the process ended, as ``wait`` has it; None if it has not, or that is not known, or not yet."""
        return self._wait_status()

    def learn(self, status: int | None) -> bool:
        """The system was asked how the process ended; whether that is known now."""
        self._status = status
        return status is not None

    def _wait_status(self) -> int | None:
        if self._status is None and self.reason in ("", LET_GO):
            self._status = self._status_of_child()
            if self._status is None and self._ask_again is not None:
                self._status = self._ask_again()
        return self._status

    def _status_of_child(self) -> int | None:
        """What the system tells this process of its own child, before anybody has collected it."""
        if not self.pid:
            return None
        try:
            pidfd = os.pidfd_open(self.pid)
        except OSError:
            return None
        try:
            return wait_status(pidfd)
        finally:
            os.close(pidfd)

    def wait(self, timeout: float = 1.0) -> bool:
        """As ``Death.wait``."""
        if self.pid and self._wait_status() is None:
            with contextlib.suppress(OSError):
                self._pidfd = os.pidfd_open(self.pid)
        return super().wait(timeout)

    @property
    def how(self) -> str:
        """What ended it, in words."""
        return self._how() or self.reason or "ended, and the system has not said how,"

    def __str__(self) -> str:
        return f"task {self.label} {self.how} at {time.strftime('%H:%M:%S', time.localtime(self.when))}"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Obituary):
            return NotImplemented
        return (self.label, self.pid, self.when) == (other.label, other.pid, other.when)

    def __hash__(self) -> int:
        return hash((self.label, self.pid, self.when))

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_obituary, (self.label, self.pid, self.when, self._wait_status(), self.reason)


def _rebuild_obituary(label: str, pid: int, when: float, status: int | None, reason: str) -> Obituary:
    return Obituary(label, pid, when, status=status, reason=reason)


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
