"""A short run of hostile clients beside honest ones, and that what they break would be found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import chaos
from chaos import hostile
from chaos.report import Report

PROJECT = Path(chaos.__file__).parents[1]


def test_hostile_clients_are_answered_or_cut_off_and_no_other_client_notices() -> None:
    """Two seconds of what ``python -m chaos hostile`` does for as long as one likes."""
    command = [sys.executable, "-m", "chaos", "hostile", "--amount", "2", "--seed", "1"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "round trips" in done.stdout


@pytest.mark.parametrize("name", ["_call", "_attack"])
def test_a_process_that_finds_something_wrong_ends_the_run(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Bystanders and attackers say so by their exit code."""
    real = getattr(hostile, name)

    def fails(*arguments: object) -> None:
        if name == "_call":
            # It is waited for until it has begun.
            counts = arguments[1]
            assert isinstance(counts, memoryview)
            counts[0] = 101
        else:
            assert real is not fails
        os._exit(3)

    monkeypatch.setattr(hostile, name, fails)
    report = Report("hostile", "", 2, "seconds", 1)
    hostile.run(report)
    assert any("with 3" in says for says in report.anomalies)
