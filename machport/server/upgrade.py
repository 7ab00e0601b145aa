"""Replacing this daemon by a new process, which runs the program as it is installed now.

1. The new process starts while this one goes on serving, and says which snapshots it reads.
2. This one stops serving, and gives it a snapshot and every descriptor that matters.  From here on it does nothing for
   clients, and takes nothing from them.
3. The new one restores all of it without touching what a client can see, and says that it is ready, or why not.
4. This one tells it to go.  The new one answers that it has taken over: from that answer on, it is the daemon.
   This one ends at once.

Before that answer the new process has done nothing, so whatever goes wrong, it is killed and this daemon goes on as if
nothing had been.  If this process dies once the snapshot is complete, the new one takes over by itself.
``takeover`` is the other side.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import socket
import sys
import threading
import time
from array import array
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from machport.abi import constants as c
from machport.abi import traps as t
from machport.abi.release import RELEASE
from machport.carrier import hello
from machport.kernel.refusal import Refusal
from machport.server import snapshot, supervisor
from machport.server.dispatch import Answer
from machport.server.fault import reached
from machport.server.log import event

if TYPE_CHECKING:
    from machport.server.connection import Channel

_log: Final = logging.getLogger("machport.daemon")
#: Seconds that a new process may take to start, and to restore a small snapshot; set it for slow machines.
PATIENCE: Final = "MACHPORT_UPGRADE_SECONDS"
_PATIENCE: Final = 30.0
#: Bytes of a snapshot for which it has another second.
_PER_SECOND: Final = 1 << 20
#: Descriptors in one packet; the system allows 253.
DESCRIPTORS_MAX: Final = 250
PACKET_MAX: Final = 64 * 1024


class UpgradeFailed(Exception):
    """The daemon was not replaced, and goes on; the text says why."""


def say(sock: socket.socket, says: str, descriptors: list[int] | None = None, **what: Any) -> None:
    """One packet between the two daemons."""
    import json

    socket.send_fds(sock, [json.dumps({"says": says, **what}).encode()], descriptors or [])


def hear(sock: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """The next packet; nothing said at the end.

    Raises:
        TimeoutError: it does not come.
        OSError: the other side is gone.
    """
    import json

    # Not ``recv_fds``, which does not pass the flag on: a process that is started later must not have them.
    data, ancillary, _, _ = sock.recvmsg(PACKET_MAX, socket.CMSG_SPACE(4 * DESCRIPTORS_MAX), socket.MSG_CMSG_CLOEXEC)
    descriptors = array("i")
    for _, _, content in ancillary:
        descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    said: dict[str, Any] = json.loads(data) if data else {"says": ""}
    return said, list(descriptors)


class Upgrades:
    """The replacements of one daemon: at most one at a time.

    Args:
        arguments: those of the command of a new process.
        watch: call back when a socket is readable.
        unwatch: stop that.
        save: the state of the daemon; called when nothing of it changes any more.
        answer: write an answer to a channel.

    Attributes:
        is_due: a new process is ready to be given everything: call ``replace``.
        deadline: when the new process has taken too long to start, by the monotonic clock; None if none is starting.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        watch: Callable[[socket.socket, Callable[[int], object]], bool],
        unwatch: Callable[[socket.socket], None],
        save: Callable[[snapshot.Saving], bytes],
        answer: Callable[[Channel, Answer], None],
    ) -> None:
        self._arguments = arguments
        self._watch = watch
        self._unwatch = unwatch
        self._save = save
        self._answer = answer
        self._process: int | None = None
        self._sock: socket.socket | None = None
        self._askers: list[Channel] = []
        self.is_due = False
        self.deadline: float | None = None

    def ask(self, channel: Channel | None = None) -> None:
        """Begin a replacement, unless one is under way; the channel is told what came of it.

        Raises:
            Refusal: KERN_RESOURCE_SHORTAGE, the channel has asked for this one already.
        """
        if channel in self._askers:
            raise Refusal(c.KERN_RESOURCE_SHORTAGE, "upgrade", "an upgrade that you asked for is under way")
        if channel is not None:
            self._askers.append(channel)
        if self._process is not None:
            return
        supervisor.tell_reloading()
        try:
            self._start()
        except Exception as error:
            self._fail(f"no process can be started: {error}")

    def _start(self) -> None:
        self._sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            if not self._watch(self._sock, lambda _: self._begun()):
                raise UpgradeFailed("the daemon has no descriptor left for it")
            self._process = _spawn(theirs, self._arguments)
        self.deadline = time.monotonic() + _patience(0)
        # It takes tens of milliseconds, for which nobody shall wait.
        threading.Thread(target=snapshot.load, name="upgrade", daemon=True).start()

    def _begun(self) -> None:
        """The new process says what it can take over, or has ended."""
        assert self._sock is not None
        self._unwatch(self._sock)
        self.deadline = None
        try:
            check_versions(self._expect("hello", "ended at its start"))
        except Exception as error:
            self._fail(str(error) or type(error).__name__)
            return
        self.is_due = True

    def check_time(self) -> None:
        """Give up a new process that takes too long to start."""
        if self.deadline is not None and time.monotonic() >= self.deadline:
            self._fail("the new process did not start in time")

    def replace(self, is_wanted: Callable[[], bool]) -> bool:
        """Hand everything over; whether the new process is the daemon now, and this one has only to end.

        Args:
            is_wanted: asked last of all.
        """
        assert self._process is not None and self._sock is not None
        self.is_due = False
        began = time.monotonic_ns()
        gc.disable()
        try:
            reached("old saves")
            saving = snapshot.Saving()
            askers = [saving.channel(channel) for channel in self._askers if channel.client is not None]
            data = self._save(saving)
            reached("old sends")
            self._sock.settimeout(_patience(len(data)))
            self._send(data, saving.descriptors, askers, began)
            reached("old has sent")
            self._expect("ready")
            reached("old is told ready")
            if not is_wanted():
                raise UpgradeFailed("the daemon is to stop")
            reached("old says go")
            say(self._sock, "go")
            self._expect("taken")
        except Exception as error:
            if not isinstance(error, UpgradeFailed | OSError):
                _log.exception("the state of the daemon could not be handed over")
            says = "the new process was not ready in time" if isinstance(error, TimeoutError) else str(error)
            return not self._fail(says)
        finally:
            gc.enable()
        reached("old is told taken")
        supervisor.tell_successor(self._process)
        return True

    def _send(self, data: bytes, descriptors: list[int], askers: list[int], began: int) -> None:
        assert self._sock is not None
        for first in range(0, len(descriptors), DESCRIPTORS_MAX):
            say(self._sock, "descriptors", descriptors[first : first + DESCRIPTORS_MAX])
        memory = os.memfd_create("machport-snapshot", os.MFD_CLOEXEC)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(memory, view) :]
            say(
                self._sock,
                "snapshot",
                [memory],
                size=len(data),
                count=len(descriptors),
                askers=askers,
                began=began,
                pid=os.getpid(),
                version=RELEASE,
            )
        finally:
            os.close(memory)

    def _expect(self, says: str, otherwise: str = "died") -> dict[str, Any]:
        """What the new process says next, which must be this."""
        assert self._sock is not None
        said, _ = hear(self._sock)
        if said["says"] == "no":
            raise UpgradeFailed(f"the new process refused: {said.get('why')}")
        if said["says"] != says:
            raise UpgradeFailed(f"the new process {otherwise}")
        return said

    def _fail(self, why: str) -> bool:
        """Go on as before; False if it is too late, because the new process had become the daemon before it was killed.

        It then is as if this daemon had been killed: clients are told by the end of their sockets.
        """
        if not self._end_process():
            return False
        _log.warning("the daemon was not replaced, and goes on: %s", why, extra=event("upgrade_failed", reason=why))
        supervisor.tell_ready()
        askers, self._askers = self._askers, []
        for channel in askers:
            if channel.client is not None:
                says = f"the daemon was not replaced, and goes on: {why}"
                self._answer(channel, Answer(t.pack_refusal(c.KERN_FAILURE, "", says)))
        return True

    def _end_process(self) -> bool:
        process, sock = self._process, self._sock
        self._process = self._sock = self.deadline = None
        taken = False
        if process is not None:
            os.kill(process, signal.SIGKILL)
            # Unless the system was told to do it.
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process, 0)
        if sock is not None:
            self._unwatch(sock)
            sock.setblocking(False)
            with contextlib.suppress(OSError, ValueError, KeyError):
                while (said := hear(sock)[0]["says"]) and not taken:
                    taken = said == "taken"
            sock.close()
        return not taken

    def close(self) -> None:
        """The daemon stops: a new process that is starting is not wanted any more."""
        self._end_process()


def _spawn(theirs: socket.socket, arguments: Sequence[str]) -> int:
    """Start a process that has the other end of a socket and nothing else of this one; its number."""
    os.set_inheritable(theirs.fileno(), True)
    # Not from the folder that this daemon happens to run in: what is installed counts.
    command = [sys.executable, "-P", "-m", "machport.server", *arguments, "--take-over", str(theirs.fileno())]
    no_input = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
    return os.posix_spawn(sys.executable, command, os.environ, file_actions=[no_input])


def check_versions(said: dict[str, Any]) -> None:
    """Whether a process that says this can take over from this one.

    Raises:
        UpgradeFailed: it cannot; the text says why.
    """
    if snapshot.VERSION not in said["reads"]:
        raise UpgradeFailed(
            f"the new program, {said['version']}, reads snapshots of version {_several(said['reads'])}, "
            f"and this one, {RELEASE}, writes version {snapshot.VERSION}: stop the daemon and start it again"
        )
    if hello.VERSION not in said["speaks"]:
        raise UpgradeFailed(
            f"the new program, {said['version']}, speaks version {_several(said['speaks'])} with tasks, and those that "
            f"are here speak version {hello.VERSION}: stop the daemon and start it again"
        )


def _several(versions: list[int]) -> str:
    return " and ".join(map(str, versions)) or "none"


def _patience(size: int) -> float:
    """Seconds for a snapshot of so many bytes."""
    seconds = _PATIENCE
    with contextlib.suppress(KeyError, ValueError):
        seconds = float(os.environ[PATIENCE])
    return max(seconds, 0.0) + size / _PER_SECOND
