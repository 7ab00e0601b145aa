"""The daemon's log: nothing that becomes of its lines holds the daemon up, or ends it."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from machport.server.steady_log import SteadyHandler


def logger_to(descriptor: int, now: list[float]) -> logging.Logger:
    logger = logging.Logger("test")
    handler = SteadyHandler(descriptor, lambda: now[0])
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    return logger


def test_a_full_pipe_costs_lines_which_are_counted() -> None:
    """Nobody reads; the next line that can be written says how many were lost."""
    reader, writer = os.pipe()
    logger = logger_to(writer, [0.0])
    for number in range(1000):
        logger.info("line %d %s", number, "x" * 200)
    whole = os.read(reader, 1 << 20).decode().splitlines()
    assert [line.split()[1] for line in whole] == [str(number) for number in range(len(whole))]
    logger.info("again")
    assert os.read(reader, 1 << 20).decode() == f"{1000 - len(whole)} lines of this log were lost\nagain\n"
    os.close(reader)
    logger.info("nobody is there")
    os.close(writer)
    logger.info("nor is the pipe")


def test_a_long_record_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("w") as file:
        logger_to(file.fileno(), [0.0]).info("%s", "x" * 10_000)
    assert path.read_text() == "x" * 10_000 + "\n"


def test_many_warnings_of_a_kind_become_one_and_a_count(tmp_path: Path) -> None:
    now = [0.0]
    path = tmp_path / "log"
    with path.open("w") as file:
        logger = logger_to(file.fileno(), now)
        for number in range(50):
            logger.warning("process %d was refused", number)
        logger.warning("another kind")
        lines = path.read_text().splitlines()
        assert lines == [*[f"process {number} was refused" for number in range(20)], "another kind"]
        now[0] = 11.0
        logger.warning("process %d was refused", 99)
        assert path.read_text().endswith("another kind\nprocess 99 was refused (and 30 more of this kind)\n")


def test_faults_are_always_written(tmp_path: Path) -> None:
    """With their tracebacks."""
    path = tmp_path / "log"
    with path.open("w") as file:
        logger = logger_to(file.fileno(), [0.0])
        for _ in range(30):
            try:
                raise ValueError("of ours")
            except ValueError:
                logger.exception("a fault")
    assert path.read_text().count("ValueError: of ours") == 30
