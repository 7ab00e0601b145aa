"""How the processes at two ends of a socket learn of each other.

Each sends an introduction: a pidfd of its own, its lifeline, and what it calls itself.  The system says whose number
the sender has (``SO_PASSCRED``), and the pidfd must be of that process.  Beside introductions the socket carries
wake-ups (``ring.waking``).  Nothing that a hostile other side sends does more than end what it has with this process.
"""

from __future__ import annotations

import array
import contextlib
import os
import select
import socket
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from machport.peer import lifeline, liveness
from machport.peer.death import Death
from machport.ring.lifeline import Word

#: A wake-up: eight zeros.
WAKE_SIZE: Final = 8
_MAGIC: Final = b"machport"
_VERSION: Final = 1
#: Magic, version, generation, whether an answer is wanted, offset of the lifeline's word.
_HEAD: Final = struct.Struct("=8sIIII")
_LABEL_MAX: Final = 64
_NO_LINE: Final = 0xFFFFFFFF
_CREDENTIALS: Final = struct.Struct("=iII")
_CONTROL: Final = socket.CMSG_SPACE(_CREDENTIALS.size) + socket.CMSG_SPACE(4 * array.array("i").itemsize)
#: A pidfd of the sender, which comes with every packet if somebody who has had the socket asks for it.
_SCM_PIDFD: Final = 4
#: How many are taken at a time.  Otherwise who sends faster than they are taken could keep this process busy for ever.
_PACKETS_MAX: Final = 64


#: Looks at what is left of a process whose line is slack.
_LOOKS: Final = 16


class Peer:
    """The process that holds the other end.

    Attributes:
        pid: its number, attested by the system; 0 if it is in a process namespace that this one does not see.
        label: what it calls itself.
        generation: of how many introductions of that end this is.
        line: its lifeline, or None if it has none.
    """

    def __init__(self, pid: int, label: str, generation: int, pidfd: int, line: Word | None) -> None:
        self.pid = pid
        self.label = label
        self.generation = generation
        self.line = line
        self._pidfd = pidfd
        self._looks = _LOOKS

    def fileno(self) -> int:
        """Its pidfd, which is readable when it is dead; -1 if there is none."""
        return self._pidfd

    def is_dead(self) -> bool:
        """Whether the process is dead, be it a zombie; False if that cannot be known."""
        if self._pidfd < 0:
            return False
        if self._ended():
            return True
        if self.line is None or not self.line.is_slack() or self._looks == 0:
            return False
        # Others may know by now.  A line gives one sign, also if just a thread ended, so some looks are enough.
        self._looks -= 1
        return liveness.is_dead(self.pid) or self._ended()

    def _ended(self) -> bool:
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def death(self) -> Death:
        """What is known of its end, as of now."""
        dead = self.is_dead()
        return Death(self.pid, self.label, os.dup(self._pidfd) if self._pidfd >= 0 else -1, dead=dead)

    def close(self) -> None:
        """Let go of the pidfd."""
        pidfd, self._pidfd = self._pidfd, -1
        self.line = None
        if pidfd >= 0:
            os.close(pidfd)

    def __del__(self) -> None:
        with contextlib.suppress(OSError):
            self.close()

    def __str__(self) -> str:
        return f"process {self.pid}" + (f" ({self.label})" if self.label else "")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self}>"


def new_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets that do not block, each of which says who sent what it receives."""
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for sock in pair:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    return pair


def introduce(sock: socket.socket, generation: int, *, answer: bool) -> None:
    """Tell the other side of this process; whether it is to answer with its own introduction.

    Raises:
        OSError: the other side is gone, or there is no descriptor left.
    """
    held = lifeline.held()
    label = default_label().encode("utf-8", "replace")[:_LABEL_MAX]
    pidfd = os.pidfd_open(os.getpid())
    try:
        payload = _HEAD.pack(_MAGIC, _VERSION, generation, answer, _NO_LINE if held is None else held.offset) + label
        descriptors = [pidfd] if held is None else [pidfd, held.descriptor]
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
        sock.sendmsg([payload], [rights], socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
    finally:
        os.close(pidfd)


class Heard:
    """What came by a socket: how many packets; the last introduction, if any, and whether it asks for an answer.

    And whether the socket has ended.
    """

    def __init__(self) -> None:
        self.packets = 0
        self.peer: Peer | None = None
        self.answer = False
        self.ended = False


def listen(sock: socket.socket) -> Heard:
    """Take what is there, without waiting; what is no introduction is as good as a wake-up.

    No more than a few dozen packets: an honest side never has as many on their way.
    """
    heard = Heard()
    while not heard.ended and heard.packets < _PACKETS_MAX:
        try:
            data, ancillary, _, _ = sock.recvmsg(
                _HEAD.size + _LABEL_MAX, _CONTROL, socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT
            )
        except BlockingIOError:
            break
        except ConnectionResetError:
            # Said once, and first, if the other side has not read everything; what it had sent is still there.
            heard.packets += 1
            continue
        except OSError:
            heard.ended = True
            break
        pid, descriptors = _ancillary(ancillary)
        heard.packets += 1
        heard.ended = not data and pid == -1  # every packet brings its sender's number
        if len(data) > WAKE_SIZE:
            peer = _introduced(data, pid, descriptors)
            if peer is not None:
                if heard.peer is not None:
                    heard.peer.close()
                heard.peer = peer
                heard.answer = bool(_HEAD.unpack_from(data)[3])
        for descriptor in descriptors:
            os.close(descriptor)
    return heard


def _ancillary(ancillary: Sequence[tuple[int, int, bytes]]) -> tuple[int, list[int]]:
    """The sender's number, -1 if none is given, and the descriptors that came along."""
    pid = -1
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS) and len(content) == _CREDENTIALS.size:
            pid = _CREDENTIALS.unpack(content)[0]
    return pid, descriptors_of(ancillary)


def descriptors_of(ancillary: Sequence[tuple[int, int, bytes]]) -> list[int]:
    """The descriptors that came along with a packet, which the caller owns.

    Not those that nobody sent: whoever has a socket, too, can set its options.
    """
    descriptors: list[int] = []
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind in (socket.SCM_RIGHTS, _SCM_PIDFD):
            numbers = array.array("i", content[: len(content) - len(content) % 4])
            if kind == socket.SCM_RIGHTS:
                descriptors.extend(numbers)
            else:
                for number in numbers:
                    if number >= 0:
                        os.close(number)
    return descriptors


def _introduced(data: bytes, pid: int, descriptors: list[int]) -> Peer | None:
    """The process of an introduction; None if it is none.  Takes the descriptors that it uses out of the list."""
    if len(data) < _HEAD.size:
        return None
    magic, version, generation, _, offset = _HEAD.unpack_from(data)
    if magic != _MAGIC or version != _VERSION or not descriptors or process_of(descriptors[0]) not in (pid, -1):
        return None
    line = None
    if offset != _NO_LINE and len(descriptors) > 1:
        with contextlib.suppress(OSError, ValueError):
            line = Word(descriptors[1], offset)
    label = printable(data[_HEAD.size :])
    return Peer(max(pid, 0), label, generation, descriptors.pop(0), line)


def printable(label: bytes) -> str:
    """A label that somebody else chose, as it may be shown."""
    return "".join(c for c in label.decode("utf-8", "replace") if c.isprintable())


def process_of(pidfd: int) -> int | None:
    """The number of a pidfd's process, -1 if it was collected, 0 if it is not seen from here; None for no pidfd."""
    try:
        return liveness.number_in_proc(pidfd)
    except (OSError, ValueError):
        return None


def default_label() -> str:
    """What a person would call this process: the name of its program."""
    return Path(sys.argv[0] or "python").stem if sys.argv else "python"
