"""Who connected is the process that connected, and never another one that has its number by now (E10, T3)."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from actors import PATIENCE

from machport.abi.errors import ProtocolError
from machport.carrier import packet
from machport.peer.attestation import attest, credentials

#: A process that connects, and is then what it is told.
CONNECTS = """
import socket, sys
sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
sock.connect(sys.argv[1])
print(flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        listener.settimeout(PATIENCE)
        yield listener


def connecting(listener: socket.socket) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", CONNECTS, listener.getsockname()], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


@pytest.mark.parametrize("peer_pidfd", [True, False])
def test_who_connected_is_attested_with_its_user_and_its_beginning(listener: socket.socket, peer_pidfd: bool) -> None:
    """With and without SO_PEERPIDFD, which is there since Linux 6.5."""
    with connecting(listener) as process:
        sock, _ = listener.accept()
        peer = attest(sock, peer_pidfd=peer_pidfd)
        began = int(Path(f"/proc/{process.pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
        assert (peer.pid, peer.uid, peer.gid, peer.version) == (process.pid, os.getuid(), os.getgid(), began)
        assert peer.tokens[:2] == (os.getuid(), os.getgid())
        assert peer.tokens[7:] == (process.pid, 0, began)
        assert credentials(sock)[:2] == (process.pid, os.getuid())
        os.close(peer.pidfd)
        sock.close()
        process.kill()


def test_a_process_that_is_younger_than_the_connection_is_an_impostor(listener: socket.socket) -> None:
    """It was accepted, says the test, before the process began that has the number."""
    accepted = time.clock_gettime(time.CLOCK_BOOTTIME) - 1
    before = len(os.listdir("/proc/self/fd"))
    with connecting(listener) as process:
        sock, _ = listener.accept()
        with pytest.raises(ProtocolError, match="is younger than its connection"):
            attest(sock, accepted - PATIENCE, peer_pidfd=False)
        # The system's own pidfd needs no such look.
        os.close(attest(sock, accepted - PATIENCE).pidfd)
        sock.close()
        process.kill()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_process_that_was_collected_is_not_attested(listener: socket.socket) -> None:
    with connecting(listener) as process:
        sock, _ = listener.accept()
        process.kill()
        process.wait()
        with pytest.raises(ProtocolError, match="is gone"):
            attest(sock, peer_pidfd=False)
        sock.close()


def test_a_socket_that_nobody_connected_is_of_nobody() -> None:
    """What the system says of it is about the process, not about what it knows to tell."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock, pytest.raises(ProtocolError, match="is gone"):
        attest(sock)


def test_a_packet_comes_with_its_sender_or_is_of_nobody() -> None:
    """Whether the socket asks for senders is decided where it is made, and no file is kept of what is refused."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        before = len(os.listdir("/proc/self/fd"))
        packet.send(theirs, b"x", [0])
        with pytest.raises(ProtocolError, match="a packet of nobody"):
            packet.receive_with_sender(ours)
        assert len(os.listdir("/proc/self/fd")) == before
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        packet.send(theirs, b"x")
        assert packet.receive_with_sender(ours) == (b"x", [], (os.getpid(), os.getuid()))
        # Whoever does not care for the sender has all descriptors nevertheless, and no more than are allowed.
        packet.send(theirs, b"x", [0] * packet.DESCRIPTORS_MAX)
        received = packet.receive(ours)
        assert received is not None and len(received[1]) == packet.DESCRIPTORS_MAX
        packet.close_all(received[1])
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 0)
        packet.send(theirs, b"x", [0] * (packet.DESCRIPTORS_MAX + 1))
        with pytest.raises(ProtocolError, match="too many descriptors"):
            packet.receive(ours)
        theirs.close()
        assert packet.receive_with_sender(ours) is None


#: Gives a number to two processes, one after the other: first one that connects, then one that only lives.
REUSES = """
import ctypes, os, platform, signal, socket, struct, sys
from machport.abi.errors import ProtocolError
from machport.peer.attestation import attest
libc = ctypes.CDLL(None, use_errno=True)

def fork_as(pid):
    numbers = (ctypes.c_int * 1)(pid)
    # As clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, three of the stack, tls, set_tid, its size.
    arguments = struct.pack("11Q", 0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, ctypes.addressof(numbers), 1, 0)
    return libc.syscall(435, arguments, len(arguments))

listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
listener.bind(sys.argv[1])
listener.listen()
pid = os.fork()
if not pid:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.connect(sys.argv[1])
    signal.pause()
sock, _ = listener.accept()
first = attest(sock)
os.kill(pid, signal.SIGKILL)
os.waitpid(pid, 0)
second = fork_as(pid)
if second == 0:
    signal.pause()
if second != pid:
    print("skip", os.strerror(ctypes.get_errno()))
    sys.exit()
began = int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[19])
print(began >= first.version)
try:
    # The connection is as old as its process, by the ticks that its version counts.
    print(attest(sock, first.version / os.sysconf("SC_CLK_TCK") - 0.01, peer_pidfd=False))
except ProtocolError as error:
    print(error.says)
try:
    # Newer systems tell of the one that connected, and older ones refuse.
    peer = attest(sock)
    print(os.readlink(f"/proc/self/fd/{peer.pidfd}") != "", peer.version)
except ProtocolError as error:
    print("gone", 0)
os.kill(pid, signal.SIGKILL)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can choose the number of a process")
def test_another_process_with_the_same_number_is_never_taken_for_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", REUSES, str(tmp_path / "socket")],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    lines = done.stdout.splitlines()
    if lines[0].startswith("skip"):
        pytest.skip(f"this system does not let a process have a number: {lines[0]}")
    assert lines[0] == "True" and "is younger than its connection" in lines[1]
    # What is gone has no beginning, and least of all that of who has its number.
    assert lines[2].endswith(" 0")
