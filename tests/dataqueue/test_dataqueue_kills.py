"""Ends of a queue whose holders are killed, fork, close and are interrupted at any step: the other side always hears.

The scenes with several processes are in ``queue_scenes``.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import chaos
from chaos.processes import Words
from machport import DataQueue
from machport.abi.errors import (
    MachError,
    PeerDied,
    QueueEmpty,
    QueueEnded,
    QueueMisuse,
    TimedOut,
)
from machport.dataqueue import extension
from machport.peer import introduction

SCENES = Path(__file__).with_name("queue_scenes.py")
#: Where the machport under test is imported from, and chaos with it.
PROJECT = Path(chaos.__file__).parents[1]
PATIENCE = 30.0
PRODUCER, CONSUMER = extension.PRODUCER, extension.CONSUMER


def play(scene: str, number: int = 0) -> str:
    """Run one scene to its end in a process of its own."""
    run = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-W", "ignore::ResourceWarning", str(SCENES), scene, str(number)],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, f"{scene} ended with {run.returncode}:\n{run.stdout}{run.stderr}"
    return run.stdout


def test_a_writer_killed_at_any_instant_leaves_whole_entries_and_a_named_end() -> None:
    """T6, T8."""
    play("killed_writers", 60)


def test_a_writer_hears_of_a_reader_that_is_killed_with_views_in_its_hands() -> None:
    """T8: be the ring full or not."""
    play("killed_readers", 60)


def test_a_process_killed_while_its_end_is_between_two_hands_is_heard_of() -> None:
    """T6, T8: at instants that no call marks."""
    play("killed_hands", 100)


def test_a_process_killed_at_any_call_of_a_hand_over_leaves_no_hang_and_no_descriptor() -> None:
    """T6, T8."""
    play("killed_at_a_call")


def test_an_end_that_is_lost_on_its_way_wakes_who_sleeps_at_its_bell() -> None:
    """T8: the process that sent it lives, so its lifeline says nothing."""
    play("lost_on_its_way")


def test_a_thread_that_sleeps_hears_when_another_moves_the_other_end_away() -> None:
    play("moved_under_a_sleeper")


def test_an_end_that_goes_from_hand_to_hand_is_not_taken_for_dead() -> None:
    """T8: every holder has ended when the next one writes."""
    play("handed_on", 30)


def test_a_view_that_a_forked_child_drops_gives_no_room_back() -> None:
    """Q21: the parent still looks at it."""
    play("forked_with_a_view")


def test_a_handler_that_forks_leaves_the_sleep_of_its_process_alone() -> None:
    play("forked_in_a_handler")


def test_a_view_that_outlives_the_producers_move_gives_its_room_to_whoever_has_moved() -> None:
    play("late_views")


# Closing


@pytest.fixture
def queue() -> Iterator[DataQueue]:
    with DataQueue(1000) as queue:
        yield queue


@pytest.fixture
def ends() -> Iterator[tuple[DataQueue, DataQueue]]:
    """A producer and a consumer that know of each other only by what two processes would."""
    with DataQueue(1000) as consumer, DataQueue.from_fd(consumer.detach_producer()) as producer:
        yield producer, consumer


Wait = Callable[[DataQueue], Any]
WAITS: dict[str, tuple[int, Wait]] = {
    "dequeue": (CONSUMER, lambda queue: queue.dequeue()),
    "dequeue_many": (CONSUMER, lambda queue: queue.dequeue_many()),
    "dequeue_into": (CONSUMER, lambda queue: queue.dequeue_into(bytearray(10))),
    "peek": (CONSUMER, lambda queue: queue.peek().__enter__()),
    "take_view": (CONSUMER, lambda queue: queue.take_view()),
    "wait": (CONSUMER, lambda queue: queue.wait()),
    "enqueue": (PRODUCER, lambda queue: queue.enqueue(bytes(600))),
    "enqueue_many": (PRODUCER, lambda queue: queue.enqueue_many([bytes(600)] * 2)),
    "reserve": (PRODUCER, lambda queue: queue.reserve(600).__enter__()),
    "wait_for_room": (PRODUCER, lambda queue: queue.wait_for_room(600)),
}
each_wait = pytest.mark.parametrize(("role", "wait"), WAITS.values(), ids=WAITS.keys())
each_way = pytest.mark.parametrize("at_socket", [False, True], ids=["at the bell", "at the socket"])


def made_to_wait(ends: tuple[DataQueue, DataQueue], role: int, *, at_socket: bool) -> tuple[DataQueue, Words]:
    """The end at which a wait will sleep."""
    producer, consumer = ends
    producer.enqueue(bytes(600))
    if role == CONSUMER:
        consumer.dequeue()
    mine = ends[role]
    if at_socket:
        mine.room_fileno(600) if role == PRODUCER else mine.fileno()
        with contextlib.suppress(MachError):
            mine.enqueue(bytes(600), timeout=0) if role == PRODUCER else mine.dequeue(timeout=0)
    return mine, Words(mine)


@each_way
@each_wait
def test_a_queue_that_is_closed_ends_the_wait_of_another_thread(
    ends: tuple[DataQueue, DataQueue], role: int, wait: Wait, at_socket: bool
) -> None:
    """Nobody hangs, and nothing that the thread still uses is taken away from it."""
    mine, words = made_to_wait(ends, role, at_socket=at_socket)
    came: list[BaseException] = []

    def run() -> None:
        try:
            wait(mine)
        except MachError as error:
            came.append(error)

    thread = threading.Thread(target=run)
    mine_before = words.bell(role)
    thread.start()
    while words.bell(role) == (0 if not mine_before else -1):
        os.sched_yield()
    mine.close()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert len(came) == 1
    assert isinstance(came[0], QueueMisuse)


@pytest.fixture
def handle() -> Iterator[Callable[[Callable[[], Any]], None]]:
    """Runs something in the main thread when SIGALRM comes, a moment later; the moment does not matter."""

    def on_alarm(action: Callable[[], Any]) -> None:
        signal.signal(signal.SIGALRM, lambda *_: action())
        signal.setitimer(signal.ITIMER_REAL, 0.02)

    before = signal.getsignal(signal.SIGALRM)
    yield on_alarm
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@each_way
@each_wait
def test_a_handler_may_close_the_queue_that_is_waited_at(
    ends: tuple[DataQueue, DataQueue],
    handle: Callable[[Callable[[], Any]], None],
    role: int,
    wait: Wait,
    at_socket: bool,
) -> None:
    mine, _ = made_to_wait(ends, role, at_socket=at_socket)
    handle(mine.close)
    with pytest.raises(QueueMisuse, match="closed while"):
        wait(mine)


@each_way
@each_wait
def test_every_wait_can_be_interrupted_and_the_end_used_again(
    ends: tuple[DataQueue, DataQueue],
    handle: Callable[[Callable[[], Any]], None],
    role: int,
    wait: Wait,
    at_socket: bool,
) -> None:
    class Interruption(Exception):
        pass

    def interrupt() -> None:
        raise Interruption

    mine, _ = made_to_wait(ends, role, at_socket=at_socket)
    handle(interrupt)
    with pytest.raises(Interruption):
        wait(mine)
    producer, consumer = ends
    if role == PRODUCER:
        consumer.dequeue()
    producer.enqueue(b"again")
    assert consumer.dequeue() == b"again"


@each_way
def test_a_handler_that_uses_the_queue_takes_no_wake_up_from_who_is_interrupted(
    ends: tuple[DataQueue, DataQueue], handle: Callable[[Callable[[], Any]], None], at_socket: bool
) -> None:
    """The handler waits at the same end, so it disarms the bell and takes what is in the socket."""
    producer, _ = ends
    mine, _ = made_to_wait(ends, CONSUMER, at_socket=at_socket)

    def use() -> None:
        assert not mine.wait(timeout=0.001)
        threading.Timer(0.05, producer.enqueue, [b"for the interrupted"]).start()

    handle(use)
    assert mine.dequeue(timeout=PATIENCE) == b"for the interrupted"


def test_an_entry_put_in_by_a_handler_is_found_by_the_wait_that_it_interrupted(
    ends: tuple[DataQueue, DataQueue], handle: Callable[[Callable[[], Any]], None]
) -> None:
    producer, consumer = ends
    handle(lambda: producer.enqueue(b"by the handler"))
    assert consumer.dequeue() == b"by the handler"


def test_closing_twice_closes_no_descriptor_of_somebody_else(queue: DataQueue) -> None:
    """Also where the second time is in a handler in the middle of the first."""
    queue.fileno()
    queue.close()
    read, write = os.pipe()
    queue.close()
    os.write(write, b"x")
    os.close(read)
    os.close(write)


# The order of things


def at_the_next_listening(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Do something between a look at the other side's sign and a look into the socket."""
    original = introduction.listen

    def listen(sock: socket.socket) -> introduction.Heard:
        monkeypatch.setattr(introduction, "listen", original)
        action()
        return original(sock)

    monkeypatch.setattr(introduction, "listen", listen)


def test_an_end_that_is_closed_while_the_other_side_looks_is_not_taken_for_lost(
    ends: tuple[DataQueue, DataQueue], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sign is read before the socket ends: it has to be read again."""
    producer, consumer = ends
    at_the_next_listening(monkeypatch, producer.close)
    with pytest.raises(QueueEnded) as raised:
        consumer.dequeue()
    assert type(raised.value) is QueueEnded


def test_who_has_handed_its_end_on_may_die(ends: tuple[DataQueue, DataQueue], monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if the introduction of the next holder is lost, for want of a descriptor here."""
    producer, consumer = ends
    with pytest.raises(QueueEmpty):
        consumer.dequeue(timeout=0)
    monkeypatch.setattr(introduction, "introduce", lambda *_, **__: None)
    monkeypatch.setattr(introduction.Peer, "is_dead", lambda _: True)
    with DataQueue.from_fd(producer.detach_producer()) as next_one:
        with pytest.raises(QueueEmpty):
            consumer.dequeue(timeout=0)
        monkeypatch.undo()
        next_one.enqueue(b"alive")
        assert consumer.dequeue() == b"alive"


def test_a_death_is_believed_of_who_has_the_end(
    ends: tuple[DataQueue, DataQueue], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, consumer = ends
    monkeypatch.setattr(introduction.Peer, "is_dead", lambda _: True)
    with pytest.raises(PeerDied, match=f"process {os.getpid()} "):
        consumer.dequeue(timeout=0)


def test_a_writer_that_waits_for_what_never_fits_is_told_when_the_ring_is_empty() -> None:
    """Q7: the reader has drained the ring, and waits as well."""
    with DataQueue(100) as queue:
        queue.enqueue(bytes(46))
        words = Words(queue)

        def drain() -> None:
            words.wait_until_armed(PRODUCER)
            queue.dequeue()

        thread = threading.Thread(target=drain)
        thread.start()
        with pytest.raises(QueueMisuse, match="now or later"):
            queue.enqueue(bytes(60), timeout=PATIENCE)
        thread.join()


@pytest.mark.parametrize("size", [2**32 - 1, 1000])
def test_who_waits_by_a_descriptor_for_what_never_fits_is_woken(queue: DataQueue, size: int) -> None:
    """Q7."""
    assert select.select([queue.room_fileno(size)], [], [], 0)[0]


# Descriptors for event loops


def test_a_wait_that_was_in_vain_leaves_the_descriptor_awake(ends: tuple[DataQueue, DataQueue]) -> None:
    """It disarmed the bell; a consumer that goes back to its loop must not sleep over the next entry."""
    producer, consumer = ends
    descriptor = consumer.fileno()
    with pytest.raises(QueueEmpty):
        consumer.dequeue(timeout=0)
    with pytest.raises(TimedOut):
        consumer.dequeue(timeout=0.001)
    producer.enqueue(b"x")
    assert select.select([descriptor], [], [], PATIENCE)[0]


def test_asking_who_is_there_takes_no_wake_up_of_an_event_loop(
    ends: tuple[DataQueue, DataQueue], monkeypatch: pytest.MonkeyPatch
) -> None:
    producer, consumer = ends
    monkeypatch.setattr(introduction, "_introduced", lambda *_: None)  # so that it has to listen each time
    descriptor = consumer.fileno()
    with pytest.raises(QueueEmpty):
        consumer.dequeue(timeout=0)
    producer.enqueue(b"x")
    assert consumer.peer is None
    assert select.select([descriptor], [], [], PATIENCE)[0]


# Notifications


class Port:
    """A notification port that can be interrupted in the middle of a message."""

    def __init__(self, *faults: BaseException) -> None:
        self.faults = list(faults)
        self.messages = 0

    def __call__(self) -> bool:
        if self.faults:
            raise self.faults.pop(0)
        self.messages += 1
        return True


def test_a_notification_that_is_interrupted_is_sent_all_the_same(ends: tuple[DataQueue, DataQueue]) -> None:
    """Q27: the entry is in the ring, and the next one is no reason to notify."""
    producer, _ = ends
    port = Port(KeyboardInterrupt())
    producer.notify_by(port)
    with pytest.raises(KeyboardInterrupt):
        producer.enqueue(b"x")
    assert port.messages == 1


def test_a_notification_that_is_interrupted_again_is_sent_with_the_next_entry(
    ends: tuple[DataQueue, DataQueue],
) -> None:
    producer, _ = ends
    port = Port(KeyboardInterrupt(), KeyboardInterrupt())
    producer.notify_by(port)
    with pytest.raises(KeyboardInterrupt):
        producer.enqueue(b"x")
    assert port.messages == 0
    producer.enqueue(b"y")
    assert port.messages == 1


def test_a_port_that_is_set_when_there_is_an_entry_gets_a_message(ends: tuple[DataQueue, DataQueue]) -> None:
    """Q34: a consumer that waits there has found the ring empty, perhaps before the producer came to this process."""
    producer, consumer = ends
    producer.enqueue(b"x")
    port = Port()
    producer.notify_by(port)
    assert port.messages == 1
    consumer.dequeue()
    port = Port()
    producer.notify_by(port)
    assert port.messages == 0


def test_who_finds_nothing_while_views_are_kept_gets_a_message_for_the_next_entry(
    ends: tuple[DataQueue, DataQueue],
) -> None:
    """Q27 says nothing while the head stays behind."""
    producer, consumer = ends
    port = Port()
    producer.notify_by(port)
    producer.enqueue(b"x")
    view = consumer.take_view()
    with pytest.raises(QueueEmpty):
        consumer.take_view(timeout=0)
    producer.enqueue(b"y")
    assert port.messages == 2
    assert consumer.dequeue() == b"y"
    del view


# Use that is wrong


@pytest.mark.parametrize("make", [DataQueue.peek, lambda queue: queue.reserve(1)], ids=["peek", "reserve"])
def test_a_block_that_is_over_cannot_be_entered_again(queue: DataQueue, make: Callable[[DataQueue], Any]) -> None:
    queue.enqueue(b"x")
    block = make(queue)
    with block:
        pass
    with pytest.raises(QueueMisuse, match="over"):
        block.__enter__()
