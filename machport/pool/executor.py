"""The pool as a program has it."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing.util
import os
import threading
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

from machport.abi import constants as c
from machport.abi.errors import ForkedTask, InvalidArgument, MachError
from machport.face.blocking import SendRight, Task, task_self
from machport.face.rights import Transfer
from machport.pool import work
from machport.pool.errors import PoolBroken, PoolShutDown, died
from machport.pool.keeping import Keeping
from machport.pool.receiving import Receiving
from machport.pool.slots import Call, Slots
from machport.pool.worker import Worker

_Result = TypeVar("_Result")


class WorkerPool(Executor):
    """Calls functions in worker processes; the death of one concerns just the call that it had received.

    That call's future raises ``WorkerDied``, which tells how the worker ended.  All others go on: what the worker had
    not received goes to its successor, which is started by itself.  Workers are started as they are needed.

    Functions, arguments and results are pickled, as ``Task.spawn`` does.  Rights and ends of data queues among them
    are given as ``right.move()``, ``right.copy()`` or ``queue.move_producer()``, and arrive as rights of the worker's
    task, or of the pool's; they leave when the call is given to a worker, and stay if it is cancelled before.

    Args:
        max_workers: how many processes there are at most; by default as many as this process may use processors.
        initializer: called first in each worker, with ``initargs`` and ``rights``.
        rights: copies of send rights for the initializer, by name.
        label: what workers and their tasks are called.
        task: whose rights go to workers; this process's own by default.

    Raises:
        InvalidArgument: an argument is not as it should be.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        rights: Mapping[str, Transfer] | None = None,
        label: str = "worker",
        task: Task | None = None,
    ) -> None:
        if max_workers is None:
            max_workers = len(os.sched_getaffinity(0))
        if not isinstance(max_workers, int) or max_workers < 1:
            raise InvalidArgument(f"a pool has one worker or more, not {max_workers!r}")
        if initializer is not None and not callable(initializer):
            raise InvalidArgument(f"initializer= is a function, not {initializer!r}")
        self._task = task_self() if task is None else task
        held = _held(self._task, rights or {}, initializer is not None)
        self._core = _Core(
            self._task, max_workers, lambda number: Worker(label, number, initializer, tuple(initargs)), held
        )
        # The threads know the core only, so that a pool can be forgotten.
        weakref.finalize(self, self._core.forgotten).atexit = False

    def submit(self, fn: Callable[..., _Result], /, *args: Any, **kwargs: Any) -> Future[_Result]:
        """Call ``fn(*args, **kwargs)`` in a worker.

        The future can be cancelled until a worker is given the call.  What cannot be pickled is the future's exception.

        Raises:
            PoolShutDown: the pool was shut down.
            PoolBroken: no worker can be started.
        """
        self._core.check_open()
        future: Future[_Result] = Future()
        try:
            packed = work.pack(self._task, work.CALL, (fn, args, kwargs))
        except Exception as error:
            future.set_exception(error)
            return future
        self._core.add(Call(future, packed))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls, and let the workers end when those that were given are done.

        Args:
            wait: return when the last worker has ended; a callback of a future does not wait.
            cancel_futures: cancel the calls that no worker was given.
        """
        self._core.shut_down(wait=wait, cancel=cancel_futures)


class _Core:
    """What a pool is made of; the threads begin with the first call."""

    def __init__(
        self, task: Task, max_workers: int, make_worker: Callable[[int], Worker], rights: dict[str, SendRight]
    ) -> None:
        self._task = task
        self._pid = os.getpid()
        self._make_worker = make_worker
        self._rights = rights
        self._lock = threading.Lock()
        self._slots = Slots(max_workers)
        self._receiving: Receiving | None = None
        self._keeping: Keeping | None = None
        self._threads: list[threading.Thread] = []

    def check_open(self) -> None:
        if self._pid != os.getpid():
            raise ForkedTask("this process is a forked child; the pool is its parent's")
        if isinstance(self._slots.broken, PoolBroken):
            broken = self._slots.broken
            raise died(PoolBroken, broken.says, broken.death, True) from broken.__cause__
        if self._slots.closing:
            raise PoolShutDown("the pool was shut down, and takes no calls any more")

    def add(self, call: Call) -> None:
        receiving, keeping = self._begun()
        if not self._slots.add(call):
            self.check_open()
        if self._slots.has_idle():
            receiving.ring()
        else:
            for slot in self._slots.to_start():
                keeping.start(slot)
            # One may have become idle meanwhile.
            if self._slots.has_idle():
                receiving.ring()

    def _begun(self) -> tuple[Receiving, Keeping]:
        with self._lock:
            if self._receiving is None or self._keeping is None:
                receiving = Receiving(self._task, self._slots)
                keeping = Keeping(
                    self._task,
                    self._slots,
                    self._make_worker,
                    self._rights,
                    receiving.open,
                    receiving.notices,
                    receiving.control,
                    self._over,
                )
                self._receiving, self._keeping = receiving, keeping
                for name, run in (("receives", lambda: receiving.run(keeping)), ("keeps workers", keeping.run)):
                    # Not waited for when the interpreter ends: a call may take for ever.
                    thread = threading.Thread(target=run, name=f"machport pool {name}", daemon=True)
                    self._threads.append(thread)
                    thread.start()
                _living.add(keeping)
            return self._receiving, self._keeping

    def shut_down(self, *, wait: bool, cancel: bool) -> None:
        if self._pid != os.getpid():
            return
        self._slots.close(cancel=cancel)
        with self._lock:
            receiving, threads = self._receiving, list(self._threads)
        if receiving is None:
            self._let_go()
            return
        receiving.ring()
        # A callback of a future runs in one of these, and what it would wait for is its own to do.
        if wait and threading.current_thread() not in threads:
            for thread in threads:
                thread.join()

    def forgotten(self) -> None:
        """Nobody has the pool any more; calls that were given are still done."""
        keeping = self._keeping
        if self._pid != os.getpid():
            return
        if keeping is None:
            self._let_go()
        elif not self._slots.closing:
            keeping.order(lambda: self.shut_down(wait=False, cancel=False))

    def _over(self) -> None:
        """The last worker has ended."""
        assert self._receiving is not None
        self._receiving.close()
        self._let_go()

    def _let_go(self) -> None:
        for right in self._rights.values():
            with contextlib.suppress(MachError):
                right.close()


def _held(task: Task, rights: Mapping[str, Transfer], has_initializer: bool) -> dict[str, SendRight]:
    """The pool's own references of rights of which each worker gets a copy."""
    if rights and not has_initializer:
        raise InvalidArgument("rights= are for the initializer of each worker, and there is none")
    for name, transfer in rights.items():
        if not isinstance(transfer, Transfer) or transfer.disposition != c.MACH_MSG_TYPE_COPY_SEND:
            raise InvalidArgument(f"each worker gets a copy: give right.copy() as {name!r}, not {transfer!r}")
        transfer.right.name_in(task)
    held: dict[str, SendRight] = {}
    for name, transfer in rights.items():
        right = transfer.right
        assert isinstance(right, SendRight)
        held[name] = right.duplicate()
    return held


_living: weakref.WeakSet[Keeping] = weakref.WeakSet()


def _abandon_all() -> None:
    for keeping in list(_living):
        keeping.abandon()


# Before the one of multiprocessing, which asks its processes to end and then waits for those that do not.
assert multiprocessing.util
atexit.register(_abandon_all)
# In a forked child they are the parent's.
os.register_at_fork(after_in_child=_living.clear)
