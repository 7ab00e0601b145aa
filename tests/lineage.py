"""A daemon whose place other processes take, one after the other."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from actors import PATIENCE, DaemonProcess, RawTask

import machport
from machport.client.upgrade import Upgraded, upgrade
from machport.server import fault


class Resources(NamedTuple):
    """Descriptors, resident pages, and mappings of a process."""

    descriptors: int
    memory: int
    mappings: int


class Lineage(DaemonProcess):
    """A daemon and those that take its place.

    Attributes:
        faults: where it is looked up at which step a daemon dies.
    """

    def __init__(self, path: Path, *arguments: str, preexec_fn: Callable[[], None] | None = None) -> None:
        self.faults = path.with_name("fault")
        os.environ[fault.VARIABLE] = str(self.faults)
        try:
            super().__init__(path, *arguments, preexec_fn=preexec_fn)
        finally:
            del os.environ[fault.VARIABLE]

    @property
    def pid(self) -> int:
        """The process that is the daemon, as its lock file says."""
        return int(self.path.with_name(self.path.name + ".lock").read_text())

    def upgrade(self) -> Upgraded:
        """Let another process take its place."""
        done = upgrade(self.path)
        assert done.new_pid == self.pid != done.old_pid
        return done

    def resources(self) -> Resources:
        """What the process that is the daemon has of the system."""
        process = Path("/proc", str(self.pid))
        # By the time it lets this one in, it has seen that others have gone.
        with RawTask(self.path):
            pages = int((process / "statm").read_text().split()[1])
            return Resources(self.descriptors(), pages, len((process / "maps").read_text().splitlines()))

    def wait_for_successor(self, pid: int) -> None:
        """Return when another process than ``pid`` is the daemon, which has ended by then."""
        if pid == self.process.pid:
            self.process.wait(PATIENCE)
        else:
            wait_for_end(pid)
        # It answers whoever connects as soon as it serves.
        with machport.Task(label="wait", path=self.path):
            assert self.pid != pid

    def close(self) -> None:
        """Stop it; it must leave no socket."""
        if self.path.exists():
            pid = self.pid
            if pid != self.process.pid:
                os.kill(pid, signal.SIGTERM)
                wait_for_end(pid)
                assert self.process.wait(PATIENCE) in (0, -signal.SIGKILL), self.log()
                assert not self.path.exists()
        super().close()


def wait_for_end(pid: int) -> None:
    """Return when a process has ended."""
    with contextlib.suppress(ProcessLookupError):
        pidfd = os.pidfd_open(pid)
        try:
            ended, _, _ = select.select([pidfd], [], [], PATIENCE)
            assert ended, f"process {pid} does not end"
        finally:
            os.close(pidfd)
