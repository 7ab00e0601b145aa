"""Data queues among tasks: an end travels like a right, a port is notified, and loops of events are not held up."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import sys
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerContext, SpawnContext
from typing import Any

import pytest
from actors import PATIENCE, Client

import machport
from machport import DataQueue
from machport.abi import constants as c

Context = SpawnContext | ForkServerContext
CONTEXTS = (SpawnContext(), ForkServerContext())


@pytest.fixture
def queue() -> Iterator[DataQueue]:
    with DataQueue(4096) as queue:
        yield queue


def count(queue: DataQueue, number: int) -> None:
    """A child that enqueues numbers."""
    for index in range(number):
        queue.enqueue(b"%d" % index)


def count_and_die(queue: DataQueue, number: int) -> None:
    count(queue, number)
    os.kill(os.getpid(), signal.SIGKILL)


def count_and_fail(queue: DataQueue, number: int) -> None:
    count(queue, number)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # nobody needs to read of it
    raise ValueError("a child that fails")


def count_and_leave(queue: DataQueue, number: int) -> None:
    count(queue, number)
    sys.exit(3)


def echo(source: DataQueue, target: DataQueue) -> None:
    for entry in source:
        target.enqueue(entry)


def numbers(number: int) -> list[bytes]:
    return [b"%d" % index for index in range(number)]


def drained(queue: DataQueue) -> tuple[list[bytes], machport.PeerDied]:
    """What comes until the producer dies, and how that is told."""
    taken: list[bytes] = []
    with pytest.raises(machport.PeerDied) as end:
        taken.extend(map(bytes, queue))
    return taken, end.value


# An end travels


def test_an_end_goes_to_a_child_as_an_argument(task: machport.Task, queue: DataQueue) -> None:
    with task.spawn(count, queue.move_producer(), 1000):
        assert not queue.is_producer
        assert list(map(bytes, queue)) == numbers(1000)


def test_both_ends_go_to_two_children(task: machport.Task) -> None:
    source, target = DataQueue(4096), DataQueue(4096)
    with (
        source,
        target,
        task.spawn(count, source.move_producer(), 1000),
        task.spawn(echo, source.move_consumer(), target.move_producer()),
    ):
        assert source.closed
        assert list(map(bytes, target)) == numbers(1000)


def test_a_child_that_is_killed_is_named_when_everything_was_taken(task: machport.Task, queue: DataQueue) -> None:
    """A4, C4: the writer's last entries are not lost, and its end has a cause."""
    with task.spawn(count_and_die, queue.move_producer(), 100) as child:
        taken, end = drained(queue)
        assert taken == numbers(100)
        assert f"the producer is gone: process {child.pid}" in str(end)
        assert child.join(PATIENCE) == -signal.SIGKILL
        assert (end.death.pid, end.death.signal) == (child.pid, signal.SIGKILL)


def test_a_child_that_fails_does_not_end_in_order(task: machport.Task, queue: DataQueue) -> None:
    with task.spawn(count_and_fail, queue.move_producer(), 3) as child:
        _, end = drained(queue)
        assert child.join(PATIENCE) == 1
        assert end.death.exit_code == 1


def test_an_end_goes_in_a_message(task: machport.Task, new_client: Callable[[str], Client], queue: DataQueue) -> None:
    client = new_client("counter")
    with task.look_up("counter") as right:
        right.send(rights=[queue.move_producer()])
    assert not queue.is_producer
    client.do("queue = inbox.receive().rights[0].open_data_queue()")
    client.do("[queue.enqueue(b'%d' % index) for index in range(10)]; queue.close()")
    assert list(map(bytes, queue)) == numbers(10)


def test_an_end_comes_back_with_a_message_that_finds_no_room(task: machport.Task, queue: DataQueue) -> None:
    """M19."""
    port = task.allocate(qlimit=1)
    right = port.make_send()
    right.send()
    transfer = queue.move_producer()
    for _ in range(2):
        with pytest.raises(machport.TimedOut):
            right.send(rights=[transfer], timeout=0)
        queue.enqueue(b"still here")
        assert queue.dequeue() == b"still here"
    port.receive()
    right.send(rights=[transfer])
    assert not queue.is_producer


def test_an_end_stays_if_a_message_goes_to_a_dead_port(task: machport.Task, queue: DataQueue) -> None:
    port = task.allocate()
    right = port.make_send()
    port.close()
    with pytest.raises(machport.DeadPort):
        right.send(rights=[queue.move_producer()])
    with pytest.raises(machport.ServerDied):
        right.call(rights=[queue.move_producer()])
    queue.enqueue(b"still here")
    assert queue.dequeue() == b"still here"


def test_an_end_stays_if_another_right_of_the_message_cannot_go(task: machport.Task, queue: DataQueue) -> None:
    port = task.allocate()
    transfer = port.move()
    right = port.make_send()
    port.close()
    with pytest.raises(machport.ClosedRight):
        right.send(rights=[queue.move_producer(), transfer])
    queue.enqueue(b"still here")
    assert queue.dequeue() == b"still here"
    queue.move_producer().prepare(task)


def test_an_end_goes_once(task: machport.Task, queue: DataQueue) -> None:
    port = task.allocate()
    right = port.make_send()
    with pytest.raises(machport.QueueMisuse, match="on its way"):
        right.send(rights=[queue.move_producer(), queue.move_producer()])
    right.send(rights=[queue.move_producer()])
    with pytest.raises(machport.QueueMisuse, match="the producer of this data queue is not here: it was moved"):
        queue.move_producer().prepare(task)
    with pytest.raises(machport.QueueMisuse, match="moved to another process"):
        queue.enqueue(b"")


def test_a_message_that_is_destroyed_unread_ends_the_queue(task: machport.Task, queue: DataQueue) -> None:
    """T13."""
    port = task.allocate()
    port.make_send().send(rights=[queue.move_producer()])
    assert not queue.wait(timeout=0)
    port.close()
    with pytest.raises(machport.PeerDied, match="the producer's end was lost on its way"):
        queue.wait(PATIENCE)


def test_a_right_that_brings_no_queue_is_refused(task: machport.Task, queue: DataQueue) -> None:
    with (
        open(os.devnull) as file,
        task.fileport(file) as right,
        pytest.raises(machport.QueueMisuse, match="brings no end of a data queue"),
    ):
        right.open_data_queue()
    with task.allocate() as port, port.make_send() as right, pytest.raises(machport.MachError):
        right.open_data_queue()


def test_an_end_can_be_opened_once(task: machport.Task, queue: DataQueue) -> None:
    port = task.allocate()
    port.make_send().send(rights=[queue.move_producer()])
    message = port.receive()
    right = message.rights[0]
    assert isinstance(right, machport.SendRight)
    other = right.duplicate()
    with right.open_data_queue() as arrived:
        assert right.closed
        arrived.enqueue(b"entry")
        assert queue.dequeue() == b"entry"
        with pytest.raises(machport.QueueMisuse, match="was taken before"):
            other.open_data_queue()


@pytest.mark.parametrize("context", CONTEXTS, ids=("spawn", "forkserver"))
def test_an_end_goes_to_a_process_of_multiprocessing(queue: DataQueue, context: Context) -> None:
    """A7; no daemon is needed."""
    process = context.Process(target=count, args=(queue.move_producer(), 100))
    process.start()
    assert list(map(bytes, queue)) == numbers(100)
    process.join(PATIENCE)


@pytest.mark.parametrize("context", CONTEXTS, ids=("spawn", "forkserver"))
def test_a_killed_process_of_multiprocessing_is_named(queue: DataQueue, context: Context) -> None:
    process = context.Process(target=count_and_die, args=(queue.move_producer(), 100))
    process.start()
    taken, end = drained(queue)
    assert (taken, end.death.pid) == (numbers(100), process.pid)
    process.join(PATIENCE)


def test_an_end_goes_into_no_other_pickle(queue: DataQueue) -> None:
    for thing in (queue, queue.move_producer()):
        with pytest.raises(machport.InvalidArgument):
            pickle.dumps(thing)
    queue.enqueue(b"still here")


def test_room_that_is_given_back_wakes_the_producer_after_its_end_was_moved(
    task: machport.Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both ends were of one object; the consumer's part of it stays whole.  T8."""
    monkeypatch.setenv("MACHPORT_SPIN_US", "0")
    with DataQueue(64) as queue, task.spawn(count, queue.move_producer(), 1000):
        assert list(map(bytes, queue)) == numbers(1000)
        assert queue.statistics().wakeups > 0


# The notification port


def test_one_notification_is_pending_however_many_entries_were_added(task: machport.Task, queue: DataQueue) -> None:
    """Q27, Q30; Q29: what was not needed leaves no reference behind."""
    port = task.allocate(qlimit=1)
    right = port.make_send()
    queue.set_notification_port(right)
    for _ in range(100):
        queue.enqueue(b"entry")
        assert queue.dequeue() == b"entry"
    assert (queue.statistics().wakeups, queue.statistics().coalesced) == (1, 99)
    assert task.calls.mach_port_get_refs(task.name, right.name, c.MACH_PORT_RIGHT_SEND) == 1
    port.receive(timeout=0)
    with pytest.raises(machport.TimedOut):
        port.receive(timeout=0)
    queue.enqueue(b"entry")
    port.receive(timeout=0)


def test_a_full_queue_notifies_once_more(task: machport.Task, queue: DataQueue) -> None:
    """G4."""
    port = task.allocate(qlimit=1)
    queue.set_notification_port(port.make_send())
    queue.enqueue(bytes(4000))
    port.receive(timeout=0)
    with pytest.raises(machport.QueueFull):
        queue.enqueue(bytes(100), timeout=0)
    port.receive(timeout=0)


def test_a_dead_notification_port_does_not_stop_the_queue(task: machport.Task, queue: DataQueue) -> None:
    """Q31."""
    port = task.allocate(qlimit=1)
    queue.set_notification_port(port.make_send())
    port.close()
    queue.enqueue(b"entry")
    assert queue.dequeue() == b"entry"
    queue.set_notification_port(None)
    queue.enqueue(b"entry")
    assert queue.statistics().wakeups == 0


def test_the_port_is_written_where_the_manual_has_it(task: machport.Task, queue: DataQueue) -> None:
    """Q16, Q17."""
    port = task.allocate(qlimit=1)
    right = port.make_send()
    queue.set_notification_port(right)
    header = queue.memory.notification_header
    assert header is not None
    assert int.from_bytes(header[8:12], "little") == right.name


def test_a_notification_port_is_a_send_right_of_a_queue_whose_producer_is_here(
    task: machport.Task, queue: DataQueue
) -> None:
    port = task.allocate(qlimit=1)
    right = port.make_send()
    with pytest.raises(machport.InvalidArgument, match="must be a SendRight"):
        queue.set_notification_port(port)  # type: ignore[arg-type]
    port.make_send().send(rights=[queue.move_producer()])
    with pytest.raises(machport.QueueMisuse, match="moved"):
        queue.set_notification_port(right)
    closed = task.allocate().make_send()
    closed.close()
    with DataQueue(100) as other, pytest.raises(machport.ClosedRight):
        other.set_notification_port(closed)


def test_a_consumer_that_looks_at_entries_is_notified_of_more(task: machport.Task, queue: DataQueue) -> None:
    """Head stands before what is lent, so the ring never looks empty; the bell asks for the message instead."""
    port = task.allocate(qlimit=1)
    queue.set_notification_port(port.make_send())
    queue.enqueue(b"first")
    port.receive(timeout=0)
    view = queue.take_view()
    with pytest.raises(machport.QueueEmpty):
        queue.take_view(timeout=0)
    queue.enqueue(b"second")
    port.receive(timeout=0)
    assert (bytes(view), queue.dequeue()) == (b"first", b"second")


def feed(queue: DataQueue, port: machport.SendRight, number: int) -> None:
    queue.set_notification_port(port)
    for index in range(number):
        queue.enqueue(b"%d" % index)


def test_a_port_set_fans_several_queues_in(task: machport.Task) -> None:
    """The port of a message tells which queue to drain; no-senders at it tells of the writer's end."""
    number = 500
    fan = task.port_set()
    queues: dict[int, DataQueue] = {}
    taken: dict[int, list[bytes]] = {}
    children = []
    for _ in range(3):
        port, queue = task.allocate(qlimit=1), DataQueue(1024)
        fan.add(port)
        queues[port.name], taken[port.name] = queue, []
        right = port.make_send()
        port.request_no_senders(port)
        children.append(task.spawn(feed, queue.move_producer(), right.move(), number))
    while queues:
        name = fan.receive(PATIENCE).port
        try:
            while name in queues:
                taken[name] += queues[name].dequeue_many(timeout=0)
        except machport.QueueEmpty:
            pass
        except machport.QueueEnded:
            queues.pop(name).close()
    assert all(entries == numbers(number) for entries in taken.values())
    for child in children:
        child.close()


# Loops of events


def test_a_loop_takes_entries_while_it_does_other_things(task: machport.Task, queue: DataQueue) -> None:
    async def main() -> list[bytes]:
        with task.spawn(count, queue.move_producer(), 1000):
            return [bytes(entry) async for entry in queue]

    assert asyncio.run(main()) == numbers(1000)


def test_a_cancelled_step_has_taken_nothing(queue: DataQueue) -> None:
    """T9."""

    async def main() -> None:
        for index in range(20):
            step = asyncio.ensure_future(anext(queue))
            for _ in range(index % 4):
                await asyncio.sleep(0)
            entry = b"%d" % index
            if index % 2:
                queue.enqueue(entry)
            step.cancel()
            done = await asyncio.gather(step, return_exceptions=True)
            if isinstance(done[0], memoryview):
                assert bytes(done[0]) == entry
            elif index % 2:
                assert queue.dequeue(timeout=0) == entry
            assert not queue.data_available()

    asyncio.run(main())


def test_a_loop_waits_for_room(task: machport.Task) -> None:
    async def main() -> list[bytes]:
        down, up = DataQueue(100), DataQueue(4096)
        with down, up, task.spawn(echo, down.move_consumer(), up.move_producer()):
            for entry in numbers(300):
                await down.writable(len(entry))
                down.enqueue(entry, timeout=0)
            down.close()
            return [bytes(entry) async for entry in up]

    assert asyncio.run(main()) == numbers(300)


def test_a_loop_is_told_of_a_death(task: machport.Task, queue: DataQueue) -> None:
    async def main() -> None:
        taken = []
        with task.spawn(count_and_die, queue.move_producer(), 10), pytest.raises(machport.PeerDied):
            [taken.append(bytes(entry)) async for entry in queue]  # type: ignore[func-returns-value]
        assert taken == numbers(10)

    asyncio.run(main())


def test_a_loop_that_waits_ends_when_the_producer_closes(queue: DataQueue) -> None:
    """As a loop that does not wait: an orderly end is no error."""

    async def main() -> None:
        with DataQueue.from_fd(queue.detach_producer()) as producer:
            step = asyncio.ensure_future(anext(queue))
            await asyncio.sleep(0)
            producer.close()
            with pytest.raises(StopAsyncIteration):
                await asyncio.wait_for(step, PATIENCE)

    asyncio.run(main())


@pytest.mark.parametrize("how", ["close", "abandon", "detach"])
def test_a_coroutine_that_waits_at_an_end_that_goes_is_told(queue: DataQueue, how: str) -> None:
    """T15: however the end goes, nobody waits at a descriptor that is not there any more."""

    async def main() -> None:
        with DataQueue.from_fd(queue.detach_producer()):
            wait = asyncio.ensure_future(queue.readable())
            await asyncio.sleep(0)
            if how == "detach":
                os.close(queue.detach_consumer())
            else:
                getattr(queue, how)()
            with pytest.raises(machport.QueueMisuse):
                await asyncio.wait_for(wait, PATIENCE)

    asyncio.run(main())


def test_a_coroutine_that_waits_goes_on_when_the_other_end_moves_away(queue: DataQueue) -> None:
    """T15: its own end is still here."""

    async def main() -> None:
        wait = asyncio.ensure_future(queue.readable())
        await asyncio.sleep(0)
        with DataQueue.from_fd(queue.detach_producer()) as producer:
            await asyncio.sleep(0)
            producer.enqueue(b"entry")
            await asyncio.wait_for(wait, PATIENCE)
        assert queue.dequeue(timeout=0) == b"entry"

    asyncio.run(main())


def test_loading_the_package_does_not_load_data_queues() -> None:
    """``import machport`` is fast."""
    import subprocess

    program = "import sys, machport; print('machport.dataqueue' in sys.modules, machport.DataQueue.__name__)"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["False", "DataQueue"]


def test_a_loop_that_always_finds_an_entry_gives_way(queue: DataQueue) -> None:
    """Others have their turns, and it can be cancelled."""

    async def take() -> None:
        async for _ in queue:
            queue.enqueue(b"entry")

    async def main() -> None:
        queue.enqueue(b"entry")
        taking = asyncio.ensure_future(take())
        for _ in range(10):
            await asyncio.sleep(0)
        taking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await taking

    asyncio.run(main())


@pytest.mark.parametrize("context", CONTEXTS, ids=("spawn", "forkserver"))
@pytest.mark.parametrize("work", [count_and_fail, count_and_leave])
def test_a_process_of_multiprocessing_that_fails_does_not_end_in_order(
    queue: DataQueue, context: Context, work: Callable[[DataQueue, int], None]
) -> None:
    process = context.Process(target=work, args=(queue.move_producer(), 3))
    process.start()
    taken, _ = drained(queue)
    assert taken == numbers(3)
    process.join(PATIENCE)


def test_a_forked_child_is_told_that_it_has_a_move_and_no_queue(queue: DataQueue) -> None:
    """A7: what is not pickled does not arrive."""
    transfer: Any = queue.move_producer()
    with pytest.raises(AttributeError, match="spawn or forkserver"):
        transfer.enqueue(b"")
    with pytest.raises(machport.QueueMisuse, match="spawn or forkserver"):
        iter(transfer)
