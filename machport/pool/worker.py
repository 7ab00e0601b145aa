"""What runs in a worker's process: it receives a call, carries it out, answers it, and receives the next."""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Callable
from typing import Any, Final

from machport.abi.errors import DeadPort, MachError
from machport.face.blocking import PortSet, ReceiveRight, SendRight, Task
from machport.face.message import Message, NoSendersNotification
from machport.pool import work

#: Bytes of an answer that is not kept until the next call has come.
_LONG: Final = 1 << 16


class Worker:
    """The target of a worker's process.

    Args:
        label: what the process and its task are called.
        number: by which the pool knows it.
    """

    def __init__(
        self, label: str, number: int, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]
    ) -> None:
        self.__name__ = label
        self._number = number
        self._initializer = initializer
        self._initargs = initargs

    def __call__(self, port: ReceiveRight, notices: SendRight, rights: dict[str, Any]) -> None:
        """Serve at ``port`` until nobody can call any more, which is when the pool is gone or shut down.

        Args:
            notices: where it says that it is ready, or why it never will be.
            rights: for the initializer.
        """
        try:
            if self._initializer is not None:
                self._initializer(*self._initargs, **rights)
        except BaseException as error:
            text = "".join(traceback.format_exception(error))
            with contextlib.suppress(DeadPort):
                notices.send(self._packed_number() + text.encode(errors="replace"), id=work.FAILED)
            sys.exit(1)
        # A port of its own for this, because the other one and its queue may go to another worker.
        end = port.task.allocate()
        port.request_no_senders(end)
        arrivals = port.task.port_set(port, end)
        with contextlib.suppress(DeadPort), notices:
            notices.send(self._packed_number(), id=work.READY)
        with port, end, arrivals:
            _serve(arrivals)

    def _packed_number(self) -> bytes:
        return self._number.to_bytes(4, "little")


def _serve(arrivals: PortSet) -> None:
    request = arrivals.receive()
    while not isinstance(request, NoSendersNotification):
        following = _serve_one(arrivals, request)
        # Nothing of a long call or answer is kept while the next call is waited for.
        del request
        request = arrivals.receive() if following is None else following


def _serve_one(arrivals: PortSet, request: Message) -> Message | None:
    """Answer a call; the next message, if it was waited for in the same trap."""
    with request:
        outcome = _carry_out(request)
        # What came with the call and was not taken goes before the next is waited for.
        request.close_rights()
        try:
            return _answer(arrivals, request, outcome)
        except MachError as error:
            if not request.expects_reply:
                raise
            # It is too long, or a right in it is not there.
            outcome.undo()
            return _answer(arrivals, request, work.pack_exception(_task_of(request), error))


def _carry_out(request: Message) -> work.Packed:
    """Call the function; ``sys.exit`` in it ends the worker, as it says."""
    task = _task_of(request)
    try:
        function, args, kwargs = work.unpack(request)
        result = function(*args, **kwargs)
        return work.pack(task, work.RESULT, result)
    except SystemExit:
        raise
    except BaseException as error:
        return work.pack_exception(task, error)


def _answer(arrivals: PortSet, request: Message, outcome: work.Packed) -> Message | None:
    if max(len(outcome.data), len(request.view)) < _LONG and not request.memory:
        return arrivals.reply_and_receive(request, outcome.body, id=outcome.id, rights=outcome.rights)
    with contextlib.suppress(DeadPort):
        request.reply(outcome.body, id=outcome.id, rights=outcome.rights, memory=outcome.memory)
    return None


def _task_of(request: Message) -> Task:
    task = request.task
    assert isinstance(task, Task)
    return task
