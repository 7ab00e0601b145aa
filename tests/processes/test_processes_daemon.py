"""The daemon as a process: how it starts and ends, whom it lets in, and what a user is told when it cannot."""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from actors import PATIENCE, Client, DaemonProcess, command_as, connect, daemon_command

import machport
from machport.carrier.endpoint import VARIABLE

NewClient = Callable[[str], Client]
NOBODY = 65534


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime directory for the usual place of the socket; a daemon that was started there is ended."""
    with tempfile.TemporaryDirectory(prefix="machport-") as directory:
        monkeypatch.delenv(VARIABLE, raising=False)
        monkeypatch.setenv("XDG_RUNTIME_DIR", directory)
        yield Path(directory)
        lock = Path(directory, "machport", "daemon.sock.lock")
        if lock.exists():
            end(int(lock.read_text()), signal.SIGTERM)
            assert not lock.exists()


def end(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that is nobody's child here, and wait until it has ended."""
    pidfd = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(pidfd, number)
        wait_for_end(pidfd)
    finally:
        os.close(pidfd)


def wait_for_end(pidfd: int) -> None:
    ended, _, _ = select.select([pidfd], [], [], PATIENCE)
    assert ended


def pid_of_daemon(path: Path) -> int:
    """The process that holds the lock of a socket."""
    return int(path.with_name(path.name + ".lock").read_text())


def try_to_start(path: Path, user: int | None = None) -> str:
    """What a daemon says that cannot start; one line."""
    (line,) = errors_of(daemon_command("--socket", str(path), user=user))
    return line


def errors_of(command: list[str]) -> list[str]:
    """The lines that a failing program writes to its standard error."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 1, done.stderr
    return done.stderr.splitlines()


def test_it_starts_by_itself_at_first_use_in_a_directory_that_is_the_users_alone(runtime: Path) -> None:
    with machport.Task() as task:
        assert task.path == runtime / "machport" / "daemon.sock"
        assert stat.S_IMODE(task.path.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(task.path.stat().st_mode) == 0o600
        assert pid_of_daemon(task.path) != os.getpid()


def test_a_second_task_joins_the_daemon_that_the_first_one_started(runtime: Path) -> None:
    with machport.Task() as first, machport.Task() as second:
        first_port = first.check_in("service")
        second.look_up("service").send(b"the same daemon")
        assert first_port.receive(PATIENCE).body == b"the same daemon"


def test_many_tasks_that_come_first_at_once_share_one_daemon(runtime: Path) -> None:
    tasks: list[machport.Task] = []
    threads = [threading.Thread(target=lambda: tasks.append(machport.Task())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    port = tasks[0].check_in("service")
    for task in tasks[1:]:
        task.look_up("service").send(b"here")
        assert port.receive(PATIENCE).body == b"here"
    for task in tasks:
        task.close()


def test_a_second_daemon_refuses_with_one_sentence_that_names_the_first(daemon: DaemonProcess) -> None:
    said = try_to_start(daemon.path)
    assert f"a daemon is running on {daemon.path} already (process {daemon.pid})" in said
    assert daemon.path.is_socket()
    machport.Task().close()


def test_the_socket_of_a_killed_daemon_is_taken_over(socket_path: Path) -> None:
    with DaemonProcess(socket_path) as killed:
        killed.kill()
    assert socket_path.is_socket()
    with DaemonProcess(socket_path), machport.Task() as task:
        task.allocate()


def test_what_is_no_socket_is_never_taken_for_a_stale_one(socket_path: Path) -> None:
    socket_path.write_text("precious")
    assert "is not a socket" in try_to_start(socket_path)
    assert socket_path.read_text() == "precious"


def test_a_path_that_is_too_long_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / ("x" * 108)
    assert "set MACHPORT_SOCKET to a shorter one" in try_to_start(path)
    monkeypatch.setenv(VARIABLE, str(path))
    with pytest.raises(machport.DaemonUnavailable, match=r"a socket address holds 107; set MACHPORT_SOCKET"):
        machport.Task()


def test_a_directory_that_is_not_there_is_refused_with_what_to_do(socket_path: Path) -> None:
    missing = socket_path.parent / "missing" / "daemon.sock"
    assert "is not a directory; make it, or set MACHPORT_SOCKET to another path" in try_to_start(missing)


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_a_runtime_directory_that_others_can_enter_is_refused_with_what_to_do(runtime: Path, mode: int) -> None:
    (runtime / "machport").mkdir()
    (runtime / "machport").chmod(mode)
    with pytest.raises(machport.DaemonUnavailable, match=rf"with mode 0700; .* with mode 0{mode:o}: correct it"):
        machport.Task()


def test_a_runtime_directory_that_is_a_link_is_refused(runtime: Path) -> None:
    (runtime / "elsewhere").mkdir(mode=0o700)
    (runtime / "machport").symlink_to(runtime / "elsewhere")
    with pytest.raises(machport.DaemonUnavailable, match="must be a directory of user"):
        machport.Task()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
def test_a_runtime_directory_of_another_user_is_refused_with_what_to_do(runtime: Path) -> None:
    (runtime / "machport").mkdir(mode=0o700)
    os.chown(runtime / "machport", NOBODY, NOBODY)
    with pytest.raises(machport.DaemonUnavailable, match=f"must be a directory of user 0 .* it is of user {NOBODY}"):
        machport.Task()


def test_a_directory_that_cannot_be_written_is_refused_with_what_to_do(socket_path: Path) -> None:
    socket_path.parent.chmod(0o555)
    said = try_to_start(socket_path, NOBODY if os.getuid() == 0 else None)
    socket_path.parent.chmod(0o700)
    assert "Permission denied; check who owns the directory" in said


def test_one_that_was_started_by_itself_ends_when_nobody_is_there(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("machport.client.start.IDLE_EXIT", 0.3)
    with machport.Task() as task:
        pidfd = os.pidfd_open(pid_of_daemon(socket_path))
        task.allocate()
    try:
        wait_for_end(pidfd)
    finally:
        os.close(pidfd)
    assert list(socket_path.parent.iterdir()) == []


def test_a_connection_without_hello_does_not_keep_it_from_ending(socket_path: Path) -> None:
    with DaemonProcess(socket_path, "--idle-exit", "0.5") as daemon, connect(daemon.path):
        machport.Task().close()
        assert daemon.process.wait(PATIENCE) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_leaves_nothing_behind(
    daemon: DaemonProcess, task: machport.Task, number: signal.Signals
) -> None:
    daemon.process.send_signal(number)
    assert daemon.process.wait(PATIENCE) == 0
    assert list(daemon.path.parent.iterdir()) == []
    with pytest.raises(machport.DaemonLost):
        task.allocate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_its_end_wakes_every_blocked_thread_of_every_client(
    daemon: DaemonProcess, task: machport.Task, new_client: NewClient, number: signal.Signals
) -> None:
    clients = [new_client("first"), new_client("second")]
    port = task.allocate(qlimit=0)
    full = port.make_send()
    for client in clients:
        client.give("full", full.copy())
        client.do(
            "lost = []\n"
            "def blocked(call):\n"
            "    try: call()\n"
            "    except machport.DaemonLost as error: lost.append(error)\n"
        )
        for call in ("inbox.receive", "lambda: full.send(b'no room')", "lambda: inbox.receive(1000)"):
            client.do(f"in_thread(task, lambda: blocked({call}))")
    daemon.process.send_signal(number)
    for client in clients:
        client.do("[thread.join() for thread in threading.enumerate() if thread is not threading.main_thread()]")
        assert client.do("len(lost)") == 3
        assert "make a new Task" in client.do("str(lost[0])")
    daemon.process.wait(PATIENCE)


def test_after_its_death_a_new_first_use_starts_a_new_one(socket_path: Path) -> None:
    with DaemonProcess(socket_path) as killed, machport.Task() as old:
        port = old.allocate()
        killed.kill()
        with machport.Task() as new:
            new.allocate()
            with pytest.raises(machport.DaemonLost):
                port.make_send()
        port.close()
    end(pid_of_daemon(socket_path), signal.SIGTERM)
    assert not socket_path.exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_is_refused_and_does_not_harm_it() -> None:
    with tempfile.TemporaryDirectory(prefix="machport-") as directory:
        os.chmod(directory, 0o755)
        path = Path(directory, "daemon.sock")
        with DaemonProcess(path) as daemon:
            before = daemon.descriptors()
            join = command_as(NOBODY, f"machport.Task(path={str(path)!r})")
            assert "Permission denied; check its owner and mode, or set MACHPORT_SOCKET" in errors_of(join)[-1]
            # Past the mode of the socket the daemon still looks at who it is.
            path.chmod(0o666)
            assert "DaemonLost" in errors_of(join)[-1]
            assert f"user {NOBODY}, process" in daemon.log()
            with machport.Task(path=path) as task:
                task.allocate()
                assert daemon.descriptors() == before + 5  # connection, process, lifeline, channel and its rings


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_root_may_be_a_task_of_a_users_daemon() -> None:
    with tempfile.TemporaryDirectory(prefix="machport-") as directory:
        shutil.chown(directory, NOBODY)
        with DaemonProcess(Path(directory, "daemon.sock"), user=NOBODY) as daemon:
            with machport.Task(path=daemon.path) as task:
                task.allocate()
            stranger = command_as(NOBODY - 1, f"machport.Task(path={str(daemon.path)!r})")
            assert "Permission denied" in errors_of(stranger)[-1]


def test_it_serves_others_while_every_descriptor_it_may_have_is_in_use(socket_path: Path) -> None:
    limit = 128

    def lower_limit() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))

    with DaemonProcess(socket_path, preexec_fn=lower_limit) as daemon, machport.Task(label="good") as good:
        port = good.allocate()
        held: list[socket.socket] = []
        with machport.Task(label="greedy") as greedy:
            files: list[machport.Fileport] = []
            with pytest.raises(machport.LimitReached, match="descriptor"):
                files.extend(greedy.fileport(0) for _ in range(limit))
            port.make_send().send(b"through")
            assert port.receive(PATIENCE).body == b"through"
            # Connections take the rest, and then are turned away, instead of left to hang.
            while len(held) < limit and not select.select(held, [], [], 0)[0]:
                held.append(connect(daemon.path))
                good.calls.mach_port_names(good.name)
            assert len(held) < limit
            port.make_send().send(b"still")
            assert port.receive(PATIENCE).body == b"still"
        for sock in held:
            sock.close()
        with machport.Task() as later:
            later.fileport(0).close()


def test_what_listens_and_does_not_answer_is_no_daemon(socket_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("machport.client.connection._PATIENCE", 0.05)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(socket_path))
        listener.listen()
        with pytest.raises(machport.DaemonUnavailable, match="does not answer as a daemon of machport does"):
            machport.Task()
