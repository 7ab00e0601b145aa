"""Short runs of the programs that hold the daemon against a real kernel's transcripts and an embedded kernel."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import chaos
from chaos import transcripts, twins
from chaos.checked_daemon import CheckedDaemon
from chaos.report import Report
from machport.abi import constants as c
from machport.abi import traps as t

PROJECT = Path(chaos.__file__).parents[1]


def run_program(name: str, amount: float, *options: str) -> str:
    """What a program says whose every figure was reached."""
    command = [sys.executable, "-m", "chaos", name, "--amount", str(amount), "--seed", "1", *options]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_daemon_and_three_processes_answer_as_gnu_mach_did() -> None:
    """D = 0, for scenarios that a seed chooses."""
    assert "divergences" in run_program("transcripts", 40)


def test_a_daemon_that_answers_otherwise_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the manual's dialect some scenarios of GNU Mach must diverge."""

    class Manual(CheckedDaemon):
        def __init__(self, _: str) -> None:
            super().__init__("manual")

    monkeypatch.setattr(transcripts, "CheckedDaemon", Manual)
    report = Report("transcripts", "", 40, "scenarios", 1)
    transcripts.run(report)
    assert not report.good
    assert any("expected" in says for says in report.anomalies)


def test_an_embedded_kernel_and_a_daemon_do_the_same() -> None:
    """Some examples of what ``python -m chaos lockstep`` does for as long as one likes."""
    assert "differences" in run_program("lockstep", 500)


@pytest.fixture
def pair() -> Iterator[twins.Twins]:
    """An embedded kernel and a daemon whose tasks may have fewer names."""
    with CheckedDaemon(name_limit=3) as daemon:
        pair = twins.Twins(daemon, 4)
        try:
            yield pair
        finally:
            pair.end()


def test_an_answer_that_is_not_the_same_is_found(pair: twins.Twins) -> None:
    member = pair.join("task")
    name = t.number_of(pair.trap(member, t.TASK_SELF.pack())[4:])
    allocate = t.ALLOCATE.pack(name, c.MACH_PORT_RIGHT_RECEIVE)
    for _ in range(2):
        pair.trap(member, allocate)
    with pytest.raises(twins.Difference, match=r"mach_port_allocate .* should give"):
        pair.trap(member, allocate)
    assert not pair.is_sound


def test_a_state_that_is_not_the_same_is_found(pair: twins.Twins, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though every answer was."""
    monkeypatch.setattr(twins, "_SOON", 0.0)
    member = pair.join("task")
    pair.machine.trap(member.task, t.REPLY_PORT.pack())
    with pytest.raises(twins.Difference, match="the daemon holds"):
        pair.trap(member, t.FILEPORT_MAKEFD.pack(0))


def test_a_call_that_waits_in_one_kernel_only_is_found(pair: twins.Twins, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not waited for, and does not hang the program."""
    member = pair.join("task")
    port = t.number_of(pair.trap(member, t.REPLY_PORT.pack())[4:])
    receive = t.MsgTrap(c.MACH_RCV_MSG, b"", (), 100, port)
    pair.message(member, receive.pack())
    (call,) = member.blocked
    pair.machine.abandon(call)
    monkeypatch.setattr(twins, "_SOON", 0.0)
    with pytest.raises(twins.Difference):
        pair.trap(member, t.FILEPORT_MAKEFD.pack(0))
