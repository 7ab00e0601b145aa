"""Transcripts of a world: everything that was done to its kernel, and what came of it, in the format of ``replay``.

A scenario begins with ``world NAME`` instead of ``scenario NAME`` and has any number of tasks.  An operation is a trap
with its fields by name, or what else happens: ``task`` and ``child`` begin a task, ``end`` ends it, ``expire``,
``interrupt`` and ``abandon`` give up a call that waits, and ``time`` passes, in milliseconds.  A call that waits has a
number, ``w3``, by which a later result tells that it was finished.  Bytes are hexadecimal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final
from urllib.parse import quote, unquote

from machport.abi import traps as t
from machport.abi.codes import code_name
from machport.abi.errors import ProtocolError
from machport.abi.traps import number_of
from machport.kernel.refusal import Refusal
from machport.kernel.task import Task
from machport.replay.player import Divergence
from machport.replay.transcript import Scenario, Step, TranscriptError
from machport.testing.machine import NO_FILE, Call, Event, Machine

_SUCCESS: Final = "KERN_SUCCESS"
_BY_CALL: Final = {trap.call: trap for trap in t.TRAPS.values()}
_MSG_FIELDS: Final = ("option", "rcv_limit", "rcv_name", "timeout_ms")


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
        return _trap(event.call.payload) + files
    if event.kind == "task":
        label, tokens = event.says
        return f"task {_text(label)} {_list(tokens)}"
    if event.kind == "child":
        label, tokens, maker, name = event.says
        return f"child {_text(label)} {_list(tokens)} t{maker} {name:#x}"
    if event.kind == "time":
        return f"time {event.says[0]}"
    if event.kind == "end":
        status, *unread = event.says
        return " ".join(["end", "closed" if status is None else f"{status:#x}", *[f"w{number}" for number in unread]])
    assert event.call is not None
    return f"{event.kind} w{event.call.number}"


def _text(text: object) -> str:
    return quote(str(text), safe="[]#")


def _list(numbers: object) -> str:
    assert isinstance(numbers, Sequence)
    return ",".join([f"{number:#x}" for number in numbers]) or "none"


def _bytes(parts: Sequence[bytes | memoryview | None]) -> str:
    return ",".join(["unreadable" if part is None else part.hex() or "empty" for part in parts])


def _trap(payload: bytes) -> str:
    number = number_of(payload)
    if number == t.MACH_MSG:
        msg = t.unpack_msg(payload)
        words = ["mach_msg", *[f"{field}={getattr(msg, field):#x}" for field in _MSG_FIELDS]]
        words.append(f"message={_bytes([msg.buffer])}")
        if msg.memory:
            words.append(f"memory={_bytes(msg.memory)}")
        return " ".join(words)
    trap = t.TRAPS[number]
    if trap is t.SEND_MANY:
        batch, buffers = t.Batch(payload), list[bytes | memoryview | None]()
        while (buffer := batch.next()) is not None:
            buffers.append(buffer)
        return f"send_many messages={_bytes(buffers) or 'none'}"
    arguments, listed = trap.unpack(payload)
    fields = [field for field in trap.fields if field != "words"]
    words = [trap.call, *[f"{field}={value:#x}" for field, value in zip(fields, arguments, strict=True)]]
    if "words" in trap.fields:
        words.append(f"words={_list(listed)}")
    return " ".join(words)


def _results(event: Event) -> list[str]:
    if event.waits:
        assert event.call is not None
        first = f"waits w{event.call.number}"
    elif event.kind == "trap":
        assert event.call is not None
        first = " ".join(_answers(event.call))
    else:
        first = _SUCCESS
    return [first, *[" ".join([f"w{call.number}", *_answers(call)]) for call in event.finished]]


def _answers(call: Call) -> Iterator[str]:
    """What a call was answered, in words."""
    number = number_of(call.payload)
    for answer in call.answers or ():
        code = number_of(answer)
        if number == t.MACH_MSG or number == t.RECEIVE_MANY.number:
            yield _message(t.unpack_msg_answer(answer))
        elif code:
            yield f"{code_name(code)} {_text(t.unpack_refusal(answer)[0])}"
        else:
            results, words = t.TRAPS[number].unpack_answer(answer)
            yield " ".join([_SUCCESS, *[f"{value:#x}" for value in results], *[f"{word:#x}" for word in words]])


def _message(answer: t.MsgAnswer) -> str:
    words = [code_name(answer.code) if answer.code else "MACH_MSG_SUCCESS"]
    if answer.rule:
        words.append(f"rule={_text(answer.rule)}")
    if answer.taken:
        words.append(f"taken={answer.taken}")
    if answer.buffer is not None:
        words.append(f"message={_bytes([answer.buffer])}")
    if len(answer.memory):
        words.append(f"memory={_bytes(answer.memory)}")
    return " ".join(words)


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
        machine, words = self.machine, step.arguments
        if step.operation in ("task", "child"):
            if step.task != len(machine.members):
                raise ValueError(f"the next task is t{len(machine.members)}")
            label, tokens = unquote(words[0]), _numbers(words[1])
            if step.operation == "task":
                machine.begin_task(label, tokens)
            else:
                machine.claim(machine.members[int(words[2][1:])], int(words[3], 0), label, tokens)
            return
        if step.operation == "time":
            machine.pass_time(int(words[0]))
            return
        task = machine.members[step.task]
        if step.operation == "end":
            status = None if words[0] == "closed" else int(words[0], 0)
            machine.end_task(task, status, [self._call(word) for word in words[1:]])
        elif step.operation in ("expire", "interrupt", "abandon"):
            give_up: Callable[[Call], None] = getattr(machine, step.operation)
            give_up(self._call(words[0]))
        else:
            self._trap(task, step.operation, dict(word.split("=", 1) for word in words))

    def _call(self, word: str) -> Call:
        return self._calls[int(word.removeprefix("w"))]

    def _trap(self, task: Task, name: str, fields: dict[str, str]) -> None:
        files = [NO_FILE] * int(fields.get("files", "0"))
        if name == "mach_msg":
            option, rcv_limit, rcv_name, timeout_ms = [int(fields[field], 0) for field in _MSG_FIELDS]
            (message,) = _parts(fields["message"])
            memory = _parts(fields["memory"]) if "memory" in fields else []
            msg = t.MsgTrap(option, message or b"", memory, rcv_limit, rcv_name, timeout_ms)
            self.machine.trap(task, msg.pack(), files)
        elif name == "send_many":
            given = fields["messages"]
            parts = [] if given == "none" else _parts(given)
            self.machine.trap(task, t.pack_send_many([part or b"" for part in parts]), files)
        else:
            trap = _BY_CALL[name]
            arguments = [int(fields[field], 0) for field in trap.fields if field != "words"]
            words = _numbers(fields["words"]) if "words" in fields else ()
            self.machine.trap(task, trap.pack(*arguments, words=words), files)


def _numbers(text: str) -> list[int]:
    return [] if text == "none" else [int(number, 0) for number in text.split(",")]


def _parts(text: str) -> list[bytes | None]:
    return [
        None if part == "unreadable" else b"" if part == "empty" else bytes.fromhex(part) for part in text.split(",")
    ]


def play(scenario: Scenario) -> tuple[int, Divergence | None]:
    """Play a world's scenario up to its first divergence; how many operations were carried out, and the divergence."""
    player = Player()
    for count, step in enumerate(scenario.steps, 1):
        got = player.perform(step)
        if got != step.expected:
            return count, Divergence(scenario.name, step, got)
    return len(scenario.steps), None
