"""Child processes that hold just the rights they were given.

The parent makes the child's task and puts rights into it while the arguments are pickled; the child's process claims
the task by a ticket before they are unpickled.  Processes are those of ``multiprocessing`` with its spawn method.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from machport.abi import constants as c
from machport.abi.errors import InvalidArgument, MachError
from machport.client.connection import Connection
from machport.client.process import process_task
from machport.face import pickling
from machport.face.closing import Closing
from machport.face.pickling import Remade
from machport.face.rights import AnySendRight, Right, Transfer, received_right

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

    from machport.face.task import AnyTask

#: Names for rights in a child's empty space: index from here, generation 3.
_FIRST_INDEX = 0x1000
#: What arrives of a right that leaves by each disposition.
_KINDS = {
    c.MACH_MSG_TYPE_MOVE_RECEIVE: c.MACH_MSG_TYPE_PORT_RECEIVE,
    c.MACH_MSG_TYPE_MOVE_SEND: c.MACH_MSG_TYPE_PORT_SEND,
    c.MACH_MSG_TYPE_COPY_SEND: c.MACH_MSG_TYPE_PORT_SEND,
    c.MACH_MSG_TYPE_MOVE_SEND_ONCE: c.MACH_MSG_TYPE_PORT_SEND_ONCE,
}


class Handover:
    """Rights on their way into the task of a child that is being started."""

    def __init__(self, task: AnyTask, child: int) -> None:
        self._task = task
        self._child = child
        self._names: dict[int, int] = {}
        self._carried: list[tuple[Transfer, int]] = []

    def carry(self, transfer: Transfer) -> Remade:
        """Put a right into the child's space; how it is made again there."""
        transfer.prepare(self._task)
        name = transfer.right.name_in(self._task)
        if any(before.right is transfer.right and before.moves for before, _ in self._carried):
            raise InvalidArgument(f"{transfer.right!r} is moved twice into one child")
        # Rights of one port come together under one name there, as they are here; send-once rights never do.
        child_name = self._names.setdefault(name, (_FIRST_INDEX + len(self._names)) << c.PORT_NAME_INDEX_SHIFT | 3)
        self._task.calls.mach_port_insert_right(self._child, child_name, name, transfer.disposition)
        self._carried.append((transfer, child_name))
        return right_of_child, (child_name, _KINDS[transfer.disposition])

    def done(self) -> None:
        """The child has started: what was moved is gone from here."""
        for transfer, _ in self._carried:
            transfer.done()

    def undo(self) -> None:
        """The child did not start: take back what was moved."""
        for transfer, child_name in reversed(self._carried):
            if transfer.moves:
                with contextlib.suppress(MachError):
                    name, _ = self._task.calls.mach_port_extract_right(self._child, child_name, transfer.disposition)
                    transfer.returned(name)


class _Membership:
    """The first thing a child unpickles: it joins the daemon as the task that its parent made."""

    def __init__(self, path: Path, ticket: bytes, label: str) -> None:
        self._arguments = (path, ticket, label)

    def __reduce__(self) -> Any:
        return _join, self._arguments


def _join(path: Path, ticket: bytes, label: str) -> None:
    process_task.join(Connection(label, ticket, path))


def right_of_child(name: int, kind: int) -> Right:
    """The right that is under ``name`` in the task of this process, of a kind (MACH_MSG_TYPE_PORT_)."""
    from machport.face.blocking import task_self

    right = received_right(task_self(), name, kind)
    assert right is not None
    return right


def _run(membership: None, target: Callable[..., object], args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    # A terminal's interrupt goes to the whole group; it is the parent's to decide what becomes of the child.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        target(*args, **kwargs)
    finally:
        # Whoever has the other ends of its data queues shall see whether it ended in order.
        queue = sys.modules.get("machport.dataqueue.queue")
        if queue is not None:
            queue.close_in_order()


def _watch(task: AnyTask, child: int, process: SpawnProcess) -> None:
    """Let the child's rights go if its process dies before it is a task's."""
    assert process.pid is not None
    pidfd = os.pidfd_open(process.pid)
    try:
        task.calls.watch(child, pidfd)
    finally:
        os.close(pidfd)


class Child(Closing):
    """A process that was spawned, and a send right to its task.

    Attributes:
        task_right: dies with the process: ask it for a dead-name notification.
    """

    def __init__(self, process: SpawnProcess, task_right: AnySendRight) -> None:
        self._process = process
        self.task_right = task_right

    @property
    def pid(self) -> int:
        """The number of the process."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def exitcode(self) -> int | None:
        """What it exited with, minus the signal if one killed it; None while it runs."""
        return self._process.exitcode

    def kill(self) -> None:
        """End the process by SIGKILL; nothing happens if it has ended."""
        self._process.kill()

    def join(self, timeout: float | None = None) -> int | None:
        """Wait until the process has ended; its exit code, None if it has not in ``timeout`` seconds."""
        self._process.join(timeout)
        return self._process.exitcode

    def close(self) -> None:
        """Kill the process if it still runs, and give up the right to its task."""
        if self._process.is_alive():
            self._process.kill()
        self._process.join()
        self.task_right.close()

    def __repr__(self) -> str:
        return f"<Child {self._process.name} {self._process.pid}>"


def start_child(
    task: AnyTask, target: Callable[..., object], args: Sequence[Any], kwargs: dict[str, Any], *, bootstrap: bool
) -> Child:
    """Make a task, give it the rights among the arguments, and start its process."""
    # Imported only here: most tasks start no child, and this is the larger part of the import time.
    import multiprocessing

    calls = task.calls
    child = calls.task_create(task.name)
    label = getattr(target, "__name__", type(target).__name__)
    handover = Handover(task, child)
    try:
        if bootstrap:
            with task.bootstrap or contextlib.nullcontext() as port:
                name = c.MACH_PORT_NULL if port is None else port.name
                calls.task_set_special_port(child, c.TASK_BOOTSTRAP_PORT, name)
        membership = _Membership(task.path, calls.ticket(child), label)
        process = multiprocessing.get_context("spawn").Process(
            target=_run, args=(membership, target, args, kwargs), name=label, daemon=True
        )
        pickling.register()
        with pickling.carried_by(handover):
            process.start()
        _watch(task, child, process)
    except BaseException:
        handover.undo()
        calls.task_terminate(child)
        calls.mach_port_deallocate(task.name, child)
        raise
    handover.done()
    return Child(process, task.send_kind(task, child))
