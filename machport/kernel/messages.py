"""``mach_msg``: messages out of a task and into one (the specification of messages, sections 2 to 8).

A call is a ``Waiter``.  It is done when it has a result; otherwise ``collect``, ``expire`` or ``interrupt`` finish it
later.
"""

from __future__ import annotations

from collections.abc import Sequence

from machport.abi import constants as c
from machport.abi import message as layout
from machport.kernel.copyin import copyin_message
from machport.kernel.copyout import copyout_message, copyout_pseudo
from machport.kernel.kernel import Kernel
from machport.kernel.message import Message, word_notification
from machport.kernel.port import Port, PortSet
from machport.kernel.queueing import (
    dequeue,
    enqueue,
    peek,
    received_size,
    too_large,
    wait_to_receive,
    wait_to_send,
)
from machport.kernel.refusal import Refusal
from machport.kernel.release import (
    destroy_message,
    notify,
    release_right,
    take_request,
)
from machport.kernel.space import Space
from machport.kernel.task import Task
from machport.kernel.waiter import Phase, Result, Waiter


def mach_msg(
    kernel: Kernel,
    task: Task,
    option: int,
    buffer: bytes = b"",
    memory: Sequence[bytes | None] = (),
    rcv_limit: int = 0,
    rcv_name: int = c.MACH_PORT_NULL,
    timeout_ms: int = 0,
) -> Waiter:
    """Send, receive, or send and then receive (M1).

    Args:
        buffer: the message to send, of ``send_size`` bytes.
        memory: content of its out-of-line regions and port arrays (names as little-endian u32), one for each such
            descriptor, in order; None for what the sender's memory could not give.
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
        waiter.result = Result(refusal.code, rule=refusal.rule, taken=refusal.taken)
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


def abandon(kernel: Kernel, waiter: Waiter) -> None:
    """The waiting thread is gone, and nobody will look at its buffer again: a message that it sends is destroyed."""
    if waiter.queue is not None and waiter.phase is Phase.SEND:
        waiter.leave()
        message = waiter.message
        assert message is not None
        destroy_message(kernel, message)
        _finish(waiter, Result(c.MACH_SEND_INTERRUPTED, rule="M18"))
    else:
        interrupt(kernel, waiter)


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


def _start_send(kernel: Kernel, waiter: Waiter, buffer: bytes, memory: Sequence[bytes | None]) -> None:
    message = copyin_message(kernel, waiter.task, buffer, memory)
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
    if reply_type == c.MACH_MSG_TYPE_PORT_SEND and reply.active and reply.full:
        # Nobody waits here for room in the queue of whoever asked.
        release_right(kernel, reply, reply_type)
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


def _pseudo_receive(kernel: Kernel, waiter: Waiter, code: int) -> None:
    """The send is given up, and the message comes back into the buffer."""
    message = waiter.message
    assert message is not None
    space = waiter.task.space
    if space.active:
        result = copyout_pseudo(kernel, space, message, code)
    else:
        destroy_message(kernel, message)
        result = Result(code, rule="M18")
    _finish(waiter, result)


# Receiving


def _start_receive(kernel: Kernel, waiter: Waiter) -> None:
    source = _receive_source(kernel, waiter)
    found = peek(source)
    if found is not None:
        port, message = found
        if waiter.option & c.MACH_RCV_LARGE and too_large(kernel, message, waiter):
            _finish(waiter, _left_in_queue(kernel, waiter, port, message))
        else:
            _receive(kernel, waiter, port, dequeue(kernel, port))
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
    is_too_large = too_large(kernel, message, waiter)
    _finish(waiter, copyout_message(kernel, space, port, message, waiter.option, is_too_large=is_too_large))


def _fire_send_possible(kernel: Kernel, port: Port) -> None:
    """A message was received: armed send-possible requests on the port are told (N67)."""
    if port.requests is None or not port.requests.armed:
        return
    for slot in list(port.requests.armed):
        request = port.requests.slots[slot]
        take_request(request.entry)
        notify(kernel, word_notification(c.MACH_NOTIFY_SEND_POSSIBLE, request.notify, request.name))
