"""Scenes with real processes, each run by a test as a program of its own, so that it may fork freely.

``python ring_scenes.py SCENE [NUMBER]`` prints one line about what it did, or ends with an assertion.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import random
import select
import signal
import socket
import struct
import sys
import time
import zlib
from collections.abc import Callable

from machport.ring import Doorbell, Ring, layout

LIBC = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG = 1
CHECKED = struct.Struct("=II")  # number and checksum before the bytes of a checked entry
PATIENCE = 20.0  # seconds without any progress after which a wake-up counts as lost


def shared_ring(capacity: int) -> Ring:
    """A ring in memory that children share."""
    return Ring(mmap.mmap(-1, layout.MEMORY_HEADER_SIZE + capacity), capacity)


class Child:
    """A forked process that does ``work`` and nothing else, and outlives neither the block nor its parent."""

    def __init__(self, work: Callable[[], None]) -> None:
        self.running = True
        self.pid = os.fork()
        if self.pid:
            return
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        try:
            work()
            os._exit(0)
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
            os._exit(1)

    def wait(self) -> int:
        """Its wait status, 0 if it did its work."""
        status = os.waitpid(self.pid, 0)[1]
        self.running = False
        return status

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        if self.running:
            self.kill()


def checked_entry(number: int, size: int) -> bytes:
    data = (number % 251).to_bytes(1, "little") * size
    return CHECKED.pack(number, zlib.crc32(data)) + data


def check(entry: bytes) -> int:
    """The number of an entry that is whole."""
    number, checksum = CHECKED.unpack_from(entry)
    data = entry[CHECKED.size :]
    assert zlib.crc32(data) == checksum, f"entry {number} is torn"
    assert not data.strip(data[:1]), f"entry {number} is mixed"
    return int(number)


def wake_ups(entries: int) -> None:
    """Q11: a producer that adds against a consumer that empties and then really sleeps.

    The wake-up is an eventfd that is never raised twice without being read: one pending message, as a port with
    queue limit 1 has.  A lost wake-up leaves the consumer asleep with an entry in the ring.
    """
    ring = shared_ring(256)
    doorbell = os.eventfd(0, os.EFD_NONBLOCK)

    def produce() -> None:
        for number in range(entries):
            while True:
                answer = ring.enqueue(number.to_bytes(4, "little"))
                if answer:  # WAKE or FULL: both notify (section 4)
                    os.eventfd_write(doorbell, 1)
                if answer != layout.FULL:
                    break
                os.sched_yield()

    with Child(produce) as producer:
        expected = sleeps = 0
        while expected < entries:
            while (entry := ring.dequeue()) is not None:
                assert int.from_bytes(entry, "little") == expected
                expected += 1
            assert ring.absence == layout.EMPTY
            if expected < entries:
                awake, _, _ = select.select([doorbell], [], [], PATIENCE)
                assert awake, f"asleep at {expected} of {entries}, and data is available: {ring.data_available()}"
                os.eventfd_read(doorbell)
                sleeps += 1
        assert producer.wait() == 0
    print(f"{entries} entries, {sleeps} sleeps")


def handshakes(rounds: int) -> None:
    """Q11 again, as narrow as it gets: the producer's second entry against the consumer that takes the first.

    Both sides spin, each on a processor of its own, so a round takes a microsecond and its two halves collide often.
    The doorbell is a second ring, which is looked at all the time and so needs no bell itself.
    """
    ring = shared_ring(1000)
    bell = shared_ring(1000)
    finished = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("I")
    processors = sorted(os.sched_getaffinity(0))

    def turn(look: int) -> None:
        """Let the other side run if both share one processor."""
        if look % 10_000 == 0:
            os.sched_yield()

    def produce() -> None:
        os.sched_setaffinity(0, processors[:1])
        chance = random.Random(5)
        pauses = [chance.randrange(20) for _ in range(1009)]
        for number in range(rounds):
            if ring.enqueue(b"1") == layout.WAKE:
                bell.enqueue(b"")
            for _ in range(pauses[number % len(pauses)]):
                pass
            if ring.enqueue(b"2") == layout.WAKE:
                bell.enqueue(b"")
            look = 0
            while finished[0] != number + 1:
                look += 1
                turn(look)

    with Child(produce) as producer:
        os.sched_setaffinity(0, processors[-1:])
        received = number = 0
        while True:
            while ring.dequeue() is not None:
                received += 1
            if received == 2:
                received = 0
                number += 1
                finished[0] = number
            if number == rounds:
                break
            deadline = time.monotonic() + PATIENCE
            look = 0
            while bell.skip() < 0:
                look += 1
                turn(look)
                assert look % 100_000 or time.monotonic() < deadline, f"lost the wake-up of round {number}"
        assert producer.wait() == 0
    print(f"{rounds} rounds")


def batches(entries: int) -> None:
    """The same race for batches, with sizes that make the ring wrap in every way."""
    ring = shared_ring(1000)
    doorbell = os.eventfd(0, os.EFD_NONBLOCK)

    def produce() -> None:
        numbers = random.Random(7)
        pending: list[bytes] = []
        number = 0
        while pending or number < entries:
            while number < entries and len(pending) < 1 + number % 9:
                pending.append(checked_entry(number, numbers.randrange(60)))
                number += 1
            added, answer = ring.enqueue_many(pending)
            del pending[:added]
            if answer:
                os.eventfd_write(doorbell, 1)
            if answer & layout.FULL:
                os.sched_yield()

    with Child(produce) as producer:
        expected = 0
        while expected < entries:
            while batch := ring.dequeue_many(1 + expected % 7):
                for entry in batch:
                    assert check(entry) == expected
                    expected += 1
            if expected < entries:
                awake, _, _ = select.select([doorbell], [], [], PATIENCE)
                assert awake, f"asleep at {expected} of {entries}"
                os.eventfd_read(doorbell)
        assert producer.wait() == 0
    print(f"{entries} entries")


def bells(entries: int) -> None:
    """The trap path's way to sleep: the sleeper arms its bell, looks once more, and sleeps in its socket.

    A lost wake-up leaves it there with an entry in the ring.
    """
    ring = shared_ring(256)
    word = mmap.mmap(-1, mmap.PAGESIZE)
    bell = Doorbell(word, 0)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(PATIENCE)

    def publish() -> None:
        for number in range(entries):
            while ring.enqueue(number.to_bytes(4, "little")) & layout.FULL:
                os.sched_yield()
            if bell.ring():
                theirs.send(b"wake")

    with Child(publish) as publisher:
        expected = sleeps = 0
        while expected < entries:
            while (entry := ring.dequeue()) is not None:
                assert int.from_bytes(entry, "little") == expected
                expected += 1
            if expected == entries:
                break
            bell.arm()
            if ring.data_available():
                bell.disarm()
                continue
            try:
                ours.recv(16)
            except TimeoutError:
                raise AssertionError(f"asleep at {expected} of {entries}") from None
            sleeps += 1
        assert publisher.wait() == 0
    print(f"{entries} entries, {sleeps} sleeps")


def killed_writers(rounds: int) -> None:
    """T6: writers killed at random moments, one after the other in one ring; every entry read is whole.

    The successor goes on where the dead writer's tail stands, so what was half written is written over.
    """
    ring = shared_ring(5000)
    chance = random.Random(11)
    received = 0

    def write_for_ever() -> None:
        numbers = random.Random(os.getpid())
        number = 0
        while True:
            if number % 3 == 0 and (room := ring.reserve(CHECKED.size + 700)) is not None:
                room[:] = checked_entry(number, 700)
                ring.commit()
                number += 1
            elif ring.enqueue(checked_entry(number, numbers.randrange(1500))) != layout.FULL:
                number += 1

    for _ in range(rounds):
        with Child(write_for_ever) as writer:
            first = received
            expected = 0
            wanted = chance.randrange(400)
            while received - first < wanted:
                if (entry := ring.dequeue()) is not None:
                    assert check(entry) == expected
                    expected += 1
                    received += 1
            writer.kill()
        while (entry := ring.dequeue()) is not None:
            assert check(entry) == expected
            expected += 1
            received += 1
        assert ring.absence == layout.EMPTY
    print(f"{rounds} writers killed, {received} whole entries")


def guarded(capacity: int) -> tuple[memoryview, memoryview]:
    """The region of a ring that ends at a page nobody may touch, and begins behind another; and all of it raw."""
    LIBC.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    size = layout.MEMORY_HEADER_SIZE + capacity
    assert size % mmap.PAGESIZE == 0
    mapping = mmap.mmap(-1, size + 2 * mmap.PAGESIZE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(mapping))
    for guard in (start, start + mmap.PAGESIZE + size):
        assert LIBC.mprotect(guard, mmap.PAGESIZE, 0) == 0
    whole = memoryview(mapping)
    return whole[mmap.PAGESIZE : mmap.PAGESIZE + size], whole


def guard_pages_work(_: int) -> None:
    """The proof of the next scene: one byte too far is death."""
    region, whole = guarded(mmap.PAGESIZE - layout.MEMORY_HEADER_SIZE)

    def touch(offset: int) -> int:
        with Child(lambda: whole.__setitem__(offset, 1)) as toucher:
            return toucher.wait()

    assert touch(mmap.PAGESIZE) == touch(mmap.PAGESIZE + len(region) - 1) == 0
    assert touch(mmap.PAGESIZE - 1) == touch(mmap.PAGESIZE + len(region)) == signal.SIGSEGV
    print("a byte before and a byte behind are fatal")


def scribbler(operations: int) -> None:
    """Q39 to Q42: whatever a peer writes while operations run, they touch only the mapped ring and return."""
    capacity = 2 * mmap.PAGESIZE - layout.MEMORY_HEADER_SIZE
    region, _ = guarded(capacity)
    ring = Ring(region, capacity)
    words = region.cast("I")
    tempting = [0, 1, 3, 4, capacity - 5, capacity - 4, capacity - 3, capacity, capacity + 1, 2**31, 2**32 - 1]

    def scribble() -> None:
        chance = random.Random(13)
        while True:
            for _ in range(40):
                words[1] = chance.choice([chance.randrange(capacity + 1), chance.choice(tempting)])
                words[2] = chance.choice([chance.randrange(capacity + 1), chance.choice(tempting)])
            words[0] = chance.choice(tempting)
            words[chance.randrange(3, len(words))] = chance.choice(tempting)
            words[3] = chance.choice(tempting)

    with Child(scribble):
        chance = random.Random(17)
        buffer = bytearray(capacity)
        done = [0, 0]
        for _ in range(operations):
            size = chance.choice([0, 1, 5, 100, capacity - 4, capacity, capacity + 50])
            data = b"x" * size
            answers = [ring.enqueue(data), ring.enqueue_many([data, b"y"])[1], ring.enqueue_blank(size)]
            assert all(0 <= answer < 16 for answer in answers)
            if (room := ring.reserve(size)) is not None:
                room[:] = data
            done[0] += layout.ADDED in answers or layout.WAKE in answers
            entry = ring.peek()
            assert entry is None or len(bytes(entry)) <= capacity - 4
            assert ring.dequeue_into(buffer) <= capacity - 4
            assert ring.skip() <= capacity - 4
            assert sum(len(entry) for entry in ring.dequeue_many()) <= capacity
            taken = ring.dequeue()
            done[1] += taken is not None
    assert min(done) > 0, "the peer never let an operation succeed, so little was tried"
    print(f"{operations} rounds, {done[0]} additions, {done[1]} removals")


SCENES = {
    scene.__name__: scene
    for scene in (wake_ups, handshakes, batches, bells, killed_writers, guard_pages_work, scribbler)
}

if __name__ == "__main__":
    SCENES[sys.argv[1]](int(sys.argv[2]))
