"""Who connected, as the system attests it: the process, its user, and which of all that had its number.

A number of a process says who it is only while the process is there, so a pidfd stands for it.  Since Linux 6.5 the
system gives the one of whoever connected.  Before, it is opened by the number, and whoever has the number by then might
be another: one that began after the connection was accepted is turned away.  What remains is a process that died while
its connection waited to be accepted, and whose number was given to another before that.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from typing import Final, NamedTuple

from machport.abi.errors import ProtocolError
from machport.peer.liveness import number_in_proc

_SO_PEERPIDFD: Final = 77
_CREDENTIALS: Final = struct.Struct("=iII")
_INT: Final = struct.Struct("=i")
#: Of the fields of ``stat`` after the program's name, which may have anything in it: when the process began.
_BEGAN: Final = 19
_TICKS: Final = os.sysconf("SC_CLK_TCK")


class Credentials(NamedTuple):
    """Who connected, or listens, by number; a user of -1 is nobody that the system knows."""

    pid: int
    uid: int
    gid: int


class Peer(NamedTuple):
    """The process at the other end, as the system attests it.  ``pidfd`` is owned by whoever has the peer.

    ``version`` differs between processes that have the same number, one after the other: when it began, in ticks since
    the machine did, modulo 2^32; 0 if the system does not tell.
    """

    pid: int
    uid: int
    gid: int
    pidfd: int
    version: int = 0

    @property
    def tokens(self) -> tuple[int, ...]:
        """Sender (euid, egid) and audit token of its messages (M35)."""
        uid, gid = self.uid, self.gid
        return (uid, gid, uid, uid, gid, uid, gid, self.pid, 0, self.version)


def credentials(sock: socket.socket) -> Credentials:
    """Who connected to this socket, or listened where it connected, as it was then."""
    return Credentials(*_CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)))


def attest(sock: socket.socket, accepted: float | None = None, *, peer_pidfd: bool = True) -> Peer:
    """Who connected.

    Args:
        accepted: when the connection was, in seconds of the clock that counts from the machine's beginning; now by
            default.
        peer_pidfd: ask the system for the pidfd of whoever connected, if it can tell.

    Raises:
        ProtocolError: the process is gone already, or another one has its number.
    """
    if accepted is None:
        accepted = time.clock_gettime(time.CLOCK_BOOTTIME)
    pid, uid, gid = credentials(sock)
    gone = ProtocolError(f"process {pid} is gone")
    pidfd = _peer_pidfd(sock, gone) if peer_pidfd else -1
    is_certain = pidfd >= 0
    if not is_certain:
        try:
            pidfd = os.pidfd_open(pid)
        except (OSError, OverflowError):
            raise gone from None
    try:
        began = _began(pidfd)
        if not is_certain and not began:
            raise gone
        if not is_certain and began / _TICKS > accepted:
            raise ProtocolError(f"process {pid} is younger than its connection: it is not the one that connected")
    except BaseException:
        os.close(pidfd)
        raise
    return Peer(pid, uid, gid, pidfd, began & 0xFFFFFFFF)


def _peer_pidfd(sock: socket.socket, gone: ProtocolError) -> int:
    """The pidfd of whoever connected; -1 if the system does not know of such a thing."""
    try:
        (pidfd,) = _INT.unpack(sock.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD, _INT.size))
    except OSError as error:
        if error.errno == errno.ENOPROTOOPT:
            return -1
        # Anything else is about the process, and its number may be another's by now.
        raise gone from None
    return int(pidfd)


def _began(pidfd: int) -> int:
    """When a process began, in ticks since the machine did; 0 if it is gone, or that cannot be seen.

    The pidfd is looked at again afterwards: as long as the process has not been collected, its number is its own.
    """
    try:
        number = number_in_proc(pidfd)
        with open(f"/proc/{number}/stat", "rb") as file:
            stat = file.read()
        if number_in_proc(pidfd) != number:
            return 0
    except (OSError, ValueError):
        return 0
    return int(stat[stat.rindex(b")") + 2 :].split()[_BEGAN])
