"""The demonstration as a user runs it: real processes, real kills, and every file answered exactly once."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "machport"


def demo(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "machport", "demo", *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": "160"}
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, env=environment)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Files of many sizes: none, one chunk to the byte, more than the queue holds."""
    chance = random.Random(1)
    for index, size in enumerate([0, 1, 65535, 65536, 65537, 5_000_000, *(chance.randrange(9000) for _ in range(120))]):
        folder = tmp_path / "files" / str(index % 7)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{index}.bin").write_bytes(chance.randbytes(size))
    return tmp_path / "files"


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_file_is_answered_exactly_once_although_servers_are_killed(files: Path, seed: int) -> None:
    """Promises 1 and 3, N28 to N36, N37, N50."""
    done = demo(files, "--kills", "4", "--seed", str(seed))

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Every one of 126 files was answered exactly once" in done.stdout
    for kind in ("PortDestroyed", "DeadName", "NoSenders"):
        assert kind in done.stdout
    assert "Traceback" not in done.stderr


def test_without_a_kill_the_server_ends_by_itself(files: Path) -> None:
    """N37: no-senders tells the server that nobody can call it any more."""
    done = demo(files, "--kills", "0")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "NoSenders" in done.stdout
    assert "PortDestroyed" not in done.stdout


def test_what_cannot_be_read_is_named_and_the_rest_is_done(files: Path) -> None:
    (files / "vanished").symlink_to(files / "nowhere")
    done = demo(files, "--kills", "1")

    assert done.returncode == 1
    assert "1 file could not be read" in done.stdout
    assert "vanished: No such file or directory" in done.stdout
    assert "126 of 127" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_what_is_no_file_is_not_asked_for(files: Path) -> None:
    os.mkfifo(files / "pipe")
    done = demo(files, "--kills", "0")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "126 of 126" in done.stdout


def test_an_empty_directory_is_said_to_be_empty(tmp_path: Path) -> None:
    done = demo(tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "has no files" in done.stdout.replace("\n", " ")


def test_a_directory_that_is_none_is_refused_in_one_sentence(tmp_path: Path) -> None:
    done = demo(tmp_path / "nowhere")

    assert done.returncode == 2
    assert "does not exist" in done.stderr
    assert "Traceback" not in done.stderr


def test_nothing_is_left_behind(files: Path, tmp_path: Path) -> None:
    """Promise 7: no socket, no directory, no shared memory with a name."""
    before = sorted(os.listdir("/dev/shm"))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    command = [sys.executable, "-m", "machport", "demo", str(files)]
    subprocess.run(command, capture_output=True, timeout=100, check=True, env={**os.environ, "TMPDIR": str(temporary)})

    assert os.listdir(temporary) == []
    assert sorted(os.listdir("/dev/shm")) == before
