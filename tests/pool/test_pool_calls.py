"""What a pool does for calls whose workers live: results, exceptions, rights, cancelling, ending."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, as_completed
from typing import Any

import pool_work as work
import pytest
from actors import PATIENCE, DaemonProcess

import machport
from machport import DataQueue, WorkerPool, mach


@pytest.fixture
def pool(task: machport.Task) -> Iterator[WorkerPool]:
    with WorkerPool(2, task=task) as pool:
        yield pool


def held(task: machport.Task) -> list[int]:
    return sorted(kind for _, kind in task.calls.mach_port_names(task.name))


def block(pool: WorkerPool, task: machport.Task, workers: int) -> tuple[list[Future[bytes]], Callable[[], None]]:
    """Let so many workers wait for a word, and return when they do; what says the word."""
    started = task.allocate()
    senders, futures = [], []
    for _ in range(workers):
        port = task.allocate()
        senders.append(port.make_send())
        futures.append(pool.submit(work.say_and_wait, started.make_send().move(), port.move()))
    for _ in range(workers):
        started.receive(PATIENCE)

    def go_on() -> None:
        for sender in senders:
            sender.send(b"word")

    return futures, go_on


def test_results_come_back(pool: WorkerPool) -> None:
    assert pool.submit(work.add, 1, second=2).result(PATIENCE) == 3
    assert list(pool.map(work.add, range(100), range(100))) == [2 * number for number in range(100)]


def test_calls_are_in_other_processes_up_to_the_number(pool: WorkerPool, task: machport.Task) -> None:
    futures, go_on = block(pool, task, 2)
    third = pool.submit(work.process)
    go_on()
    pids = {int(future.result(PATIENCE)) for future in futures}
    assert len(pids) == 2 and os.getpid() not in pids
    assert third.result(PATIENCE) in pids


def test_workers_are_started_as_they_are_needed(pool: WorkerPool) -> None:
    pids = {pool.submit(work.process).result(PATIENCE) for _ in range(10)}
    assert len(pids) == 1


def test_a_slow_call_holds_up_no_other(pool: WorkerPool, task: machport.Task) -> None:
    (slow,), go_on = block(pool, task, 1)
    assert [pool.submit(work.add, number, 1).result(PATIENCE) for number in range(5)] == [1, 2, 3, 4, 5]
    go_on()
    assert int(slow.result(PATIENCE))


def test_an_exception_comes_with_where_it_was_raised(pool: WorkerPool) -> None:
    error = pool.submit(work.fails).exception(PATIENCE)
    assert isinstance(error, LookupError) and error.args == ("the reason",)
    assert 'raise LookupError("the reason")' in str(error.__cause__)


@pytest.mark.parametrize("function", [work.runs_out_of_memory, work.interrupts])
def test_an_exception_of_any_kind_is_the_callers(pool: WorkerPool, function: Callable[[], None]) -> None:
    pid = pool.submit(work.process).result(PATIENCE)
    assert isinstance(pool.submit(function).exception(PATIENCE), MemoryError | KeyboardInterrupt)
    assert pool.submit(work.process).result(PATIENCE) == pid


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (work.raises_unpicklable, "an exception cannot be pickled: Unpicklable('lock')"),
        (work.raises_unreadable, "missing 1 required positional argument"),
        (work.returns_unpicklable, "cannot pickle '_thread.lock' object"),
        (work.returns_unreadable, "the reason"),
        (work.return_a_right_as_it_is, r"right.move()"),
    ],
)
def test_what_cannot_come_back_is_an_error_of_just_that_call(
    pool: WorkerPool, function: Callable[[], object], says: str
) -> None:
    pid = pool.submit(work.process).result(PATIENCE)
    failing, next_one = pool.submit(function), pool.submit(work.process)
    error = failing.exception(PATIENCE)
    assert error is not None and not isinstance(error, machport.WorkerDied)
    assert says in str(error)
    assert next_one.result(PATIENCE) == pid == pool.submit(work.process).result(PATIENCE)


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        (threading.Lock(), "cannot pickle"),
        (lambda: None, "pickle"),
        (work.BreaksWhenUnpickled(), "the reason"),
        (bytes(256 << 20), ""),
    ],
    ids=["lock", "lambda", "unreadable", "too long"],
)
def test_what_cannot_go_is_an_error_of_just_that_call(pool: WorkerPool, argument: Any, says: str) -> None:
    before = pool.submit(work.process).result(PATIENCE)
    error = pool.submit(work.process, argument).exception(PATIENCE)
    assert error is not None and says in str(error)
    assert pool.submit(work.process).result(PATIENCE) == before


def test_long_arguments_and_results_go_whole(pool: WorkerPool) -> None:
    for size in (0, 1 << 16, (1 << 20) + 1, 60_000_001):
        assert pool.submit(work.size_of, bytes(size)).result(PATIENCE) == size
        assert len(pool.submit(work.make_bytes, size).result(PATIENCE)) == size


def test_a_result_that_is_too_long_is_an_error_and_its_worker_goes_on(pool: WorkerPool) -> None:
    pid = pool.submit(work.process).result(PATIENCE)
    assert isinstance(pool.submit(work.make_bytes, 256 << 20).exception(PATIENCE), machport.MachError)
    assert pool.submit(work.process).result(PATIENCE) == pid


# Rights


def test_rights_are_arguments_and_results(pool: WorkerPool, task: machport.Task) -> None:
    with WorkerPool(1, task=task) as single:
        port, out = task.allocate(), task.allocate()
        port.make_send().send(b"hello")
        back, kept = single.submit(work.answer, port.move(), out.make_send().move()).result(PATIENCE)
        assert out.receive(PATIENCE).body == b"hello, by way of a worker"
        assert port.closed and type(back) is machport.ReceiveRight and back.task is task
        kept.send(b"to the worker")
        assert single.submit(work.receive_kept).result(PATIENCE) == b"to the worker"


def test_ends_of_data_queues_are_arguments_and_results(pool: WorkerPool) -> None:
    with DataQueue(1000) as queue:
        counting = pool.submit(work.count, queue.move_producer(), 500)
        assert [bytes(entry) for entry in queue] == [b"%d" % number for number in range(500)]
        counting.result(PATIENCE)
    arrived: Any = pool.submit(work.make_queue).result(PATIENCE)
    with arrived:
        assert arrived.dequeue() == b"entry"


def test_a_right_that_was_not_taken_is_given_up_with_its_call(pool: WorkerPool, task: machport.Task) -> None:
    """An argument that cannot be unpickled, behind one that can."""
    port = task.allocate()
    sender = port.make_send()
    assert pool.submit(work.call_through, work.BreaksWhenUnpickled(), sender.move()).exception(PATIENCE)
    port.request_no_senders(port)
    assert isinstance(port.receive(PATIENCE), machport.NoSendersNotification)


def test_a_right_that_cannot_go_is_an_error_of_just_that_call(pool: WorkerPool, task: machport.Task) -> None:
    port = task.allocate()
    with machport.Task(label="other") as other:
        for transfers in ([other.allocate().move()], [port.move(), port.move()]):
            error = pool.submit(work.process, transfers).exception(PATIENCE)
            assert isinstance(error, machport.InvalidArgument)
    move = port.move()
    (busy,), go_on = block(pool, task, 1)
    (other_busy,), other_goes_on = block(pool, task, 1)
    late = pool.submit(work.process, move)
    port.close()
    go_on()
    other_goes_on()
    assert isinstance(late.exception(PATIENCE), machport.ClosedRight)
    assert busy.result(PATIENCE) != other_busy.result(PATIENCE)


def test_a_right_stays_until_its_call_is_given_to_a_worker(pool: WorkerPool, task: machport.Task) -> None:
    _, go_on = block(pool, task, 2)
    port = task.allocate()
    waiting = pool.submit(work.wait_for_word, port.move())
    assert not port.closed
    assert waiting.cancel()
    go_on()
    pool.shutdown()
    port.make_send().send(b"still here")
    assert port.receive(PATIENCE).body == b"still here"


def test_each_worker_is_prepared_with_rights_of_its_own(task: machport.Task) -> None:
    out = task.allocate()
    sender = out.make_send()
    pool = WorkerPool(2, initializer=work.remember, initargs=("word",), rights={"out": sender.copy()}, task=task)
    sender.close()
    with pool:
        assert pool.submit(work.recall).result(PATIENCE) == "word"
        assert out.receive(PATIENCE).body == b"from the initializer's right"
        assert isinstance(pool.submit(work.ends_by_exit).exception(PATIENCE), machport.WorkerDied)
        assert pool.submit(work.recall).result(PATIENCE) == "word"
    out.request_no_senders(out)
    assert out.receive(PATIENCE).body == b"from the initializer's right"
    assert isinstance(out.receive(PATIENCE), machport.NoSendersNotification)


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_workers": 0},
        {"max_workers": 1.5},
        {"initializer": 5},
        {"rights": {"out": "send.copy()"}},
        {"initializer": work.remember, "rights": {"out": "send.move()"}},
        {"initializer": work.remember, "rights": {"out": "send"}},
        {"initializer": work.remember, "rights": {"out": "other.make_send().copy()"}},
    ],
)
def test_a_pool_that_cannot_be_is_refused(task: machport.Task, arguments: dict[str, Any]) -> None:
    with machport.Task(label="other") as stranger:
        names = {"send": task.allocate().make_send(), "other": stranger.allocate()}
        if "rights" in arguments:
            arguments = {**arguments, "rights": {k: eval(v, names) for k, v in arguments["rights"].items()}}
        before = held(task)
        with pytest.raises(machport.InvalidArgument):
            WorkerPool(**arguments, task=task)
        assert held(task) == before


# Cancelling and ending


def test_a_call_that_no_worker_was_given_can_be_cancelled(pool: WorkerPool, task: machport.Task) -> None:
    futures, go_on = block(pool, task, 2)
    waiting = [pool.submit(work.add, number, number) for number in range(10)]
    assert all(future.cancel() for future in waiting[::2])
    assert not any(future.cancel() for future in futures)
    go_on()
    assert [future.result(PATIENCE) for future in waiting[1::2]] == [2, 6, 10, 14, 18]
    with pytest.raises(CancelledError):
        waiting[0].result(PATIENCE)
    assert set(as_completed(waiting, PATIENCE)) == set(waiting)


def test_shutdown_waits_for_what_was_submitted(task: machport.Task) -> None:
    before, descriptors, threads = held(task), len(os.listdir("/proc/self/fd")), threading.active_count()
    pool = WorkerPool(2, task=task)
    futures = [pool.submit(work.process) for _ in range(20)]
    pool.shutdown()
    pids = {future.result(0) for future in futures}
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    with pytest.raises(machport.PoolShutDown):
        pool.submit(work.process)
    with pytest.raises(RuntimeError):
        pool.submit(work.process)
    pool.shutdown()
    assert threading.active_count() == threads
    del pool
    gc.collect()
    assert held(task) == before
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 1  # the pipe of multiprocessing's resource tracker


def test_shutdown_can_cancel_what_no_worker_was_given(pool: WorkerPool, task: machport.Task) -> None:
    futures, go_on = block(pool, task, 2)
    waiting = [pool.submit(work.process) for _ in range(10)]
    pool.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in waiting)
    go_on()
    pool.shutdown()
    assert all(future.result(0) for future in futures)


def test_a_pool_that_was_never_used_ends_at_once(task: machport.Task) -> None:
    port = task.allocate()
    out = port.make_send()
    before = held(task)
    WorkerPool(initializer=work.remember, rights={"out": out.copy()}, task=task).shutdown()
    pool = WorkerPool(initializer=work.remember, rights={"out": out.copy()}, task=task)
    del pool
    gc.collect()
    assert held(task) == before
    assert task.calls.mach_port_get_refs(task.name, out.name, mach.MACH_PORT_RIGHT_SEND) == 1


def test_shutdown_in_a_callback_does_not_wait_for_itself(pool: WorkerPool) -> None:
    ended = threading.Event()

    def end(_: Future[int]) -> None:
        pool.shutdown()
        ended.set()

    pool.submit(work.add, 1, 2).add_done_callback(end)
    assert ended.wait(PATIENCE)


def test_a_callback_may_submit(pool: WorkerPool) -> None:
    last: Future[int] = Future()

    def go_on(left: int, future: Future[int]) -> None:
        if left:
            pool.submit(work.add, future.result(), 1).add_done_callback(lambda done: go_on(left - 1, done))
        else:
            last.set_result(future.result())

    pool.submit(work.add, 0, 0).add_done_callback(lambda done: go_on(20, done))
    assert last.result(PATIENCE) == 20


def test_a_forgotten_pool_does_its_work_and_goes(task: machport.Task) -> None:
    before = held(task)
    pool = WorkerPool(2, task=task)
    futures = [pool.submit(work.process) for _ in range(10)]
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("machport pool")]
    assert len(threads) == 2
    gone = weakref.ref(pool)
    del pool
    gc.collect()
    assert gone() is None
    assert all(future.result(PATIENCE) for future in futures)
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert held(task) == before


def test_many_threads_share_a_pool(pool: WorkerPool) -> None:
    sums: list[list[int]] = [[] for _ in range(5)]

    def use(mine: list[int]) -> None:
        mine += [pool.submit(work.add, number, 1).result(PATIENCE) for number in range(20)]

    threads = [threading.Thread(target=use, args=(mine,)) for mine in sums]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert sums == [list(range(1, 21))] * 5


def test_a_loop_runs_calls_in_a_pool(pool: WorkerPool) -> None:
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        with pytest.raises(machport.WorkerDied):
            await loop.run_in_executor(pool, work.ends_by_exit)
        return await asyncio.gather(*(loop.run_in_executor(pool, work.add, number, 1) for number in range(10)))

    assert asyncio.run(main()) == list(range(1, 11))


def test_a_forked_child_is_told_that_the_pool_is_its_parents(pool: WorkerPool) -> None:
    assert pool.submit(work.add, 1, 2).result(PATIENCE) == 3
    pid = os.fork()
    if pid == 0:
        try:
            pool.submit(work.process)
        except machport.ForkedTask:
            pool.shutdown()
            os._exit(5)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
    assert pool.submit(work.add, 1, 2).result(PATIENCE) == 3


FORGETS = """
import os, sys, machport, pool_work
if __name__ == "__main__":
    task = machport.Task()
    port = task.allocate()
    pool = machport.WorkerPool(2, task=task)
    for _ in range(5): pool.submit(pool_work.{}, port.make_send().move())
    for _ in range({}): print(port.receive({}).body.decode(), flush=True)
"""


@pytest.mark.parametrize(("function", "busy"), [("wait_for_ever", 2), ("stands_still", 2), ("wait_for_ever", 0)])
def test_an_interpreter_ends_with_a_forgotten_pool(
    daemon: DaemonProcess, tmp_path: Any, function: str, busy: int
) -> None:
    """Whatever its workers do, or while they start; none is left behind."""
    program = tmp_path / "forgets.py"
    program.write_text(FORGETS.format(function, busy, PATIENCE))
    done = subprocess.run(
        [sys.executable, str(program)],
        env={**os.environ, "PYTHONPATH": os.path.dirname(work.__file__)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    pids = [int(line) for line in done.stdout.split()]
    assert len(pids) == busy
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_workers_end_with_a_killed_pool(daemon: DaemonProcess, tmp_path: Any) -> None:
    """When nobody can call them any more."""
    program = tmp_path / "killed.py"
    source = FORGETS.format("say", 2, PATIENCE).replace("range(5)", "range(2)")
    program.write_text(source + "    os.kill(os.getpid(), 9)\n")
    done = subprocess.run(
        [sys.executable, str(program)],
        env={**os.environ, "PYTHONPATH": os.path.dirname(work.__file__)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == -9 and done.stdout
    for line in done.stdout.split():
        try:
            pidfd = os.pidfd_open(int(line))
        except ProcessLookupError:
            continue
        with os.fdopen(pidfd) as worker:
            import select

            assert select.select([worker], [], [], PATIENCE)[0]


FORKS = """
import os, sys
import machport
import pool_work

if __name__ == "__main__":
    task = machport.task_self()
    out, word = task.allocate(), task.allocate()
    pool = machport.WorkerPool(1)
    say = word.make_send()
    call = pool.submit(pool_work.say_and_wait, out.make_send().move(), word.move())
    worker = int(out.receive(30).body)
    pid = os.fork()
    if pid == 0:
        sys.exit()
    assert os.waitpid(pid, 0)[1] == 0
    say.send(b"go on")
    print(int(call.result(30)) == worker)
"""


def test_a_forked_child_that_exits_leaves_the_workers_of_its_parent_alone(daemon: DaemonProcess, tmp_path: Any) -> None:
    """The pool is its parent's (T11)."""
    program = tmp_path / "forks.py"
    program.write_text(FORKS)
    done = subprocess.run(
        [sys.executable, str(program)],
        env={**os.environ, "PYTHONPATH": os.path.dirname(work.__file__)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("True\n", "")
