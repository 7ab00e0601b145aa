"""Transcripts of a world: everything that was done to its kernel, and what came of it, in the format of ``replay``.

A scenario begins with ``world NAME`` instead of ``scenario NAME`` and has any number of tasks.  An operation is a trap
with its fields by name, or what else happens: ``task`` and ``child`` begin a task, ``end`` ends it, ``expire``,
``interrupt`` and ``abandon`` give up a call that waits, and ``time`` passes, in milliseconds.  A call that waits has a
number, ``w3``, by which a later result tells that it was finished.  Bytes are hexadecimal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from urllib.parse import unquote

from machport.abi import transcript as words
from machport.abi.errors import ProtocolError
from machport.abi.traps import number_of
from machport.kernel.refusal import Refusal
from machport.kernel.task import Task
from machport.replay.player import Divergence
from machport.replay.transcript import Scenario, Step, TranscriptError
from machport.testing.machine import NO_FILE, Call, Event, Machine


def lines(name: str, events: Sequence[Event]) -> list[str]:
    """What was done to a machine, as the lines of one scenario."""
    written = [f"world {name}"]
    for event in events:
        operation, results = _operation(event), _results(event)
        written.append(f"> t{event.task} {operation}")
        written.append(f"= {results[0]}")
        written += [f"| {result}" for result in results[1:]]
    return [*written, "end"]


# Events as lines


def _operation(event: Event) -> str:
    if event.kind == "trap":
        assert event.call is not None
        files = f" files={event.call.files}" if event.call.files else ""
        return words.write_trap(event.call.payload) + files
    if event.kind == "task":
        label, tokens = event.says
        return f"task {words.write_text(label)} {words.write_numbers(tokens)}"
    if event.kind == "child":
        label, tokens, maker, name = event.says
        return f"child {words.write_text(label)} {words.write_numbers(tokens)} t{maker} {name:#x}"
    if event.kind == "time":
        return f"time {event.says[0]}"
    if event.kind == "end":
        status, *unread = event.says
        return " ".join(["end", "closed" if status is None else f"{status:#x}", *[f"w{number}" for number in unread]])
    assert event.call is not None
    return f"{event.kind} w{event.call.number}"


def _results(event: Event) -> list[str]:
    if event.waits:
        assert event.call is not None
        first = f"waits w{event.call.number}"
    elif event.kind == "trap":
        assert event.call is not None
        first = " ".join(_answers(event.call))
    else:
        first = words.SUCCESS
    return [first, *[" ".join([f"w{call.number}", *_answers(call)]) for call in event.finished]]


def _answers(call: Call) -> Iterator[str]:
    """What a call was answered, in words."""
    return words.write_answers(number_of(call.payload), call.answers or ())


# Lines as events


class Player:
    """A machine that does again what a transcript tells."""

    def __init__(self) -> None:
        self.machine = Machine()
        self._calls: dict[int, Call] = {}

    def perform(self, step: Step) -> list[str]:
        """Carry out one operation; its result and detail lines.

        Raises:
            TranscriptError: the operation or its arguments are not of the format.
        """
        try:
            self._perform(step)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, ProtocolError, Refusal) as error:
            raise TranscriptError(f"line {step.line}: {step}: expected other arguments: {error}") from None
        event = self.machine.events[-1]
        if event.call is not None and event.call.number:
            self._calls[event.call.number] = event.call
        return _results(event)

    def _perform(self, step: Step) -> None:
        machine, given = self.machine, step.arguments
        if step.operation in ("task", "child"):
            if step.task != len(machine.members):
                raise ValueError(f"the next task is t{len(machine.members)}")
            label, tokens = unquote(given[0]), words.read_numbers(given[1])
            if step.operation == "task":
                machine.begin_task(label, tokens)
            else:
                machine.claim(machine.members[int(given[2][1:])], int(given[3], 0), label, tokens)
            return
        if step.operation == "time":
            machine.pass_time(int(given[0]))
            return
        task = machine.members[step.task]
        if step.operation == "end":
            status = None if given[0] == "closed" else int(given[0], 0)
            machine.end_task(task, status, [self._call(word) for word in given[1:]])
        elif step.operation in ("expire", "interrupt", "abandon"):
            give_up: Callable[[Call], None] = getattr(machine, step.operation)
            give_up(self._call(given[0]))
        else:
            self._trap(task, step.operation, dict(word.split("=", 1) for word in given))

    def _call(self, word: str) -> Call:
        return self._calls[int(word.removeprefix("w"))]

    def _trap(self, task: Task, name: str, fields: dict[str, str]) -> None:
        files = [NO_FILE] * int(fields.get("files", "0"))
        self.machine.trap(task, words.read_trap(name, fields), files)


def play(scenario: Scenario) -> tuple[int, Divergence | None]:
    """Play a world's scenario up to its first divergence; how many operations were carried out, and the divergence."""
    player = Player()
    for count, step in enumerate(scenario.steps, 1):
        got = player.perform(step)
        if got != step.expected:
            return count, Divergence(scenario.name, step, got)
    return len(scenario.steps), None
