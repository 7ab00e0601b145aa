"""Bytes of any kind, by a seed, for all that reads them: nothing is raised but what says that they are wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import click
import pytest

import chaos
from chaos import fuzz
from chaos.fuzzing.feeding import Feeder
from chaos.fuzzing.runner import Tally
from chaos.fuzzing.target import SHARES, Target
from chaos.report import Report

PROJECT = Path(chaos.__file__).parents[1]


def test_any_bytes_are_taken_or_refused() -> None:
    """A short run of what ``python -m chaos fuzz`` does with coverage."""
    command = [sys.executable, "-m", "chaos.fuzzing.runner", "seeded", "all", "--runs", "12000"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["target"] for each in told] == list(SHARES)
    assert {each["target"]: each["faults"] for each in told if each["faults"]} == {}


def test_a_fault_is_told_with_its_input_once_for_each_kind() -> None:
    def call(data: bytes) -> None:
        if len(data) > 1:
            raise KeyError(len(data) // 4)

    tally = Tally(Target("any", call, (), 1))
    for size in (0, 2, 3, 4, 5):
        tally.feed(bytes(size))
    told = json.loads(tally.as_json())
    assert told["inputs"] == 5
    assert [where.split(" in ")[0] for where in told["faults"]] == ["KeyError"] * 2
    assert list(told["faults"].values()) == ["0000", "00000000"]


def test_inputs_of_a_seed_are_the_same_again_and_others_with_another() -> None:
    def inputs(seed: int) -> list[bytes]:
        feeder = Feeder([b"honest", b"input"], seed)
        return [feeder.next() for _ in range(100)]

    assert inputs(1) == inputs(1) != inputs(2)
    assert len(set(inputs(1))) > 50


def test_fuzzing_without_atheris_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "find_spec", lambda _: None)
    with pytest.raises(click.ClickException, match="pip install --group fuzz"):
        fuzz.run(Report("fuzz", "", 1, "inputs", 1))


@pytest.mark.skipif(find_spec("atheris") is None, reason="it is of the dependency group fuzz")
def test_coverage_leads_to_inputs_for_both_forms(tmp_path: Path) -> None:
    """Each is tried by the interpreted modules and by the compiled ones, and what reached something is kept."""
    command = [sys.executable, "-m", "chaos.fuzzing.runner", "coverage", "hello", "--runs", "3000"]
    done = subprocess.run(
        [*command, "--directory", str(tmp_path)],
        cwd=PROJECT,
        env={**os.environ, "MACHPORT_PURE": "1"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["inputs"] == told["compiled"]["inputs"] == 3000
    assert told["faults"] == told["compiled"]["faults"] == {}
    assert told["corpus"] == len(list((tmp_path / "hello").iterdir())) > 3
