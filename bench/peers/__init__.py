"""What is measured: ways for Python processes to talk, one file a family.

A peer is a class.  One object of it prepares in the controlling process, another plays each role in a process of its
own, where it gets what was prepared.  Libraries are imported only where they are used, so that one that is missing is
named and the rest goes on.
"""

from __future__ import annotations

import importlib
import importlib.util
import shutil
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from bench.harness import Session


def load(module: str) -> Any:
    """A library that need not be there."""
    return importlib.import_module(module)


class Peer:
    """One way to talk.

    Attributes:
        name: as it is in the tables.
        modules: libraries that it needs.
        programs: commands that it needs.
    """

    name: ClassVar[str]
    modules: ClassVar[Sequence[str]] = ()
    programs: ClassVar[Sequence[str]] = ()

    #: Processes beside the two that talk, whose memory counts.
    helpers: Sequence[int] = ()

    @classmethod
    def missing(cls) -> str:
        """What is not installed that it needs, or ""."""
        lacking = [module for module in cls.modules if importlib.util.find_spec(module) is None]
        lacking += [program for program in cls.programs if shutil.which(program) is None]
        return ", ".join(lacking)

    def prepare(self, session: Session, size: int) -> Any:
        """In the controlling process: what both roles get.

        Args:
            size: bytes of the largest message.
        """
        return str(session.directory / "socket")


class RoundTrip(Peer):
    """A request and its reply.

    Attributes:
        ends: whether the server ends with a last message; otherwise it is killed.
    """

    ends: ClassVar[bool] = True

    def server(self, address: Any) -> tuple[Callable[[], Any], Callable[[Any], object]]:
        """How to receive a request, and how to reply to it."""
        raise NotImplementedError

    def client(self, address: Any) -> Callable[[bytes], Any]:
        """How to call."""
        raise NotImplementedError


class AsyncRoundTrip(RoundTrip):
    """A request and its reply in a library that lives in an event loop."""

    @abstractmethod
    async def serve(self, address: Any, ready: Callable[[], object]) -> None:
        """Send every message back until the last one."""

    @abstractmethod
    async def connect(self, address: Any) -> Callable[[bytes], Awaitable[Any]]:
        """How to call."""


class OneWay(Peer, ABC):
    """Messages in one direction, in order, none lost."""

    #: Messages in one call, by their size in bytes; empty for one at a time.
    batches: ClassVar[dict[int, int]] = {}

    def batch(self, size: int) -> int:
        """How many messages of this size go in one call; 0 for one at a time."""
        return self.batches.get(size, 0)

    @abstractmethod
    def consumer(self, address: Any, size: int) -> Callable[[], Any]:
        """How to receive: the next message, or a list of messages if they go in batches."""

    @abstractmethod
    def producer(self, address: Any, size: int) -> Callable[[Any], object]:
        """How to send: a message, or a list of them if they go in batches."""


class Death(Peer, ABC):
    """Learning that a process was killed."""

    @abstractmethod
    def victim(self, address: Any) -> None:
        """Become who can be missed."""

    @abstractmethod
    def survivor(self, address: Any, pid: int) -> Callable[[float], object]:
        """Know the victim; how to wait for its death, for at most some seconds."""


class Creation(Peer, ABC):
    """Making the things that messages go to."""

    @abstractmethod
    def begin(self, address: Any) -> None:
        """What comes before the first."""

    @abstractmethod
    def make(self, count: int, made: list[Any]) -> list[Any]:
        """Put so many into ``made``, and give it back."""

    @abstractmethod
    def unmake(self, made: list[Any]) -> None:
        """Destroy them."""
