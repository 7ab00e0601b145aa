"""Why a client's task ended, in the words of its obituary."""

from __future__ import annotations

import contextlib
import select
from typing import Final

from machport.peer.attestation import Peer
from machport.peer.death import LET_GO
from machport.peer.liveness import is_dead, number_in_proc
from machport.server.connection import Client

#: Why a task ends: its process does, or its connection.
DIED: Final = "its process died"
HUNG_UP: Final = "its connection ended"


def reason(client: Client, why: str) -> str:
    """What ended a task; "" if that was the end of its process.

    Args:
        why: ``DIED``, ``HUNG_UP``, or what the daemon cut it off for.
    """
    if client.closes:
        return "closed its task"
    if why == DIED or _is_dying(client.peer):
        return ""
    if why == HUNG_UP:
        return LET_GO
    return f"was {why}" if why.startswith("cut off") else f"was cut off: {why}"


def _is_dying(peer: Peer) -> bool:
    """Whether the process is dead, or no thread of it will run its program again."""
    poll = select.poll()
    poll.register(peer.pidfd, select.POLLIN)
    if poll.poll(0):
        return True
    with contextlib.suppress(OSError, ValueError):
        number = number_in_proc(peer.pidfd)
        if number > 0 and is_dead(number):
            return True
    # It may be gone altogether since it was first looked at.
    return bool(poll.poll(0))
