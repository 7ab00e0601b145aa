"""The format of transcripts: scenarios of operations, each with the result that a real kernel gave.

A file is ASCII text, plain or gzip.  Whatever is not of the format is refused with its line number and what was
expected there.
"""

from __future__ import annotations

import gzip
import re
import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_OPERATION: Final = re.compile(r"> t(\d+) ([a-z_]+)((?: \S+)*)")
#: How a scenario begins that an embedded kernel recorded, whose operations are traps of any number of tasks.
_WORLD: Final = "world "
#: How one begins that is the trace of a daemon; and one that has only a part of what was done.
_TRACE: Final = "trace "
_RECORD: Final = "record "
_ONE_OPERATION: Final = "'> tK OPERATION ARGUMENTS' with K 0, 1 or 2"
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
    """A sequence of steps that starts with three empty spaces, or with none if it is of a world."""

    name: str
    line: int
    steps: list[Step] = field(default_factory=list)
    #: It was recorded by ``machport.testing``, which plays it.
    is_world: bool = False
    #: It is the trace of a daemon, which ``machport.tracing`` plays.
    is_trace: bool = False
    #: Lines that it takes in its file.
    length: int = 0


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
    if not lines:
        raise _error(path, 1, "'scenario NAME'", "")
    # The same operations come again and again: about one line of seven is new.
    operations: dict[str, tuple[int, str, tuple[str, ...]]] = {}
    at = 0
    while at < len(lines):
        scenario = _scenario(path, lines, at, operations)
        yield scenario
        at += scenario.length


def _scenario(
    path: Path, lines: list[str], at: int, operations: dict[str, tuple[int, str, tuple[str, ...]]]
) -> Scenario:
    """The scenario that begins at an index of the lines."""
    line = lines[at]
    is_trace = line.startswith(_TRACE)
    is_world = line.startswith(_WORLD)
    if line.startswith(_RECORD):
        raise TranscriptError(
            f"{path}, line {at + 1}: this record has only a part of what was done; it cannot be played"
        )
    kind, _, name = line.partition(" ")
    if not name or not (is_world or is_trace or kind == "scenario"):
        raise _error(path, at + 1, "'scenario NAME'", line)
    steps: list[Step] = []
    scenario = Scenario(name, at + 1, steps, is_world, is_trace)
    last_task = sys.maxsize if is_world or is_trace else 2
    expected: list[str] | None = None
    last = len(lines)
    is_cut_off = is_trace and lines[-1] != "end"
    if is_cut_off:
        # Its daemon was killed, or whoever read it; the last step may not be whole.
        last = max([index for index in range(at + 1, last) if lines[index].startswith(">")], default=last)
    for index in range(at + 1, last):
        line = lines[index]
        mark = line[:2]
        if mark == "> " or mark == ">":
            if expected is not None and not expected:
                raise _error(path, index + 1, "'= RESULT' of the operation before", line)
            operation = operations.get(line)
            if operation is None:
                operation = operations[line] = _operation(path, index + 1, line)
            if operation[0] > last_task:
                raise _error(path, index + 1, _ONE_OPERATION, line)
            expected = []
            steps.append(Step(index + 1, operation[0], operation[1], operation[2], expected))
        elif mark == "= " or mark == "=":
            if expected is None or expected or len(line) < 3:
                raise _error(path, index + 1, "an operation before its one result", line)
            expected.append(line[2:])
        elif mark == "| " or mark == "|":
            if not expected:
                raise _error(path, index + 1, "a result before its details", line)
            expected.append(line[2:])
        elif line == "end":
            if expected is not None and not expected:
                raise _error(path, index + 1, "'= RESULT' of the operation before", line)
            scenario.length = index + 1 - at
            return scenario
        elif mark != "# " and mark != "#":
            raise _error(path, index + 1, "a line that begins with '>', '=', '|' or '#', or 'end'", line)
    if is_cut_off:
        scenario.length = len(lines) - at
        return scenario
    raise _error(path, len(lines) + 1, f"'end' of scenario {scenario.name}", "")


def _operation(path: Path, number: int, line: str) -> tuple[int, str, tuple[str, ...]]:
    """Task, operation and arguments of a line."""
    match = _OPERATION.fullmatch(line)
    if match is None:
        raise _error(path, number, _ONE_OPERATION, line)
    return int(match[1]), match[2], tuple(match[3].split())


def _error(path: Path, number: int, expected: str, line: str) -> TranscriptError:
    seen = f"found {line[:60]!r}" if line else "the file ends"
    return TranscriptError(f"{path}, line {number}: expected {expected}; {seen}")
