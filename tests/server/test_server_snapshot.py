"""A daemon's state as bytes: another daemon that is made of it has the same, and so do those of later versions."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import warnings
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from snapshot_scene import SAMPLES, kind_of, scene, stand_in

from machport.abi.errors import ProtocolError
from machport.kernel.task import Task
from machport.server import snapshot
from machport.server.daemon import Daemon
from machport.server.settings import Settings
from machport.server.snapshot import MAGIC, READS, VERSION, Saving

HEAD = len(MAGIC) + 4


@contextlib.contextmanager
def restored(data: bytes, descriptors: list[int]) -> Iterator[Daemon]:
    """A daemon that was made of a snapshot, whose descriptors are taken over."""
    daemon, _ = Daemon.restore(data, descriptors, Settings())
    yield daemon
    daemon.close()
    os.close(daemon.place.lock)


def save(daemon: Daemon) -> tuple[bytes, list[int]]:
    saving = Saving()
    return daemon.save(saving), saving.descriptors


def state_of(data: bytes) -> Any:
    """The parts of the server, and the kernel."""
    return msgspec.msgpack.decode(data[HEAD:])


def test_a_daemon_that_was_made_of_a_snapshot_saves_the_same() -> None:
    """Clients, channels, calls that wait, queues, rights, requests, names, children and the dead; numbers and all."""
    with scene() as daemon:
        data, descriptors = save(daemon)
        with restored(data, [os.dup(descriptor) for descriptor in descriptors]) as copy:
            again, others = save(copy)
            assert [kind_of(descriptor) for descriptor in others] == [kind_of(descriptor) for descriptor in descriptors]
            assert again == data


def test_every_version_that_was_ever_written_is_read() -> None:
    """Samples of them are kept; that of the present one was written when it was new."""
    assert {path.stem for path in SAMPLES.glob("*.bin")} == {str(version) for version in READS}
    assert VERSION in READS


@pytest.mark.parametrize("version", READS)
def test_a_sample_of_each_version_becomes_a_daemon(version: int) -> None:
    kinds = json.loads((SAMPLES / f"{version}.json").read_text())
    with restored((SAMPLES / f"{version}.bin").read_bytes(), list(map(stand_in, kinds))) as daemon:
        tasks = {task.label.split("[")[0]: task for task in daemon.kernel.tasks}
        assert set(tasks) == {"bootstrap", "sample", "loop"}
        labels = {task.label.partition("/")[2] for task in daemon.kernel.tasks}
        assert labels == {"", "child", "deposit"}
        (sample,) = (task for task in daemon.kernel.tasks if task.label.startswith("sample[") and "/" not in task.label)
        assert len(sample.waiters) == 4
        assert len(tasks["loop"].waiters) == 2
        assert messages_of(sample) == {"kept": 2, "": 2}
        assert list(daemon.bootstrap.names) == ["sample service"]
        begin_and_settle(daemon)


def messages_of(task: Task) -> dict[str, int]:
    """How many messages are in queues of a task, by the labels of the ports."""
    counts: dict[str, int] = {}
    for entry in task.space.entries.values():
        if entry.port is not None and entry.port.receiver is task.space:
            counts[entry.port.label] = counts.get(entry.port.label, 0) + entry.port.msgcount
    return counts


def begin_and_settle(daemon: Daemon) -> None:
    """It goes on without a fault, and saves itself again."""
    daemon.begin()
    daemon.traps.settle()
    save(daemon)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda data: b"", "no snapshot of a daemon"),
        (lambda data: b"x" + data[1:], "no snapshot of a daemon"),
        (lambda data: data[: len(MAGIC)] + b"\xff\0\0\0" + data[HEAD:], "version 255"),
        (lambda data: data[:-1], "no snapshot of a daemon"),
        (lambda data: data[:HEAD] + msgspec.msgpack.encode([{}, [], []]), "no snapshot of a daemon"),
        (lambda data: data[:HEAD] + msgspec.msgpack.encode(7), "no snapshot of a daemon"),
        (lambda data: data[:HEAD] + b"\x93\x80\x91\xa1\xff\x90", "no snapshot of a daemon"),
        (lambda data: data[:HEAD] + b"\x93\x80" + b"\x91" * 5000, "no snapshot of a daemon"),
    ],
    ids=["nothing", "magic", "version", "torn", "empty", "number", "text that is none", "too deep"],
)
def test_what_is_no_snapshot_is_refused(spoil: Any, says: str) -> None:
    data = (SAMPLES / f"{VERSION}.bin").read_bytes()
    with pytest.raises(ProtocolError, match=says):
        snapshot.unpack(spoil(data), [])


def test_a_part_that_this_program_does_not_have_is_refused() -> None:
    """A later program wrote it, and what it carries would be lost."""
    data = (SAMPLES / f"{VERSION}.bin").read_bytes()
    state, kernel, files = state_of(data)
    state["parts"]["later"] = []
    kinds = json.loads((SAMPLES / f"{VERSION}.json").read_text())
    descriptors = list(map(stand_in, kinds))
    with warnings.catch_warnings():
        # Nothing is closed in an orderly way: what would see the end of a socket are clients of a daemon that lives.
        warnings.simplefilter("ignore", ResourceWarning)
        with pytest.raises(ProtocolError, match="a part later"):
            Daemon.restore(data[:HEAD] + msgspec.msgpack.encode([state, kernel, files]), descriptors, Settings())
        gc.collect()
