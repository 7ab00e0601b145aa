"""Closing files of clients: one that takes its time holds up nobody else's, and never the loop for long."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from actors import PATIENCE, DaemonProcess, RawTask
from lineage import Lineage

import machport
from machport.server import closer
from machport.server.closer import THREADS_MAX, Closer


class Slow:
    """A ``close`` under which some descriptors stay until they are let go; what it was asked for, and what it did."""

    def __init__(self, slow: Sequence[int] = ()) -> None:
        self.slow = set(slow)
        self.goes_on = threading.Event()
        self.begun = threading.Semaphore(0)
        self._closed = threading.Condition()
        self.closed: set[int] = set()

    def __call__(self, descriptor: int) -> None:
        if descriptor in self.slow:
            self.begun.release()
            assert self.goes_on.wait(PATIENCE)
        with self._closed:
            self.closed.add(descriptor)
            self._closed.notify_all()
        raise OSError("files that fail to close are closed, too")

    def wait_for(self, *descriptors: int) -> None:
        with self._closed:
            assert self._closed.wait_for(lambda: self.closed >= set(descriptors), PATIENCE)


@pytest.fixture
def slow() -> Iterator[Slow]:
    close = Slow()
    yield close
    close.goes_on.set()


# Numbers of files that are not there: ``close`` is the test's own, and what looks at sockets finds none.
FIRST = 1 << 20


def test_what_is_closed_at_once_is_closed_by_one_thread(slow: Slow) -> None:
    """Another one stands by."""
    closing = Closer(slow)
    for number in range(100):
        closing.close([FIRST + 2 * number, FIRST + 2 * number + 1])
    slow.wait_for(*range(FIRST, FIRST + 200))
    assert closing._threads == 2


def test_a_file_that_takes_its_time_holds_up_no_other(slow: Slow) -> None:
    closing = Closer(slow)
    slow.slow = {FIRST, FIRST + 1}
    closing.close([FIRST])
    closing.close([FIRST + 1])
    closing.close([FIRST + 2])
    slow.wait_for(FIRST + 2)
    assert slow.closed == {FIRST + 2}


def test_several_slow_files_of_a_batch_do_not_hold_up_the_rest_of_it(slow: Slow) -> None:
    slow.slow = {FIRST, FIRST + 1, FIRST + 2}
    Closer(slow).close([*slow.slow, FIRST + 3])
    slow.wait_for(FIRST + 3)
    slow.goes_on.set()
    slow.wait_for(*slow.slow)


def test_threads_are_bounded_and_then_the_log_says_so(slow: Slow, caplog: pytest.LogCaptureFixture) -> None:
    """The loop goes on, and so do the files as soon as one of those before them does."""
    closing = Closer(slow)
    slow.slow = set(range(FIRST, FIRST + THREADS_MAX))
    with caplog.at_level(logging.WARNING):
        for descriptor in slow.slow:
            closing.close([descriptor])
        for _ in slow.slow:
            assert slow.begun.acquire(timeout=PATIENCE)
        for number in range(3):
            closing.close([FIRST + 100 + number])
    assert closing._threads == THREADS_MAX and not slow.closed
    (record,) = caplog.records
    assert vars(record)["event"] == "closing_held_up" and vars(record)["fields"] == {"threads": THREADS_MAX}
    slow.goes_on.set()
    slow.wait_for(*slow.slow, FIRST + 102)


def test_the_log_says_so_again_when_it_happens_again(slow: Slow, caplog: pytest.LogCaptureFixture) -> None:
    closing = Closer(slow)
    with caplog.at_level(logging.WARNING):
        for first in (FIRST, FIRST + 100):
            slow.goes_on.clear()
            slow.slow = set(range(first, first + THREADS_MAX))
            for descriptor in slow.slow:
                closing.close([descriptor])
            for _ in slow.slow:
                assert slow.begun.acquire(timeout=PATIENCE)
            closing.close([first + 50, first + 51])
            slow.goes_on.set()
            slow.wait_for(*slow.slow, first + 50, first + 51)
            while closing._free < THREADS_MAX:
                os.sched_yield()
            closing.close([first + 52])
    assert len(caplog.records) == 2


def test_what_waited_for_a_thread_is_shared_by_all_that_become_free(slow: Slow) -> None:
    """One that takes its time does not hold up those that waited with it."""
    closing = Closer(slow)
    slow.slow = set(range(FIRST, FIRST + THREADS_MAX))
    for descriptor in slow.slow:
        closing.close([descriptor])
    for _ in slow.slow:
        assert slow.begun.acquire(timeout=PATIENCE)
    still_slow = FIRST + 100
    closing.close([FIRST + 99])
    closing.close([still_slow, FIRST + 101])
    again = threading.Event()
    first, slow.goes_on = slow.goes_on, again
    slow.slow.add(still_slow)
    first.set()
    slow.wait_for(FIRST + 101)
    assert still_slow not in slow.closed
    again.set()


def test_files_wait_for_a_system_that_has_no_thread_left(slow: Slow) -> None:
    closing = Closer(slow)
    before = threading.stack_size(1 << 46)
    try:
        closing.close([FIRST])
    finally:
        threading.stack_size(before)
    assert not slow.closed
    closing.close([FIRST + 1])
    slow.wait_for(FIRST, FIRST + 1)


def lingering(peers: contextlib.ExitStack) -> socket.socket:
    """A socket whose close waits for days, because its peer reads nothing; until the peer is closed."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        sender = socket.socket()
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        sender.connect(listener.getsockname())
        peers.enter_context(listener.accept()[0])
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 1_000_000))
    sender.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while sender.send(bytes(1 << 16)):
            pass
    return sender


def make_linger(task: machport.Task, peers: contextlib.ExitStack) -> None:
    """Let the daemon have the last descriptor of more such sockets than it has threads."""
    for _ in range(THREADS_MAX + 4):
        with lingering(peers) as sender:
            right = task.fileport(sender)
        right.close()


def check_pipes_end(task: machport.Task) -> None:
    reading, writing = os.pipe()
    right = task.fileport(writing)
    os.close(writing)
    right.close()
    assert select.select([reading], [], [], PATIENCE)[0], "the end of the pipe has not come"
    os.close(reading)


def test_lingering_sockets_of_one_client_hold_up_no_other_however_many(
    daemon: DaemonProcess, task: machport.Task
) -> None:
    """Promise 5: nor the end of the daemon."""
    with contextlib.ExitStack() as peers:
        make_linger(task, peers)
        check_pipes_end(task)
        daemon.process.terminate()
        assert daemon.process.wait(PATIENCE) == 0


@pytest.mark.parametrize("how", ["in a packet of nobody's", "too many in a packet", "in a packet that is not read"])
def test_sockets_that_linger_do_not_stall_the_loop_when_a_connection_is_cut_off(
    daemon: DaemonProcess, task: machport.Task, how: str
) -> None:
    """Promise 5: they are closed aside whatever way they came, also by the system."""
    with contextlib.ExitStack() as peers, RawTask(daemon.path) as raw, raw.thread() as thread:
        senders = [peers.enter_context(lingering(peers))]
        if how == "too many in a packet":
            senders += [peers.enter_context(socket.socket()) for _ in range(20)]
            senders.reverse()
        daemon.process.send_signal(signal.SIGSTOP)
        if how == "in a packet that is not read":
            thread.send(b"rubbish that is read before")
        socket.send_fds(thread, [b"rubbish" * 10], [sender.fileno() for sender in senders])
        for sender in senders:
            sender.close()
        daemon.process.send_signal(signal.SIGCONT)
        with contextlib.suppress(ConnectionResetError):
            assert not thread.recv(1)
        task.allocate().close()
        machport.Task(label="another").close()


def test_a_daemon_is_replaced_while_sockets_linger(socket_path: Path) -> None:
    with Lineage(socket_path) as daemon, machport.Task() as task, contextlib.ExitStack() as peers:
        make_linger(task, peers)
        daemon.upgrade()
        make_linger(task, peers)
        check_pipes_end(task)


def test_lingering_is_left_to_those_who_have_the_socket_too(slow: Slow) -> None:
    """As long as there are threads for it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        closing = Closer(slow)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 5))
        closing.close([ours.fileno()])
        slow.wait_for(ours.fileno())
        assert struct.unpack("ii", ours.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)) == (1, 5)
        closer._stop_lingering(ours.fileno())
        assert struct.unpack("ii", ours.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))[0] == 0
