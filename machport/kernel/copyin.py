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
from machport.abi.message import Descriptor, Parsed
from machport.kernel.kernel import Kernel
from machport.kernel.message import Item, Message
from machport.kernel.port import DEAD, Port
from machport.kernel.refusal import Refusal
from machport.kernel.release import clean_message, notify
from machport.kernel.rights import SEND_DISPOSITIONS, copyin, copyin_quietly, has_right_for, kind_of
from machport.kernel.space import Space
from machport.kernel.task import Task

_MAKES: Final = frozenset((c.MACH_MSG_TYPE_MAKE_SEND, c.MACH_MSG_TYPE_MAKE_SEND_ONCE))
_NAMELESS: Final = frozenset((c.MACH_PORT_NULL, c.MACH_PORT_DEAD))
_PORT_NAME_SIZE: Final = 4


def copyin_message(kernel: Kernel, task: Task, buffer: bytes, memory: Sequence[bytes | None]) -> Message:
    """Take a message and its rights out of a task.

    Args:
        memory: as for ``mach_msg``.

    Raises:
        Refusal: with the ``mach_msg_return_t`` of the first check that fails.  Up to the header nothing has happened
            then; a failure in the body has destroyed what was taken (M8).
    """
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
    regions: Sequence[bytes | None],
) -> None:
    """Take the body in order; at the first right or memory that is not there, all is destroyed (M8)."""
    assert message.items is not None
    for taken, (descriptor, region) in enumerate(zip(descriptors, regions, strict=True)):
        if region is None:
            clean_message(kernel, message)
            raise Refusal(c.MACH_SEND_INVALID_MEMORY, "M8", taken=taken)
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
                raise Refusal(c.MACH_SEND_INVALID_RIGHT, "M8", taken=taken)


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
