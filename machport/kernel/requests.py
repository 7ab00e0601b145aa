"""``mach_port_request_notification``: the order of its checks, and its tables (sections 1 and 5 of notifications)."""

from __future__ import annotations

from machport.abi import constants as c
from machport.abi.message import is_disposition
from machport.kernel.kernel import Kernel
from machport.kernel.message import word_notification
from machport.kernel.port import Port, new_request
from machport.kernel.refusal import Refusal
from machport.kernel.release import notify as send_notification
from machport.kernel.release import take_request
from machport.kernel.rights import (
    copyin,
    copyout_or_destroy,
    destroy_refused,
    has_right_for,
    is_nameless,
    kind_of,
)
from machport.kernel.space import Entry, Space
from machport.kernel.task import Task


def mach_port_request_notification(
    kernel: Kernel,
    caller: Task,
    task: Task,
    name: int,
    variant: int,
    sync: int,
    notify: int,
    notify_type: int,
) -> int:
    """Register, replace or cancel (``notify`` 0) a notification; the send-once right registered before.

    Returns:
        A new name in the caller's space; 0 if nothing was registered, ~0 if its port has died.

    Raises:
        Refusal: as in section 1, first failure first.  From the fifth check on the send-once right is destroyed,
            which the notify port is told by a send-once notification (N9).
    """
    notify_port = copyin_notify(kernel, caller, notify, notify_type)
    try:
        if variant == c.MACH_NOTIFY_PORT_DESTROYED:
            previous = _port_destroyed(task.space, name, sync, notify_port)
        elif variant == c.MACH_NOTIFY_NO_SENDERS:
            previous = _no_senders(kernel, task.space, name, sync, notify_port)
        elif variant == c.MACH_NOTIFY_DEAD_NAME:
            previous = _dead_name(kernel, task.space, name, sync, notify_port)
        elif variant == c.MACH_NOTIFY_SEND_POSSIBLE and not kernel.dialect.no_send_possible:
            previous = _send_possible(kernel, task.space, name, sync, notify_port)
        else:
            raise Refusal(c.KERN_INVALID_VALUE, "N section 1", f"{variant} is not a notification to ask for")
    except Refusal:
        if notify_port is not None:
            destroy_refused(kernel, notify_port, c.MACH_MSG_TYPE_PORT_SEND_ONCE)
        raise
    if previous is None:
        return c.MACH_PORT_NULL
    old, _ = copyout_or_destroy(kernel, caller.space, previous, c.MACH_MSG_TYPE_PORT_SEND_ONCE)
    return old


def copyin_notify(kernel: Kernel, caller: Task, name: int, disposition: int) -> Port | None:
    """The send-once right that a call was given to notify with; None for MACH_PORT_NULL (steps 2 and 3)."""
    if kernel.calls_are_messages:
        return _copyin_notify_by_message(kernel, caller, name, disposition)
    if name == c.MACH_PORT_NULL:
        return None
    if name != c.MACH_PORT_DEAD and (
        not is_disposition(disposition) or kind_of(disposition) != c.MACH_MSG_TYPE_PORT_SEND_ONCE
    ):
        raise Refusal(c.MIG_BAD_ARGUMENTS, "F1", "notify_type is neither MAKE_SEND_ONCE nor MOVE_SEND_ONCE")
    entry = caller.space.lookup(name)
    if entry is None or not has_right_for(entry, disposition):
        raise Refusal(c.KERN_INVALID_CAPABILITY, "F2", f"notify {name:#x} is not the right that notify_type needs")
    return _alive(copyin(kernel, caller.space, entry, disposition), "N10")


def _copyin_notify_by_message(kernel: Kernel, caller: Task, name: int, disposition: int) -> Port | None:
    """The same where the right travels in a message: it is taken, whatever it is, before it is judged."""
    if not is_disposition(disposition):
        raise Refusal(c.MIG_BAD_ARGUMENTS, "F1")
    port: Port | None = None
    if not is_nameless(name):
        entry = caller.space.lookup(name)
        if entry is None or not has_right_for(entry, disposition):
            raise Refusal(c.MACH_SEND_INVALID_RIGHT, "F2")
        port = copyin(kernel, caller.space, entry, disposition)
    if kind_of(disposition) != c.MACH_MSG_TYPE_PORT_SEND_ONCE:
        destroy_refused(kernel, port, kind_of(disposition))
        raise Refusal(c.MIG_BAD_ARGUMENTS, "F1")
    if name == c.MACH_PORT_DEAD:
        raise Refusal(c.KERN_INVALID_CAPABILITY, "F2")
    return None if port is None else _alive(port, "F2")


def _alive(port: Port, rule: str) -> Port:
    if not port.active:
        raise Refusal(c.KERN_INVALID_CAPABILITY, rule, "the notify port is dead")
    return port


def _entry(space: Space, name: int) -> Entry:
    entry = space.lookup(name)
    if entry is None:
        raise Refusal(c.KERN_INVALID_NAME, "F3")
    return entry


def _receive_right(space: Space, name: int, rule: str) -> Port:
    entry = _entry(space, name)
    if not entry.type & c.MACH_PORT_TYPE_RECEIVE:
        raise Refusal(c.KERN_INVALID_RIGHT, rule, "not a receive right")
    assert entry.port is not None
    return entry.port


def _port_destroyed(space: Space, name: int, sync: int, notify: Port | None) -> Port | None:
    if sync:
        raise Refusal(c.KERN_INVALID_VALUE, "N section 1", "sync must be 0 for a port-destroyed notification")
    port = _receive_right(space, name, "N section 1.1")
    previous = port.pd_request
    port.pd_request = notify
    return previous


def _no_senders(kernel: Kernel, space: Space, name: int, sync: int, notify: Port | None) -> Port | None:
    port = _receive_right(space, name, "N section 1.2")
    previous = port.ns_request
    port.ns_request = notify
    if notify is not None and port.srights == 0 and sync <= port.mscount:
        port.ns_request = None
        send_notification(kernel, word_notification(c.MACH_NOTIFY_NO_SENDERS, notify, port.mscount))
    return previous


def _dead_name(kernel: Kernel, space: Space, name: int, sync: int, notify: Port | None) -> Port | None:
    entry = _entry(space, name)
    if entry.type == c.MACH_PORT_TYPE_DEAD_NAME:
        _notify_of_dead_name(kernel, entry, notify, bool(sync))
        return None
    return _swap_request(kernel, entry, notify, False)


def _send_possible(kernel: Kernel, space: Space, name: int, sync: int, notify: Port | None) -> Port | None:
    """Uses the entry's one slot (N66); armed at once if ``sync`` is not 0 (N67), else by a later send (N68)."""
    entry = _entry(space, name)
    if entry.type == c.MACH_PORT_TYPE_DEAD_NAME:
        _notify_of_dead_name(kernel, entry, notify, True)
        return None
    previous = _swap_request(kernel, entry, notify, True)
    port = entry.port
    if notify is not None and sync:
        assert port is not None and port.requests is not None
        if entry.type & c.MACH_PORT_TYPE_SEND_ONCE or not port.full():
            take_request(entry)
            send_notification(kernel, word_notification(c.MACH_NOTIFY_SEND_POSSIBLE, notify, entry.name))
        else:
            port.requests.armed[entry.request] = None
            if port.quota is not None and port.msgcount < port.qlimit:
                port.quota.wait(port)
    return previous


def _notify_of_dead_name(kernel: Kernel, entry: Entry, notify: Port | None, immediate: bool) -> None:
    """There is nothing to register on a dead name: the notification is sent now, or refused (N22)."""
    if not immediate or notify is None:
        raise Refusal(c.KERN_INVALID_ARGUMENT, "F5", "the name is dead already; ask with sync to be told at once")
    if entry.urefs >= c.MACH_PORT_UREFS_MAX:
        raise Refusal(c.KERN_UREFS_OVERFLOW, "F7", "the dead name has all the references that it can have")
    entry.urefs += 1
    send_notification(kernel, word_notification(c.MACH_NOTIFY_DEAD_NAME, notify, entry.name))


def _swap_request(kernel: Kernel, entry: Entry, notify: Port | None, send_possible: bool) -> Port | None:
    """Replace the entry's request in one step; the one before is not told (N2)."""
    port = entry.port
    if port is None:
        raise Refusal(c.KERN_INVALID_RIGHT, "N section 1.3", "a port set cannot die")
    previous = take_request(entry)
    if notify is not None:
        if port.requests is None:
            port.requests = kernel.new_request_table()
        entry.request = port.requests.add(new_request(entry, entry.name, notify, send_possible))
    return None if previous is None else previous.notify
