"""Fixtures for pytest: a world, a real daemon and a task of it, for each test its own.

pytest loads it by itself where machport is installed.  What a fixture needs is imported when a test asks for it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from machport import Task
    from machport.testing import World
    from machport.testing.daemon import PrivateDaemon

_seed = pytest.StashKey[int]()
_passed = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("machport")
    group.addoption(
        "--machport-seed",
        type=int,
        metavar="N",
        help="seed of machport_world in every test, before those of their markers",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "machport_seed(n): the seed of the test's machport_world, 0 by default")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if call.when == "call":
        item.stash[_passed] = report.passed
    seed = item.stash.get(_seed, None)
    if report.failed and seed is not None:
        report.sections.append(("machport_world", f"to repeat it: --machport-seed={seed}"))
    return report


@pytest.fixture
def machport_world(request: pytest.FixtureRequest) -> Iterator[World]:
    """A world.  At the end of a test that passed, the kernel's counts must add up, and no task may hold anything.

    Processes that still run by then are killed before; tasks that were closed hold nothing.
    """
    from machport.testing import World

    marker = request.node.get_closest_marker("machport_seed")
    seed = request.config.getoption("--machport-seed")
    if seed is None:
        seed = marker.args[0] if marker is not None else 0
    request.node.stash[_seed] = seed
    with World(seed) as world:
        yield world
        if request.node.stash.get(_passed, False):
            world.end_processes()
            world.check()
            world.assert_clean()


@pytest.fixture
def machport_daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[PrivateDaemon]:
    """A real daemon that nobody else uses; ``MACHPORT_SOCKET`` tells the test and its processes where it listens."""
    from machport.carrier.endpoint import VARIABLE
    from machport.client.process import process_task
    from machport.testing.daemon import PrivateDaemon

    with PrivateDaemon() as daemon:
        monkeypatch.setenv(VARIABLE, str(daemon.path))
        # What was the process's task before is of another daemon.
        process_task.restart()
        yield daemon
        process_task.restart()


@pytest.fixture
def machport_task(machport_daemon: PrivateDaemon) -> Iterator[Task]:
    """A task of ``machport_daemon``."""
    from machport import Task

    with Task(label="test") as task:
        yield task
