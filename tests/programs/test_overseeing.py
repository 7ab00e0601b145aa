"""``machport deaths``, ``ps`` and ``metrics`` as a user runs them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from actors import PATIENCE, Client, DaemonProcess
from click.testing import CliRunner
from lineage import Lineage
from prometheus_client.openmetrics.parser import text_string_to_metric_families

import machport
from machport.cli import main
from machport.client.oversight import Oversight


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "machport", *arguments]


def run(*arguments: str) -> str:
    """What a command prints that must succeed."""
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def killed(task: machport.Task) -> Iterator[Client]:
    """A server that was killed with two messages in its queue."""
    with Client(task, "printer") as server:
        server.do("inbox.set_label('paper')")
        server.inbox.send(b"one")
        server.inbox.send(b"two")
        server.die()
        yield server


@pytest.mark.parametrize(
    "arguments", [("deaths",), ("deaths", "--follow"), ("ps",), ("metrics",), ("ps", "--rights", "1")]
)
def test_a_look_at_no_daemon_says_so_and_starts_none(socket_path: Path, arguments: tuple[str, ...]) -> None:
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 1
    assert "no daemon runs on" in done.stderr
    assert "Traceback" not in done.stderr
    assert not socket_path.exists()


def test_deaths_say_who_how_what_was_lost_and_who_was_told(killed: Client) -> None:
    (heading, line) = run("deaths").splitlines()
    assert heading.split()[:3] == ["when", "task", "label"]
    assert f"printer[{killed.pid}]" in line
    assert "was killed by SIGKILL" in line
    assert "1 port, 1 send right, 2 messages, 64 bytes" in line
    assert "2 dead-name (" in line
    assert "of paper" in line


def test_deaths_as_json_have_a_line_each_and_can_be_chosen(killed: Client) -> None:
    machport.Task(label="brief").close()
    deaths = [json.loads(line) for line in run("deaths", "--json").splitlines()]
    assert [death["cause"] for death in deaths] == ["signal", "closed"], "the newest last"
    assert deaths[0]["lost"]["messages"] == 2
    assert deaths[0]["told"][0]["port"] == "paper"
    (last,) = run("deaths", "--json", "-n", "1").splitlines()
    assert json.loads(last) == deaths[1]
    (chosen,) = run("deaths", "--json", "--label", "print*").splitlines()
    assert json.loads(chosen) == deaths[0]


def test_deaths_to_come_are_followed(killed: Client, task: machport.Task) -> None:
    with ExitStack() as ends:
        follows = ends.enter_context(
            subprocess.Popen(command("deaths", "--json", "--follow"), stdout=subprocess.PIPE, text=True)
        )
        ends.callback(follows.kill)
        assert follows.stdout is not None
        assert json.loads(follows.stdout.readline())["pid"] == killed.pid
        with Client(task, "second") as second:
            second.die()
            death = json.loads(follows.stdout.readline())
        assert (death["pid"], death["signal"]) == (second.pid, signal.SIGKILL)
        follows.send_signal(signal.SIGINT)
        assert follows.wait(PATIENCE) == 0


def test_tasks_are_listed_with_what_they_hold(task: machport.Task) -> None:
    with Client(task, "printer") as server:
        server.inbox.send(b"one")
        table = run("ps")
        (line,) = [line for line in table.splitlines() if f"printer[{server.pid}]" in line]
        (told,) = [told for told in map(json.loads, run("ps", "--json").splitlines()) if told["pid"] == server.pid]
    assert (told["ports"], told["messages"], told["bytes"], told["exact"]) == (1, 1, 32, True)
    assert "next" not in told
    assert line.split()[2:7] == [str(server.pid), str(told["names"]), "1", "1", "32"]
    assert line.split()[-1] == os.readlink("/proc/self/exe")


def test_whoever_lists_the_tasks_is_not_among_them(daemon: DaemonProcess) -> None:
    """Others that look are."""
    with Oversight("metrics") as other:
        told = [json.loads(line)["label"] for line in run("ps", "--json").splitlines()]
        assert told == ["bootstrap", other.label]
        assert len(run("ps").splitlines()) == 1 + 2


def test_who_holds_what_is_listed(task: machport.Task) -> None:
    with Client(task, "printer") as server:
        server.do("inbox.set_label('paper')")
        mine = run("ps", "--rights", str(os.getpid()))
        theirs = run("ps", "--rights", str(server.pid))
        (line,) = [line for line in mine.splitlines() if "paper" in line]
        assert line.split()[1:] == ["send", "1", "paper", f"printer[{server.pid}]"]
        (line,) = [line for line in theirs.splitlines() if "paper" in line]
        assert line.split()[1:] == ["receive", "0", "paper", "itself", "0", "0"]
        told = [json.loads(line) for line in run("ps", "--json", "--rights", str(server.pid)).splitlines()]
        assert "paper" in {right["label"] for right in told}


def test_a_process_without_a_task_is_said_to_have_none(daemon: DaemonProcess) -> None:
    done = subprocess.run(command("ps", "--rights", "1"), capture_output=True, text=True, check=False)
    assert (done.returncode, "process 1 has no task here" in done.stderr) == (1, True)


def samples(text: str) -> dict[str, float]:
    """Each sample of an OpenMetrics text, by its name and labels."""
    found = {}
    for family in text_string_to_metric_families(text):  # type: ignore[no-untyped-call]
        assert family.documentation
        for sample in family.samples:
            found[sample.name + "".join(f"{{{value}}}" for value in sample.labels.values())] = sample.value
    return found


def test_numbers_are_openmetrics(killed: Client) -> None:
    found = samples(run("metrics"))
    assert found["machport_deaths_total{signal}"] == 1
    assert found["machport_notifications_total{dead_name}"] == 2
    assert found["machport_messages_sent_total"] >= 2
    assert found["machport_tasks"] == 3
    assert found["machport_calls_total{mach_msg}"] >= 2
    assert found["machport_resident_bytes"] > 1 << 20
    assert found["machport_start_time_seconds"] > 0


def test_every_number_is_on_the_page_about_them(daemon: DaemonProcess) -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "observing.md").read_text()
    for family in text_string_to_metric_families(run("metrics")):  # type: ignore[no-untyped-call]
        assert f"`{family.name}`" in page, family.name


def test_numbers_are_offered_to_whoever_scrapes_them(task: machport.Task) -> None:
    with ExitStack() as ends:
        serves = ends.enter_context(
            subprocess.Popen(command("metrics", "--serve", "0"), stdout=subprocess.PIPE, text=True)
        )
        ends.callback(serves.kill)
        assert serves.stdout is not None
        address = serves.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:")

        def scrape() -> dict[str, float]:
            wanted = urllib.request.Request(address, headers={"Accept": "application/openmetrics-text"})
            with urllib.request.urlopen(wanted, timeout=PATIENCE) as answer:
                return samples(answer.read().decode())

        before = scrape()
        port = task.allocate()
        assert scrape()["machport_ports"] == before["machport_ports"] + 1, port
        serves.send_signal(signal.SIGINT)
        assert serves.wait(PATIENCE) == 0


def test_whoever_scrapes_while_no_daemon_runs_is_told_so(socket_path: Path) -> None:
    """And given the numbers again when one does."""
    with ExitStack() as ends:
        with DaemonProcess(socket_path):
            serves = ends.enter_context(
                subprocess.Popen(
                    command("metrics", "--serve", "0"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
                )
            )
            ends.callback(serves.kill)
            assert serves.stdout is not None
            address = serves.stdout.readline().strip()
        for _ in range(2):
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(address, timeout=PATIENCE)
            with refused.value as answer:
                said = answer.read().decode()
            assert refused.value.code == 503
            assert said.startswith("no daemon runs on ") and said.count("\n") == 1
        with DaemonProcess(socket_path), urllib.request.urlopen(address, timeout=PATIENCE) as answer:
            assert b"machport_tasks " in answer.read()
        serves.send_signal(signal.SIGINT)
        _, logged = serves.communicate(timeout=PATIENCE)
    assert (serves.returncode, logged) == (0, "")


class Tracing:
    """A ``machport trace`` that has begun, to a pipe."""

    def __init__(self, ends: ExitStack, *arguments: str) -> None:
        self.process = ends.enter_context(
            subprocess.Popen(command("trace", *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
        ends.callback(self.process.kill)
        assert self.process.stdout is not None
        assert self.process.stdout.readline().startswith("trace ")

    def end(self) -> tuple[int, str, str]:
        """What it exits with, and the rest of what it writes, and says."""
        out, said = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out, said


def test_a_trace_that_an_upgrade_ends_says_so_and_keeps_what_was_written(socket_path: Path) -> None:
    with Lineage(socket_path) as daemon, ExitStack() as ends:
        tracing = Tracing(ends, "--seconds", str(PATIENCE))
        with machport.Task() as task:
            task.allocate().close()
        daemon.upgrade()
        code, out, said = tracing.end()
    assert "mach_port_allocate" in out
    assert code == 1
    assert "the trace ended early, because another process has taken the daemon's place" in said


def test_a_trace_of_a_daemon_that_is_killed_says_so(socket_path: Path) -> None:
    with DaemonProcess(socket_path) as daemon, ExitStack() as ends:
        tracing = Tracing(ends, "--seconds", str(PATIENCE))
        daemon.kill()
        code, _, said = tracing.end()
    assert code == 1
    assert "the trace ended early, because the daemon is gone" in said
    assert "Traceback" not in said


def test_a_daemon_that_is_lost_as_a_trace_begins_is_said_to_be(
    daemon: DaemonProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no fault of the file's, though what is raised is an OSError, too."""

    def lost(*arguments: object, **filters: object) -> None:
        raise machport.DaemonLost("the daemon is gone")

    monkeypatch.setattr(Oversight, "trace", lost)
    done = CliRunner().invoke(main, ["trace"])
    assert (done.exit_code, "Error: the daemon is gone" in done.output) == (1, True), done.output


def test_a_trace_whose_reader_has_seen_enough_ends_without_a_word(daemon: DaemonProcess) -> None:
    with ExitStack() as ends:
        tracing = Tracing(ends).process
        assert tracing.stdout is not None and tracing.stderr is not None
        tracing.stdout.close()
        with machport.Task() as task:
            task.allocate().close()
        assert tracing.wait(PATIENCE) == 1
        assert tracing.stderr.read() == ""


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--out", "/nonexistent/x"), "cannot write /nonexistent/x: No such file or directory"),
        (("--chrome", "/nonexistent/x"), "cannot write /nonexistent/x: No such file or directory"),
        (("--out", "/dev/full", "--seconds", "0"), "the trace cannot be written: No space left on device"),
    ],
)
def test_a_trace_that_cannot_be_written_is_said_to_be(
    daemon: DaemonProcess, arguments: tuple[str, ...], why: str
) -> None:
    """Before it begins, if its file is not there."""
    done = subprocess.run(command("trace", *arguments), capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stderr) == (1, f"Error: {why}\n")


def test_whoever_only_looks_leaves_no_death_behind(daemon: DaemonProcess) -> None:
    """Also if it finds no place for what it has seen, or has asked for nothing yet."""
    machport.Task(label="first").close()
    with ExitStack() as ends:
        serves = ends.enter_context(
            subprocess.Popen(command("metrics", "--serve", "0"), stdout=subprocess.PIPE, text=True)
        )
        ends.callback(serves.kill)
        assert serves.stdout is not None
        assert serves.stdout.readline()
        subprocess.run(command("trace", "--out", "/nonexistent/x"), capture_output=True, timeout=PATIENCE, check=False)
        Oversight().close()
        machport.Task(label="last").close()
        labels = [json.loads(line)["label"].partition("[")[0] for line in run("deaths", "--json").splitlines()]
    assert labels == ["first", "last"]
