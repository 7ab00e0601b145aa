"""A fault of the daemon's own costs whoever met it, and nobody else."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from actors import PATIENCE
from snapshot_scene import Running

import machport
from machport.server.connection import Channel
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


def test_a_client_whose_event_cannot_be_dealt_with_is_cut_off_and_does_not_wait(
    socket_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listener, lock = listen(socket_path)
    daemon = Daemon(listener, Place(socket_path, lock))
    serve = daemon._serve

    def fail(channel: Channel, events: int) -> None:
        daemon._serve = serve  # type: ignore[method-assign]
        raise RuntimeError("a fault of ours")

    try:
        with Running(daemon), machport.Task(path=socket_path) as task, machport.Task(path=socket_path) as other:
            other.calls.mach_port_names(other.name)
            daemon._serve = fail  # type: ignore[method-assign]
            with pytest.raises(machport.DaemonLost):
                in_new_thread(task)
            other.calls.mach_port_names(other.name)
    finally:
        daemon.close()
        leave(socket_path, lock)
    assert "a fault of ours" in caplog.text


def in_new_thread(task: machport.Task) -> None:
    """A call that needs a channel, which is asked for by the task's own connection."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(task.calls.mach_port_names, task.name).result(PATIENCE)


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
