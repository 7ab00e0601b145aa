"""Whatever bytes come, they are taken or refused: nothing else is raised, and the kernel stays in order.

Traps, messages, the first packet, packets with descriptors, rings that somebody writes into, ends of data queues,
introductions, what programs inherit, transcripts and snapshots, each as a function of bytes (``chaos.fuzzing``).
atheris makes the inputs, from what earlier ones reached in the interpreted modules, and the compiled ones get the same.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import click

from chaos.fuzzing.target import SHARES
from chaos.report import Report

#: Inputs, all targets together.
AMOUNT: Final = 10_000_000
UNIT: Final = "inputs"
#: Processes at a time, each of which feeds another.
_PROCESSES: Final = 2
#: Inputs of one process, after which another begins with what was reached.
_RUNS: Final = 500_000


def run(report: Report) -> None:
    """Let all targets have their shares.

    Raises:
        click.ClickException: atheris is not installed.
    """
    if find_spec("atheris") is None:
        raise click.ClickException("fuzzing needs atheris: pip install --group fuzz, with Python 3.11 to 3.13")
    total = sum(SHARES.values())
    todo = deque(sorted(_parts(report.amount / total), key=lambda part: -part[1]))
    done: dict[str, list[dict[str, Any]]] = {name: [] for name in SHARES}
    with tempfile.TemporaryDirectory(prefix="chaos-") as place:
        running: list[tuple[str, subprocess.Popen[str]]] = []
        seed = report.seed
        while todo or running:
            while todo and len(running) < _PROCESSES:
                name, runs = todo.popleft()
                seed += 1
                running.append((name, _start(name, runs, seed, Path(place))))
            name, process = running.pop(0)
            out, errors = process.communicate()
            try:
                done[name].append(json.loads(out.splitlines()[-1]))
            except (IndexError, ValueError):
                report.anomaly(f"{name}: the process ended with {process.returncode}: {errors[-2000:]}")
            if len(report.anomalies) >= 20:
                break
    seconds = time.monotonic() - report.began
    inputs = 0
    for name, parts in done.items():
        count = sum(part["inputs"] for part in parts)
        spent = sum(part["seconds"] for part in parts)
        inputs += count
        corpus = max((part["corpus"] for part in parts), default=0)
        report.figure(name, f"{count:,} inputs, {count / max(spent, 0.01):,.0f} a second, {corpus} kept")
        for part in parts:
            for form, told in ("interpreted", part), ("compiled", part["compiled"]):
                if told["inputs"] != part["inputs"]:
                    report.anomaly(f"{name}, {form}: it took {told['inputs']} of {part['inputs']} inputs")
                for where, data in told["faults"].items():
                    report.anomaly(f"{name}, {form}: {where}; the input is {data}")
    report.figure("inputs", f"{inputs:,}", f"{int(report.amount):,}", inputs >= int(report.amount))
    report.figure("inputs a second", f"{inputs / seconds:,.0f}, each interpreted and compiled")
    report.figure("faults", len(report.anomalies), "0", not report.anomalies)


def _parts(hundredth: float) -> list[tuple[str, int]]:
    """Targets, and how many inputs one process gives each."""
    parts = []
    for name, share in SHARES.items():
        left = max(1, int(-(-hundredth * share // 1)))
        while left > 0:
            parts.append((name, min(left, _RUNS)))
            left -= _RUNS
    return parts


def _start(name: str, runs: int, seed: int, place: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "chaos.fuzzing.runner", "coverage", name),
            *("--runs", str(runs), "--seed", str(seed), "--directory", str(place)),
        ],
        env={**os.environ, "MACHPORT_PURE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
