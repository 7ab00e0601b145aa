"""A second user's process can neither connect, speak, read, signal nor starve; and nobody trusts its daemon."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from actors import PATIENCE, DaemonProcess, command_as

import machport
from machport.abi import traps as t
from machport.carrier import packet
from machport.carrier.hello import Hello
from machport.server.door import Door

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs to be two users")
OWNER, STRANGER = 65533, 65534


@pytest.fixture
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Of the owner alone."""
    with tempfile.TemporaryDirectory(prefix="machport-") as name:
        shutil.chown(name, OWNER, OWNER)
        monkeypatch.setenv("MACHPORT_SOCKET", str(Path(name, "daemon.sock")))
        yield Path(name)


@pytest.fixture
def owners_daemon(directory: Path) -> Iterator[DaemonProcess]:
    with DaemonProcess(directory / "daemon.sock", user=OWNER) as daemon:
        yield daemon


@contextlib.contextmanager
def client_of_owner(source: str = "") -> Iterator[subprocess.Popen[str]]:
    """A process of the owner's, with a task and messages in its memory."""
    held = f"task = machport.Task(); port = task.allocate(); port.make_send().send(b'secret')\n{source}"
    process = subprocess.Popen(
        command_as(OWNER, f"{held}\nprint(flush=True); sys.stdin.read()"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    with process:
        yield process
        process.kill()


def outcomes(attempts: dict[str, str], user: int = STRANGER) -> dict[str, str]:
    """What a user is told of each attempt."""
    source = f"""
libc = ctypes.CDLL(None, use_errno=True)
def system(*arguments):
    if libc.syscall(*[ctypes.c_long(argument) for argument in arguments]) < 0:
        raise OSError(ctypes.get_errno(), "")
memory = ctypes.create_string_buffer(64)
struct.pack_into("QQ", memory, 0, ctypes.addressof(memory) + 32, 8)
vector = ctypes.addressof(memory), 1
def connect(path):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.connect(path)
for attempt in {list(attempts.values())!r}:
    try: eval(attempt), print("done")
    except OSError as error: print(type(error).__name__)
"""
    command = command_as(user, source, "import resource, signal, socket, struct")
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    return dict(zip(attempts, done.stdout.splitlines(), strict=True))


def test_a_stranger_can_neither_connect_read_trace_nor_signal(owners_daemon: DaemonProcess) -> None:
    """Promise 2, of the daemon and of its clients."""
    path = owners_daemon.path
    with client_of_owner() as client:
        attempts = {"connect": f"connect({str(path)!r})", "list the directory": f"os.listdir({str(path.parent)!r})"}
        for name, pid in (("daemon", owners_daemon.pid), ("client", client.pid)):
            ptrace, readv = (101, 310) if os.uname().machine == "x86_64" else (117, 270)
            attempts |= {
                f"memory of the {name}": f"open('/proc/{pid}/mem', 'rb')",
                f"maps of the {name}": f"open('/proc/{pid}/maps').read()",
                f"files of the {name}": f"os.listdir('/proc/{pid}/fd')",
                f"look at a file of the {name}": f"os.stat('/proc/{pid}/fd/0')",
                f"environment of the {name}": f"open('/proc/{pid}/environ', 'rb').read()",
                f"trace the {name}": f"system({ptrace}, 16, {pid}, 0, 0)",
                f"seize the {name}": f"system({ptrace}, 0x4206, {pid}, 0, 0)",
                f"read from the {name}": f"system({readv}, {pid}, *vector, *vector, 0)",
                f"take a file of the {name}": f"system(438, os.pidfd_open({pid}), 3, 0)",
                f"signal the {name}": f"os.kill({pid}, 0)",
                f"signal the {name} by pidfd": f"signal.pidfd_send_signal(os.pidfd_open({pid}), 0)",
                f"limits of the {name}": f"resource.prlimit({pid}, 7)",
            }
        told = outcomes(attempts)
        # Who traces, stops.
        owns = outcomes(
            {name: attempt for name, attempt in attempts.items() if f"system({ptrace}" not in attempt}, OWNER
        )
    assert {name: word for name, word in told.items() if word != "PermissionError"} == {}
    # These are good attempts: the owner may, though what it tries need not succeed.
    assert {name: word for name, word in owns.items() if word == "PermissionError"} == {}


def test_a_stranger_with_a_connected_socket_cannot_begin_a_task(owners_daemon: DaemonProcess) -> None:
    """The first packet says who sends it, whoever connected."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.connect(str(owners_daemon.path))
        packets = [packet._HEAD.pack(0, len(hello := Hello("x").pack())) + hello]
        speak(sock, packets)
        assert sock.recv(1 << 16) == b""
    assert f"of user {STRANGER} speaks by a socket of user 0" in owners_daemon.log()


def test_a_stranger_with_the_socket_of_a_task_gets_no_rings(owners_daemon: DaemonProcess) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.connect(str(owners_daemon.path))
        packet.send(sock, Hello("x").pack())
        assert packet.receive(sock) is not None
        trap = t.THREAD.pack()
        speak(sock, [packet._HEAD.pack(0, len(trap)) + trap])
        assert sock.recvmsg(1 << 16, 1 << 10)[:2] == (b"", [])
    assert "cut off: process" in owners_daemon.log() and f"of user {STRANGER} speaks" in owners_daemon.log()


def speak(sock: socket.socket, packets: list[bytes]) -> None:
    """Let a stranger send packets by a socket that it inherits."""
    source = f"import socket\nsock = socket.socket(fileno={sock.fileno()})\nfor data in {packets!r}: sock.send(data)"
    command = command_as(STRANGER, source, "import socket")
    subprocess.run(command, pass_fds=[sock.fileno()], timeout=PATIENCE, check=True)


def test_a_process_that_becomes_another_user_keeps_its_task(directory: Path) -> None:
    """As services do that get their rights as root and then give up what else root may do."""
    with DaemonProcess(directory / "daemon.sock"):
        source = """
task = machport.Task()
os.setgid(65534), os.setuid(65534)
port = task.allocate()
port.make_send().send(b"x")
print(port.receive().sender)
"""
        command = [sys.executable, "-c", f"import machport, os\n{source}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
        assert done.stdout == "(0, 0)\n", done.stderr


#: Connects as often as it can, and keeps what it got.
FLOOD = """
import socket, sys
print(flush=True)
kept = []
while True:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try: sock.connect(sys.argv[1])
    except OSError: continue
    kept.append(sock)
    del kept[:-400]
"""


def test_a_flood_of_strangers_keeps_nobody_out(owners_daemon: DaemonProcess) -> None:
    """Where a careless user has opened the socket to all: each is dropped when its turn comes, and costs nothing."""
    path = owners_daemon.path
    path.parent.chmod(0o711)
    path.chmod(0o666)
    before = owners_daemon.descriptors()
    command = command_as(STRANGER, f"sys.argv[1:] = [{str(path)!r}]{FLOOD}", "import socket")
    flood = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    try:
        for process in flood:
            assert process.stdout is not None
            process.stdout.readline()
        for number in range(20):
            with machport.Task(label=f"owner{number}", path=path) as task, task.allocate() as port:
                port.make_send().send(b"through")
                assert port.receive(PATIENCE).body == b"through"
                # The strangers hold hundreds of sockets.  A task has five, those before may still be ending, and one
                # stranger may just be turned away.
                assert owners_daemon.descriptors() <= before + 5 * (number + 1) + 1
    finally:
        for process in flood:
            process.kill()
            process.communicate()
    refused = [line for line in owners_daemon.log().splitlines() if f"user {STRANGER}, process" in line]
    # One line each time that their number has doubled.
    assert 1 <= len(refused) <= 32
    assert f"{1 << len(refused) - 1} times so far" in refused[-1]


def test_strangers_leave_turns_to_those_who_are_in(tmp_path: Path) -> None:
    """However many wait at the door, the loop goes on after some of them; and whom they stood before comes in."""
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as listener:
        listener.bind(str(path))
        listener.listen(200)
        tmp_path.chmod(0o711)
        for parent in tmp_path.parents[:2]:
            parent.chmod(0o711)
        path.chmod(0o666)
        connects = f"""
kept = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(100)]
for sock in kept: sock.connect({str(path)!r})
"""
        subprocess.run(command_as(STRANGER, connects, "import socket"), timeout=PATIENCE, check=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as owner:
            owner.connect(str(path))
            door = Door(listener, 1000)
            with pytest.raises(BlockingIOError):
                door.accept()
            assert door.strangers == {STRANGER: 64}
            door.accept().close()
            assert door.strangers == {STRANGER: 100}
            with pytest.raises(BlockingIOError):
                door.accept()


def refused_by_client(user: int, source: str) -> str:
    done = subprocess.run(command_as(user, source), capture_output=True, text=True, timeout=PATIENCE, check=False)
    return done.stderr.splitlines()[-1] if done.returncode else "joined"


def test_nobody_trusts_the_daemon_of_a_stranger(directory: Path) -> None:
    """It would have every message and file of its tasks; so also where the environment leads there."""
    shutil.chown(directory, STRANGER, STRANGER)
    directory.chmod(0o755)
    path = directory / "daemon.sock"
    with DaemonProcess(path, user=STRANGER):
        path.chmod(0o666)
        for user, source in (
            (OWNER, "machport.Task()"),
            (OWNER, f"machport.Task(path={str(path)!r})"),
            (OWNER, "from machport import mach; mach.mach_task_self()"),
            (0, "machport.Task()"),
        ):
            says = refused_by_client(user, source)
            assert f"is of user {STRANGER}, whom user {user} does not trust" in says, (user, source)
        # Root may mean it.
        assert refused_by_client(0, f"machport.Task(path={str(path)!r})") == "joined"


def test_what_only_pretends_to_be_a_daemon_is_told_nothing(directory: Path) -> None:
    """Not even the label: what is of another user is closed before anything is said."""
    path = directory / "daemon.sock"
    fake = f"""
sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
sock.bind({str(path)!r})
os.chmod({str(path)!r}, 0o666)
sock.listen()
print(flush=True)
connection, _ = sock.accept()
print(connection.recv(1000), flush=True)
"""
    directory.chmod(0o777)
    with subprocess.Popen(command_as(STRANGER, fake, "import socket"), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(machport.DaemonUnavailable, match=f"of user {STRANGER}, whom user 0 does not trust"):
            machport.Task()
        assert process.stdout.readline() == "b''\n"
