"""The ``machport`` command, run as a user runs it."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import pytest

from machport import testing

TRANSCRIPTS = Path(__file__).parents[1] / "conformance" / "transcripts"


def machport(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "machport", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_replay_ends_with_its_counts_and_success() -> None:
    done = machport("replay", "--dialect", "gnumach", TRANSCRIPTS / "themed.txt")

    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "174 scenarios, 1481 operations, 0 divergences"


def test_replay_shows_the_first_divergence_with_its_scenario_and_fails() -> None:
    done = machport("replay", TRANSCRIPTS / "themed.txt")

    assert done.returncode == 1
    assert "scenario " in done.stdout
    assert "expected  " in done.stdout
    assert "got       " in done.stdout
    assert not done.stdout.splitlines()[-1].endswith(" 0 divergences")


def test_replay_reads_gzip(tmp_path: Path) -> None:
    packed = tmp_path / "themed.txt.gz"
    packed.write_bytes(gzip.compress((TRANSCRIPTS / "themed.txt").read_bytes()))

    assert machport("replay", "--dialect", "gnumach", packed).returncode == 0


def test_replay_replays_what_a_world_recorded(tmp_path: Path) -> None:
    path = tmp_path / "world.txt"
    with testing.World() as world:
        task = world.task("main")
        task.allocate().close()
        world.record(path)
    done = machport("replay", path, TRANSCRIPTS / "themed.txt", "--dialect", "gnumach")
    assert done.stdout.splitlines()[-1] == "175 scenarios, 1485 operations, 0 divergences"

    path.write_text(path.read_text().replace("0x203", "0x303"))
    done = machport("replay", path)
    assert done.returncode == 1
    assert "got       KERN_SUCCESS 0x203" in done.stdout


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"hello\n", "line 1: expected 'scenario NAME'; found 'hello'"),
        (b"scenario a\n> t0 names\nend\n", "line 3: expected '= RESULT' of the operation before"),
        (b"scenario a\n> t0 frobnicate\n= KERN_SUCCESS\nend\n", "line 2: expected an operation; found 'frobnicate'"),
        (b"scenario a\n> t0 allocate\n= KERN_SUCCESS\nend\n", "line 2"),
        (b"scenario a\n> t0 names\n= KERN_SUCCESS count=0 names=[]\n", "expected 'end' of scenario a; the file ends"),
        (b"\xff\xfe", "neither ASCII text nor a whole gzip file"),
        (gzip.compress(b"scenario a\nend\n" * 100)[:-9], "neither ASCII text nor a whole gzip file"),
    ],
)
def test_what_is_not_a_transcript_is_refused_with_its_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "transcript"
    path.write_bytes(content)
    done = machport("replay", path)

    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_transcript_is_one_sentence(tmp_path: Path) -> None:
    done = machport("replay", tmp_path / "nowhere.txt")

    assert done.returncode == 1
    assert "No such file" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_names_every_command() -> None:
    done = machport("--help")

    assert done.returncode == 0
    for command in ("daemon", "demo", "replay"):
        assert command in done.stdout


def test_the_daemon_says_in_one_sentence_why_it_cannot_start(tmp_path: Path) -> None:
    done = machport("daemon", "--socket", tmp_path / ("x" * 120))

    assert done.returncode == 1
    assert "a socket address holds 107" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_daemon_does_not_take_a_file_of_the_user_for_its_socket(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    done = machport("daemon", "--socket", precious)

    assert done.returncode == 1
    assert "is not a socket" in done.stderr
    assert precious.read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]
