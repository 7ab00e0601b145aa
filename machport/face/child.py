"""A process that was started with rights, as its parent has it."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
from typing import IO, TYPE_CHECKING, Any, Protocol

from machport.face.closing import Closing
from machport.peer.death import Death

if TYPE_CHECKING:
    from machport.face.rights import AnySendRight


class Process(Protocol):
    """What a child needs of its process: those of ``multiprocessing`` have it, and ``Program``."""

    name: str

    @property
    def pid(self) -> int | None: ...
    @property
    def exitcode(self) -> int | None: ...
    def kill(self) -> None: ...
    def terminate(self) -> None: ...
    def join(self, timeout: float | None = None) -> None: ...


class Program:
    """A process of ``subprocess`` with the methods of one of ``multiprocessing``."""

    def __init__(self, process: subprocess.Popen[Any], name: str) -> None:
        self.process = process
        self.name = name

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def exitcode(self) -> int | None:
        return self.process.poll()

    def kill(self) -> None:
        self.process.kill()

    def terminate(self) -> None:
        self.process.terminate()

    def join(self, timeout: float | None = None) -> None:
        if timeout is None:
            self.process.wait()
        elif self.process.poll() is None:
            # ``wait`` would look again and again.
            with contextlib.suppress(ProcessLookupError):
                pidfd = os.pidfd_open(self.process.pid)
                try:
                    select.select([pidfd], [], [], timeout)
                finally:
                    os.close(pidfd)

    def close_pipes(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                # What is left in a buffer has nobody to go to.
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


class Child(Closing):
    """A process that was started with rights, and a send right to its task.

    At the end of its ``with`` block, and by ``close``, it is killed if it still runs; ``join`` it to let it finish.

    Attributes:
        task_right: dies with the process: ask it for a dead-name notification.
        stdin, stdout, stderr: of a program that was started with ``subprocess.PIPE``, our ends; None otherwise.
    """

    stdin: IO[Any] | None = None
    stdout: IO[Any] | None = None
    stderr: IO[Any] | None = None

    def __init__(self, process: Process, task_right: AnySendRight) -> None:
        self._parent = os.getpid()
        self._process = process
        self._death: Death | None = None
        self.task_right = task_right
        # Nobody has to keep a child that goes on by itself.
        task_right._quiet = True
        if isinstance(process, Program):
            self.stdin, self.stdout, self.stderr = (
                process.process.stdin,
                process.process.stdout,
                process.process.stderr,
            )

    @property
    def pid(self) -> int:
        """The number of the process."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def name(self) -> str:
        """What it is called: its function, or its program."""
        return self._process.name

    @property
    def exitcode(self) -> int | None:
        """What it exited with, minus the signal if one killed it; None while it runs."""
        return self._process.exitcode

    @property
    def death(self) -> Death | None:
        """How it ended, with ``signal`` or ``exit_code``; None while it runs."""
        exitcode = self._process.exitcode
        if self._death is None and exitcode is not None:
            self._death = Death.of_child(self.pid, self._process.name, exitcode)
        return self._death

    def kill(self) -> None:
        """End the process by SIGKILL; nothing happens if it has ended."""
        self._process.kill()

    def terminate(self) -> None:
        """Ask the process to end, by SIGTERM; nothing happens if it has ended."""
        self._process.terminate()

    def join(self, timeout: float | None = None) -> int | None:
        """Wait until the process has ended; its exit code, None if it has not in ``timeout`` seconds."""
        self._process.join(timeout)
        return self._process.exitcode

    def close(self) -> None:
        """Kill the process if it still runs, and give up the right to its task.

        In a forked child of the process that started it, it does nothing: the process is not the child's.
        """
        if self._parent != os.getpid():
            return
        if self._process.exitcode is None:
            self._process.kill()
        self._process.join()
        if isinstance(self._process, Program):
            self._process.close_pipes()
        self.task_right.close()

    def __repr__(self) -> str:
        return f"<Child {self._process.name} {self._process.pid}>"
