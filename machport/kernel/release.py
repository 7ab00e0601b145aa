"""Giving up rights, the death of ports, and the notifications that both cause: sections 8 and 9 of the ports.

The order of effects is the subject of this file.  "Sends" means queued before the call that caused it returns.
"""

from __future__ import annotations

from machport.abi import constants as c
from machport.kernel.counts import Losses
from machport.kernel.kernel import Kernel
from machport.kernel.message import (
    Item,
    Message,
    port_destroyed_notification,
    send_once_notification,
    word_notification,
)
from machport.kernel.port import Port, Request
from machport.kernel.queueing import destroy_set, enqueue, leave_set, wake_all
from machport.kernel.space import Entry, Space
from machport.kernel.task import Task


def notify(kernel: Kernel, notification: Message | None, about: Port | None = None) -> None:
    """Send a notification, if there is one: it never waits and never fails (N56); a dead port loses it (N58).

    Args:
        about: the port that it tells of, for whoever counts.
    """
    if notification is None:
        return
    port = notification.remote
    assert port is not None
    if port.active:
        kernel.counts.notified[notification.id] += 1
        if kernel.ending:
            kernel.losses.of(kernel.ending).notified(notification, port, about)
        if kernel.notices is not None:
            kernel.notices.append((notification.id, about, port))
        enqueue(kernel, port, notification)
    else:
        notification.remote = None
        destroy_message(kernel, notification)


# Single rights


def release_send(kernel: Kernel, port: Port) -> None:
    """A send right is destroyed."""
    notify(kernel, drop_send(kernel, port), port)


def drop_send(kernel: Kernel, port: Port) -> Message | None:
    """Count a send right less; the no-senders notification to be sent if it was the last (N37-N39)."""
    if not port.active:
        return None
    port.srights -= 1
    if port.srights:
        return None
    if port.receiver is kernel.space and not isinstance(port.kobject, Task):
        destroy_port(kernel, port)
        kernel.release(port.kobject)
        return None
    ns_request, port.ns_request = port.ns_request, None
    if ns_request is None:
        return None
    return word_notification(c.MACH_NOTIFY_NO_SENDERS, ns_request, port.mscount)


def release_send_once(kernel: Kernel, port: Port) -> None:
    """A send-once right is destroyed unused: it is used up by saying so (N51, N55)."""
    port.unreceived = False
    port.lost_with = kernel.ending
    notify(kernel, send_once_notification(port), port)


def release_right(kernel: Kernel, port: Port | None, type: int) -> None:
    """A right that belonged to a message or to the kernel is destroyed; nothing happens if its port is dead (P28)."""
    if port is None or not port.active:
        return
    if type == c.MACH_MSG_TYPE_MOVE_SEND:
        release_send(kernel, port)
    elif type == c.MACH_MSG_TYPE_MOVE_SEND_ONCE:
        release_send_once(kernel, port)
    else:
        release_receive(kernel, port)


# Receive rights


def clear_receiver(kernel: Kernel, port: Port) -> None:
    """The receive right leaves where it is: P21 up to the no-senders request.  The port is in limbo."""
    if port.pset is not None:
        leave_set(port)
    else:
        wake_all(kernel, port.receivers, c.MACH_RCV_PORT_DIED)
    port.mscount = 0
    port.seqno = 0
    port.context = 0
    port.guarded = port.strict = False
    port.receiver = port.destination = None
    port.name = c.MACH_PORT_NULL


def cancel_no_senders(kernel: Kernel, port: Port) -> None:
    """A no-senders request ends because the right moves: its send-once right says so (N47)."""
    if port.ns_request is not None and not kernel.dialect.no_senders_stays_on_move:
        ns_request, port.ns_request = port.ns_request, None
        release_send_once(kernel, ns_request)


def release_receive(kernel: Kernel, port: Port) -> None:
    """A receive right is destroyed: the port dies, or goes to its port-destroyed request (section 9)."""
    port.last_holder = kernel.ending
    clear_receiver(kernel, port)
    pd_request, port.pd_request = port.pd_request, None
    if pd_request is None:
        destroy_port(kernel, port)
    elif (above := pd_request.above()) is None or port in above:
        if pd_request.active:
            pd_request.sorights -= 1
        destroy_port(kernel, port)
    else:
        cancel_no_senders(kernel, port)
        port.destination = pd_request
        if kernel.ending:
            losses = kernel.losses.of(kernel.ending)
            losses.returned += 1
        notify(kernel, port_destroyed_notification(pd_request, port), port)


def destroy_port(kernel: Kernel, port: Port) -> None:
    """The port becomes inactive for ever: section 9 from step 3 on."""
    losses: Losses | None = kernel.losses.of(kernel.ending) if kernel.ending else None
    kernel.counts.ports -= 1
    if losses is not None and port.kobject is None:
        losses.ports += 1
    wake_all(kernel, port.senders, 0)
    port.active = False
    port.receiver = None
    if port.quota is not None:
        port.quota.waiting.pop(port, None)
    if port.ns_request is not None:
        ns_request, port.ns_request = port.ns_request, None
        release_send_once(kernel, ns_request)
    if kernel.slice and (
        port.msgcount > kernel.slice or (port.requests is not None and len(port.requests) > kernel.slice)
    ):
        kernel.unfinished.append((kernel.ending, port))
        return
    while port.msgcount:
        destroy_first(kernel, port)
    for request in take_requests(port):
        notify_of_death(kernel, request)


def destroy_first(kernel: Kernel, port: Port) -> None:
    """The oldest message of a dead port is destroyed."""
    message = port.pop()
    kernel.counts.queued -= 1
    if kernel.ending:
        losses = kernel.losses.of(kernel.ending)
        losses.destroyed(message)
    message.remote = None
    destroy_message(kernel, message)


def take_requests(port: Port) -> list[Request]:
    """Whoever is to hear of a port's death, in order, when its queue is gone."""
    port.quota = None
    requests, port.requests = port.requests, None
    return [] if requests is None else requests.in_order()


def notify_of_death(kernel: Kernel, request: Request) -> None:
    """A dead-name notification for one of those who asked."""
    entry = request.entry
    about = entry.died if entry.port is None else entry.port
    notify(kernel, word_notification(c.MACH_NOTIFY_DEAD_NAME, request.notify, request.name), about)


# Messages


def destroy_message(kernel: Kernel, message: Message) -> None:
    """Destroy a message and all it holds.

    What becomes garbage meanwhile is destroyed after it, first in first out, so that nesting has no depth (P31).
    """
    kernel.garbage.append(message)
    if len(kernel.garbage) == 1:
        done = 0
        while kernel.garbage:
            clean_message(kernel, kernel.garbage[0])
            kernel.garbage.popleft()
            done += 1
            if done == kernel.slice:
                for rest in kernel.garbage:
                    kernel.unfinished.append((kernel.ending, rest))
                kernel.garbage.clear()


def clean_message(kernel: Kernel, message: Message) -> None:
    """Release the rights of a message in order: destination, reply, body (M31)."""
    release_right(kernel, message.remote, message.remote_type)
    release_right(kernel, message.local, message.local_type)
    if message.asks:
        _was_unreceived(message.local)
    if message.items is not None:
        for item in message.items:
            clean_item(kernel, item)


def clean_item(kernel: Kernel, item: Item) -> None:
    for port in item.ports:
        release_right(kernel, port, item.type)
        if item.type == c.MACH_MSG_TYPE_PORT_SEND_ONCE and _was_made(item):
            _was_unreceived(port)


def _was_made(item: Item) -> bool:
    """Whether its send-once rights were made for the message: what was moved had been received by somebody before."""
    disposition: int = item.descriptor.disposition
    return disposition == c.MACH_MSG_TYPE_MAKE_SEND_ONCE


def _was_unreceived(port: Port | None) -> None:
    """A request was destroyed before anybody received it: whoever waits for its answer may ask again."""
    if port is not None and port.active:
        port.unreceived = True


# Entries


def take_request(entry: Entry) -> Request | None:
    """Unregister the entry's dead-name or send-possible request."""
    if not entry.request:
        return None
    assert entry.port is not None and entry.port.requests is not None
    request = entry.port.requests.cancel(entry.request)
    entry.request = 0
    return request


def free_entry(space: Space, entry: Entry) -> Message | None:
    """The name denotes nothing any more; the port-deleted notification to be sent if somebody asked (N23)."""
    request = take_request(entry)
    space.free(entry)
    if request is None:
        return None
    return word_notification(c.MACH_NOTIFY_PORT_DELETED, request.notify, entry.name)


def destroy_entry(kernel: Kernel, space: Space, entry: Entry) -> None:
    """All rights of a name at once: ``mach_port_destroy``, and each entry of a space that dies."""
    port, type = entry.port, entry.type
    if kernel.ending:
        losses = kernel.losses.of(kernel.ending)
        losses.send_rights += type & c.MACH_PORT_TYPE_SEND != 0
        losses.send_once_rights += type & c.MACH_PORT_TYPE_SEND_ONCE != 0
    deleted = free_entry(space, entry)
    if type == c.MACH_PORT_TYPE_PORT_SET:
        assert entry.pset is not None
        destroy_set(kernel, entry.pset)
    elif port is not None:
        # The send right goes first, so its notification says no-senders even if the port dies now (P29).
        no_senders = drop_send(kernel, port) if type & c.MACH_PORT_TYPE_SEND else None
        if type & c.MACH_PORT_TYPE_RECEIVE:
            release_receive(kernel, port)
        elif type & c.MACH_PORT_TYPE_SEND_ONCE:
            release_send_once(kernel, port)
        notify(kernel, no_senders, port)
    notify(kernel, deleted)


def release_reference(kernel: Kernel, space: Space, entry: Entry, count: int = 1) -> None:
    """``count`` user references of SEND, SEND_ONCE or DEAD_NAME are given up; with the last goes the right."""
    port = entry.port
    if entry.urefs > count:
        entry.urefs -= count
    elif entry.type == c.MACH_PORT_TYPE_SEND_RECEIVE:
        assert port is not None
        entry.type = c.MACH_PORT_TYPE_RECEIVE
        entry.urefs = 0
        release_send(kernel, port)
    else:
        destroy_entry(kernel, space, entry)
