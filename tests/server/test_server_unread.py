"""What a thread was answered and has not read is undone when its channel ends: nobody would ever know of it."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable

import pytest
from actors import PATIENCE, Client, DaemonProcess, RawTask

import machport
from machport.abi import constants as c
from machport.abi import traps as t
from machport.carrier import rings
from machport.kernel.waiter import new_result
from machport.server.closer import Closer
from machport.server.connection import Channel
from machport.server.dispatch import Answer


def test_an_answer_that_cannot_be_written_is_kept_with_its_message_and_closes_its_files() -> None:
    """The thread is gone, and the daemon learns it only by writing."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pair = rings.create(rings.NARROW)
    closer = Closer()
    channel = Channel(ours, closer, pair)
    channel.begin(True)
    theirs.close()
    reading, writing = os.pipe()
    answer = Answer(b"with a file", descriptors=[writing], gives_descriptors=True)
    answer.result = new_result(0)
    with pytest.raises(OSError):
        channel.answer(answer)
    assert channel.unread() == [answer.result]
    channel.close()
    # The end comes when the file is closed.
    assert os.read(reading, 1) == b""
    os.close(reading)


@pytest.mark.parametrize("trap", [t.REPLY_PORT, t.ALLOCATE, t.CONSTRUCT], ids=lambda trap: trap.call)
def test_a_port_whose_name_nobody_has_read_goes_with_the_channel(
    daemon: DaemonProcess, task: machport.Task, trap: t.Trap
) -> None:
    """A handler of signals raised while the call was under way: its thread gives the channel up."""
    with RawTask(daemon.path) as raw:
        (me,) = raw.call(t.TASK_SELF)
        before = raw.call(t.REPLY_PORT)
        arguments = {
            t.REPLY_PORT: (),
            t.ALLOCATE: (me, c.MACH_PORT_RIGHT_RECEIVE),
            t.CONSTRUCT: (me, c.MPO_INSERT_SEND_RIGHT, 0, 0),
        }[trap]
        thread = raw.rings()
        assert thread.trap(trap.pack(*arguments)), "what is read stays"
        names = _names(raw, me)
        assert thread.publish(trap.pack(*arguments))
        while thread.ends.up.next_size() < 0:
            os.sched_yield()
        assert len(_names(raw, me)) == len(names) + 1
        thread.sock.send(_packet(t.ABANDON.pack()))
        thread.close()
        while len(_names(raw, me)) != len(names):
            os.sched_yield()
        assert _names(raw, me) == names
        assert before[0] in names


def _names(raw: RawTask, me: int) -> set[int]:
    answer = raw.trap(t.NAMES.pack(me))
    assert t.number_of(answer) == 0
    return set(t.NAMES.unpack_answer(answer)[1][::2])


def _packet(payload: bytes) -> bytes:
    return (0).to_bytes(4, "little") + len(payload).to_bytes(4, "little") + payload


def test_an_interrupted_allocation_leaves_no_port(task: machport.Task, new_client: Callable[[str], Client]) -> None:
    client = new_client("client")
    client.do("port = task.allocate(); before = len(task.calls.mach_port_names(task.name))")
    client.do("def give_up(): raise KeyboardInterrupt")
    client.do("before_reading(give_up)")
    with pytest.raises(AssertionError, match="KeyboardInterrupt"):
        client.do("task.allocate()")
    assert client.do("len(task.calls.mach_port_names(task.name)) - before") == 0


def test_an_interrupt_while_a_thread_asks_for_its_channel_stops_nothing(
    daemon: DaemonProcess, task: machport.Task, new_client: Callable[[str], Client]
) -> None:
    """The answer that it had asked for is passed over by the next, whose descriptors are its own."""
    client = new_client("client")
    client.do("def give_up(): raise KeyboardInterrupt")
    client.do("before_reading(give_up)")
    with pytest.raises(AssertionError, match="KeyboardInterrupt"):
        client.do("task.allocate()")
    daemon.process.send_signal(signal.SIGSTOP)
    client.begin("mark(); task.allocate()")
    client.wait_for_mark()
    _wait_until_asleep(client.pid)
    client.signal(signal.SIGINT)
    with pytest.raises(AssertionError, match="KeyboardInterrupt"):
        client.finish()
    daemon.process.send_signal(signal.SIGCONT)
    client.inbox.send(b"after")
    assert client.do(f"inbox.receive({PATIENCE}).body") == b"after"


def _wait_until_asleep(pid: int) -> None:
    """Until it sleeps at a socket."""
    while "skb" not in _read(f"/proc/{pid}/wchan"):
        os.sched_yield()


def _read(path: str) -> str:
    with open(path) as file:
        return file.read()
