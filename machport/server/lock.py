"""One daemon per socket: a lock file beside it, and a stale socket of a killed daemon taken away."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path

from machport.abi.errors import DaemonUnavailable


def listen(path: Path, backlog: int = 128) -> tuple[socket.socket, int]:
    """Listen on the socket, and hold its lock as long as the returned descriptor is open.

    Raises:
        DaemonUnavailable: another daemon is there, or the directory does not allow it.
    """
    lock = _lock(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    try:
        path.unlink(missing_ok=True)
        mask = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(mask)
        listener.listen(backlog)
    except OSError as error:
        listener.close()
        os.close(lock)
        raise DaemonUnavailable(f"cannot listen on {path}: {error.strerror}; check who owns the directory") from None
    return listener, lock


def _lock(path: Path) -> int:
    file = path.with_name(path.name + ".lock")
    try:
        lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise DaemonUnavailable(f"cannot open {file}: {error.strerror}; check who owns the directory") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner = os.read(lock, 32).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        raise DaemonUnavailable(
            f"a daemon is running on {path} already (process {owner}); use that one, or choose another socket "
            "with MACHPORT_SOCKET"
        ) from None
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())
    return lock
