"""The first packet of a connection: who wants to be a task, and of which version.

``ticket`` is empty for a new task of this user, or what a parent was given for a child task that it has made.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from machport.abi.errors import ProtocolError

MAGIC: Final = b"machport"
#: Raised with every change of traps or packets that an older side would misread.
VERSION: Final = 4
TICKET_SIZE: Final = 16
LABEL_MAX: Final = 128
_LAYOUT: Final = struct.Struct(f"<8sI{TICKET_SIZE}s")


class Hello(NamedTuple):
    """What a task says first."""

    label: str
    ticket: bytes = b""
    version: int = VERSION

    def pack(self) -> bytes:
        label = self.label.encode(errors="replace")[:LABEL_MAX]
        return _LAYOUT.pack(MAGIC, self.version, self.ticket) + label


def unpack_hello(data: bytes) -> Hello:
    """Read a hello.

    Raises:
        ProtocolError: something else spoke first.
    """
    if len(data) < _LAYOUT.size or not data.startswith(MAGIC) or len(data) > _LAYOUT.size + LABEL_MAX:
        raise ProtocolError("the first packet is not a hello")
    _, version, ticket = _LAYOUT.unpack_from(data)
    label = data[_LAYOUT.size :].decode(errors="replace")
    return Hello("".join(filter(str.isprintable, label)), ticket.strip(b"\0") and ticket, version)
