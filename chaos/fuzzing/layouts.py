"""Bytes that are taken apart without any kernel: the first packet, traps, answers, and messages in them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Final

from machport.abi import constants as c
from machport.abi import message as layout
from machport.abi import traps as t
from machport.abi.errors import ProtocolError
from machport.abi.traps import MsgTrap
from machport.carrier import hello
from machport.client.description import unpack_description

Call = tuple[Callable[[bytes], None], list[bytes]]


def new_hello() -> Call:
    """The first packet of a connection."""
    ticket = bytes(range(hello.TICKET_SIZE))
    seeds = [hello.Hello("a task").pack(), hello.Hello("child", ticket).pack(), hello.Hello("", b"", 0).pack()]
    return _hello, seeds


def _hello(data: bytes) -> None:
    try:
        greeting = hello.unpack_hello(data)
    except ProtocolError:
        return
    assert greeting.label.isprintable()
    assert len(greeting.ticket) in (0, hello.TICKET_SIZE)
    assert hello.unpack_hello(greeting.pack()).ticket == greeting.ticket


def new_layouts() -> Call:
    """Traps and answers; the first byte says as what the rest is read."""
    message = layout.pack(
        layout.bits(c.MACH_MSG_TYPE_COPY_SEND, c.MACH_MSG_TYPE_MAKE_SEND_ONCE),
        0x103,
        0x203,
        1,
        descriptors=[
            layout.port_descriptor(0x103, 20),
            layout.memory_descriptor(4),
            layout.port_array_descriptor(1, 19),
        ],
        inline=b"data",
    )
    trap = MsgTrap(3, message, (b"abcd", b"\3\1\0\0"), 100, 0x203, 5)
    answer = t.MsgAnswer(0, message, (b"abcd", b"\3\1\0\0"), "M8", 1).pack()
    pieces = [
        message,
        trap.pack(),
        answer,
        answer + t.MsgAnswer(c.MACH_RCV_TIMED_OUT).pack(),
        t.pack_tag(7) + answer,
        t.pack_send_many([message, message]),
        t.pack_tag(t.ASYNC.number) + t.pack_tag(1) + trap.pack(),
        t.pack_refusal(5, "P8", "the name is no right"),
        t.DESCRIBE.pack_answer(range(10), t.pack_texts("a", "b", "c", "d", "e", "f")),
        t.NAMES.pack_answer((), [1, 2, 3, 4]),
    ]
    return _layouts, [bytes([index]) + piece for index, piece in enumerate(pieces)]


def _layouts(data: bytes) -> None:
    kind, data = data[0] % len(_READERS) if data else 0, data[1:]
    # As the daemon has it, and as it comes in parts of a longer entry.
    for form in (data, memoryview(data)):
        with contextlib.suppress(ProtocolError):
            _READERS[kind](form)


def _message(data: t.Buffer) -> None:
    for sent in (False, True):
        parsed = layout.parse(data, sent)
        if not parsed.code:
            regions = [b"\3\1\0\0" * 2 for d in parsed.descriptors if d.type != c.MACH_MSG_PORT_DESCRIPTOR]
            layout.body_rights(parsed, regions)
            assert len(parsed.inline) <= len(data)


def _msg_trap(data: t.Buffer) -> None:
    trap = t.unpack_msg(data)
    assert trap.packed_size <= len(data)
    _message(trap.buffer)


def _msg_answer(data: t.Buffer) -> None:
    t.unpack_msg_answer(data).pack()


def _msg_answers(data: t.Buffer) -> None:
    t.unpack_msg_answers(data)
    t.is_last(data)


def _batch(data: t.Buffer) -> None:
    batch = t.Batch(data)
    size = 0
    while (buffer := batch.next()) is not None:
        size += len(buffer)
    assert size <= len(data)


def _async(data: t.Buffer) -> None:
    _msg_trap(t.unpack_async(data)[1])


def _refusal(data: t.Buffer) -> None:
    t.number_of(data)
    rule, says = t.unpack_refusal(data)
    assert isinstance(rule, str) and isinstance(says, str)


def _description(data: t.Buffer) -> None:
    unpack_description(t.DESCRIBE.unpack_answer(data), lambda: None)


def _trap(data: t.Buffer) -> None:
    trap = t.TRAPS.get(t.number_of(data))
    if trap is not None:
        _, words = trap.unpack(data)
        t.unpack_texts(words, 3)
    t.NAMES.unpack_answer(data)


_READERS: Final[list[Callable[[t.Buffer], object]]] = [
    _message,
    _msg_trap,
    _msg_answer,
    _msg_answers,
    t.unpack_tagged,
    _batch,
    _async,
    _refusal,
    _description,
    _trap,
]
