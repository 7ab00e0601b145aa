"""The "data available" message: its header, and the two Mach calls that somebody above must lend.

For this room.  Never sends anything by itself: whoever uses a queue passes a :class:`Notifier`.
Source: spec/dataqueue.md, Q16 and Q28 to Q35.
"""

from __future__ import annotations

import struct
from typing import Final, Protocol

from machport.abi import constants as c

#: msgh_bits, msgh_size, msgh_remote_port, msgh_local_port, msgh_voucher_port, msgh_id.
HEADER: Final = struct.Struct("=6I")
REMOTE_PORT_OFFSET: Final = 8


class Notifier(Protocol):
    """Who can send for the producer's task."""

    def send(self, header: bytes) -> int:
        """Send a copy of the 24-byte ``header`` by ``mach_msg`` with SEND_MSG and SEND_TIMEOUT, time-out 0.

        Returns the ``mach_msg`` code and never raises, because the entry is in the ring already.  After
        SEND_TIMED_OUT the send right that came back by pseudo-receive has been dropped; otherwise each
        notification that was not needed would leak a user reference (Q29).
        """
        ...


class Waiter(Protocol):
    """Who can receive for the consumer's task."""

    def receive(self, port: int) -> int:
        """Receive one message of up to 32 bytes on ``port``, without time-out; the ``mach_msg`` code."""
        ...


def header_for(port: int) -> bytes:
    """The header that notifies ``port`` by COPY_SEND: no reply, no voucher, id 0."""
    return HEADER.pack(c.MACH_MSG_TYPE_COPY_SEND, HEADER.size, port, c.MACH_PORT_NULL, c.MACH_PORT_NULL, 0)


def notify(header: bytes | None, notifier: Notifier) -> int | None:
    """Send the notification that ``header`` describes; None if it names no port (Q28)."""
    if header is None or HEADER.unpack(header)[2] == c.MACH_PORT_NULL:
        return None
    return notifier.send(header)
