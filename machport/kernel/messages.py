"""``mach_msg``: messages out of a task and into one (the specification of messages, sections 2 to 8).

A call is a ``Waiter``.  It is done when it has a result; otherwise ``collect``, ``expire`` or ``interrupt`` finish it
later.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from machport.abi import constants as c
from machport.abi import message as layout
from machport.abi.message import Descriptor, Parsed
from machport.kernel.kernel import Kernel
from machport.kernel.message import Item, Message, word_notification
from machport.kernel.port import DEAD, Port, PortSet
from machport.kernel.queueing import (
    dequeue,
    enqueue,
    peek,
    received_size,
    serve_receivers,
    too_large,
    wait_to_receive,
    wait_to_send,
)
from machport.kernel.refusal import Refusal
from machport.kernel.release import (
    clean_message,
    destroy_message,
    notify,
    release_right,
    release_send,
    take_request,
)
from machport.kernel.rights import (
    SEND_DISPOSITIONS,
    copyin,
    copyin_quietly,
    copyout,
    copyout_or_destroy,
    has_right_for,
    kind_of,
)
from machport.kernel.space import Space
from machport.kernel.task import Task
from machport.kernel.waiter import Phase, Result, Waiter

_MAKES: Final = frozenset((c.MACH_MSG_TYPE_MAKE_SEND, c.MACH_MSG_TYPE_MAKE_SEND_ONCE))
_NAMELESS: Final = frozenset((c.MACH_PORT_NULL, c.MACH_PORT_DEAD))
_PORT_NAME_SIZE: Final = 4


def mach_msg(
    kernel: Kernel,
    task: Task,
    option: int,
    buffer: bytes = b"",
    memory: Sequence[bytes] = (),
    rcv_limit: int = 0,
    rcv_name: int = c.MACH_PORT_NULL,
    timeout_ms: int = 0,
) -> Waiter:
    """Send, receive, or send and then receive (M1).

    Args:
        buffer: the message to send, of ``send_size`` bytes.
        memory: content of its out-of-line regions and port arrays (names as little-endian u32), one for each such
            descriptor, in order.
        rcv_limit: bytes that the receiver has room for, trailer included.
        timeout_ms: used by the halves whose TIMEOUT bit is set; 0 is a poll (M2).

    Returns:
        A waiter, with a result unless it has to wait.
    """
    waiter = Waiter(task, option, rcv_limit, rcv_name, timeout_ms)
    try:
        if option & c.MACH_SEND_MSG:
            _start_send(kernel, waiter, buffer, memory)
        elif option & c.MACH_RCV_MSG:
            _start_receive(kernel, waiter)
        else:
            waiter.result = Result(c.MACH_MSG_SUCCESS)
    except Refusal as refusal:
        waiter.result = Result(refusal.code, rule=refusal.rule)
    return waiter


def collect(kernel: Kernel) -> list[Waiter]:
    """Let woken waiters go on, and return those whose phase or result has changed since the last call."""
    while kernel.woken:
        waiter = kernel.woken.popleft()
        kernel.changed[waiter] = None
        try:
            if waiter.phase is Phase.SEND:
                _resume_send(kernel, waiter)
            else:
                _resume_receive(kernel, waiter)
        except Refusal as refusal:
            _finish(waiter, Result(refusal.code, rule=refusal.rule))
    changed = list(kernel.changed)
    kernel.changed.clear()
    return changed


def expire(kernel: Kernel, waiter: Waiter) -> None:
    """The time of a waiter's phase is over; nothing happens if it has just been served."""
    _give_up(kernel, waiter, c.MACH_SEND_TIMED_OUT, c.MACH_RCV_TIMED_OUT)


def interrupt(kernel: Kernel, waiter: Waiter) -> None:
    """The waiting thread was interrupted, or is gone; nothing happens if it has just been served."""
    _give_up(kernel, waiter, c.MACH_SEND_INTERRUPTED, c.MACH_RCV_INTERRUPTED)


def _give_up(kernel: Kernel, waiter: Waiter, send_code: int, receive_code: int) -> None:
    if waiter.queue is None:
        return
    waiter.leave()
    kernel.changed[waiter] = None
    if waiter.phase is Phase.SEND:
        _pseudo_receive(kernel, waiter, send_code)
    else:
        _finish(waiter, Result(receive_code, rule="M2"))


def _finish(waiter: Waiter, result: Result) -> None:
    waiter.phase = Phase.DONE
    waiter.message = None
    waiter.source = None
    waiter.result = result
    waiter.task.waiters.pop(waiter, None)


# Sending


def _start_send(kernel: Kernel, waiter: Waiter, buffer: bytes, memory: Sequence[bytes]) -> None:
    message = _copyin_message(kernel, waiter.task, buffer, memory)
    port = message.remote
    assert port is not None
    if message.circular and not kernel.dialect.full_before_circular:
        destroy_message(kernel, message)
    elif port.active and port.full and message.remote_type == c.MACH_MSG_TYPE_PORT_SEND:
        if waiter.option & c.MACH_SEND_NOTIFY:
            _arm_send_possible(waiter.task.space, port)
        if waiter.option & c.MACH_SEND_TIMEOUT and waiter.timeout_ms == 0:
            waiter.message = message
            _pseudo_receive(kernel, waiter, c.MACH_SEND_TIMED_OUT)
        else:
            wait_to_send(waiter, port, message)
        return
    else:
        _accept(kernel, port, message)
    _sent(kernel, waiter)


def _resume_send(kernel: Kernel, waiter: Waiter) -> None:
    """The message was queued; or the port died, or the right is circular, and it is destroyed (M16, P27)."""
    message, waiter.message = waiter.message, None
    if message is not None:
        if not message.circular:
            message.remote = None
        destroy_message(kernel, message)
    _sent(kernel, waiter)


def _sent(kernel: Kernel, waiter: Waiter) -> None:
    if waiter.option & c.MACH_RCV_MSG:
        _start_receive(kernel, waiter)
    else:
        _finish(waiter, Result(c.MACH_MSG_SUCCESS))


def _accept(kernel: Kernel, port: Port, message: Message) -> None:
    """The message leaves the sender: into a queue, or to its destruction."""
    if not port.active:
        # The destination died while the body was taken: its right vanishes, the send succeeds (step 13).
        message.remote = None
        destroy_message(kernel, message)
    elif message.circular:
        destroy_message(kernel, message)
    elif port.receiver is kernel.space:
        _answer_for_kernel(kernel, message)
    else:
        enqueue(kernel, port, message)


def _answer_for_kernel(kernel: Kernel, message: Message) -> None:
    """A message to a task or file: their calls are traps, so the answer is an error reply as MIG's."""
    reply, reply_type = message.local, message.local_type
    message.local = None
    destroy_message(kernel, message)
    if reply is None:
        return
    code = c.MIG_BAD_ID & 0xFFFFFFFF
    answer = Message(
        reply, reply_type, id=message.id + 100 & 0xFFFFFFFF, inline=layout.NDR + code.to_bytes(4, "little")
    )
    _accept(kernel, reply, answer)


def _arm_send_possible(space: Space, port: Port) -> None:
    """A delayed send-possible request of the sender is armed by finding the queue full (N68)."""
    entry = space.by_port.get(port)
    if entry is not None and entry.request and port.requests is not None:
        slot = entry.request
        if port.requests.slots[slot].send_possible:
            port.requests.armed[slot] = None


def _copyin_message(kernel: Kernel, task: Task, buffer: bytes, memory: Sequence[bytes]) -> Message:
    parsed = layout.parse(buffer, sent=True)
    if parsed.code:
        raise Refusal(parsed.code, "M section 3")
    _check_header(parsed)
    space = task.space
    if not space.active:
        raise Refusal(c.MACH_SEND_INVALID_DEST, "P section 11")
    regions = _match_memory(parsed.descriptors, memory)
    message = _copyin_header(kernel, space, parsed)
    message.tokens = task.tokens
    if parsed.bits & layout.COMPLEX:
        _copyin_body(kernel, space, message, parsed.descriptors, regions)
    return message


def _check_header(parsed: Parsed) -> None:
    local = parsed.local_disposition
    local_ok = local in SEND_DISPOSITIONS or (local == 0 and parsed.local == c.MACH_PORT_NULL)
    if parsed.remote_disposition not in SEND_DISPOSITIONS or not local_ok:
        raise Refusal(c.MACH_SEND_INVALID_HEADER, "M section 3")
    if parsed.voucher_disposition:
        raise Refusal(c.MACH_SEND_INVALID_VOUCHER, "M5")


def _match_memory(descriptors: Sequence[Descriptor], memory: Sequence[bytes]) -> list[bytes]:
    """One region for each descriptor; b"" for ports.

    Raises:
        Refusal: SEND_INVALID_DATA, the regions that came along are not those that the descriptors announce.
    """
    regions: list[bytes] = []
    given = iter(memory)
    for descriptor in descriptors:
        if descriptor.type == c.MACH_MSG_PORT_DESCRIPTOR:
            regions.append(b"")
            continue
        unit = _PORT_NAME_SIZE if descriptor.type == c.MACH_MSG_OOL_PORTS_DESCRIPTOR else 1
        region = next(given, None)
        if region is None or len(region) != descriptor.size * unit:
            raise Refusal(c.MACH_SEND_INVALID_DATA, "M10")
        regions.append(region)
    if next(given, None) is not None:
        raise Refusal(c.MACH_SEND_INVALID_DATA, "M10")
    return regions


def _copyin_header(kernel: Kernel, space: Space, parsed: Parsed) -> Message:
    """Take destination and reply right, both or none (M3, M4, M6, M7)."""
    remote, remote_disposition = parsed.remote, parsed.remote_disposition
    local, local_disposition = parsed.local, parsed.local_disposition
    destination = space.lookup(remote)
    if destination is None:
        raise Refusal(c.MACH_SEND_INVALID_DEST, "M3")
    reply = None
    if local not in _NAMELESS:
        reply = space.lookup(local)
        if reply is None or not has_right_for(reply, local_disposition):
            raise Refusal(c.MACH_SEND_INVALID_REPLY, "M3")
    if not has_right_for(destination, remote_disposition, dead_ok=False):
        raise Refusal(c.MACH_SEND_INVALID_DEST, "M4")
    dispositions = {remote_disposition, local_disposition}
    reply_first = False
    if reply is destination and not dispositions & _MAKES:
        if c.MACH_MSG_TYPE_MOVE_SEND_ONCE in dispositions:
            raise Refusal(c.MACH_SEND_INVALID_DEST, "M6")
        if dispositions == {c.MACH_MSG_TYPE_MOVE_SEND} and destination.urefs < 2:
            raise Refusal(c.MACH_SEND_INVALID_DEST, "M6")
        # With one copied and one moved, the copy comes first: there may be a single reference.
        reply_first = local_disposition == c.MACH_MSG_TYPE_COPY_SEND

    deleted: list[Message] = []
    if reply_first:
        assert reply is not None
        local_port: Port | None = copyin_quietly(kernel, space, reply, local_disposition, deleted)
        remote_port = copyin_quietly(kernel, space, destination, remote_disposition, deleted)
    else:
        remote_port = copyin_quietly(kernel, space, destination, remote_disposition, deleted)
        if reply is not None:
            local_port = copyin_quietly(kernel, space, reply, local_disposition, deleted)
        else:
            local_port = DEAD if local == c.MACH_PORT_DEAD else None
    for notification in deleted:
        notify(kernel, notification)
    return Message(
        remote_port,
        kind_of(remote_disposition),
        local_port,
        kind_of(local_disposition) if local_disposition else 0,
        parsed.id,
        [] if parsed.bits & layout.COMPLEX else None,
        parsed.inline,
        parsed.voucher,
    )


def _copyin_body(
    kernel: Kernel,
    space: Space,
    message: Message,
    descriptors: Sequence[Descriptor],
    regions: Sequence[bytes],
) -> None:
    """Take the rights of the body in order; at the first that is not there, all is destroyed (M8)."""
    assert message.items is not None
    for descriptor, region in zip(descriptors, regions, strict=True):
        if descriptor.type == c.MACH_MSG_PORT_DESCRIPTOR:
            item = Item(descriptor, kind_of(descriptor.disposition), [])
            names: Sequence[int] = (descriptor.name,)
        elif descriptor.type == c.MACH_MSG_OOL_PORTS_DESCRIPTOR:
            item = Item(descriptor, kind_of(descriptor.disposition), [])
            names = memoryview(region).cast("I")
        else:
            item = Item(descriptor, 0, [], bytes(region))
            names = ()
        message.items.append(item)
        for name in names:
            if not _copyin_item(kernel, space, message, item, name, descriptor.disposition):
                clean_message(kernel, message)
                raise Refusal(c.MACH_SEND_INVALID_RIGHT, "M8")


def _copyin_item(kernel: Kernel, space: Space, message: Message, item: Item, name: int, disposition: int) -> bool:
    if name in _NAMELESS:
        item.ports.append(DEAD if name else None)
        return True
    entry = space.lookup(name)
    if entry is None or not has_right_for(entry, disposition):
        return False
    port = copyin(kernel, space, entry, disposition)
    item.ports.append(port)
    if disposition == c.MACH_MSG_TYPE_MOVE_RECEIVE:
        assert message.remote is not None
        if message.remote.in_transit_to(port):
            message.circular = True
        else:
            port.destination = message.remote
    return True


# Giving a message back: pseudo-receive


def _pseudo_receive(kernel: Kernel, waiter: Waiter, code: int) -> None:
    """The send is given up: the message comes back into the buffer, not swapped, without a trailer (M18-M21)."""
    message = waiter.message
    assert message is not None
    space = waiter.task.space
    if not space.active:
        destroy_message(kernel, message)
        _finish(waiter, Result(code, rule="M18"))
        return
    remote, remote_bits = copyout_or_destroy(kernel, space, message.remote, message.remote_type)
    local, local_bits = copyout_or_destroy(kernel, space, message.local, message.local_type)
    body, memory, body_bits = _copyout_body(kernel, space, message)
    header = layout.HEADER.pack(
        layout.bits(message.remote_type, message.local_type, complex=message.items is not None),
        received_size(kernel, message),
        remote,
        local,
        message.voucher,
        message.id,
    )
    _finish(waiter, Result(code | remote_bits | local_bits | body_bits, header + body, memory, "M18"))


# Receiving


def _start_receive(kernel: Kernel, waiter: Waiter) -> None:
    source = _receive_source(kernel, waiter)
    head = peek(source)
    if head is not None:
        if waiter.option & c.MACH_RCV_LARGE and too_large(kernel, head[1], waiter):
            _finish(waiter, _left_in_queue(kernel, waiter, *head))
            return
        taken = dequeue(kernel, source)
        assert taken is not None
        _receive(kernel, waiter, *taken)
    elif waiter.option & c.MACH_RCV_TIMEOUT and waiter.timeout_ms == 0:
        _finish(waiter, Result(c.MACH_RCV_TIMED_OUT, rule="M2"))
    else:
        wait_to_receive(waiter, source)


def _receive_source(kernel: Kernel, waiter: Waiter) -> Port | PortSet:
    space = waiter.task.space
    entry = space.lookup(waiter.rcv_name) if space.active else None
    if entry is not None and entry.pset is not None:
        source: Port | PortSet = entry.pset
    elif entry is not None and entry.type & c.MACH_PORT_TYPE_RECEIVE:
        assert entry.port is not None
        source = entry.port
        if source.pset is not None:
            raise Refusal(c.MACH_RCV_IN_SET, "P34")
    else:
        raise Refusal(c.MACH_RCV_INVALID_NAME, "M section 6")
    if not kernel.dialect.typed_messages and not layout.trailer_size(waiter.option):
        raise Refusal(c.MACH_RCV_INVALID_TRAILER, "M34")
    return source


def _resume_receive(kernel: Kernel, waiter: Waiter) -> None:
    """A waiting receiver was handed a message, or was turned away."""
    message, port, code = waiter.message, waiter.source, waiter.woken_code
    if code == c.MACH_RCV_TOO_LARGE:
        assert message is not None and isinstance(port, Port)
        _finish(waiter, _left_in_queue(kernel, waiter, port, message))
    elif code:
        _finish(waiter, Result(code, rule="P21"))
    else:
        assert message is not None and isinstance(port, Port)
        _receive(kernel, waiter, port, message)


def _left_in_queue(kernel: Kernel, waiter: Waiter, port: Port, message: Message) -> Result:
    """RCV_LARGE: the message stays; only its size, and on request its port, is told (M27)."""
    name = port.name if waiter.option & c.MACH_RCV_LARGE_IDENTITY else c.MACH_PORT_NULL
    header = layout.HEADER.pack(0, received_size(kernel, message), 0, name, 0, 0)
    return Result(c.MACH_RCV_TOO_LARGE, header, rule="M27")


def _receive(kernel: Kernel, waiter: Waiter, port: Port, message: Message) -> None:
    """Enter a message that has left its queue into the receiver's space, and finish the call."""
    space = waiter.task.space
    _fire_send_possible(kernel, port)
    if not space.active:
        destroy_message(kernel, message)
        _finish(waiter, Result(c.MACH_RCV_INVALID_NAME, rule="P section 11"))
        return
    code = c.MACH_RCV_TOO_LARGE if too_large(kernel, message, waiter) else 0
    remote = c.MACH_PORT_NULL
    if not code:
        try:
            remote = copyout(space, message.local, message.local_type)
        except Refusal:
            code = c.MACH_RCV_HEADER_ERROR | c.MACH_MSG_IPC_SPACE
    local = _consume_destination(kernel, space, message)
    trailer = layout.trailer_size(waiter.option) or layout.MIN_TRAILER
    body, complex = b"", False
    memory: Sequence[bytes] = ()
    received: Message | None = None
    if code:
        remote = _destroy_on_reception(kernel, message)
        trailer = layout.MIN_TRAILER
    else:
        received = message
        complex = message.items is not None
        body, memory, shortages = _copyout_body(kernel, space, message)
        if shortages:
            code = c.MACH_RCV_BODY_ERROR | shortages
    header = layout.HEADER.pack(
        layout.bits(message.local_type, message.remote_type, complex=complex),
        received_size(kernel, message),
        remote,
        local,
        message.voucher,
        message.id,
    )
    context = port.context if port.receiver is space else 0
    buffer = header + body
    buffer = buffer.ljust(layout.round_up(len(buffer)), b"\0")
    buffer += layout.pack_trailer(trailer, message.seqno, message.tokens, context)
    _finish(waiter, Result(code, buffer, memory, "M27" if code else "", received))


def take_back(kernel: Kernel, task: Task, result: Result) -> None:
    """Undo a reception whose receiver ended before it saw the message, which is next in its queue again.

    The driver calls this before it terminates the task: a crash loses nothing that was not received.  Nothing happens
    if the task gave up the receive right meanwhile.
    """
    message = result.received
    assert result.buffer is not None and message is not None
    space = task.space
    given = layout.parse(result.buffer[: layout.HEADER.unpack_from(result.buffer)[1]])
    entry = space.lookup(given.local)
    if entry is None or not entry.type & c.MACH_PORT_TYPE_RECEIVE:
        return
    port = entry.port
    assert port is not None
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
            if item.type == c.MACH_MSG_TYPE_PORT_RECEIVE and right is not None:
                right.destination = port
    port.push_back(message)
    serve_receivers(kernel, port.pset or port)


def _retake(kernel: Kernel, space: Space, name: int, kind: int) -> Port | None:
    """A right that a reception entered, taken out again; dead if it is not there any more."""
    if name in _NAMELESS:
        return DEAD if name else None
    entry = space.lookup(name)
    if entry is None or not has_right_for(entry, kind):
        return DEAD
    return copyin(kernel, space, entry, kind)


def _fire_send_possible(kernel: Kernel, port: Port) -> None:
    """A message was received: armed send-possible requests on the port are told (N67)."""
    if port.requests is None or not port.requests.armed:
        return
    for slot in list(port.requests.armed):
        request = port.requests.slots[slot]
        take_request(request.entry)
        notify(kernel, word_notification(c.MACH_NOTIFY_SEND_POSSIBLE, request.notify, request.name))


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


def _copyout_body(kernel: Kernel, space: Space, message: Message) -> tuple[bytes, list[bytes], int]:
    """The bytes from the descriptor count on, the regions, and shortage bits.  Never stops early (M28)."""
    if message.items is None:
        return message.inline, [], 0
    parts = [layout.COUNT.pack(len(message.items))]
    memory: list[bytes] = []
    shortages = 0
    for item in message.items:
        descriptor = item.descriptor
        names = []
        for port in item.ports:
            name, bits = copyout_or_destroy(kernel, space, port, item.type)
            names.append(name)
            shortages |= bits
        if descriptor.type == c.MACH_MSG_PORT_DESCRIPTOR:
            descriptor = descriptor._replace(name=names[0], disposition=item.type)
        else:
            is_array = descriptor.type == c.MACH_MSG_OOL_PORTS_DESCRIPTOR
            region = b"".join(name.to_bytes(4, "little") for name in names) if is_array else item.memory
            memory.append(region)
            virtual = is_array or descriptor.copy == c.MACH_MSG_VIRTUAL_COPY
            descriptor = descriptor._replace(
                address=len(memory) if region else 0, deallocate=int(virtual), disposition=item.type
            )
        parts.append(descriptor.pack())
    parts.append(message.inline)
    return b"".join(parts), memory, shortages
