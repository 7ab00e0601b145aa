"""``mach_msg``: messages out of a task and into one (the specification of messages, sections 2 to 8).

A call is a ``Waiter``.  It is done when it has a result; otherwise ``collect``, ``expire`` or ``interrupt`` finish it
later.
"""

from __future__ import annotations

from collections.abc import Sequence

from machport.abi import constants as c
from machport.abi import message as layout
from machport.abi import words
from machport.abi.message import trailer_size
from machport.kernel import phase
from machport.kernel.copyin import copyin_message
from machport.kernel.copyout import copyout_message, copyout_pseudo
from machport.kernel.counts import memory_size
from machport.kernel.kernel import Kernel
from machport.kernel.message import Message, new_message, word_notification
from machport.kernel.port import Port, PortSet, Quota, Request
from machport.kernel.queueing import (
    dequeue,
    enqueue,
    peek,
    received_size,
    relieve,
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
from machport.kernel.waiter import SENT, Result, Waiter, new_result, new_waiter


def mach_msg(
    kernel: Kernel,
    task: Task,
    option: int,
    buffer: bytes | memoryview = b"",
    memory: Sequence[bytes | None] = (),
    rcv_limit: int = 0,
    rcv_name: int = c.MACH_PORT_NULL,
    timeout_ms: int = 0,
) -> Waiter:
    """Send, receive, or send and then receive (M1).

    Args:
        buffer: the message to send, of ``send_size`` bytes, which nobody changes any more: of a large one the kernel
            keeps a view.
        memory: content of its out-of-line regions and port arrays (names as little-endian u32), one for each such
            descriptor, in order; None for what the sender's memory could not give.
        rcv_limit: bytes that the receiver has room for, trailer included.
        timeout_ms: used by the halves whose TIMEOUT bit is set; 0 is a poll (M2).

    Returns:
        A waiter, with a result unless it has to wait.
    """
    waiter = new_waiter(task, option, rcv_limit, rcv_name, timeout_ms)
    try:
        if option & c.MACH_SEND_MSG:
            _start_send(kernel, waiter, buffer, memory)
        elif option & c.MACH_RCV_MSG:
            _start_receive(kernel, waiter)
        else:
            waiter.finish(SENT)
    except Refusal as refusal:
        result = new_result(refusal.code, refusal.rule if not refusal.says else f"{refusal.rule}: {refusal.says}")
        result.taken = refusal.taken
        waiter.finish(result)
    return waiter


def collect(kernel: Kernel) -> list[Waiter]:
    """Let woken waiters go on, and return those whose phase or result has changed since the last call."""
    woken = kernel.woken
    if woken.first is None and not kernel.changed and not kernel.relieved:
        return []
    while True:
        if kernel.relieved:
            relieve(kernel)
        if kernel.possible:
            _fire_send_possible(kernel, kernel.possible.pop())
            continue
        if woken.first is None:
            break
        waiter = woken.first
        woken.remove(waiter)
        kernel.note(waiter)
        try:
            if waiter.phase == phase.SEND:
                _resume_send(kernel, waiter)
            else:
                _resume_receive(kernel, waiter)
        except Refusal as refusal:
            waiter.finish(new_result(refusal.code, refusal.rule))
    changed = kernel.changed
    kernel.changed = []
    for waiter in changed:
        waiter.changed = False
    return changed


def expire(kernel: Kernel, waiter: Waiter) -> None:
    """The time of a waiter's phase is over; nothing happens if it has just been served."""
    _give_up(kernel, waiter, c.MACH_SEND_TIMED_OUT, c.MACH_RCV_TIMED_OUT)


def interrupt(kernel: Kernel, waiter: Waiter) -> None:
    """The waiting thread was interrupted, or is gone; nothing happens if it has just been served."""
    _give_up(kernel, waiter, c.MACH_SEND_INTERRUPTED, c.MACH_RCV_INTERRUPTED)


def abandon(kernel: Kernel, waiter: Waiter) -> None:
    """The waiting thread is gone, and nobody will look at its buffer again: a message that it sends is destroyed."""
    if kernel.waits(waiter) and waiter.phase == phase.SEND:
        waiter.leave()
        message = waiter.message
        assert message is not None
        destroy_message(kernel, message)
        waiter.finish(new_result(c.MACH_SEND_INTERRUPTED, "M18"))
    else:
        interrupt(kernel, waiter)


def _give_up(kernel: Kernel, waiter: Waiter, send_code: int, receive_code: int) -> None:
    if not kernel.waits(waiter):
        return
    waiter.leave()
    kernel.note(waiter)
    if waiter.phase == phase.SEND:
        _pseudo_receive(kernel, waiter, send_code)
    else:
        waiter.finish(new_result(receive_code, "M2"))


# Sending


def _start_send(kernel: Kernel, waiter: Waiter, buffer: bytes | memoryview, memory: Sequence[bytes | None]) -> None:
    quota = waiter.task.space.quota
    if quota is not None and quota.sending >= quota.sending_max:
        _check_need_not_wait(waiter.task.space, quota, buffer)
    message = copyin_message(kernel, waiter.task, buffer, memory)
    counts = kernel.counts
    counts.sent += 1
    counts.sent_bytes += len(buffer)
    if message.items is not None:
        counts.sent_bytes += memory_size(message)
    message.serial = counts.sent
    port = message.remote
    assert port is not None
    if message.circular and not kernel.dialect.full_before_circular:
        destroy_message(kernel, message)
    elif port.active and port.full() and message.remote_type == c.MACH_MSG_TYPE_PORT_SEND:
        if waiter.option & c.MACH_SEND_NOTIFY:
            _arm_send_possible(waiter.task.space, port)
        if port.quota is not None and port.msgcount < port.qlimit:
            port.quota.note_full(port)
        if waiter.option & c.MACH_SEND_TIMEOUT and waiter.timeout_ms == 0:
            waiter.message = message
            _pseudo_receive(kernel, waiter, c.MACH_SEND_TIMED_OUT)
        else:
            wait_to_send(waiter, port, message)
        return
    else:
        _accept(kernel, port, message)
    _sent(kernel, waiter)


def _check_need_not_wait(space: Space, quota: Quota, buffer: bytes | memoryview) -> None:
    """Whoever has enough that waits to be sent sends only what does not wait; nothing was taken yet."""
    if len(buffer) < words.HEADER_SIZE:
        return
    name: int = layout.HEADER.unpack_from(buffer)[2]
    entry = space.lookup(name)
    if entry is not None and entry.port is not None and entry.port.full():
        quota.note("sending", quota.sending_max, quota.sending, entry.port)
        raise Refusal(
            c.MACH_SEND_NO_BUFFER,
            "limits",
            f"{quota.sending} bytes of the task's wait to be sent, and its limit is {quota.sending_max}",
        )


def _resume_send(kernel: Kernel, waiter: Waiter) -> None:
    """The message was queued; or the port died, or the right is circular, and it is destroyed (M16, P27)."""
    message = waiter.message
    waiter.message = None
    if message is not None:
        if not message.circular:
            message.remote = None
        destroy_message(kernel, message)
    _sent(kernel, waiter)


def _sent(kernel: Kernel, waiter: Waiter) -> None:
    if waiter.option & c.MACH_RCV_MSG:
        _start_receive(kernel, waiter)
    else:
        waiter.finish(SENT)


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
    reply = message.local
    reply_type = message.local_type
    message.local = None
    destroy_message(kernel, message)
    if reply is None:
        return
    if reply_type == c.MACH_MSG_TYPE_PORT_SEND and reply.active and reply.full():
        # Nobody waits here for room in the queue of whoever asked.
        release_right(kernel, reply, reply_type)
        return
    answer = new_message(reply, reply_type, words.wrap(message.id + 100))
    answer.inline = words.pack_ndr_and_word(words.wrap(c.MIG_BAD_ID))
    _accept(kernel, reply, answer)


def _arm_send_possible(space: Space, port: Port) -> None:
    """A delayed send-possible request of the sender is armed by finding the queue full (N68)."""
    entry = space.by_port.get(port)
    if entry is not None and entry.request and port.requests is not None:
        request: Request = port.requests.slots[entry.request]
        if request.send_possible:
            port.requests.armed[entry.request] = None
            if port.quota is not None and port.msgcount < port.qlimit:
                port.quota.wait(port)


def _pseudo_receive(kernel: Kernel, waiter: Waiter, code: int) -> None:
    """The send is given up, and the message comes back into the buffer."""
    message = waiter.message
    assert message is not None
    space = waiter.task.space
    if space.active:
        result = copyout_pseudo(kernel, space, message, code)
    else:
        destroy_message(kernel, message)
        result = new_result(code, "M18")
    waiter.finish(result)


# Receiving


def _start_receive(kernel: Kernel, waiter: Waiter) -> None:
    source = _receive_source(kernel, waiter)
    port = peek(source)
    if port is not None:
        message = port.first
        assert message is not None
        if waiter.option & c.MACH_RCV_LARGE and too_large(kernel, message, waiter):
            waiter.finish(_left_in_queue(kernel, waiter, port, message))
        else:
            _receive(kernel, waiter, port, dequeue(kernel, port))
    elif waiter.option & c.MACH_RCV_TIMEOUT and waiter.timeout_ms == 0:
        waiter.finish(new_result(c.MACH_RCV_TIMED_OUT, "M2"))
    else:
        wait_to_receive(waiter, source)


def _receive_source(kernel: Kernel, waiter: Waiter) -> Port | PortSet:
    space = waiter.task.space
    entry = space.lookup(waiter.rcv_name) if space.active else None
    if entry is None or not entry.type & (c.MACH_PORT_TYPE_RECEIVE | c.MACH_PORT_TYPE_PORT_SET):
        raise Refusal(c.MACH_RCV_INVALID_NAME, "M section 6")
    port = entry.port
    if port is not None and port.pset is not None:
        raise Refusal(c.MACH_RCV_IN_SET, "P34")
    if not kernel.typed_messages and not trailer_size(waiter.option):
        raise Refusal(c.MACH_RCV_INVALID_TRAILER, "M34")
    if port is not None:
        return port
    assert entry.pset is not None
    return entry.pset


def _resume_receive(kernel: Kernel, waiter: Waiter) -> None:
    """A waiting receiver was handed a message, or was turned away."""
    message = waiter.message
    port = waiter.source
    code = waiter.woken_code
    if code == c.MACH_RCV_TOO_LARGE:
        assert message is not None and isinstance(port, Port)
        waiter.finish(_left_in_queue(kernel, waiter, port, message))
    elif code:
        waiter.finish(new_result(code, "P21"))
    else:
        assert message is not None and isinstance(port, Port)
        _receive(kernel, waiter, port, message)


def _left_in_queue(kernel: Kernel, waiter: Waiter, port: Port, message: Message) -> Result:
    """RCV_LARGE: the message stays; only its size, and on request its port, is told (M27)."""
    name = port.name if waiter.option & c.MACH_RCV_LARGE_IDENTITY else c.MACH_PORT_NULL
    result = new_result(c.MACH_RCV_TOO_LARGE, "M27")
    result.head = words.pack_header(0, received_size(kernel, message), 0, name, 0, 0)
    return result


def _receive(kernel: Kernel, waiter: Waiter, port: Port, message: Message) -> None:
    """Enter a message that has left its queue into the receiver's space, and finish the call."""
    space = waiter.task.space
    _fire_send_possible(kernel, port)
    if not space.active:
        destroy_message(kernel, message)
        waiter.finish(new_result(c.MACH_RCV_INVALID_NAME, "P section 11"))
        return
    kernel.counts.received += 1
    kernel.counts.received_bytes += message.size()
    if message.items is not None:
        kernel.counts.received_bytes += memory_size(message)
    is_too_large = too_large(kernel, message, waiter)
    waiter.finish(copyout_message(kernel, space, port, message, waiter.option, is_too_large))


def _fire_send_possible(kernel: Kernel, port: Port) -> None:
    """A message was received: armed send-possible requests on the port are told (N67)."""
    if not port.active or port.requests is None or not port.requests.armed:
        return
    for slot in list(port.requests.armed):
        request: Request = port.requests.slots[slot]
        take_request(request.entry)
        notify(kernel, word_notification(c.MACH_NOTIFY_SEND_POSSIBLE, request.notify, request.name))
