"""Watches of a task in an event loop: the loop receives their notifications, and calls the callbacks.

In trio, where nothing runs by itself, that is while some coroutine waits for a message, an answer or a watch.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from machport.abi import constants as c
from machport.abi.errors import MachError
from machport.abi.traps import MsgAnswer, new_msg
from machport.aio.pending import LoopCalls, Pending
from machport.face.message import received_message
from machport.face.task import RCV_LIMIT, TRAILER
from machport.face.watching import Attendant, Callback, Request, Watch

if TYPE_CHECKING:
    from machport.aio.task import Task
    from machport.face.rights import Right


class LoopAttendant(Attendant):
    """Receives in the task's loop."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._task = task
        #: The call that receives for each request, and who waits for it.
        self._requests: dict[Request, tuple[LoopCalls, Pending, list[Pending]]] = {}

    def begin(self, right: Right, variant: int, sync: int, callback: Callback | None) -> Watch:
        # Also for a request that is there already: it may be from a loop that is closed.
        self._task.loop_calls()
        return super().begin(right, variant, sync, callback)

    def attend(self, request: Request) -> None:
        self._receive(request, self._task.loop_calls())

    def go_on(self, calls: LoopCalls) -> None:
        """Receive in the task's next loop what the last one does not any more."""
        for request in list(self._requests):
            self._receive(request, calls)

    def _receive(self, request: Request, calls: LoopCalls) -> None:
        def arrive(answer: MsgAnswer) -> None:
            if answer.buffer is not None and not answer.code:
                request.arrive(received_message(self._task, answer.buffer, answer.memory))

        def fail(error: MachError) -> None:
            request.finish(None, error)
            self.dismiss(request)

        option = c.MACH_RCV_MSG | TRAILER
        pending = calls.begin(new_msg(option, b"", RCV_LIMIT, request.port.name), arrive, fail)
        pending.is_left = True
        self._requests[request] = (calls, pending, [])

    def dismiss(self, request: Request) -> None:
        """Nothing more is to come; its port goes, which ends the call that receives."""
        calls, _, waiting = self._requests.pop(request, (None, None, []))
        if calls is not None:
            for pending in waiting:
                calls.settle(pending)
        super().dismiss(request)

    async def result(self, watch: Watch, timeout: float | None = None) -> Any:
        """Wait for a watch; what it has come to.

        Raises:
            TimedOut: it has not in ``timeout`` seconds.
        """
        if not watch.done:
            self._task.loop_calls()
        entry = self._requests.get(watch._request)
        if not watch.done and entry is not None:
            calls, _, waiting = entry
            pending = Pending()
            waiting.append(pending)
            try:
                await calls.wait(pending, timeout)
            finally:
                waiting.remove(pending)
        return watch.result()

    def awaited(self, watch: Watch) -> Generator[Any, None, Any]:
        return self.result(watch).__await__()
