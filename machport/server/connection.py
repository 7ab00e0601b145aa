"""One task's connection: who is at the other end, and the sockets of its threads.

Knows credentials and packets.  Never knows what a trap means.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
import termios
from typing import Final, NamedTuple

from machport.abi.errors import ProtocolError
from machport.carrier import packet
from machport.kernel.task import Task
from machport.kernel.waiter import Result, Waiter
from machport.server.closer import Closer
from machport.server.dispatch import Answer

_SO_PEERPIDFD: Final = 77
_UCRED: Final = struct.Struct("3i")
_INT: Final = struct.Struct("i")


class Peer(NamedTuple):
    """The process at the other end, as the system attests it.  ``pidfd`` is owned by whoever has the peer."""

    pid: int
    uid: int
    gid: int
    pidfd: int

    @property
    def tokens(self) -> tuple[int, ...]:
        """Sender (euid, egid) and audit token of its messages (M35)."""
        return (self.uid, self.gid, self.uid, self.uid, self.gid, self.uid, self.gid, self.pid, 0, 0)


def attest(sock: socket.socket) -> Peer:
    """Who connected.

    Raises:
        ProtocolError: the process is gone already.
    """
    pid, uid, gid = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    try:
        (pidfd,) = _INT.unpack(sock.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD, _INT.size))
    except OSError:
        # Before Linux 6.5.  The number could only mean another process if this one had died since it connected.
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            raise ProtocolError(f"process {pid} is gone") from None
    return Peer(pid, uid, gid, pidfd)


class Channel:
    """One thread's way to its kernel: at most one trap under way, at most one answer not yet written."""

    __slots__ = ("client", "closer", "deadline", "delivered", "outbox", "reset", "sock", "waiter")

    def __init__(self, sock: socket.socket, closer: Closer) -> None:
        sock.setblocking(False)
        self.closer = closer
        self.sock = sock
        self.client: Client | None = None
        #: The call that the thread is blocked in.
        self.waiter: Waiter | None = None
        #: When its present phase is over, by the monotonic clock.
        self.deadline: float | None = None
        #: An answer that did not fit into the socket because the thread does not read.
        self.outbox: Answer | None = None
        #: The message in the last answer, until the thread shows by its next trap that it has read it.
        self.delivered: Result | None = None
        #: The other side closed its socket with something unread in it, or says that it could not read it.
        self.reset = False

    def receive(self) -> tuple[bytes, list[int]] | None:
        """The next trap; None at the end.

        Raises:
            BlockingIOError: there is none.
            ProtocolError: not a packet of ours.
        """
        try:
            received = packet.receive(self.sock)
        except BlockingIOError:
            raise
        except OSError as error:
            self.reset |= error.errno == errno.ECONNRESET
            return None
        if received is not None and len(received[0]) > packet.TRAP_MAX:
            self.closer.close(received[1])
            raise ProtocolError(f"a trap of {len(received[0])} bytes; the longest has {packet.TRAP_MAX}")
        return received

    def has_more(self) -> bool:
        """Whether a trap waits to be read, and may be: nobody asks twice before the first answer is written."""
        try:
            return self.outbox is None and bool(self.sock.recv(1, socket.MSG_PEEK))
        except OSError as error:
            # The socket tells once.
            self.reset |= error.errno == errno.ECONNRESET
            return False

    def send(self, answer: Answer) -> bool:
        """Write an answer, or keep it until the socket is writable; whether it is written.

        Raises:
            OSError: the other side is gone, or it is not possible to send this.
        """
        self.outbox = answer
        try:
            packet.send(self.sock, answer.payload, answer.descriptors)
        except BlockingIOError:
            if not answer.gives_descriptors:
                # These files may be closed, and their numbers be those of others, before it is written.
                copies = [os.dup(descriptor) for descriptor in answer.descriptors]
                self.outbox = answer._replace(descriptors=copies, gives_descriptors=True)
            return False
        self._drop_outbox()
        return True

    def _drop_outbox(self) -> None:
        answer, self.outbox = self.outbox, None
        if answer is not None and answer.gives_descriptors:
            self.closer.close(answer.descriptors)

    def was_read(self) -> bool:
        """Whether the other side took the last answer out of its socket before it ended or closed it."""
        if self.outbox is not None or self.reset:
            return False
        with contextlib.suppress(OSError):
            # In this order: what is thrown away by closing leaves the socket after the error is set.
            unread = _INT.unpack(fcntl.ioctl(self.sock, termios.TIOCOUTQ, bytes(_INT.size)))[0]
            error = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            return unread == 0 and error != errno.ECONNRESET
        return True

    def shut(self) -> None:
        """Let the other side see the end; nothing more goes either way."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._drop_outbox()
        self.sock.close()


class Client:
    """A task and the process that it belongs to.

    Attributes:
        control: the connection itself, whose end is the end of the task.
        channels: one for each of the task's threads.
    """

    __slots__ = ("channels", "control", "peer", "task")

    def __init__(self, peer: Peer, task: Task, control: Channel) -> None:
        self.peer = peer
        self.task = task
        self.control = control
        self.channels: set[Channel] = {control}
        control.client = self
