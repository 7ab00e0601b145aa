"""Messages as the kernel holds them: rights in place of names.

A message owns every right in it until it is received or destroyed.  Knows nothing of how rights are taken or given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from machport.abi import constants as c
from machport.abi import words
from machport.abi.message import KERNEL_TOKENS, Descriptor, descriptor_size, port_descriptor

if TYPE_CHECKING:
    from machport.kernel.port import Port


#: Bytes that a right in a message's body counts as.
RIGHT_WEIGHT: Final = 256


class Item:
    """One descriptor's content: its layout, and the rights or memory in it.

    ``type`` is the kind of right as received: MOVE_RECEIVE, MOVE_SEND or MOVE_SEND_ONCE; 0 for memory.  A port is
    None for MACH_PORT_NULL and ``port.DEAD``, or any dead port, for MACH_PORT_DEAD.  Made by ``new_item``.
    """

    __slots__ = ("descriptor", "memory", "ports", "type")

    def begin(self, descriptor: Descriptor, type: int, ports: list[Port | None], memory: bytes) -> None:
        self.descriptor = descriptor
        self.type = type
        self.ports = ports
        self.memory = memory


class Message:
    """A message in the kernel, made by ``new_message``.

    Attributes:
        remote, remote_type: destination right, MOVE_SEND or MOVE_SEND_ONCE.
        local, local_type: reply right in the same terms; type 0 for none.
        items: contents of the descriptors; None if the message is not complex.
        tokens: sender (euid, egid) and audit token, fixed when the message was sent (M35).
        circular: carries a right that must not arrive where it is sent (P27).
        serial: which of all messages it is that tasks have sent; 0 for one of the kernel's.
        asks: its reply right was made for it, so that whoever waits for the answer waits for this message's.
    """

    __slots__ = (
        "asks",
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
        "serial",
        "tokens",
        "voucher",
        "weight",
    )

    def begin(self, remote: Port | None, remote_type: int, id: int, tokens: Sequence[int]) -> None:
        self.remote = remote
        self.remote_type = remote_type
        self.local: Port | None = None
        self.local_type = 0
        self.id = id
        self.items: list[Item] | None = None
        self.inline: bytes | memoryview = b""
        self.voucher = 0
        self.tokens = tokens
        self.circular = False
        self.asks = False
        self.seqno = 0
        self.serial = 0
        #: Was received once, by a task that ended before it saw it.
        self.returned = False
        self.next: Message | None = None
        #: What ``weigh`` found; 0 before.
        self.weight = 0

    def weigh(self) -> int:
        """Bytes that the message counts as while it waits: header, data, memory, and so many for each right in it.

        A right may be all that keeps a port, so it weighs about what a port does.
        """
        if not self.weight:
            self.weight = self.size()
            if self.items is not None:
                for item in self.items:
                    self.weight += len(item.memory) + RIGHT_WEIGHT * len(item.ports)
        return self.weight

    def size(self) -> int:
        """``msgh_size`` on reception: header, descriptors, inline data."""
        size = words.HEADER_SIZE + len(self.inline)
        if self.items is not None:
            size += words.BODY_SIZE - words.HEADER_SIZE
            for item in self.items:
                size += descriptor_size(item.descriptor.type)
        return size

    def typed_size(self) -> int:
        """The same in GNU Mach's typed layout (E6): one item for each right, one for inline data."""
        if self.items is None:
            return words.HEADER_SIZE + (8 if len(self.inline) else 0)
        size = words.HEADER_SIZE + len(self.inline)
        for item in self.items:
            size += 8 * len(item.ports)
        return size


def new_item(descriptor: Descriptor, type: int, ports: list[Port | None], memory: bytes = b"") -> Item:
    item = Item.__new__(Item)
    item.begin(descriptor, type, ports, memory)
    return item


def new_message(remote: Port | None, remote_type: int, id: int = 0, tokens: Sequence[int] = KERNEL_TOKENS) -> Message:
    """A message without reply right, body and inline data; they are for the caller to add."""
    message = Message.__new__(Message)
    message.begin(remote, remote_type, id, tokens)
    return message


def send_once_notification(port: Port) -> Message:
    """A send-once right of the port was destroyed unused; the right is used up by saying so (N55)."""
    return new_message(port, c.MACH_MSG_TYPE_MOVE_SEND_ONCE, c.MACH_NOTIFY_SEND_ONCE)


def word_notification(id: int, port: Port, word: int) -> Message:
    """Dead-name, port-deleted, send-possible (``word`` is the name) or no-senders (``word`` is the count)."""
    message = new_message(port, c.MACH_MSG_TYPE_MOVE_SEND_ONCE, id)
    message.inline = words.pack_ndr_and_word(word)
    return message


def port_destroyed_notification(port: Port, right: Port) -> Message:
    """The receive right that would have been destroyed (N30)."""
    message = new_message(port, c.MACH_MSG_TYPE_MOVE_SEND_ONCE, c.MACH_NOTIFY_PORT_DESTROYED)
    descriptor = port_descriptor(0, c.MACH_MSG_TYPE_MOVE_RECEIVE)
    message.items = [new_item(descriptor, c.MACH_MSG_TYPE_MOVE_RECEIVE, [right])]
    return message
