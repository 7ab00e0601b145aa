"""Messages as the kernel holds them: rights in place of names.

A message owns every right in it until it is received or destroyed.  Knows nothing of how rights are taken or given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from machport.abi import constants as c
from machport.abi.message import (
    BODY_SIZE,
    HEADER_SIZE,
    KERNEL_TOKENS,
    NDR,
    Descriptor,
    port_descriptor,
)

if TYPE_CHECKING:
    from machport.kernel.port import Port


class Item:
    """One descriptor's content: its layout, and the rights or memory in it.

    ``type`` is the kind of right as received: MOVE_RECEIVE, MOVE_SEND or MOVE_SEND_ONCE; 0 for memory.  A port is
    None for MACH_PORT_NULL and ``port.DEAD``, or any dead port, for MACH_PORT_DEAD.
    """

    __slots__ = ("descriptor", "memory", "ports", "type")

    def __init__(self, descriptor: Descriptor, type: int, ports: list[Port | None], memory: bytes = b"") -> None:
        self.descriptor = descriptor
        self.type = type
        self.ports = ports
        self.memory = memory


class Message:
    """A message in the kernel.

    Attributes:
        remote, remote_type: destination right, MOVE_SEND or MOVE_SEND_ONCE.
        local, local_type: reply right in the same terms; type 0 for none.
        items: contents of the descriptors; None if the message is not complex.
        tokens: sender (euid, egid) and audit token, fixed when the message was sent (M35).
        circular: carries a right that must not arrive where it is sent (P27).
    """

    __slots__ = (
        "circular",
        "id",
        "inline",
        "items",
        "local",
        "local_type",
        "next",
        "remote",
        "remote_type",
        "returned",
        "seqno",
        "tokens",
        "voucher",
    )

    def __init__(
        self,
        remote: Port | None,
        remote_type: int,
        local: Port | None = None,
        local_type: int = 0,
        id: int = 0,
        items: list[Item] | None = None,
        inline: bytes = b"",
        voucher: int = 0,
        tokens: Sequence[int] = KERNEL_TOKENS,
    ) -> None:
        self.remote = remote
        self.remote_type = remote_type
        self.local = local
        self.local_type = local_type
        self.id = id
        self.items = items
        self.inline = inline
        self.voucher = voucher
        self.tokens = tokens
        self.circular = False
        self.seqno = 0
        #: Was received once, by a task that ended before it saw it.
        self.returned = False
        self.next: Message | None = None

    @property
    def size(self) -> int:
        """``msgh_size`` on reception: header, descriptors, inline data."""
        if self.items is None:
            return HEADER_SIZE + len(self.inline)
        return BODY_SIZE + sum(len(item.descriptor.pack()) for item in self.items) + len(self.inline)

    @property
    def typed_size(self) -> int:
        """The same in GNU Mach's typed layout (E6): one item for each right, one for inline data."""
        if self.items is not None:
            return HEADER_SIZE + 8 * sum(len(item.ports) for item in self.items) + len(self.inline)
        return HEADER_SIZE + (8 if self.inline else 0)


def send_once_notification(port: Port) -> Message:
    """A send-once right of the port was destroyed unused; the right is used up by saying so (N55)."""
    return Message(port, c.MACH_MSG_TYPE_MOVE_SEND_ONCE, id=c.MACH_NOTIFY_SEND_ONCE)


def word_notification(id: int, port: Port, word: int) -> Message:
    """Dead-name, port-deleted, send-possible (``word`` is the name) or no-senders (``word`` is the count)."""
    return Message(port, c.MACH_MSG_TYPE_MOVE_SEND_ONCE, id=id, inline=NDR + word.to_bytes(4, "little"))


def port_destroyed_notification(port: Port, right: Port) -> Message:
    """The receive right that would have been destroyed (N30)."""
    descriptor = port_descriptor(0, c.MACH_MSG_TYPE_MOVE_RECEIVE)
    item = Item(descriptor, c.MACH_MSG_TYPE_MOVE_RECEIVE, [right])
    return Message(port, c.MACH_MSG_TYPE_MOVE_SEND_ONCE, id=c.MACH_NOTIFY_PORT_DESTROYED, items=[item])
