"""A hostile process at the other end of a queue, or at the descriptor that is said to bring one.

``chaos.queue_scribble`` does all of this at random; here is a short run of it, and each thing by
itself.
"""

from __future__ import annotations

import array
import contextlib
import gc
import os
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import chaos
from machport import DataQueue
from machport.abi.errors import LimitReached, MachError, PeerDied, QueueEmpty, QueueMisuse, TimedOut
from machport.dataqueue import DataQueueMemory, extension, handover
from machport.peer import introduction, lifeline
from machport.ring import layout

#: Where the machport under test is imported from, and chaos with it.
PROJECT = Path(chaos.__file__).parents[1]
CAPACITY = 1000
SO_PASSPIDFD = 76
MAGIC = b"machport-queue-1"
HEAD = struct.Struct("=16sIIIII")
U32 = struct.Struct("=I")


def test_whatever_a_hostile_process_does_every_operation_returns_data_or_a_mach_error() -> None:
    """Q39 to Q42, T5: three seconds of what ``python -m chaos queue_scribble`` does for as long as one likes."""
    run = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-m", "chaos", "queue_scribble", "--amount", "2.5", "--seed", "1"],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def descriptors() -> int:
    lifeline.held()  # one for all
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


# Carriers


def carrier(data: bytes, things: list[int]) -> int:
    """A descriptor in which something waits; takes the things."""
    inside, outside = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with inside:
        inside.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", things))] if things else [])
    for thing in things:
        os.close(thing)
    return outside.detach()


def header(roles: int = 1, capacity: int = CAPACITY, label: bytes = b"", length: int | None = None) -> bytes:
    return HEAD.pack(MAGIC, capacity, roles, 7, 0, len(label) if length is None else length) + label


def memory(*, extended: bool = True) -> int:
    with DataQueueMemory.with_capacity(CAPACITY, extended=extended) as region:
        return os.dup(region.fileno())


def pipe() -> int:
    read, write = os.pipe()
    os.close(write)
    return read


def packet_socket() -> int:
    ours, theirs = introduction.new_pair()
    ours.close()
    return theirs.detach()


def nothing_connected() -> int:
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).detach()


def datagrams() -> int:
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).detach()


def this_process() -> int:
    return os.pidfd_open(os.getpid())


def plain_memory() -> int:
    return memory(extended=False)


GARBAGE: dict[str, tuple[bytes, tuple[Callable[[], int], ...]]] = {
    "nothing": (b"", ()),
    "no header": (b"x" * 10, (memory, packet_socket)),
    "no descriptors": (header(), ()),
    "one descriptor": (header(), (memory,)),
    "too many": (header(), (memory, packet_socket, pipe, pipe)),
    "no role": (header(0), (memory, packet_socket)),
    "a role that is none": (header(4), (memory, packet_socket)),
    "no socket": (header(), (memory, pipe)),
    "another kind of socket": (header(), (memory, datagrams)),
    "no memory": (header(), (pipe, packet_socket)),
    "no memory, and a process": (header(), (pipe, packet_socket, this_process)),
    "no extension": (header(), (plain_memory, packet_socket)),
    "another capacity": (header(capacity=5), (memory, packet_socket)),
    "one socket of two": (header(3), (memory, packet_socket, pipe)),
}


@pytest.mark.parametrize(("data", "make"), GARBAGE.values(), ids=GARBAGE.keys())
def test_a_carrier_of_garbage_is_refused_and_leaves_no_descriptor(
    data: bytes, make: tuple[Callable[[], int], ...]
) -> None:
    """T5."""
    before = descriptors()
    with pytest.raises(QueueMisuse):
        DataQueue.from_fd(carrier(data, [one() for one in make]))
    assert descriptors() == before


def test_what_is_no_carrier_is_refused() -> None:
    before = descriptors()
    with pytest.raises(QueueMisuse, match="brings no end"):
        DataQueue.from_fd(nothing_connected())
    for make in (pipe, memory, datagrams):
        descriptor = make()
        with pytest.raises(QueueMisuse, match="brings no end"):
            DataQueue.from_fd(descriptor)
        os.close(descriptor)
    for number in (-1, 1 << 20):
        with pytest.raises(QueueMisuse, match="brings no end"):
            DataQueue.from_fd(number)
    assert descriptors() == before


def test_a_carrier_brings_no_descriptors_that_nobody_sent() -> None:
    """Whoever made the carrier can set its options, and then the system adds a descriptor of its own."""
    before = descriptors()
    inside, outside = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    outside.setsockopt(socket.SOL_SOCKET, SO_PASSPIDFD, 1)
    with inside:
        inside.send(header())
    with pytest.raises(QueueMisuse):
        DataQueue.from_fd(outside.detach())
    assert descriptors() == before


def test_an_end_whose_socket_leads_nowhere_is_an_end_that_is_over() -> None:
    before = descriptors()
    with DataQueue.from_fd(carrier(header(2), [memory(), nothing_connected()])) as queue, pytest.raises(PeerDied):
        queue.dequeue()
    assert descriptors() == before


def test_a_label_that_came_is_shown_without_what_a_terminal_would_obey() -> None:
    data = header(2, label=b"\x1b[2Jevil\n\xff", length=2**32 - 1)
    ours, theirs = introduction.new_pair()
    with ours, DataQueue.from_fd(carrier(data, [memory(), theirs.detach(), this_process()])) as queue:
        assert str(queue.peer) == f"process {os.getpid()} ([2Jevil\N{REPLACEMENT CHARACTER})"


@pytest.fixture
def few_descriptors() -> Iterator[Callable[[int], None]]:
    """Allows so many more descriptors than there are."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)

    def allow(more: int) -> None:
        numbers = sorted(map(int, os.listdir("/proc/self/fd")))
        free = [number for number in range(max(numbers) + 300) if number not in numbers]
        resource.setrlimit(resource.RLIMIT_NOFILE, (free[more], before[1]))

    yield allow
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("more", range(14))
def test_with_too_few_descriptors_every_step_of_an_end_is_done_or_refused(
    few_descriptors: Callable[[int], None], more: int
) -> None:
    """EMFILE at every step: made, sent, received, waited at and watched; and nothing is left behind."""
    before = descriptors()
    made = list[DataQueue]()
    few_descriptors(more)
    with contextlib.suppress(LimitReached):
        made.append(DataQueue(CAPACITY))
        made.append(DataQueue.from_fd(made[0].detach_producer()))
        made[1].enqueue(b"x")
        assert made[0].dequeue() == b"x"
        with pytest.raises(TimedOut):
            made[0].dequeue(timeout=0.001)
        with contextlib.suppress(OSError):
            made[0].fileno()
        made.append(DataQueue.from_fd(made[1].detach_producer()))
        made[2].enqueue(b"y")
        assert made[0].dequeue() == b"y"
    for queue in made:
        queue.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    made.clear()
    assert descriptors() == before


# What comes by the socket


class Hostile:
    """A producer that uses its end's socket and words as it likes, and has kept a copy of its victim's socket."""

    def __init__(self) -> None:
        self.victim = DataQueue(CAPACITY)
        with socket.socket(fileno=self.victim.pack((extension.CONSUMER,))) as outside:
            _, things, _, _ = socket.recv_fds(outside, 1024, 4)
        self.victim.keep((extension.CONSUMER,))
        self.its_socket = socket.socket(fileno=things.pop(1))
        for thing in things:
            os.close(thing)
        memory, sockets, _ = handover.arrived(self.victim.detach_producer())
        memory.close()
        sock = sockets[extension.PRODUCER]
        assert sock is not None
        self.sock = sock

    def send(self, data: bytes, things: list[int] | None = None) -> None:
        """One packet; takes the things."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", things))] if things else []
        self.sock.sendmsg([data], rights)
        for thing in things or []:
            os.close(thing)

    def write(self, offset: int, value: int) -> None:
        self.victim.memory.mapping[offset : offset + 4] = U32.pack(value)

    def close(self) -> None:
        self.victim.close()
        self.sock.close()
        self.its_socket.close()


@pytest.fixture
def hostile() -> Iterator[Hostile]:
    one = Hostile()
    yield one
    one.close()


def is_empty(queue: DataQueue) -> bool:
    with pytest.raises(QueueEmpty):
        queue.dequeue(timeout=0)
    return True


def introduce(magic: bytes = b"machport", version: int = 1, generation: int = 0, answer: int = 0) -> bytes:
    return struct.pack("=8sIIII", magic, version, generation, answer, 0) + b"hostile"


INTRODUCTIONS: dict[str, tuple[bytes, tuple[Callable[[], int], ...]]] = {
    "half of one": (introduce()[:20], (this_process,)),
    "another magic": (introduce(b"notmach!"), (this_process,)),
    "another version": (introduce(version=2), (this_process,)),
    "no process": (introduce(), ()),
    "a pipe for a process": (introduce(), (pipe, pipe)),
    "another process": (introduce(), (lambda: os.pidfd_open(os.getppid()),)),
    "no lifeline": (introduce(), (this_process, memory)),
    "a pipe for a lifeline": (introduce(), (this_process, pipe)),
    "too many": (introduce(), (this_process, pipe, pipe, pipe, pipe, pipe)),
    "a packet of descriptors": (bytes(8), (pipe, pipe)),
    "an empty packet": (b"", ()),
    "a long packet": (bytes(5000), (pipe,)),
}


@pytest.mark.parametrize(("data", "make"), INTRODUCTIONS.values(), ids=INTRODUCTIONS.keys())
def test_a_bad_introduction_ends_nothing_and_leaves_no_descriptor(
    hostile: Hostile, data: bytes, make: tuple[Callable[[], int], ...]
) -> None:
    """T5.  A pidfd or two belong to who introduced itself well in part."""
    assert is_empty(hostile.victim)
    before = descriptors()
    for _ in range(5):
        hostile.send(data, [one() for one in make])
        assert is_empty(hostile.victim)
    assert descriptors() <= before + 1


def test_who_has_a_copy_of_the_socket_cannot_fill_the_table_of_descriptors(hostile: Hostile) -> None:
    """It asks the system to add the sender's pidfd to every packet that its victim takes."""
    hostile.its_socket.setsockopt(socket.SOL_SOCKET, SO_PASSPIDFD, 1)
    assert is_empty(hostile.victim)
    before = descriptors()
    for _ in range(50):
        hostile.send(bytes(8))
        assert is_empty(hostile.victim)
    assert descriptors() == before


def test_a_flood_of_packets_keeps_nobody_beyond_its_time(hostile: Hostile) -> None:
    """One look takes a few dozen packets, so an operation ends while they come faster than they are taken."""
    for _ in range(150):
        hostile.send(bytes(8))
    assert introduction.listen(hostile.its_socket).packets < 100
    assert introduction.listen(hostile.its_socket).packets > 10
    stop = threading.Event()

    def flood() -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError):
                hostile.sock.send(bytes(8), socket.MSG_DONTWAIT)

    threads = [threading.Thread(target=flood) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        with pytest.raises(TimedOut):
            hostile.victim.dequeue(timeout=0.01)
        assert is_empty(hostile.victim)
        hostile.victim.statistics()
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_bell_that_never_stands_still_does_not_keep_signals_away(hostile: Hostile) -> None:
    """A sleep that never comes about ends by a signal all the same."""
    place = extension.place(CAPACITY) + extension.BELL[extension.CONSUMER]
    stop = threading.Event()

    def scribble() -> None:
        while not stop.is_set():
            hostile.write(place, 7)

    class Interruption(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise Interruption

    before = signal.signal(signal.SIGALRM, interrupt)
    thread = threading.Thread(target=scribble)
    thread.start()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Interruption):
            hostile.victim.dequeue(timeout=60)
    finally:
        stop.set()
        thread.join()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(("head", "tail"), [(0, 2**32 - 1), (2**32 - 1, 0), (CAPACITY + 1, 3), (7, CAPACITY + 1)])
def test_no_field_makes_the_statistics_say_what_cannot_be(hostile: Hostile, head: int, tail: int) -> None:
    """Q41."""
    hostile.write(layout.HEAD, head)
    hostile.write(layout.TAIL, tail)
    with contextlib.suppress(MachError):
        hostile.victim.dequeue(timeout=0)
    statistics = hostile.victim.statistics()
    assert 0 <= statistics.used <= CAPACITY
    assert 0 <= statistics.peak <= CAPACITY
    assert 0 <= statistics.entries <= CAPACITY // layout.ENTRY_HEADER_SIZE


def test_a_consumer_that_moves_the_tail_under_a_reservation_gets_nothing_written_elsewhere() -> None:
    """Q40: the producer's own field is in shared memory, too."""
    with DataQueue(CAPACITY) as queue:
        block = queue.reserve(10)
        block.__enter__()[:] = bytes(10)
        queue.memory.mapping[layout.TAIL : layout.TAIL + 4] = U32.pack(2**32 - 1)
        with pytest.raises(QueueMisuse):
            block.__exit__(None, None, None)
        queue.memory.mapping[layout.TAIL : layout.TAIL + 4] = U32.pack(0)
        with queue.reserve(10) as room:
            room[:] = bytes(10)
            queue.memory.mapping[layout.HEAD : layout.HEAD + 4] = U32.pack(2**32 - 1)
        assert queue.statistics().peak <= CAPACITY


def test_a_peer_that_swears_to_be_alive_ends_with_its_socket(hostile: Hostile) -> None:
    """It says that it has the end, of a generation that nobody introduced; then it is gone."""
    hostile.write(extension.place(CAPACITY) + extension.SIGN[extension.PRODUCER], 77 << 2 | extension.HELD)
    descriptor = hostile.victim.fileno()
    hostile.sock.close()
    assert select.select([descriptor], [], [], 30)[0]
    with pytest.raises(PeerDied):
        hostile.victim.dequeue()
