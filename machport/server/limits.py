"""The limits of each task: where they come from, what is used of them, and the log's line when one is met.

Names, messages and bytes are counted by the kernel; threads, memory, descriptors and children are counted here.  Knows
tasks, and nothing of how their calls come.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from machport.abi import constants as c
from machport.abi import traps as t
from machport.abi.errors import InvalidArgument
from machport.abi.limits import Limits
from machport.kernel.kernel import Kernel
from machport.kernel.port import Port, Quota
from machport.kernel.refusal import Refusal
from machport.kernel.task import Task
from machport.server.configuration import Configuration
from machport.server.dispatch import Answer
from machport.server.log import event
from machport.server.snapshot import Restoring, Saving, State

_log: Final = logging.getLogger("machport.daemon")
#: Seconds after a line of the log before the same task's same limit is told again.
_PAUSE: Final = 10.0
#: What is said of a limit, where its name does not.
_SAYS: Final = {
    "messages": "messages in the queues of its ports; senders to them wait",
    "bytes": "bytes in the queues of its ports; senders to them wait",
    "sending": "bytes of messages that it waits to send",
    "waiters": "calls that wait",
    "memory": "bytes of memory shared for its calls",
    "descriptors": "descriptors of the daemon",
    "children": "children and rights on their way",
}


class Account:
    """A task's limits, and what the server counts of it.

    Attributes:
        pid: its process; 0 while it has none.
        threads, memory, descriptors, children: what it has now.
    """

    __slots__ = ("children", "descriptors", "limits", "memory", "pid", "task", "threads")

    def __init__(self, task: Task, limits: Limits) -> None:
        self.task = task
        self.pid = 0
        self.threads = 0
        self.memory = 0
        self.descriptors = 0
        self.children = 0
        self.limit_to(limits)

    def limit_to(self, limits: Limits) -> None:
        """These are its limits from now on; what it has beyond them it keeps."""
        self.limits = limits
        self.task.space.limit = _number(limits.names)
        if self.task.space.maker is not None:
            # Until a process joins, and is told these limits once more, the rest of them is its maker's.
            return
        quota = quota_of(self.task)
        quota.sending_max = _number(limits.sending)
        quota.waiters_max = _number(limits.waiters)
        quota.limit_to(_number(limits.messages), _number(limits.bytes))

    def usage(self) -> Limits:
        quota, space = quota_of(self.task), self.task.space
        counts = space.maker is None
        return Limits(
            names=len(space.entries) + space.lent,
            messages=quota.messages if counts else 0,
            bytes=quota.bytes if counts else 0,
            sending=quota.sending if counts else 0,
            waiters=len(self.task.waiters),
            threads=self.threads,
            memory=self.memory,
            descriptors=self.descriptors,
            children=self.children,
        )


class Limiter:
    """The accounts of all tasks.

    Args:
        descriptors: how many the daemon may have for its clients; one of them gets a quarter at most.
        clock: seconds, of which only differences count.
    """

    def __init__(
        self,
        kernel: Kernel,
        configuration: Configuration,
        descriptors: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kernel = kernel
        self._configuration = configuration
        self._ceiling = Limits(descriptors=max(4, descriptors // 4))
        self._clock = clock
        self._accounts: dict[Task, Account] = {}
        #: When a line was written about a task's limit, and how often it was met since.
        self._told: dict[tuple[Task, str], tuple[float, int]] = {}

    def accounts(self) -> Iterable[Account]:
        """Those of all tasks."""
        return self._accounts.values()

    def begin(self, task: Task, label: str, maker: Task | None = None) -> Account:
        """A task that was made; one that another task made has no more than that."""
        limits = self._configuration.limits_of(label).within(self._ceiling)
        if maker is not None and (account := self._accounts.get(maker)) is not None:
            limits = limits.within(account.limits)
        account = self._accounts[task] = Account(task, limits)
        return account

    def join(self, task: Task, label: str, pid: int) -> Account:
        """A process has joined as the task, with a label of its own."""
        account = self._accounts.get(task)
        if account is None:
            account = self.begin(task, label)
        else:
            account.limit_to(account.limits.within(self._configuration.limits_of(label)))
        account.pid = pid
        account.descriptors += 2
        return account

    def of(self, task: Task) -> Account | None:
        return self._accounts.get(task)

    def set_limits(self, task: Task, maker: Task, words: Sequence[int]) -> Answer:
        """The maker of a task sets its limits, which are none above its own.

        Raises:
            Refusal: one is, or these are no limits.
        """
        try:
            limits = Limits.of_words(words)
        except InvalidArgument as error:
            raise Refusal(c.KERN_INVALID_ARGUMENT, "limits", error.says) from None
        account, own = self._accounts[task], self._accounts[maker].limits
        for field, value, most in zip(Limits._fields, limits, own, strict=True):
            if value is not None and value > _number(most):
                says = f"{field} of {value} are more than the {most} that task {maker.label} may have itself"
                raise Refusal(c.KERN_RESOURCE_SHORTAGE, "limits", says)
        account.limit_to(limits.over(account.limits))
        return Answer(t.TASK_SET_LIMITS.pack_answer())

    def get_limits(self, task: Task) -> Answer:
        """The limits of a task, and what it uses of them."""
        account = self._accounts[task]
        return Answer(t.TASK_GET_LIMITS.pack_answer(words=[*account.limits.words(), *account.usage().words()]))

    def end(self, task: Task) -> None:
        """The task is no more."""
        self._accounts.pop(task, None)
        for key in [key for key in self._told if key[0] is task]:
            del self._told[key]

    def state(self, saving: Saving) -> State:
        """All accounts, for ``resume``."""
        return [
            [saving.task(task), account.pid, list(account.limits), account.threads, account.descriptors]
            for task, account in self._accounts.items()
        ]

    def resume(self, state: State, restoring: Restoring) -> None:
        """Have the accounts of a daemon whose place is taken: what a task could have, it can have.

        Memory is counted with the channels.
        """
        # Other parts have begun some anew.
        self._accounts.clear()
        for number, pid, limits, threads, descriptors in state:
            task = restoring.task(number)
            account = self._accounts[task] = Account(task, Limits(*limits))
            account.pid = pid
            account.threads = threads
            account.descriptors = descriptors

    def check(self, task: Task, what: str, more: int = 1) -> Account:
        """Whether a task may have so much more of something that is counted here.

        Raises:
            Refusal: KERN_RESOURCE_SHORTAGE; the text has the task, the limit and what is used of it.
        """
        account = self._accounts[task]
        limit, use = _number(getattr(account.limits, what)), getattr(account, what)
        if use + more > limit:
            quota_of(task).note(what, limit, use)
            says = f"task {task.label} may have {limit} {_SAYS.get(what, what)}, and has {use}"
            raise Refusal(c.KERN_RESOURCE_SHORTAGE, "limits", says)
        return account

    def report(self) -> None:
        """One line in the log for each limit that was met, and at most one in ten seconds for the same one."""
        now = self._clock()
        for excess in self._kernel.take_exceeded():
            task: Task = excess.holder  # type: ignore[assignment]
            if task not in self._accounts:
                continue
            key = task, excess.what
            told, count = self._told.get(key, (now - _PAUSE, 0))
            count += excess.count
            if now - told >= _PAUSE:
                line = self._line(task, excess.what, excess.limit, excess.use, excess.port, count)
                fields = event(
                    "limit_met",
                    task=task.number,
                    label=task.label,
                    pid=self._accounts[task].pid,
                    limit=excess.what,
                    most=excess.limit,
                    use=excess.use,
                    port="" if excess.port is None else excess.port.label,
                    count=count,
                )
                _log.warning("%s", line, extra=fields)
                told, count = now, 0
            self._told[key] = told, count

    def _line(self, task: Task, what: str, limit: int, use: int, port: Port | None, count: int) -> str:
        pid = self._accounts[task].pid
        executable = ""
        with contextlib.suppress(OSError):
            executable = f", {os.readlink(f'/proc/{pid}/exe')}" if pid else ""
        where = ""
        if port is not None:
            where = f"; port {port.label!r}" if port.label else "; a port without a label"
            where += f", name {port.name:#x}" if port.name else ", in transit"
        times = f"; {count} times" if count > 1 else ""
        return (
            f"limit met: task {task.label} of process {pid}{executable} has {use} of {limit} "
            f"{_SAYS.get(what, what)}{where}{times}"
        )


def quota_of(task: Task) -> Quota:
    quota = task.space.quota
    assert quota is not None
    return quota


def _number(limit: int | None) -> int:
    assert limit is not None
    return limit
