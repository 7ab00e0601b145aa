"""Short runs of the programs that hold the daemon against a real kernel's transcripts and an embedded kernel."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import chaos
from chaos import transcripts
from chaos.checked_daemon import CheckedDaemon
from chaos.report import Report

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
