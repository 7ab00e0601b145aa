"""The task of this process: joined at first use, one for all that do not make their own.

``machport.mach`` and ``machport.iokit`` speak for it, as their namesakes do.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

from machport.abi.errors import ForkedTask
from machport.abi.traps import Buffer, Payload
from machport.client import inheritance as inherited
from machport.client.calls import Carrier
from machport.client.connection import Connection
from machport.client.inheritance import InheritedRight
from machport.peer.introduction import default_label


class ProcessTask:
    """Carries the traps of the process's own task, which it joins when the first one comes."""

    def __init__(self) -> None:
        self._connection: Connection | None = None
        self._pid = 0
        self._lock = threading.Lock()
        #: The rights of this process's inheritance that nobody has asked for.
        self._inherited: dict[str, InheritedRight] = {}
        self._played = threading.local()

    def play(self, task: object, carrier: Carrier) -> None:
        """Let the calling thread, from now on, be that of another process: one whose kernel is embedded in this one."""
        self._played.task, self._played.carrier = task, carrier

    @property
    def played(self) -> object:
        """The task object of the process that the calling thread plays; None if it plays none."""
        return getattr(self._played, "task", None)

    @property
    def carrier(self) -> Carrier:
        """What carries the calling thread's traps.

        Raises: as ``connection``.
        """
        played: Carrier | None = getattr(self._played, "carrier", None)
        return self.connection if played is None else played

    @property
    def connection(self) -> Connection:
        """The connection, made now if this is the first use.

        Raises:
            ForkedTask: the process is a forked child of the one that joined, and has not called ``restart``.
        """
        connection = self._connection
        if connection is None or connection.closed:
            return self._new_connection()
        if self._pid != os.getpid():
            raise ForkedTask("a forked child has none of its parent's rights; call mach_init() to become a task")
        return connection

    def join_at(self, path: Path) -> None:
        """Join the daemon at ``path``, unless the process is a task already.

        Raises:
            ForkedTask: as ``connection``.
        """
        if self._connection is None or self._connection.closed:
            self._new_connection(path)
        else:
            _ = self.connection

    def _new_connection(self, path: Path | None = None) -> Connection:
        with self._lock:
            if self._connection is None or self._connection.closed:
                inheritance = inherited.take()
                if inheritance is None:
                    self._connection = Connection(default_label(), path=path)
                else:
                    label, ticket, path = inheritance.label, inheritance.ticket, inheritance.path
                    joined = inherited.take_connection(inheritance)
                    self._connection = Connection(label, ticket, path, joined)
                    self._inherited = inheritance.rights
                self._pid = os.getpid()
            return self._connection

    def take_inherited(self) -> dict[str, InheritedRight]:
        """What was in the task when this process joined it; nothing if it was left none, or the second time.

        Raises:
            InvalidRight: the task is gone that was left to it.
        """
        if inherited.VARIABLE in os.environ:
            self.connection  # noqa: B018  joins
        rights, self._inherited = self._inherited, {}
        return rights

    def join(self, connection: Connection) -> None:
        """Let this be the process's task: what a spawned child does with its ticket."""
        self._connection = connection
        self._pid = os.getpid()

    def restart(self) -> None:
        """Become a new task, without any right: what a forked child does."""
        self._connection = None

    def forked(self) -> None:
        """In a forked child: the lock may be held by a thread that is not there any more."""
        self._lock = threading.Lock()

    @property
    def label(self) -> str:
        return self.carrier.label

    @property
    def path(self) -> Path:
        return self.carrier.path

    @property
    def self_name(self) -> int:
        return self.carrier.self_name

    @self_name.setter
    def self_name(self, name: int) -> None:
        self.carrier.self_name = name

    def trap(self, payload: Payload, descriptors: Sequence[int] = ()) -> tuple[Buffer, Sequence[int]]:
        return self.carrier.trap(payload, descriptors)

    def traps(self, payloads: Sequence[Payload], answer_max: int) -> list[Buffer]:
        return self.carrier.traps(payloads, answer_max)

    def stream(self, payload: bytes) -> list[Buffer]:
        return self.carrier.stream(payload)

    def interrupt(self, thread: int) -> None:
        self.carrier.interrupt(thread)

    def forget(self, name: int, kind: int) -> None:
        # A finalizer is no reason to join.
        if self._connection is not None:
            self._connection.forget(name, kind)


#: The task of this process.
process_task = ProcessTask()
os.register_at_fork(after_in_child=process_task.forked)
