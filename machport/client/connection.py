"""A task's connection to the daemon, and the channels of its threads.

Every thread has a channel of its own, made at its first trap, so that each may block without the others.  The
connection itself carries only hello and new channels; its end is the end of the task.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import socket
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from machport.abi import traps as t
from machport.abi.constants import MACH_PORT_NULL
from machport.abi.errors import (
    DaemonLost,
    DaemonUnavailable,
    DeadTask,
    ForkedTask,
    LimitReached,
    ProtocolError,
    error_for,
)
from machport.abi.traps import Buffer, Payload
from machport.carrier import packet, rings
from machport.carrier.endpoint import VARIABLE, socket_path
from machport.carrier.hello import Hello
from machport.carrier.rings import RingPair
from machport.client import lifeline
from machport.client.channel import Answer, Channel, lost
from machport.client.known import Known
from machport.peer.attestation import credentials

if TYPE_CHECKING:
    from machport.client.events import Events

_Channel = TypeVar("_Channel", bound=Channel)

#: How often to try, when a daemon may end or start at the same moment.
_ATTEMPTS = 3
#: Rights that are given up by one packet.
_FORGOTTEN_MAX = 4096
#: Seconds for a hello to be answered; a daemon that is only busy takes thousandths.
_PATIENCE = 10.0
_ROOT = 0
#: What the system says of a packet that could be sent later.
_NO_ROOM = (errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM)


class Control:
    """The connection itself, which outlives a call that fails: an answer that nobody took is passed over."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._owed = 0

    def trap(self, payload: bytes, descriptors: Sequence[int] = ()) -> tuple[Buffer, list[int]]:
        """Carry one trap, and wait for its answer.

        Raises:
            LimitReached: no descriptor is left for what comes with it.
            DaemonLost: the daemon is gone.
        """
        try:
            packet.send(self._sock, payload, descriptors)
            self._owed += 1
            while True:
                received = packet.receive(self._sock)
                self._owed -= 1
                if received is None:
                    raise lost()
                if not self._owed:
                    return received
                packet.close_all(received[1])
        except ProtocolError:
            self._owed -= 1
            raise LimitReached("no descriptor is left for another thread to call its kernel by") from None
        except TimeoutError:
            raise
        except OSError:
            raise lost() from None

    def greet(self, payload: bytes, path: Path) -> bytes:
        """Carry the first packet of a connection, whose answer must come soon.

        Raises:
            DaemonUnavailable: it does not.
        """
        self._sock.settimeout(_PATIENCE)
        try:
            answer, _ = self.trap(payload)
        except TimeoutError:
            raise DaemonUnavailable(
                f"what listens on {path} does not answer as a daemon of machport does; if it should, stop it and try "
                f"again, otherwise choose another path with {VARIABLE}"
            ) from None
        self._sock.settimeout(None)
        return bytes(answer)

    def post(self, payload: bytes) -> bool:
        """Say something that has no answer, without waiting and whatever else is under way.

        Returns:
            False if there is no room for it now; True also if nobody is left to hear it.
        """
        try:
            packet.post(self._sock, payload)
        except OSError as error:
            return error.errno not in _NO_ROOM
        return True

    def close(self) -> None:
        packet.close(self._sock)

    def stay_open(self) -> None:
        """Whatever closes it, it is open until the process ends; sockets are closed before that, in any order."""
        with contextlib.suppress(OSError):
            os.dup(self._sock.fileno())

    def __del__(self) -> None:
        # The end of the interpreter is not that of the task: it ends with the process, and so does what it held.
        if sys is None or sys.is_finalizing():
            self._sock.detach()
        else:
            self.close()


class Connection:
    """A task, joined to a daemon.

    Args:
        label: what the daemon calls the task, before its process number.
        ticket: proof that this process is the one a parent made a task for; b"" for a new task.
        path: socket of the daemon; the user's own by default, with a daemon started if there is none.
        joined: descriptor of a connection on which hello was said, and answered with ``label``; it is taken over.

    Raises:
        DaemonUnavailable: no daemon can be reached or started.
    """

    def __init__(self, label: str, ticket: bytes = b"", path: Path | None = None, joined: int | None = None) -> None:
        self.path: Path = socket_path() if path is None else path
        self._path_was_given = path is not None
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._local = threading.local()
        self._channels: dict[int, weakref.ref[Channel]] = {}
        self._all_channels: Known[Channel] = Known()
        self._closed = False
        self._forgotten: deque[tuple[int, int]] = deque()
        payload: Buffer
        if joined is not None:
            self._control, payload = Control(socket.socket(fileno=joined)), bytes(4) + label.encode()
        else:
            self._control, payload = self._greet(Hello(label, ticket))
        if t.number_of(payload):
            rule, says = t.unpack_refusal(payload)
            self._control.close()
            raise error_for(t.number_of(payload), says, call="hello", task=label, rule=rule)
        self.label = bytes(payload[4:]).decode(errors="replace")
        self.self_name = MACH_PORT_NULL
        _connections.add(self)
        lifeline.offer(self._control.trap)

    def _greet(self, hello: Hello) -> tuple[Control, bytes]:
        """Connect and say hello; again if the daemon was just about to end for want of tasks."""
        for _ in range(_ATTEMPTS - 1):
            channel = Control(connect(self.path, start=not hello.ticket, chosen=self._path_was_given))
            try:
                return channel, channel.greet(hello.pack(), self.path)
            except DaemonLost:
                if hello.ticket:
                    raise
        channel = Control(connect(self.path, start=True, chosen=self._path_was_given))
        return channel, channel.greet(hello.pack(), self.path)

    def trap(self, payload: Payload, descriptors: Sequence[int] = ()) -> Answer:
        """Carry one trap of the calling thread; the answer and the descriptors with it, which the caller owns.

        Raises:
            DaemonLost: the daemon is gone, and with it every right of the task.
            DeadTask: the connection was closed.
            ForkedTask: the process is a forked child of the task's.
        """
        if self._forgotten:
            self.tell_forgotten()
        try:
            return self._channel().trap(payload, descriptors)
        except DaemonLost:
            # Also what a thread sees that waited while another one closed the task.
            self.check_usable()
            raise

    def traps(self, payloads: Sequence[Payload], answer_max: int) -> list[Buffer]:
        """Carry many traps of the calling thread, one behind the other; their answers.

        Args:
            answer_max: bytes that no answer exceeds.

        Raises: as ``trap``; it is not known then how many were carried out.
        """
        try:
            return self._channel().traps(payloads, answer_max)
        except DaemonLost:
            self.check_usable()
            raise

    def stream(self, payload: bytes) -> list[Buffer]:
        """Carry one trap of the calling thread that has many answers; all of them.

        Raises: as ``trap``.
        """
        try:
            return self._channel().stream(payload)
        except DaemonLost:
            self.check_usable()
            raise

    def _channel(self) -> Channel:
        """The calling thread's channel; another one while a call of the thread is under way.

        So a handler of signals, or a finalizer, that comes in the middle of a call may make calls of its own.
        """
        channel: Channel | None = getattr(self._local, "channel", None)
        if channel is None or channel.closed:
            self._local.channel = channel = self._new_channel(Channel)
            self._channels[threading.get_ident()] = weakref.ref(channel)
        elif channel.under_way:
            return self._new_channel(Channel)
        return channel

    def events(self) -> Events:
        """A channel for calls that no thread waits for.

        Raises: as ``trap``, and LimitReached if the system or the daemon have none left.
        """
        from machport.client.events import Events

        return self._new_channel(lambda sock, pair: Events(sock, pair, self))

    def _new_channel(self, make: Callable[[socket.socket, RingPair], _Channel]) -> _Channel:
        self.check_usable()
        with self._lock:
            answer, descriptors = self._control.trap(t.THREAD.pack())
        if t.number_of(answer) or len(descriptors) != 2:
            packet.close_all(descriptors)
            raise error_for(t.number_of(answer), t.unpack_refusal(answer)[1], call="thread", task=self.label)
        # In two steps: a handler of signals that raises in the second leaves no doubt whose the descriptor is.
        sock = socket.socket.__new__(socket.socket)
        try:
            sock.__init__(fileno=descriptors[0])  # type: ignore[misc]
        except BaseException:
            if sock.fileno() >= 0:
                sock.detach()
            packet.close_all(descriptors)
            raise
        try:
            channel = make(sock, rings.attach(descriptors[1]))
        except BaseException:
            sock.close()
            raise
        finally:
            os.close(descriptors[1])
        self._all_channels.add(channel)
        return channel

    def interrupt(self, thread: int) -> None:
        """Let the call that another thread waits in return as interrupted; nothing happens if it does not wait."""
        known = self._channels.get(thread)
        channel = None if known is None else known()
        if channel is not None and not channel.closed:
            channel.interrupt()

    def forget(self, name: int, kind: int) -> None:
        """Give up one reference of a right without waiting, also in a finalizer in the middle of another call.

        A receive right or port set is given up as by ``mach_port_mod_refs``, another right as by
        ``mach_port_deallocate``; what these would refuse is ignored.  What the daemon has no room to hear of now it
        hears before the next trap.

        Args:
            kind: MACH_PORT_RIGHT_.
        """
        self._forgotten.append((name, kind))
        # While there is no room, not each of a multitude tries again.
        waiting = len(self._forgotten)
        if not waiting & (waiting - 1):
            self.tell_forgotten()

    def tell_forgotten(self) -> None:
        """Let the daemon hear of what it had no room to hear of before, if it has now."""
        if self._pid != os.getpid():
            self._forgotten.clear()
        while self._forgotten:
            # Another thread, or a finalizer, may come in between anywhere: each pair is one's who takes it out.
            words: list[int] = []
            with contextlib.suppress(IndexError):
                while len(words) < 2 * _FORGOTTEN_MAX:
                    words += self._forgotten.popleft()
            if words and not self._control.post(t.FORGET.pack(words=words)):
                self._forgotten.extend(zip(words[::2], words[1::2], strict=True))
                return

    def check_usable(self) -> None:
        """Raise what keeps this process from calling, apart from the daemon: as ``trap``."""
        if self._pid != os.getpid():
            raise ForkedTask(
                "this process is a forked child and holds none of its parent's rights; make a Task of its own",
                task=self.label,
            )
        if self._closed:
            raise DeadTask("the task was closed", task=self.label)

    @property
    def closed(self) -> bool:
        """Whether the task was ended by ``close``."""
        return self._closed

    def close(self) -> None:
        """End the task: all its rights go.  Closing again does nothing."""
        # So that nobody takes it for a death.
        self._control.post(t.CLOSE.pack())
        self._closed = True
        for channel in self._all_channels:
            channel.end()
        self._control.close()

    def _outlive_interpreter(self) -> None:
        """The task ends with its process and not with the interpreter, so that it is known how that ended."""
        if not self._closed and self._pid == os.getpid():
            self._control.stay_open()

    def _forked(self) -> None:
        """In a forked child: let go of the parent's sockets, whose rights stay with the parent."""
        for channel in self._all_channels:
            channel.close()
        self._control.close()


def connect(path: Path, *, start: bool, chosen: bool) -> socket.socket:
    """Connect, starting a daemon if there is none and ``start`` allows it.

    Args:
        chosen: the program says where; it is not the user's own place, or that of the environment.

    Raises:
        DaemonUnavailable: there is none, or none that can be trusted.
    """
    for attempt in range(_ATTEMPTS):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            sock.connect(str(path))
            _check_daemon(sock, path, chosen)
            return sock
        except DaemonUnavailable:
            sock.close()
            raise
        except (FileNotFoundError, ConnectionRefusedError) as error:
            sock.close()
            if not start:
                raise DaemonUnavailable(f"no daemon listens on {path}") from error
            if attempt < _ATTEMPTS - 1:
                # Imported only here: starting processes takes a good part of the import time of the rest.
                from machport.client.start import start_daemon

                start_daemon(path)
        except OSError as error:
            sock.close()
            raise DaemonUnavailable(
                f"cannot connect to {path}: {error.strerror}; check its owner and mode, or set {VARIABLE}"
            ) from None
    raise DaemonUnavailable(f"a daemon was started and does not listen on {path}; try 'machport daemon' by hand")


def _check_daemon(sock: socket.socket, path: Path, chosen: bool) -> None:
    """A daemon gets every message and open file of its tasks, and hands others to them.

    Raises:
        DaemonUnavailable: it is of a user who is not to have that.
    """
    user = credentials(sock).uid
    own = os.geteuid()
    # Root may join the daemon of any user, if it means to.
    if user in (own, _ROOT) or (own == _ROOT and chosen):
        return
    raise DaemonUnavailable(
        f"what listens on {path} is of user {user}, whom user {own} does not trust with its messages; set {VARIABLE} "
        "to a socket of yours" + (", or give path= to join that one" if own == _ROOT else "")
    )


_connections: weakref.WeakSet[Connection] = weakref.WeakSet()


def _after_fork() -> None:
    for connection in list(_connections):
        connection._forked()


def _at_exit() -> None:
    for connection in list(_connections):
        connection._outlive_interpreter()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
