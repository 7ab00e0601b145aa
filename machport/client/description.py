"""What the kernel tells of a name: its port, who receives there, and who did before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from machport.abi import constants as c
from machport.abi import traps as t
from machport.peer.death import Obituary


class Description(NamedTuple):
    """What is known of a name of the task's own.

    Attributes:
        type: MACH_PORT_TYPE_ bits.
        urefs: user references of a send right, send-once right or dead name.
        label: what its receiver calls the port, or called it as it died; "" if nothing.
        holder: label of the task that has the receive right; "" if it is on its way, the kernel's, or dead.
        holder_pid: that task's process; 0 if there is none.
        obituary: how the task ended that had the receive right and took it along; None if none did, if the port was
            given up by whoever had it after that, or if it is too long ago.
        unreceived: for a receive right: the answer that will not come belonged to a message that nobody had received.
    """

    type: int
    urefs: int
    label: str
    holder: str
    holder_pid: int
    obituary: Obituary | None
    unreceived: bool

    @property
    def is_dead(self) -> bool:
        """Whether it is a dead name."""
        return bool(self.type & c.MACH_PORT_TYPE_DEAD_NAME)


#: Fields and words of an answer to DESCRIBE.
Fields = tuple[tuple[int, ...], Sequence[int]]


def unpack_description(fields: Fields, ask_again: Callable[[], Fields | None]) -> Description:
    """Read an answer to DESCRIBE.

    Args:
        ask_again: for another one, while it is not known how a process ended; None if nobody knows the name any more.
    """
    (type, urefs, flags, holder_pid, pid, when, status), words = fields
    label, holder, ended, reason = t.unpack_texts(words, 4)

    def status_now() -> int | None:
        later = ask_again()
        if later is None:
            return None
        _, _, flags, _, pid_now, when_now, status = later[0]
        is_same = flags & t.DESCRIBE_STATUS and (pid_now, when_now) == (pid, when)
        return status if is_same else None

    obituary = None
    if flags & t.DESCRIBE_ENDED:
        known = status if flags & t.DESCRIBE_STATUS else None
        obituary = Obituary(ended, pid, when / 1_000_000, status=known, reason=reason, ask_again=status_now)
    return Description(type, urefs, label, holder, holder_pid, obituary, bool(flags & t.DESCRIBE_UNRECEIVED))
