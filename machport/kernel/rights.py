"""Rights out of a space ("copyin") and into one ("copyout"): sections 3 and 4 of the specification of ports.

Between the two a right is a port and a kind: MOVE_RECEIVE, MOVE_SEND or MOVE_SEND_ONCE.
"""

from __future__ import annotations

from machport.abi import constants as c
from machport.abi import words
from machport.abi.message import is_disposition, port_descriptor
from machport.kernel.kernel import Kernel
from machport.kernel.message import Message, new_item, new_message
from machport.kernel.port import DEAD, Port
from machport.kernel.refusal import Refusal
from machport.kernel.release import (
    cancel_no_senders,
    clean_item,
    clear_receiver,
    destroy_message,
    free_entry,
    notify,
    release_right,
)
from machport.kernel.space import Entry, Space, new_entry


def kind_of(disposition: int) -> int:
    """The kind of right that a disposition results in."""
    if disposition == c.MACH_MSG_TYPE_MOVE_RECEIVE:
        return c.MACH_MSG_TYPE_PORT_RECEIVE
    if disposition == c.MACH_MSG_TYPE_MOVE_SEND_ONCE or disposition == c.MACH_MSG_TYPE_MAKE_SEND_ONCE:
        return c.MACH_MSG_TYPE_PORT_SEND_ONCE
    return c.MACH_MSG_TYPE_PORT_SEND


def is_send_disposition(disposition: int) -> bool:
    """Whether a destination or reply port may have a disposition: all but MOVE_RECEIVE."""
    return disposition != c.MACH_MSG_TYPE_MOVE_RECEIVE and is_disposition(disposition)


def is_nameless(name: int) -> bool:
    """Whether a number is never a name: null, or dead (P1)."""
    return name == c.MACH_PORT_NULL or name == c.MACH_PORT_DEAD


def has_right_for(entry: Entry, disposition: int, dead_ok: bool = True) -> bool:
    """Whether an entry has what a disposition needs; a dead name will do where a send right is taken (P7, P8)."""
    if disposition == c.MACH_MSG_TYPE_COPY_SEND or disposition == c.MACH_MSG_TYPE_MOVE_SEND:
        needed = c.MACH_PORT_TYPE_SEND
    elif disposition == c.MACH_MSG_TYPE_MOVE_SEND_ONCE:
        needed = c.MACH_PORT_TYPE_SEND_ONCE
    else:
        return entry.type & c.MACH_PORT_TYPE_RECEIVE != 0
    return entry.type & needed != 0 or (dead_ok and entry.type == c.MACH_PORT_TYPE_DEAD_NAME)


def copyin(kernel: Kernel, space: Space, entry: Entry, disposition: int) -> Port:
    """Take a right out of an entry that has it; ``DEAD`` if it is a dead name.

    A name that this frees gives a port-deleted notification at once (P9).
    """
    if not entry.request:
        return copyin_quietly(kernel, space, entry, disposition, None)
    deleted: list[Message] = []
    port = copyin_quietly(kernel, space, entry, disposition, deleted)
    for notification in deleted:
        notify(kernel, notification)
    return port


def copyin_quietly(kernel: Kernel, space: Space, entry: Entry, disposition: int, deleted: list[Message] | None) -> Port:
    """The same, leaving the port-deleted notification to the caller, who takes more than one right at a time (M7).

    Args:
        deleted: takes the notification; None if the entry has no request, from which one could come.
    """
    port = entry.port
    if port is None:
        if disposition == c.MACH_MSG_TYPE_MOVE_SEND or disposition == c.MACH_MSG_TYPE_MOVE_SEND_ONCE:
            _take_reference(space, entry, deleted)
        return DEAD
    if disposition == c.MACH_MSG_TYPE_MAKE_SEND_ONCE:
        port.sorights += 1
        port.unreceived = False
        port.lost_with = 0
    elif disposition == c.MACH_MSG_TYPE_MAKE_SEND:
        port.mscount = words.wrap(port.mscount + 1)
        port.srights += 1
    elif disposition == c.MACH_MSG_TYPE_COPY_SEND:
        port.srights += 1
    elif disposition == c.MACH_MSG_TYPE_MOVE_SEND:
        if entry.urefs > 1:
            port.srights += 1
        _take_reference(space, entry, deleted)
    elif disposition == c.MACH_MSG_TYPE_MOVE_SEND_ONCE:
        _free(space, entry, deleted)
    else:
        if entry.type & c.MACH_PORT_TYPE_SEND:
            entry.type = c.MACH_PORT_TYPE_SEND
        else:
            _free(space, entry, deleted)
        clear_receiver(kernel, port)
        cancel_no_senders(kernel, port)
    return port


def _take_reference(space: Space, entry: Entry, deleted: list[Message] | None) -> None:
    if entry.urefs > 1:
        entry.urefs -= 1
    elif entry.type == c.MACH_PORT_TYPE_SEND_RECEIVE:
        entry.type = c.MACH_PORT_TYPE_RECEIVE
        entry.urefs = 0
    else:
        _free(space, entry, deleted)


def _free(space: Space, entry: Entry, deleted: list[Message] | None) -> None:
    notification = free_entry(space, entry)
    if notification is not None:
        assert deleted is not None
        deleted.append(notification)


def copyout(space: Space, port: Port | None, kind: int) -> int:
    """Put a right into a space: its name there, 0 for no right, ~0 for one whose port has died (P10-P14).

    Raises:
        Refusal: KERN_NO_SPACE; the right still belongs to the caller (P15).
    """
    if port is None:
        return c.MACH_PORT_NULL
    if not port.active:
        return c.MACH_PORT_DEAD
    entry = None if kind == c.MACH_MSG_TYPE_PORT_SEND_ONCE else space.by_port.get(port)
    if entry is None:
        entry = enter_right(space, space.pick_name(), port, kind)
    else:
        join_entry(space, entry, port, kind)
    return entry.name


def enter_right(space: Space, name: int, port: Port, kind: int) -> Entry:
    """A new name denotes one right."""
    if kind == c.MACH_MSG_TYPE_PORT_SEND:
        entry = new_entry(name, c.MACH_PORT_TYPE_SEND, 1, port)
    elif kind == c.MACH_MSG_TYPE_PORT_SEND_ONCE:
        entry = new_entry(name, c.MACH_PORT_TYPE_SEND_ONCE, 1, port)
    else:
        entry = new_entry(name, c.MACH_PORT_TYPE_RECEIVE, 0, port)
        port.receiver = space
        port.destination = None
        port.charge_to(space.quota)
    space.add(entry)
    return entry


def join_entry(space: Space, entry: Entry, port: Port, kind: int) -> None:
    """A send or receive right joins the entry that its space has for the port (P11, P12).

    A full entry absorbs a send right silently (P14).
    """
    if kind == c.MACH_MSG_TYPE_PORT_RECEIVE:
        entry.type |= c.MACH_PORT_TYPE_RECEIVE
        port.receiver = space
        port.destination = None
        port.charge_to(space.quota)
        port.name = entry.name
        return
    if entry.type & c.MACH_PORT_TYPE_SEND:
        port.srights -= 1
        if entry.urefs < c.SEND_UREFS_MAX:
            entry.urefs += 1
    else:
        entry.type |= c.MACH_PORT_TYPE_SEND
        entry.urefs = 1


def copyout_or_destroy(kernel: Kernel, space: Space, port: Port | None, kind: int) -> tuple[int, int]:
    """A name and 0; or 0 and the bit that says why the right could not be entered and was destroyed (P15, M28)."""
    try:
        return copyout(space, port, kind), 0
    except Refusal:
        release_right(kernel, port, kind)
        return c.MACH_PORT_NULL, c.MACH_MSG_IPC_SPACE


def destroy_refused(kernel: Kernel, port: Port | None, kind: int) -> None:
    """Destroy a right that a refused call was given (P16), in the order of the dialect."""
    item = new_item(port_descriptor(c.MACH_PORT_NULL, kind), kind, [port])
    if kernel.calls_are_messages:
        message = new_message(None, 0)
        message.items = [item]
        destroy_message(kernel, message)
    else:
        clean_item(kernel, item)
