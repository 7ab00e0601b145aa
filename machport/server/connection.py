"""One task's connection: who is at the other end, and the channels of its threads.

Knows credentials, packets and rings.  Never knows what a trap means.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
import termios
import time
from collections import deque
from typing import Final

from machport.abi.errors import ProtocolError
from machport.abi.traps import Batch
from machport.carrier import packet
from machport.carrier.rings import RingPair
from machport.kernel.task import Task
from machport.kernel.waiter import Result, Waiter
from machport.peer.attestation import Peer
from machport.ring import layout, waking
from machport.server.closer import Closer
from machport.server.dispatch import Answer

_INT: Final = struct.Struct("i")
#: Messages whose answers may be unread before it is found out which of them were read.
_DELIVERED_MAX: Final = 256


def executable_of(pid: int) -> str:
    """What a process runs; "" if that cannot be seen."""
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/{pid}/exe")
    return ""


class TaggedCall:
    """A call of a channel that has many under way.

    Attributes:
        channel, tag: where its answer goes, and what stands before it.
        waiter: None when the call is over.
        deadline: when its present phase is over, by the monotonic clock.
    """

    __slots__ = ("channel", "deadline", "tag", "waiter")

    def __init__(self, channel: Channel, tag: int) -> None:
        self.channel = channel
        self.tag = tag
        self.waiter: Waiter | None = None
        self.deadline: float | None = None


class Channel:
    """One thread's way to its kernel: at most one trap under way, and answers not yet written.

    The channel that a connection begins with has only its socket; those of threads have rings as well.  An answer goes
    the way that its trap came.  A channel on which calls have tags has many of them under way, and answers by the ring.

    Attributes:
        client, task: whose it is, once it has said hello.
        waiter: the call that the thread is blocked in.
        tagged: calls with tags that wait; None until the first of them comes.
        batch: what its ``send_many`` has still to send.
        many, left: its ``receive_many`` that goes on, and how many messages that may still take.
        deadline: when the present phase of its call is over, by the monotonic clock.
        by_ring: the trap under way came by the ring.
        delivered: the messages in answers, each with the number of its answer in the ring, until the thread reads them.
        reset: the other side closed its socket with something unread in it, or says that it could not read it.
        peer: who connected, for the channel that a connection begins with: who speaks by its socket must be that
            process, or of its user, or root.
        memory: bytes of its rings, which count with its task.
        kept: bytes of answers in ``outbox``.
        is_busy: the daemon looks at the rings; ``looked_at`` is when it last found a trap there, in nanoseconds.
    """

    __slots__ = (
        "_daemon_bell",
        "_descriptor",
        "_down",
        "_longest",
        "_thread_bell",
        "_up",
        "batch",
        "by_ring",
        "client",
        "closer",
        "deadline",
        "delivered",
        "is_busy",
        "kept",
        "left",
        "looked_at",
        "many",
        "memory",
        "outbox",
        "peer",
        "reset",
        "rings",
        "sock",
        "tagged",
        "task",
        "waiter",
    )

    def __init__(self, sock: socket.socket, closer: Closer, rings: RingPair | None = None) -> None:
        sock.setblocking(False)
        self.closer = closer
        self.sock = sock
        self._descriptor = sock.fileno()
        self.rings: RingPair | None = None
        if rings is not None:
            self.use(rings)
        self.client: Client | None = None
        self.task: Task | None = None
        self.waiter: Waiter | None = None
        self.tagged: dict[int, TaggedCall] | None = None
        self.batch: Batch | None = None
        self.many: Waiter | None = None
        self.left = 0
        self.memory = 0
        self.kept = 0
        self.deadline: float | None = None
        self.by_ring = False
        self.outbox: deque[Answer] = deque()
        self.delivered: list[tuple[int, Result]] = []
        self.reset = False
        self.peer: Peer | None = None
        self.is_busy = False
        self.looked_at = 0

    def use(self, rings: RingPair) -> None:
        """These are the thread's rings from now on, which the channel closes; those before are closed."""
        if self.rings is not None:
            self.rings.close()
        self.rings = rings
        self._up, self._down = rings.up, rings.down
        self._daemon_bell, self._thread_bell = rings.daemon_bell, rings.thread_bell
        self._longest = rings.longest

    # In

    def receive(self) -> tuple[bytes | memoryview, list[int]] | None:
        """The next packet; None at the end.

        Raises:
            BlockingIOError: there is none.
            ProtocolError: not a packet of ours.
        """
        try:
            if self.peer is None:
                received = packet.receive(self.sock, self.closer.close)
            else:
                received = self._receive_of_peer(self.peer)
        except BlockingIOError:
            raise
        except OSError as error:
            self.reset |= error.errno == errno.ECONNRESET
            return None
        if received is not None and len(received[0]) > packet.TRAP_MAX:
            self.closer.close(received[1])
            raise ProtocolError(f"a trap of {len(received[0])} bytes; the longest has {packet.TRAP_MAX}")
        return received

    def _receive_of_peer(self, peer: Peer) -> tuple[bytes | memoryview, list[int]] | None:
        received = packet.receive_with_sender(self.sock, self.closer.close)
        if received is None:
            return None
        payload, descriptors, (pid, user) = received
        if not (pid and pid == peer.pid) and user not in (peer.uid, 0):
            self.closer.close(descriptors)
            raise ProtocolError(f"process {pid} of user {user} speaks by a socket of user {peer.uid}")
        return payload, descriptors

    def take_wake(self) -> bool:
        """Take a packet that only wakes, if it is next; its thread has rung."""
        return waking.take(self._descriptor) == waking.WOKEN

    def has_more(self) -> bool:
        """Whether a packet waits to be read, and may be: nobody asks twice before the first answer is written."""
        try:
            return not self.outbox and bool(self.sock.recv(1, socket.MSG_PEEK))
        except OSError as error:
            # The socket tells once.
            self.reset |= error.errno == errno.ECONNRESET
            return False

    def next_trap(self) -> bytes | None:
        """The next trap of the ring, if there is one.

        Raises:
            ProtocolError: what is in the ring are no entries.
        """
        trap = self._down.dequeue()
        if trap is None and self._down.absence == layout.CORRUPT:
            raise ProtocolError("its ring has no entries, but nonsense")
        return trap

    def is_quiet(self) -> bool:
        """Arm the bell; whether there is no trap in the ring, so that nobody needs to look until the bell rings."""
        self._daemon_bell.arm()
        if not self._down.data_available():
            return True
        self._daemon_bell.disarm()
        return False

    def begin(self, by_ring: bool) -> None:
        """A trap has come: the thread has read what it was answered, unless it sent this one before."""
        by_ring = by_ring or self.tagged is not None
        self.by_ring = by_ring
        if self.delivered:
            if not by_ring or not self._up.data_available():
                self.delivered.clear()
            elif len(self.delivered) > _DELIVERED_MAX:
                self.delivered = self._unread()

    def tagged_calls(self) -> dict[int, TaggedCall]:
        """The calls with tags that wait; from the first on, whatever comes is answered by the ring."""
        if self.tagged is None:
            self.tagged = {}
            self.by_ring = True
        return self.tagged

    def is_expected(self) -> None:
        """The thread is about to speak, and the ring is looked at: it need not ring."""
        self._daemon_bell.disarm()

    # Out

    def answer(self, answer: Answer) -> bool:
        """Write an answer, or keep it until there is room for it; whether it is written.

        One that cannot be written is kept for the end of the channel: nobody has read it.

        Raises:
            OSError: the other side is gone, or it is not possible to send this.
            LimitReached: there is no memory for it.
            ProtocolError: the other side has spoiled its ring.
        """
        if not self.outbox:
            try:
                if self._write(answer):
                    self._written(answer)
                    return True
            except BaseException:
                # Nobody has read it: when the channel ends its messages go back, and its descriptors are closed.
                self.outbox.append(answer)
                raise
        self.outbox.append(answer)
        self.kept += answer.size()
        return False

    def flush(self) -> bool:
        """Write the answers that there is room for; whether none is left.  Raises as ``answer`` does."""
        while self.outbox:
            if not self._write(self.outbox[0]):
                return False
            answer = self.outbox.popleft()
            self.kept -= answer.size()
            self._written(answer)
        return True

    def _written(self, answer: Answer) -> None:
        if answer.gives_descriptors:
            self.closer.close(answer.descriptors)
        if answer.rings is not None:
            self.use(answer.rings)
            self.delivered.clear()

    def room(self) -> int:
        """Bytes of the longest answer that goes by the ring; none for a thread that speaks by its socket."""
        return self._longest if self.by_ring else 0

    def waits_for_socket(self) -> bool:
        """Whether it is the socket that the next answer waits for."""
        if not self.outbox or not self.by_ring:
            return bool(self.outbox)
        answer = self.outbox[0]
        return self._goes_by_socket(answer) and not answer.is_on_socket

    def _goes_by_socket(self, answer: Answer) -> bool:
        return len(answer.descriptors) != 0 or answer.size() > self._longest

    def _write(self, answer: Answer) -> bool:
        if not self.by_ring:
            if not self._write_to_socket(answer):
                return False
            self._note(0, answer)
            return True
        parts = answer.parts
        if self._goes_by_socket(answer):
            # The entry for it comes after it, and stands for it.
            if not answer.is_on_socket and not self._write_to_socket(answer):
                return False
            answer.is_on_socket = True
            parts = ()
        if not self._enqueue(parts):
            return False
        self._note(self._up.enqueued, answer)
        if self._thread_bell.ring():
            waking.wake(self._descriptor)
        return True

    def _note(self, number: int, answer: Answer) -> None:
        """Remember the messages of an answer until it is read."""
        if answer.result is not None:
            self.delivered.append((number, answer.result))
            if answer.more is not None:
                for result in answer.more:
                    self.delivered.append((number, result))

    def _enqueue(self, parts: tuple[bytes | memoryview, ...]) -> bool:
        outcome = self._up.enqueue_parts(parts)
        if outcome & layout.FULL:
            # The thread rings when it has made room; it may have done so meanwhile.
            self._daemon_bell.arm()
            outcome = self._up.enqueue_parts(parts)
        if outcome & (layout.BROKEN | layout.TOO_LARGE):
            raise ProtocolError("its ring is out of order")
        return not outcome & layout.FULL

    def _write_to_socket(self, answer: Answer) -> bool:
        try:
            packet.send_parts(self.sock, answer.parts, answer.descriptors)
        except BlockingIOError:
            if answer.descriptors and not answer.gives_descriptors:
                # These files may be closed, and their numbers be those of others, before it is written.
                answer.descriptors = [os.dup(descriptor) for descriptor in answer.descriptors]
                answer.gives_descriptors = True
            return False
        return True

    # The end

    def unread(self) -> list[Result]:
        """The messages in answers that the thread has not read, in their order."""
        unread = [result for _, result in self._unread()]
        for answer in self.outbox:
            if answer.result is not None:
                unread += [answer.result, *(answer.more or ())]
        return unread

    def _unread(self) -> list[tuple[int, Result]]:
        if not self.by_ring:
            return [] if self._socket_was_read() else self.delivered
        read = self._up.enqueued - self._up.unread()
        return [delivered for delivered in self.delivered if delivered[0] > read]

    def _socket_was_read(self) -> bool:
        """Whether the other side took the last answer out of its socket before it ended or closed it."""
        if self.reset:
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
        for answer in self.outbox:
            if answer.gives_descriptors:
                self.closer.close(answer.descriptors)
            if answer.rings is not None:
                answer.rings.close()
        self.outbox.clear()
        if self.rings is not None:
            self.rings.close()
        # A deadline that is not needed any more may know the channel until its time comes.
        self.delivered.clear()
        self.task = None
        # With it go files that came by it and were not read, which may take their time.
        self.shut()
        self.closer.close([self.sock.detach()])


class Client:
    """A task and the process that it belongs to.

    Attributes:
        control: the connection itself, whose end is the end of the task.
        channels: one for each of the task's threads, in the order in which they came.
        closes: it has said that it closes its connection.
        was_made: another task made it, and decided what is in it.
        allows_task_for_pid: it has agreed that others of its user may have its task port.
        looks_on: it has asked for reports of the others.
        executable, began: what its process ran when it joined, and when that was, in seconds since the epoch.
    """

    __slots__ = (
        "allows_task_for_pid",
        "began",
        "channels",
        "closes",
        "control",
        "executable",
        "looks_on",
        "peer",
        "task",
        "was_made",
    )

    def __init__(self, peer: Peer, task: Task, control: Channel, was_made: bool = False) -> None:
        self.peer = peer
        self.task = task
        self.control = control
        self.channels: dict[Channel, None] = {}
        self.closes = False
        self.was_made = was_made
        self.allows_task_for_pid = False
        self.looks_on = False
        self.executable = executable_of(peer.pid)
        self.began = time.time()
        self.add(control)

    def unread(self) -> list[Result]:
        """The messages in answers that its threads have not read."""
        return [result for channel in self.channels for result in channel.unread()]

    def add(self, channel: Channel) -> None:
        """A channel for one of the task's threads."""
        self.channels[channel] = None
        channel.client = self
        channel.task = self.task


def client_of(channel: Channel) -> Client:
    """Whose a channel is that has said hello."""
    assert channel.client is not None
    return channel.client
