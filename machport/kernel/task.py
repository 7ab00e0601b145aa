"""Tasks: a space, a port that stands for the task, and the rights that the kernel holds for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from machport.abi.constants import TASK_PORT_REGISTER_MAX
from machport.kernel.port import Port, new_port
from machport.kernel.space import NamePicker, Space

if TYPE_CHECKING:
    from machport.kernel.waiter import Waiter


class Task:
    """A holder of rights.  It may have no threads at all.

    Attributes:
        port: the task port; the kernel has its receive right, and a send right that ``mach_task_self`` copies.
        special: send rights by number, such as TASK_BOOTSTRAP_PORT; the kernel holds them.
        registered: the rights of ``mach_ports_register``.
        tokens: sender (euid, egid) and audit token of the task's messages (M35).
        label: what people call it; no meaning to the kernel.
        number: which of its kernel's tasks it is, from 1 in the order in which they were made.
        waiters: calls of the task that have not finished.
    """

    __slots__ = ("label", "number", "port", "registered", "space", "special", "tokens", "waiters")

    def __init__(
        self, number: int, label: str, tokens: Sequence[int], limit: int, names: NamePicker | None = None
    ) -> None:
        self.number = number
        self.label = label
        self.tokens = tokens
        self.space = Space(self, limit, names)
        self.port = new_port(None)
        self.port.kobject = self
        self.special: dict[int, Port] = {}
        self.registered: list[Port | None] = [None] * TASK_PORT_REGISTER_MAX
        self.waiters: dict[Waiter, None] = {}

    @property
    def active(self) -> bool:
        return self.space.active

    def __repr__(self) -> str:
        return f"<Task {self.label}>"
