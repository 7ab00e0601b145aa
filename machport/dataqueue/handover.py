"""How an end of a queue travels: as one descriptor, a socket in which everything that belongs to it waits.

For ``machport.dataqueue.queue``.  Whoever has the descriptor has the end, whichever way it got there; if it is closed
unread, the end is lost, and the holder of the other end sees that.
"""

from __future__ import annotations

import array
import operator
import os
import socket
import struct
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final

from machport.abi import constants as c
from machport.abi.errors import LimitReached, QueueMisuse
from machport.dataqueue import extension
from machport.dataqueue.end import LACKING, End
from machport.dataqueue.memory import DataQueueMemory
from machport.peer import introduction
from machport.peer.introduction import Peer

_MAGIC: Final = b"machport-queue-1"
#: Magic, capacity, which ends as bits, and of the process at the other end: number, generation, length of its label.
_HEAD: Final = struct.Struct("=16sIIIII")
_LABEL_MAX: Final = 256
_DESCRIPTORS_MAX: Final = 4
_CONTROL: Final = socket.CMSG_SPACE(_DESCRIPTORS_MAX * array.array("i").itemsize)


def new_sockets() -> tuple[socket.socket, socket.socket]:
    """The sockets of a new queue's two ends.

    Raises:
        LimitReached: there is no descriptor left.
    """
    try:
        return introduction.new_pair()
    except OSError as error:
        raise no_descriptor(error) from error


def pack(memory: DataQueueMemory, ends: Sequence[End]) -> int:
    """A descriptor in which ``ends`` wait, which are on their way from now on.

    Raises:
        LimitReached: there is no descriptor left; nothing is on its way.
    """
    peer = ends[0].peer if len(ends) == 1 else None
    label = b"" if peer is None else peer.label.encode()[:_LABEL_MAX]
    pid, generation = (0, 0) if peer is None else (peer.pid, peer.generation)
    roles = sum(1 << end.role for end in ends)
    head = _HEAD.pack(_MAGIC, memory.capacity, roles, pid, generation, len(label)) + label
    descriptors = [memory.fileno(), *(end.sock.fileno() for end in ends)]
    if peer is not None and peer.fileno() >= 0:
        descriptors.append(peer.fileno())
    try:
        for end in ends:
            if end.sibling is not None and len(ends) == 1:
                # From now on the other end's holder is a process to this one.
                end.sibling.introduce(end.sibling.generation)
        inside, outside = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with inside, outside:
            inside.sendmsg([head], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))])
            for end in ends:
                end.leave()
            return outside.detach()
    except OSError as error:
        raise no_descriptor(error) from error


def arrived(descriptor: int) -> tuple[DataQueueMemory, list[socket.socket | None], list[Peer | None]]:
    """What waits in a descriptor, which is closed if it is a socket in which something could.

    Returns:
        The memory; and by role the sockets, and the holders of the other ends.

    Raises:
        QueueMisuse: nothing of a queue waits there.
        LimitReached: the memory cannot be mapped now.
    """
    with ExitStack() as undo:
        data, descriptors = _received(descriptor)
        undo.callback(_close_all, descriptors)  # those that nobody has taken out of the list
        if len(data) < _HEAD.size or data[: len(_MAGIC)] != _MAGIC:
            raise QueueMisuse(f"descriptor {descriptor} brought {len(data)} bytes that are no end of a data queue")
        _, capacity, roles, pid, generation, length = _HEAD.unpack_from(data)
        count = roles.bit_count()
        if not 1 <= roles <= 3 or len(descriptors) not in (1 + count, 2 + count):
            raise QueueMisuse(
                f"descriptor {descriptor} brought an end of a data queue with {len(descriptors)} descriptors"
            )
        sockets: list[socket.socket | None] = [None, None]
        peers: list[Peer | None] = [None, None]
        for role in (extension.PRODUCER, extension.CONSUMER):
            if roles >> role & 1:
                sockets[role] = _socket(descriptors.pop(1), undo)
        process = introduction.process_of(descriptors[1]) if count == 1 and len(descriptors) > 1 else None
        if process is not None:
            label = introduction.printable(data[_HEAD.size : _HEAD.size + length])
            # Who sends an end may lie about who has the other one, but the system does not.
            peer = Peer(pid if process < 0 else process, label, generation, descriptors.pop(1), None)
            undo.callback(peer.close)
            peers[roles >> 1] = peer
        memory = DataQueueMemory.from_fd(descriptors[0])
        del descriptors[0]
        if not memory.extended or memory.capacity != capacity:
            memory.close()
            raise QueueMisuse(
                f"the memory that came has a ring of {memory.capacity} bytes and"
                f" {'an' if memory.extended else 'no'} extension; expected {capacity} and an extension"
            )
        undo.pop_all()
        _close_all(descriptors)
        return memory, sockets, peers


def carrier_at(descriptor: int) -> socket.socket:
    """The socket in which an end can wait, which owns the descriptor; what is none stays the caller's.

    Raises:
        QueueMisuse: it is none.
    """
    try:
        carrier = socket.socket(fileno=operator.index(descriptor))
    except (OSError, ValueError, OverflowError) as error:
        raise QueueMisuse(f"descriptor {descriptor} brings no end of a data queue: {error}") from None
    if (carrier.family, carrier.type) != (socket.AF_UNIX, socket.SOCK_SEQPACKET):
        carrier.detach()
        raise QueueMisuse(f"descriptor {descriptor} brings no end of a data queue: it is another kind of socket")
    return carrier


def _received(descriptor: int) -> tuple[bytes, list[int]]:
    with carrier_at(descriptor) as carrier:
        try:
            data, ancillary, _, _ = carrier.recvmsg(
                _HEAD.size + _LABEL_MAX, _CONTROL, socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT
            )
        except OSError as error:
            raise QueueMisuse(f"descriptor {descriptor} brings no end of a data queue: {error.strerror}") from None
    descriptors = introduction.descriptors_of(ancillary)
    if not data and not descriptors:
        raise QueueMisuse("the end of the data queue was taken before, by whoever opened this right or descriptor")
    return data, descriptors


def _socket(descriptor: int, undo: ExitStack) -> socket.socket:
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError as error:
        os.close(descriptor)
        raise QueueMisuse(f"the end of a data queue came without its socket: {error.strerror}") from None
    undo.callback(sock.close)
    if (sock.family, sock.type) != (socket.AF_UNIX, socket.SOCK_SEQPACKET):
        raise QueueMisuse("the end of a data queue came with another kind of socket than it has")
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    return sock


def _close_all(descriptors: list[int]) -> None:
    while descriptors:
        os.close(descriptors.pop())


def no_descriptor(error: OSError) -> LimitReached:
    """What to raise instead; the error itself, if it is about something else."""
    if error.errno not in LACKING:
        raise error
    return LimitReached(f"no descriptor for an end of a data queue: {error.strerror}", code=c.kIOReturnNoResources)
