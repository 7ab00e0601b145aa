"""Another process can take over what the daemon has of a thread: the memory of its rings, and what is not in it."""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from actors import PATIENCE, DaemonProcess, RawTask

from machport.abi import traps as t
from machport.abi.errors import ProtocolError
from machport.carrier import packet, rings
from machport.carrier.rings import RingPair
from machport.kernel.waiter import new_result
from machport.ring import lifeline
from machport.server import descriptors
from machport.server.closer import Closer
from machport.server.connection import Channel
from machport.server.dispatch import Answer, msg_answer

_CAP_SYS_RESOURCE: Final = 24
#: A daemon's successor, as far as one thread's rings go.
SUCCESSOR: Final = """
import json, sys
from machport.carrier import rings
pair = rings.resume(int(sys.argv[1]), json.loads(sys.argv[2]))
while (trap := pair.down.dequeue()) is not None:
    pair.up.enqueue(b"answer to " + trap)
print(json.dumps([pair.up.enqueued, pair.up.unread(), pair.is_wide, pair.state()]))
"""


@pytest.fixture
def pair() -> Iterator[RingPair]:
    made = rings.create(rings.NARROW)
    yield made
    made.close()


def is_open(descriptor: int) -> bool:
    return os.path.exists(f"/proc/self/fd/{descriptor}")


def test_another_process_goes_on_with_the_rings_of_a_thread(pair: RingPair) -> None:
    """The thread notices nothing, and the successor knows how many answers it has read."""
    thread = rings.attach(pair.descriptor)
    for trap in (b"first", b"second", b"third"):
        thread.down.enqueue(trap)
    assert pair.down.dequeue() == b"first"
    pair.up.enqueue(b"answer to first")
    assert thread.up.dequeue() == b"answer to first"
    command = [sys.executable, "-c", SUCCESSOR, str(pair.descriptor), json.dumps(pair.state())]
    done = subprocess.run(
        command, pass_fds=[pair.descriptor], capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    enqueued, unread, is_wide, state = json.loads(done.stdout)
    assert (enqueued, unread, is_wide) == (3, 2, False)
    assert [thread.up.dequeue() for _ in range(3)] == [b"answer to second", b"answer to third", None]
    back = rings.resume(os.dup(pair.descriptor), state)
    assert (back.down.dequeued, back.up.enqueued, back.up.unread()) == (3, 3, 0)
    back.close()


@pytest.mark.parametrize("state", [None, 0, [], [[0] * 7], [[0] * 7] * 3, [[0] * 7, [0] * 6], [None, None], "no"])
def test_what_is_no_state_of_rings_is_refused_and_the_descriptor_stays_the_callers(pair: RingPair, state: Any) -> None:
    with pytest.raises(ProtocolError, match="state of a thread's rings"):
        rings.resume(pair.descriptor, state)
    assert is_open(pair.descriptor)


def test_memory_of_another_kind_is_refused() -> None:
    memory = os.memfd_create("other")
    with pytest.raises(ProtocolError, match="not that"):
        rings.resume(memory, [[0] * 7] * 2)
    os.close(memory)


def test_rings_let_go_of_their_descriptor_once() -> None:
    pair = rings.create(rings.NARROW)
    descriptor = pair.descriptor
    pair.close()
    assert not is_open(descriptor)
    file = os.open(os.devnull, os.O_RDONLY)
    pair.close()
    assert is_open(file)
    os.close(file)
    assert pair.up.enqueue(b"still mapped") >= 0


def channel_with(pair: RingPair) -> tuple[Channel, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Channel(ours, Closer(), pair), theirs


def test_a_channel_keeps_the_descriptor_of_its_last_rings_and_closes_it(pair: RingPair) -> None:
    channel, theirs = channel_with(pair)
    wide = rings.create(rings.WIDE)
    first, last = pair.descriptor, wide.descriptor
    channel.by_ring = True
    assert channel.answer(Answer(t.WIDEN.pack_answer(), descriptors=[last], rings=wide))
    assert channel.rings is wide
    assert (is_open(first), is_open(last)) == (False, True)
    channel.close()
    assert not is_open(last)
    theirs.close()


@pytest.mark.parametrize("read", [False, True])
def test_rings_whose_answer_was_not_written_go_with_the_channel(pair: RingPair, read: bool) -> None:
    """The socket is full; nobody reads it, or its reader is gone."""
    channel, theirs = channel_with(pair)
    wide = rings.create(rings.WIDE)
    last = wide.descriptor
    answer = Answer(t.WIDEN.pack_answer(), descriptors=[last], rings=wide)
    if read:
        theirs.close()
        with pytest.raises(OSError):
            channel.answer(answer)
    else:
        while channel.answer(Answer(bytes(4096))):
            pass
        assert not channel.answer(answer)
    assert is_open(last)
    channel.close()
    assert not is_open(last)
    theirs.close()


def test_a_message_whose_answer_could_not_be_written_is_unread() -> None:
    """M30: whoever was to read it is gone, and it goes back to its queue."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.close()
    channel = Channel(ours, Closer())
    result = new_result(0)
    answer = msg_answer(result)
    answer.result = result
    with pytest.raises(OSError):
        channel.answer(answer)
    assert channel.unread() == [result]
    channel.close()


# With a daemon


def test_each_thread_costs_the_daemon_two_descriptors_until_it_ends(daemon: DaemonProcess) -> None:
    """Its socket and the memory of its rings, however often those were replaced."""
    with RawTask(daemon.path) as raw:
        raw.call(t.TASK_SELF)
        before = daemon.descriptors()
        threads = [raw.rings() for _ in range(5)]
        wait_for(daemon, raw, before + 10)
        for thread in threads[1:]:
            for _ in range(3):
                thread.publish(t.WIDEN.pack())
                answer, (memory,) = thread.carried()
                assert t.number_of(answer) == 0
                os.close(thread.memory)
                thread.memory = memory
                thread.use(memory)
                assert t.number_of(thread.trap(t.TASK_SELF.pack())) == 0
        wait_for(daemon, raw, before + 10)
        for thread in threads:
            thread.close()
        wait_for(daemon, raw, before)


def test_a_thread_that_is_asked_for_by_somebody_who_leaves_at_once_costs_nothing(daemon: DaemonProcess) -> None:
    """The daemon may find nobody to give the thread's end to."""
    with RawTask(daemon.path) as other:
        other.call(t.TASK_SELF)
        before = daemon.descriptors()
        for _ in range(20):
            with RawTask(daemon.path) as raw:
                for _ in range(5):
                    packet.send(raw.control, t.THREAD.pack())
        wait_for(daemon, other, before)


def test_a_lifeline_costs_one_descriptor_until_its_task_ends(daemon: DaemonProcess) -> None:
    with RawTask(daemon.path) as other:
        other.call(t.TASK_SELF)
        before = daemon.descriptors()
        memory, offset = lifeline.hold()
        for _ in range(10):
            with RawTask(daemon.path) as raw:
                assert t.number_of(raw.trap(t.LIFELINE.pack(offset), [memory])) == 0
                assert t.number_of(raw.trap(t.LIFELINE.pack(offset), [memory])) != 0
        os.close(memory)
        wait_for(daemon, other, before)


def wait_for(daemon: DaemonProcess, raw: RawTask, descriptors: int) -> None:
    """Return when the daemon has so many descriptors; each answer is a turn of its loop."""
    for _ in range(10_000):
        if daemon.descriptors() == descriptors:
            return
        raw.call(t.TASK_SELF)
    assert daemon.descriptors() == descriptors


# How many descriptors there are


def may_raise_limits() -> bool:
    """Whether processes of this one may raise hard limits: not every root may."""
    status = Path("/proc/self/status").read_text()
    effective = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective.split()[1], 16) & 1 << _CAP_SYS_RESOURCE)


@pytest.mark.parametrize("hard", [4096, 4095])
def test_it_has_as_many_descriptors_as_it_may_have_unless_somebody_meant_few(socket_path: Path, hard: int) -> None:
    def lower_limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))

    raised = hard == 4096 and may_raise_limits()
    highest = int(Path("/proc/sys/fs/nr_open").read_text()) if raised else hard
    with DaemonProcess(socket_path, preexec_fn=lower_limit) as daemon:
        assert resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE) == (highest, highest)


@pytest.mark.parametrize(
    ("hard", "may_raise", "expected"), [(8192, True, 1 << 20), (8192, False, 8192), (4095, True, 4095)]
)
def test_the_limit_that_is_said_is_the_limit_that_is_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hard: int, may_raise: bool, expected: int
) -> None:
    limits = [(64, hard)]

    def setrlimit(kind: int, wanted: tuple[int, int]) -> None:
        if wanted[1] > hard and not may_raise:
            raise ValueError("not allowed to raise maximum limit")
        limits.append(wanted)

    nr_open = tmp_path / "nr_open"
    nr_open.write_text(f"{1 << 20}\n")
    monkeypatch.setattr(descriptors, "_HIGHEST_LIMIT", nr_open)
    monkeypatch.setattr(resource, "getrlimit", lambda kind: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    assert descriptors.raise_limit() == expected
    assert limits[-1] == (expected, expected)
