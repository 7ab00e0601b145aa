"""The format of transcripts: scenarios of operations, each with the result that a real kernel gave.

A file is ASCII text, plain or gzip.  Whatever is not of the format is refused with its line number and what was
expected there.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_OPERATION: Final = re.compile(r"> t([012]) ([a-z_]+)((?: \S+)*)")
_GZIP_MAGIC: Final = b"\x1f\x8b"


class TranscriptError(ValueError):
    """A file that is not a transcript; the text names file, line and what was expected there."""


@dataclass(slots=True)
class Step:
    """One operation and the lines of its result, without their marks."""

    line: int
    task: int
    operation: str
    arguments: list[str]
    expected: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return " ".join([f"> t{self.task} {self.operation}", *self.arguments])


@dataclass(slots=True)
class Scenario:
    """A sequence of steps that starts with three empty spaces."""

    name: str
    line: int
    steps: list[Step] = field(default_factory=list)


def read(path: Path) -> Iterator[Scenario]:
    """The scenarios of a file, one after the other.

    Raises:
        TranscriptError: at the first line that does not fit.
        OSError: the file cannot be read.
    """
    data = path.read_bytes()
    try:
        if data.startswith(_GZIP_MAGIC):
            data = gzip.decompress(data)
        text = data.decode("ascii")
    except (UnicodeDecodeError, EOFError, OSError, zlib.error) as error:
        raise TranscriptError(f"{path}: neither ASCII text nor a whole gzip file: {error}") from None
    yield from _scenarios(path, text.splitlines())


def _scenarios(path: Path, lines: list[str]) -> Iterator[Scenario]:
    scenario: Scenario | None = None
    last = 0
    for number, line in enumerate(lines, 1):
        last = number
        mark, _, rest = line.partition(" ")
        if scenario is None:
            if mark != "scenario" or not rest:
                raise _error(path, number, "'scenario NAME'", line)
            scenario = Scenario(rest, number)
        elif mark == "#":
            continue
        elif mark == ">":
            _check_answered(path, number, scenario, line)
            match = _OPERATION.fullmatch(line)
            if match is None:
                raise _error(path, number, "'> tK OPERATION ARGUMENTS' with K 0, 1 or 2", line)
            scenario.steps.append(Step(number, int(match[1]), match[2], match[3].split()))
        elif mark == "=":
            if not scenario.steps or scenario.steps[-1].expected or not rest:
                raise _error(path, number, "an operation before its one result", line)
            scenario.steps[-1].expected.append(rest)
        elif mark == "|":
            if not scenario.steps or not scenario.steps[-1].expected:
                raise _error(path, number, "a result before its details", line)
            scenario.steps[-1].expected.append(rest)
        elif line == "end":
            _check_answered(path, number, scenario, line)
            yield scenario
            scenario = None
        else:
            raise _error(path, number, "a line that begins with '>', '=', '|' or '#', or 'end'", line)
    if scenario is not None:
        raise _error(path, last + 1, f"'end' of scenario {scenario.name}", "")
    if not last:
        raise _error(path, 1, "'scenario NAME'", "")


def _check_answered(path: Path, number: int, scenario: Scenario, line: str) -> None:
    if scenario.steps and not scenario.steps[-1].expected:
        raise _error(path, number, "'= RESULT' of the operation before", line)


def _error(path: Path, number: int, expected: str, line: str) -> TranscriptError:
    seen = f"found {line[:60]!r}" if line else "the file ends"
    return TranscriptError(f"{path}, line {number}: expected {expected}; {seen}")
