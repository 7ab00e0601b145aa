"""``mach_msg`` as its manual has it: a buffer that is sent from and received into, addresses, a code.

The library's part of the specification of messages: reading and placing out-of-line memory, M32 and M36, and the
server loops.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from machport.abi import constants as c
from machport.abi import message as layout
from machport.abi import traps as t
from machport.abi.errors import InvalidArgument, MachError, error_for
from machport.carrier import packet
from machport.client.calls import Calls
from machport.mach import memory

_MSG = "mach_msg"


def mach_msg(
    calls: Calls,
    msg: bytearray,
    option: int,
    send_size: int,
    rcv_size: int,
    rcv_name: int,
    timeout: int = c.MACH_MSG_TIMEOUT_NONE,
    notify: int = c.MACH_PORT_NULL,
) -> int:
    """Send from and receive into ``msg``; MACH_MSG_SUCCESS.

    Args:
        option: MACH_SEND_MSG, MACH_RCV_MSG and their modifiers; a trailer is asked for in the upper bits.
        rcv_size: bytes of ``msg`` that may be written, trailer included.
        timeout: milliseconds, for the halves whose TIMEOUT bit is set.
        notify: kept for the manual's order of arguments; the options that use it are not Apple's.

    Raises:
        MachError: with the ``mach_msg_return_t``.  After MACH_SEND_TIMED_OUT and MACH_SEND_INTERRUPTED the message
            is back in ``msg`` with the rights it holds now (M19); after MACH_RCV_BODY_ERROR it was received.
    """
    sent, regions = b"", list[bytes | None]()
    if option & c.MACH_SEND_MSG:
        if not 0 <= send_size <= len(msg):
            raise _error(c.MACH_SEND_INVALID_DATA, f"msg has {len(msg)} bytes, not {send_size}")
        sent = bytes(msg[:send_size])
        regions = _read_memory(sent)
    if option & c.MACH_RCV_MSG and not 0 <= rcv_size <= len(msg):
        raise _error(c.MACH_RCV_INVALID_DATA, f"msg has room for {len(msg)} bytes, not {rcv_size}")
    answer = calls.mach_msg(t.MsgTrap(option, sent, regions, max(rcv_size, 0), rcv_name, timeout))
    if sent:
        _release_sent(sent, answer)
    if answer.buffer is not None and _left_in_queue(answer.code, option):
        msg[4:8] = answer.buffer[4:8]
        if option & c.MACH_RCV_LARGE_IDENTITY:
            msg[12:16] = answer.buffer[12:16]
    elif answer.buffer is not None:
        buffer = _place_memory(answer.buffer, answer.memory)
        msg[: len(buffer)] = buffer
    if answer.code:
        raise error_for(
            answer.code,
            call=_MSG,
            task=calls.carrier.label,
            name=_subject(answer.code, sent, rcv_name),
            rule=answer.rule,
        )
    return c.MACH_MSG_SUCCESS


def _error(code: int, says: str) -> MachError:
    return error_for(code, says, call=_MSG)


def _subject(code: int, sent: bytes, rcv_name: int) -> int | None:
    """The name that a failure is about: the destination of a send, or where a receive was tried."""
    if code & 0x4000:
        return rcv_name
    return layout.HEADER.unpack_from(sent)[2] if len(sent) >= layout.HEADER_SIZE else None


def _left_in_queue(code: int, option: int) -> bool:
    """Whether only the size of a message that is too large was asked for, and perhaps its port (M27)."""
    return code == c.MACH_RCV_TOO_LARGE and bool(option & c.MACH_RCV_LARGE)


def _read_memory(message: bytes) -> list[bytes | None]:
    """The regions that a message's descriptors point to, copied now (M10); None for what cannot be taken."""
    regions: list[bytes | None] = []
    room = packet.TRAP_MAX
    for descriptor in layout.parse(message).descriptors:
        if descriptor.type == c.MACH_MSG_PORT_DESCRIPTOR:
            continue
        size = descriptor.size * (4 if descriptor.type == c.MACH_MSG_OOL_PORTS_DESCRIPTOR else 1)
        room -= size
        if room < 0:
            raise _error(
                c.MACH_SEND_NO_BUFFER, f"the regions of a message have {packet.TRAP_MAX} bytes together at most"
            )
        try:
            region: bytes | None = memory.vm_read(descriptor.address, size)
        except InvalidArgument:
            region = None
        if descriptor.deallocate and not memory.is_region(descriptor.address, size):
            region = None
        regions.append(region)
    return regions


def _release_sent(message: bytes, answer: t.MsgAnswer) -> None:
    """Memory that was sent with *deallocate* leaves the sender, be it to come back (M20) or to be lost (M8)."""
    descriptors = layout.parse(message).descriptors
    if answer.code & ~c.MACH_MSG_MASK in (c.MACH_SEND_INVALID_RIGHT, c.MACH_SEND_INVALID_MEMORY):
        descriptors = descriptors[: answer.taken]
    elif answer.code and not answer.code & 0x4000 and answer.buffer is None:
        return
    for descriptor in descriptors:
        if descriptor.type != c.MACH_MSG_PORT_DESCRIPTOR and descriptor.deallocate:
            unit = 4 if descriptor.type == c.MACH_MSG_OOL_PORTS_DESCRIPTOR else 1
            memory.vm_deallocate(descriptor.address, descriptor.size * unit)


def _place_memory(buffer: t.Buffer, regions: object) -> t.Buffer:
    """The received message with addresses of new memory in its descriptors (M29)."""
    size = layout.HEADER.unpack_from(buffer)[1]
    received = layout.parse(buffer[:size])
    if not isinstance(regions, list) or not regions:
        return buffer
    remaining = iter(regions)
    parts = []
    for descriptor in received.descriptors:
        if descriptor.type != c.MACH_MSG_PORT_DESCRIPTOR:
            descriptor = descriptor._replace(address=memory.place(next(remaining)))
        parts.append(descriptor.pack())
    body = b"".join(parts)
    return b"".join((buffer[: layout.BODY_SIZE], body, buffer[layout.BODY_SIZE + len(body) :]))


def mach_msg_destroy(calls: Calls, msg: bytes | bytearray) -> None:
    """Drop the rights and memory of a message that was received, or that was never sent (M32)."""
    size = layout.HEADER.unpack_from(msg)[1]
    message = layout.parse(bytes(msg[:size]))
    task = calls.mach_task_self()
    if message.remote not in (c.MACH_PORT_NULL, c.MACH_PORT_DEAD):
        _drop(calls, task, message.remote, message.remote_disposition)
    regions = []
    for descriptor in message.descriptors:
        if descriptor.type == c.MACH_MSG_PORT_DESCRIPTOR:
            continue
        is_array = descriptor.type == c.MACH_MSG_OOL_PORTS_DESCRIPTOR
        length = descriptor.size * (4 if is_array else 1)
        regions.append(memory.vm_read(descriptor.address, length) if is_array else b"")
        if memory.is_region(descriptor.address, length):
            memory.vm_deallocate(descriptor.address, length)
    for name, disposition in layout.body_rights(message, regions):
        _drop(calls, task, name, disposition)


def _drop(calls: Calls, task: int, name: int, disposition: int) -> None:
    """Give up what a name in a message stands for, by its disposition."""
    with contextlib.suppress(MachError):
        if disposition in (c.MACH_MSG_TYPE_MOVE_SEND, c.MACH_MSG_TYPE_MOVE_SEND_ONCE):
            calls.mach_port_deallocate(task, name)
        elif disposition == c.MACH_MSG_TYPE_MOVE_RECEIVE:
            calls.mach_port_mod_refs(task, name, c.MACH_PORT_RIGHT_RECEIVE, -1)
        elif disposition in (c.MACH_MSG_TYPE_MAKE_SEND, c.MACH_MSG_TYPE_MAKE_SEND_ONCE):
            made, _ = calls.mach_port_extract_right(task, name, disposition)
            calls.mach_port_deallocate(task, made)


def mach_msg_server_once(
    calls: Calls,
    demux: Callable[[bytearray, bytearray], bool],
    max_size: int,
    rcv_name: int,
    options: int = c.MACH_MSG_OPTION_NONE,
) -> None:
    """Receive one request, let ``demux(request, reply)`` fill in the reply, and send it.

    ``demux`` returns whether it knew the request; if not, its rights and memory are dropped.  A reply with remote port
    0 is not sent.
    """
    request = bytearray(max_size)
    mach_msg(calls, request, c.MACH_RCV_MSG | options, 0, max_size, rcv_name)
    reply = bytearray(max_size)
    if not demux(request, reply):
        mach_msg_destroy(calls, request)
        return
    _, size, remote, *_ = layout.HEADER.unpack_from(reply)
    if remote == c.MACH_PORT_NULL:
        return
    try:
        mach_msg(calls, reply, c.MACH_SEND_MSG | c.MACH_SEND_TIMEOUT, size, 0, 0)
    except MachError:
        # The client is gone or does not receive: its loss, and not a reason to stop serving.
        mach_msg_destroy(calls, reply)


def mach_msg_server(
    calls: Calls,
    demux: Callable[[bytearray, bytearray], bool],
    max_size: int,
    rcv_name: int,
    options: int = c.MACH_MSG_OPTION_NONE,
) -> int:
    """Serve requests until receiving fails; the code of that failure."""
    while True:
        try:
            mach_msg_server_once(calls, demux, max_size, rcv_name, options)
        except MachError as error:
            if error.code & ~c.MACH_MSG_MASK == c.MACH_RCV_TOO_LARGE:
                continue
            return error.code
