"""An end has one holder at a time, and whoever has the other one learns how that ended."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import socket
from collections.abc import Callable, Iterator

import pytest
from actors import PATIENCE
from queue_actors import Holder, Waiter, bell, descriptors, is_readable, maps, until, until_asleep

from machport.abi.errors import ForkedTask, InvalidArgument, PeerDied, QueueEmpty, QueueEnded, QueueFull, QueueMisuse
from machport.dataqueue import DataQueue, extension

CAPACITY = 100
PRODUCER, CONSUMER = extension.PRODUCER, extension.CONSUMER


@pytest.fixture
def queue() -> Iterator[DataQueue]:
    with DataQueue(CAPACITY) as queue:
        yield queue


def detach(queue: DataQueue, role: int) -> int:
    return queue.detach_producer() if role == PRODUCER else queue.detach_consumer()


def learn(queue: DataQueue) -> QueueEnded:
    """What the holder of the end that stayed is told, by the operation that would wait."""
    with pytest.raises(QueueEnded) as ending:
        queue.dequeue(PATIENCE) if queue.is_consumer else queue.enqueue(b"nobody reads this", PATIENCE)
    return ending.value


# Holding


def test_an_end_that_left_is_not_here(queue: DataQueue) -> None:
    with DataQueue.from_fd(queue.detach_producer()) as producer:
        assert (queue.is_producer, queue.is_consumer) == (False, True)
        assert (producer.is_producer, producer.is_consumer) == (True, False)
        uses: list[Callable[[], object]] = [lambda: queue.enqueue(b""), queue.detach_producer]
        for use in uses:
            with pytest.raises(QueueMisuse, match="the producer of this data queue is not here: it was moved"):
                use()
        uses = [producer.dequeue, producer.detach_consumer, producer.data_available]
        for use in uses:
            with pytest.raises(QueueMisuse, match="the consumer of this data queue is not here: it was moved"):
                use()
        producer.enqueue(b"entry")
        assert queue.dequeue() == b"entry"


def test_a_queue_whose_ends_both_left_is_closed(queue: DataQueue) -> None:
    with DataQueue.from_fd(queue.detach_producer()), DataQueue.from_fd(queue.detach_consumer()):
        assert queue.closed
        with pytest.raises(QueueMisuse, match="both ends were moved away"):
            queue.dequeue()


def test_an_end_arrives_once(queue: DataQueue) -> None:
    descriptor = queue.detach_producer()
    copy = os.dup(descriptor)
    with DataQueue.from_fd(descriptor), pytest.raises(QueueMisuse, match=r"brings no end|was taken before"):
        DataQueue.from_fd(copy)


def test_what_brings_no_end_is_refused_and_closed() -> None:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with other:
        other.send(b"something else")
        descriptor = one.detach()
        with pytest.raises(QueueMisuse):
            DataQueue.from_fd(descriptor)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


def test_a_descriptor_in_which_no_end_could_wait_stays_open() -> None:
    """A number that was mistyped costs nobody a file."""
    stream, other = socket.socketpair()
    with stream, other, open(os.devnull) as file:
        for descriptor in (stream.fileno(), file.fileno()):
            with pytest.raises(QueueMisuse):
                DataQueue.from_fd(descriptor)
            os.fstat(descriptor)
    for number in (-1, 1 << 20, 1 << 40):
        with pytest.raises(QueueMisuse):
            DataQueue.from_fd(number)
    with pytest.raises(TypeError):
        DataQueue.from_fd(None)  # type: ignore[arg-type]


def test_an_end_whose_entry_is_still_looked_at_does_not_leave(queue: DataQueue) -> None:
    """Q21: its room could not be given back from here."""
    queue.enqueue(b"entry")
    view = queue.take_view()
    with pytest.raises(QueueMisuse, match="1 entries are still looked at"):
        queue.detach_consumer()
    del view
    DataQueue.from_fd(queue.detach_consumer()).close()


def test_an_end_that_did_not_get_away_is_kept(queue: DataQueue) -> None:
    os.close(queue.pack((PRODUCER,)))
    queue.keep((PRODUCER,))
    queue.enqueue(b"entry")
    assert queue.dequeue() == b"entry"


def test_both_ends_can_travel_together(queue: DataQueue) -> None:
    queue.enqueue(b"first")
    descriptor = queue.pack((PRODUCER, CONSUMER))
    queue.let_go((PRODUCER, CONSUMER))
    assert queue.closed
    with DataQueue.from_fd(descriptor) as both:
        both.enqueue(b"second")
        assert both.dequeue_many() == [b"first", b"second"]


def test_one_knows_who_has_the_other_end(queue: DataQueue) -> None:
    with Holder(queue.detach_producer(), "say(queue.peer.pid); hear()") as holder:
        assert holder.line() == str(os.getpid())
        peer = queue.peer
        assert peer is not None
        assert (peer.pid, peer.label, str(peer)) == (holder.pid, "holder", f"process {holder.pid} (holder)")


# How an end ends

ENDINGS = {
    "by closing": ("queue.close(); hear()", None, None),
    "by its block": ("with queue: pass\nhear()", None, None),
    "by exiting": ("sys.exit()", None, None),
    "by its last line": ("", None, None),
    "by SIGKILL": ("os.kill(os.getpid(), signal.SIGKILL)", signal.SIGKILL, None),
    "by SIGSEGV": ("os.kill(os.getpid(), signal.SIGSEGV)", signal.SIGSEGV, None),
    # A program that is on its way out cannot see what it exits with.
    "by exit(3)": ("sys.exit(3)", None, None),
    "by _exit(4)": ("os._exit(4)", None, 4),
    "by an error": ("raise ZeroDivisionError", None, 1),
}


@pytest.mark.parametrize("role", [PRODUCER, CONSUMER], ids=["producer", "consumer"])
@pytest.mark.parametrize(("source", "number", "code"), ENDINGS.values(), ids=ENDINGS)
def test_the_other_side_learns_whether_an_end_was_closed_or_its_process_died(
    queue: DataQueue, role: int, source: str, number: int | None, code: int | None
) -> None:
    """T15: typed, with process, signal and exit code; what had been written before is read first."""
    before = "import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
    greet = "queue.enqueue(b'last')\n" if role == PRODUCER else "say('there'); queue.dequeue()\n"
    descriptor = detach(queue, role)
    with Holder(descriptor, before + greet + source) as holder:
        if role == PRODUCER:
            assert queue.dequeue(PATIENCE) == b"last"
        else:
            assert holder.line() == "there"
            queue.enqueue(b"first")
            until(lambda: not queue.statistics().entries)
        if role == CONSUMER:
            until(lambda: is_over(queue))
        error = learn(queue)
        if number is None and code is None:
            assert type(error) is QueueEnded
            assert error.death is None
            return
        holder.wait()
        assert isinstance(error, PeerDied)
        assert isinstance(error, BrokenPipeError)
        assert (error.death.pid, error.death.label) == (holder.pid, "holder")
        assert (error.death.signal, error.death.exit_code) == (number, code)
        again = learn(queue)
        assert again.death is error.death
        assert str(pickle.loads(pickle.dumps(error.death))) == str(error.death)


@pytest.mark.parametrize(
    "source",
    [
        "import warnings; warnings.simplefilter('ignore'); del queue",
        "with contextlib.suppress(ZeroDivisionError), queue: 1 / 0",
    ],
    ids=["forgotten", "a block that an error ends"],
)
@pytest.mark.parametrize("role", [PRODUCER, CONSUMER], ids=["producer", "consumer"])
def test_an_end_that_an_error_ends_is_not_closed_in_order(queue: DataQueue, role: int, source: str) -> None:
    """What was cut off shall not look like what has ended."""
    with Holder(detach(queue, role), f"import contextlib\n{source}\nhear()") as holder:
        if role == CONSUMER:
            until(lambda: is_over(queue))
        error = learn(queue)
        assert isinstance(error, PeerDied)
        assert f"forgotten without being closed, as by an error: process {holder.pid} (holder) lives" in str(error)


def is_over(queue: DataQueue) -> bool:
    try:
        queue.wait_for_room(0, 0)
    except QueueEnded:
        return True
    return False


@pytest.mark.parametrize("source", ["queue.close()", "os.kill(os.getpid(), signal.SIGKILL)"], ids=["closed", "killed"])
def test_everything_that_was_written_is_read_before_the_end(queue: DataQueue, source: str) -> None:
    with Holder(queue.detach_producer(), "queue.enqueue_many([b'a', b'b', b'c'])\n" + source) as holder:
        holder.wait()
        assert queue.wait()
        assert queue.dequeue() == b"a"
        with queue.peek() as entry:
            assert bytes(entry) == b"b"
        assert queue.wait()
        assert queue.dequeue_many() == [b"c"]
        error = learn(queue)
        for use in (queue.wait, lambda: queue.wait(0), lambda: queue.dequeue(0), lambda: queue.peek().__enter__()):
            with pytest.raises(type(error)):
                use()


def test_a_loop_ends_when_the_producer_has_closed_and_fails_when_it_died(queue: DataQueue) -> None:
    source = "queue.enqueue_many([b'a', b'b'])\n"
    with Holder(queue.detach_producer(), source):
        assert list(map(bytes, queue)) == [b"a", b"b"]
    with DataQueue(CAPACITY) as other, Holder(other.detach_producer(), source + "os._exit(1)"):
        entries = map(bytes, other)
        assert [next(entries), next(entries)] == [b"a", b"b"]
        with pytest.raises(PeerDied):
            next(entries)


def test_a_producer_whose_consumer_is_gone_learns_it_by_whatever_it_does_next(queue: DataQueue) -> None:
    """T15: there is room, and still nothing is written."""
    with Holder(queue.detach_consumer(), "say('there'); hear()") as holder:
        holder.line()
        queue.enqueue(b"x")
        holder.kill()
        for use in (
            lambda: queue.enqueue(b"x", 0),
            lambda: queue.enqueue_many([b"x"], 0),
            lambda: queue.reserve(1).__enter__(),
            lambda: queue.wait_for_room(1, 0),
        ):
            with pytest.raises(PeerDied, match=r"consumer is gone.*killed by SIGKILL"):
                use()
        assert queue.statistics().enqueued == 1


@pytest.mark.parametrize("role", [PRODUCER, CONSUMER], ids=["producer", "consumer"])
@pytest.mark.parametrize("way", [extension.AT_BELL, extension.AT_SOCKET], ids=["bell", "socket"])
@pytest.mark.parametrize("ending", ["kill", "close", "lose"])
def test_who_sleeps_is_woken_by_the_end_of_the_other_side(
    monkeypatch: pytest.MonkeyPatch, role: int, way: int, ending: str
) -> None:
    """T15: at the bell the lifeline wakes, or its holder; at the socket the pidfd, or the socket's end."""
    monkeypatch.setenv("MACHPORT_SPIN_US", "0")
    sources = {
        "kill": "",
        "close": "queue.close()",
        "lose": f"os.close(queue.detach_{('producer', 'consumer')[role]}())",
    }
    source = f"say('there'); hear(); {sources[ending]}\nhear()"
    with DataQueue(CAPACITY) as queue, Holder(detach(queue, role), source) as holder:
        holder.line()
        if way == extension.AT_SOCKET:
            queue.fileno()
        else:
            until(lambda: queue.peer is not None and queue.peer.line is not None)
        if role == CONSUMER:
            queue.enqueue(bytes(CAPACITY - 4))
        waiter = Waiter(queue.dequeue if role == PRODUCER else lambda: queue.enqueue(bytes(CAPACITY - 4)))
        until_asleep(queue, 1 - role, way)
        if ending == "kill":
            os.kill(holder.pid, signal.SIGKILL)
        else:
            holder.go_on()
        with pytest.raises(QueueEnded) as error:
            waiter.finish()
        assert isinstance(error.value, PeerDied) == (ending != "close")
        if ending == "lose":
            assert "lost on its way" in str(error.value)


# On the way


@pytest.mark.parametrize("role", [PRODUCER, CONSUMER], ids=["producer", "consumer"])
def test_an_end_that_is_lost_on_its_way_ends_the_other_side(queue: DataQueue, role: int) -> None:
    """T15: closed unread, nobody will ever have it."""
    os.close(detach(queue, role))
    assert "lost on its way" in str(learn(queue))


def test_an_end_that_a_known_process_let_go_of_and_lost_is_no_death_of_that_process(queue: DataQueue) -> None:
    with Holder(queue.detach_producer(), "queue.enqueue(b'x'); os.close(queue.detach_producer()); hear()") as holder:
        assert queue.dequeue(PATIENCE) == b"x"
        error = learn(queue)
        assert "lost on its way" in str(error)
        assert str(holder.pid) not in str(error)
        assert holder.process.poll() is None


@pytest.mark.parametrize("role", [PRODUCER, CONSUMER], ids=["producer", "consumer"])
def test_who_sleeps_beside_an_end_that_leaves_learns_that_it_was_lost(queue: DataQueue, role: int) -> None:
    """T15: whoever has both ends and waits in a thread has the other process to wait for from then on."""
    if role == CONSUMER:
        queue.enqueue(bytes(CAPACITY - 4))
    waiter = Waiter(queue.dequeue if role == PRODUCER else lambda: queue.enqueue(bytes(CAPACITY - 4)))
    until_asleep(queue, 1 - role)
    os.close(detach(queue, role))
    with pytest.raises(PeerDied, match="lost on its way"):
        waiter.finish()


def test_who_sleeps_beside_an_end_that_leaves_is_served_by_its_new_holder(queue: DataQueue) -> None:
    waiter = Waiter(queue.dequeue)
    until_asleep(queue, CONSUMER)
    with Holder(queue.detach_producer(), "queue.enqueue(b'from there'); hear()"):
        assert waiter.finish() == b"from there"


@pytest.mark.parametrize("role", [PRODUCER, CONSUMER], ids=["producer", "consumer"])
def test_an_end_that_is_handed_on_outlives_those_who_had_it(queue: DataQueue, role: int) -> None:
    """T15: the death of whoever had it before is no end."""
    hand_on = (
        "queue = DataQueue.from_fd(fd)\n"
        "on = queue.{detach}()\n"
        "subprocess.Popen([sys.executable, '-c', {program!r}, str(on)], pass_fds=[on])\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    head = "import os, signal, subprocess, sys\nfrom machport.dataqueue import DataQueue\nfd = int(sys.argv[1])\n"
    name = "detach_producer" if role == PRODUCER else "detach_consumer"
    work = "queue.enqueue(b'%d' % os.getpid())" if role == PRODUCER else "print(queue.dequeue().decode(), flush=True)"
    third = head + f"queue = DataQueue.from_fd(fd)\n{work}\nsys.stdin.readline()\n"
    second = head + hand_on.format(detach=name, program=third)
    first = hand_on.format(detach=name, program=second)
    with Holder(detach(queue, role), first, take=False) as holder:
        assert holder.wait() == -signal.SIGKILL
        if role == PRODUCER:
            last = int(queue.dequeue(PATIENCE))
            peer = queue.peer
            assert peer is not None
            assert peer.pid == last != holder.pid
        else:
            queue.enqueue(b"for the third", PATIENCE)
            assert holder.line() == "for the third"
        holder.go_on()
        assert type(learn(queue) if role == PRODUCER else until_over(queue)) is QueueEnded


def until_over(queue: DataQueue) -> QueueEnded:
    until(lambda: is_over(queue))
    return learn(queue)


def test_room_that_comes_back_from_views_wakes_a_producer_that_moved_away(queue: DataQueue) -> None:
    """Q22: the end that stayed tells the one that left, although both were of one object."""
    source = "queue.enqueue(bytes(90)); queue.enqueue(bytes(60)); say('added'); hear()"
    with Holder(queue.detach_producer(), source) as holder:
        entry = queue.take_view()
        assert len(entry) == 90
        until_asleep(queue, PRODUCER)
        del entry
        queue_is_drained = queue.dequeue(PATIENCE)
        assert len(queue_is_drained) == 60
        assert holder.line() == "added"


# Those who live


def test_a_program_that_takes_the_holders_place_ends_its_end(queue: DataQueue) -> None:
    """T15: descriptors and lifeline do not outlive exec; the process does."""
    with Holder(queue.detach_producer(), "queue.enqueue(b'x'); os.execvp('cat', ['cat'])") as holder:
        assert queue.dequeue(PATIENCE) == b"x"
        error = learn(queue)
        assert isinstance(error, PeerDied)
        assert error.death.pid == holder.pid
        assert (error.death.signal, error.death.exit_code) == (None, None)
        assert holder.process.poll() is None


FORK = """
{hold}
child = os.fork()
if child == 0:
    os.close(1)
    signal.pause()
say(child)
hear()
"""


@pytest.mark.parametrize("role", [PRODUCER, CONSUMER], ids=["producer", "consumer"])
@pytest.mark.parametrize("ending", ["kill", "close"])
def test_a_forked_child_that_inherits_everything_delays_nothing(queue: DataQueue, role: int, ending: str) -> None:
    """T1."""
    source = FORK.format(hold="") + "queue.close()\nhear()"
    with Holder(detach(queue, role), source) as holder:
        child = int(holder.line())
        try:
            until(lambda: queue.peer is not None)
            if ending == "kill":
                holder.kill()
                error = learn(queue)
                assert isinstance(error, PeerDied)
                assert error.death.signal == signal.SIGKILL
            else:
                holder.go_on()
                assert type(learn(queue) if role == PRODUCER else until_over(queue)) is QueueEnded
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("role", [PRODUCER, CONSUMER], ids=["producer", "consumer"])
def test_a_forked_child_is_told_clearly_and_its_parent_is_unharmed(queue: DataQueue, role: int) -> None:
    """T1."""
    queue.enqueue(b"before")
    other = DataQueue.from_fd(detach(queue, role))
    producer, consumer = (other, queue) if role == PRODUCER else (queue, other)
    with other:
        look = consumer.peek()
        entry = look.__enter__()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                for use in (queue.dequeue, other.dequeue, lambda: queue.enqueue(b""), lambda: other.enqueue(b"")):
                    try:
                        use()
                    except ForkedTask as error:
                        code = 0 if "forked" in str(error) else 2
                    else:
                        code = 3
                        break
                queue.close()
                other.close()
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert bytes(entry) == b"before"
        look.__exit__(None, None, None)
        assert not consumer.data_available()
        producer.enqueue(b"after")
        assert consumer.dequeue(PATIENCE) == b"after"


@pytest.mark.parametrize("split", [False, True], ids=["both ends here", "consumer alone"])
def test_a_forked_child_gives_no_room_back_that_a_loop_of_its_parent_looks_at(queue: DataQueue, split: bool) -> None:
    """Q21, T1: the child's part of the loop is over, and the parent's goes on."""
    queue.enqueue(b"first")
    other = DataQueue.from_fd(queue.detach_producer()) if split else queue
    entry = next(queue)
    before = queue.memory.ring.head
    child = os.fork()
    if child == 0:
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (queue.memory.ring.head, queue.statistics().lent, bytes(entry)) == (before, 1, b"first")
    other.enqueue(b"second")
    assert bytes(next(queue)) == b"second"
    other.close()


@pytest.mark.parametrize("expose", [False, True], ids=["bell", "socket"])
def test_a_child_that_another_thread_forks_leaves_the_thread_that_waits_alone(expose: bool) -> None:
    """T1, T15: neither the bell that the parent has armed nor the socket that it shares is the child's to touch."""
    with DataQueue(CAPACITY) as queue, DataQueue.from_fd(queue.detach_producer()) as producer:
        if expose:
            queue.fileno()
        waiter = Waiter(queue.dequeue)
        until_asleep(queue, CONSUMER)
        before = bell(queue, CONSUMER)
        child = os.fork()
        if child == 0:
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert bell(queue, CONSUMER) == before
        producer.enqueue(b"entry")
        assert waiter.finish() == b"entry"
        with pytest.raises(QueueEmpty):
            queue.dequeue(timeout=0)


def test_a_child_that_is_forked_with_an_entry_in_hand_does_not_end_its_parents_queue(queue: DataQueue) -> None:
    """T1, Q21."""
    with DataQueue.from_fd(queue.detach_producer()) as producer:
        producer.enqueue(b"entry")
        with queue.peek():
            child = os.fork()
            if child == 0:
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        with pytest.raises(QueueEmpty):
            queue.dequeue(timeout=0)


@pytest.mark.parametrize("role", [PRODUCER, CONSUMER], ids=["producer", "consumer"])
def test_an_end_that_came_back_and_was_then_abandoned_is_over(queue: DataQueue, role: int) -> None:
    """T8: the sign of an end that its first holder has abandoned is 0, which is nobody's that is known."""
    with DataQueue.from_fd(detach(queue, 1 - role)) as other:
        assert other.peer is not None
        descriptor = queue.pack((role,))
        assert other.peer is not None  # it sees that the end is on its way
        os.close(descriptor)
        queue.keep((role,))
        queue.abandon()
        with pytest.raises(PeerDied, match="was forgotten without being closed"):
            other.dequeue(timeout=0) if role == PRODUCER else other.enqueue(b"nobody reads this", timeout=0)


def test_a_main_thread_that_ends_is_no_death(queue: DataQueue) -> None:
    """T15: its lifeline gives a sign, and the pidfd says that the process lives."""
    source = (
        "def run():\n"
        "    hear()\n"
        "    queue.enqueue(b'alive')\n"
        "    hear()\n"
        "    os._exit(7)\n"
        "threading.Thread(target=run).start()\n"
        "say('there')\n"
        "end_this_thread()\n"
    )
    with Holder(queue.detach_producer(), source) as holder:
        assert holder.line() == "there"
        until(lambda: queue.peer is not None and (queue.peer.line is None or queue.peer.line.is_slack()))
        waiter = Waiter(queue.dequeue)
        until_asleep(queue, CONSUMER)
        holder.go_on()
        assert waiter.finish() == b"alive"
        holder.go_on()
        error = learn(queue)
        assert isinstance(error, PeerDied)


def test_who_closes_a_queue_wakes_the_thread_that_waits_at_it() -> None:
    """T15: whichever way it sleeps; it is told that it was closed, and touches nothing that is gone."""
    for expose in (False, True):
        queue = DataQueue(CAPACITY)
        producer = DataQueue.from_fd(queue.detach_producer())
        if expose:
            queue.fileno()
        waiter = Waiter(queue.dequeue)
        until_asleep(queue, CONSUMER)
        queue.close()
        with pytest.raises(QueueMisuse, match="was closed while it was being waited at"):
            waiter.finish()
        producer.close()


# Leaves nothing


def test_queues_that_come_and_go_leave_nothing() -> None:
    def one(turn: int) -> None:
        with DataQueue(CAPACITY) as queue:
            queue.enqueue(b"entry")
            if turn % 4 == 0:
                os.close(queue.detach_producer())
            elif turn % 4 == 1:
                with DataQueue.from_fd(queue.detach_consumer()) as consumer, consumer.peek():
                    consumer.fileno()
            elif turn % 4 == 2:
                child = os.fork()
                if child == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                os.waitpid(child, 0)
                queue.room_fileno(1)
            else:
                with DataQueue.from_fd(DataQueue.from_fd(queue.detach_producer()).detach_producer()) as producer:
                    producer.enqueue(b"another")
                assert len(list(queue)) == 2

    one(1)
    gc.collect()
    before = descriptors(), maps()
    for turn in range(200):
        one(turn)
    gc.collect()
    assert (descriptors(), maps()) == before


def test_ends_that_die_with_their_processes_leave_nothing() -> None:
    gc.collect()
    before = descriptors(), maps()
    for turn in range(6):
        with DataQueue(CAPACITY) as queue:
            descriptor = detach(queue, turn % 2)
            with Holder(descriptor, "say('there'); hear()") as holder:
                holder.line()
                queue.fileno()
                holder.kill()
                error = learn(queue)
                assert str(holder.pid) in str(error)
                del error
    gc.collect()
    assert (descriptors(), maps()) == before


def test_an_end_is_not_lent_to_pickle(queue: DataQueue) -> None:
    with pytest.raises(InvalidArgument):
        pickle.dumps(queue)


def test_a_full_queue_tells_its_producer_nothing_else_while_the_consumer_lives(queue: DataQueue) -> None:
    with Holder(queue.detach_consumer(), "say('there'); hear(); queue.dequeue(); hear()") as holder:
        holder.line()
        queue.enqueue(bytes(CAPACITY - 4))
        with pytest.raises(QueueFull):
            queue.enqueue(b"x", 0)
        assert not is_readable(queue.fileno())
        holder.go_on()
        assert is_readable(queue.fileno(), PATIENCE)
        assert bell(queue, PRODUCER) == 0
