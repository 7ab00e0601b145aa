"""The death of a worker concerns just the call that it had received (A3, A4)."""

from __future__ import annotations

import contextlib
import os
import pickle
import random
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pool_work as work
import pytest
from actors import PATIENCE, DaemonProcess

import machport
from machport import WorkerPool


@pytest.fixture
def pool(task: machport.Task) -> Iterator[WorkerPool]:
    with WorkerPool(2, task=task) as pool:
        yield pool


def death_of(future: Future[Any]) -> machport.WorkerDied:
    error = future.exception(PATIENCE)
    assert isinstance(error, machport.WorkerDied)
    assert error.retry_safe is False
    return error


@pytest.mark.parametrize(
    ("function", "number", "exit_code"),
    [
        (work.ends_by_signal, signal.SIGKILL, None),
        (work.ends_by_segfault, signal.SIGSEGV, None),
        (work.ends_by_exit, None, 7),
        (work.ends_by_sys_exit, None, 9),
    ],
)
def test_a_death_has_its_cause_and_the_pool_goes_on(
    pool: WorkerPool, function: Callable[[], None], number: int | None, exit_code: int | None
) -> None:
    pid = pool.submit(work.process).result(PATIENCE)
    error = death_of(pool.submit(function))
    assert error.death is not None
    assert (error.death.pid, error.death.signal, error.death.exit_code) == (pid, number, exit_code)
    assert str(error.death) in str(error)
    assert pool.submit(work.process).result(PATIENCE) != pid


def test_only_the_received_call_is_lost(pool: WorkerPool, task: machport.Task) -> None:
    """The other worker's call goes on, and those that wait are done by the other and by the successor."""
    out = task.allocate()
    waiting_port = task.allocate()
    sender = waiting_port.make_send()
    other = pool.submit(work.say_and_wait, out.make_send().move(), waiting_port.move())
    out.receive(PATIENCE)
    dying = pool.submit(work.wait_for_ever, out.make_send().move())
    victim = int(out.receive(PATIENCE).body)
    waiting = [pool.submit(work.add, number, 1) for number in range(20)]
    os.kill(victim, signal.SIGKILL)
    error = death_of(dying)
    assert error.death is not None and error.death.pid == victim
    assert [future.result(PATIENCE) for future in waiting] == list(range(1, 21))
    assert not other.done()
    sender.send(b"word")
    assert other.result(PATIENCE)


def test_what_a_dead_worker_had_not_received_is_its_successors(task: machport.Task) -> None:
    """N28, N36: the queue comes back with the call in it, which was sent and never read."""
    with WorkerPool(1, task=task) as pool:
        pid = pool.submit(work.process).result(PATIENCE)
        os.kill(pid, signal.SIGSTOP)
        os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)
        port, gone = task.allocate(), task.allocate()
        port.make_send().send(b"in the argument")
        port.request_no_senders(gone)
        given, waiting = pool.submit(work.wait_for_word, port.move()), pool.submit(work.process)
        # The request was for as long as the right was here.
        assert isinstance(gone.receive(PATIENCE), machport.SendOnceNotification)
        os.kill(pid, signal.SIGKILL)
        assert given.result(PATIENCE) == b"in the argument"
        assert waiting.result(PATIENCE) != pid


def test_a_killed_idle_worker_harms_nobody(pool: WorkerPool) -> None:
    for _ in range(5):
        pid = pool.submit(work.process).result(PATIENCE)
        os.kill(pid, signal.SIGKILL)
        assert pool.submit(work.process).result(PATIENCE) != pid


def test_a_death_while_results_are_long_leaves_a_result_or_a_death(pool: WorkerPool) -> None:
    size = 20_000_000
    for _ in range(10):
        future = pool.submit(work.dies_while_it_answers, size)
        error = future.exception(PATIENCE)
        if error is None:
            assert len(future.result(0)) == size
        else:
            death_of(future)


def test_a_worker_whose_task_has_ended_is_dead(pool: WorkerPool) -> None:
    """The process lives on, and can answer nobody."""
    assert death_of(pool.submit(work.loses_its_task)).death is not None
    assert pool.submit(work.add, 1, 2).result(PATIENCE) == 3


def test_a_death_while_a_pool_is_shut_down_ends_it_all_the_same(task: machport.Task) -> None:
    out = task.allocate()
    pool = WorkerPool(1, task=task)
    dying = pool.submit(work.wait_for_ever, out.make_send().move())
    waiting = [pool.submit(work.add, number, 1) for number in range(5)]
    victim = int(out.receive(PATIENCE).body)
    pool.shutdown(wait=False)
    os.kill(victim, signal.SIGKILL)
    pool.shutdown()
    death_of(dying)
    assert [future.result(0) for future in waiting] == [1, 2, 3, 4, 5]


def test_a_worker_that_dies_at_its_first_start_is_started_again(task: machport.Task, tmp_path: Path) -> None:
    path = str(tmp_path / "was here")
    with WorkerPool(1, initializer=work.dies_at_first_start, initargs=(path,), task=task) as pool:
        assert pool.submit(work.add, 1, 2).result(PATIENCE) == 3


def test_workers_that_die_at_every_start_break_the_pool(task: machport.Task) -> None:
    """A typed error for every call, and no endless starting."""
    with WorkerPool(2, initializer=work.dies_at_start, task=task) as pool:
        futures = [pool.submit(work.process) for _ in range(5)]
        for future in futures:
            error = future.exception(PATIENCE)
            assert isinstance(error, machport.PoolBroken)
            assert error.retry_safe and error.death is not None and error.death.exit_code == 4
        with pytest.raises(machport.PoolBroken, match="exited with 4") as refused:
            pool.submit(work.process)
        assert isinstance(refused.value, BrokenProcessPool) and isinstance(refused.value, BrokenExecutor)


def test_an_initializer_that_fails_breaks_the_pool_and_says_why(task: machport.Task) -> None:
    with WorkerPool(2, initializer=work.cannot_begin, task=task) as pool:
        error = pool.submit(work.process).exception(PATIENCE)
        assert isinstance(error, machport.PoolBroken) and error.retry_safe
        assert "ValueError: no initializer" in str(error.__cause__)


def test_an_initializer_that_cannot_be_pickled_breaks_the_pool(task: machport.Task) -> None:
    before = sorted(kind for _, kind in task.calls.mach_port_names(task.name))
    with WorkerPool(1, initializer=lambda: None, task=task) as pool:
        error = pool.submit(work.process).exception(PATIENCE)
        assert isinstance(error, machport.PoolBroken)
        assert "pickle" in str(error.__cause__)
    assert sorted(kind for _, kind in task.calls.mach_port_names(task.name)) == before


def test_a_lost_daemon_breaks_the_pool(socket_path: Path) -> None:
    """Nobody hangs."""
    with DaemonProcess(socket_path) as daemon, machport.Task() as task:
        pool = WorkerPool(1, task=task)
        out = task.allocate()
        received = pool.submit(work.wait_for_ever, out.make_send().move())
        out.receive(PATIENCE)
        waiting = pool.submit(work.process)
        daemon.kill()
        errors = [received.exception(PATIENCE), waiting.exception(PATIENCE)]
        assert [type(error) for error in errors] == [machport.PoolBroken] * 2
        assert [error.retry_safe for error in errors if isinstance(error, machport.PoolBroken)] == [False, True]
        assert isinstance(errors[0].__cause__, machport.DaemonLost)  # type: ignore[union-attr]
        pool.shutdown()


def test_the_errors_of_a_pool_travel_themselves(pool: WorkerPool) -> None:
    """From a pool in a worker, say."""
    error = death_of(pool.submit(work.ends_by_exit))
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.retry_safe) == (type(error), str(error), False)
    assert copy.death.exit_code == 7


@pytest.mark.parametrize("workers", [3])
def test_workers_killed_at_random_lose_only_what_they_had_received(task: machport.Task, workers: int) -> None:
    """Every future is done, each once, with its result or the death of the worker that had the call."""
    calls, kills = 300, 30
    done: list[int] = []
    chance = random.Random(4)
    with WorkerPool(workers, task=task) as pool:
        out = task.allocate(qlimit=1024)
        futures = [pool.submit(work.say_and_spin, out.make_send().move(), number) for number in range(calls)]
        for number, future in enumerate(futures):
            future.add_done_callback(lambda _, number=number: done.append(number))  # type: ignore[misc]
        killed = 0
        while killed < kills:
            pid = int(out.receive(PATIENCE).body)
            if chance.random() < 0.2:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    killed += 1
        lost = 0
        for number, future in enumerate(futures):
            error = future.exception(PATIENCE)
            if error is None:
                assert future.result(0) == number
            else:
                assert death_of(future).death.signal == signal.SIGKILL
                lost += 1
    assert sorted(done) == list(range(calls))
    assert 0 < lost <= kills


@pytest.mark.parametrize("dies", [False, True])
def test_a_callback_that_would_exit_does_not_take_other_calls_along(
    pool: WorkerPool, task: machport.Task, caplog: pytest.LogCaptureFixture, dies: bool
) -> None:
    """Whatever it is told of: results are still received, and deaths are told."""
    out, word = task.allocate(), task.allocate()
    say = word.make_send()
    first = pool.submit(work.say_and_wait, out.make_send().move(), word.move())
    first.add_done_callback(lambda _: sys.exit("in a callback"))
    pid = int(out.receive(PATIENCE).body)
    if dies:
        os.kill(pid, signal.SIGKILL)
    else:
        say.send(b"go on")
    first.exception(PATIENCE)

    death_of(pool.submit(work.ends_by_signal))
    assert pool.submit(work.add, 1, 2).result(PATIENCE) == 3
    assert "in a callback" in caplog.text
