"""A task of a world: ``machport.Task``, whose traps go to the embedded kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from machport.abi import constants as c
from machport.abi.errors import InvalidArgument
from machport.abi.limits import Limits
from machport.abi.traps import Buffer, Payload
from machport.client.inheritance import InheritedRight
from machport.face.blocking import PortSet, SendRight, Task
from machport.face.child import Child
from machport.face.handover import Handover
from machport.face.rights import Right, Transfer, received_right
from machport.face.watching import Attendant, Request, ThreadAttendant
from machport.kernel import task as kernel

if TYPE_CHECKING:
    from machport.confinement.policy import Confinement
    from machport.testing.world import World


class Carrier:
    """Carries the traps of one task."""

    def __init__(self, world: World, task: kernel.Task) -> None:
        self.self_name = c.MACH_PORT_NULL
        self._world = world
        self._task = task

    @property
    def label(self) -> str:
        return self._task.label

    @property
    def path(self) -> Path:
        raise InvalidArgument("a task of a world has no daemon that would listen anywhere", task=self.label)

    def trap(self, payload: Payload, descriptors: Sequence[int] = ()) -> tuple[Buffer, Sequence[int]]:
        answers, files = self._world.carry(self._task, payload, descriptors)
        return answers[0], files

    def traps(self, payloads: Sequence[Payload], answer_max: int) -> list[Buffer]:
        return [self.trap(payload)[0] for payload in payloads]

    def stream(self, payload: bytes) -> list[Buffer]:
        return [*self._world.carry(self._task, payload, ())[0]]

    def interrupt(self, thread: int) -> None:
        self._world.interrupt(thread)

    def forget(self, name: int, kind: int) -> None:
        self._world.forget(self._task, name, kind)


class WorldTask(Task):
    """A task that ends with its process, or when the test closes or abandons it.

    Attributes:
        carrier: what carries its traps.
        kernel_task: what the kernel knows of it.
    """

    def __init__(self, world: World, kernel_task: kernel.Task) -> None:
        # Not that of Task, which would join a daemon.
        self.carrier = Carrier(world, kernel_task)
        self._attach(self.carrier)
        self.kernel_task = kernel_task
        self._world = world

    @property
    def closed(self) -> bool:
        return not self._world.lives(self.kernel_task)

    def close(self) -> None:
        """End the task: every right it has is given up, and whoever watched one of them is told."""
        self._world.end(self.kernel_task)

    def spawn(
        self,
        target: Callable[..., object] | Sequence[str],
        *args: Any,
        rights: Mapping[str, Transfer] | None = None,
        bootstrap: bool = False,
        confined: Confinement | bool = False,
        limits: Limits | None = None,
        **kwargs: Any,
    ) -> Child:
        """Start ``target(*args, **kwargs, **rights)`` as a process of the world that ends with it.

        As ``machport.Task.spawn``, but that nothing is pickled: rights are looked for in lists, tuples and
        dictionaries among the arguments, and that nothing is confined: there is no process.
        """
        if not callable(target):
            raise InvalidArgument(f"spawn needs a function, not {target!r}; write spawn(f, arg), not spawn(f(arg))")
        kwargs = kwargs | dict(rights or {})
        name, process = self._world.start(
            self, target, args, kwargs, bootstrap=bootstrap, label=None, daemon=True, limits=limits
        )
        return Child(cast(Any, process), SendRight(self, name))

    def new_attendant(self) -> Attendant:
        """A thread that takes turns receives for the watches of this task."""
        return WorldAttendant(self, self._world)

    def free_reply_ports(self) -> set[int]:
        """Names of the ports that it keeps for the answers to its next calls."""
        return set(self._reply_ports)


class WorldAttendant(ThreadAttendant):
    """Receives what a task of a world watches for."""

    def __init__(self, task: WorldTask, world: World) -> None:
        super().__init__(task)
        self._world = world

    def begin_thread(self, receive: Callable[[PortSet], None], pset: PortSet) -> None:
        self._world.begin_thread(f"notifications of {self.task.label}", lambda: receive(pset))

    def wait(self, request: Request, timeout: float | None) -> None:
        self._world.wait_for(request.done.is_set, f"for {request.about}", timeout)


class Arrival:
    """The arguments of a function that is to be a process: its rights go into the process's task.

    Args:
        task: whose rights they are.
        child: its name for the process's task.
    """

    def __init__(self, task: WorldTask, child: int) -> None:
        self.handover = Handover(task, child)

    def carry(self, value: Any) -> Any:
        """An argument with a ``Carried`` for each right in it."""
        if isinstance(value, Transfer):
            return Carried(self.handover.put(value))
        if isinstance(value, Right):
            value.__reduce__()
        return _within(value, self.carry)


class Carried:
    """Stands for a right until the task is there that has it."""

    def __init__(self, right: InheritedRight) -> None:
        self.right = right


def arrive(task: WorldTask, value: Any) -> Any:
    """An argument with the process's rights, and ends of data queues, in it."""
    if not isinstance(value, Carried):
        return _within(value, lambda inner: arrive(task, inner))
    name, kind, brings_queue = value.right
    right = received_right(task, name, kind)
    if brings_queue:
        assert isinstance(right, SendRight)
        return right.open_data_queue()
    return right


def _within(value: Any, change: Callable[[Any], Any]) -> Any:
    """A list, tuple or dictionary with what is in it changed; the very same object if nothing in it is."""
    if type(value) in (list, tuple):
        changed = [change(inner) for inner in value]
        if all(new is old for new, old in zip(changed, value, strict=True)):
            return value
        return type(value)(changed)
    if type(value) is dict:
        new = {key: change(inner) for key, inner in value.items()}
        return value if all(new[key] is value[key] for key in value) else new
    return value


def giver(arguments: Any) -> WorldTask | None:
    """The task whose rights are among some arguments; None if there are none.

    Raises:
        InvalidArgument: they are of several.
    """
    found: set[WorldTask] = set()

    def look(value: Any) -> Any:
        if isinstance(value, Transfer):
            found.add(cast(WorldTask, value.right.task))
        _within(value, look)
        return value

    look(arguments)
    if len(found) > 1:
        raise InvalidArgument(
            "the rights of a process's arguments must all be of one task; send the others there first"
        )
    return found.pop() if found else None
