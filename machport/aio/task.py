"""A task whose rights wait in an event loop."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from machport.abi.errors import DeadTask, LoopMisuse
from machport.abi.limits import Limits
from machport.abi.traps import MsgAnswer, MsgTrap
from machport.aio.pending import LoopCalls
from machport.aio.rights import PortDestroyedNotification, PortSet, ReceiveRight, SendRight
from machport.aio.watching import LoopAttendant
from machport.client.connection import Connection
from machport.face import blocking, child, loops
from machport.face.rights import AnyReceiveRight, Transfer
from machport.face.task import AnyTask

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from machport.confinement.policy import Confinement


class Child(child.Child):
    __doc__ = child.Child.__doc__

    async def join(self, timeout: float | None = None) -> int | None:  # type: ignore[override]
        """Wait until the process has ended; its exit code, None if it has not in ``timeout`` seconds.

        If it is cancelled the process goes on.
        """
        if self.exitcode is None:
            try:
                pidfd = os.pidfd_open(self.pid)
            except ProcessLookupError:
                return self.exitcode
            try:
                if await loops.wait_readable(pidfd, timeout):
                    super().join()
            finally:
                os.close(pidfd)
        return self.exitcode


class Task(AnyTask):
    """A task of this user's daemon, for coroutines: what waits in ``machport.Task`` is awaited here.

    It belongs to the event loop in which it first waits, of asyncio (or uvloop) or trio, until that is closed; then the
    next one may have it.  Everything that does not wait may be done anywhere.

    Args:
        label: what the daemon and error messages call the task; the program's name by default.
        path: socket of another daemon.

    Raises:
        DaemonUnavailable: no daemon can be reached or started; the text says what to do.
    """

    runs_coroutines = True
    send_kind = SendRight
    receive_kind = ReceiveRight
    set_kind = PortSet
    port_destroyed_kind = PortDestroyedNotification

    #: Calls that are under way, and the loop that they are in.
    _loop_calls: LoopCalls | None = None
    _loop: object = None
    #: When the loop had its last turn, in nanoseconds.
    _gave_way = 0

    def __init__(self, *, label: str | None = None, path: Path | str | None = None) -> None:
        # Said here because what is compiled does not show its arguments.
        super().__init__(label=label, path=path)

    def loop_calls(self) -> LoopCalls:
        """What is under way in the loop that runs here; for the rights.

        Raises:
            LoopMisuse: no loop runs, or another one than the task's.
            DeadTask, DaemonLost, ForkedTask, LimitReached: as any call.
        """
        trio = loops.running_library() == loops.TRIO
        try:
            loop = loops.trio_library().lowlevel.current_trio_token() if trio else loops.running_loop()
        except LoopMisuse:
            # A forked child is in no loop, but that is not what is wrong.
            self._check_usable()
            raise
        calls = self._loop_calls
        if loop is not self._loop and calls is not None:
            self._check_usable()
            if not _is_over(self._loop):
                raise LoopMisuse(
                    "the task belongs to another event loop, in which it waited first; use one task for each loop, or "
                    "one loop",
                    task=self.label,
                )
            calls.close()
        if loop is not self._loop or calls is None or calls.closed:
            connection = self._carrier
            if not isinstance(connection, Connection):
                raise LoopMisuse(
                    "a task without a daemon, as of a world for tests, does not wait in loops", task=self.label
                )
            if trio:
                from machport.aio.trio_calls import TrioCalls

                calls = TrioCalls(connection)
            else:
                from machport.aio.asyncio_calls import AsyncioCalls

                calls = AsyncioCalls(connection, cast("AbstractEventLoop", loop))
            self._loop_calls, self._loop = calls, loop
            if self._attendant is not None:
                self.attendant.go_on(calls)
        return calls

    def _check_usable(self) -> None:
        if isinstance(self._carrier, Connection):
            self._carrier.check_usable()

    def mach_msg(self, trap: MsgTrap) -> MsgAnswer:
        """Carry one ``mach_msg`` by the loop's own channel, so that it stays in order with those that are under way."""
        calls = self._loop_calls
        return super().mach_msg(trap) if calls is None or not calls.is_here() else calls.at_once(trap)

    @staticmethod
    def of_process() -> Task:
        """The task of this process, in this form."""
        return task_self()

    def new_attendant(self) -> LoopAttendant:
        """The loop receives for the watches of this task."""
        return LoopAttendant(self)

    def spawn(
        self,
        target: Callable[..., object] | Sequence[str],
        *args: Any,
        rights: Mapping[str, Transfer] | None = None,
        bootstrap: bool = False,
        confined: Confinement | bool = False,
        limits: Limits | None = None,
        **kwargs: Any,
    ) -> Child:
        """Start a process whose task has just the rights that it is given, as ``right.move()`` or ``right.copy()``.

        It is done at once, as by ``machport.Task.spawn``, without waiting for anything.  A coroutine function is run by
        ``asyncio.run`` in the new process, and its rights arrive to be awaited, as those of
        ``machport.aio.task_self()``.  An ordinary function gets ordinary rights, those of ``machport.task_self()``; so
        does a program that is given as a list, by ``machport.inherited()``.

        Args, Raises: as those of ``machport.Task.spawn``.
        """
        started = super().spawn(
            target, *args, rights=rights, bootstrap=bootstrap, confined=confined, limits=limits, **kwargs
        )
        return Child(started._process, started.task_right)

    def close(self) -> None:
        """End the task: every right it has is given up, and whoever watched one of them is told.

        Coroutines that wait are told with ``DeadTask``, as threads are.
        """
        super().close()
        calls = self._loop_calls
        if calls is None or not self.closed:
            return
        if _is_over(self._loop):
            calls.close()
        elif calls.is_here():
            calls.fail(DeadTask("the task was closed", task=self.label))

    if TYPE_CHECKING:

        @property
        def attendant(self) -> LoopAttendant: ...
        def allocate(self, *, qlimit: int | None = None, label: str = "") -> ReceiveRight: ...
        def allocate_many(self, count: int) -> list[ReceiveRight]: ...
        def port_set(self, *ports: AnyReceiveRight) -> PortSet: ...
        @property
        def bootstrap(self) -> SendRight | None: ...
        def look_up(self, service_name: str) -> SendRight: ...
        def task_for_pid(self, pid: int) -> SendRight: ...
        def check_in(self, service_name: str) -> ReceiveRight: ...


def task_self() -> Task:
    """The task of this process, as ``machport.task_self()``, for coroutines."""
    return Task.of(blocking.task_self())


def _is_over(loop: Any) -> bool:
    """Whether a loop, or a run of trio, has ended."""
    is_closed = getattr(loop, "is_closed", None)
    if is_closed is not None:
        return bool(is_closed())
    try:
        loop.run_sync_soon(int)
    except RuntimeError:
        return True
    return False
