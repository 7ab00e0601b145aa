"""Tasks that were made for processes which are on their way: nobody's yet, and never left behind.

A child ends with the task that made it, or with the process that was to claim it.  A process claims it by its ticket,
once; from then on it is a client's task like any other.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from machport.abi import constants as c
from machport.abi import traps as t
from machport.carrier import hello
from machport.kernel import tasks
from machport.kernel.kernel import Kernel
from machport.kernel.refusal import Refusal
from machport.kernel.task import Task
from machport.server.dispatch import Answer
from machport.server.obituaries import Obituaries


class Child:
    """A task that waits for its process: who made it, what the process will say, and how its death is seen."""

    __slots__ = ("maker", "pidfd", "ticket")

    def __init__(self, maker: Task) -> None:
        self.maker = maker
        self.ticket = b""
        self.pidfd: int | None = None


class Children:
    """The children of all clients.

    Args:
        obituaries: where it is kept how they ended.
        watch: call back when a descriptor is readable; False if it cannot be watched.
        unwatch: stop that, and close it.
    """

    def __init__(
        self,
        kernel: Kernel,
        obituaries: Obituaries,
        watch: Callable[[int, Callable[[int], object]], bool],
        unwatch: Callable[[int], None],
    ) -> None:
        self._kernel = kernel
        self._obituaries = obituaries
        self._watch = watch
        self._unwatch = unwatch
        self._children: dict[Task, Child] = {}
        self._made_by: dict[Task, set[Task]] = {}
        self._tickets: dict[bytes, Task] = {}

    def create(self, maker: Task, name: int) -> Answer:
        """``task_create``: a new task without rights, and the maker's right to it."""
        parent = tasks.resolve_task(maker, name)
        maker.space.check_room()
        child = tasks.create_task(self._kernel, f"{parent.label}/child", maker.tokens)
        self._children[child] = Child(maker)
        self._made_by.setdefault(maker, set()).add(child)
        return Answer(t.TASK_CREATE.pack_answer((tasks.copy_to(self._kernel, maker, child.port),)))

    def ticket(self, maker: Task, name: int) -> Answer:
        """A new ticket for a child of the maker's; the one before is void."""
        task = tasks.resolve_task(maker, name)
        child = self._children.get(task)
        if child is None or child.maker is not maker:
            raise Refusal(c.KERN_INVALID_ARGUMENT, "ticket", "the task is not one of yours that waits for a process")
        self._tickets.pop(child.ticket, None)
        child.ticket = os.urandom(hello.TICKET_SIZE)
        self._tickets[child.ticket] = task
        return Answer(t.TICKET.pack_answer(words=list(memoryview(child.ticket).cast("I"))))

    def watch(self, maker: Task, name: int, descriptors: Sequence[int]) -> Answer:
        """Let a child of the maker's end when the pidfd that came along says that its process died."""
        task = tasks.resolve_task(maker, name)
        child = self._children.get(task)
        if child is None:
            # Claimed already: the daemon watches that process by itself.
            return Answer(t.WATCH.pack_answer())
        if child.maker is not maker or len(descriptors) != 1 or child.pidfd is not None:
            raise Refusal(c.KERN_INVALID_ARGUMENT, "watch", "one pidfd must come with the maker's one call for a task")
        if not self._watch(descriptors[0], lambda _: self.end(task, "lost its process before that had joined")):
            raise Refusal(c.KERN_INVALID_ARGUMENT, "watch", "the descriptor is not a pidfd")
        child.pidfd = descriptors[0]
        return Answer(t.WATCH.pack_answer(), keeps_descriptors=True)

    def claim(self, ticket: bytes) -> Task:
        """The task of a ticket, which is a client's from now on."""
        task = self._tickets.get(ticket)
        if task is None:
            raise Refusal(c.KERN_INVALID_CAPABILITY, "hello", "the ticket was used, or its sender or task is gone")
        self.forget(task)
        return task

    def end(self, task: Task, why: str) -> None:
        """A child ends unclaimed."""
        self.forget(task)
        if task.active:
            self._obituaries.record(task, 0, why)
            tasks.task_terminate(self._kernel, task)

    def end_all_of(self, maker: Task) -> None:
        """Whoever made these children has ended."""
        for task in list(self._made_by.get(maker, ())):
            self.end(task, f"ended with the task that had made it, {maker.label},")

    def forget(self, task: Task) -> None:
        """The task is no child any more, if it was one: claimed, or ended."""
        child = self._children.pop(task, None)
        if child is None:
            return
        self._tickets.pop(child.ticket, None)
        siblings = self._made_by[child.maker]
        siblings.discard(task)
        if not siblings:
            del self._made_by[child.maker]
        if child.pidfd is not None:
            self._unwatch(child.pidfd)
