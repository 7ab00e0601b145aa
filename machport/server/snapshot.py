"""The state of a daemon as bytes and descriptors, for the process that takes its place.

Each part of the server says for itself what it carries over: ``state(saving)`` gives plain data (numbers, text, bytes,
lists, and dicts with text as keys), and ``resume(state, restoring)`` of the new daemon's part takes it.  What the parts
share is numbered here: tasks, calls that wait, receptions, channels, and descriptors.

A program that changes what a part says raises ``VERSION``, and goes on reading the versions before it: those in
``READS``.  A part that an older daemon had not is not resumed and begins as new; one that this program has not is an
error, because something would be lost.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from machport.abi.errors import ProtocolError
from machport.kernel import snapshot as kernel_snapshot
from machport.kernel.kernel import Kernel
from machport.kernel.task import Task
from machport.kernel.waiter import Result, Waiter
from machport.server.dispatch import OpenFile

if TYPE_CHECKING:
    from machport.server.connection import Channel

MAGIC: Final = b"machport daemon\n"
VERSION: Final = 1
READS: Final = (1,)
#: Plain data.
State = Any
_Thing = TypeVar("_Thing")
_VERSION_SIZE: Final = 4
#: Where a kernel's state has its ports, and up to how many all rights are counted once more when it is restored.
_PORTS: Final = 6
_COUNTED_MAX: Final = 100_000


def load() -> None:
    """Import what only a replacement needs; a daemon that is never replaced does without."""
    for module in ("json", "msgspec"):
        importlib.import_module(module)


class Part(Protocol):
    """What carries something over."""

    def state(self, saving: Saving, /) -> State:
        """What is to be carried over."""

    def resume(self, state: State, restoring: Restoring, /) -> None:
        """Take it over."""


class Saving:
    """A snapshot while it is made: what the parts refer to gets its numbers.

    Attributes:
        descriptors: those that go along, in the order of their numbers.
    """

    def __init__(self) -> None:
        self.descriptors: list[int] = []
        self._tasks: dict[Task, int] = {}
        self._waiters: dict[Waiter, int] = {}
        self._results: dict[Result, int] = {}
        self._channels: dict[Channel, int] = {}
        #: Of each file that a port stands for, the number of its descriptor, and who made it.
        self._files: list[tuple[int, Task | None]] = []

    def descriptor(self, descriptor: int) -> int:
        """The number of a descriptor; the new daemon has one of its own for each time that this was asked."""
        self.descriptors.append(descriptor)
        return len(self.descriptors) - 1

    def task(self, task: Task) -> int:
        return self._tasks.setdefault(task, len(self._tasks))

    def waiter(self, waiter: Waiter) -> int:
        """The number of a call that waits."""
        return self._waiters.setdefault(waiter, len(self._waiters))

    def result(self, result: Result) -> int:
        """The number of a reception that may have to be taken back."""
        return self._results.setdefault(result, len(self._results))

    def channel(self, channel: Channel) -> int:
        return self._channels.setdefault(channel, len(self._channels))

    def pack(self, kernel: Kernel, state: State) -> bytes:
        """The snapshot: the kernel with all that has got a number, and what the parts have said.

        Raises:
            SnapshotError: the kernel has something under way.
        """
        import msgspec

        saved = kernel_snapshot.save(
            kernel, list(self._waiters), list(self._results), self._number_of, list(self._tasks)
        )
        files = [[number, -1 if holder is None else saved.tasks.get(holder, -1)] for number, holder in self._files]
        return MAGIC + VERSION.to_bytes(_VERSION_SIZE, "little") + msgspec.msgpack.encode([state, saved.state, files])

    def _number_of(self, file: OpenFile) -> int:
        self._files.append((self.descriptor(file.descriptor), file.holder))
        return len(self._files) - 1


class Restoring:
    """A snapshot while it is read: what the numbers of its parts mean here.

    Attributes:
        kernel: the kernel, in which everything is already.
        channels: by their numbers, as soon as they are there.
    """

    def __init__(self, kernel: State, files: State, descriptors: Sequence[int]) -> None:
        self._descriptors = descriptors
        self.channels: dict[int, Channel] = {}
        opened = [(OpenFile(self.descriptor(number), None), holder) for number, holder in files]
        # To count every right of a million ports takes twice as long as all the rest.
        ports = kernel[_PORTS] if len(kernel) > _PORTS else None
        is_large = isinstance(ports, list) and len(ports) > _COUNTED_MAX
        restored = kernel_snapshot.restore(kernel, lambda number: _at(opened, number)[0], checks=not is_large)
        for file, holder in opened:
            if holder >= 0:
                file.holder = _at(restored.tasks, holder)
        self.kernel = restored.kernel
        self._restored = restored

    def descriptor(self, number: int) -> int:
        """A descriptor, which whoever asks has from now on."""
        return _at(self._descriptors, number)

    def task(self, number: int) -> Task:
        return _at(self._restored.tasks, number)

    def waiter(self, number: int) -> Waiter:
        return _at(self._restored.waiters, number)

    def result(self, number: int) -> Result:
        return _at(self._restored.results, number)


def _at(things: Sequence[_Thing], number: int) -> _Thing:
    if not 0 <= number < len(things):
        raise ProtocolError(f"this is no snapshot of a daemon: there is no number {number}")
    return things[number]


def unpack(data: bytes | memoryview, descriptors: Sequence[int]) -> tuple[State, Restoring]:
    """The state that was packed, and what its numbers mean here.

    Raises:
        ProtocolError: it is no snapshot, or of a version that this program does not read.
    """
    import msgspec

    head = len(MAGIC) + _VERSION_SIZE
    with memoryview(data) as view:
        version = int.from_bytes(view[len(MAGIC) : head], "little")
        if bytes(view[: len(MAGIC)]) != MAGIC:
            raise ProtocolError("this is no snapshot of a daemon")
        if version not in READS:
            raise ProtocolError(f"a snapshot of version {version}, which this program does not read")
        try:
            state, kernel, files = msgspec.msgpack.decode(
                view[head:], type=tuple[dict[str, Any], list[Any], list[tuple[int, int]]]
            )
            return state, Restoring(kernel, files, descriptors)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, kernel_snapshot.SnapshotError) as error:
            raise ProtocolError(f"this is no snapshot of a daemon: {error}") from None
