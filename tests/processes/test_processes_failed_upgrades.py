"""Whatever goes wrong while a daemon is replaced, one daemon goes on with all there was, and only one."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from actors import PATIENCE, RawTask, connect, daemon_command
from lineage import Lineage, wait_for_end

import machport
from machport.abi import constants as c
from machport.abi import traps as t
from machport.carrier import packet
from machport.client.upgrade import upgrade
from machport.server import fault, supervisor
from machport.server.upgrade import PATIENCE as UPGRADE_PATIENCE

#: Steps of the old daemon after which the snapshot is complete.
COMPLETE = fault.OLD_STEPS[fault.OLD_STEPS.index("old has sent") :]
#: What is installed as ``machport``.
COMMAND = "from machport.cli import main; main()"


@pytest.fixture
def changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What every Python of the daemon's runs first, from the time when it is written: another program is installed."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    return tmp_path / "sitecustomize.py"


@pytest.fixture
def daemon(changes: Path, socket_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lineage]:
    monkeypatch.setenv(UPGRADE_PATIENCE, "5")
    with Lineage(socket_path) as daemon:
        yield daemon


class Scene:
    """A task with a message in a queue, and a thread that waits for another."""

    def __init__(self, task: machport.Task) -> None:
        self._queue, self._waits = task.allocate(), task.allocate()
        self._queue.make_send().send(b"queued")
        self._got = list[bytes]()
        begun = threading.Event()

        def wait() -> None:
            task.calls.mach_port_names(task.name)
            begun.set()
            self._got.append(self._waits.receive(PATIENCE).body)

        self._thread = threading.Thread(target=wait)
        self._thread.start()
        assert begun.wait(PATIENCE)

    def check(self) -> None:
        """Nothing is lost, and nothing came twice."""
        assert self._queue.receive(PATIENCE).body == b"queued"
        self._waits.make_send().send(b"through")
        self._thread.join(PATIENCE)
        assert self._got == [b"through"]
        with pytest.raises(machport.TimedOut):
            self._queue.receive(0)


def says(daemon: Lineage) -> str:
    """Why the daemon is not replaced."""
    with pytest.raises(machport.MachError) as failed:
        upgrade(daemon.path)
    assert "the daemon was not replaced, and goes on: " in failed.value.says
    return failed.value.says.partition("goes on: ")[2]


@pytest.mark.parametrize("step", fault.NEW_STEPS[:-1])
def test_a_new_process_that_is_killed_at_any_step_changes_nothing(
    daemon: Lineage, task: machport.Task, step: str
) -> None:
    """Also when it was told to go: it is the daemon from the moment at which it says so."""
    scene, pid, before = Scene(task), daemon.pid, daemon.descriptors()
    daemon.faults.write_text(f"kill {step}")
    says(daemon)
    assert not daemon.faults.exists()
    with RawTask(daemon.path):
        # It has seen by now that whoever asked has gone.
        assert (daemon.pid, daemon.descriptors()) == (pid, before + 2)
    assert daemon.log().count("was not replaced") == 1
    daemon.upgrade()
    scene.check()


@pytest.mark.parametrize("step", COMPLETE)
def test_a_daemon_that_dies_when_it_has_said_all_is_followed_by_the_new_one(
    daemon: Lineage, task: machport.Task, step: str
) -> None:
    scene, pid = Scene(task), daemon.pid
    daemon.faults.write_text(f"kill {step}")
    daemon.upgrade()
    assert daemon.process.wait(PATIENCE) == -signal.SIGKILL and daemon.pid != pid
    daemon.upgrade()
    scene.check()


def test_a_daemon_that_dies_before_it_has_said_all_is_lost_and_the_new_process_ends(
    daemon: Lineage, task: machport.Task
) -> None:
    daemon.faults.write_text("kill old sends")
    with pytest.raises(machport.DaemonLost):
        upgrade(daemon.path)
    with pytest.raises(machport.DaemonLost):
        task.allocate()
    assert daemon.process.wait(PATIENCE) == -signal.SIGKILL


@pytest.mark.parametrize("step", ["new begins", "new has received"])
def test_a_new_process_that_takes_too_long_is_killed(
    changes: Path, socket_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    monkeypatch.setenv(UPGRADE_PATIENCE, "0.5")
    with Lineage(socket_path) as daemon, machport.Task() as task:
        scene = Scene(task)
        daemon.faults.write_text(f"stop {step}")
        assert "in time" in says(daemon)
        scene.check()


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("import os; os._exit(3)", "the new process ended at its start"),
        ("import machport.server.snapshot as s; s.READS = (99,)", "reads snapshots of version 99, and this one"),
        ("import machport.carrier.hello as h; h.VERSION = 99", "speaks version 99 with tasks, and those that are here"),
        ("import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (12, 12))", "; raise the limit"),
        ("import machport.server.snapshot as s; s.MAGIC = b'x' * 16", "the new process refused: this is no snapshot"),
    ],
    ids=["ends", "snapshot", "protocol", "limit", "magic"],
)
def test_a_program_that_cannot_take_over_leaves_the_daemon_serving(
    daemon: Lineage, task: machport.Task, changes: Path, program: str, why: str
) -> None:
    """It was installed while the daemon ran.  When it is mended, the next upgrade succeeds."""
    scene = Scene(task)
    changes.write_text(program)
    assert why in says(daemon)
    changes.unlink()
    daemon.upgrade()
    scene.check()


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda path: path.write_text("[task]\nnamez = 3"), "{path}: task.namez is not known; there are names"),
        (lambda path: path.write_text(f"{'x' * 100_000} = 3"), "{path}: xxx"),
        (lambda path: path.unlink(), "{path} cannot be read: No such file or directory"),
    ],
    ids=["key", "long key", "gone"],
)
def test_settings_that_became_wrong_are_said_and_the_daemon_goes_on(
    socket_path: Path, tmp_path: Path, spoil: Callable[[Path], object], why: str
) -> None:
    """They are said once, as the log's other lines are.  When they are mended, an upgrade reads them again."""
    settings = tmp_path / "settings.toml"
    settings.write_text("[task]\nnames = 100")
    with Lineage(socket_path, "--config", str(settings), "--log-format", "json") as daemon, machport.Task() as task:
        scene = Scene(task)
        spoil(settings)
        assert says(daemon).startswith(f"the new process refused: {why.format(path=settings)}")
        (failed,) = [line for line in map(json.loads, daemon.log().splitlines()) if line["event"] == "upgrade_failed"]
        assert why.format(path=settings) in failed["reason"]
        settings.write_text("[task]\nnames = 200")
        daemon.upgrade()
        with machport.Task() as later:
            assert (task.limits().names, later.limits().names) == (100, 200)
        scene.check()


def test_settings_are_found_again_from_another_folder(
    socket_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon that detaches leaves the one that it was started in, where its file was named from."""
    (tmp_path / "settings.toml").write_text("[task]\nnames = 100")
    monkeypatch.chdir(tmp_path)
    arguments = daemon_command("--socket", str(socket_path), "--config", "settings.toml", "--detach")
    subprocess.run(arguments, timeout=PATIENCE, check=True)
    try:
        upgrade(socket_path)
    finally:
        pid = int(socket_path.with_name(socket_path.name + ".lock").read_text())
        os.kill(pid, signal.SIGTERM)
        wait_for_end(pid)


def test_a_daemon_that_cannot_start_a_process_goes_on(
    socket_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its interpreter is gone."""
    python = tmp_path / "python"
    python.symlink_to(sys.executable)
    monkeypatch.setattr("actors.sys.executable", str(python))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    with Lineage(socket_path) as daemon, machport.Task() as task:
        scene = Scene(task)
        python.unlink()
        assert "no process can be started" in says(daemon)
        scene.check()


def test_a_state_that_cannot_be_saved_is_said_and_the_daemon_goes_on(
    socket_path: Path, changes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of ours: the old program's own, so it is there from the start."""
    changes.write_text("import machport.server.snapshot as s\ndef save(*args): raise RuntimeError('spoiled')\n")
    with changes.open("a") as file:
        file.write("s.kernel_snapshot.save = save\n")
    daemon = Lineage(socket_path)
    try:
        with machport.Task() as task:
            scene = Scene(task)
            assert "spoiled" in says(daemon)
            scene.check()
            assert "RuntimeError: spoiled" in daemon.log()
    finally:
        daemon.kill()
        with pytest.raises(AssertionError, match="Traceback"):
            daemon.close()


def test_who_asks_twice_is_told_twice_of_one_replacement(daemon: Lineage) -> None:
    with RawTask(daemon.path) as first, RawTask(daemon.path) as second:
        packet.send(first.control, t.UPGRADE.pack())
        packet.send(second.control, t.UPGRADE.pack())
        answers = [t.UPGRADE.unpack_answer(RawTask.read(raw.control))[0][:2] for raw in (first, second)]
    assert answers[0] == answers[1] and answers[0][1] == daemon.pid


def test_who_asks_again_before_there_is_an_answer_is_refused(daemon: Lineage) -> None:
    """Answers that are owed are kept until there is a new daemon: there must be few of them."""
    with RawTask(daemon.path) as raw:
        packet.send(raw.control, t.UPGRADE.pack())
        assert t.number_of(raw.trap(t.UPGRADE.pack())) == c.KERN_RESOURCE_SHORTAGE
        assert t.UPGRADE.unpack_answer(RawTask.read(raw.control))[0][1] == daemon.pid


def test_a_signal_replaces_it_and_the_lock_names_the_new_one(daemon: Lineage, task: machport.Task) -> None:
    scene, pid = Scene(task), daemon.pid
    os.kill(pid, signal.SIGHUP)
    daemon.wait_for_successor(pid)
    scene.check()
    said = daemon.log().partition(f"has taken the place of process {pid}")[2]
    assert "task wait" in said, "the new one says as much as the old one did"
    other = subprocess.run(daemon_command("--socket", str(daemon.path)), capture_output=True, text=True, check=False)
    assert f"(process {daemon.pid})" in other.stderr


def test_the_command_says_what_was_replaced_by_what(daemon: Lineage) -> None:
    pid = daemon.pid
    command = [sys.executable, "-c", COMMAND, "daemon", "--upgrade", "--socket", str(daemon.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"process {daemon.pid} (machport ") and f"process {pid} (machport " in done.stdout
    assert done.stdout.endswith(" ms\n")
    daemon.faults.write_text("kill new begins")
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 1 and "the daemon was not replaced, and goes on" in done.stderr


def test_the_command_takes_no_other_options_and_says_so(socket_path: Path) -> None:
    """But its help is that of the daemon."""
    command = [sys.executable, "-c", COMMAND, "daemon", "--upgrade"]
    done = subprocess.run([*command, "--config", "x"], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("Usage: machport daemon --upgrade [OPTIONS]\n")
    assert "--config" in done.stderr and "keeps the options it was started with" in done.stderr
    done = subprocess.run([*command, "--help"], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0 and "machport daemon --upgrade [--socket SOCKET]" in done.stdout
    assert not socket_path.exists()


def test_there_is_nothing_to_replace_where_no_daemon_listens(socket_path: Path) -> None:
    """And none is started."""
    with pytest.raises(machport.DaemonUnavailable, match="no daemon listens"):
        upgrade(socket_path)
    assert not socket_path.exists()


def test_the_new_one_ends_for_want_of_tasks_as_the_old_one_would_have(
    socket_path: Path, changes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a patience that is no number is passed over."""
    monkeypatch.setenv(UPGRADE_PATIENCE, "soon")
    daemon = Lineage(socket_path, "--idle-exit", "0.3")
    with machport.Task() as task:
        daemon.upgrade()
        task.allocate()
        pidfd = os.pidfd_open(daemon.pid)
    ended, _, _ = select.select([pidfd], [], [], PATIENCE)
    os.close(pidfd)
    assert ended and not socket_path.exists()
    daemon.close()


def test_a_daemon_that_is_to_stop_is_not_replaced(daemon: Lineage) -> None:
    """The new process that was starting is gone, too, or the log could not be closed by all."""
    daemon.faults.write_text("stop new begins")
    with connect(daemon.path):
        os.kill(daemon.pid, signal.SIGHUP)
        daemon.process.terminate()
        assert daemon.process.wait(PATIENCE) == 0


def test_a_service_manager_is_told(socket_path: Path, changes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """READY, RELOADING and MAINPID, each from the process that it believes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("")
        sock.settimeout(PATIENCE)
        monkeypatch.setenv(supervisor.VARIABLE, "@" + sock.getsockname()[1:].decode())
        with Lineage(socket_path) as daemon:
            assert sock.recv(4096) == b"READY=1"
            daemon.upgrade()
            pid = daemon.pid
            told = [sock.recv(4096) for _ in range(3)]
            assert told[0].startswith(b"RELOADING=1\nMONOTONIC_USEC=")
            assert set(told[1:]) == {b"MAINPID=%d" % pid, b"READY=1"}
            daemon.faults.write_text("kill new begins")
            says(daemon)
            assert sock.recv(4096).startswith(b"RELOADING=1")
            assert sock.recv(4096) == b"READY=1"
