"""Messages into and out of queues, and who waits there.

Decides who gets which message, and in which order.  Never looks into a message and never enters a right: a waiter that
is woken here does the rest of its work when the present call is over (``messages``).
"""

from __future__ import annotations

from machport.abi import constants as c
from machport.abi.message import trailer_size
from machport.kernel import phase
from machport.kernel.kernel import Kernel
from machport.kernel.message import Message
from machport.kernel.port import Port, PortSet
from machport.kernel.waiter import Line, Waiter


def enqueue(kernel: Kernel, port: Port, message: Message) -> None:
    """A message is accepted: it joins the queue, or goes to the receiver that has waited longest (M13)."""
    kernel.counts.queued += 1
    port.append(message)
    serve(kernel, port)


def dequeue(kernel: Kernel, port: Port) -> Message:
    """Take the message that is next; then one blocked sender proceeds if there is room (M14)."""
    if port.pset is not None:
        port.pset.order.popleft()
    message = port.pop()
    kernel.counts.queued -= 1
    if port.senders is not None:
        _admit_next(kernel, port)
    return message


def peek(source: Port | PortSet) -> Port | None:
    """The port whose first message is next, left where it is; None if there is no message."""
    if isinstance(source, PortSet):
        pset = source
        return pset.first()
    port = source
    return None if port.first is None else port


def admit_senders(kernel: Kernel, port: Port, most: int) -> None:
    """Up to ``most`` blocked senders queue their messages, the one that has waited longest first."""
    _admit(kernel, port, most)
    _wait_for_quota(port)
    serve(kernel, port)


def _admit_next(kernel: Kernel, port: Port) -> None:
    """One sender goes on if there is room, and nobody waits for the holder's at another port."""
    quota = port.quota
    if quota is not None and (quota.waiting or quota.full()):
        _wait_for_quota(port)
    else:
        _admit(kernel, port, 1)


def _wait_for_quota(port: Port) -> None:
    """Whoever waits at a port with room of its own waits for its holder's."""
    if port.quota is not None and port.msgcount < port.qlimit and port.is_wanted():
        port.quota.wait(port)


def relieve(kernel: Kernel) -> None:
    """Those go on who waited for room that a holder has again: one of each port in turn, the oldest of it first."""
    while kernel.relieved:
        quota = kernel.relieved.pop()
        quota.is_relieved = False
        while quota.waiting and not quota.full():
            port, _ = quota.waiting.popitem(last=False)
            if port.requests is not None and port.requests.armed:
                kernel.possible.append(port)
            _admit(kernel, port, 1)
            if port.senders and port.msgcount < port.qlimit:
                quota.waiting[port] = None
            serve(kernel, port)


def _admit(kernel: Kernel, port: Port, most: int) -> None:
    """The same, leaving it to the caller to serve receivers: many of them at once must not cost depth."""
    senders = port.senders
    while most and senders is not None and senders.first is not None and not port.full():
        waiter = senders.first
        message = waiter.message
        assert message is not None
        kernel.wake(waiter)
        if not message.circular:
            waiter.message = None
            kernel.counts.queued += 1
            port.append(message)
            most -= 1


def serve(kernel: Kernel, port: Port) -> None:
    """Serve those who wait where messages of the port are received: at its set, or itself."""
    if port.pset is not None:
        if port.pset.receivers is not None:
            _serve_receivers(kernel, port.pset, port.pset.receivers)
    elif port.receivers is not None:
        _serve_receivers(kernel, port, port.receivers)


def _serve_receivers(kernel: Kernel, source: Port | PortSet, receivers: Line) -> None:
    """Hand waiting messages to waiting receivers, first come first served.

    A receiver that would leave a message that is too large for it is told so, and the message is offered to the next.
    """
    while receivers.first is not None:
        port = peek(source)
        if port is None:
            return
        waiter = receivers.first
        message = port.first
        assert message is not None
        if waiter.option & c.MACH_RCV_LARGE and too_large(kernel, message, waiter):
            waiter.message = message
            waiter.source = port
            kernel.wake(waiter, c.MACH_RCV_TOO_LARGE)
        else:
            kernel.wake(waiter)
            waiter.source = port
            waiter.message = dequeue(kernel, port)


def received_size(kernel: Kernel, message: Message) -> int:
    """``msgh_size`` as the receiver sees it."""
    return message.typed_size() if kernel.typed_messages else message.size()


def too_large(kernel: Kernel, message: Message, waiter: Waiter) -> bool:
    """Whether the message and its trailer do not fit the receiver's buffer (M22)."""
    trailer = 0 if kernel.typed_messages else trailer_size(waiter.option)
    return received_size(kernel, message) + trailer > waiter.rcv_limit


def wait_to_receive(waiter: Waiter, source: Port | PortSet) -> None:
    waiter.source = source
    if isinstance(source, PortSet):
        pset = source
        if pset.receivers is None:
            pset.receivers = Line()
        line = pset.receivers
    else:
        port = source
        if port.receivers is None:
            port.receivers = Line()
        line = port.receivers
    waiter.wait_in(line, phase.RECEIVE)


def wait_to_send(waiter: Waiter, port: Port, message: Message) -> None:
    waiter.message = message
    if port.senders is None:
        port.senders = Line()
    waiter.wait_in(port.senders, phase.SEND)
    _wait_for_quota(port)


def leave_set(port: Port) -> None:
    """The port and its messages leave the set; receivers go on waiting on the set (P36)."""
    if port.pset is not None:
        port.pset.remove(port)


def join_set(kernel: Kernel, port: Port, pset: PortSet) -> None:
    """The port joins; its own receivers are turned away and its messages go to those of the set (P34)."""
    wake_all(kernel, port.receivers, c.MACH_RCV_PORT_CHANGED)
    pset.insert(port)
    serve(kernel, port)


def destroy_set(kernel: Kernel, pset: PortSet) -> None:
    """Receivers on the set are told; members are in no set; nothing is lost (P37)."""
    pset.active = False
    for port in list(pset.members):
        pset.remove(port)
    wake_all(kernel, pset.receivers, c.MACH_RCV_PORT_DIED)


def wake_all(kernel: Kernel, line: Line | None, code: int) -> None:
    """All that stand in a line leave it."""
    while line is not None and line.first is not None:
        kernel.wake(line.first, code)
