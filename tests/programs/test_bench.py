"""The benchmark as a user runs it: it works, and says what it could not measure.  Nothing here depends on time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def bench(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, cwd=ROOT, env=environment)


def test_figures_are_measured_kept_and_shown_again(tmp_path: Path) -> None:
    results, page = tmp_path / "results.jsonl", tmp_path / "page.md"
    page.write_text((ROOT / "docs" / "benchmarks.md").read_text())
    figures = ("roundtrip", "asyncio-roundtrip", "notice")
    measured = bench("--quick", "--only", "machport", "--out", results, *figures)

    assert measured.returncode == 0, measured.stderr
    assert "Failed" not in measured.stdout
    assert "raw SEQPACKET socketpair" in measured.stdout
    assert "To reach: 64 B, split: at most 0.2 of the base." in measured.stdout

    lines = [json.loads(line) for line in results.read_text().splitlines()]
    assert "versions" in lines[0]["machine"]
    contenders = {line["contender"] for line in lines if "figure" in line}
    assert {
        "raw SEQPACKET socketpair",
        "machport call and reply",
        "machport.aio call and serve",
        "machport",
    } <= contenders
    assert not any(line.get("error") for line in lines)

    shown = bench("--from", results, "--markdown", "--page", page)
    assert shown.returncode == 0, shown.stderr
    assert "| machport call and reply |" in shown.stdout
    assert shown.stdout.strip() in page.read_text()
    assert page.read_text().startswith("# Benchmarks")


def test_a_peer_that_is_not_there_is_named_and_not_fatal() -> None:
    source = """
import sys
from bench.peers import zeromq
zeromq._Zmq.modules = ("no_such_library",)
from bench.cli import main
main(["--quick", "--only", "pyzmq", "crowd"])
"""
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=100, check=False, cwd=ROOT
    )

    assert done.returncode == 0, done.stderr
    assert "Not measured: pyzmq REQ and REP (needs no_such_library)" in done.stdout


def test_a_figure_that_does_not_exist_is_refused() -> None:
    done = bench("no-such-figure")

    assert done.returncode == 2
    assert "roundtrip" in done.stderr
