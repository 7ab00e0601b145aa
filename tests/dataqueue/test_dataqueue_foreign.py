"""A queue shared with a program that knows nothing but the published layout, in either role.

That program is ``foreign.c``.  It has no Mach ports: it prints what it would send, and reads a line where it waits.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
import select
import struct
import subprocess
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, Self

import pytest
from actors import PATIENCE
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from machport import iokit, mach
from machport.dataqueue import DataQueueMemory, functions
from machport.dataqueue.memory import SEALS, region_size
from machport.ring import layout

SOURCE = Path(__file__).with_name("foreign.c")
SUCCESS, ERROR, BAD_ARGUMENT = iokit.kIOReturnSuccess, iokit.kIOReturnError, iokit.kIOReturnBadArgument
NO_SPACE, UNDERRUN, OVERRUN = iokit.kIOReturnNoSpace, iokit.kIOReturnUnderrun, iokit.kIOReturnOverrun
U32_MAX = 2**32 - 1
PORT = 0x1503
CYCLE = bytes(range(256)) * 18
#: No room for a size, for a size only, for little, odd ones, a region of whole pages with and without the appendix.
CAPACITIES = [0, 3, 4, 5, 13, 40, 41, 255, 4096 - 12 - 28, 4096 - 12, 4097]

few = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


# The two sides


class Enqueued(NamedTuple):
    """What became of an entry: the code, whether the rules ask for a notification, and the header that was sent."""

    code: int
    wake: bool
    sent: bytes | None = None


class Dequeued(NamedTuple):
    """What a consumer got: the code, the data size that came out, and the bytes."""

    code: int
    size: int
    data: bytes = b""


class Side(Protocol):
    """Whoever uses a queue; all of these are calls of the manual."""

    def enqueue(self, data: bytes) -> Enqueued: ...
    def reserve(self, size: int) -> Enqueued: ...
    def available(self) -> bool: ...
    def peek(self) -> bytes | None: ...
    def dequeue(self, room: int) -> Dequeued: ...
    def skip(self) -> int: ...
    def set_port(self, port: int) -> int: ...
    def header(self) -> bytes | None: ...


class Foreign:
    """The foreign program, which has mapped its memory.

    Attributes:
        fd: the memory, among its descriptors.
    """

    def __init__(self, program: Path, *arguments: str, inherited: Sequence[int] = ()) -> None:
        self._process = subprocess.Popen(
            [program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, pass_fds=inherited
        )
        self._printed = b""
        try:
            self.fd = int(self.line().removeprefix("memory "))
        except BaseException:
            self._forget()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def order(self, order: str) -> None:
        """Let it do something, and do not wait; also what tells it to go on."""
        assert self._process.stdin is not None
        self._process.stdin.write(order.encode() + b"\n")

    def line(self) -> str:
        """What it prints next."""
        assert self._process.stdout is not None
        while b"\n" not in self._printed:
            ready, _, _ = select.select([self._process.stdout], [], [], PATIENCE)
            assert ready, "the foreign program does not answer"
            more = os.read(self._process.stdout.fileno(), 2**16)
            assert more, f"the foreign program ended with {self._process.wait(PATIENCE)}"
            self._printed += more
        line, _, self._printed = self._printed.partition(b"\n")
        return line.decode()

    def ask(self, order: str) -> str:
        self.order(order)
        return self.line()

    def look(self) -> list[int]:
        """Its trusted capacity, whether there is an appendix, head, tail."""
        return [int(word) for word in self.ask("look").split()]

    def enqueue(self, data: bytes) -> Enqueued:
        return self._enqueued(f"enqueue {data.hex()}")

    def reserve(self, size: int) -> Enqueued:
        return self._enqueued(f"reserve {size}")

    def _enqueued(self, order: str) -> Enqueued:
        answer, sent = self.ask(order), None
        if answer.startswith("notify "):
            sent, answer = bytes.fromhex(answer.removeprefix("notify ")), self.line()
        code, wake = answer.split()
        return Enqueued(int(code, 0), wake == "1", sent)

    def available(self) -> bool:
        return self.ask("available") == "1"

    def peek(self) -> bytes | None:
        answer = self.ask("peek")
        return None if answer == "null" else bytes.fromhex(answer.removeprefix("entry "))

    def dequeue(self, room: int) -> Dequeued:
        code, size, data = self.ask(f"dequeue {room}").split(" ")
        return Dequeued(int(code, 0), int(size), bytes.fromhex(data))

    def skip(self) -> int:
        return int(self.ask("skip"), 0)

    def set_port(self, port: int) -> int:
        return int(self.ask(f"port {port}"), 0)

    def header(self) -> bytes | None:
        answer = self.ask("header")
        return None if answer == "none" else bytes.fromhex(answer)

    def kill(self) -> None:
        """End it wherever it is."""
        self._process.kill()
        self._process.wait(PATIENCE)

    def end(self) -> int:
        """Let nobody be left to tell it anything; its exit code."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self._process.wait(PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None and self._process.poll() is None:
                assert self.end() == 0
        finally:
            self._forget()

    def _forget(self) -> None:
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


class Ours:
    """machport's side, by the manual's functions, with a port that takes everything."""

    def __init__(self, memory: DataQueueMemory) -> None:
        self.memory = memory
        self._sent: list[bytes] = []

    def send(self, header: bytes) -> int:
        self._sent.append(header)
        return mach.MACH_MSG_SUCCESS

    def enqueue(self, data: bytes) -> Enqueued:
        return self._enqueued(data, len(data))

    def reserve(self, size: int) -> Enqueued:
        return self._enqueued(None, size)

    def _enqueued(self, data: bytes | None, size: int) -> Enqueued:
        self._sent.clear()
        wakes = self.memory.ring.wakes
        code, notification = functions.enqueue(self.memory, data, size, self)
        assert (notification is not None) == bool(self._sent)
        full = code == OVERRUN and size <= layout.MAX_ENTRY_SIZE
        return Enqueued(code, full or self.memory.ring.wakes > wakes, self._sent[0] if self._sent else None)

    def available(self) -> bool:
        return iokit.IODataQueueDataAvailable(self.memory)

    def peek(self) -> bytes | None:
        entry = iokit.IODataQueuePeek(self.memory)
        return None if entry is None else bytes(entry)

    def dequeue(self, room: int) -> Dequeued:
        data, size = bytearray(room), ctypes.c_uint32(room)
        code = iokit.IODataQueueDequeue(self.memory, data, size)
        return Dequeued(code, size.value, bytes(data[: size.value]) if code == SUCCESS else b"")

    def skip(self) -> int:
        return iokit.IODataQueueDequeue(self.memory, None, None)

    def set_port(self, port: int) -> int:
        return iokit.IODataQueueSetNotificationPort(self.memory, port)

    def header(self) -> bytes | None:
        return self.memory.notification_header


class Pair(NamedTuple):
    """One queue with both programs at it."""

    foreign: Foreign
    ours: Ours
    memory: DataQueueMemory

    def region(self) -> bytes:
        """Every byte of it, without what rounding to pages adds."""
        size = region_size(self.memory.capacity, shared=self.memory.shared)
        return os.pread(self.memory.fileno(), size, 0)

    def write(self, offset: int, data: bytes) -> None:
        """Write as neither side would."""
        assert os.pwrite(self.memory.fileno(), data, offset) == len(data)

    def move(self, head: int, tail: int) -> None:
        self.write(layout.HEAD, struct.pack("=II", head, tail))


Maker = Literal["foreign", "machport"]
MAKERS: list[Maker] = ["foreign", "machport"]
Share = Callable[..., contextlib.AbstractContextManager[Pair]]


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The foreign program, compiled without a warning."""
    binary = tmp_path_factory.mktemp("foreign") / "foreign"
    subprocess.run(
        ["cc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-O2", "-o", binary, SOURCE], check=True, timeout=PATIENCE
    )
    return binary


@pytest.fixture
def share(program: Path) -> Share:
    """Makes a queue that the foreign program and this process share, by the one or the other."""

    @contextlib.contextmanager
    def share(capacity: int, *, maker: Maker = "machport", shared: bool = True) -> Iterator[Pair]:
        with contextlib.ExitStack() as stack:
            if maker == "machport":
                memory = stack.enter_context(DataQueueMemory.with_capacity(capacity, shared=shared))
                foreign = stack.enter_context(attached(program, memory.fileno()))
            else:
                foreign = stack.enter_context(
                    Foreign(program, "create", str(capacity), "shared" if shared else "plain")
                )
                fd = os.open(f"/proc/{foreign.pid}/fd/{foreign.fd}", os.O_RDWR | os.O_CLOEXEC)
                memory = stack.enter_context(DataQueueMemory.from_fd(fd))
            yield Pair(foreign, Ours(memory), memory)

    return share


def attached(program: Path, fd: int) -> Foreign:
    return Foreign(program, "attach", str(fd), inherited=[fd])


def producer_first(pair: Pair, producer: Maker) -> tuple[Side, Side]:
    """The two sides of a queue, with the producer chosen."""
    return (pair.foreign, pair.ours) if producer == "foreign" else (pair.ours, pair.foreign)


def stream(seed: int, count: int, largest: int) -> Iterator[bytes]:
    """The entries that the foreign program makes of a seed, and expects of nobody."""
    for _ in range(count):
        seed = (seed * 1664525 + 1013904223) % 2**32
        first, size = seed >> 24, (seed >> 8) % (largest + 1)
        yield CYCLE[first : first + size]


def checksum(entries: Iterable[bytes]) -> int:
    total = 0
    for entry in entries:
        total = zlib.crc32(entry, zlib.crc32(struct.pack("=I", len(entry)), total))
    return total


def yield_until(condition: Callable[[], bool]) -> None:
    """Let the other side run until it has done something."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "the foreign program does nothing"
        os.sched_yield()


@contextlib.contextmanager
def apart(other: int) -> Iterator[None]:
    """Let the process ``other`` and this one have processors of their own, if there are two."""
    processors = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(other, processors[:1])
    os.sched_setaffinity(0, processors[1:] or processors)
    try:
        yield
    finally:
        os.sched_setaffinity(0, processors)


# Memory


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "plain"])
@pytest.mark.parametrize("capacity", CAPACITIES)
def test_fresh_memory_is_the_same_whoever_makes_it(share: Share, capacity: int, shared: bool) -> None:
    """Section 1, Q3: 12 bytes with the capacity, a ring of zeros, and for a shared queue an appendix of zeros."""
    regions = []
    for maker in MAKERS:
        with share(capacity, maker=maker, shared=shared) as pair:
            assert pair.foreign.look() == [capacity, shared, 0, 0]
            assert (pair.memory.capacity, pair.memory.shared) == (capacity, shared)
            regions.append(pair.region())
    assert regions[0] == regions[1] == struct.pack("=I", capacity).ljust(12 + capacity + 28 * shared, b"\0")


def test_what_a_foreign_program_rounds_up_to_pages_is_accepted_with_its_appendix_behind_the_ring(share: Share) -> None:
    """Section 1: 12 + Q + 28, rounded up when allocated; where the appendix stands follows from Q alone."""
    with share(100, maker="foreign") as pair:
        assert os.fstat(pair.memory.fileno()).st_size == pair.memory.size == mmap.PAGESIZE
        assert pair.ours.set_port(PORT) == SUCCESS
        assert pair.region()[12 + 100 + 4 :][8:12] == struct.pack("=I", PORT)


@pytest.mark.parametrize("producer", MAKERS)
def test_a_capacity_that_is_changed_later_is_believed_by_neither_side(share: Share, producer: Maker) -> None:
    """Q36."""
    with share(20) as pair:
        giver, taker = producer_first(pair, producer)
        for lie in (U32_MAX, 0, 21, 8):
            pair.write(layout.QUEUE_SIZE, struct.pack("=I", lie))
            pair.move(0, 0)
            assert giver.enqueue(b"x" * 17).code == OVERRUN
            assert giver.enqueue(b"x" * 16).code == SUCCESS
            assert taker.dequeue(100) == (SUCCESS, 16, b"x" * 16)


# Entries


@pytest.mark.parametrize("producer", MAKERS)
@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "plain"])
@pytest.mark.parametrize("capacity", [4, 5, 13, 40, 41, 4056])
def test_both_sides_meet_at_full_and_at_empty_round_after_round(
    share: Share, capacity: int, shared: bool, maker: Maker, producer: Maker
) -> None:
    """Q1, Q2, Q6, Q24, Q27 and Q39: entries of every size, in order; Overrun when full and Underrun when empty."""
    sizes = deque(range(max(1, capacity // 3 - 3)))
    with share(capacity, maker=maker, shared=shared) as pair:
        giver, taker = producer_first(pair, producer)
        for turn in range(12):
            given: list[bytes] = []
            while True:
                entry = CYCLE[turn : turn + sizes[0]]
                answer = giver.enqueue(entry)
                if answer.code == OVERRUN:
                    assert answer.wake
                    break
                assert answer == (SUCCESS, not given, None)
                given.append(entry)
                sizes.rotate(-1)
            if not given:  # empty, and not rewound: nothing but a smaller entry helps (Q7)
                sizes.rotate(-1)
            for entry in given:
                assert taker.available()
                assert taker.peek() == entry
                assert taker.dequeue(len(entry)) == (SUCCESS, len(entry), entry)
            assert not taker.available()
            assert taker.peek() is None
            assert taker.dequeue(capacity) == (UNDERRUN, capacity, b"")
            assert taker.skip() == UNDERRUN


@pytest.mark.parametrize("producer", MAKERS)
@pytest.mark.parametrize("capacity", [40, 41, 43])
def test_an_entry_is_found_wherever_the_ring_stands_empty(share: Share, capacity: int, producer: Maker) -> None:
    """Q4 to Q9: exact fits, wraps with a marker and without one, and what fits nowhere."""
    places = set()
    with share(capacity, shared=False) as pair:
        giver, taker = producer_first(pair, producer)
        for start in range(capacity + 1):
            left = capacity - start
            for size in {0, left - 5, left - 4, left - 3, start - 5, start - 4, capacity - 4, capacity - 3}:
                if size < 0:
                    continue
                pair.move(start, start)
                pair.write(layout.RING, b"\xff" * capacity)
                need, entry = size + 4, CYCLE[start : start + size]
                answer = giver.enqueue(entry)
                ring = pair.region()[layout.RING :]
                if need <= left:
                    assert ring[start : start + need] == struct.pack("=I", size) + entry
                    places.add("exact" if need == left else "behind")
                elif need < start:
                    marked = left >= 4
                    assert ring[:need] == struct.pack("=I", size) + entry
                    assert ring[start:] == (struct.pack("=I", size) * marked).ljust(left, b"\xff")
                    places.add("marker" if marked else "no marker")
                else:
                    assert answer.code == OVERRUN
                    assert ring == b"\xff" * capacity
                    places.add("nowhere")
                    continue
                assert answer == (SUCCESS, True, None)
                assert taker.dequeue(capacity) == (SUCCESS, size, entry)
                assert taker.skip() == UNDERRUN
    assert places == {"exact", "behind", "marker", "no marker", "nowhere"}


@pytest.mark.parametrize("consumer", MAKERS)
def test_a_buffer_too_small_learns_the_size_from_either_side(share: Share, consumer: Maker) -> None:
    """G1 and Q23: the entry stays next; a bigger buffer gets it, or none throws it away."""
    with share(40) as pair:
        taker, giver = producer_first(pair, consumer)
        giver.enqueue(b"first")
        giver.enqueue(b"second")
        assert taker.dequeue(4) == (NO_SPACE, 5, b"")
        assert taker.dequeue(5) == (SUCCESS, 5, b"first")
        assert taker.dequeue(0) == (NO_SPACE, 6, b"")
        assert taker.skip() == SUCCESS
        assert taker.skip() == UNDERRUN


@pytest.mark.parametrize("producer", MAKERS)
def test_a_size_beyond_any_entry_is_refused_by_either_side(share: Share, producer: Maker) -> None:
    """Section 4, the second row before the third: Overrun, and no notification."""
    with share(40) as pair:
        giver, _ = producer_first(pair, producer)
        giver.set_port(PORT)
        for place in (0, 41):
            pair.move(place, place)
            before = pair.region()
            for size in (U32_MAX, U32_MAX - 3):
                assert giver.reserve(size) == (OVERRUN, False, None)
            assert pair.region() == before
        pair.move(0, 0)
        assert giver.reserve(U32_MAX - 4)[:2] == (OVERRUN, True)


# Both sides against each other


Step = tuple[str, int]
steps = st.lists(
    st.one_of(
        st.tuples(st.just("enqueue"), st.integers(0, 30)),
        st.tuples(st.just("enqueue"), st.integers(0, 30)),
        st.tuples(st.just("reserve"), st.integers(0, 20)),
        st.tuples(st.just("dequeue"), st.integers(0, 40)),
        st.tuples(st.sampled_from(["take", "take", "skip", "peek"]), st.just(0)),
        st.tuples(st.just("port"), st.sampled_from([0, 7, PORT, U32_MAX])),
    ),
    min_size=10,
    max_size=60,
)


def play(giver: Side, taker: Side, step: Step, number: int) -> object:
    """Do a step with a queue, and tell what came of it."""
    kind, value = step
    match kind:
        case "enqueue":
            return giver.enqueue(CYCLE[number : number + value])
        case "reserve":
            return giver.reserve(value)
        case "dequeue":
            return taker.dequeue(value)
        case "take":
            return taker.dequeue(1000)
        case "skip":
            return taker.skip()
        case "peek":
            return taker.peek(), taker.available()
    return taker.set_port(value), giver.header()


@few
@given(st.integers(0, 70), st.booleans(), st.sampled_from(MAKERS), steps)
@example(5, False, "foreign", [("enqueue", 1), ("enqueue", 0), ("take", 0)] * 20)
def test_the_same_steps_leave_the_same_bytes_whoever_produces_and_whoever_consumes(
    share: Share, capacity: int, shared: bool, maker: Maker, played: list[Step]
) -> None:
    """Sections 1, 2 and 4: the foreign program fills one queue, machport another, and each empties the other's.

    After each step both queues have given the same answer, and have the same bytes.
    """
    with share(capacity, maker=maker, shared=shared) as one, share(capacity, maker=maker, shared=shared) as other:
        for number, step in enumerate(played):
            answer = play(one.foreign, one.ours, step, number)
            assert play(other.ours, other.foreign, step, number) == answer
            assert one.region() == other.region()


@few
@given(st.integers(0, 40), st.sampled_from(MAKERS), steps)
def test_either_side_does_any_role_at_any_time(share: Share, capacity: int, maker: Maker, played: list[Step]) -> None:
    """Q13: nothing but the memory says where a side stands, so roles may change hands between any two operations."""
    expected: deque[bytes | None] = deque()
    with share(capacity, maker=maker) as pair, share(capacity) as alone:
        sides: list[Side] = [pair.foreign, pair.ours]
        for number, step in enumerate(played):
            giver, taker = sides[number % 2], sides[number * 7 // 3 % 2]
            answer = play(giver, taker, step, number)
            assert play(alone.ours, alone.ours, step, number) == answer
            assert pair.region() == alone.region()
            if isinstance(answer, Enqueued) and answer.code == SUCCESS:
                expected.append(CYCLE[number : number + step[1]] if step[0] == "enqueue" else None)
            elif isinstance(answer, Dequeued) and answer.code == SUCCESS:
                assert expected.popleft() in (None, answer.data)
            elif step[0] == "skip" and answer == SUCCESS:
                expected.popleft()
        assert pair.ours.available() == bool(expected)


# Nonsense


class Twins(NamedTuple):
    """Two queues in the same state, of which the foreign program uses one and machport the other."""

    foreign: Pair
    ours: Pair

    def put(self, head: int, tail: int, ring: bytes) -> None:
        for pair in self:
            pair.move(head, tail)
            pair.write(layout.RING, ring)

    def check(self, size: int, room: int) -> set[int]:
        """Do each operation from the state as it is, and come back to it; the codes, which must be the same."""
        sides: tuple[Side, Side] = self.foreign.foreign, self.ours.ours
        state = self.foreign.region()
        looks = [(side.available(), side.peek()) for side in sides]
        assert looks[0] == looks[1]
        operations: list[Callable[[Side], Enqueued | Dequeued | int]] = [
            lambda side: side.enqueue(CYCLE[7 : 7 + size]),
            lambda side: side.dequeue(room),
            lambda side: side.skip(),
        ]
        codes = set()
        for operation in operations:
            answer = operation(sides[0])
            assert operation(sides[1]) == answer
            changed = self.foreign.region()
            assert self.ours.region() == changed
            if changed != state:
                for pair in self:
                    pair.write(0, state)
            codes.add(answer if isinstance(answer, int) else answer.code)
        return codes


def test_every_head_and_tail_of_a_small_ring_get_the_same_codes_from_both_sides(share: Share) -> None:
    """Q39 to Q41, and the tables of section 4: whatever stands in the fields, and in the middle of entries."""
    codes: set[int] = set()
    for capacity in (3, 13):
        with share(capacity) as one, share(capacity) as other:
            twins = Twins(one, other)
            places = [*range(capacity + 2), U32_MAX]
            for head in places:
                for tail in places:
                    ring = struct.pack("=IBI", (head + tail) % capacity, 2, tail).ljust(capacity, b"\0")
                    twins.put(head, tail, ring[:capacity])
                    codes |= twins.check(size=(3 * head + tail) % 9, room=2)
    assert codes == {SUCCESS, UNDERRUN, OVERRUN, ERROR, NO_SPACE}


@few
@given(st.data())
def test_a_ring_full_of_nonsense_gets_the_same_codes_from_both_sides(share: Share, data: st.DataObject) -> None:
    """Q39 to Q42."""
    capacity = data.draw(st.integers(0, 50), "capacity")
    places = st.one_of(st.integers(0, capacity + 1), st.sampled_from([2**31, U32_MAX - 3, U32_MAX]))
    nearly = st.lists(st.sampled_from([0, 0, 0, 1, 20, 255]), min_size=50, max_size=50).map(bytes)
    rings = st.one_of(st.binary(min_size=50, max_size=50), nearly)
    with share(capacity) as one, share(capacity) as other:
        twins = Twins(one, other)
        for _ in range(6):
            twins.put(data.draw(places, "head"), data.draw(places, "tail"), data.draw(rings, "ring")[:capacity])
            twins.check(data.draw(st.integers(0, 55), "size"), data.draw(st.integers(0, 55), "room"))


# The notification


@pytest.mark.parametrize("producer", MAKERS)
@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("capacity", [40, 41, 42, 43])
def test_the_port_that_the_consumer_sets_is_the_port_that_the_producer_notifies(
    share: Share, capacity: int, maker: Maker, producer: Maker
) -> None:
    """Q16, Q17, Q27 and Q28: a copy of the header, wherever it stands, when the ring was empty and when it is full."""
    with share(capacity, maker=maker) as pair:
        giver, taker = producer_first(pair, producer)
        assert taker.set_port(PORT) == SUCCESS
        header = struct.pack("=6I", 19, 24, PORT, 0, 0, 0)
        assert giver.header() == taker.header() == header
        assert giver.enqueue(b"1") == (SUCCESS, True, header)
        assert giver.enqueue(b"2") == (SUCCESS, False, None)
        assert giver.enqueue(bytes(capacity)) == (OVERRUN, True, header)
        assert taker.set_port(0) == SUCCESS
        assert giver.enqueue(bytes(capacity)) == (OVERRUN, True, None)
        assert [taker.skip() for _ in range(3)] == [SUCCESS, SUCCESS, UNDERRUN]
        assert taker.set_port(U32_MAX) == SUCCESS
        assert giver.enqueue(b"3") == (SUCCESS, True, header[:8] + b"\xff" * 4 + header[12:])


@pytest.mark.parametrize("setter", MAKERS)
def test_either_side_leaves_the_version_and_the_voucher_alone(share: Share, setter: Maker) -> None:
    """Q16; and the producer sends what stands there, as it stands (Q28)."""
    with share(41) as pair:
        taker, giver = producer_first(pair, setter)
        pair.write(12 + 41, b"\xee" * 28)
        before = pair.region()
        assert taker.set_port(PORT) == SUCCESS
        header = struct.pack("=IIII", 19, 24, PORT, 0) + b"\xee" * 4 + bytes(4)
        assert pair.region() == before[: 12 + 41 + 4] + header
        assert giver.enqueue(b"1") == (SUCCESS, True, header)


@pytest.mark.parametrize("maker", MAKERS)
def test_a_plain_queue_takes_no_port_from_either_side(share: Share, maker: Maker) -> None:
    """Q18."""
    with share(40, maker=maker, shared=False) as pair:
        before = pair.region()
        for side in (pair.foreign, pair.ours):
            assert side.header() is None
            assert side.set_port(PORT) == BAD_ARGUMENT
        assert pair.region() == before


def test_a_region_too_short_for_the_appendix_by_one_byte_is_plain_to_both(program: Path) -> None:
    """Q18: 12 + Q + 27 bytes."""
    fd = room_of(12 + 40 + 27, capacity=40)
    with DataQueueMemory.from_fd(fd) as memory, attached(program, fd) as foreign:
        assert not memory.shared
        assert foreign.look() == [40, 0, 0, 0]


def test_a_foreign_producer_wakes_a_consumer_that_waits_at_its_port(self_task: int, share: Share) -> None:
    """Q14, Q15, Q32 to Q34: what it would send is sent for it, by the header that it read from the memory."""
    port = iokit.IODataQueueAllocateNotificationPort()
    mach.mach_port_insert_right(self_task, port, port, mach.MACH_MSG_TYPE_MAKE_SEND)
    sent = list(stream(5, 300, 40))
    taken: list[bytes] = []
    with share(200, maker="foreign") as pair:
        assert iokit.IODataQueueSetNotificationPort(pair.memory, port) == SUCCESS
        pair.foreign.order("produce 300 5 40")
        while not (line := pair.foreign.line()).startswith("done"):
            if line == "full":
                pair.foreign.order("go")
                continue
            code = iokit.MachNotifier().send(bytes.fromhex(line.removeprefix("notify ")))
            assert code == mach.MACH_MSG_SUCCESS
            assert iokit.IODataQueueWaitForAvailableData(pair.memory, port) == mach.MACH_MSG_SUCCESS
            while (answer := pair.ours.dequeue(40)).code == SUCCESS:
                taken.append(answer.data)
            assert answer.code == UNDERRUN
        while (answer := pair.ours.dequeue(40)).code == SUCCESS:
            taken.append(answer.data)
    assert taken == sent


# Both sides at once


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("capacity", [64, 255, 4097])
def test_a_foreign_producer_that_runs_freely_loses_nothing_and_tells_in_time(
    share: Share, capacity: int, maker: Maker
) -> None:
    """Q11, Q27 and Q34: the consumer drains, and sleeps until it is told; each entry comes once, in order."""
    count, largest = 4000, 24
    taken: list[bytes] = []
    with share(capacity, maker=maker) as pair:
        ring = pair.memory.ring
        pair.ours.set_port(PORT)
        pair.foreign.order(f"produce {count} 1 {largest}")
        line = ""
        while not line.startswith("done"):
            while (entry := ring.dequeue()) is not None:
                taken.append(entry)
            assert ring.absence == layout.EMPTY
            line = pair.foreign.line()
            if not line.startswith("notify"):
                # It does nothing more now.  Had it added anything since we found the ring empty, it had told us first.
                assert not ring.data_available()
            if line == "full":
                pair.foreign.order("go")
        assert taken == list(stream(1, count, largest))
        assert line == f"done {checksum(taken):#x}"
        assert pair.foreign.look()[2:] == [ring.head, ring.tail]


@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("capacity", [64, 255, 4097])
def test_a_foreign_consumer_that_runs_freely_is_told_in_time_and_loses_nothing(
    share: Share, capacity: int, maker: Maker, batch: int
) -> None:
    """Q11, Q25 and Q27: it sleeps when the ring is empty, and only what the rules ask for wakes it.

    Entries that machport publishes together are single entries to whoever reads them.
    """
    entries = list(stream(2, 2000, 24))
    with share(capacity, maker=maker) as pair:
        ring = pair.memory.ring
        pair.foreign.order(f"consume {len(entries)}")
        added = 0
        while added < len(entries):
            count, answer = ring.enqueue_many(entries[added : added + batch])
            added += count
            if answer:
                pair.foreign.order("go")
            if answer & layout.FULL:
                assert pair.foreign.line() == "empty"
        line = "empty"
        while line == "empty":
            line = pair.foreign.line()
        assert line == f"done {checksum(entries):#x}"
        assert not pair.ours.available()


def test_a_foreign_producer_notifies_whenever_the_last_entry_was_taken_meanwhile(share: Share) -> None:
    """Q11 and Q27, as narrow as it gets: it writes a second entry while the first, and only one, is taken."""
    rounds = 400
    with share(2**17) as pair, apart(pair.foreign.pid):
        ring = pair.memory.ring
        pair.foreign.order(f"race {rounds} 60000")
        for _ in range(rounds):
            yield_until(lambda: ring.skip() != layout.EMPTY)
            second = ring.skip()
            # One that found it empty sleeps now, and looks again when it is told.
            notifications = int(pair.foreign.line())
            if second == layout.EMPTY:
                assert notifications == 2
                second = ring.skip()
            assert second >= 0


def test_machport_notifies_a_foreign_consumer_whenever_it_took_the_last_entry_meanwhile(share: Share) -> None:
    """Q11, Q25 and Q27, the other way round."""
    rounds = 400
    data = bytes(60_001)
    entries = [data[: number * 7919 % len(data)] for number in range(rounds)]
    with share(2**17) as pair, apart(pair.foreign.pid):
        ring = pair.memory.ring
        pair.foreign.order(f"chase {rounds}")
        notified = []
        for entry in entries:
            first, second = ring.enqueue(b"1"), ring.enqueue(entry)
            assert first | second == layout.WAKE
            notified.append(first + second)
            pair.foreign.order("go")
            yield_until(lambda: not ring.data_available())
        found_empty = [digit == "1" for digit in pair.foreign.line()]
        assert len(found_empty) == rounds
        assert [number for number in range(rounds) if found_empty[number] and notified[number] != 2] == []


def test_what_machport_writes_in_place_a_foreign_consumer_reads(share: Share) -> None:
    """Q26: an entry that is reserved, filled and published is an entry; before that nothing can be seen of it."""
    with share(64) as pair:
        for turn in range(20):
            room = pair.memory.ring.reserve(turn)
            assert room is not None
            room[:] = CYCLE[turn : 2 * turn]
            assert pair.foreign.skip() == UNDERRUN
            pair.memory.ring.commit()
            assert pair.foreign.dequeue(64) == (SUCCESS, turn, CYCLE[turn : 2 * turn])


# Death


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("moment", [1, 20, 60, 150])
def test_a_foreign_producer_that_is_killed_leaves_only_whole_entries(share: Share, maker: Maker, moment: int) -> None:
    """T6 and Q26: what was published is whole and in order, and machport takes over where it ended."""
    taken: list[bytes] = []
    with share(2**21, maker=maker) as pair:
        ring = pair.memory.ring
        pair.foreign.order("produce 1000000 3 4000")
        while len(taken) < moment:  # it is ahead of us, and in the middle of something
            yield_until(ring.data_available)
            taken += ring.dequeue_many(1)
        pair.foreign.kill()
        taken += ring.dequeue_many()
        assert taken == list(stream(3, len(taken), 4000))
        assert pair.ours.dequeue(4000).code == UNDERRUN
        assert pair.ours.enqueue(b"successor").code == SUCCESS
        assert pair.ours.dequeue(4000).data == b"successor"


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("moment", [1, 20, 60, 150])
def test_a_foreign_consumer_that_is_killed_leaves_the_rest_to_who_follows(
    share: Share, maker: Maker, moment: int
) -> None:
    """Q13: head is at an entry's beginning, and every entry from there on is whole."""
    entries = list(stream(4, 900, 4000))
    with share(2**21, maker=maker) as pair:
        ring = pair.memory.ring
        assert ring.enqueue_many(entries)[0] == len(entries)
        pair.foreign.order(f"consume {len(entries)}")
        yield_until(lambda: ring.head > 2000 * moment)
        pair.foreign.kill()
        rest = ring.dequeue_many()
        assert len(rest) < len(entries)
        assert rest == entries[len(entries) - len(rest) :]
        assert pair.ours.dequeue(4000).code == UNDERRUN


@pytest.mark.parametrize("role", ["produce 100 1 30", "consume 1"])
def test_a_foreign_side_that_waits_ends_when_nobody_is_left_to_wake_it(share: Share, role: str) -> None:
    with share(100) as pair:
        pair.foreign.order(role)
        assert pair.foreign.line() in ("full", "empty")
        assert pair.foreign.end() == 1


# Room behind the appendix


def room_of(size: int, capacity: int, rest: bytes = b"") -> int:
    """A memfd of ``size`` bytes for a queue, which ends in ``rest``; the caller owns it."""
    fd = os.memfd_create("room", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.posix_fallocate(fd, 0, size)
    os.pwrite(fd, struct.pack("=I", capacity), 0)
    os.pwrite(fd, rest, size - len(rest))
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
    return fd


@pytest.mark.parametrize("capacity", [40, 41])
def test_a_foreign_program_touches_nothing_behind_the_appendix(program: Path, capacity: int) -> None:
    """Section 1: for it the region ends there, however much memory follows."""
    rest = b"\xee" * 300
    fd = room_of(12 + capacity + 28 + len(rest), capacity, rest)
    try:
        with attached(program, fd) as foreign:
            assert foreign.look() == [capacity, 1, 0, 0]
            foreign.set_port(PORT)
            use_every_place(foreign, foreign, capacity)
            assert os.pread(fd, 1000, 12 + capacity + 28) == rest
    finally:
        os.close(fd)


@pytest.mark.parametrize("producer", MAKERS)
def test_whatever_stands_behind_the_appendix_means_nothing_to_the_queue(program: Path, producer: Maker) -> None:
    fd = room_of(12 + 41 + 28 + 300, 41, b"\xee" * 300)
    with DataQueueMemory.from_fd(fd) as memory, attached(program, fd) as foreign:
        use_every_place(*producer_first(Pair(foreign, Ours(memory), memory), producer), 41)


@pytest.mark.parametrize("producer", MAKERS)
def test_what_rounding_to_pages_added_to_a_foreign_queue_stays_as_it_was(share: Share, producer: Maker) -> None:
    """Section 1: its maker knows of nothing there, and so nobody uses it."""
    with share(41, maker="foreign") as pair:
        for side in (pair.foreign, pair.ours):
            side.set_port(PORT)
        use_every_place(*producer_first(pair, producer), 41)
        assert os.pread(pair.memory.fileno(), mmap.PAGESIZE, 12 + 41 + 28) == bytes(mmap.PAGESIZE - 12 - 41 - 28)


def use_every_place(giver: Side, taker: Side, capacity: int) -> None:
    """Fill the ring to its last byte, and with everything that wraps; try what does not fit."""
    for size in [*range(capacity + 2)] * 2:
        answer = giver.enqueue(CYCLE[:size])
        if answer.code == SUCCESS:
            assert taker.dequeue(size) == (SUCCESS, size, CYCLE[:size])
        else:
            assert answer.code == OVERRUN
            assert taker.skip() == UNDERRUN
