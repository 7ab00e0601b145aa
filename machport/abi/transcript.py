"""Traps and their answers as words of a transcript, and back: names of calls and fields, numbers, bytes in hexadecimal.

The lines that these words stand in are ``replay.transcript``'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final
from urllib.parse import quote

from machport.abi import traps as t
from machport.abi.codes import code_name
from machport.abi.traps import number_of

SUCCESS: Final = "KERN_SUCCESS"
_BY_CALL: Final = {trap.call: trap for trap in t.TRAPS.values()}
_MSG_FIELDS: Final = ("option", "rcv_limit", "rcv_name", "timeout_ms")


def write_text(text: object) -> str:
    """Text as one word."""
    return quote(str(text), safe="[]#")


def write_numbers(numbers: object) -> str:
    """Numbers as one word."""
    assert isinstance(numbers, Sequence)
    return ",".join([f"{number:#x}" for number in numbers]) or "none"


def read_numbers(text: str) -> list[int]:
    return [] if text == "none" else [int(number, 0) for number in text.split(",")]


def _write_bytes(parts: Sequence[t.Buffer | None]) -> str:
    return ",".join(["unreadable" if part is None else part.hex() or "empty" for part in parts])


def _read_bytes(text: str) -> list[bytes | None]:
    return [
        None if part == "unreadable" else b"" if part == "empty" else bytes.fromhex(part) for part in text.split(",")
    ]


def write_trap(payload: t.Buffer) -> str:
    """A trap: the name of its call, and its fields by their names."""
    number = number_of(payload)
    if number == t.MACH_MSG:
        msg = t.unpack_msg(payload)
        return write_message(msg.option, msg.buffer, msg.memory, msg.rcv_limit, msg.rcv_name, msg.timeout_ms)
    trap = t.TRAPS[number]
    if trap is t.SEND_MANY:
        batch, buffers = t.Batch(payload), list[t.Buffer | None]()
        while (buffer := batch.next()) is not None:
            buffers.append(buffer)
        return f"send_many messages={_write_bytes(buffers) or 'none'}"
    arguments, listed = trap.unpack(payload)
    fields = [field for field in trap.fields if field != "words"]
    words = [trap.call, *[f"{field}={value:#x}" for field, value in zip(fields, arguments, strict=True)]]
    if "words" in trap.fields:
        words.append(f"words={write_numbers(listed)}")
    return " ".join(words)


def write_message(
    option: int, buffer: t.Buffer, memory: Sequence[t.Buffer | None], rcv_limit: int, rcv_name: int, timeout_ms: int
) -> str:
    """A ``mach_msg`` trap."""
    numbers = zip(_MSG_FIELDS, (option, rcv_limit, rcv_name, timeout_ms), strict=True)
    words = ["mach_msg", *[f"{field}={number:#x}" for field, number in numbers], f"message={_write_bytes([buffer])}"]
    if memory:
        words.append(f"memory={_write_bytes(memory)}")
    return " ".join(words)


def read_trap(call: str, fields: Mapping[str, str]) -> bytes:
    """The trap that ``write_trap`` wrote.

    Raises:
        KeyError, ValueError: there is no such call, or it has other fields.
    """
    if call == "mach_msg":
        option, rcv_limit, rcv_name, timeout_ms = [int(fields[field], 0) for field in _MSG_FIELDS]
        (message,) = _read_bytes(fields["message"])
        memory = _read_bytes(fields["memory"]) if "memory" in fields else []
        return t.MsgTrap(option, message or b"", memory, rcv_limit, rcv_name, timeout_ms).pack()
    if call == "send_many":
        given = fields["messages"]
        parts = [] if given == "none" else _read_bytes(given)
        return t.pack_send_many([part or b"" for part in parts])
    trap = _BY_CALL[call]
    arguments = [int(fields[field], 0) for field in trap.fields if field != "words"]
    return trap.pack(*arguments, words=read_numbers(fields["words"]) if "words" in fields else ())


def write_answers(number: int, answers: Sequence[t.Buffer]) -> Iterator[str]:
    """What the trap of this number was answered."""
    for answer in answers:
        code = number_of(answer)
        if number == t.MACH_MSG or number == t.RECEIVE_MANY.number:
            yield write_message_answer(t.unpack_msg_answer(answer))
        elif code:
            yield f"{code_name(code)} {write_text(t.unpack_refusal(answer)[0])}"
        else:
            results, words = t.TRAPS[number].unpack_answer(answer)
            yield " ".join([SUCCESS, *[f"{value:#x}" for value in results], *[f"{word:#x}" for word in words]])


def write_message_answer(answer: t.MsgAnswer) -> str:
    """What ``mach_msg`` gave back."""
    words = [code_name(answer.code) if answer.code else "MACH_MSG_SUCCESS"]
    if answer.rule:
        words.append(f"rule={write_text(answer.rule)}")
    if answer.taken:
        words.append(f"taken={answer.taken}")
    if answer.buffer is not None:
        words.append(f"message={_write_bytes([answer.buffer])}")
    if len(answer.memory):
        words.append(f"memory={_write_bytes(answer.memory)}")
    return " ".join(words)
