"""A real daemon of a test's own."""

from __future__ import annotations

import select
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from machport.abi.errors import DaemonUnavailable
from machport.face.closing import Closing

#: Seconds after which it will not start, or stop, any more.
_PATIENCE: Final = 30.0


class PrivateDaemon(Closing):
    """A daemon that listens in a directory of its own, which goes with it.

    Attributes:
        path: its socket, for ``MACHPORT_SOCKET`` or ``Task(path=...)``.

    Raises:
        DaemonUnavailable: it does not start; the text is its own reason.
    """

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="machport-")
        self.path = Path(self._directory.name, "daemon.sock")
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "machport.server", "--ready", "--socket", str(self.path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], _PATIENCE)
        if not ready or not self._process.stdout.readline():
            self.kill()
            reason = self._said() or "it gave no reason"
            self._forget()
            raise DaemonUnavailable(f"a daemon for the test does not start: {reason}")

    @property
    def pid(self) -> int:
        """Number of its process."""
        return self._process.pid

    def kill(self) -> None:
        """End it by SIGKILL: every task of it is lost."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Stop it as a service manager would; again does nothing.

        Raises:
            AssertionError: it had a fault of its own, which is in the text.
        """
        if self._log.closed:
            return
        killed = self._process.poll() is not None
        self._process.terminate()
        try:
            exitcode = self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            exitcode = self._process.returncode
        said = self._said()
        self._forget()
        assert (exitcode == 0 or killed) and "Traceback" not in said, f"the daemon ended with {exitcode}: {said}"

    def _said(self) -> str:
        self._log.seek(0)
        return self._log.read().strip()

    def _forget(self) -> None:
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._log.close()
        self._directory.cleanup()
