"""Fixtures for tests with real processes: a daemon of the test's own, and a task of it.

The tests of the pure rooms use none of this.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from actors import PATIENCE, Client, DaemonProcess

import machport
from machport import aio, mach

#: Loops in which tests of coroutines run: how anyio begins each.
LOOPS: dict[str, tuple[str, dict[str, Any]]] = {
    "asyncio": ("asyncio", {}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}


@pytest.fixture
def socket_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the test's daemon listens, for the test and all its processes; short, as socket addresses are."""
    with tempfile.TemporaryDirectory(prefix="machport-") as directory:
        path = Path(directory, "daemon.sock")
        monkeypatch.setenv("MACHPORT_SOCKET", str(path))
        yield path


@pytest.fixture
def daemon(socket_path: Path) -> Iterator[DaemonProcess]:
    """A running daemon.  It must end without a traceback, and leave no socket."""
    with DaemonProcess(socket_path) as daemon:
        yield daemon


@pytest.fixture
def task(daemon: DaemonProcess) -> Iterator[machport.Task]:
    """A task of the test's process."""
    with machport.Task(label="test") as task:
        yield task


@pytest.fixture
def new_client(task: machport.Task) -> Iterator[Callable[[str], Client]]:
    """Makes client processes by name; whatever is left of them is killed."""
    with contextlib.ExitStack() as clients:
        yield lambda name: clients.enter_context(Client(task, name))


@pytest.fixture
def self_task(daemon: DaemonProcess) -> Iterator[int]:
    """The task of this process as ``machport.mach`` knows it, new for the test; its name for itself."""
    mach.mach_init()
    yield mach.mach_task_self()
    mach.mach_init()


@pytest.fixture
def loop_task(daemon: DaemonProcess) -> Iterator[aio.Task]:
    """A task of the test's process for coroutines."""
    with aio.Task(label="test") as task:
        yield task


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Callable[[Callable[[], Awaitable[Any]]], Any]:
    """Runs a coroutine function in a loop of its own, which may not take too long: under asyncio, uvloop and trio."""
    backend, options = LOOPS[request.param]

    def run(main: Callable[[], Awaitable[Any]]) -> Any:
        async def in_time() -> Any:
            with anyio.fail_after(PATIENCE):
                return await main()

        return anyio.run(in_time, backend=backend, backend_options=options)

    return run
