"""Which library's loop a coroutine runs in, and how one waits there for a descriptor.

asyncio, with any loop that has its methods, and trio.  Neither is imported by this module: whoever runs in one of them
has done so.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from machport.abi.errors import LoopMisuse

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future

ASYNCIO: Final = "asyncio"
TRIO: Final = "trio"


def running_library() -> str:
    """``ASYNCIO`` or ``TRIO``.

    Raises:
        LoopMisuse: the loop that runs is of another library.
    """
    sniffio = sys.modules.get("sniffio")
    if sniffio is None:
        return ASYNCIO
    try:
        library: str = sniffio.current_async_library()
    except sniffio.AsyncLibraryNotFoundError:
        return ASYNCIO
    if library not in (ASYNCIO, TRIO):
        raise LoopMisuse(f"machport knows the loops of asyncio and trio, and not those of {library}")
    return library


def running_loop() -> AbstractEventLoop:
    """The loop of asyncio that runs in this thread.

    Raises:
        LoopMisuse: none does.
    """
    # Imported only here: it is as much as all the rest.
    import asyncio

    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise LoopMisuse("no event loop runs here; await it in a coroutine, for example under asyncio.run") from None


def trio_library() -> Any:
    """The module, in a coroutine that runs there."""
    return sys.modules["trio"]


class Readiness:
    """One coroutine's wait for a descriptor.

    Args:
        descriptor: what should be readable.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._error: BaseException | None = None
        self._ended = False

    async def wait(self) -> None:
        """Return when it is readable, or ``end`` is called; raise what that was called with."""
        raise NotImplementedError

    def end(self, error: BaseException | None = None) -> None:
        """Let the wait end now, before the descriptor is closed.  Only in the thread of the loop."""
        raise NotImplementedError


class AsyncioReadiness(Readiness):
    """In a loop of asyncio."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor)
        self._loop = running_loop()
        self._future: Future[None] = self._loop.create_future()
        self._watched = False

    async def wait(self) -> None:
        self._loop.add_reader(self.descriptor, self._settle)
        self._watched = True
        try:
            await self._future
        finally:
            self._unwatch()
        if self._error is not None:
            raise self._error

    def end(self, error: BaseException | None = None) -> None:
        self._error = error
        self._unwatch()
        self._settle()

    def _unwatch(self) -> None:
        if self._watched:
            self._watched = False
            self._loop.remove_reader(self.descriptor)

    def _settle(self) -> None:
        if not self._future.done():
            self._future.set_result(None)


class TrioReadiness(Readiness):
    """In trio."""

    async def wait(self) -> None:
        trio = trio_library()
        try:
            if not self._ended:
                await trio.lowlevel.wait_readable(self.descriptor)
        except trio.ClosedResourceError:
            if not self._ended:
                raise
        if self._error is not None:
            raise self._error

    def end(self, error: BaseException | None = None) -> None:
        self._error = error
        self._ended = True
        trio_library().lowlevel.notify_closing(self.descriptor)


def readiness(descriptor: int) -> Readiness:
    """A wait for a descriptor in the loop that runs here.

    Raises:
        LoopMisuse: none does.
    """
    return TrioReadiness(descriptor) if running_library() == TRIO else AsyncioReadiness(descriptor)


async def give_way() -> None:
    """Let the others of the loop have a turn."""
    if running_library() == TRIO:
        await trio_library().lowlevel.checkpoint()
    else:
        import asyncio

        await asyncio.sleep(0)


async def wait_readable(descriptor: int, timeout: float | None) -> bool:
    """Wait until a descriptor is readable; whether it is after ``timeout`` seconds."""
    if running_library() == TRIO:
        trio = trio_library()
        with trio.move_on_after(float("inf") if timeout is None else timeout):
            await trio.lowlevel.wait_readable(descriptor)
            return True
        return False
    loop = running_loop()
    waiting = AsyncioReadiness(descriptor)
    timed_out = False

    def end() -> None:
        nonlocal timed_out
        timed_out = True
        waiting.end()

    timer = None if timeout is None else loop.call_later(timeout, end)
    try:
        await waiting.wait()
    finally:
        if timer is not None:
            timer.cancel()
    return not timed_out
