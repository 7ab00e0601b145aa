"""A message into a task: rights become the receiver's bytes (the specification of messages, sections 5 and 6).

Also the way back: a message that is given back to its sender, and one that its receiver did not live to see.
"""

from __future__ import annotations

from collections.abc import Sequence

from machport.abi import constants as c
from machport.abi import message as layout
from machport.abi import words
from machport.kernel.counts import memory_size
from machport.kernel.kernel import Kernel
from machport.kernel.message import Message
from machport.kernel.port import DEAD, Port
from machport.kernel.queueing import received_size, serve
from machport.kernel.refusal import Refusal
from machport.kernel.release import clean_message, release_right, release_send
from machport.kernel.rights import copyin, copyout, copyout_or_destroy, has_right_for, is_nameless
from machport.kernel.space import Space
from machport.kernel.task import Task
from machport.kernel.waiter import Result, new_result


def copyout_message(
    kernel: Kernel, space: Space, port: Port, message: Message, option: int, is_too_large: bool
) -> Result:
    """Enter a message that has left the queue of ``port`` into its receiver's space (section 6).

    Args:
        is_too_large: it does not fit the receiver's buffer, and is destroyed (M27).
    """
    code = c.MACH_RCV_TOO_LARGE if is_too_large else 0
    remote = c.MACH_PORT_NULL
    if not code:
        try:
            remote = copyout(space, message.local, message.local_type)
        except Refusal:
            code = c.MACH_RCV_HEADER_ERROR | c.MACH_MSG_IPC_SPACE
    local = _consume_destination(kernel, space, message)
    result = new_result(0)
    bits = message.local_type | message.remote_type << 8
    length = words.HEADER_SIZE
    trailer = words.MIN_TRAILER
    if code:
        remote = _destroy_on_reception(kernel, message)
    else:
        trailer = layout.trailer_size(option) or words.MIN_TRAILER
        result.received = message
        result.inline = message.inline
        length += len(message.inline)
        if message.items is not None:
            bits |= c.MACH_MSGH_BITS_COMPLEX
            result.head, shortages = _copyout_body(kernel, space, message, result)
            length += len(result.head)
            if shortages:
                code = c.MACH_RCV_BODY_ERROR | shortages
    header = words.pack_header(bits, received_size(kernel, message), remote, local, message.voucher, message.id)
    result.head = header if result.head is None else header + result.head
    context = port.context if port.receiver is space else 0
    result.tail = words.pack_tail(-length & 3, trailer, message.seqno, message.tokens, context)
    result.port = port
    if code:
        result.code = code
        result.rule = "M27"
    return result


def _consume_destination(kernel: Kernel, space: Space, message: Message) -> int:
    """The right that a message was sent to is used up by receiving it; its receiver's name for the port (M23-M25)."""
    port = message.remote
    assert port is not None
    message.remote = None
    if not port.active:
        return c.MACH_PORT_DEAD
    here = port.receiver is space
    name = port.name if here else c.MACH_PORT_NULL
    if message.remote_type == c.MACH_MSG_TYPE_PORT_SEND:
        release_send(kernel, port)
    elif here:
        port.sorights -= 1
    else:
        release_right(kernel, port, message.remote_type)
    return name


def _destroy_on_reception(kernel: Kernel, message: Message) -> int:
    """Reply right and body are released one by one; the remote port that the receiver sees (M27)."""
    reply, message.local = message.local, None
    release_right(kernel, reply, message.local_type)
    clean_message(kernel, message)
    return c.MACH_PORT_DEAD if reply is DEAD else c.MACH_PORT_NULL


def _copyout_body(kernel: Kernel, space: Space, message: Message, result: Result) -> tuple[bytes, int]:
    """The bytes of the descriptors with their count, and shortage bits.  Never stops early (M28).

    The regions become the result's memory.
    """
    assert message.items is not None
    parts = [layout.COUNT.pack(len(message.items))]
    memory: list[bytes] = []
    shortages = 0
    for item in message.items:
        descriptor = item.descriptor
        kind = descriptor.type
        names = []
        for port in item.ports:
            name, bits = copyout_or_destroy(kernel, space, port, item.type)
            names.append(name)
            shortages |= bits
        if kind == c.MACH_MSG_PORT_DESCRIPTOR:
            parts.append(layout.PORT_DESCRIPTOR.pack(names[0], 0, 0, item.type, kind))
        else:
            is_array = kind == c.MACH_MSG_OOL_PORTS_DESCRIPTOR
            region = b"".join([name.to_bytes(4, "little") for name in names]) if is_array else item.memory
            memory.append(region)
            virtual = is_array or descriptor.copy == c.MACH_MSG_VIRTUAL_COPY
            address = len(memory) if region else 0
            parts.append(
                layout.MEMORY_DESCRIPTOR.pack(address, int(virtual), descriptor.copy, item.type, kind, descriptor.size)
            )
    result.memory = memory
    return b"".join(parts), shortages


def copyout_pseudo(kernel: Kernel, space: Space, message: Message, code: int) -> Result:
    """Give a message back to its sender: not swapped, without a trailer (M18-M21)."""
    remote, remote_bits = copyout_or_destroy(kernel, space, message.remote, message.remote_type)
    local, local_bits = copyout_or_destroy(kernel, space, message.local, message.local_type)
    result = new_result(code | remote_bits | local_bits, "M18")
    result.inline = message.inline
    bits = message.remote_type | message.local_type << 8
    body = b""
    if message.items is not None:
        bits |= c.MACH_MSGH_BITS_COMPLEX
        body, body_bits = _copyout_body(kernel, space, message, result)
        result.code |= body_bits
    header = words.pack_header(bits, received_size(kernel, message), remote, local, message.voucher, message.id)
    result.head = header + body
    return result


def take_back(kernel: Kernel, task: Task, result: Result) -> None:
    """Undo a reception whose receiver ended before it saw the message, which is next in its queue again.

    The driver calls this before it terminates the task: a crash loses nothing that was not received.  Nothing happens
    if the task gave up the receive right meanwhile.
    """
    message, port = result.received, result.port
    assert result.head is not None and message is not None and port is not None
    space = task.space
    given = layout.parse(result.head)
    if not space.active or port.receiver is not space:
        return
    message.remote = port
    if message.remote_type == c.MACH_MSG_TYPE_PORT_SEND:
        port.srights += 1
    else:
        port.sorights += 1
    message.local = _retake(kernel, space, given.remote, message.local_type)
    regions = iter(result.memory)
    for item, descriptor in zip(message.items or (), given.descriptors, strict=True):
        names: Sequence[int] = ()
        if descriptor.type == c.MACH_MSG_PORT_DESCRIPTOR:
            names = (descriptor.name,)
        elif descriptor.type == c.MACH_MSG_OOL_PORTS_DESCRIPTOR:
            names = memoryview(next(regions)).cast("I")
        else:
            next(regions)
        item.ports = [_retake(kernel, space, name, item.type) for name in names]
        for right in item.ports:
            if item.type == c.MACH_MSG_TYPE_PORT_RECEIVE and right is not None and right.active:
                right.destination = port
    port.push_back(message)
    kernel.counts.queued += 1
    kernel.counts.received -= 1
    kernel.counts.received_bytes -= message.size() + memory_size(message)
    serve(kernel, port)


def _retake(kernel: Kernel, space: Space, name: int, kind: int) -> Port | None:
    """A right that a reception entered, taken out again; dead if it is not there any more."""
    if is_nameless(name):
        return DEAD if name else None
    entry = space.lookup(name)
    if entry is None or not has_right_for(entry, kind):
        return DEAD
    return copyin(kernel, space, entry, kind)
