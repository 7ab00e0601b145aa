"""One client tries to stall the daemon, to make it leak, or to lose what belongs to others; it pays alone."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from actors import PATIENCE, Client, DaemonProcess, RawTask, connect

import machport
from machport import mach
from machport.abi import traps as t
from machport.carrier import packet
from machport.carrier.hello import Hello

NewClient = Callable[[str], Client]

#: Flag of memfd_create for huge pages of 2 MiB, of which a machine as a rule has none.
_HUGE_PAGES = 0x4 | 21 << 26


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Within the block, this process cannot open another file."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(int(name) for name in os.listdir("/proc/self/fd"))
    fill = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 1, limits[1]))
    try:
        while True:
            try:
                fill.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                break
        yield
    finally:
        for descriptor in fill:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_memory_that_cannot_be_mapped_leaves_no_descriptors(daemon: DaemonProcess, task: machport.Task) -> None:
    task.allocate()
    before = daemon.descriptors()
    for _ in range(5):
        with RawTask(daemon.path) as raw:
            try:
                memory = os.memfd_create("huge", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | _HUGE_PAGES)
            except OSError:
                pytest.fail("this system cannot make the memory that the test is about")
            length = 2 * mmap.PAGESIZE * 256
            os.ftruncate(memory, length)
            fcntl.fcntl(memory, fcntl.F_ADD_SEALS, packet._SEALS)
            thread = raw.thread()
            packet._send(thread, [packet._HEAD.pack(packet._LONG, length)], [memory] * 4)
            os.close(memory)
            while thread.recv(1 << 16):
                pass
            thread.close()
    task.allocate()
    assert daemon.descriptors() == before


def test_a_file_that_lingers_when_it_is_closed_stalls_nobody(
    daemon: DaemonProcess, task: machport.Task, new_client: NewClient
) -> None:
    """Promise 5: the daemon has the last descriptor of a socket that waits for its peer when it is closed."""
    listener = socket.create_server(("127.0.0.1", 0))
    sender = socket.create_connection(listener.getsockname())
    receiver, _ = listener.accept()
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 1000))
    sender.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while sender.send(bytes(1 << 16)):
            pass
    right = task.fileport(sender)
    sender.close()
    right.close()

    # The answer comes while the socket lingers: only reading what it sent, or its end, will let it go.
    new_client("innocent").do("task.allocate().close()")
    receiver.close()
    listener.close()


def test_a_child_that_is_terminated_before_it_is_claimed_leaves_nothing(
    daemon: DaemonProcess, task: machport.Task
) -> None:
    task.allocate()
    before = daemon.descriptors()
    for _ in range(20):
        child = task.calls.task_create(task.name)
        for _ in range(3):
            ticket = task.calls.ticket(child)
        pidfd = os.pidfd_open(os.getpid())
        task.calls.watch(child, pidfd)
        os.close(pidfd)
        task.calls.task_terminate(child)
        task.calls.mach_port_deallocate(task.name, child)
    assert len(ticket) == 16
    assert daemon.descriptors() == before


def test_only_the_last_ticket_of_a_task_is_good(daemon: DaemonProcess, task: machport.Task) -> None:
    from machport.client.connection import Connection

    child = task.calls.task_create(task.name)
    first, last = task.calls.ticket(child), task.calls.ticket(child)
    with pytest.raises(machport.InvalidRight, match="ticket"):
        Connection("child", first, daemon.path)
    Connection("child", last, daemon.path).close()


def test_without_a_descriptor_a_long_message_is_not_sent_and_the_task_goes_on(task: machport.Task) -> None:
    port = task.allocate()
    send = port.make_send()
    with no_descriptor_left(), pytest.raises(machport.LimitReached, match="no memory or descriptor is left"):
        send.send(bytes(100_000))
    send.send(bytes(100_000))
    assert len(port.receive(PATIENCE).body) == 100_000


def test_without_a_descriptor_a_long_message_is_not_lost(task: machport.Task) -> None:
    """Promises 1 and 3: it is back in its queue, reply right and all."""
    port, answers = task.allocate(), task.allocate()
    port.make_send().send(bytes(2_000_000), reply_to=answers)
    with no_descriptor_left(), pytest.raises(machport.LimitReached, match="back in its queue"):
        port.receive(PATIENCE)
    request = port.receive(PATIENCE)
    assert len(request.body) == 2_000_000
    request.reply(b"answer")
    assert answers.receive(PATIENCE).body == b"answer"


def test_a_thread_that_gets_no_channel_does_not_end_the_task(task: machport.Task) -> None:
    port = task.allocate()
    errors: list[BaseException] = []
    made: list[machport.SendRight] = []

    def use() -> None:
        try:
            made.append(port.make_send())
        except machport.MachError as error:
            errors.append(error)

    with no_descriptor_left():
        thread = threading.Thread(target=use)
        thread.start()
        thread.join(PATIENCE)
    assert [type(error) for error in errors] == [machport.LimitReached]
    thread = threading.Thread(target=use)
    thread.start()
    thread.join(PATIENCE)
    assert len(errors) == 1
    assert port.status().srights == 1


def test_a_sender_whose_task_is_terminated_is_told(task: machport.Task) -> None:
    """P section 11, step 1: a blocked send ends with its task, and says so."""
    other = machport.Task(label="other")
    port = task.allocate(qlimit=1)
    port.make_send().send(b"fills the queue", rights=[])
    inbox = other.allocate()
    other.register("org.example.inbox", inbox.make_send())
    task.look_up("org.example.inbox").send(rights=[port.make_send().move()])
    (right,) = inbox.receive(PATIENCE).rights
    assert isinstance(right, machport.SendRight)
    own = machport.SendRight(other, other.name)
    task.register("org.example.own", port.make_send())
    carrier = other.look_up("org.example.own")
    carrier.close()
    outcome: list[BaseException] = []

    def send() -> None:
        try:
            right.send(b"waits for room")
        except machport.MachError as error:
            outcome.append(error)

    thread = threading.Thread(target=send)
    thread.start()
    own.task.calls.task_terminate(own.name)
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert [isinstance(error, machport.MachError) for error in outcome] == [True]
    other.close()


def test_a_service_with_many_names_is_forgotten_at_once(task: machport.Task) -> None:
    port = task.allocate()
    send = port.make_send()
    for index in range(50):
        task.register(f"org.example.{index}", send)
    send.close()
    port.close()
    for index in range(50):
        with pytest.raises(machport.InvalidName):
            task.look_up(f"org.example.{index}")


def test_an_abandoned_call_is_as_if_it_had_not_been(daemon: DaemonProcess, task: machport.Task) -> None:
    with RawTask(daemon.path) as raw:
        thread = raw.thread()
        packet.send(thread, t.ABANDON.pack())
        assert thread.recv(100) == b""
        thread.close()
        assert raw.call(t.REPLY_PORT)


def test_an_event_of_a_descriptor_is_not_taken_for_one_of_its_successor(
    daemon: DaemonProcess, task: machport.Task
) -> None:
    """In one round: a process claims its task, another's pidfd comes under the number of its own, and it dies."""
    task.allocate()
    with RawTask(daemon.path) as raw, contextlib.ExitStack() as stack:
        thread, claim = stack.enter_context(raw.thread()), stack.enter_context(connect(daemon.path))
        own = raw.call(t.TASK_SELF)[0]
        first, second = raw.call(t.TASK_CREATE, own)[0], raw.call(t.TASK_CREATE, own)[0]
        ticket = b"".join(
            word.to_bytes(4, "little") for word in t.TICKET.unpack_answer(raw.trap(t.TICKET.pack(first)))[1]
        )
        dies, lives = (subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) for _ in range(2))
        for process in (dies, lives):
            stack.enter_context(process)
            stack.callback(process.kill)
        pidfds = [os.pidfd_open(process.pid) for process in (dies, lives)]
        assert t.number_of(raw.trap(t.WATCH.pack(first), pidfds[:1])) == 0

        os.kill(daemon.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, daemon.pid, os.WSTOPPED | os.WNOWAIT)
        packet.send(claim, Hello("claimant", ticket).pack())
        packet.send(thread, t.WATCH.pack(second), pidfds[1:])
        dies.kill()
        dies.wait(PATIENCE)
        os.kill(daemon.pid, signal.SIGCONT)

        assert raw.read(claim)[:4] == b"\0\0\0\0"
        assert t.number_of(raw.read(thread)) == 0
        # The claimed task lives as long as its claimant, which is this process; the other has not lost its process.
        for child in (first, second):
            assert raw.call(t.TYPE, own, child)[0] == mach.MACH_PORT_TYPE_SEND
        packet.close_all(pidfds)
