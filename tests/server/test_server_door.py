"""How fast connections are taken, by a clock that the test moves and through a real socket."""

from __future__ import annotations

import contextlib
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from actors import PATIENCE, DaemonProcess

import machport
from machport.server.door import Door

RATE = 10


class Clock:
    """What ``time.monotonic`` is to the daemon."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen(100)
        yield listener


@pytest.fixture
def crowd(listener: socket.socket) -> Iterator[None]:
    """More connections than may come."""
    with contextlib.ExitStack() as kept:
        for _ in range(3 * RATE):
            sock = kept.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            sock.connect(listener.getsockname())
        yield


def taken(door: Door) -> int:
    """How many come in now."""
    count = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            door.accept().close()
            count += 1
    return count


def test_half_a_seconds_connections_come_at_once_and_then_as_many_as_time_allows(
    listener: socket.socket, crowd: None
) -> None:
    clock = Clock()
    door = Door(listener, RATE, clock)
    assert taken(door) == RATE / 2
    assert door.opens is not None and not door.reopens()
    clock.now = door.opens
    assert door.reopens() and door.opens is None
    assert taken(door) == 1
    clock.now += 0.31
    assert door.reopens()
    assert taken(door) == 3
    # Nothing is saved up beyond half a second.
    clock.now += 1000
    assert door.reopens()
    assert taken(door) == RATE / 2


def test_a_door_at_which_nobody_is_stays_open(listener: socket.socket) -> None:
    door = Door(listener, RATE, Clock())
    for _ in range(3 * RATE):
        with pytest.raises(BlockingIOError):
            door.accept()
    assert door.opens is None and not door.reopens()


def test_a_rate_of_nothing_lets_one_in_each_second(listener: socket.socket, crowd: None) -> None:
    clock = Clock()
    door = Door(listener, 0, clock)
    assert taken(door) == 1
    assert door.opens == pytest.approx(clock.now + 1)


@contextlib.contextmanager
def slow_daemon() -> Iterator[DaemonProcess]:
    with tempfile.TemporaryDirectory(prefix="machport-") as directory:
        settings = Path(directory, "daemon.toml")
        settings.write_text(f"[daemon]\nconnections_per_second = {RATE}\n")
        with DaemonProcess(Path(directory, "daemon.sock"), "--config", str(settings)) as daemon:
            yield daemon


def test_who_waits_at_the_door_comes_in() -> None:
    """And a task that is in goes on meanwhile."""
    with (
        slow_daemon() as daemon,
        machport.Task(path=daemon.path) as inside,
        contextlib.ExitStack() as kept,
        inside.allocate() as port,
        port.make_send() as right,
    ):
        for number in range(2 * RATE):
            kept.enter_context(machport.Task(label=f"late{number}", path=daemon.path))
            right.send(b"served")
            assert port.receive(PATIENCE).body == b"served"
