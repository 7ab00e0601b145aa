"""Calls on tasks: making and ending them, the ports that stand for them, and kernel objects such as files."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop
from typing import Any, Final

from machport.abi import constants as c
from machport.abi.message import KERNEL_TOKENS
from machport.kernel import phase
from machport.kernel.kernel import Kernel
from machport.kernel.message import Message
from machport.kernel.messages import interrupt
from machport.kernel.port import Port, Quota
from machport.kernel.refusal import Refusal
from machport.kernel.release import (
    destroy_entry,
    destroy_first,
    destroy_message,
    destroy_port,
    notify_of_death,
    release_reference,
    release_right,
    release_send,
    take_requests,
)
from machport.kernel.rights import copyin, copyout, has_right_for, is_nameless
from machport.kernel.space import FreshNames, NamePicker, Space
from machport.kernel.task import Task

#: Steps that one end makes before another has its turn.
_TURN: Final = 32
_SPECIAL = (c.TASK_KERNEL_PORT, c.TASK_BOOTSTRAP_PORT)


def create_task(
    kernel: Kernel,
    label: str,
    tokens: Sequence[int] = KERNEL_TOKENS,
    *,
    bootstrap: Port | None = None,
    name_limit: int | None = None,
    names: NamePicker | None = None,
) -> Task:
    """A task without threads; ``bootstrap`` becomes its bootstrap port, of which it gets a send right."""
    kernel.tasks_made += 1
    kernel.counts.ports += 1
    task = Task(kernel.tasks_made, label, tokens, kernel.name_limit if name_limit is None else name_limit, names)
    task.space.quota = Quota(task, kernel.relieved, kernel.exceeded)
    task.port.receiver = kernel.space
    task.port.srights = 1
    kernel.tasks[task] = None
    if bootstrap is not None and bootstrap.active:
        bootstrap.srights += 1
        task.special[c.TASK_BOOTSTRAP_PORT] = bootstrap
    return task


def task_terminate(kernel: Kernel, task: Task) -> None:
    """The task ends, in the order of section 11 of the ports.

    It is dead at once; entries beyond ``Kernel.slice`` of them go when the driver calls ``carry_on``.
    """
    check_alive(task)
    begin_termination(kernel, task)
    if kernel.slice and len(task.space.entries) > kernel.slice:
        for waiter in list(task.waiters):
            # What would come to it until its port's turn comes is not for the dead.
            if kernel.waits(waiter):
                kernel.wake(waiter, c.MACH_RCV_PORT_DIED)
        kernel.release(task)
        kernel.unfinished.append((task.number, Termination(task)))
        return
    kernel.ending = task.number
    for name in sorted(task.space.entries):
        destroy_name(kernel, task, name)
    end_termination(kernel, task)
    kernel.ending = 0
    kernel.release(task)


def begin_termination(kernel: Kernel, task: Task) -> None:
    """The task is dead; its rights are still there, and its port dies after them."""
    task.space.active = False
    kernel.ending = task.port.last_holder = task.number
    for waiter in list(task.waiters):
        if waiter.phase == phase.SEND:
            interrupt(kernel, waiter)
    release_send(kernel, task.port)
    for port in [*task.special.values(), *filter(None, task.registered)]:
        release_send(kernel, port)
    task.special.clear()
    task.registered.clear()
    kernel.ending = 0
    del kernel.tasks[task]


def end_termination(kernel: Kernel, task: Task) -> None:
    """The dead task has no rights any more; its own port dies.

    Nothing of it refers to itself then, or has room for what is gone: whoever counts references lets all of it go.
    """
    destroy_port(kernel, task.port)
    task.port.kobject = None
    count_alone(kernel, task)
    space = task.space
    space.entries.clear()
    space.by_port.clear()
    space.names = FreshNames()
    space.task = None
    if space.quota is not None:
        space.quota.holder = None


def count_with(task: Task, maker: Task) -> None:
    """Names of a task without a process, and what waits in its ports' queues, count with its maker from now on.

    Nothing is said against what the maker has too much of by that.
    """
    space = task.space
    space.maker, space.quota = maker.space, maker.space.quota
    maker.space.lent += len(space.entries)
    _charge_ports(space)


def count_alone(kernel: Kernel, task: Task) -> None:
    """The task has a quota of its own, without limits, if it counted with its maker."""
    space = task.space
    if space.maker is not None:
        space.maker.lent -= len(space.entries)
        space.maker, space.quota = None, Quota(task, kernel.relieved, kernel.exceeded)
        _charge_ports(space)


def _charge_ports(space: Space) -> None:
    for entry in space.entries.values():
        if entry.type & c.MACH_PORT_TYPE_RECEIVE:
            assert entry.port is not None
            entry.port.charge_to(space.quota)


def destroy_name(kernel: Kernel, task: Task, name: int) -> None:
    """A dead task's rights of one name go."""
    entry = task.space.lookup(name)
    if entry is not None:
        destroy_entry(kernel, task.space, entry)


class Termination:
    """A dead task whose entries go one after the other.

    Attributes:
        names: those that are left, as a heap: sorting a million of them would take too long in one go.
    """

    __slots__ = ("names", "task")

    def __init__(self, task: Task) -> None:
        self.task = task
        self.names = list(task.space.entries)
        heapify(self.names)


def carry_on(kernel: Kernel, count: int) -> None:
    """Destroy up to ``count`` entries, messages and the like of what has ended and was too much for one go.

    What ended first has the first turn, and each has a turn before any has another; within one the order is that of
    an end in one go.
    """
    while count > 0 and kernel.unfinished:
        ending, what = kernel.unfinished.popleft()
        kernel.ending = ending
        turn = min(count, _TURN)
        while turn and what is not None:
            what = _step(kernel, what)
            turn -= 1
            count -= 1
        kernel.ending = 0
        if what is not None:
            kernel.unfinished.append((ending, what))


def _step(kernel: Kernel, what: Any) -> Any:
    """One step of an end; what is left, or None."""
    if isinstance(what, Message):
        destroy_message(kernel, what)
        return None
    if isinstance(what, Port):
        if what.msgcount:
            destroy_first(kernel, what)
            return what
        requests = take_requests(what)
        requests.reverse()
        return requests or None
    if isinstance(what, Termination):
        if what.names:
            destroy_name(kernel, what.task, heappop(what.names))
            return what
        end_termination(kernel, what.task)
        return None
    notify_of_death(kernel, what.pop())
    return what or None


def check_alive(task: Task) -> None:
    if not task.active:
        raise Refusal(c.KERN_INVALID_TASK, "P section 11", "the task is terminated")


def resolve_task(task: Task, name: int) -> Task:
    """The task that a name of the caller stands for: a live send right to a task port."""
    entry = task.space.lookup(name)
    if entry is None or entry.port is None or not isinstance(entry.port.kobject, Task):
        raise Refusal(c.KERN_INVALID_TASK, "P section 5", "the name is not a task port")
    return entry.port.kobject


def copy_to(kernel: Kernel, task: Task, port: Port | None) -> int:
    """Give the task a copy of a send right that the kernel holds; its name, 0 if there is none.

    Raises:
        Refusal: KERN_INVALID_TASK, the task has ended; KERN_NO_SPACE, no name is left for it (P4).
    """
    check_alive(task)
    if port is not None and port.active:
        port.srights += 1
    try:
        return copyout(task.space, port, c.MACH_MSG_TYPE_PORT_SEND)
    except Refusal:
        release_right(kernel, port, c.MACH_MSG_TYPE_PORT_SEND)
        raise


def mach_task_self(kernel: Kernel, task: Task) -> int:
    """A send right to the task's own port."""
    return copy_to(kernel, task, task.port)


def task_get_special_port(kernel: Kernel, caller: Task, task: Task, which: int) -> int:
    """A send right to one of the task's special ports; 0 if it has none."""
    _check_special(which)
    port = task.port if which == c.TASK_KERNEL_PORT else task.special.get(which)
    return copy_to(kernel, caller, port)


def task_set_special_port(kernel: Kernel, caller: Task, task: Task, which: int, name: int) -> None:
    """Replace a special port by a copy of the caller's send right; 0 leaves the task without one."""
    _check_special(which)
    if which == c.TASK_KERNEL_PORT:
        raise Refusal(c.KERN_INVALID_ARGUMENT, "task_set_special_port", "a task port cannot be replaced")
    port = _copy_of(kernel, caller, name)
    previous = task.special.pop(which, None)
    if port is not None:
        task.special[which] = port
    if previous is not None:
        release_send(kernel, previous)


def _check_special(which: int) -> None:
    if which not in _SPECIAL:
        raise Refusal(c.KERN_INVALID_ARGUMENT, "task_get_special_port", f"there is no special port {which}")


def mach_ports_register(kernel: Kernel, caller: Task, task: Task, names: Sequence[int]) -> None:
    """Keep copies of up to TASK_PORT_REGISTER_MAX send rights with the task; missing ones become null."""
    if len(names) > c.TASK_PORT_REGISTER_MAX:
        raise Refusal(c.KERN_INVALID_ARGUMENT, "mach_ports_register", f"at most {c.TASK_PORT_REGISTER_MAX} ports")
    for name in names:
        _check_sendable(caller, name)
    ports = [_copy_of(kernel, caller, name) for name in names]
    ports += [None] * (c.TASK_PORT_REGISTER_MAX - len(ports))
    previous, task.registered = task.registered, ports
    for port in filter(None, previous):
        release_send(kernel, port)


def mach_ports_lookup(kernel: Kernel, caller: Task, task: Task) -> list[int]:
    """Send rights to the registered ports, for the caller: all or none."""
    names: list[int] = []
    try:
        for port in task.registered:
            names.append(copy_to(kernel, caller, port))
    except Refusal:
        for name in names:
            entry = caller.space.lookup(name)
            if entry is not None:
                release_reference(kernel, caller.space, entry)
        raise
    return names


def _check_sendable(caller: Task, name: int) -> None:
    if not is_nameless(name):
        entry = caller.space.lookup(name)
        if entry is None or not has_right_for(entry, c.MACH_MSG_TYPE_COPY_SEND):
            raise Refusal(c.KERN_INVALID_CAPABILITY, "P8", f"{name:#x} is not a send right")


def _copy_of(kernel: Kernel, caller: Task, name: int) -> Port | None:
    _check_sendable(caller, name)
    if is_nameless(name):
        return None
    entry = caller.space.lookup(name)
    assert entry is not None
    port = copyin(kernel, caller.space, entry, c.MACH_MSG_TYPE_COPY_SEND)
    return port if port.active else None


def make_object(kernel: Kernel, task: Task, kobject: Any) -> int:
    """A send right to a new port of the kernel that stands for ``kobject``.

    When the last right to it is gone the kernel reports the object by ``Kernel.take_released``.
    """
    task.space.check_room()
    port = kernel.kernel_port(kobject)
    port.srights = 1
    return copyout(task.space, port, c.MACH_MSG_TYPE_PORT_SEND)


def object_of(task: Task, name: int, kind: type) -> Any:
    """The kernel object of one type that a send right of the task stands for."""
    entry = task.space.lookup(name)
    if entry is None:
        raise Refusal(c.KERN_INVALID_NAME, "P section 5", "the task has nothing under this name")
    if entry.port is None or not isinstance(entry.port.kobject, kind):
        raise Refusal(c.KERN_INVALID_RIGHT, "fileport_makefd", "the right does not stand for such an object")
    return entry.port.kobject
