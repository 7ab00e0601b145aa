"""What the daemon tells whoever may look over its shoulder: the records of REPORT, as MessagePack.

Needs msgspec; so only who asks for reports, or makes them, imports this.
"""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

#: Bytes before a report in its answer: the return code and the report's size.
_HEAD: Final = 8

_Report = TypeVar("_Report")
Page = TypeVar("Page", bound="_Page")


class Told(msgspec.Struct):
    """One notification that a death has caused: kind, label and name of the port it tells of, and whom it told."""

    kind: str
    port: str
    name: int
    task: int
    label: str


class Death(msgspec.Struct):
    """How a task ended, and what was lost with it.

    Attributes:
        serial: which death it is since the daemon began, from 1.
        task: number of the task.
        label, pid, executable: who it was; "" and 0 where it had no process.
        began, ended: seconds since the epoch; 0 if it is not known when it began.
        how: in words.
        cause: "signal", "exit", "closed", "cut_off", "terminated", "let_go", "child" or "unknown".
        signal, exit_code: what the system says of the process; None if that is not so, or not known (yet).
        settled: nothing more will become known.
        lost: ports, returned, send_rights, send_once_rights, messages, bytes.
        caused: notifications by kind.
        told: the first of these.
    """

    serial: int
    task: int
    label: str
    pid: int
    executable: str
    began: float
    ended: float
    how: str
    cause: str
    signal: int | None
    exit_code: int | None
    settled: bool
    lost: dict[str, int]
    caused: dict[str, int]
    told: list[Told]


class Deaths(msgspec.Struct):
    """Deaths after a serial, the oldest first; ``last`` is the serial of the newest there has been."""

    last: int
    deaths: list[Death]


class Task(msgspec.Struct):
    """A task that lives.

    Attributes:
        names: how many it has.
        blocked: calls that wait.
        threads: channels of its threads.
        made: another task made it.
        began: seconds since the epoch; 0 if it is not known.
    """

    task: int
    label: str
    pid: int
    uid: int
    executable: str
    names: int
    blocked: int
    threads: int
    made: bool
    began: float


class Tasks(msgspec.Struct):
    """Tasks behind a number, in ascending order; whether there are more."""

    tasks: list[Task]
    more: bool


class Right(msgspec.Struct):
    """What one name denotes.

    Attributes:
        kind: MACH_PORT_TYPE_ bits.
        label: of the port.
        holder: label of the task that has the receive right; "" if none has.
        holder_task: its number, or 0.
        messages, bytes: what waits in the queue, of a receive right.
        exact: all messages of the queue were looked at.
    """

    name: int
    kind: int
    refs: int
    label: str
    holder: str
    holder_task: int
    messages: int
    bytes: int
    exact: bool


class _Page(msgspec.Struct):
    """A part of what there is; ``next`` is where the rest begins, 0 if there is no more."""

    next: int


class Rights(_Page):
    """Names of a task from a place in its table on."""

    rights: list[Right]


class Holdings(_Page):
    """The same, added up."""

    ports: int
    messages: int
    bytes: int
    exact: bool


class Metrics(msgspec.Struct):
    """Numbers since the daemon began, and of now; ``machport.cli.metrics`` has what they mean."""

    calls: dict[str, int]
    refusals: dict[str, int]
    kernel: dict[str, int]
    notified: dict[str, int]
    deaths: dict[str, int]
    now: dict[str, int]
    loop: dict[str, int]
    log: dict[str, int]
    trace: dict[str, int]
    began: float


def pack_report(report: msgspec.Struct) -> bytes:
    """A report as it goes behind the return code: its size, and its bytes up to a multiple of four."""
    data = msgspec.msgpack.encode(report)
    return len(data).to_bytes(4, "little") + data + bytes(-len(data) & 3)


def unpack_report(answer: bytes | memoryview, kind: type[_Report]) -> _Report:
    """The report in an answer that is no refusal.

    Raises:
        msgspec.DecodeError: it is another one.
    """
    size = int.from_bytes(answer[4:_HEAD], "little")
    return msgspec.msgpack.decode(answer[_HEAD : _HEAD + size], type=kind)
