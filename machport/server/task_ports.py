"""Task ports of others, by the numbers of their processes: who may have them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from machport.abi import constants as c
from machport.abi import traps as t
from machport.kernel import tasks
from machport.kernel.kernel import Kernel
from machport.kernel.refusal import Refusal
from machport.kernel.task import Task
from machport.server.access import check_oversight
from machport.server.connection import Channel, Client
from machport.server.dispatch import Answer
from machport.server.log import event

_log: Final = logging.getLogger("machport.daemon")
#: Whether tasks of a process's own user may have its task port: only the one that made it, or all.
CREATOR: Final = "creator"
USER: Final = "user"
POLICIES: Final = (CREATOR, USER)


class TaskPorts:
    """Gives out rights to tasks.

    Args:
        clients: the tasks that have processes, in the order in which they joined.
        policy: ``CREATOR`` or ``USER``.
    """

    def __init__(self, kernel: Kernel, clients: Mapping[Task, Client], policy: str = CREATOR) -> None:
        self._kernel = kernel
        self._clients = clients
        self._all_of_user = policy == USER

    def allow(self, channel: Channel, payload: bytes | memoryview, descriptors: list[int]) -> Answer:
        """``allow_task_for_pid``: the caller agrees that tasks of its user may have its port, or no more."""
        client = channel.client
        assert client is not None
        client.allows_task_for_pid = bool(t.ALLOW_TASK_FOR_PID.unpack(payload)[0][0])
        return Answer(t.ALLOW_TASK_FOR_PID.pack_answer())

    def task_for_pid(self, channel: Channel, payload: bytes | memoryview, descriptors: list[int]) -> Answer:
        """A right to the task of a process.

        Raises:
            Refusal: KERN_NO_ACCESS, the caller may not have it; KERN_FAILURE, the process has no task here.
        """
        client = channel.client
        assert client is not None
        (name, pid), _ = t.TASK_FOR_PID.unpack(payload)
        tasks.check_alive(client.task)
        tasks.resolve_task(client.task, name)
        try:
            task = self._task_of(client, pid)
        except Refusal as refusal:
            _log.warning(
                "task %s of process %d, user %d, was refused the task of process %d: %s",
                client.task.label,
                client.peer.pid,
                client.peer.uid,
                pid,
                refusal.says,
                extra=event(
                    "task_for_pid_refused",
                    task=client.task.number,
                    label=client.task.label,
                    pid=client.peer.pid,
                    uid=client.peer.uid,
                    wanted=pid,
                    reason=refusal.says,
                ),
            )
            raise
        client.task.space.check_room()
        return Answer(t.TASK_FOR_PID.pack_answer((tasks.copy_to(self._kernel, client.task, task.port),)))

    def _task_of(self, caller: Client, pid: int) -> Task:
        """The task of a process that joined first, of those that the caller may have; of its own process, itself."""
        check_oversight(caller, "task_for_pid")
        if pid == caller.peer.pid:
            return caller.task
        found = [client for client in self._clients.values() if client.peer.pid == pid and client.task.active]
        if not found:
            raise Refusal(c.KERN_FAILURE, "task_for_pid", f"process {pid} has no task of this daemon")
        for client in found:
            if self._may_have(caller, client):
                return client.task
        raise Refusal(
            c.KERN_NO_ACCESS,
            "task_for_pid",
            f"process {pid} has not agreed; let it call allow_task_for_pid(), or start the daemon with --task-for-pid "
            "user",
        )

    def _may_have(self, caller: Client, other: Client) -> bool:
        if caller.peer.uid == 0:
            return True
        return caller.peer.uid == other.peer.uid and (self._all_of_user or other.allows_task_for_pid)
