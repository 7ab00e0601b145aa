"""Messages into and out of queues, and who waits there.

Decides who gets which message, and in which order.  Never looks into a message and never enters a right: a waiter that
is woken here does the rest of its work when the present call is over (``messages``).
"""

from __future__ import annotations

from machport.abi.constants import (
    MACH_RCV_LARGE,
    MACH_RCV_PORT_CHANGED,
    MACH_RCV_PORT_DIED,
    MACH_RCV_TOO_LARGE,
)
from machport.abi.message import trailer_size
from machport.kernel.kernel import Kernel
from machport.kernel.message import Message
from machport.kernel.port import Port, PortSet
from machport.kernel.waiter import Phase, Waiter


def enqueue(kernel: Kernel, port: Port, message: Message) -> None:
    """A message is accepted: it joins the queue, or goes to the receiver that has waited longest (M13)."""
    port.append(message)
    serve_receivers(kernel, port.pset or port)


def dequeue(kernel: Kernel, port: Port) -> Message:
    """Take the message that ``peek`` found; then one blocked sender proceeds if there is room (M14)."""
    if port.pset is not None:
        port.pset.order.popleft()
    message = port.pop()
    admit_senders(kernel, port, 1)
    return message


def peek(source: Port | PortSet) -> tuple[Port, Message] | None:
    """The message that is next, left where it is."""
    port = source.first() if isinstance(source, PortSet) else source
    if port is None or port.first is None:
        return None
    return port, port.first


def admit_senders(kernel: Kernel, port: Port, most: int) -> None:
    """Up to ``most`` blocked senders queue their messages, the one that has waited longest first."""
    while most and port.senders and not port.full:
        waiter = next(iter(port.senders))
        message = waiter.message
        assert message is not None
        kernel.wake(waiter)
        if not message.circular:
            waiter.message = None
            port.append(message)
            most -= 1
    serve_receivers(kernel, port.pset or port)


def serve_receivers(kernel: Kernel, source: Port | PortSet) -> None:
    """Hand waiting messages to waiting receivers, first come first served.

    A receiver that would leave a message that is too large for it is told so, and the message is offered to the next.
    """
    receivers = source.receivers
    while receivers:
        found = peek(source)
        if found is None:
            return
        waiter = next(iter(receivers))
        port, message = found
        if waiter.option & MACH_RCV_LARGE and too_large(kernel, message, waiter):
            waiter.message = message
            waiter.source = port
            kernel.wake(waiter, MACH_RCV_TOO_LARGE)
        else:
            kernel.wake(waiter)
            waiter.source = port
            waiter.message = dequeue(kernel, port)


def received_size(kernel: Kernel, message: Message) -> int:
    """``msgh_size`` as the receiver sees it."""
    return message.typed_size if kernel.dialect.typed_messages else message.size


def too_large(kernel: Kernel, message: Message, waiter: Waiter) -> bool:
    """Whether the message and its trailer do not fit the receiver's buffer (M22)."""
    trailer = 0 if kernel.dialect.typed_messages else trailer_size(waiter.option)
    return received_size(kernel, message) + trailer > waiter.rcv_limit


def wait_to_receive(waiter: Waiter, source: Port | PortSet) -> None:
    waiter.source = source
    waiter.wait_in(source.receivers, Phase.RECEIVE)


def wait_to_send(waiter: Waiter, port: Port, message: Message) -> None:
    waiter.message = message
    waiter.wait_in(port.senders, Phase.SEND)


def leave_set(port: Port) -> None:
    """The port and its messages leave the set; receivers go on waiting on the set (P36)."""
    if port.pset is not None:
        port.pset.remove(port)


def join_set(kernel: Kernel, port: Port, pset: PortSet) -> None:
    """The port joins; its own receivers are turned away and its messages go to those of the set (P34)."""
    wake_receivers(kernel, port, MACH_RCV_PORT_CHANGED)
    pset.insert(port)
    serve_receivers(kernel, pset)


def destroy_set(kernel: Kernel, pset: PortSet) -> None:
    """Receivers on the set are told; members are in no set; nothing is lost (P37)."""
    pset.active = False
    for port in list(pset.members):
        pset.remove(port)
    wake_receivers(kernel, pset, MACH_RCV_PORT_DIED)


def wake_receivers(kernel: Kernel, source: Port | PortSet, code: int) -> None:
    for waiter in list(source.receivers):
        kernel.wake(waiter, code)
