"""What is on its way to a process and nobody's yet: tasks that were made for one, and single rights.

A child ends with the task that made it, or with the process that was to claim it.  A process claims it by its ticket,
once; from then on it is a client's task like any other.  Until then what it has counts with its maker.  A right that
was deposited is in the space of such a task, from which its ticket takes it to whichever task claims it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from machport.abi import constants as c
from machport.abi import traps as t
from machport.carrier import hello
from machport.kernel import ports, tasks
from machport.kernel.kernel import Kernel
from machport.kernel.refusal import Refusal
from machport.kernel.rights import kind_of
from machport.kernel.task import Task
from machport.peer.liveness import number_in_proc
from machport.server.dispatch import Answer
from machport.server.obituaries import Obituaries
from machport.server.snapshot import Restoring, Saving, State

#: How a right of each kind leaves the task in which it waits.
_MOVES = {
    c.MACH_MSG_TYPE_PORT_RECEIVE: c.MACH_MSG_TYPE_MOVE_RECEIVE,
    c.MACH_MSG_TYPE_PORT_SEND: c.MACH_MSG_TYPE_MOVE_SEND,
    c.MACH_MSG_TYPE_PORT_SEND_ONCE: c.MACH_MSG_TYPE_MOVE_SEND_ONCE,
}


class Child:
    """A task that waits for its process: who made it, what the process will say, and how its death is seen.

    Attributes:
        right: of a deposit, the name of the right and the disposition that takes it out.
    """

    __slots__ = ("maker", "pidfd", "right", "ticket")

    def __init__(self, maker: Task) -> None:
        self.maker = maker
        self.ticket = b""
        self.pidfd: int | None = None
        self.right: tuple[int, int] | None = None


class Children:
    """The children of all clients.

    Args:
        obituaries: where it is kept how they ended.
        watch: call back when a descriptor is readable; False if it cannot be watched.
        unwatch: stop that, and close it.
        new_ticket: TICKET_SIZE bytes that nobody can guess.
        made: called with each task that was made, and its maker.

    Attributes:
        ended: called with each of them that ends unclaimed, when it has.
        counts: called with a maker and 1 before a pidfd of its is kept, which it may refuse, and with -1 when that has
            gone.
    """

    def __init__(
        self,
        kernel: Kernel,
        obituaries: Obituaries,
        watch: Callable[[int, Callable[[int], object]], bool],
        unwatch: Callable[[int], None],
        new_ticket: Callable[[], bytes] = lambda: os.urandom(hello.TICKET_SIZE),
        made: Callable[[Task, Task], object] = lambda task, maker: None,
    ) -> None:
        self.ended: Callable[[Task], object] = lambda _: None
        self.counts: Callable[[Task, int], object] = lambda maker, more: None
        self._kernel = kernel
        self._new_number = new_ticket
        self._obituaries = obituaries
        self._watch = watch
        self._unwatch = unwatch
        self._made = made
        self._children: dict[Task, Child] = {}
        #: In the order in which they were made, in which they end.
        self._made_by: dict[Task, dict[Task, None]] = {}
        self._tickets: dict[bytes, Task] = {}

    def create(self, maker: Task, name: int) -> Answer:
        """``task_create``: a new task without rights, and the maker's right to it."""
        tasks.check_alive(maker)
        parent = tasks.resolve_task(maker, name)
        maker.space.check_room()
        child = tasks.create_task(self._kernel, f"{parent.label}/child", maker.tokens)
        self._enter(child, maker)
        return Answer(t.TASK_CREATE.pack_answer((tasks.copy_to(self._kernel, maker, child.port),)))

    def count_of(self, maker: Task) -> int:
        """How many tasks and rights of a maker are on their way."""
        return len(self._made_by.get(maker, ()))

    def waiting_child(self, maker: Task, name: int) -> Task:
        """The task of a name of its maker's, which waits for its process.

        Raises:
            Refusal: KERN_NO_ACCESS, it does not, or another task made it.
        """
        task = tasks.resolve_task(maker, name)
        child = self._children.get(task)
        if child is None or child.maker is not maker:
            raise Refusal(c.KERN_NO_ACCESS, "limits", "only who made a task asks, and before its process joins")
        return task

    def ticket(self, maker: Task, name: int) -> Answer:
        """A new ticket for a child of the maker's; the one before is void."""
        task = tasks.resolve_task(maker, name)
        child = self._children.get(task)
        if child is None or child.maker is not maker:
            raise Refusal(c.KERN_INVALID_ARGUMENT, "ticket", "the task is not one of yours that waits for a process")
        return Answer(t.TICKET.pack_answer(words=self._new_ticket(task, child)))

    def deposit(self, maker: Task, name: int, disposition: int) -> Answer:
        """A right of the maker's waits in a task of its own; the ticket of it.

        Raises:
            Refusal: the maker does not have the right, or it is dead; nothing was taken.
        """
        tasks.check_alive(maker)
        entry = maker.space.lookup(name)
        if entry is not None and entry.type & c.MACH_PORT_TYPE_DEAD_NAME:
            raise Refusal(c.KERN_INVALID_CAPABILITY, "deposit", "the port is dead, and a dead name is not deposited")
        task = tasks.create_task(self._kernel, f"{maker.label}/deposit", maker.tokens)
        child = self._enter(task, maker)
        child.right = task.space.pick_name(), _MOVES.get(kind_of(disposition), 0)
        try:
            ports.mach_port_insert_right(self._kernel, maker, task, child.right[0], name, disposition)
        except Refusal:
            self.end(task, "had nothing to wait with")
            raise
        return Answer(t.DEPOSIT.pack_answer(words=self._new_ticket(task, child)))

    def claim_right(self, claimer: Task, ticket: bytes) -> Answer:
        """The right of a ticket goes to a task of the same user: its name there, and its kind.

        Raises:
            Refusal: there is no such right, or no room for it, with which it still waits.
        """
        tasks.check_alive(claimer)
        task, child = self._deposit_of(claimer, ticket, "claim")
        assert child.right is not None
        claimer.space.check_room()
        name, disposition = child.right
        result = ports.mach_port_extract_right(self._kernel, claimer, task, name, disposition)
        self.end(task, "was done when its right was claimed")
        return Answer(t.CLAIM.pack_answer(result))

    def watch_deposit(self, maker: Task, ticket: bytes, descriptors: Sequence[int]) -> Answer:
        """Let a deposit end, and its right go, when the pidfd that came along says that its process died.

        Raises:
            Refusal: there is no such right any more, or this is no pidfd.
        """
        task, child = self._deposit_of(maker, ticket, "watch_deposit")
        return self._watch_for(task, child, maker, descriptors)

    def _deposit_of(self, caller: Task, ticket: bytes, call: str) -> tuple[Task, Child]:
        task = self._tickets.get(ticket)
        child = None if task is None else self._children[task]
        if task is None or child is None or child.right is None or child.maker.tokens[0] != caller.tokens[0]:
            raise Refusal(
                c.KERN_INVALID_CAPABILITY,
                call,
                "the ticket is not good: it was claimed, or its sender or process is gone",
            )
        return task, child

    def _enter(self, task: Task, maker: Task) -> Child:
        child = self._children[task] = Child(maker)
        self._made_by.setdefault(maker, {})[task] = None
        self._made(task, maker)
        tasks.count_with(task, maker)
        return child

    def _new_ticket(self, task: Task, child: Child) -> list[int]:
        self._tickets.pop(child.ticket, None)
        child.ticket = self._new_number()
        self._tickets[child.ticket] = task
        return list(memoryview(child.ticket).cast("I"))

    def watch(self, maker: Task, name: int, descriptors: Sequence[int]) -> Answer:
        """Let a child of the maker's end when the pidfd that came along says that its process died."""
        task = tasks.resolve_task(maker, name)
        child = self._children.get(task)
        if child is None:
            # Claimed already: the daemon watches that process by itself.
            return Answer(t.WATCH.pack_answer())
        return self._watch_for(task, child, maker, descriptors)

    def _watch_for(self, task: Task, child: Child, maker: Task, descriptors: Sequence[int]) -> Answer:
        if child.maker is not maker or len(descriptors) != 1 or child.pidfd is not None:
            raise Refusal(c.KERN_INVALID_ARGUMENT, "watch", "one pidfd must come with the maker's one call for a task")
        _check_pidfd(descriptors[0])
        self.counts(maker, 1)
        if not self._watch_process(task, child, descriptors[0]):
            self.counts(maker, -1)
            raise Refusal(c.KERN_RESOURCE_SHORTAGE, "watch", "the daemon cannot watch another process")
        return Answer(t.WATCH.pack_answer(), keeps_descriptors=True)

    def _watch_process(self, task: Task, child: Child, pidfd: int) -> bool:
        if not self._watch(pidfd, lambda _: self.end(task, "lost its process before that had joined")):
            return False
        child.pidfd = pidfd
        return True

    def claim(self, ticket: bytes) -> Task:
        """The task of a ticket, which is a client's from now on."""
        task = self._tickets.get(ticket)
        if task is None or self._children[task].right is not None:
            raise Refusal(c.KERN_INVALID_CAPABILITY, "hello", "the ticket was used, or its sender or task is gone")
        self.forget(task)
        return task

    def end(self, task: Task, why: str) -> None:
        """A child ends unclaimed."""
        self.forget(task)
        if task.active:
            self._obituaries.record(task, 0, why)
            tasks.task_terminate(self._kernel, task)
            self.ended(task)

    def end_all_of(self, maker: Task) -> None:
        """Whoever made these children has ended."""
        for task in list(self._made_by.get(maker, ())):
            self.end(task, f"ended with the task that had made it, {maker.label},")

    def forget(self, task: Task) -> None:
        """The task is no child any more, if it was one: claimed, or ended."""
        child = self._children.pop(task, None)
        if child is None:
            return
        tasks.count_alone(self._kernel, task)
        self._tickets.pop(child.ticket, None)
        siblings = self._made_by[child.maker]
        siblings.pop(task, None)
        if not siblings:
            del self._made_by[child.maker]
        if child.pidfd is not None:
            self._unwatch(child.pidfd)
            self.counts(child.maker, -1)

    def state(self, saving: Saving) -> State:
        """All children, for ``resume``."""
        return [
            [
                saving.task(task),
                saving.task(child.maker),
                child.ticket,
                None if child.pidfd is None else saving.descriptor(child.pidfd),
                child.right,
            ]
            for task, child in self._children.items()
        ]

    def resume(self, state: State, restoring: Restoring) -> None:
        """Have the children of a daemon whose place is taken."""
        for number, maker, ticket, pidfd, right in state:
            task = restoring.task(number)
            child = self._enter(task, restoring.task(maker))
            child.right = None if right is None else tuple(right)
            if ticket:
                child.ticket = ticket
                self._tickets[ticket] = task
            if pidfd is not None and not self._watch_process(task, child, restoring.descriptor(pidfd)):
                raise OSError("a child's process cannot be watched")


def _check_pidfd(descriptor: int) -> None:
    """A file of another kind would be kept for nothing, and be ready whenever its owner likes."""
    try:
        number_in_proc(descriptor)
    except (ValueError, OSError):
        raise Refusal(c.KERN_INVALID_ARGUMENT, "watch", "the descriptor is not a pidfd") from None
