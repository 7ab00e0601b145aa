"""Starting this user's daemon at first use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

from machport.abi.errors import DaemonUnavailable

#: Seconds without a task after which a daemon that was started this way ends.
IDLE_EXIT: Final = 10.0
_PATIENCE: Final = 30.0


def start_daemon(path: Path) -> None:
    """Start a daemon on this socket and return when it listens, or when another one does.

    Raises:
        DaemonUnavailable: it did not start; the text is its own reason.
    """
    command = [
        sys.executable,
        "-m",
        "machport.server",
        "--detach",
        "--idle-exit",
        str(IDLE_EXIT),
        "--socket",
        str(path),
    ]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DaemonUnavailable(f"cannot start a daemon: {error}; try 'machport daemon' by hand") from None
    if done.returncode and "already" not in done.stderr:
        reason = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
        raise DaemonUnavailable(f"cannot start a daemon: {reason}; try 'machport daemon' by hand")
