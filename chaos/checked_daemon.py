"""A daemon that is asked, between two traps, whether its kernel is in order and what it holds.

Its kernel may follow another dialect than the manual's, and its tasks may get the names that transcripts need.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import pickle
import select
import socket
import subprocess
import sys
import tempfile
import zlib
from collections import Counter
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from chaos.kernel_snapshot import snapshot
from machport.abi import constants as c
from machport.carrier import hello
from machport.kernel.dialect import DIALECTS
from machport.kernel.invariants import BrokenInvariant, check
from machport.kernel.kernel import Kernel
from machport.kernel.port import Port
from machport.kernel.refusal import Refusal
from machport.kernel.space import DEFAULT_NAME_LIMIT, FreshNames
from machport.kernel.task import Task
from machport.peer.attestation import Peer
from machport.server.bootstrap import Bootstrap
from machport.server.configuration import DEFAULTS, Configuration
from machport.server.connection import Channel
from machport.server.daemon import Daemon
from machport.server.lock import Place, leave, listen
from machport.server.settings import Settings

#: Seconds after which a daemon will not answer any more.
PATIENCE: Final = 30.0
_LOOK: Final = b"look"
_LOOK_ALONE: Final = b"look alone"
_SNAPSHOT: Final = b"snapshot"
_ANSWER_MAX: Final = 1 << 17
#: A task with such a label, a number behind it, gets names above that number shifted.
FRESH_LABEL: Final = "fresh-"
FRESH_SHIFT: Final = 24


class View(NamedTuple):
    """What was seen of a kernel.

    Attributes:
        fault: the invariant that does not hold; "" if all do, or were not asked for.
        digest: equal for kernels that hold the same.
        tasks, waiters: how many there are.
        tokens: of the newest task.
        descriptors: how many the daemon has open.
    """

    fault: str
    digest: bytes
    tasks: int
    waiters: int
    tokens: tuple[int, ...]
    descriptors: int


def look(kernel: Kernel, known: set[Port] | None) -> View:
    """A view of a kernel in this process.

    Args:
        known: ports that were seen before; None to leave out the invariants.
    """
    fault = ""
    if known is not None:
        try:
            check(kernel, known, Counter())
        except BrokenInvariant as error:
            fault = str(error)
        known -= {port for port in known if not port.active}
    waiters = sum(len(task.waiters) for task in kernel.tasks)
    newest = next(reversed(kernel.tasks))
    return View(fault, digest(kernel), len(kernel.tasks), waiters, tuple(newest.tokens), 0)


def digest(kernel: Kernel) -> bytes:
    """A few bytes that stand for all that a kernel holds."""
    return hashlib.blake2b(repr(snapshot(kernel)).encode(), digest_size=16).digest()


class CheckedDaemon:
    """Such a daemon in a process of its own, for as long as the block lasts.

    Args:
        dialect: "manual" or "gnumach".
        name_limit: names that a task may have.

    Attributes:
        path: where it listens.
    """

    def __init__(self, dialect: str = "manual", name_limit: int = DEFAULT_NAME_LIMIT) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="chaos-")
        self.path = Path(self._directory.name, "daemon.sock")
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(PATIENCE)
        arguments = [str(self.path), str(theirs.fileno()), dialect, str(name_limit)]
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "chaos.checked_daemon", *arguments],
                stdout=subprocess.PIPE,
                stderr=self._log,
                pass_fds=[theirs.fileno()],
                text=True,
            )
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
        assert ready and self.process.stdout.readline(), f"the daemon does not start: {self.log()}"

    def look(self, *, check: bool = True) -> View:
        """What its kernel holds now, and whether it is in order.

        Args:
            check: False to leave out the invariants.
        """
        self._control.send(_LOOK if check else _LOOK_ALONE)
        return View(*pickle.loads(self._control.recv(_ANSWER_MAX)))

    def snapshot(self) -> dict[str, Any]:
        """All that its kernel holds."""
        self._control.send(_SNAPSHOT)
        packed = self._control.recv(_ANSWER_MAX)
        return dict(pickle.loads(zlib.decompress(packed)))

    def log(self) -> str:
        """What it has written to its standard error."""
        self._log.seek(0)
        return self._log.read()

    @property
    def closed(self) -> bool:
        """Whether it was stopped."""
        return self._log.closed

    def close(self) -> list[str]:
        """Stop it; what was wrong with it, if anything.  Again does nothing."""
        if self.closed:
            return []
        running = self.process.poll() is None
        self.process.terminate()
        try:
            exitcode: int | None = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            exitcode = None
        faults = [] if running and exitcode == 0 else [f"the daemon ended with {exitcode}"]
        if "Traceback" in self.log():
            faults.append(f"the daemon wrote: {self.log()}")
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._control.close()
        self._log.close()
        self._directory.cleanup()
        return faults

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        faults = self.close()
        assert kind is not None or not faults, faults


def limited(names: int) -> Configuration:
    """The settings of a daemon whose tasks may have so many names."""
    return Configuration(task=DEFAULTS._replace(names=names))


class _Daemon(Daemon):
    """The daemon itself."""

    def __init__(self, listener: socket.socket, place: Place, control: socket.socket, kernel: Kernel) -> None:
        settings = Settings(configuration=limited(kernel.name_limit))
        super().__init__(listener, place, settings, begun=(kernel, Bootstrap(kernel)))
        self._known: set[Port] = set()
        self._register(control, lambda _: self._answer_control(control))

    def _answer_control(self, control: socket.socket) -> None:
        asked = control.recv(_ANSWER_MAX)
        if not asked:
            # Whoever asks is gone.
            os._exit(1)
        if asked == _SNAPSHOT:
            control.send(zlib.compress(pickle.dumps(snapshot(self.kernel))))
            return
        view = look(self.kernel, self._known if asked == _LOOK else None)
        control.send(pickle.dumps(tuple(view._replace(descriptors=len(os.listdir("/proc/self/fd"))))))

    def _upgrade(self, channel: Channel, payload: bytes | memoryview, descriptors: list[int]) -> None:
        raise Refusal(c.KERN_FAILURE, "upgrade", "nobody could ask the process that would take its place")

    def _admit(self, greeting: hello.Hello, peer: Peer) -> Task:
        task = super()._admit(greeting, peer)
        if greeting.label.startswith(FRESH_LABEL):
            number = int(greeting.label.removeprefix(FRESH_LABEL))
            task.space.names = FreshNames(number << FRESH_SHIFT)
        return task


def main() -> None:
    """Serve until it is told to stop."""
    import signal

    parser = argparse.ArgumentParser()
    parser.add_argument("path", type=Path)
    parser.add_argument("control", type=int)
    parser.add_argument("dialect", choices=sorted(DIALECTS))
    parser.add_argument("name_limit", type=int)
    options = parser.parse_args()
    listener, lock = listen(options.path)
    kernel = Kernel(DIALECTS[options.dialect], name_limit=options.name_limit)
    daemon = _Daemon(listener, Place(options.path, lock), socket.socket(fileno=options.control), kernel)
    daemon.stop_on(signal.SIGTERM)
    print("ready", flush=True)
    try:
        daemon.run()
    finally:
        daemon.close()
        leave(options.path, lock)


if __name__ == "__main__":
    main()
