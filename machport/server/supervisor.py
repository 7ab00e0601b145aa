"""What a service manager is told: that the daemon is ready, is being replaced, and as which process it goes on.

systemd's protocol: datagrams to the socket that ``NOTIFY_SOCKET`` names.  Without it nothing is said.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import Final

VARIABLE: Final = "NOTIFY_SOCKET"


def tell_ready() -> None:
    """The daemon serves."""
    _tell("READY=1")


def tell_reloading() -> None:
    """The daemon is about to be replaced; ``tell_ready`` comes when that is over."""
    _tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")


def tell_successor(pid: int) -> None:
    """Another process is the daemon from now on.  For the one that it was until now, which is believed."""
    _tell(f"MAINPID={pid}")


def _tell(says: str) -> None:
    address = os.environ.get(VARIABLE, "")
    if not address:
        return
    # A name without a file begins with a zero byte.
    address = "\0" + address[1:] if address.startswith("@") else address
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        sock.sendto(says.encode(), address)
