"""One daemon per socket: a lock file beside it, and a stale socket of a killed daemon taken away."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path
from typing import NamedTuple

from machport.abi.errors import DaemonUnavailable


class Place(NamedTuple):
    """Where a daemon listens, and the descriptor of its lock file."""

    path: Path
    lock: int


def listen(path: Path, backlog: int = 128) -> tuple[socket.socket, int]:
    """Listen on the socket, and hold its lock until ``leave``.

    Raises:
        DaemonUnavailable: another daemon is there, or the directory does not allow it.
    """
    if path.exists() and not path.is_socket():
        raise DaemonUnavailable(f"{path} is there and is not a socket; choose another path with MACHPORT_SOCKET")
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
        leave(path, lock)
        raise DaemonUnavailable(f"cannot listen on {path}: {error.strerror}; check who owns the directory") from None
    return listener, lock


def leave(path: Path, lock: int) -> None:
    """Take socket and lock file away, and let the next daemon in."""
    path.unlink(missing_ok=True)
    _lock_file(path).unlink(missing_ok=True)
    os.close(lock)


def _lock_file(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def _lock(path: Path) -> int:
    while True:
        lock = _try_lock(path)
        # A daemon that ended meanwhile may have taken away the very file that was locked here.
        try:
            if os.path.samestat(os.fstat(lock), os.stat(_lock_file(path))):
                break
        except FileNotFoundError:
            pass
        os.close(lock)
    name(lock)
    return lock


def name(lock: int) -> None:
    """The lock file says that it is this process that holds it."""
    owner = f"{os.getpid()}\n".encode()
    os.pwrite(lock, owner, 0)
    os.ftruncate(lock, len(owner))


def _try_lock(path: Path) -> int:
    file = _lock_file(path)
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
    return lock
