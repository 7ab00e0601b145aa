"""What a call on a pool can end with that is neither its result nor its function's exception."""

from __future__ import annotations

from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from machport.abi import constants as c
from machport.abi.errors import Misuse, PeerGone
from machport.peer.death import Death

_Kind = TypeVar("_Kind", "WorkerDied", "PoolBroken")


class WorkerDied(PeerGone, ChildProcessError):
    """The worker that had received this call ended before it answered; the call may have been carried out in part.

    Other calls, and the pool, go on.

    Attributes:
        death: how the worker ended, with ``pid``, ``signal`` and ``exit_code``.
        retry_safe: whether it is certain that no part of the call was carried out.
    """

    default_code = c.MIG_SERVER_DIED
    advice = "find out whether it was carried out before you submit it again"
    retry_safe: bool = False


class PoolBroken(PeerGone, BrokenProcessPool):
    """No worker can be started, or the daemon is gone; this call gets no answer, and the pool takes no more.

    Attributes:
        death: how the last worker ended that could not start; None if the reason is another, which is the cause of
            this exception.
        retry_safe: whether it is certain that no part of the call was carried out.
    """

    default_code = c.KERN_FAILURE
    advice = "mend what keeps workers from starting, and make another pool"
    retry_safe: bool = False


class PoolShutDown(Misuse, RuntimeError):
    """The pool was shut down, and takes no calls any more."""

    default_code = c.KERN_TERMINATED
    advice = "make another pool"


class RemoteTraceback(Exception):
    """The cause of an exception that came from a worker: where it was raised there, as text."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


def died(kind: type[_Kind], says: str, death: Death | None, retry_safe: bool) -> _Kind:
    """An error of one kind with its reason."""
    error = kind(says)
    error.death = death
    error.retry_safe = retry_safe
    return error
