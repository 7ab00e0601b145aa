"""A fault of the daemon's own costs whoever met it, and nobody else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from actors import PATIENCE
from snapshot_scene import Running

import machport
from machport.server.daemon import Daemon
from machport.server.descriptors import Spare
from machport.server.lock import Place, leave, listen


def test_an_event_that_cannot_be_dealt_with_ends_nobody_else(
    socket_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The daemon goes on, and looks at what met the fault no more: it would meet it for ever."""
    listener, lock = listen(socket_path)
    daemon = Daemon(listener, Place(socket_path, lock))
    reader, writer = os.pipe()
    met = []

    def fail(_: int) -> None:
        met.append(1)
        raise RuntimeError("a fault of ours")

    daemon._register(reader, fail)
    os.write(writer, b"an event")
    try:
        with Running(daemon), machport.Task(path=socket_path) as task, task.allocate() as port:
            for _ in range(3):
                port.make_send().send(b"served")
                assert port.receive(PATIENCE).body == b"served"
    finally:
        daemon.close()
        leave(socket_path, lock)
        os.close(reader)
        os.close(writer)
    assert met == [1]
    assert "a fault of ours" in caplog.text


def test_the_spare_descriptor_is_let_go_of_once_and_taken_again() -> None:
    before = len(os.listdir("/proc/self/fd"))
    spare = Spare()
    spare.take()
    assert len(os.listdir("/proc/self/fd")) == before + 1
    spare.release()
    spare.release()
    assert len(os.listdir("/proc/self/fd")) == before
    spare.take()
    assert len(os.listdir("/proc/self/fd")) == before + 1
    spare.release()
