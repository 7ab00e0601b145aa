"""Processes that are killed at any instant of adding, taking, handing over and closing, one after the other.

Whoever has the other end sees whole entries in order, hears of the end in time, and is told which process it was; no
descriptor is left.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from typing import Final

from chaos.processes import OVERHEAD, Child, check, checked_entry, descriptors, state_of, with_consumer, with_producer
from chaos.report import Report
from machport import DataQueue
from machport.abi.errors import PeerDied, QueueEnded

#: Seconds, unless told otherwise.
AMOUNT: Final = 120.0
UNIT: Final = "seconds"
#: Seconds after which a survivor counts as hanging; it takes a few thousandths to hear of a death.
PATIENCE: Final = 10.0
CAPACITY: Final = 4000
_ROUNDS: Final = 50


def run(report: Report) -> None:
    """Kill until the time is over."""
    chance = random.Random(report.seed)
    end = time.monotonic() + report.amount
    kinds: list[Callable[[int, random.Random], int]] = [killed_writers, killed_readers, killed_hands]
    kills = dict.fromkeys(kinds, 0)
    while time.monotonic() < end and len(report.anomalies) < 10:
        for kind in kinds:
            seed = chance.randrange(1 << 32)
            with Child(lambda kind=kind, seed=seed: kind(_ROUNDS, random.Random(seed)) and None) as child:  # type: ignore[misc]
                deadline = time.monotonic() + PATIENCE + 2.0
                while (status := child.poll()) is None and time.monotonic() < deadline:
                    time.sleep(0.01)
                if status is None:
                    report.anomaly(f"{kind.__name__}, seed {seed}: a survivor hangs: {state_of(child.pid)}")
                elif status:
                    report.anomaly(f"{kind.__name__}, seed {seed}: ended with {status}")
                kills[kind] += _ROUNDS
    for kind, count in kills.items():
        report.figure(kind.__name__.replace("_", " "), count)


def killed_writers(rounds: int, chance: random.Random) -> int:
    """Writers killed at random instants; how many whole entries came."""
    received, before = 0, -1
    for _ in range(rounds):
        with DataQueue(CAPACITY) as queue, with_producer(queue, _write_for_ever) as writer:
            wanted = chance.randrange(1, 300)
            expected = 0
            while expected < wanted:
                with queue.peek() as entry:
                    assert check(entry) == expected
                expected += 1
            os.kill(writer.pid, signal.SIGKILL)
            error = used_to_the_end(queue, expected)
            assert f"process {writer.pid} " in str(error), error
            del error  # has a pidfd
            received += expected
            writer.wait()
        before = descriptors() if before < 0 else before
        assert descriptors() == before
    return received


def killed_readers(rounds: int, chance: random.Random) -> int:
    """Readers killed at random instants, with views in their hands; how many entries they were sent."""
    sent, before = 0, -1
    for _ in range(rounds):
        with DataQueue(CAPACITY) as queue, with_consumer(queue, _read_for_ever) as reader:
            deadly = chance.randrange(1, 200)
            for number in range(deadly):
                queue.enqueue(checked_entry(number, chance.randrange(400)))
            os.kill(reader.pid, signal.SIGKILL)
            error = used_to_the_end(queue)
            assert is_named(error, reader), error
            del error  # has a pidfd
            sent += deadly
            reader.wait()
        before = descriptors() if before < 0 else before
        assert descriptors() == before
    return sent


def killed_hands(rounds: int, chance: random.Random) -> int:
    """Processes killed while they hand their end over, from themselves to themselves; how many entries came."""
    received, before = 0, -1
    for number in range(rounds):
        writes = number % 2 == 0
        with DataQueue(CAPACITY) as queue:
            make = with_producer if writes else with_consumer
            with make(queue, _hand_over_for_ever) as child:
                if number % 4 < 2:
                    queue.fileno()
                time.sleep(chance.random() ** 2 * 0.004)
                os.kill(child.pid, signal.SIGKILL)
                error = used_to_the_end(queue)
                received += queue.statistics().dequeued
                assert isinstance(error, PeerDied), error
                assert is_named(error, child), error
                del error  # has a pidfd
                child.wait()
        before = descriptors() if number < 4 else before
        assert descriptors() == before
    return received


def is_named(error: QueueEnded, child: Child) -> bool:
    """Killed before it had taken its end, or had come to show it, a process is not known."""
    return f"process {child.pid} " in str(error) or "lost on its way" in str(error)


def used_to_the_end(queue: DataQueue, number: int = 0) -> QueueEnded:
    """How it ends for who has the other end, and finds nothing torn or out of order from ``number`` on."""
    try:
        while queue.is_consumer:
            assert check(queue.dequeue()) == number
            number += 1
        while True:
            queue.enqueue(bytes(1000))
    except QueueEnded as error:
        return error


def _write_for_ever(queue: DataQueue) -> None:
    numbers = random.Random(os.getpid())
    number = 0
    while True:
        size = numbers.randrange(900)
        if number % 3 == 0:
            with queue.reserve(OVERHEAD + size) as room:
                room[:] = checked_entry(number, size)
            number += 1
        elif number % 3 == 1:
            queue.enqueue_many([checked_entry(number + index, size) for index in range(3)])
            number += 3
        else:
            queue.enqueue(checked_entry(number, size))
            number += 1


def _read_for_ever(queue: DataQueue) -> None:
    kept: list[memoryview] = []
    expected = 0
    while True:
        kept.append(queue.take_view())
        assert check(kept[-1]) == expected
        expected += 1
        if len(kept) == 3:
            kept.clear()
            queue.wait()
            with queue.peek() as entry:
                assert check(entry) == expected
            expected += 1


def _hand_over_for_ever(queue: DataQueue) -> None:
    number = 0
    while True:
        if queue.is_producer:
            queue.enqueue(checked_entry(number, 10))
            number += 1
            queue = DataQueue.from_fd(queue.detach_producer())
        else:
            queue.wait(timeout=0.0001)
            queue = DataQueue.from_fd(queue.detach_consumer())
