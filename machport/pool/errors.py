"""What a call on a pool can end with that is neither its result nor its function's exception."""

from __future__ import annotations

from concurrent.futures.process import BrokenProcessPool
from typing import Any, ClassVar

from machport.abi import constants as c
from machport.abi.errors import MachError
from machport.peer.death import Death


class _Died(MachError):
    """An error that may have the end of a process as its reason.

    Attributes:
        death: how the process ended, with ``pid``, ``signal`` and ``exit_code``; None if none did.
        retry_safe: whether it is certain that no part of the call was carried out.
    """

    death: Death | None = None
    retry_safe: bool = False

    def _sentence(self) -> str:
        return self.says if self.death is None else f"{self.says}: {self.death}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.says, self.death, self.retry_safe)


class WorkerDied(_Died, ChildProcessError):
    """The worker that had received this call ended before it answered; the call may have been carried out in part.

    Other calls, and the pool, go on.

    Attributes:
        death: how the worker ended, with ``pid``, ``signal`` and ``exit_code``.
        retry_safe: whether it is certain that no part of the call was carried out.
    """

    default_code: ClassVar[int] = c.MIG_SERVER_DIED


class PoolBroken(_Died, BrokenProcessPool):
    """No worker can be started, or the daemon is gone; this call gets no answer, and the pool takes no more.

    Attributes:
        death: how the last worker ended that could not start; None if the reason is another, which is the cause of
            this exception.
        retry_safe: whether it is certain that no part of the call was carried out.
    """


class PoolShutDown(MachError, RuntimeError):
    """The pool was shut down, and takes no calls any more."""

    default_code: ClassVar[int] = c.KERN_TERMINATED


class RemoteTraceback(Exception):
    """The cause of an exception that came from a worker: where it was raised there, as text."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


def died(kind: type[_Died], says: str, death: Death | None, *, retry_safe: bool) -> _Died:
    """An error of one kind with its reason."""
    error = kind(says)
    error.death = death
    error.retry_safe = retry_safe
    return error


def _rebuild(kind: type[_Died], says: str, death: Death | None, retry_safe: bool) -> _Died:
    return died(kind, says, death, retry_safe=retry_safe)
