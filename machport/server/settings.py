"""What whoever starts a daemon may choose; a process that takes its place is started with the same."""

from __future__ import annotations

from dataclasses import dataclass, field

from machport.server.configuration import Configuration
from machport.server.task_ports import CREATOR


@dataclass(frozen=True, slots=True)
class Settings:
    """The choices, with what holds if nothing is chosen.

    Attributes:
        idle_exit: seconds without any client after which ``Daemon.run`` returns; None for never.
        task_for_pid: whether tasks may have each other's ports that are of one user, as ``task_ports`` says.
        configuration: what clients may have.
    """

    idle_exit: float | None = None
    task_for_pid: str = CREATOR
    configuration: Configuration = field(default_factory=Configuration)
