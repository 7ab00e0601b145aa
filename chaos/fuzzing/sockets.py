"""What comes by a socket with descriptors beside it: packets, ends of data queues, and introductions."""

from __future__ import annotations

import array
import contextlib
import os
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Final

from machport import DataQueue
from machport.abi.errors import LimitReached, ProtocolError, QueueMisuse
from machport.carrier import packet
from machport.dataqueue import handover
from machport.peer import introduction

Call = tuple[Callable[[bytes], None], list[bytes]]
#: Inputs after which it is looked at whether a descriptor was left.
_LOOK: Final = 512
_FILES: Final = 5
_LONG: Final = packet.INLINE_MAX + 8
_LONGEST: Final = packet.INLINE_MAX + 64


class _Files:
    """Descriptors of all sorts, some of which are what they should be; an input begins with which it takes."""

    def __init__(self, *fitting: int) -> None:
        reading, writing = os.pipe()
        ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._kept = (ends, other, writing)
        unsealed = os.memfd_create("unsealed")
        os.ftruncate(unsealed, _LONG)
        self._all = [
            *fitting,
            packet._sealed([bytes(_LONG)]),
            unsealed,
            reading,
            ends[0].fileno(),
            other[0].fileno(),
            os.pidfd_open(os.getpid()),
            os.open("/", os.O_RDONLY),
        ]
        self._count = 0
        self._open = -1

    def choose(self, data: bytes) -> tuple[list[int], bytes]:
        """Files for an input, and the bytes that go with them."""
        count = data[0] % (_FILES + 1) if data else 0
        chosen = [self._all[byte % len(self._all)] for byte in data[1 : 1 + count]]
        return chosen, data[1 + count :]

    @contextlib.contextmanager
    def none_left(self) -> Iterator[None]:
        """In the block, no descriptor may be left open."""
        self._count += 1
        look = self._count % _LOOK == 0
        yield
        if look:
            now = len(os.listdir("/proc/self/fd"))
            assert now == self._open or self._open < 0, f"{self._open} descriptors became {now}"
            self._open = now


def _send(sock: socket.socket, data: bytes, files: list[int]) -> bool:
    """Write one packet; whether the system took it."""
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))] if files else []
    try:
        sock.sendmsg([data], ancillary)
    except OSError:
        return False
    return True


def new_packets() -> Call:
    """One packet, as daemon and client receive it."""
    sealed = packet._sealed([bytes(_LONG)])
    return _Packets(_Files(sealed)).call, [
        bytes([0]) + struct.pack("<II", 0, 4) + b"\1\0\0\0",
        bytes([0]) + bytes(8),
        bytes([2, 0, 3]) + struct.pack("<II", 0, 4) + bytes(4),
        bytes([1, 0]) + struct.pack("<II", 1, _LONG),
        bytes([3, 0, 1, 2]) + struct.pack("<II", 1, _LONG),
        bytes([1, 2]) + struct.pack("<II", 1, _LONG),
        bytes([5, 0, 1, 2, 3, 4]) + struct.pack("<II", 0, 0),
    ]


class _Packets:
    def __init__(self, files: _Files) -> None:
        self._files = files
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.setblocking(False)

    def call(self, data: bytes) -> None:
        with self._files.none_left():
            files, rest = self._files.choose(data)
            if rest and _send(self._theirs, rest, files):
                self._receive(len(rest))

    def _receive(self, size: int) -> None:
        """In a function of its own: a long payload is a mapping, which has a descriptor as long as it is known here."""
        try:
            received = packet.receive(self._ours)
        except ProtocolError:
            return
        assert received is not None
        payload, descriptors = received
        assert len(payload) <= max(size, _LONG)
        assert len(descriptors) <= packet.DESCRIPTORS_MAX
        packet.close_all(descriptors)


def new_queue_ends() -> Call:
    """What waits in a descriptor from which an end of a data queue is to be taken."""
    ends = _QueueEnds()
    return ends.call, ends.seeds


class _QueueEnds:
    def __init__(self) -> None:
        self._queue = queue = DataQueue(400)
        self._sockets = handover.new_sockets()
        self._files = _Files(queue.memory.fileno(), self._sockets[0].fileno(), self._sockets[1].fileno())
        self.seeds = []
        for files, roles in (((0, 1), 1), ((0, 2), 2), ((0, 1, 2), 3), ((0, 1, 8), 1)):
            head = handover._HEAD.pack(handover._MAGIC, queue.capacity, roles, os.getpid(), 1, 4) + b"name"
            self.seeds.append(bytes((len(files), *files)) + head)

    def call(self, data: bytes) -> None:
        with self._files.none_left():
            files, rest = self._files.choose(data)
            inside, outside = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with inside:
                if not _send(inside, rest, files):
                    outside.close()
                    return
            try:
                memory, sockets, peers = handover.arrived(outside.detach())
            except (QueueMisuse, LimitReached):
                return
            memory.close()
            for sock in sockets:
                if sock is not None:
                    sock.close()
            for peer in peers:
                if peer is not None:
                    repr(peer)
                    peer.close()


def new_introductions() -> Call:
    """Packets from the holder of the other end of a queue."""
    introductions = _Introductions()
    return introductions.call, introductions.seeds


class _Introductions:
    def __init__(self) -> None:
        self._ours, self._theirs = introduction.new_pair()
        pidfd = os.pidfd_open(os.getpid())
        self._files = _Files(pidfd)
        head = introduction._HEAD.pack(b"machport", 1, 3, 1, 0xFFFFFFFF) + b"label"
        lined = introduction._HEAD.pack(b"machport", 1, 3, 0, 0) + b"label"
        self.seeds = [bytes([1, 0]) + head, bytes([2, 0, 1]) + lined, bytes([2, 0, 2]) + lined, bytes([0]) + bytes(8)]

    def call(self, data: bytes) -> None:
        with self._files.none_left():
            files, rest = self._files.choose(data)
            if not rest or not _send(self._theirs, rest, files):
                return
            heard = introduction.listen(self._ours)
            assert heard.packets <= 1 and not heard.ended
            if heard.peer is not None:
                assert heard.peer.label.isprintable()
                heard.peer.is_dead()
                heard.peer.close()
