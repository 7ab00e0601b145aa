"""A daemon in the middle of everything, in this process; its snapshot, and descriptors that stand for those in it.

``python tests/server/snapshot_scene.py`` writes the sample of the version that this program writes, which later ones
must go on reading.  That is done once, when a version is new.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parents[1]))

from actors import PATIENCE, RawTask, connect

import machport
from machport.abi import constants as c
from machport.abi import message as layout
from machport.abi import traps as t
from machport.carrier import rings
from machport.server.daemon import Daemon
from machport.server.lock import Place, leave, listen
from machport.server.snapshot import VERSION, Saving

SAMPLES: Final = Path(__file__).with_name("snapshots")


class Running:
    """A daemon that runs in a thread of this process, until the block ends."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self._thread = threading.Thread(target=daemon.run)

    def __enter__(self) -> Daemon:
        self._thread.start()
        return self.daemon

    def __exit__(self, *_: object) -> None:
        self.daemon.stop()
        connect(self.daemon.place.path).close()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


@contextlib.contextmanager
def scene() -> Iterator[Daemon]:
    """A daemon that has stopped with tasks that have something of everything under way."""
    with tempfile.TemporaryDirectory(prefix="machport-") as directory, contextlib.ExitStack() as ends:
        path = Path(directory, "daemon.sock")
        listener, lock = listen(path)
        daemon = Daemon(listener, Place(path, lock))
        try:
            with Running(daemon):
                _fill(path, ends)
            yield daemon
        finally:
            # Also the threads that wait end by that.
            daemon.close()
            leave(path, lock)


def _fill(path: Path, ends: contextlib.ExitStack) -> None:
    task = machport.Task(label="sample", path=path)
    ends.callback(task.close)

    def begin(call: Callable[[], object]) -> None:
        begun = threading.Event()

        def run() -> None:
            with contextlib.suppress(machport.MachError):
                task.calls.mach_port_names(task.name)
                begun.set()
                call()

        thread = threading.Thread(target=run)
        thread.start()
        ends.callback(thread.join, PATIENCE)
        assert begun.wait(PATIENCE)

    kept, full, watched = task.allocate(label="kept"), task.allocate(qlimit=2), task.allocate()
    inside, notify = task.allocate(), task.allocate()
    task.port_set(kept, notify)
    with open(os.devnull) as file:
        kept.make_send().send(b"kept", rights=[inside.move(), full.make_send().copy(), task.fileport(file).move()])
    kept.make_send().send(bytes(20_000))
    right = watched.make_send()
    watched.request_no_senders(notify)
    watched.request_port_destroyed(notify)
    right.request_dead_name(notify)
    task.register("sample service", right)
    task.calls.ticket(task.calls.task_create(task.name))
    task.calls.deposit(right.name, c.MACH_MSG_TYPE_COPY_SEND)
    # Threads that wait.
    for _ in range(2):
        full.make_send().send(b"fills it")
    waits = [task.allocate() for _ in range(2)]
    begin(waits[0].receive)
    begin(lambda: waits[1].receive_many(5))
    begin(lambda: full.make_send().send(b"late", timeout=1e6))
    begin(lambda: full.make_send().send_many([b"1", b"2", b"3"]))
    # Nobody gives them up before the block ends.
    ends.callback(lambda *_: None, kept, full, watched, notify, right, *waits)
    # A loop whose calls wait, and that has not read what one of them has received.
    raw = ends.enter_context(RawTask(path, "loop"))
    (name,) = raw.call(t.TASK_SELF)
    (port,) = raw.call(t.ALLOCATE, name, c.MACH_PORT_RIGHT_RECEIVE)
    loop = ends.enter_context(raw.rings())
    for tag in range(3):
        receive = t.MsgTrap(c.MACH_RCV_MSG | c.MACH_RCV_TIMEOUT, rcv_limit=4096, rcv_name=port, timeout_ms=1 << 30)
        assert loop.publish(bytes(t.pack_async(tag, receive)))  # type: ignore[arg-type]
    reader = ends.enter_context(raw.rings())
    assert reader.publish(t.MsgTrap(c.MACH_SEND_MSG, to_itself(port)).pack())
    assert t.number_of(reader.answer()) == c.MACH_MSG_SUCCESS
    # The first of the calls that wait has it; nobody has read that.
    with RawTask(path, "dead") as dead:
        dead.call(t.TASK_TERMINATE, *dead.call(t.TASK_SELF))
        ends.enter_context(contextlib.closing(connect(path)))
        # So that all of it is carried out.
        task.calls.mach_port_names(task.name)


def to_itself(port: int) -> bytes:
    """A message to a port that its receiver sends."""
    return layout.pack(layout.bits(c.MACH_MSG_TYPE_MAKE_SEND), port, inline=b"not read")


def kind_of(descriptor: int) -> str:
    """What a descriptor is, for ``stand_in``."""
    link = os.readlink(f"/proc/self/fd/{descriptor}")
    if link.startswith("/memfd:machport-traps"):
        return f"rings {os.fstat(descriptor).st_size}"
    return "socket" if link.startswith("socket:") else "pidfd" if "pidfd" in link else "file"


def stand_in(kind: str) -> int:
    """A descriptor of this kind."""
    if kind.startswith("rings"):
        for capacity in (rings.NARROW, rings.WIDE):
            pair = rings.create(capacity)
            memory = os.dup(pair.descriptor)
            pair.close()
            if os.fstat(memory).st_size == int(kind.split()[1]):
                return memory
            os.close(memory)
    if kind == "socket":
        return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).detach()
    return os.pidfd_open(os.getpid()) if kind == "pidfd" else os.open(os.devnull, os.O_RDWR)


def main() -> None:
    """Write the sample."""
    SAMPLES.mkdir(exist_ok=True)
    with scene() as daemon:
        saving = Saving()
        data = daemon.save(saving)
        kinds = [kind_of(descriptor) for descriptor in saving.descriptors]
    (SAMPLES / f"{VERSION}.bin").write_bytes(data)
    (SAMPLES / f"{VERSION}.json").write_text(json.dumps(kinds) + "\n")


if __name__ == "__main__":
    main()
