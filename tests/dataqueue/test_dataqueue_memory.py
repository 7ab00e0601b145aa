"""The memory of a data queue: its sizes, its seals, and what is refused from a stranger."""

from __future__ import annotations

import errno
import fcntl
import gc
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import machport
from machport.abi import constants as c
from machport.abi.errors import LimitReached, QueueMisuse
from machport.dataqueue import DataQueueMemory
from machport.dataqueue.memory import SEALS, capacity_for, region_size
from machport.ring import layout

#: Where child processes find the machport that is under test.
PROJECT = Path(machport.__file__).parents[1]
U32_MAX = 2**32 - 1
F_ADD_SEALS, F_GET_SEALS = fcntl.F_ADD_SEALS, fcntl.F_GET_SEALS


@pytest.fixture(autouse=True)
def every_descriptor_is_given_back() -> Iterator[None]:
    before = set(os.listdir("/proc/self/fd"))
    yield
    gc.collect()
    assert set(os.listdir("/proc/self/fd")) == before


def foreign_memory(size: int = 4096, capacity: int = 100, seals: int = SEALS, *, allocate: bool = True) -> int:
    """A memfd as another process may have made it."""
    fd = os.memfd_create("foreign", os.MFD_ALLOW_SEALING)
    if allocate and size:
        os.posix_fallocate(fd, 0, size)
    os.ftruncate(fd, size)
    if size >= 4:
        os.pwrite(fd, struct.pack("=I", capacity), 0)
    fcntl.fcntl(fd, F_ADD_SEALS, seals)
    return fd


# Sizes


@pytest.mark.parametrize(("shared", "size"), [(False, 12 + 100), (True, 12 + 100 + 28)])
def test_the_region_has_header_ring_and_for_a_shared_queue_the_appendix(shared: bool, size: int) -> None:
    """Section 5: 12 + Q, or 12 + Q + 28; without rounding to pages."""
    with DataQueueMemory.with_capacity(100, shared=shared) as memory:
        assert (memory.size, memory.capacity, memory.shared) == (size, 100, shared)
        assert os.fstat(memory.fileno()).st_size == size


def test_new_memory_is_zero_but_for_its_size_field() -> None:
    """Q3, and section 5: version 0."""
    with DataQueueMemory.with_capacity(100) as memory:
        assert os.pread(memory.fileno(), 1000, 0) == struct.pack("=I", 100).ljust(140, b"\0")
        assert memory.ring.peek() is None


@pytest.mark.parametrize(("shared", "largest"), [(False, U32_MAX - 12), (True, U32_MAX - 12 - 28)])
def test_a_region_must_fit_into_32_bits(shared: bool, largest: int) -> None:
    """Section 5, withCapacity."""
    assert region_size(largest, shared=shared) == U32_MAX
    for capacity in (largest + 1, U32_MAX, -1):
        with pytest.raises(QueueMisuse, match=str(largest)):
            region_size(capacity, shared=shared)
    with pytest.raises(QueueMisuse):
        DataQueueMemory.with_capacity(largest + 1, shared=shared)


def test_room_for_entries_is_one_entry_more_than_asked() -> None:
    """Q37."""
    assert capacity_for(10, 60) == 11 * 64
    with DataQueueMemory.with_entries(10, 60) as memory:
        assert memory.capacity == 704


@pytest.mark.parametrize(
    ("entries", "size"),
    [(1, U32_MAX - 3), (U32_MAX, 0), (2**16, 2**16), (-1, 4), (4, -1), (-5, -9)],
    ids=["s + 4", "n + 1", "the product", "negative n", "negative s", "both negative"],
)
def test_room_for_entries_must_not_overflow(entries: int, size: int) -> None:
    """Section 5, withEntries: each step is checked."""
    with pytest.raises(QueueMisuse, match=r"must fit into 32 bits|must be 0 or more"):
        capacity_for(entries, size)


def test_the_largest_products_are_accepted() -> None:
    assert capacity_for(2**16 - 2, 2**16 - 3) == (2**16 - 1) * (2**16 + 1) == U32_MAX
    assert capacity_for(0, U32_MAX - 4) == U32_MAX


@pytest.mark.parametrize(("entries", "size"), [(1, 0), (1, 9), (2, 7), (5, 3)])
def test_entries_always_fit_whatever_the_offset(entries: int, size: int) -> None:
    """Q37: from every place where the ring can stand empty, and with every smaller size mixed in."""
    with DataQueueMemory.with_entries(entries, size) as memory:
        for start in range(memory.capacity + 1):
            for mixed in range(size + 1):
                os.pwrite(memory.fileno(), struct.pack("=II", start, start), layout.HEAD)
                sizes = [size if number % 2 else mixed for number in range(entries)]
                data = [b"x" * n for n in sizes]
                assert memory.ring.enqueue_many(data)[0] == entries, (start, sizes)
                assert memory.ring.dequeue_many() == data


# Life


def test_the_memory_is_sealed_and_not_inherited() -> None:
    with DataQueueMemory.with_capacity(100) as memory:
        assert fcntl.fcntl(memory.fileno(), F_GET_SEALS) == SEALS
        assert not os.get_inheritable(memory.fileno())
        for size in (0, 10_000):
            with pytest.raises(PermissionError):
                os.ftruncate(memory.fileno(), size)
        with pytest.raises(PermissionError):
            fcntl.fcntl(memory.fileno(), F_ADD_SEALS, fcntl.F_SEAL_WRITE)


def test_the_memory_is_allocated_before_it_is_used() -> None:
    """T16: what is not there must be missed here, not at the first write."""
    with DataQueueMemory.with_capacity(100_000) as memory:
        assert os.fstat(memory.fileno()).st_blocks * 512 >= memory.size


def test_a_machine_without_memory_says_so_at_once() -> None:
    """T16: an error with a reason, and neither SIGBUS nor a left-over descriptor."""
    program = """
        import os, resource
        from machport.abi import constants as c
        from machport.abi.errors import LimitReached
        from machport.dataqueue import DataQueueMemory
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        before = os.listdir("/proc/self/fd")
        try:
            DataQueueMemory.with_capacity(1_000_000)
        except LimitReached as refusal:
            assert refusal.code == c.kIOReturnNoMemory
            assert "1000040 bytes" in str(refusal), refusal
        else:
            raise AssertionError("not refused")
        assert os.listdir("/proc/self/fd") == before
    """
    subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        check=True,
        timeout=60,
    )


def test_a_process_without_descriptors_says_so() -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open("/", os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
    try:
        with pytest.raises(LimitReached, match="no descriptor") as refusal:
            DataQueueMemory.with_capacity(100)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert refusal.value.code == c.kIOReturnNoResources


def test_after_close_everything_is_refused_but_closing_again() -> None:
    memory = DataQueueMemory.with_capacity(100)
    assert not memory.closed
    memory.close()
    memory.close()
    assert memory.closed
    assert memory.fileno() == -1
    assert "closed" in repr(memory)
    uses: list[Callable[[], object]] = [
        lambda: memory.ring,
        lambda: memory.notification_header,
        lambda: memory.set_notification_port(1),
    ]
    for use in uses:
        with pytest.raises(QueueMisuse, match="closed"):
            use()


def test_a_view_outlives_the_memory_that_gave_it() -> None:
    """T15."""
    with DataQueueMemory.with_capacity(100) as memory:
        memory.ring.enqueue(b"kept")
        entry = memory.ring.peek()
    assert entry is not None
    assert bytes(entry) == b"kept"
    del memory
    gc.collect()
    assert bytes(entry) == b"kept"
    assert "machport-dataqueue" in Path("/proc/self/maps").read_text()
    del entry
    assert "machport-dataqueue" not in Path("/proc/self/maps").read_text()


def test_the_mapping_goes_at_once_when_nobody_looks() -> None:
    with DataQueueMemory.with_capacity(100) as memory:
        memory.ring.enqueue(b"seen by nobody")
        assert "machport-dataqueue" in Path("/proc/self/maps").read_text()
    assert "machport-dataqueue" not in Path("/proc/self/maps").read_text()


def test_forgetting_to_close_is_reported() -> None:
    memory = DataQueueMemory.with_capacity(100)
    with pytest.warns(ResourceWarning, match="unclosed <DataQueueMemory of 100 bytes, shared"):
        del memory


# From another process


def test_both_mappings_are_the_same_queue() -> None:
    with DataQueueMemory.with_capacity(100) as ours:
        with DataQueueMemory.from_fd(os.dup(ours.fileno())) as theirs:
            assert (theirs.capacity, theirs.size, theirs.shared) == (100, 140, True)
            ours.ring.enqueue(b"across")
            assert theirs.ring.dequeue() == b"across"
        assert not ours.ring.data_available()


def test_a_plain_queue_is_recognised() -> None:
    with (
        DataQueueMemory.with_capacity(100, shared=False) as ours,
        DataQueueMemory.from_fd(os.dup(ours.fileno())) as theirs,
    ):
        assert not theirs.shared


def test_the_capacity_is_believed_once() -> None:
    """Q36: what the field says after the check is nobody's business."""
    with DataQueueMemory.from_fd(foreign_memory(capacity=100)) as memory:
        os.pwrite(memory.fileno(), struct.pack("=I", U32_MAX), layout.QUEUE_SIZE)
        assert memory.capacity == memory.ring.capacity == 100
        assert memory.ring.enqueue(b"x" * 97) == layout.FULL


@pytest.mark.parametrize(
    ("make", "seen"),
    [
        (lambda: foreign_memory(seals=0), "none"),
        (lambda: foreign_memory(seals=SEALS & ~fcntl.F_SEAL_SHRINK), "F_SEAL_SEAL | F_SEAL_GROW; expected"),
        (lambda: foreign_memory(seals=SEALS & ~fcntl.F_SEAL_GROW), "F_SEAL_SEAL | F_SEAL_SHRINK; expected"),
        (lambda: foreign_memory(seals=SEALS & ~fcntl.F_SEAL_SEAL), "F_SEAL_SHRINK | F_SEAL_GROW; expected"),
        (lambda: foreign_memory(seals=SEALS | fcntl.F_SEAL_WRITE), "mapped for writing"),
        (lambda: foreign_memory(8192, allocate=False), "8192 bytes, of which 4096 are allocated"),
        (lambda: foreign_memory(2**33, allocate=False), "8589934592 bytes"),
        (lambda: foreign_memory(0), "0 bytes"),
        (lambda: foreign_memory(11), "11 bytes"),
        (lambda: foreign_memory(4096, 4085), "region of 4097; it has 4096"),
        (lambda: foreign_memory(4096, U32_MAX), "region of 4294967307; it has 4096"),
        (lambda: os.open("/dev/null", os.O_RDWR), os.strerror(errno.EINVAL)),
        (lambda: os.eventfd(0), os.strerror(errno.EINVAL)),
        (lambda: os.open(__file__, os.O_RDONLY), os.strerror(errno.EINVAL)),
    ],
    ids=[
        "unsealed",
        "can be shrunk",
        "can grow",
        "can be sealed further",
        "cannot be written",
        "sparse",
        "huge",
        "empty",
        "too short for a header",
        "one byte too few",
        "absurd capacity",
        "a device",
        "an eventfd",
        "a file",
    ],
)
def test_what_could_harm_is_refused_with_what_was_seen(make: Callable[[], int], seen: str) -> None:
    fd = make()
    try:
        with pytest.raises(QueueMisuse) as refusal:
            DataQueueMemory.from_fd(fd)
        assert seen in str(refusal.value)
        os.fstat(fd)  # still the caller's
    finally:
        os.close(fd)


def test_a_descriptor_that_is_not_open_is_refused() -> None:
    with pytest.raises(QueueMisuse, match=os.strerror(errno.EBADF)):
        DataQueueMemory.from_fd(10_000)


def test_a_read_only_descriptor_is_refused() -> None:
    with DataQueueMemory.with_capacity(100) as memory:
        fd = os.open(f"/proc/self/fd/{memory.fileno()}", os.O_RDONLY)
        with pytest.raises(QueueMisuse, match="mapped for writing"):
            DataQueueMemory.from_fd(fd)
        os.close(fd)


def test_a_region_that_just_fits_is_accepted() -> None:
    with DataQueueMemory.from_fd(foreign_memory(4096, 4084)) as memory:
        assert not memory.shared
    with DataQueueMemory.from_fd(foreign_memory(4096, 4084 - 28)) as memory:
        assert memory.shared


def test_the_queue_and_what_is_in_it_survive_the_process_that_made_them() -> None:
    """The creator is killed after handing the memory over; no name and no file is left behind."""
    program = """
        import os, signal, socket, sys
        from machport.dataqueue import DataQueueMemory
        memory = DataQueueMemory.with_capacity(100)
        memory.ring.enqueue(b"testament")
        with socket.socket(fileno=int(sys.argv[1])) as to_heir:
            socket.send_fds(to_heir, [b"."], [memory.fileno()])
            os.kill(os.getpid(), signal.SIGKILL)
    """

    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            creator = subprocess.Popen(
                [sys.executable, "-c", textwrap.dedent(program), str(theirs.fileno())],
                env={**os.environ, "PYTHONPATH": str(PROJECT)},
                pass_fds=[theirs.fileno()],
            )
        _, fds, _, _ = socket.recv_fds(ours, 1, 1)
        assert creator.wait() == -signal.SIGKILL
    with DataQueueMemory.from_fd(fds[0]) as memory:
        assert memory.ring.dequeue() == b"testament"
