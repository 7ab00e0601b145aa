"""What is known of a port: its label, who receives there, and how those ended who did before."""

from __future__ import annotations

from collections.abc import Callable

from machport.abi import traps as t
from machport.kernel import ports, tasks
from machport.kernel.kernel import Kernel
from machport.kernel.task import Task
from machport.server.dispatch import Answer
from machport.server.obituaries import Obituaries


def describe(kernel: Kernel, obituaries: Obituaries, task: Task, name: int, pid_of: Callable[[Task], int]) -> Answer:
    """The answer to DESCRIBE for a name of a task's own.

    Args:
        pid_of: the process of a task that lives; 0 if it has none.

    Raises:
        Refusal: the task has ended, or has no such name.
    """
    tasks.check_alive(task)
    known = ports.describe(kernel, task, name)
    flags = t.DESCRIBE_UNRECEIVED if known.unreceived else 0
    texts = [known.label, "", "", "", "", ""]
    numbers = [0, 0, 0, 0, 0, 0, 0]
    if known.holder is not None:
        flags |= t.DESCRIBE_HOLDER
        texts[1], numbers[0] = known.holder.label, pid_of(known.holder)
    for number, ended, status, text, at in (
        (known.last_holder, t.DESCRIBE_ENDED, t.DESCRIBE_STATUS, 2, 1),
        (known.lost_with, t.DESCRIBE_LOST, t.DESCRIBE_LOST_STATUS, 4, 4),
    ):
        obituary = obituaries.of(number)
        if obituary is not None:
            flags |= ended | (0 if obituary.status is None else status)
            texts[text : text + 2] = obituary.label, obituary.reason
            numbers[at : at + 3] = obituary.pid, int(obituary.when * 1_000_000), obituary.status or 0
    return Answer(t.DESCRIBE.pack_answer((known.type, known.urefs, flags, *numbers), t.pack_texts(*texts)))
