"""Calls on tasks: making and ending them, the ports that stand for them, and kernel objects such as files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from machport.abi import constants as c
from machport.abi.message import KERNEL_TOKENS
from machport.kernel import phase
from machport.kernel.kernel import Kernel
from machport.kernel.messages import interrupt
from machport.kernel.port import Port
from machport.kernel.refusal import Refusal
from machport.kernel.release import destroy_entry, destroy_port, release_reference, release_right, release_send
from machport.kernel.rights import copyin, copyout, has_right_for, is_nameless
from machport.kernel.space import NamePicker
from machport.kernel.task import Task

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
    task = Task(kernel.tasks_made, label, tokens, kernel.name_limit if name_limit is None else name_limit, names)
    task.port.receiver = kernel.space
    task.port.srights = 1
    kernel.tasks[task] = None
    if bootstrap is not None and bootstrap.active:
        bootstrap.srights += 1
        task.special[c.TASK_BOOTSTRAP_PORT] = bootstrap
    return task


def task_terminate(kernel: Kernel, task: Task) -> None:
    """The task ends, in the order of section 11 of the ports."""
    check_alive(task)
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
    for name in sorted(task.space.entries):
        entry = task.space.lookup(name)
        if entry is not None:
            destroy_entry(kernel, task.space, entry)
    destroy_port(kernel, task.port)
    kernel.ending = 0
    kernel.release(task)
    del kernel.tasks[task]


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
        Refusal: KERN_NO_SPACE, no name is left for it (P4).
    """
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
