"""The state that a trace begins with, as one word: kernel, service of names, children, and what numbers mean.

It is what an upgrade carries over (``snapshot``), of all that calls on a kernel depend on.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, overload

from machport.kernel.kernel import Kernel
from machport.kernel.snapshot import SnapshotError
from machport.kernel.task import Task
from machport.kernel.waiter import Result, Waiter
from machport.server import snapshot
from machport.server.bootstrap import Bootstrap
from machport.server.children import Children

#: Ports, names and queued messages of a kernel that is written down at once: it takes some hundredths of a second.
STATE_MAX: Final = 20_000
#: Stands for a file where nobody has any.
NO_FILE: Final = -1


def waiting(kernel: Kernel, bootstrap: Bootstrap) -> Iterator[Waiter]:
    """The calls of tasks that wait, in the order of their numbers in a trace."""
    for task in kernel.tasks:
        for waiter in task.waiters:
            if waiter is not bootstrap.waiter:
                yield waiter


def why_not(kernel: Kernel) -> str:
    """Why a kernel is not written down now; "" if it can be."""
    if kernel.counts.ports + kernel.counts.queued + sum(len(task.space.entries) for task in kernel.tasks) > STATE_MAX:
        return "there is too much to write it all down at once"
    return ""


def pack_state(
    kernel: Kernel, bootstrap: Bootstrap, children: Children, tasks: Iterable[Task], unread: Sequence[Result]
) -> str:
    """A kernel that has nothing under way.

    Args:
        tasks: those that may still make calls, also if they have ended.
        unread: receptions that may go back to their queues.

    Raises:
        SnapshotError: something is under way.
    """
    snapshot.load()
    saving = snapshot.Saving()
    state = {
        "bootstrap": bootstrap.state(saving),
        "children": children.state(saving),
        "tasks": [saving.task(task) for task in tasks],
        "waiting": [saving.waiter(waiter) for waiter in waiting(kernel, bootstrap)],
        "unread": [saving.result(result) for result in unread],
    }
    return base64.b64encode(zlib.compress(saving.pack(kernel, state), 1)).decode()


class State:
    """What was written down, as it is here.

    Attributes:
        kernel, bootstrap: as they were.
        children: its state, and how to read it.
        tasks: those that may make calls.
        waiting: calls that wait, in the order of their numbers.
        unread: receptions, in the order of theirs.
    """

    def __init__(self, word: str) -> None:
        """Read it.

        Raises:
            ValueError, ProtocolError: it is none.
        """
        snapshot.load()
        try:
            data = zlib.decompress(base64.b64decode(word, validate=True))
        except zlib.error as error:
            raise ValueError(f"a state that is not whole: {error}") from None
        state, restoring = snapshot.unpack(data, _NoFiles())
        self.kernel: Kernel = restoring.kernel
        self.bootstrap = Bootstrap.resumed(self.kernel, state["bootstrap"], restoring)
        self.children: tuple[Any, snapshot.Restoring] = state["children"], restoring
        self.tasks = [restoring.task(number) for number in state["tasks"]]
        self.waiting = [restoring.waiter(number) for number in state["waiting"]]
        self.unread = [restoring.result(number) for number in state["unread"]]


class _NoFiles(Sequence[int]):
    """Descriptors where there are none, as many as are asked for."""

    def __len__(self) -> int:
        return 1 << 30

    @overload
    def __getitem__(self, index: int) -> int: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[int]: ...

    def __getitem__(self, index: int | slice) -> int | Sequence[int]:
        return NO_FILE


__all__ = ["NO_FILE", "STATE_MAX", "SnapshotError", "State", "pack_state", "waiting", "why_not"]
