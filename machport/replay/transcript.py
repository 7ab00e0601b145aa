"""The format of transcripts: scenarios of operations, each with the result that a real kernel gave.

A file is ASCII text, plain or gzip.  Whatever is not of the format is refused with its line number and what was
expected there.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_OPERATION: Final = re.compile(r"> t([012]) ([a-z_]+)((?: \S+)*)")
_GZIP_MAGIC: Final = b"\x1f\x8b"


class TranscriptError(ValueError):
    """A file that is not a transcript; the text names file, line and what was expected there."""


class Step:
    """One operation and the lines of its result, without their marks."""

    __slots__ = ("arguments", "expected", "line", "operation", "task")

    def __init__(self, line: int, task: int, operation: str, arguments: Sequence[str], expected: list[str]) -> None:
        self.line = line
        self.task = task
        self.operation = operation
        self.arguments = arguments
        self.expected = expected

    def __str__(self) -> str:
        return " ".join([f"> t{self.task} {self.operation}", *self.arguments])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Step) and (self.line, str(self), self.expected) == (
            other.line,
            str(other),
            other.expected,
        )

    __hash__ = None  # type: ignore[assignment]


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
    # The same operations come again and again: about one line of seven is new.
    operations: dict[str, tuple[int, str, tuple[str, ...]]] = {}
    expected: list[str] | None = None
    last = 0
    for number, line in enumerate(lines, 1):
        last = number
        mark = line[:2]
        if scenario is None:
            if not line.startswith("scenario ") or line == "scenario ":
                raise _error(path, number, "'scenario NAME'", line)
            scenario = Scenario(line.removeprefix("scenario "), number)
            expected = None
        elif mark == "> " or mark == ">":
            if expected is not None and not expected:
                raise _unanswered(path, number, line)
            operation = operations.get(line)
            if operation is None:
                operation = operations[line] = _operation(path, number, line)
            expected = []
            scenario.steps.append(Step(number, operation[0], operation[1], operation[2], expected))
        elif mark == "= " or mark == "=":
            if expected is None or expected or len(line) < 3:
                raise _error(path, number, "an operation before its one result", line)
            expected.append(line[2:])
        elif mark == "| " or mark == "|":
            if not expected:
                raise _error(path, number, "a result before its details", line)
            expected.append(line[2:])
        elif mark == "# " or mark == "#":
            continue
        elif line == "end":
            if expected is not None and not expected:
                raise _unanswered(path, number, line)
            yield scenario
            scenario = None
        else:
            raise _error(path, number, "a line that begins with '>', '=', '|' or '#', or 'end'", line)
    if scenario is not None:
        raise _error(path, last + 1, f"'end' of scenario {scenario.name}", "")
    if not last:
        raise _error(path, 1, "'scenario NAME'", "")


def _operation(path: Path, number: int, line: str) -> tuple[int, str, tuple[str, ...]]:
    """Task, operation and arguments of a line."""
    match = _OPERATION.fullmatch(line)
    if match is None:
        raise _error(path, number, "'> tK OPERATION ARGUMENTS' with K 0, 1 or 2", line)
    return int(match[1]), match[2], tuple(match[3].split())


def _unanswered(path: Path, number: int, line: str) -> TranscriptError:
    return _error(path, number, "'= RESULT' of the operation before", line)


def _error(path: Path, number: int, expected: str, line: str) -> TranscriptError:
    seen = f"found {line[:60]!r}" if line else "the file ends"
    return TranscriptError(f"{path}, line {number}: expected {expected}; {seen}")
