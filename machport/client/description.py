"""What the kernel tells of a name: its port, who receives there, and who did before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

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
        lost_with: for a receive right: how the task ended that took along the last send-once right that will not be
            used, or the message with it; None if no task ended, or another right has been made since.
    """

    type: int
    urefs: int
    label: str
    holder: str
    holder_pid: int
    obituary: Obituary | None
    unreceived: bool = False
    lost_with: Obituary | None = None

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
    numbers, words = fields
    label, holder, *texts = t.unpack_texts(words, 6)
    type, urefs, flags, holder_pid = numbers[:4]
    return Description(
        type,
        urefs,
        label,
        holder,
        holder_pid,
        _obituary(numbers, texts, _ENDED, ask_again),
        bool(flags & t.DESCRIBE_UNRECEIVED),
        _obituary(numbers, texts, _LOST, ask_again),
    )


class _Place(NamedTuple):
    """Where an obituary stands in an answer: its flags, its first number and its first text."""

    ended: int
    status: int
    number: int
    text: int


_ENDED: Final = _Place(t.DESCRIBE_ENDED, t.DESCRIBE_STATUS, 4, 0)
_LOST: Final = _Place(t.DESCRIBE_LOST, t.DESCRIBE_LOST_STATUS, 7, 2)


def _obituary(
    numbers: Sequence[int], texts: Sequence[str], place: _Place, ask_again: Callable[[], Fields | None]
) -> Obituary | None:
    if not numbers[2] & place.ended:
        return None
    pid, when = _who(numbers, place)

    def status_now() -> int | None:
        later = ask_again()
        if later is None or _who(later[0], place) != (pid, when):
            return None
        return _status(later[0], place)

    label, reason = texts[place.text : place.text + 2]
    return Obituary(label, pid, when / 1_000_000, status=_status(numbers, place), reason=reason, ask_again=status_now)


def _who(numbers: Sequence[int], place: _Place) -> tuple[int, int]:
    return numbers[place.number], numbers[place.number + 1]


def _status(numbers: Sequence[int], place: _Place) -> int | None:
    return numbers[place.number + 2] if numbers[2] & place.status else None
