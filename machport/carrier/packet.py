"""One trap or one answer as a packet of a SOCK_SEQPACKET socket, with descriptors beside it.

A packet is never half there.  What is too long for one goes as a sealed memfd, the first of the descriptors.
"""

from __future__ import annotations

import array
import fcntl
import mmap
import os
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Final

from machport.abi.errors import LimitReached, ProtocolError

#: Longest payload that goes in the packet itself, well below the default socket buffer of 208 KiB.
INLINE_MAX: Final = 64 * 1024
#: The largest message with its regions; what claims to be longer is refused unread.
PAYLOAD_MAX: Final = 256 * 1024 * 1024
#: The longest trap: what brings its message to the receiver may have a few words more.
TRAP_MAX: Final = PAYLOAD_MAX - 4096
#: Descriptors in one packet, the memfd of a long payload included.
DESCRIPTORS_MAX: Final = 4

#: Pieces that are gathered by the system; more of them are joined here.
_PIECES_MAX: Final = 64

_HEAD: Final = struct.Struct("<II")
_LONG: Final = 1
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
_CREDENTIALS: Final = struct.Struct("=iII")
#: Room for as many descriptors as the system lets through: those without room it closes itself, and waits for them.
_CONTROL_SIZE: Final = socket.CMSG_SPACE(253 * array.array("i").itemsize) + socket.CMSG_SPACE(_CREDENTIALS.size)
_SIZE_MAX: Final = _HEAD.size + INLINE_MAX + 1
# As plain numbers: flags would be put together by functions of Python, before and after which handlers of signals run.
_SOCKET: Final = int(socket.SOL_SOCKET)
_RIGHTS: Final = int(socket.SCM_RIGHTS)
_SENDER: Final = int(socket.SCM_CREDENTIALS)
_CLOEXEC: Final = int(socket.MSG_CMSG_CLOEXEC)
_CUT: Final = int(socket.MSG_TRUNC | socket.MSG_CTRUNC)
_QUIET: Final = int(socket.MSG_NOSIGNAL)
_AT_ONCE: Final = int(socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
#: Closes a socket without a function of Python, in which an interrupt could be raised: finalizers would swallow it.
close = socket.SocketType.close

Closing = Callable[[Sequence[int]], object]


def send(sock: socket.socket, payload: bytes, descriptors: Sequence[int] = ()) -> None:
    """Send one packet.

    Raises:
        LimitReached: no memory or descriptor is left for a long payload; nothing was sent.
        BlockingIOError: the socket does not block and the other side does not read.
        OSError: the other side is gone.
    """
    send_parts(sock, (payload,), descriptors)


def send_parts(sock: socket.socket, parts: Sequence[bytes | memoryview], descriptors: Sequence[int] = ()) -> None:
    """Send one packet whose payload is ``parts``, one behind the other.  Raises as ``send`` does."""
    size = sum(map(len, parts))
    if size <= INLINE_MAX:
        _send(sock, [_HEAD.pack(0, size), *parts], descriptors)
        return
    memory = _sealed(parts)
    try:
        _send(sock, [_HEAD.pack(_LONG, size)], [memory, *descriptors])
    finally:
        os.close(memory)


def post(sock: socket.socket, payload: bytes) -> None:
    """Send one short packet without waiting, whatever the socket's own way is.

    Raises:
        BlockingIOError: the other side does not read; nothing was sent.
        OSError: as ``send``.
    """
    sock.sendmsg([_HEAD.pack(0, len(payload)), payload], [], _AT_ONCE)


def _send(sock: socket.socket, data: Sequence[bytes | memoryview], descriptors: Sequence[int]) -> None:
    ancillary = [(_SOCKET, _RIGHTS, array.array("i", descriptors))] if descriptors else []
    if len(data) > _PIECES_MAX:
        data = [b"".join(data)]
    sock.sendmsg(data, ancillary, _QUIET)


def close_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        try:  # noqa: SIM105
            os.close(descriptor)
        except OSError:
            pass


def receive(sock: socket.socket, discard: Closing = close_all) -> tuple[bytes | memoryview, list[int]] | None:
    """The next packet's payload and descriptors, which the caller owns; None at the end of the connection.

    A payload is empty for a wake-up (``ring.waking``).  A long one is a view of its memory, which nobody can write to
    any more.

    Args:
        discard: closes the descriptors of what is not a packet of ours.

    Raises:
        ProtocolError: not a packet of ours; every descriptor that came with it is closed.
        BlockingIOError: the socket does not block and nothing is there.
        OSError: the connection is broken.
    """
    data, ancillary, flags, _ = sock.recvmsg(_SIZE_MAX, _CONTROL_SIZE, _CLOEXEC)
    return _unpack(data, ancillary, flags, discard)


def receive_with_sender(
    sock: socket.socket, discard: Closing = close_all
) -> tuple[bytes | memoryview, list[int], tuple[int, int]] | None:
    """The same with the process and the user that sent it, by a socket that has SO_PASSCRED.

    Raises: as ``receive``; ProtocolError also if the system does not tell who sent it.
    """
    data, ancillary, flags, _ = sock.recvmsg(_SIZE_MAX, _CONTROL_SIZE, _CLOEXEC)
    received = _unpack(data, ancillary, flags, discard)
    if received is None:
        return None
    for level, kind, content in ancillary:
        if (level, kind) == (_SOCKET, _SENDER):
            pid, user, _ = _CREDENTIALS.unpack(content)
            return *received, (pid, user)
    discard(received[1])
    raise ProtocolError("a packet of nobody")


def _unpack(
    data: bytes, ancillary: Sequence[tuple[int, int, bytes]], flags: int, discard: Closing
) -> tuple[bytes | memoryview, list[int]] | None:
    payload: bytes | memoryview
    descriptors = [
        descriptor
        for level, kind, content in ancillary
        if level == _SOCKET and kind == _RIGHTS
        for descriptor in array.array("i", content[: len(content) - len(content) % 4])
    ]
    if not data and not descriptors:
        return None
    try:
        if flags & _CUT or len(descriptors) > DESCRIPTORS_MAX or len(data) < _HEAD.size:
            raise ProtocolError("a packet that is too long, too short, or has too many descriptors")
        kind, length = _HEAD.unpack_from(data)
        if kind == _LONG and descriptors and len(data) == _HEAD.size:
            payload = _read_sealed(descriptors[0], length)
            os.close(descriptors.pop(0))
        elif kind == 0 and len(data) == _HEAD.size + length:
            payload = data[_HEAD.size :]
        else:
            raise ProtocolError(f"a packet of {len(data)} bytes that claims kind {kind} and {length} bytes")
    except BaseException:
        discard(descriptors)
        raise
    return payload, descriptors


def _sealed(parts: Sequence[bytes | memoryview]) -> int:
    try:
        memory = os.memfd_create("machport-message", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError as error:
        raise _no_memory(error) from None
    try:
        for part in parts:
            view = memoryview(part)
            while view:
                view = view[os.write(memory, view) :]
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)
    except OSError as error:
        os.close(memory)
        raise _no_memory(error) from None
    return memory


def _no_memory(error: OSError) -> LimitReached:
    return LimitReached(f"no memory or descriptor is left for a long message: {error.strerror}")


def _read_sealed(memory: int, length: int) -> memoryview:
    try:
        sealed = fcntl.fcntl(memory, fcntl.F_GET_SEALS) & _SEALS == _SEALS
        size = os.fstat(memory).st_size
    except OSError:
        sealed, size = False, -1
    if not sealed or size != length or not INLINE_MAX < length <= PAYLOAD_MAX:
        raise ProtocolError("a long payload that is not sealed memory of the size announced")
    try:
        return memoryview(mmap.mmap(memory, length, prot=mmap.PROT_READ))
    except OSError as error:
        raise ProtocolError(f"a long payload that cannot be mapped: {error.strerror}") from None
