"""Scenes with real processes at a data queue, each run by a test as a program of its own, so that it may fork freely.

``python queue_scenes.py SCENE [NUMBER]`` prints one line about what it did, or ends with an assertion.
"""

from __future__ import annotations

import gc
import os
import random
import signal
import sys
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

from chaos.processes import Child, Words, checked_entry, descriptors, with_producer
from chaos.queue_kills import killed_hands, killed_readers, killed_writers, used_to_the_end
from machport import DataQueue
from machport.abi.errors import PeerDied, QueueEnded
from machport.dataqueue import custody, extension, handover, memory
from machport.peer import introduction, lifeline
from machport.ring import sleeping

PRODUCER, CONSUMER = extension.PRODUCER, extension.CONSUMER
CAPACITY = 4000


def ended(queue: DataQueue) -> QueueEnded:
    """How a queue ends whose entries are all taken."""
    try:
        queue.dequeue()
    except QueueEnded as error:
        return error
    raise AssertionError("the queue goes on")


def lost_on_its_way(_: int) -> None:
    """The consumer sleeps at its bell, and the producer's process sends its end to nobody, and lives."""
    with DataQueue(CAPACITY) as queue:

        def lose(mine: DataQueue) -> None:
            Words(mine).wait_until_armed(CONSUMER)
            os.close(mine.detach_producer())
            signal.pause()

        with with_producer(queue, lose):
            error = ended(queue)
        assert isinstance(error, PeerDied)
        assert "lost on its way" in str(error), error
    print("seen")


def moved_under_a_sleeper(_: int) -> None:
    """A thread sleeps at the bell while another moves the other end away, to nobody."""
    with DataQueue(CAPACITY) as queue:
        words = Words(queue)

        def lose() -> None:
            words.wait_until_armed(CONSUMER)
            os.close(queue.detach_producer())

        thread = threading.Thread(target=lose)
        thread.start()
        assert isinstance(ended(queue), PeerDied)
        thread.join()
    print("seen")


def forked_with_a_view(_: int) -> None:
    """A child gives no room back that its parent looks at."""
    with DataQueue(CAPACITY) as queue:
        queue.enqueue(b"x" * 100)
        view = queue.take_view()
        before = queue.memory.ring.head

        def let_go() -> None:
            nonlocal view
            del view
            gc.collect()

        with Child(let_go) as child:
            assert child.wait() == 0
        assert queue.memory.ring.head == before
        del view
        assert queue.memory.ring.head != before
    print("the room stayed")


def forked_in_a_handler(_: int) -> None:
    """A handler forks while its process sleeps: the child does not touch its parent's bell, and gets a typed error."""
    with DataQueue(CAPACITY) as queue:
        words = Words(queue)
        parent = os.getpid()

        def fork(*_: object) -> None:
            child = os.fork()
            if child:
                assert os.waitpid(child, 0)[1] == 0

        def work(mine: DataQueue) -> None:
            words_there = Words(mine)
            words_there.wait_until_armed(CONSUMER)
            os.kill(parent, signal.SIGUSR1)
            # The handler has returned when the bell is armed by its parent once more; the entry may come before, too.
            mine.enqueue(b"after")
            signal.pause()

        signal.signal(signal.SIGUSR1, fork)
        with with_producer(queue, work):
            try:
                assert queue.dequeue() == b"after"
            except BaseException as error:
                if os.getpid() == parent:
                    raise
                os._exit(0 if "fork" in str(error) or "closed" in str(error) else 1)
        assert words.bell(CONSUMER) == 0
    print("the parent went on")


def killed_at_a_call(_: int) -> None:
    """SIGKILL at the very call of each function that a hand-over, an arrival and an end are made of.

    The other side gets a typed end that names the process, or says that the end was lost with it.  Its descriptors stay
    as many.
    """
    calls: list[tuple[ModuleType | type, str]] = [
        (introduction, "introduce"),
        (introduction, "listen"),
        (introduction, "process_of"),
        (lifeline, "held"),
        (handover, "pack"),
        (handover, "arrived"),
        (memory, "map_shared"),
        (memory.DataQueueMemory, "from_fd"),
        (memory.DataQueueMemory, "close"),
        (custody, "close_passed"),
        (sleeping, "is_compiled"),
        (threading, "active_count"),
    ]
    before, died = -1, 0
    for after in (False, True):
        for where, name in calls:
            for role in (PRODUCER, CONSUMER):
                for deed in DEEDS:
                    died += _killed_at(where, name, after=after, role=role, deed=deed)
                    if before < 0:
                        before = descriptors()
                    assert descriptors() == before, (name, role, deed)
    assert died > len(calls), "hardly any of them was called"
    print(f"{died} were killed at a call")


DEEDS = ("arrive", "use", "close", "hand over", "wait")


def _killed_at(where: Any, name: str, *, after: bool, role: int, deed: str) -> bool:
    """Whether the process came to the call; asserts what its peer sees in either case."""
    original = getattr(where, name)

    def call(*args: Any, **keywords: Any) -> Any:
        if after:
            original(*args, **keywords)
        os.kill(os.getpid(), signal.SIGKILL)

    queue = DataQueue(CAPACITY)
    descriptor = queue.detach_producer() if role == PRODUCER else queue.detach_consumer()

    def work() -> None:
        if deed == "arrive":
            setattr(where, name, call)
        mine = DataQueue.from_fd(descriptor)
        setattr(where, name, call)
        if deed == "use":
            for number in range(20):
                if role == PRODUCER:
                    mine.enqueue(checked_entry(number, 100))
                    mine.statistics()
                else:
                    mine.wait(timeout=0)
        elif deed == "close":
            mine.close()
        elif deed == "hand over":
            mine = DataQueue.from_fd(mine.detach_producer() if role == PRODUCER else mine.detach_consumer())
        elif deed == "wait" and role == CONSUMER:
            mine.fileno()
            mine.wait(timeout=0.01)
        os._exit(0)

    with queue, Child(work) as child:
        os.close(descriptor)
        error = used_to_the_end(queue)
        status = child.wait()
        if not os.WIFSIGNALED(status):
            assert status == 0
        elif type(error) is QueueEnded:
            assert deed == "close", error
        else:
            assert f"process {child.pid} " in str(error) or "lost on its way" in str(error), error
    return os.WIFSIGNALED(status)


def handed_on(rounds: int) -> None:
    """An end goes from process to process, each of which is gone when the next one writes: nobody is taken for dead."""
    with DataQueue(CAPACITY) as queue:

        def write_and_hand_on(mine: DataQueue, left: int) -> None:
            mine.enqueue(left.to_bytes(4, "little"))
            if left == 0:
                mine.close()
                return
            descriptor = mine.detach_producer()
            if os.fork() == 0:
                write_and_hand_on(DataQueue.from_fd(descriptor), left - 1)
                os._exit(0)

        with with_producer(queue, lambda mine: write_and_hand_on(mine, rounds)):
            got = [int.from_bytes(entry, "little") for entry in queue]
    assert got == list(range(rounds, -1, -1))
    print(f"{rounds} hands")


def late_views(_: int) -> None:
    """A view that ends after the producer has moved away still gives its room to whoever has it."""
    with DataQueue(CAPACITY) as queue:
        queue.enqueue(bytes(1900))
        view = queue.take_view()
        queue.enqueue(bytes(1900))

        def fill(mine: DataQueue) -> None:
            mine.enqueue(bytes(1500))
            mine.close()

        words = Words(queue)
        with with_producer(queue, fill) as child:
            words.wait_until_armed(PRODUCER)
            del view
            assert child.wait() == 0
        assert [len(entry) for entry in queue] == [1900, 1500]
    print("told")


SCENES: dict[str, Callable[[int], None]] = {
    scene.__name__: scene
    for scene in (
        lost_on_its_way,
        moved_under_a_sleeper,
        forked_with_a_view,
        forked_in_a_handler,
        killed_at_a_call,
        handed_on,
        late_views,
    )
}
SCENES["killed_writers"] = lambda rounds: print(killed_writers(rounds, random.Random(23)), "whole entries")
SCENES["killed_readers"] = lambda rounds: print(killed_readers(rounds, random.Random(29)), "entries")
SCENES["killed_hands"] = lambda rounds: print(killed_hands(rounds, random.Random(31)), "entries")

if __name__ == "__main__":
    SCENES[sys.argv[1]](int(sys.argv[2]))
