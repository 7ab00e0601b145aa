"""What a task may have at once, and how much of it is used: nine numbers and their bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from machport.abi.errors import InvalidArgument

#: The largest number that a limit can be.
LIMIT_MAX: Final = (1 << 63) - 1
#: Stands for a limit that is not given.
_NONE: Final = (1 << 64) - 1


class Limits(NamedTuple):
    """How much a task may have at once; or, as ``Task.usage`` tells it, how much it has.

    A field that is None is left as it is.

    Attributes:
        names: port names: receive, send and send-once rights, port sets and dead names.
        messages: messages in the queues of all its ports; with so many, senders to any of its ports wait.
        bytes: bytes of these messages, with memory; a right in a body counts as 256.
        sending: bytes of its own messages that wait for room elsewhere.
        waiters: calls that wait, of threads and of event loops.
        threads: threads that make calls.
        memory: bytes of memory that it shares with the daemon for its calls.
        descriptors: descriptors of the daemon: of connections, of threads, and of files behind its fileports.
        children: tasks that it made and whose processes have not joined, and rights pickled on their way.
    """

    names: int | None = None
    messages: int | None = None
    bytes: int | None = None
    sending: int | None = None
    waiters: int | None = None
    threads: int | None = None
    memory: int | None = None
    descriptors: int | None = None
    children: int | None = None

    def words(self) -> list[int]:
        """The numbers as pairs of 32-bit words.

        Raises:
            InvalidArgument: one is no number that a limit can be.
        """
        words = []
        for field, value in self._asdict().items():
            if value is not None and (type(value) is not int or not 0 <= value <= LIMIT_MAX):
                raise InvalidArgument(f"{field} is a number from 0 to {LIMIT_MAX}, or None, not {value!r}")
            number = _NONE if value is None else value
            words += [number & 0xFFFFFFFF, number >> 32]
        return words

    @classmethod
    def of_words(cls, words: Sequence[int]) -> Limits:
        """The limits that ``words`` were made of.

        Raises:
            InvalidArgument: they are too few or too many, or a number is too large.
        """
        if len(words) != 2 * len(cls._fields):
            raise InvalidArgument(f"limits are {2 * len(cls._fields)} words, not {len(words)}")
        numbers = [low | high << 32 for low, high in zip(words[::2], words[1::2], strict=True)]
        if any(LIMIT_MAX < number < _NONE for number in numbers):
            raise InvalidArgument(f"a limit is at most {LIMIT_MAX}")
        return cls(*(None if number == _NONE else number for number in numbers))

    def over(self, other: Limits) -> Limits:
        """These limits, and those of another where these have none."""
        return Limits(*(b if a is None else a for a, b in zip(self, other, strict=True)))

    def within(self, other: Limits) -> Limits:
        """The lower of both in each field."""
        return Limits(*(a if b is None else b if a is None else min(a, b) for a, b in zip(self, other, strict=True)))
