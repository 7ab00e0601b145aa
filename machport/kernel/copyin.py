"""A message out of a task: a sender's bytes become rights (the specification of messages, section 3).

Checks in the manual's order; header rights both or none; body rights one by one, all lost at the first that is not
there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from machport.abi import constants as c
from machport.abi import message as layout
from machport.abi import words
from machport.abi.message import Descriptor, Parsed
from machport.kernel.kernel import Kernel
from machport.kernel.message import Item, Message, new_item, new_message
from machport.kernel.port import DEAD, TRANSIT_MAX, Port
from machport.kernel.refusal import Refusal
from machport.kernel.release import clean_message, notify
from machport.kernel.rights import (
    copyin,
    copyin_quietly,
    has_right_for,
    is_nameless,
    is_send_disposition,
    kind_of,
)
from machport.kernel.space import Entry, Space
from machport.kernel.task import Task

_PORT_NAME_SIZE: Final = 4


def copyin_message(kernel: Kernel, task: Task, buffer: bytes | memoryview, memory: Sequence[bytes | None]) -> Message:
    """Take a message and its rights out of a task.

    Args:
        buffer, memory: as for ``mach_msg``.

    Raises:
        Refusal: with the ``mach_msg_return_t`` of the first check that fails.  Up to the header nothing has happened
            then; a failure in the body has destroyed what was taken (M8).
    """
    source = words.source(buffer)
    parsed = layout.scan(source, True)
    if parsed.code:
        raise Refusal(parsed.code, "M section 3")
    _check_header(parsed)
    space = task.space
    if not space.active:
        raise Refusal(c.MACH_SEND_INVALID_DEST, "P section 11")
    if not parsed.bits & c.MACH_MSGH_BITS_COMPLEX:
        if len(memory):
            raise Refusal(c.MACH_SEND_INVALID_DATA, "M10")
        message = _copyin_header(kernel, space, parsed, task.tokens)
        message.inline = words.kept(source, parsed.inline_at)
        return message
    regions = _match_memory(parsed.descriptors, memory)
    message = _copyin_header(kernel, space, parsed, task.tokens)
    message.inline = words.kept(source, parsed.inline_at)
    message.items = []
    _copyin_body(kernel, space, message, parsed.descriptors, regions)
    return message


def _check_header(parsed: Parsed) -> None:
    remote = parsed.bits & c.MACH_MSGH_BITS_REMOTE_MASK
    local = parsed.bits >> 8 & c.MACH_MSGH_BITS_REMOTE_MASK
    local_ok = is_send_disposition(local) or (local == 0 and parsed.local == c.MACH_PORT_NULL)
    if not local_ok or not is_send_disposition(remote):
        raise Refusal(c.MACH_SEND_INVALID_HEADER, "M section 3")
    if parsed.bits & c.MACH_MSGH_BITS_VOUCHER_MASK:
        raise Refusal(c.MACH_SEND_INVALID_VOUCHER, "M5")


def _match_memory(descriptors: Sequence[Descriptor], memory: Sequence[bytes | None]) -> list[bytes | None]:
    """One region for each descriptor; b"" for ports, None for memory that could not be read.

    Raises:
        Refusal: SEND_INVALID_DATA, the regions that came along are not those that the descriptors announce.
    """
    regions: list[bytes | None] = []
    given = deque(memory)
    for descriptor in descriptors:
        if descriptor.type == c.MACH_MSG_PORT_DESCRIPTOR:
            regions.append(b"")
            continue
        unit = _PORT_NAME_SIZE if descriptor.type == c.MACH_MSG_OOL_PORTS_DESCRIPTOR else 1
        region = given.popleft() if given else b""
        if region is not None and len(region) != descriptor.size * unit:
            raise Refusal(c.MACH_SEND_INVALID_DATA, "M10")
        regions.append(region)
    if given:
        raise Refusal(c.MACH_SEND_INVALID_DATA, "M10")
    return regions


def _copyin_header(kernel: Kernel, space: Space, parsed: Parsed, tokens: Sequence[int]) -> Message:
    """Take destination and reply right, both or none (M3, M4, M6, M7)."""
    remote = parsed.bits & c.MACH_MSGH_BITS_REMOTE_MASK
    local = parsed.bits >> 8 & c.MACH_MSGH_BITS_REMOTE_MASK
    destination = space.lookup(parsed.remote)
    if destination is None:
        raise Refusal(c.MACH_SEND_INVALID_DEST, "M3")
    reply: Entry | None = None
    if not is_nameless(parsed.local):
        reply = space.lookup(parsed.local)
        if reply is None or not has_right_for(reply, local):
            raise Refusal(c.MACH_SEND_INVALID_REPLY, "M3")
    if not has_right_for(destination, remote, False):
        raise Refusal(c.MACH_SEND_INVALID_DEST, "M4")
    if reply is destination:
        _check_same_name(destination, remote, local)

    deleted: list[Message] | None = None
    if destination.request or (reply is not None and reply.request):
        deleted = []
    local_port: Port | None = None
    if reply is None:
        remote_port = copyin_quietly(kernel, space, destination, remote, deleted)
        if parsed.local == c.MACH_PORT_DEAD:
            local_port = DEAD
    elif reply is destination and local == c.MACH_MSG_TYPE_COPY_SEND:
        # With one copied and one moved, the copy comes first: there may be a single reference.
        local_port = copyin_quietly(kernel, space, reply, local, deleted)
        remote_port = copyin_quietly(kernel, space, destination, remote, deleted)
    else:
        remote_port = copyin_quietly(kernel, space, destination, remote, deleted)
        local_port = copyin_quietly(kernel, space, reply, local, deleted)
    if deleted is not None:
        for notification in deleted:
            notify(kernel, notification)
    message = new_message(remote_port, kind_of(remote), parsed.id, tokens)
    message.local = local_port
    if local:
        message.local_type = kind_of(local)
        message.asks = local == c.MACH_MSG_TYPE_MAKE_SEND_ONCE
    message.voucher = parsed.voucher
    return message


def _check_same_name(entry: Entry, remote: int, local: int) -> None:
    """One name for both rights must have both (M6); rights that are made are no problem."""
    if _makes(remote) or _makes(local):
        return
    if remote == c.MACH_MSG_TYPE_MOVE_SEND_ONCE or local == c.MACH_MSG_TYPE_MOVE_SEND_ONCE:
        raise Refusal(c.MACH_SEND_INVALID_DEST, "M6")
    if remote == local == c.MACH_MSG_TYPE_MOVE_SEND and entry.urefs < 2:
        raise Refusal(c.MACH_SEND_INVALID_DEST, "M6")


def _makes(disposition: int) -> bool:
    return disposition == c.MACH_MSG_TYPE_MAKE_SEND or disposition == c.MACH_MSG_TYPE_MAKE_SEND_ONCE


def _copyin_body(
    kernel: Kernel,
    space: Space,
    message: Message,
    descriptors: Sequence[Descriptor],
    regions: Sequence[bytes | None],
) -> None:
    """Take the body in order; at the first right or memory that is not there, all is destroyed (M8)."""
    assert message.items is not None
    above: set[Port] | None = None
    for taken, (descriptor, region) in enumerate(zip(descriptors, regions, strict=True)):
        if region is None:
            clean_message(kernel, message)
            raise Refusal(c.MACH_SEND_INVALID_MEMORY, "M8", taken=taken)
        if descriptor.type == c.MACH_MSG_PORT_DESCRIPTOR:
            item = new_item(descriptor, kind_of(descriptor.disposition), [])
            names: Sequence[int] = (descriptor.name,)
        elif descriptor.type == c.MACH_MSG_OOL_PORTS_DESCRIPTOR:
            item = new_item(descriptor, kind_of(descriptor.disposition), [])
            names = memoryview(region).cast("I")
        else:
            try:
                item = new_item(descriptor, 0, [], bytes(region))
            except MemoryError:
                clean_message(kernel, message)
                raise Refusal(c.MACH_SEND_NO_BUFFER, "limits", taken=taken) from None
            names = ()
        message.items.append(item)
        if above is None and descriptor.disposition == c.MACH_MSG_TYPE_MOVE_RECEIVE:
            assert message.remote is not None
            above = message.remote.above()
            if above is None:
                clean_message(kernel, message)
                says = f"the port is inside of {TRANSIT_MAX} others that are on their way; receive them first"
                raise Refusal(c.MACH_SEND_NO_BUFFER, "limits", says, taken)
        for name in names:
            if not _copyin_item(kernel, space, message, item, name, descriptor.disposition, above):
                clean_message(kernel, message)
                raise Refusal(c.MACH_SEND_INVALID_RIGHT, "M8", taken=taken)


def _copyin_item(
    kernel: Kernel, space: Space, message: Message, item: Item, name: int, disposition: int, above: set[Port] | None
) -> bool:
    """Take a right; whether the task has it.

    Args:
        above: the destination, and where it travels.
    """
    if is_nameless(name):
        item.ports.append(DEAD if name else None)
        return True
    entry = space.lookup(name)
    if entry is None or not has_right_for(entry, disposition):
        return False
    port = copyin(kernel, space, entry, disposition)
    item.ports.append(port)
    if disposition == c.MACH_MSG_TYPE_MOVE_RECEIVE:
        assert above is not None
        if port in above:
            message.circular = True
        else:
            port.destination = message.remote
    return True
