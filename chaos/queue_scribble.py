"""Whatever the other side writes, every operation returns data or a MachError within its time-out, touches nothing
outside the mapping, and leaks no descriptor.

The other side is a process that has an end of the queue, and a copy of the socket of its victim's end as whoever handed
that over may have kept one.  It writes random and tempting values into every word of the shared memory, and sends
garbage, floods, wrong descriptors and introductions of others; sometimes it dies.  The victim tries every operation,
and opens carriers that bring garbage.  Pages that nobody may touch stand around its mapping, and canaries between the
words.  A third process sees to it that the victim goes on.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import fcntl
import mmap
import os
import random
import resource
import select
import signal
import socket
import struct
import time
from collections.abc import Callable
from typing import Any, Final

from chaos.processes import Child, descriptors, state_of
from chaos.report import Report
from machport import DataQueue
from machport.abi.errors import MachError
from machport.dataqueue import DataQueueMemory, extension, memory
from machport.dataqueue.handover import carrier_at
from machport.peer import introduction
from machport.ring import layout, map_shared

#: Seconds, unless told otherwise.
AMOUNT: Final = 120.0
UNIT: Final = "seconds"
#: Seconds without any operation coming back after which the victim counts as hanging.  No time-out comes near.
PATIENCE: Final = 8.0
#: Seconds of one queue.
EPISODE: Final = 0.25
#: Such that the extension ends where a page does.
CAPACITY: Final = 2 * mmap.PAGESIZE - extension.SIZE - 64
_SO_PASSPIDFD: Final = 76
_U32: Final = struct.Struct("=I")
_HANDOVER: Final = struct.Struct("=16sIIIII")
_INTRODUCTION: Final = struct.Struct("=8sIIII")
_MAGIC: Final = b"machport-queue-1"
#: In the extension, where neither side writes.
_CANARIES: Final = tuple(
    (word + (8 if word + 4 == extension.WANTED else 4), word + 64) for word in (*extension.SIGN, *extension.BELL)
)
_CANARY: Final = 0xA5
_OPERATIONS, _EPISODES, _GUARDS = range(3)


def run(report: Report) -> None:
    """Let one process torment another."""
    seed = report.seed
    end = time.monotonic() + report.amount
    tally = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("Q")
    while time.monotonic() < end and len(report.anomalies) < 10:
        left = end - time.monotonic()
        with Child(lambda left=left, seed=seed: _suffer(left, seed, tally)) as victim:  # type: ignore[misc]
            fault = _watch(victim, tally)
        if fault is not None:
            report.anomaly(f"seed {seed}: {fault}")
        seed += 1_000_003
    for what, number in ("queues", _EPISODES), ("operations", _OPERATIONS), ("guard pages", _GUARDS):
        report.figure(what, tally[number])


def _watch(victim: Child, tally: memoryview) -> str | None:
    before, since = -1, time.monotonic()
    while not select.select([victim.pidfd], [], [], 0.1)[0]:
        now = time.monotonic()
        if tally[_OPERATIONS] != before:
            before, since = tally[_OPERATIONS], now
        elif now - since > PATIENCE:
            return f"an operation hangs: {state_of(victim.pid)}"
    status = victim.wait()
    return None if status == 0 else f"the victim ended with {os.waitstatus_to_exitcode(status)}"


# The victim


def _suffer(seconds: float, seed: int, tally: memoryview) -> None:
    end = time.monotonic() + seconds
    chance = random.Random(seed)
    baseline = -1
    while time.monotonic() < end:
        _episode(chance, tally, min(EPISODE, end - time.monotonic()))
        for _ in range(20):
            _open_garbage(chance)
            tally[_OPERATIONS] += 1
        now = descriptors()
        if baseline >= 0 and now != baseline:
            raise AssertionError(f"{baseline} descriptors became {now}: {_listed()}")
        baseline = now
        tally[_EPISODES] += 1


def _listed() -> list[str]:
    names = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            names.append(f"{number}: {os.readlink(f'/proc/self/fd/{number}')}")
    return names


def _episode(chance: random.Random, tally: memoryview, seconds: float) -> None:
    """One queue and one tormentor."""
    role = chance.choice((extension.PRODUCER, extension.CONSUMER))
    seed = chance.randrange(1 << 32)
    queue = _apart()
    sock = _socket_of(queue, role)
    descriptor = queue.detach_consumer() if role == extension.PRODUCER else queue.detach_producer()
    with contextlib.ExitStack() as stack:
        stack.callback(queue.close)
        stack.enter_context(Child(lambda: _torment(descriptor, sock, seed)))
        os.close(descriptor)
        sock.close()
        region = queue.memory.mapping
        tally[_GUARDS] += _guard(region, stack)
        start = extension.place(CAPACITY)
        for first, last in _CANARIES:
            region[start + first : start + last] = bytes([_CANARY]) * (last - first)
        end = time.monotonic() + seconds
        operations = PRODUCE if role == extension.PRODUCER else CONSUME
        kept: list[Any] = []
        most = descriptors() + 12
        while time.monotonic() < end:
            for _ in range(50):
                operation = chance.choice(operations)
                with contextlib.suppress(MachError):
                    operation(queue, chance, kept)
                tally[_OPERATIONS] += 1
            assert descriptors() <= most, _listed()
            for first, last in _CANARIES:
                assert region[start + first : start + last] == bytes([_CANARY]) * (last - first), f"canary {first}"
        kept.clear()
        del region


def _apart() -> DataQueue:
    """A queue whose mapping has nothing beside it: it was between two that are gone."""
    original = map_shared
    others = dict[int, mmap.mmap]()

    def map_between(descriptor: int, size: int) -> mmap.mmap:
        for _ in range(50):
            mapping = original(descriptor, size)
            others[_address(mapping)] = mapping
        between = (start for start in others if start - size in others and start + size in others)
        return others.pop(next(between, _address(mapping)))

    setattr(memory, "map_shared", map_between)  # noqa: B010
    try:
        queue = DataQueue(CAPACITY)
    finally:
        setattr(memory, "map_shared", original)  # noqa: B010
    for other in others.values():
        other.close()
    return queue


def _address(mapping: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(mapping))


def _socket_of(queue: DataQueue, role: int) -> socket.socket:
    """A copy of the socket of an end, as whoever handed it over may keep one."""
    carrier = queue.pack((role,))
    with socket.socket(fileno=carrier) as outside:
        _, descriptors, _, _ = socket.recv_fds(outside, 1024, 8)
    queue.keep((role,))
    kept = socket.socket(fileno=descriptors.pop(1))
    for descriptor in descriptors:
        os.close(descriptor)
    return kept


def _guard(region: mmap.mmap, stack: contextlib.ExitStack) -> int:
    """Lay pages that nobody may touch around a mapping, where nothing else is; how many."""
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
    libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    anonymous_here_or_nowhere = 0x02 | 0x20 | 0x100000
    start = _address(region)
    count = 0
    for place in (start - mmap.PAGESIZE, start + len(region)):
        if libc.mmap(place, mmap.PAGESIZE, 0, anonymous_here_or_nowhere, -1, 0) == place:
            stack.callback(libc.munmap, place, mmap.PAGESIZE)
            count += 1
    return count


def _timeout(chance: random.Random) -> float:
    return chance.choice((0, 0, 0, 0.0001, 0.002))


def _size(chance: random.Random) -> int:
    return chance.choice((0, 1, 5, 100, 1000, CAPACITY - 4, CAPACITY, CAPACITY + 50))


def _seen(entry: bytes | memoryview) -> None:
    assert len(bytes(entry)) <= CAPACITY - layout.ENTRY_HEADER_SIZE


def _dequeue(queue: DataQueue, chance: random.Random, kept: list[Any]) -> None:
    _seen(queue.dequeue(_timeout(chance)))


def _dequeue_many(queue: DataQueue, chance: random.Random, kept: list[Any]) -> None:
    for entry in queue.dequeue_many(chance.choice((1, 3, 1 << 40)), _timeout(chance)):
        _seen(entry)


def _dequeue_into(queue: DataQueue, chance: random.Random, kept: list[Any]) -> None:
    assert queue.dequeue_into(bytearray(_size(chance)), _timeout(chance)) <= CAPACITY


def _peek(queue: DataQueue, chance: random.Random, kept: list[Any]) -> None:
    with queue.peek(_timeout(chance)) as entry:
        _seen(entry)
        if chance.randrange(3) == 0:
            raise MachError("so that it stays")


def _take_view(queue: DataQueue, chance: random.Random, kept: list[Any]) -> None:
    kept.append(queue.take_view(_timeout(chance)))
    _seen(kept[-1])


def _drop_views(queue: DataQueue, chance: random.Random, kept: list[Any]) -> None:
    for view in kept:
        _seen(view)
    chance.shuffle(kept)
    del kept[chance.randrange(3) :]


def _wait(queue: DataQueue, chance: random.Random, kept: list[Any]) -> None:
    queue.wait(_timeout(chance))


def _ask(queue: DataQueue, chance: random.Random, kept: list[Any]) -> None:
    statistics = queue.statistics()
    assert 0 <= statistics.used <= CAPACITY
    assert 0 <= statistics.peak <= CAPACITY
    assert 0 <= statistics.entries <= CAPACITY // layout.ENTRY_HEADER_SIZE
    assert str(queue.peer).isprintable()
    if queue.is_consumer:
        queue.data_available()


def _fileno(queue: DataQueue, chance: random.Random, kept: list[Any]) -> None:
    if chance.randrange(20) == 0:
        descriptor = queue.fileno() if queue.is_consumer else queue.room_fileno(_size(chance))
        select.select([descriptor], [], [], _timeout(chance))


def _enqueue(queue: DataQueue, chance: random.Random, kept: list[Any]) -> None:
    queue.enqueue(bytes(_size(chance)), _timeout(chance))


def _enqueue_many(queue: DataQueue, chance: random.Random, kept: list[Any]) -> None:
    queue.enqueue_many([bytes(_size(chance)) for _ in range(3)], _timeout(chance))


def _reserve(queue: DataQueue, chance: random.Random, kept: list[Any]) -> None:
    with queue.reserve(_size(chance), _timeout(chance)) as room:
        room[:] = bytes(len(room))


def _wait_for_room(queue: DataQueue, chance: random.Random, kept: list[Any]) -> None:
    queue.wait_for_room(_size(chance), _timeout(chance))


def _notify(queue: DataQueue, chance: random.Random, kept: list[Any]) -> None:
    queue.notify_by(chance.choice((None, lambda: True, lambda: False)))


Operation = Callable[[DataQueue, random.Random, list[Any]], None]
CONSUME: Final[tuple[Operation, ...]] = (
    _dequeue,
    _dequeue_many,
    _dequeue_into,
    _peek,
    _take_view,
    _drop_views,
    _wait,
    _ask,
    _fileno,
)
PRODUCE: Final[tuple[Operation, ...]] = (_enqueue, _enqueue_many, _reserve, _wait_for_room, _notify, _ask, _fileno)


# Carriers that bring garbage


def _open_garbage(chance: random.Random) -> None:
    """Open a carrier; if it brings something like a queue, use that."""
    carrier = _carrier(chance)
    try:
        carrier_at(carrier).detach()
    except MachError:
        # Not even a socket of that kind: it stays ours.
        os.close(carrier)
        return
    with contextlib.suppress(MachError), DataQueue.from_fd(carrier) as queue:
        operations = (PRODUCE if queue.is_producer else ()) + (CONSUME if queue.is_consumer else ())
        kept: list[Any] = []
        for _ in range(10):
            with contextlib.suppress(MachError):
                chance.choice(operations)(queue, chance, kept)


def _carrier(chance: random.Random) -> int:
    kind = chance.randrange(12)
    if kind == 0:
        return os.memfd_create("garbage")
    if kind == 1:
        return os.open("/dev/null", os.O_RDONLY)
    if kind == 2:
        return socket.socket(chance.choice((socket.AF_UNIX, socket.AF_INET))).detach()
    inside, outside = socket.socketpair(
        socket.AF_UNIX, chance.choice((*[socket.SOCK_SEQPACKET] * 9, socket.SOCK_DGRAM, socket.SOCK_STREAM))
    )
    with inside, contextlib.ExitStack() as stack:
        for option in (socket.SO_PASSCRED, _SO_PASSPIDFD):
            if chance.randrange(4) == 0:
                with contextlib.suppress(OSError):
                    outside.setsockopt(socket.SOL_SOCKET, option, 1)
        for _ in range(chance.randrange(3)):
            things = [_thing(chance) for _ in range(chance.choice((0, 1, 2, 3, 3, 3, 4, 5, 20)))]
            if things and chance.randrange(4):
                os.close(things[0])
                things[0] = _region(chance)
            if len(things) > 1 and chance.randrange(4):
                os.close(things[1])
                things[1] = _end_socket(stack)
            roles = chance.choice((0, 1, 2, 1, 2, 3, 4, 1 << 31, 7))
            capacity = chance.choice((CAPACITY, CAPACITY, CAPACITY, 0, 100, 2**32 - 1))
            label = chance.randbytes(chance.choice((0, 3, 200)))
            length = chance.choice((len(label), 0, 2**32 - 1))
            head = _HANDOVER.pack(_MAGIC, capacity, roles, _number(chance), _number(chance), length) + label
            if chance.randrange(6) == 0:
                head = chance.randbytes(chance.randrange(60))
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", things))] if things else []
            with contextlib.suppress(OSError):
                inside.sendmsg([head], rights, socket.MSG_DONTWAIT)
            for thing in things:
                os.close(thing)
        return outside.detach()


def _number(chance: random.Random) -> int:
    return chance.choice((0, 1, chance.randrange(1 << 32), 2**31, 2**32 - 1))


def _thing(chance: random.Random) -> int:
    """A descriptor of any kind."""
    kind = chance.randrange(7)
    if kind == 0:
        read, write = os.pipe()
        os.close(chance.choice((read, write)))
        return next(one for one in (read, write) if _is_open(one))
    if kind == 1:
        return os.memfd_create("garbage")
    if kind == 2:
        return os.pidfd_open(chance.choice((os.getpid(), os.getppid(), 1)))
    if kind == 3:
        return _page(chance)
    if kind == 4:
        return os.open(chance.choice(("/proc/self/mem", "/dev/zero", "/proc/self/fdinfo/0", ".")), os.O_RDONLY)
    if kind == 5:
        return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).detach()
    return _region(chance)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _page(chance: random.Random) -> int:
    """Something like a lifeline."""
    page = os.memfd_create("garbage", os.MFD_ALLOW_SEALING)
    os.posix_fallocate(page, 0, chance.choice((mmap.PAGESIZE, mmap.PAGESIZE, 2 * mmap.PAGESIZE)))
    os.pwrite(page, _U32.pack(chance.choice((0, 0x80000001, 0xFFFFFFFF, 0xC0000001))), 0)
    with contextlib.suppress(OSError):
        fcntl.fcntl(page, fcntl.F_ADD_SEALS, chance.choice((2, 4, 6, 7, 15)))
    return page


def _region(chance: random.Random) -> int:
    """Something like a queue's memory."""
    if chance.randrange(3):
        with DataQueueMemory.with_capacity(CAPACITY, extended=chance.randrange(4) > 0) as region:
            for _ in range(20):
                place = chance.choice((0, 4, 8, 12, chance.randrange(region.size // 4 - 1) * 4))
                region.mapping[place : place + 4] = _U32.pack(_tempting(chance))
            if chance.randrange(2):
                region.mapping[0:4] = _U32.pack(CAPACITY)
            return os.dup(region.fileno())
    other = os.memfd_create("garbage", os.MFD_ALLOW_SEALING)
    os.ftruncate(other, chance.choice((0, 11, 12, 4096, 1 << 33)))
    with contextlib.suppress(OSError):
        fcntl.fcntl(other, fcntl.F_ADD_SEALS, chance.choice((1, 7, 15)))
    return other


def _end_socket(stack: contextlib.ExitStack) -> int:
    ours, theirs = introduction.new_pair()
    stack.enter_context(ours)
    ours.send(bytes(8))
    return theirs.detach()


# The tormentor


def _torment(descriptor: int, sock: socket.socket, seed: int) -> None:
    """Write and send what is bad until it is killed."""
    chance = random.Random(seed)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    mine = DataQueue.from_fd(descriptor)
    own = [os.dup(end) for end in _sockets()]
    socks = [sock, *(socket.socket(fileno=one) for one in own)]
    region = mine.memory.mapping
    words = memoryview(region).cast("B")[: len(region) // 4 * 4].cast("I")
    start = extension.place(CAPACITY)
    targets = [
        layout.HEAD // 4,
        layout.TAIL // 4,
        layout.HEAD // 4,
        layout.TAIL // 4,
        layout.QUEUE_SIZE // 4,
        layout.RING // 4,
        *((start + offset) // 4 for offset in (*extension.SIGN, *extension.BELL)),
    ]
    style = chance.random()
    while True:
        for _ in range(chance.choice((1, 100))):
            words[chance.choice(targets)] = _tempting(chance)
        if chance.randrange(4) == 0:
            # Looks like an honest empty or full ring, so that the victim sleeps, or finds many entries.
            words[1], words[2] = chance.choice(((0, 0), (0, CAPACITY), (100, 100), (0, CAPACITY // 2)))
            words[start // 4 + extension.SIGN[0] // 4] = chance.choice((1, 1, 2, 5))
            words[start // 4 + extension.SIGN[1] // 4] = chance.choice((1, 1, 2, 5))
        words[chance.randrange(3, 3 + CAPACITY // 4)] = _tempting(chance)
        place = layout.RING + CAPACITY + chance.randrange(layout.MEMORY_APPENDIX_SIZE)
        region[place] = chance.randrange(256)
        if chance.random() < style:
            with contextlib.suppress(OSError):
                _send_garbage(chance, chance.choice(socks))
        kind = chance.randrange(2000)
        if kind == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        elif kind == 1:
            with contextlib.suppress(OSError):
                chance.choice(socks).shutdown(chance.choice((socket.SHUT_RD, socket.SHUT_WR)))
        elif kind < 10:
            time.sleep(0.002)


def _sockets() -> list[int]:
    found = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{number}").startswith("socket:"):
                found.append(int(number))
    return found


def _tempting(chance: random.Random) -> int:
    near = (0, 1, 3, 4, CAPACITY - 5, CAPACITY - 4, CAPACITY - 3, CAPACITY, CAPACITY + 1, 2**31, 2**32 - 5, 2**32 - 1)
    return chance.choice((chance.randrange(CAPACITY + 1), chance.choice(near), chance.randrange(8)))


def _send_garbage(chance: random.Random, sock: socket.socket) -> None:
    kind = chance.randrange(8)
    if kind == 0:
        for _ in range(chance.choice((1, 3000))):
            sock.send(bytes(8), socket.MSG_DONTWAIT)
    elif kind == 1:
        sock.send(chance.randbytes(chance.choice((0, 1, 8, 23, 24, 88, 5000))), socket.MSG_DONTWAIT)
    elif kind == 2:
        sock.setsockopt(socket.SOL_SOCKET, chance.choice((_SO_PASSPIDFD, socket.SO_PASSCRED)), chance.randrange(2))
    elif kind == 3:
        sock.recv(1, socket.MSG_DONTWAIT)
    else:
        things = [_thing(chance) for _ in range(chance.choice((0, 1, 2, 2, 2, 3, 6)))]
        if things and chance.randrange(3):
            os.close(things[0])
            things[0] = os.pidfd_open(chance.choice((os.getpid(), os.getpid(), os.getppid())))
        if len(things) > 1 and chance.randrange(2):
            os.close(things[1])
            things[1] = _page(chance)
        magic = chance.choice((b"machport", b"machport", b"machport", b"garbage!"))
        body = _INTRODUCTION.pack(
            magic,
            chance.choice((1, 1, 1, 2)),
            _number(chance) % 3,
            chance.randrange(2),
            chance.choice((0, 0, 4, 5, 4096)),
        )
        body = (body + chance.randbytes(chance.choice((0, 5, 64))))[: chance.choice((100, 100, 100, 20))]
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", things))] if things else []
        try:
            sock.sendmsg([body], rights, socket.MSG_DONTWAIT)
        finally:
            for thing in things:
                os.close(thing)
