"""How rights are pickled: only on their way to a process.

``multiprocessing`` has a pickler of its own for what goes to processes.  It is taught here what a ``Transfer`` is; any
other pickle refuses one.  Whoever pickles for a certain receiver says who carries the rights there (``carried_by``);
otherwise each right waits with the kernel for whoever unpickles its ticket.
"""

# A protocol's members have docstrings for bodies.
# pyright: reportReturnType=false

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from machport.abi.errors import ClosedRight, InvalidArgument, MachError
from machport.client.process import process_task
from machport.face.rights import Right, Transfer, received_right

if TYPE_CHECKING:
    from machport.face.task import AnyTask

#: How a right is made again where it is unpickled: a function of a module, and its arguments.
Remade = tuple[Callable[..., Right], tuple[Any, ...]]


class Carrier(Protocol):
    """What brings rights to whoever unpickles."""

    def carry(self, transfer: Transfer) -> Remade:
        """Take a right along."""


_local = threading.local()


@contextlib.contextmanager
def carried_by(carrier: Carrier) -> Iterator[None]:
    """Within the block, ``carrier`` takes the rights that this thread pickles."""
    before = carrier_of_thread()
    _local.carrier = carrier
    try:
        yield
    finally:
        _local.carrier = before


def carrier_of_thread() -> Carrier | None:
    """Who takes the rights that this thread pickles now; None if each goes by a ticket."""
    return getattr(_local, "carrier", None)


def process_that_starts() -> Any:
    """What ``multiprocessing`` starts a process with whose arguments this thread pickles now; None if it does not."""
    context = sys.modules.get("multiprocessing.context")
    return None if context is None else context.get_spawning_popen()


def carry(transfer: Transfer) -> Remade:
    """Let a right go along with what this thread pickles now."""
    carrier = carrier_of_thread()
    return deposit(transfer) if carrier is None else carrier.carry(transfer)


#: What is made of each kind of transfer that pickles for processes may have.
_reductions: dict[type[Transfer], Callable[[Any], Any]] = {}


def teach(kind: type[Transfer], reduce: Callable[[Any], Any]) -> bool:
    """Let pickles that go to processes have what ``reduce`` makes of transfers of a kind; whether it could be done yet.

    Nobody pickles for processes who has not imported ``multiprocessing``, and this does not import it.  Who does so
    later calls ``register``.
    """
    _reductions[kind] = reduce
    return register()


def register() -> bool:
    """Let pickles that go to processes have rights, and what else was taught; whether it could be done yet."""
    reduction = sys.modules.get("multiprocessing.reduction")
    pickler = getattr(reduction, "ForkingPickler", None)
    if pickler is None:
        return False
    for kind, reduce in _reductions.items():
        pickler.register(kind, reduce)
    return True


# Tickets


class Ticket:
    """A right that waits with the kernel for whoever claims it: its sender's side.

    Args:
        right: the object that stood for it.
        moved: it stands for the right no more.
        number: what it is claimed by.
        process: what ``multiprocessing`` starts the one process with that is to have it; None if any may.
    """

    def __init__(self, right: Right, moved: bool, number: bytes, process: Any) -> None:
        self._right = right
        self._moved = moved
        self._number = number
        self._process = process

    def recall(self) -> None:
        """Take the right back.

        Raises:
            InvalidRight: it was claimed.
        """
        task = self._right.task
        name, kind = task.calls.claim(self._number)
        if self._moved:
            self._right.back(name)
        else:
            right = received_right(task, name, kind)
            if right is not None:
                right.close()

    def settle(self) -> None:
        """Nobody here knows of the transfer any more, or it is pickled again.

        If a process was to be started with it and was not, the right comes back.  If it was started, the right goes
        when that process dies without having claimed it.
        """
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(MachError, OSError):
            pid = getattr(process, "pid", None)
            if pid is None:
                self.recall()
                return
            try:
                pidfd = os.pidfd_open(pid)
            except ProcessLookupError:
                self.recall()
                if self._moved:
                    self._right.close()
                return
            try:
                self._right.task.calls.watch_deposit(self._number, pidfd)
            finally:
                os.close(pidfd)

    def __del__(self) -> None:
        self.settle()


def deposit(transfer: Transfer) -> Remade:
    """Let a right wait for whoever unpickles what this returns."""
    if isinstance(transfer.ticket, Ticket):
        transfer.ticket.settle()
    if transfer.right is None:
        from machport.face.blocking import task_self

        task: AnyTask = task_self()
        transfer.prepare(task)
    right = transfer.right
    task = right.task
    try:
        number = task.calls.deposit(right.name, transfer.disposition)
    except BaseException:
        transfer.undo()
        raise
    transfer.ticket = Ticket(right, transfer.moves, number, process_that_starts())
    transfer.done()
    return claim_right, (str(task.path), number)


def claim_right(path: str, number: bytes) -> Right:
    """The right of a ticket, now of this process's own task, which joins the daemon at ``path`` if it has none yet.

    Raises:
        InvalidRight: the ticket was used, or its sender is gone, or of another user.
        ForkedTask: the process was forked from one that was a task, and is none itself.
    """
    from machport.face.blocking import task_self

    process_task.join_at(Path(path))
    task = task_self()
    if str(task.path) != path:
        raise InvalidArgument(
            f"the right waits with the daemon at {path}, and this process's task is of the one at {task.path}",
            task=task.label,
        )
    right = received_right(task, *task.calls.claim(number))
    assert right is not None
    return right


# Rights that travel in a message, beside the pickle


class Enclosure:
    """Rights that go in the same message as the pickle they belong to.

    Attributes:
        transfers: what is to be sent along, in this order.
    """

    def __init__(self, task: AnyTask) -> None:
        self._task = task
        self.transfers: list[Transfer] = []

    def carry(self, transfer: Transfer) -> Remade:
        if transfer.right is not None:
            transfer.right.name_in(self._task)
        if any(other.right is not None and other.right is transfer.right and other.moves for other in self.transfers):
            raise InvalidArgument(f"{transfer.right!r} is moved twice", task=self._task.label)
        self.transfers.append(transfer)
        return _enclosed, (len(self.transfers) - 1,)


def dumps(task: AnyTask, thing: object) -> tuple[bytes, list[Transfer]]:
    """Pickle something for a message: the bytes, and the rights that must go along.

    Raises:
        InvalidArgument: a right in it is of another task than ``task``, or moved twice.
        Exception: whatever pickling raises.
    """
    from multiprocessing.reduction import ForkingPickler

    enclosure = Enclosure(task)
    register()
    with carried_by(enclosure):
        data = bytes(ForkingPickler.dumps(thing))
    return data, enclosure.transfers


def loads(data: bytes | memoryview, rights: list[Right | None]) -> Any:
    """What ``dumps`` pickled; rights that it has are taken out of ``rights``, which came in the message.

    Raises:
        Exception: whatever unpickling raises.
    """
    import pickle

    before = getattr(_local, "rights", None)
    _local.rights = rights
    try:
        return pickle.loads(data)
    finally:
        _local.rights = before


def _enclosed(index: int) -> Right:
    rights: list[Right | None] | None = getattr(_local, "rights", None)
    right = None if rights is None else rights[index]
    if rights is None or right is None:
        raise ClosedRight("the right of this pickle came in a message, and is not there any more")
    rights[index] = None
    return right


_reductions[Transfer] = carry
