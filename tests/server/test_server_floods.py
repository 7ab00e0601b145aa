"""Many warnings of one kind are one and a count, so that whoever does harm does not fill the disk as well."""

from __future__ import annotations

import logging
from pathlib import Path

from machport.server.log import Floods, Lines, TextFormatter


def logger_to(path: Path, now: list[float]) -> tuple[logging.Logger, Lines]:
    lines = Lines()
    with path.open("w") as file:
        lines.open(file.fileno())
    lines.setFormatter(TextFormatter())
    lines.addFilter(Floods(lambda: now[0]))
    logger = logging.Logger("test")
    logger.addHandler(lines)
    return logger, lines


def test_many_warnings_of_a_kind_become_one_and_a_count(tmp_path: Path) -> None:
    now = [0.0]
    path = tmp_path / "log"
    logger, lines = logger_to(path, now)
    for number in range(50):
        logger.warning("process %d was refused", number)
    logger.warning("another kind")
    said = [line.split(" test ")[1] for line in path.read_text().splitlines()]
    assert said == [*[f"process {number} was refused" for number in range(20)], "another kind"]
    now[0] = 11.0
    logger.warning("process %d was refused", 99)
    assert path.read_text().endswith("process 99 was refused (and 30 more of this kind)\n")
    lines.close()


def test_faults_are_always_written(tmp_path: Path) -> None:
    """With their tracebacks."""
    path = tmp_path / "log"
    logger, lines = logger_to(path, [0.0])
    for _ in range(30):
        try:
            raise ValueError("of ours")
        except ValueError:
            logger.exception("a fault")
    assert path.read_text().count("ValueError: of ours") == 30
    lines.close()
