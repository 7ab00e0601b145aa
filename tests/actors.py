"""Real processes for tests: a daemon of a test's own, and puppets, which do what they are told and can be killed.

Nothing here sleeps: whoever waits, waits for a line, a process or a message, with a deadline.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from multiprocessing.connection import Pipe
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from machport import DeadNameNotification, ReceiveRight, SendRight, Task, Transfer
from machport.abi import traps as t
from machport.carrier import packet, rings
from machport.carrier.hello import Hello
from machport.ring import layout

#: Seconds after which what a test waits for will not come; generous, because no test passes by it.
PATIENCE: Final = 30.0
PUPPET: Final = Path(__file__).with_name("puppet.py")


class DaemonProcess:
    """A daemon that listens, as ``python -m machport.server`` starts it."""

    def __init__(
        self, path: Path, *arguments: str, user: int | None = None, preexec_fn: Callable[[], None] | None = None
    ) -> None:
        self.path = path
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            daemon_command("--ready", "--verbose", "--socket", str(path), *arguments, user=user),
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            preexec_fn=preexec_fn,
        )
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
        if not ready or not self.process.stdout.readline().startswith("listening on"):
            self.kill()
            raise AssertionError(f"the daemon did not start: {self.log()}")

    def log(self) -> str:
        """What it has written to its standard error."""
        self._log.seek(0)
        return self._log.read()

    @property
    def pid(self) -> int:
        return self.process.pid

    def descriptors(self) -> int:
        """How many descriptors the daemon has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def close(self) -> None:
        """Stop it as a service manager would; it must end well and leave no socket."""
        if self.process.poll() is None:
            self.process.terminate()
            assert self.process.wait(PATIENCE) == 0, self.log()
            assert not self.path.exists()
        assert self.process.stdout is not None
        self.process.stdout.close()
        with self._log:
            assert "Traceback" not in self.log(), self.log()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def daemon_command(*arguments: str, user: int | None = None) -> list[str]:
    """The command of a daemon, which another user runs if one is given."""
    if user is None:
        return [sys.executable, "-m", "machport.server", *arguments]
    return command_as(
        user, f"sys.exit(main({list(arguments)!r}))", "import locale, shutil\nfrom machport.server.__main__ import main"
    )


def command_as(user: int, source: str, imports: str = "import machport") -> list[str]:
    """A program that becomes another user after its imports, because that user may not be able to read Python.

    Then it is as open to that user as one which the user has started (PR_SET_DUMPABLE).
    """
    become = f"os.setgid({user})\nos.setuid({user})\nctypes.CDLL(None).prctl(4, 1, 0, 0, 0)"
    return [sys.executable, "-c", f"import ctypes, os, sys\n{imports}\n{become}\n{source}"]


class Puppet:
    """A process that carries out pieces of Python, one after the other; ``puppet.py`` has the names it starts with."""

    def __init__(self) -> None:
        self._holder: int | None = None
        orders, self._orders = Pipe(duplex=False)
        self._answers, answers = Pipe(duplex=False)
        with orders, answers:
            ends = (orders.fileno(), answers.fileno())
            self.process = subprocess.Popen([sys.executable, str(PUPPET), *map(str, ends)], pass_fds=ends)

    @property
    def pid(self) -> int:
        return self.process.pid

    def begin(self, source: str) -> None:
        """Let it do something, and do not wait."""
        self._orders.send(source)

    def finish(self) -> Any:
        """What came of it: the value of an expression, or an AssertionError with the puppet's traceback."""
        kind, value = self._answer()
        assert kind == "done", value
        return value

    def do(self, source: str) -> Any:
        """Let it do something, and wait until it has."""
        self.begin(source)
        return self.finish()

    def wait_for_mark(self) -> None:
        """Wait until it has come to where it calls ``mark()``."""
        kind, value = self._answer()
        assert kind == "mark", value

    def _answer(self) -> tuple[str, Any]:
        assert self._answers.poll(PATIENCE), "the puppet does not answer"
        try:
            kind, value = self._answers.recv()
        except EOFError:
            raise AssertionError(f"the puppet ended with {self.wait()}") from None
        return kind, value

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self) -> None:
        """Let it stand still where it is, and return when it does."""
        self.signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)

    def wait(self) -> int:
        """Its exit code, minus the signal that ended it."""
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        self.process.kill()
        self.wait()

    def hold_sockets(self) -> None:
        """Let a child of the puppet hold all its sockets, as one that was forked by other means than Python's does.

        The child lives until this puppet object is closed, whatever becomes of its parent.
        """
        self._holder = self.do("hold_sockets()")

    def close(self) -> None:
        if self._holder is not None:
            os.kill(self._holder, signal.SIGKILL)
        self.kill()
        self._orders.close()
        self._answers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Client(Puppet):
    """A puppet with a ``task``, whose death the test's task hears of, and an ``inbox`` for rights."""

    def __init__(self, task: Task, name: str) -> None:
        super().__init__()
        self._task = task
        self.do(f"task = machport.Task(label={name!r}); inbox = task.check_in({name!r})")
        self.inbox: SendRight = task.look_up(name)
        self.deaths: ReceiveRight = task.allocate()
        self.inbox.request_dead_name(self.deaths)

    def give(self, variable: str, transfer: Transfer) -> None:
        """Let the client have a right, as one of its variables."""
        self.inbox.send(rights=[transfer])
        self.do(f"{variable} = inbox.receive({PATIENCE}).rights[0]")

    def wait_until_gone(self) -> None:
        """Return when the daemon has cleaned up after the client."""
        with self.deaths.receive(PATIENCE) as notice:
            assert isinstance(notice, DeadNameNotification)
        # It keeps the pidfd until it knows how the process ended, and looks when it is asked.
        self._task.calls.describe(self.inbox.name)

    def die(self) -> None:
        """Kill it, and return when the daemon has cleaned up."""
        self.kill()
        self.wait_until_gone()


class RawThread:
    """One thread's channel, its socket and the memory of its rings to abuse.

    Attributes:
        memory: the descriptor of the rings' memory; ``region`` is all of it.
        ends: the thread's end of its rings.
    """

    def __init__(self, sock: int, memory: int) -> None:
        self.sock = socket.socket(fileno=sock)
        self.sock.settimeout(PATIENCE)
        self.memory = memory
        self._early: list[tuple[bytes, list[int]]] = []
        self.use(memory)

    def use(self, memory: int) -> None:
        """These are its rings."""
        self.region = mmap.mmap(memory, 0)
        self.ends = rings.attach(memory)

    def publish(self, payload: bytes) -> bool:
        """Write a trap, and wake the daemon if it sleeps; whether there was room."""
        if self.ends.down.enqueue(payload) & ~layout.WAKE:
            return False
        self.ring()
        return True

    def ring(self) -> None:
        """Tell the daemon that something was written or read, as a thread does that means well."""
        if self.ends.daemon_bell.ring():
            self.wake()

    def wake(self) -> None:
        """Tell it in any case."""
        with contextlib.suppress(ConnectionError):
            self.sock.send(bytes(8))

    def carried(self) -> tuple[bytes, list[int]]:
        """The next answer, which is waited for in the usual way, and its descriptors, which the caller owns."""
        up = self.ends.up
        while (size := up.next_size()) < 0:
            self.ends.thread_bell.arm()
            if up.next_size() < 0:
                self._take_packet()
        if size:
            answer = up.dequeue() or b"", list[int]()
        else:
            while not self._early:
                self._take_packet()
            answer = self._early.pop(0)
            up.skip()
        self.ring()
        return answer

    def _take_packet(self) -> None:
        received = packet.receive(self.sock)
        assert received is not None, "the daemon has cut the thread off"
        if received[0]:
            self._early.append((bytes(received[0]), received[1]))

    def answer(self) -> bytes:
        """The next answer without its descriptors."""
        answer, descriptors = self.carried()
        packet.close_all(descriptors)
        return answer

    def trap(self, payload: bytes) -> bytes:
        """One trap and its answer."""
        assert self.publish(payload)
        return self.answer()

    def close(self) -> None:
        self.sock.close()
        os.close(self.memory)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class RawTask:
    """A task that writes packets of its own making.

    Its ``control`` connection and each channel of ``thread`` are sockets to abuse.
    """

    def __init__(self, path: Path, label: str = "raw") -> None:
        self.control = connect(path)
        packet.send(self.control, Hello(label).pack())
        assert self.read(self.control)[:4] == b"\0\0\0\0"

    @staticmethod
    def read(sock: socket.socket) -> bytes:
        """The payload of the next answer; b"" when the daemon has cut the connection."""
        try:
            received = packet.receive(sock)
        except ConnectionError:
            return b""
        if received is None:
            return b""
        payload, descriptors = received
        packet.close_all(descriptors)
        return bytes(payload)

    def thread(self) -> socket.socket:
        """The socket of a new channel."""
        with self.rings() as thread:
            return thread.sock.dup()

    def rings(self) -> RawThread:
        """A new channel."""
        packet.send(self.control, t.THREAD.pack())
        received = packet.receive(self.control)
        assert received is not None
        payload, descriptors = received
        assert t.number_of(payload) == 0, t.unpack_refusal(payload)
        return RawThread(*descriptors)

    def trap(self, payload: bytes, descriptors: Sequence[int] = (), sock: socket.socket | None = None) -> bytes:
        """Write one packet and read its answer; b"" if the daemon cuts the connection instead."""
        sock = sock or self.control
        try:
            packet.send(sock, payload, descriptors)
        except ConnectionError:
            return b""
        return self.read(sock)

    def call(self, trap: t.Trap, *arguments: int) -> tuple[int, ...]:
        """A trap that must succeed."""
        answer = self.trap(trap.pack(*arguments))
        assert t.number_of(answer) == 0, t.unpack_refusal(answer)
        return trap.unpack_answer(answer)[0]

    def is_cut_off(self) -> bool:
        """Whether the daemon has ended the task; its answers before that are thrown away."""
        while self.read(self.control):
            pass
        return True

    def close(self) -> None:
        self.control.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def connect(path: Path) -> socket.socket:
    """A connection that has not said hello."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.settimeout(PATIENCE)
    sock.connect(str(path))
    return sock
