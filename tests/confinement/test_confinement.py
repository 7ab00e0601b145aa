"""A confined child really has just its rights: the system refuses the rest, and what rights can do goes on."""

from __future__ import annotations

import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from actors import PATIENCE, DaemonProcess
from confined_attempts import attempt, drain, echo, serve

import machport
from machport import Confinement, aio
from machport.confinement import Available, available, bpf, programs, syscalls
from machport.face.child import Program
from machport.peer import death

pytestmark = pytest.mark.skipif(
    bool(available().missing), reason=f"this system has no {' and no '.join(available().missing)}"
)
DENIED = "PermissionError"
ROOT = Path(__file__).parents[2]


def outcomes(task: machport.Task, attempts: dict[str, str], confined: Confinement | bool = True) -> dict[str, str]:
    """What a confined function is told of each attempt."""
    with (
        task.allocate() as port,
        task.spawn(attempt, port.make_send().move(), list(attempts.values()), confined=confined),
    ):
        return dict(zip(attempts, bytes(port.receive(PATIENCE).body).decode().split("\n"), strict=True))


def test_a_confined_child_reaches_no_file_socket_process_or_privilege(
    task: machport.Task, daemon: DaemonProcess, tmp_path: Path
) -> None:
    """Promise 2: each of these is done by a child that is not confined, or is refused for another reason."""
    secret = tmp_path / "secret"
    secret.write_text("x")
    parent = os.getpid()
    refused = {
        "reading a file": f"open({str(secret)!r})",
        "making a file": f"open({str(tmp_path / 'new')!r}, 'w')",
        "listing a directory": "os.listdir('/')",
        "truncating a file": f"os.truncate({str(secret)!r}, 0)",
        "changing a mode": f"os.chmod({str(secret)!r}, 0o777)",
        "changing an owner": f"os.chown({str(secret)!r}, 1, 1)",
        "changing a time": f"os.utime({str(secret)!r})",
        "an attribute": f"os.setxattr({str(secret)!r}, 'user.x', b'')",
        "removing a file": f"os.unlink({str(secret)!r})",
        "connecting to the daemon": f"connect({str(daemon.path)!r})",
        "the internet": "socket.socket()",
        "datagrams from a pair": "socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)",
        "a raw pair": "socket.socketpair(socket.AF_UNIX, socket.SOCK_RAW)",
        "a signal to its parent": f"os.kill({parent}, 0)",
        "a signal by pidfd": f"__import__('signal').pidfd_send_signal(os.pidfd_open({parent}), 0)",
        "tracing its parent": f"system('ptrace', 16, {parent}, 0, 0)",
        "its parent's memory": f"open('/proc/{parent}/mem', 'rb')",
        "its parent's memory by a call": f"system('process_vm_readv', {parent}, 0, 0, 0, 0, 0)",
        "its parent's files": f"system('pidfd_getfd', os.pidfd_open({parent}), 0, 0)",
        "its parent's files in proc": f"open('/proc/{parent}/fd/0')",
        "its parent's environment": f"open('/proc/{parent}/environ')",
        "its parent's limits": f"__import__('resource').prlimit({parent}, 7)",
        "its parent's processors": f"os.sched_setaffinity({parent}, [0])",
        "its parent's priority": f"os.setpriority(os.PRIO_PROCESS, {parent}, 5)",
        "its group's priority": "os.setpriority(os.PRIO_PGRP, 0, 5)",
        "its user's priority": "os.setpriority(os.PRIO_USER, 0, 5)",
        "its user's turns at disks": "system('ioprio_set', 3, 0, 0)",
        "an attribute of an open file": "__import__('fcntl').ioctl(open(os.__file__), 0x40086602, bytes(8))",
        "a lease of an open file": "__import__('fcntl').fcntl(open(os.__file__), 1024, 0)",
        "starting a program": "os.execv('/bin/true', ['true'])",
        "namespaces": "system('unshare', 0x10000000)",
        "the bpf call": "system('bpf', 0, 0, 0)",
        "an io_uring": "system('io_uring_setup', 1, 0)",
        "input for a terminal": "__import__('fcntl').ioctl(0, 0x5412, b'x')",
        "signals for its parent's files": f"__import__('fcntl').fcntl(0, 8, {parent})",
        "shared memory": "__import__('_multiprocessing').SemLock(1, 1, 1, '/x', True)",
    }
    assert outcomes(task, refused) == dict.fromkeys(refused, DENIED)
    assert secret.read_text() == "x" and secret.stat().st_mode & 0o777 != 0o777
    unknown = {"a new call": "system('listns', 0)", "clone with hidden flags": "system('clone3', 0, 0)"}
    assert outcomes(task, unknown) == dict.fromkeys(unknown, "ENOSYS")


def test_a_confined_child_of_root_has_no_capability(task: machport.Task) -> None:
    """Not even those that its user would have: ``capget`` says that there are none."""
    got = outcomes(
        task, {"privilege": "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))", "user": "os.getuid()"}
    )
    assert got == {"privilege": DENIED, "user": f"done: {os.getuid()}"}


def test_a_confined_child_may_do_what_it_is_allowed_to(task: machport.Task, tmp_path: Path) -> None:
    read, write = tmp_path / "read", tmp_path / "write"
    for directory in (read, write):
        directory.mkdir()
        (directory / "file").write_text("text")
    confined = Confinement(read=[read], write=[write], network=True)
    allowed = {
        "read": f"open({str(read / 'file')!r}).read()",
        "write": f"open({str(write / 'new')!r}, 'w').write('new')",
        "make": f"os.mkdir({str(write / 'directory')!r})",
        "rename": f"os.rename({str(write / 'file')!r}, {str(write / 'directory/file')!r})",
        "remove": f"os.unlink({str(write / 'directory/file')!r})",
        "network": "socket.socket().close()",
        "null": "open('/dev/null', 'w').write('')",
        "its own priority": "os.setpriority(os.PRIO_PROCESS, 0, 5)",
        "its own limits": "__import__('resource').getrlimit(7)",
        "signal itself": "os.kill(os.getpid(), 0)",
        "a pair": "[end.close() for end in socket.socketpair()]",
        "fork": "in_a_forked_child('1')",
    }
    assert [name for name, told in outcomes(task, allowed, confined).items() if not told.startswith("done: ")] == []
    assert (write / "new").read_text() == "new"
    refused = {
        "write where it reads": f"open({str(read / 'file')!r}, 'w')",
        "remove where it reads": f"os.unlink({str(read / 'file')!r})",
        "a pipe with a name": f"os.mkfifo({str(write / 'pipe')!r})",
        "other sockets": "socket.socket(socket.AF_UNIX)",
        "packets": "socket.socket(socket.AF_NETLINK)",
    }
    assert outcomes(task, refused, confined) == dict.fromkeys(refused, DENIED)


def test_what_rights_can_do_goes_on_in_a_confined_child(task: machport.Task, capfd: pytest.CaptureFixture[str]) -> None:
    port = task.allocate()
    server = port.make_send()
    with tempfile.TemporaryFile() as file, task.spawn(serve, port.move(), confined=True):
        assert server.call(b"hello", timeout=PATIENCE).body == b"HELLO"
        assert server.call(b"x" * 1_000_000, timeout=PATIENCE).body == b"X" * 1_000_000
        file.write(b"of the parent")
        file.seek(0)
        assert server.call(rights=[task.fileport(file).move()], timeout=PATIENCE).body == b"of the parent"
        assert server.call(b"thread", timeout=PATIENCE).body == b"in a thread"
        assert int(server.call(b"time", timeout=PATIENCE).body) > 2000
        assert server.call(b"child", timeout=PATIENCE).body == DENIED.encode()
        server.call(b"stderr", timeout=PATIENCE)
    assert "said on stderr" in capfd.readouterr().err


def test_a_data_queue_works_in_a_confined_child(task: machport.Task) -> None:
    port = task.allocate()
    queue = machport.DataQueue(capacity=1 << 16)
    with task.spawn(drain, queue.move_consumer(), port.make_send().move(), confined=True) as child:
        for number in range(100):
            queue.enqueue(b"%d" % number, timeout=PATIENCE)
        queue.close()
        assert [bytes(port.receive(PATIENCE).body) for _ in range(100)] == [b"%d" % n for n in range(100)]
        assert child.join(PATIENCE) == 0


def test_the_death_of_a_confined_child_is_told(task: machport.Task) -> None:
    port = task.allocate()
    server = port.make_send()
    with task.spawn(serve, port.move(), confined=True) as child:
        server.call(b"it runs", timeout=PATIENCE)
        child.kill()
        child.join(PATIENCE)
        assert type(child.name) is str and str(pickle.loads(pickle.dumps(child.death))).endswith("SIGKILL")
        with pytest.raises(machport.ServerDied):
            server.call(b"again", timeout=PATIENCE)


def test_coroutines_are_confined_and_wait_in_their_loop(loop_task: aio.Task) -> None:
    import asyncio

    async def main() -> None:
        port = loop_task.allocate()
        server = port.make_send()
        with loop_task.spawn(echo, port.move(), confined=True):
            assert (await server.call(b"hello", timeout=PATIENCE)).body == b"HELLO"

    asyncio.run(main())


PROGRAM = """
import os, signal, machport
rights = machport.inherited()
def tell(attempt):
    try: rights["out"].send(f"done {attempt()}".encode())
    except OSError as error: rights["out"].send(type(error).__name__.encode())
"""


def program(source: str) -> list[str]:
    return [sys.executable, "-c", PROGRAM + source]


def test_a_confined_program_has_its_rights_and_nothing_else(task: machport.Task, daemon: DaemonProcess) -> None:
    port = task.allocate()
    source = """
tell(lambda: open("/etc/passwd"))
tell(lambda: machport.Task())
tell(lambda: os.kill(os.getppid(), 0))
tell(lambda: os.execv("/bin/true", ["true"]))
tell(lambda: signal.getsignal(signal.SIGINT) is signal.default_int_handler)
tell(lambda: open("/proc/thread-self/environ"))
tell(lambda: len(machport.task_self().label))
"""
    with task.spawn(
        program(source), rights={"out": port.make_send().move()}, confined=True, stderr=subprocess.PIPE
    ) as child:
        told = [bytes(port.receive(PATIENCE).body).decode() for _ in range(7)]
        assert child.join(PATIENCE) == 0
    # A task of its own would begin with a connection.
    assert told[:5] == [DENIED, "PermissionError", DENIED, DENIED, "done True"]
    assert told[5] == DENIED and told[6].startswith("done ")


def test_the_sender_of_a_confined_programs_messages_is_that_program(task: machport.Task) -> None:
    """M35: the process that joined for it is the same one."""
    port = task.allocate()
    with task.spawn(program("tell(lambda: 0)"), rights={"out": port.make_send().move()}, confined=True) as child:
        assert port.receive(PATIENCE).pid == child.pid


def test_a_program_that_does_not_know_rights_is_confined(task: machport.Task, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("text")
    with task.spawn(["cat", str(secret)], confined=True, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.join(PATIENCE) == 1
        assert child.stderr is not None and b"Permission denied" in child.stderr.read()
    with task.spawn(["cat", str(secret)], confined=Confinement(read=[secret]), stdout=subprocess.PIPE) as child:
        assert child.join(PATIENCE) == 0
        assert child.stdout is not None and child.stdout.read() == b"text"


def test_a_script_is_started_with_what_its_first_line_names(task: machport.Task, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\nexit 7\n")
    with pytest.raises(machport.ProgramNotStarted, match="Permission denied"):
        task.spawn([str(script)], confined=True)
    script.chmod(0o755)
    assert str(script) in programs.files_of(str(script))
    with task.spawn([str(script)], confined=True) as child:
        # The shell reads it, which is more than starting it.
        assert child.join(PATIENCE) == 7


def test_a_confined_program_may_start_what_it_is_allowed_to(task: machport.Task) -> None:
    allowed = Confinement(execute=["/bin/true"])
    command = ["sh", "-c", "/bin/true && ! /bin/false 2> /dev/null && exec /bin/true"]
    with task.spawn(command, confined=allowed, stderr=subprocess.DEVNULL) as child:
        assert child.join(PATIENCE) == 0
    with task.spawn(command, confined=True, stderr=subprocess.DEVNULL) as child:
        assert child.join(PATIENCE) == 126


def test_pipes_of_a_broken_program_die_as_they_do_without_confinement(task: machport.Task) -> None:
    """What Python ignores for itself, programs of the launcher do not ignore."""
    with task.spawn(["sh", "-c", "kill -PIPE $$"], confined=True) as child:
        assert child.join(PATIENCE) == -signal.SIGPIPE


def test_a_program_may_have_ended_with_its_task_when_spawn_returns(
    task: machport.Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It joins before it is the program, so it may be gone before its parent asks the daemon to watch it."""
    spawn: Any = sys.modules["machport.face.spawn"]
    started = spawn._Start.started

    def started_late(start: Any, process: Program) -> None:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with task.allocate() as deaths:
            right = machport.SendRight(task, start.child)
            right.request_dead_name(deaths)
            deaths.receive(PATIENCE).close()
            right.gone("lent")
        started(start, process)

    monkeypatch.setattr(spawn._Start, "started", started_late)
    with task.spawn(["true"], confined=True) as child:
        assert child.join(PATIENCE) == 0


def test_a_program_that_is_not_there_is_a_typed_error_and_its_rights_are_back(task: machport.Task) -> None:
    port = task.allocate()
    with pytest.raises(machport.ProgramNotStarted) as raised:
        task.spawn(["/nowhere"], rights={"port": port.move()}, confined=True)
    assert raised.value.errno == 2
    port.make_send().send(b"still here")
    assert port.receive(PATIENCE).body == b"still here"


@pytest.mark.parametrize(
    ("confined", "says"),
    [
        ("read", "is a Confinement, or True"),
        (Confinement(read=["/not there"]), "No such file"),
        (Confinement(write="/tmp"), "a list of paths"),
        (Confinement(execute=[3]), "not a path"),  # type: ignore[list-item]
    ],
)
def test_what_is_no_confinement_is_refused_at_the_call(
    task: machport.Task, confined: Confinement | bool, says: str
) -> None:
    names = task.calls.mach_port_names(task.name)
    with pytest.raises(machport.InvalidArgument, match=says):
        task.spawn(["true"], confined=confined)
    assert task.calls.mach_port_names(task.name) == names


def test_a_function_is_confined_before_any_module_of_the_program_is_imported(
    daemon: DaemonProcess, tmp_path: Path
) -> None:
    """The main module is imported by the child before its function: so that its threads are confined, too."""
    script = tmp_path / "script.py"
    script.write_text(
        "import machport\n"
        "try: found = open('/etc/passwd').name\n"
        "except PermissionError: found = 'confined'\n"
        "def tell(port): port.send(found.encode())\n"
        "if __name__ == '__main__':\n"
        "    with machport.Task() as task, task.allocate() as port:\n"
        "        with task.spawn(tell, port.make_send().move(), confined=True) as child:\n"
        f"            print(bytes(port.receive({PATIENCE}).body).decode(), child.name)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert done.stdout == "confined tell\n", done.stderr


def applied(system: Available, source: str, *, best_effort: bool = False, before: str = "") -> str:
    """What a process prints that confines itself with the parts that a system has."""
    prelude = f"""
import os, signal, sys, threading
from machport.confinement import Available
from machport.confinement.applying import apply
from machport.confinement.policy import Confinement
def tried(attempt):
    try: return attempt() or "done"
    except OSError as error: return type(error).__name__
{before}
try: apply(**Confinement(best_effort={best_effort}).resolved(), system={system!r})
except Exception as error: print(type(error).__name__, error); sys.exit()
{source}
"""
    done = subprocess.run([sys.executable, "-c", prelude], capture_output=True, text=True, timeout=PATIENCE, check=True)
    return done.stdout.strip()


def test_a_confined_child_changes_no_attribute_of_a_file_that_it_may_only_read(
    task: machport.Task, tmp_path: Path
) -> None:
    """Promise 2: nor its times, by requests that every file system has of its own."""
    file = tmp_path / "file"
    file.write_text("text")
    before = file.stat()
    requests = {
        "FS_IOC_SETFLAGS": 0x40086602,
        "FS_IOC_SETVERSION": 0x40087602,
        "FS_IOC_FSSETXATTR": 0x401C5820,
        "EXT4_IOC_SETVERSION_OLD": 0x40086604,
        "EXT4_IOC_GROUP_EXTEND": 0x40086607,
        "FS_IOC_ENABLE_VERITY": 0x40806685,
        "with more above its 32 bits": 0x140087602,
        "none that is known": 0x12345678,
    }
    attempts = {name: f"request({str(file)!r}, {request})" for name, request in requests.items()}
    assert outcomes(task, attempts, Confinement(read=[file])) == dict.fromkeys(requests, DENIED)
    assert file.stat().st_ctime_ns == before.st_ctime_ns


def test_a_confined_child_asks_terminals_sockets_and_processes_what_python_asks() -> None:
    before = f"""
import fcntl, socket, tempfile, termios, tty
controller, terminal = os.openpty()
pipe, pair = os.pipe(), socket.socketpair()
source, copy = tempfile.TemporaryFile(), tempfile.TemporaryFile()
GET_INFO = {death._GET_INFO}
"""
    done = [
        "os.isatty(terminal) or 1 / 0",
        "[termios.tcsetattr(terminal, when, termios.tcgetattr(terminal)) for when in (0, 1, 2)]",
        "[fcntl.ioctl(terminal, how, bytearray(fcntl.ioctl(terminal, 0x802C542A, bytes(44))))"
        " for how in (0x402C542B, 0x402C542C, 0x402C542D)]",
        "termios.tcflush(terminal, termios.TCIFLUSH)",
        "termios.tcflow(terminal, termios.TCOON)",
        "termios.tcdrain(terminal)",
        "os.get_terminal_size(terminal)",
        "fcntl.ioctl(pipe[0], termios.FIONREAD, bytes(4))",
        "fcntl.ioctl(pair[0], termios.TIOCOUTQ, bytes(4))",
        "pair[0].setblocking(False)",
        "os.set_inheritable(pipe[0], True)",
        "os.set_inheritable(pipe[0], False)",
    ]
    # Not all systems, file systems and terminals know these.
    asked = [
        "os.tcgetpgrp(terminal)",
        "fcntl.ioctl(terminal, 0x5429, bytes(4))",
        "fcntl.ioctl(copy, 0x40049409, source.fileno())",
        "fcntl.ioctl(os.pidfd_open(os.getpid()), GET_INFO, bytes(64))",
    ]
    source = "\n".join(f"print(tried(lambda: ({attempt}) and None))" for attempt in [*done, *asked])
    told = applied(available(), source, before=before).split("\n")
    assert dict(zip(done, told, strict=False)) == dict.fromkeys(done, "done")
    assert len(told) == len(done) + len(asked) and DENIED not in told


def test_a_confined_child_asks_for_interfaces_if_it_has_the_network(task: machport.Task) -> None:
    names = {"names": "socket.if_indextoname(socket.if_nametoindex('lo'))"}
    assert outcomes(task, names, Confinement(network=True)) == {"names": "done: 'lo'"}


def test_without_the_signals_of_landlock_the_filter_holds_them_back() -> None:
    """As of Linux 6.10; and without its truncation, as of 5.19."""
    signals = """
pidfd = os.pidfd_open(os.getppid())
print(tried(lambda: os.kill(os.getppid(), 0)), tried(lambda: signal.pidfd_send_signal(pidfd, 0)),
      tried(lambda: os.kill(0, 0)), tried(lambda: os.kill(os.getpid(), 0)), tried(lambda: signal.raise_signal(0)),
      tried(lambda: os.truncate("/etc/hostname", 1)), tried(lambda: open("/etc/passwd")))
"""
    for abi in (1, 2, 3, 4, 5):
        assert applied(Available(abi, True), signals).split() == [*[DENIED] * 3, *["done"] * 2, *[DENIED] * 2], abi


def test_what_the_system_lacks_is_refused_unless_less_is_enough() -> None:
    says = applied(Available(0, True), "")
    assert says.startswith("ConfinementUnavailable") and "no Landlock to confine a child" in says
    assert "no Landlock and no seccomp" in applied(Available(0, False), "")
    reads = "print(tried(lambda: open('/etc/passwd').close()), tried(lambda: os.chmod('/nowhere', 0)))"
    assert applied(Available(0, True), reads, best_effort=True) == "done PermissionError"
    assert applied(Available(7, False), reads, best_effort=True) == "PermissionError FileNotFoundError"
    assert applied(Available(0, False), reads, best_effort=True) == "done FileNotFoundError"


def test_a_process_with_threads_is_not_confined_in_part() -> None:
    before = "event = threading.Event(); threading.Thread(target=event.wait, daemon=True).start()"
    says = applied(available(), "", before=before, best_effort=True)
    assert says.startswith("ConfinementUnavailable") and "has threads already" in says


def test_spawn_asks_the_system_first(task: machport.Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine whose numbers are not known there is no filter, and nothing is started."""
    monkeypatch.setattr(syscalls, "MACHINES", {})
    assert available() == Available(0, False)
    with pytest.raises(machport.ConfinementUnavailable, match=r"no Landlock and no seccomp .*best_effort=True"):
        task.spawn(["true"], confined=True)


def test_the_numbers_are_those_of_the_systems_headers() -> None:
    """Where these know the call."""
    headers = [Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), Path("/usr/include/asm-generic/unistd.h")]
    if not all(header.exists() for header in headers):
        pytest.skip("the headers of the system's calls are not installed")
    pattern = re.compile(r"^#define __NR(?:3264)?_(\w+)\s+(\d+)$", re.MULTILINE)
    for column, header in enumerate(headers):
        defined = {name: int(number) for name, number in pattern.findall(header.read_text())}
        assert len(defined) > 200
        for call, numbers in syscalls.NUMBERS.items():
            if call in defined or (numbers[column] or 999) < max(defined.values()):
                assert numbers[column] == defined.get(call), (call, header)


def test_calls_of_another_interface_of_the_processor_are_refused() -> None:
    """x32 and 32-bit calls have other numbers, which no rule would match."""
    machine = syscalls.MACHINES["x86_64"]
    program = bpf.assemble(machine.audit, machine.foreign_bit, syscalls.LAST, [])
    if os.uname().machine != "x86_64":
        pytest.skip("this processor has no such interface")
    source = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall(0x40000000 + 39)
print(ctypes.get_errno())
"""
    assert bpf.length(program) == 9
    assert applied(available(), source) == "38"


def test_a_socket_that_a_child_is_given_stays_its_own(task: machport.Task) -> None:
    """Files are rights like others: what the parent gives, the child has, whatever it may open by itself."""
    ours, theirs = socket.socketpair()
    port = task.allocate()
    send = port.make_send()
    with ours, theirs, task.spawn(serve, port.move(), confined=True):
        ours.sendall(b"through a socket")
        ours.shutdown(socket.SHUT_WR)
        assert send.call(rights=[task.fileport(theirs).move()], timeout=PATIENCE).body == b"through a socket"
