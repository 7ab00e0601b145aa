"""Two ends of a socket learn of each other's processes, and nothing that a hostile one sends does harm."""

from __future__ import annotations

import array
import gc
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from machport.peer import introduction, lifeline

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    one, other = introduction.new_pair()
    with one, other:
        yield one, other


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def rights(*numbers: int) -> list[tuple[int, int, array.array[int]]]:
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", numbers))]


def head(generation: int = 0, *, magic: bytes = b"machport", version: int = 1, offset: int = 0xFFFFFFFF) -> bytes:
    return magic + array.array("I", [version, generation, 0, offset]).tobytes()


def test_an_introduction_tells_who_and_since_when_and_by_which_line(pair: Pair) -> None:
    introduction.introduce(pair[0], 5, answer=True)
    heard = introduction.listen(pair[1])
    assert heard.peer is not None
    assert (heard.peer.pid, heard.peer.generation, heard.answer, heard.ended) == (os.getpid(), 5, True, False)
    assert heard.peer.label == introduction.default_label()
    assert (heard.peer.line is not None) == (lifeline.held() is not None)
    assert not heard.peer.is_dead()


def test_the_last_introduction_counts_and_wake_ups_are_passed_over(pair: Pair) -> None:
    introduction.introduce(pair[0], 1, answer=True)
    pair[0].send(bytes(introduction.WAKE_SIZE))
    introduction.introduce(pair[0], 2, answer=False)
    heard = introduction.listen(pair[1])
    assert heard.peer is not None
    assert (heard.peer.generation, heard.answer) == (2, False)
    assert introduction.listen(pair[1]).peer is None


def test_a_socket_that_has_ended_says_so_after_what_came_before(pair: Pair) -> None:
    introduction.introduce(pair[0], 1, answer=False)
    pair[0].close()
    heard = introduction.listen(pair[1])
    assert heard.ended
    assert heard.peer is not None


def test_an_empty_packet_is_no_end(pair: Pair) -> None:
    pair[0].send(b"")
    assert not introduction.listen(pair[1]).ended


@pytest.mark.parametrize(
    "payload",
    [b"nonsense, and a lot of it", head(magic=b"machpore"), head(version=2), head()[:-1], bytes(500), b"x"],
    ids=["text", "magic", "version", "short", "long", "tiny"],
)
def test_what_is_no_introduction_is_passed_over_and_its_descriptors_closed(pair: Pair, payload: bytes) -> None:
    pidfd = os.pidfd_open(os.getpid())
    before = descriptors()
    pair[0].sendmsg([payload], rights(pidfd, 0, 1))
    heard = introduction.listen(pair[1])
    assert (heard.peer, heard.ended) == (None, False)
    assert descriptors() == before
    os.close(pidfd)


def test_nobody_can_introduce_another_process(pair: Pair) -> None:
    """The system says whose number the sender has, and the pidfd must be of that process."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        pidfd = os.pidfd_open(other.pid)
        before = descriptors()
        pair[0].sendmsg([head()], rights(pidfd))
        assert introduction.listen(pair[1]).peer is None
        pair[0].sendmsg([head()], rights(0))
        assert introduction.listen(pair[1]).peer is None
        assert descriptors() == before
        os.close(pidfd)


def test_a_line_that_is_none_is_left_out_and_a_label_is_made_printable(pair: Pair) -> None:
    pidfd = os.pidfd_open(os.getpid())
    with open("/dev/null") as null:
        pair[0].sendmsg([head(offset=2**31) + b"a\x1b[2Jb\xff"], rights(pidfd, null.fileno()))
    os.close(pidfd)
    heard = introduction.listen(pair[1])
    assert heard.peer is not None
    assert heard.peer.line is None
    assert heard.peer.label == "a[2Jb\N{REPLACEMENT CHARACTER}"


def test_peers_that_are_forgotten_leave_nothing(pair: Pair) -> None:
    introduction.introduce(pair[0], 0, answer=False)
    introduction.listen(pair[1])
    gc.collect()
    before = descriptors()
    for generation in range(50):
        introduction.introduce(pair[0], generation, answer=False)
        introduction.introduce(pair[0], generation, answer=False)
        assert introduction.listen(pair[1]).peer is not None
    gc.collect()
    assert descriptors() == before


def test_a_descriptor_that_is_no_pidfd_is_of_no_process() -> None:
    assert introduction.process_of(0) is None
    assert introduction.process_of(10**6) is None
    pidfd = os.pidfd_open(os.getpid())
    assert introduction.process_of(pidfd) == os.getpid()
    os.close(pidfd)
