"""All transcripts of GNU Mach through a real daemon and three client processes: every line as that kernel answered.

Each task of a scenario is a process with a connection of its own, and each operation a trap of one of them through its
rings.  Task 0, whose process this is, made the other two and so has their ports, as in the transcripts; calls on
another task that no right goes along with are made by that task itself.  The daemon's kernel follows GNU Mach where
that differs from the manual (``machport.kernel.dialect``).
"""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from chaos.checked_daemon import FRESH_LABEL, PATIENCE, CheckedDaemon
from chaos.processes import Child
from chaos.report import Report
from machport.abi import constants as c
from machport.abi import message as layout
from machport.abi import traps as t
from machport.abi.codes import code_name
from machport.abi.errors import MachError
from machport.abi.traps import Buffer, MsgAnswer, Payload
from machport.client.calls import Calls
from machport.client.connection import Connection
from machport.replay import player as embedded
from machport.replay.player import Symbols
from machport.replay.transcript import Step, read

#: More scenarios than there are: all of them.
AMOUNT: Final = 10_000
UNIT: Final = "scenarios"
TRANSCRIPTS: Final = Path(__file__).parents[1] / "tests" / "conformance" / "transcripts"
_TASKS: Final = 3
_LONGEST: Final = 1 << 17
_JOIN: Final = b"j"
_TRAP: Final = b"t"
_SEQNO_TRAILER: Final = c.MACH_RCV_TRAILER_SEQNO << c.MACH_RCV_TRAILER_ELEMENTS_SHIFT
_TRAILER_SIZE: Final = layout.TRAILER_SIZES[c.MACH_RCV_TRAILER_SEQNO]
_ROOM: Final = 1 << 16


def run(report: Report) -> None:
    """Play them, or as many as were asked for, chosen at random."""
    scenarios = [scenario for path in sorted(TRANSCRIPTS.iterdir()) for scenario in read(path)]
    if report.amount < len(scenarios):
        scenarios = random.Random(report.seed).sample(scenarios, int(report.amount))
    operations = traps = 0
    with contextlib.ExitStack() as stack:
        daemon = stack.enter_context(CheckedDaemon("gnumach"))
        others = [stack.enter_context(_Process(daemon.path)) for _ in range(1, _TASKS)]
        for scenario in scenarios:
            with _Player(daemon.path, others) as player:
                for step in scenario.steps:
                    got = player.perform(step)
                    operations += 1
                    if got != step.expected:
                        report.anomaly(str(embedded.Divergence(scenario.name, step, got)))
                        break
                traps += player.traps
            if len(report.anomalies) >= 20:
                break
        for fault in daemon.close():
            report.anomaly(fault)
    report.figure("scenarios", len(scenarios))
    report.figure("operations", operations)
    report.figure("traps", traps)
    report.figure("divergences", len(report.anomalies), "0", not report.anomalies)


class _Process:
    """A client process, which becomes the task of one scenario after the other and makes the traps it is told."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._orders.settimeout(PATIENCE)
        self._child = Child(lambda: self._obey(theirs))
        theirs.close()

    def _obey(self, orders: socket.socket) -> None:
        self._orders.close()
        connection: Connection | None = None
        while order := orders.recv(_LONGEST):
            if order.startswith(_JOIN):
                if connection is not None:
                    connection.close()
                ticket, _, label = order[1:].partition(b"|")
                connection = Connection(label.decode(), bytes.fromhex(ticket.decode()), self._path)
                orders.send(_JOIN)
            else:
                assert connection is not None
                orders.send(bytes(connection.trap(order[1:])[0]))

    def join(self, number: int, ticket: bytes) -> None:
        """Become the task of a ticket, which gets names of its own."""
        self._orders.send(_JOIN + f"{ticket.hex()}|{FRESH_LABEL}{number}".encode())
        assert self._orders.recv(_LONGEST) == _JOIN, "a client process has ended"

    def trap(self, payload: bytes) -> bytes:
        """Let it make a trap."""
        self._orders.send(_TRAP + payload)
        answer = self._orders.recv(_LONGEST)
        assert answer, "a client process has ended"
        return answer

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.__exit__()
        self._orders.close()


class _Carrier:
    """Carries the traps of a task that is another process's, and counts them."""

    def __init__(self, trap: Callable[[bytes], Buffer]) -> None:
        self._trap = trap
        self.count = 0
        self.label = "task"
        self.path = Path()
        self.self_name = 0

    def trap(self, payload: Payload, descriptors: Sequence[int] = ()) -> tuple[Buffer, Sequence[int]]:
        assert not descriptors
        self.count += 1
        whole = payload if isinstance(payload, bytes) else b"".join(payload)
        return self._trap(whole), ()


class _Player:
    """The tasks of one scenario, and its operations as traps of their processes."""

    def __init__(self, path: Path, others: Sequence[_Process]) -> None:
        self._symbols = [Symbols(index) for index in range(_TASKS)]
        self._mine = self._symbols[0]
        self._connection = connection = Connection(f"{FRESH_LABEL}0", path=path)
        self._carriers = [_Carrier(lambda payload: connection.trap(payload)[0])]
        self._carriers += [_Carrier(process.trap) for process in others]
        self._calls = [Calls(carrier) for carrier in self._carriers]  # type: ignore[arg-type]
        first = self._calls[0]
        #: Names that each process has for tasks: in its own space, where a transcript has none.
        self._selves = [first.mach_task_self()]
        self._ports = list(self._selves)
        for index, process in enumerate(others, 1):
            child = first.task_create(self._selves[0])
            process.join(index, first.ticket(child))
            self._ports.append(child)
            self._selves.append(self._calls[index].mach_task_self())
        self._hidden = [set(self._ports), *({name} for name in self._selves[1:])]

    @property
    def traps(self) -> int:
        """How many were made."""
        return sum(carrier.count for carrier in self._carriers)

    def __enter__(self) -> _Player:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def perform(self, step: Step) -> list[str]:
        """Carry out one operation; its result line and detail lines."""
        try:
            return list(getattr(self, f"_{step.operation}")(step.task, self._symbols[step.task], *step.arguments))
        except MachError as error:
            # In GNU Mach a call on a task is a message to it.
            return [code_name(c.MACH_SEND_INVALID_DEST if error.code == c.KERN_INVALID_TASK else error.code)]

    # Names

    def _allocate(self, task: int, names: Symbols, right: str) -> list[str]:
        name = self._calls[task].mach_port_allocate(self._selves[task], _right(right))
        return _success(f"name={names.symbol(name)}")

    def _allocate_name(self, task: int, names: Symbols, name: str, right: str) -> list[str]:
        self._calls[task].mach_port_allocate_name(self._selves[task], _right(right), names.number(name))
        return _success()

    def _deallocate(self, task: int, names: Symbols, name: str) -> list[str]:
        self._calls[task].mach_port_deallocate(self._selves[task], names.number(name))
        return _success()

    def _destroy(self, task: int, names: Symbols, name: str) -> list[str]:
        self._calls[task].mach_port_destroy(self._selves[task], names.number(name))
        return _success()

    def _mod_refs(self, task: int, names: Symbols, name: str, right: str, delta: str) -> list[str]:
        self._calls[task].mach_port_mod_refs(self._selves[task], names.number(name), _right(right), int(delta))
        return _success()

    def _get_refs(self, task: int, names: Symbols, name: str, right: str) -> list[str]:
        refs = self._calls[task].mach_port_get_refs(self._selves[task], names.number(name), _right(right))
        return _success(f"refs={refs}")

    def _type(self, task: int, names: Symbols, name: str) -> list[str]:
        return _success(
            f"type={embedded._types(self._calls[task].mach_port_type(self._selves[task], names.number(name)))}"
        )

    def _names(self, task: int, names: Symbols) -> list[str]:
        found = self._listed(task, names)
        listed = ",".join([f"{names.symbol(name)}:{embedded._types(type)}" for name, type in found])
        return _success(f"count={len(found)} names=[{listed}]")

    def _rename(self, task: int, names: Symbols, old: str, new: str) -> list[str]:
        self._calls[task].mach_port_rename(self._selves[task], names.number(old), names.number(new))
        return _success()

    def _terminate(self, task: int, names: Symbols) -> list[str]:
        self._calls[task].task_terminate(self._selves[task])
        return _success()

    # Rights, which come from task 0 and go to it

    def _insert_right(self, task: int, names: Symbols, name: str, right: str) -> list[str]:
        number = names.number(name)
        disposition, port = self._carried(right)
        self._calls[0].mach_port_insert_right(self._ports[task], number, port, disposition)
        return _success()

    def _extract_right(self, task: int, names: Symbols, name: str, disposition: str) -> list[str]:
        port, kind = self._calls[0].mach_port_extract_right(
            self._ports[task], names.number(name), _number(embedded._DISPOSITIONS, disposition)
        )
        return _success(f"right={self._right(kind, port)}")

    def _request_notification(
        self, task: int, names: Symbols, name: str, variant: str, sync: str, notify: str
    ) -> list[str]:
        number = names.number(name)
        disposition, port = self._carried_or_null(_value(notify), c.MACH_MSG_TYPE_MAKE_SEND_ONCE)
        previous = self._calls[0].mach_port_request_notification(
            self._ports[task],
            number,
            _number(embedded._NOTIFICATIONS, variant),
            int(_value(sync)) & 0xFFFFFFFF,
            port,
            disposition,
        )
        return _success(f"previous={self._mine.symbol(previous)}")

    # Receive rights and sets

    def _set_mscount(self, task: int, names: Symbols, name: str, count: str) -> list[str]:
        self._calls[task].mach_port_set_mscount(self._selves[task], names.number(name), int(count))
        return _success()

    def _set_seqno(self, task: int, names: Symbols, name: str, seqno: str) -> list[str]:
        self._calls[task].mach_port_set_seqno(self._selves[task], names.number(name), int(seqno))
        return _success()

    def _set_qlimit(self, task: int, names: Symbols, name: str, qlimit: str) -> list[str]:
        self._calls[task].mach_port_set_qlimit(self._selves[task], names.number(name), int(qlimit))
        return _success()

    def _get_receive_status(self, task: int, names: Symbols, name: str) -> list[str]:
        return _success(self._status(task, names, names.number(name)))

    def _move_member(self, task: int, names: Symbols, member: str, after: str) -> list[str]:
        self._calls[task].mach_port_move_member(self._selves[task], names.number(member), names.number(after))
        return _success()

    def _get_set_status(self, task: int, names: Symbols, name: str) -> list[str]:
        return _success(self._members(task, names, names.number(name)))

    def _dump(self, task: int, names: Symbols) -> list[str]:
        found = self._listed(task, names)
        lines = _success(f"count={len(found)}")
        for name, type in found:
            refs = [
                f"{label}:{self._calls[task].mach_port_get_refs(self._selves[task], name, right)}"
                for label, bit, right in embedded._COUNTED
                if type & bit
            ]
            line = f"{names.symbol(name)} type={embedded._types(type)} refs={','.join(refs)}"
            if type & c.MACH_PORT_TYPE_RECEIVE:
                line += f" {self._status(task, names, name)}"
            if type & c.MACH_PORT_TYPE_PORT_SET:
                line += f" {self._members(task, names, name)}"
            lines.append(line)
        return lines

    def _listed(self, task: int, names: Symbols) -> list[tuple[int, int]]:
        found = self._calls[task].mach_port_names(self._selves[task])
        shown = [pair for pair in found if pair[0] not in self._hidden[task]]
        return [pair for _, pair in sorted([(names.order(pair[0]), pair) for pair in shown])]

    def _status(self, task: int, names: Symbols, name: int) -> str:
        status = self._calls[task].mach_port_get_receive_status(self._selves[task], name)
        return (
            f"pset={names.symbol(status.pset)} seqno={status.seqno} mscount={status.mscount} qlimit={status.qlimit}"
            f" msgcount={status.msgcount} sorights={status.sorights} srights={status.srights}"
            f" pdrequest={status.pdrequest} nsrequest={status.nsrequest}"
        )

    def _members(self, task: int, names: Symbols, name: int) -> str:
        found = sorted(self._calls[task].mach_port_get_set_status(self._selves[task], name), key=names.order)
        return f"members=[{','.join(map(names.symbol, found))}]"

    # Messages, of task 0

    def _send(self, task: int, names: Symbols, remote: str, local: str, id: str, ports: str) -> list[str]:
        remote_disposition, remote_port = self._carried(_value(remote))
        local_disposition, local_port = self._carried_or_null(_value(local), 0)
        listed = _value(ports)[1:-1]
        carried = [self._carried(text) for text in listed.split(",")] if listed else []
        buffer = layout.pack(
            layout.bits(remote_disposition, local_disposition),
            remote_port,
            local_port,
            int(_value(id)),
            descriptors=[layout.port_descriptor(port, disposition) for disposition, port in carried],
        )
        answer = self._calls[task].mach_msg(t.MsgTrap(c.MACH_SEND_MSG | c.MACH_SEND_TIMEOUT, buffer))
        if answer.code != c.MACH_SEND_TIMED_OUT:
            return [_message_code(answer.code)]
        assert answer.buffer is not None
        back = layout.parse(answer.buffer)
        return [
            f"MACH_SEND_TIMED_OUT remote={self._right(back.remote_disposition, back.remote)}"
            f" local={self._right(back.local_disposition, back.local)} ports={self._rights(back.descriptors)}"
        ]

    def _receive(self, task: int, names: Symbols, name: str, buffer: str = "") -> list[str]:
        option = c.MACH_RCV_MSG | c.MACH_RCV_TIMEOUT | _SEQNO_TRAILER
        limit = _ROOM if not buffer else layout.HEADER_SIZE
        if buffer == "large":
            option |= c.MACH_RCV_LARGE
        answer = self._calls[task].mach_msg(t.MsgTrap(option, b"", (), limit, names.number(name)))
        return [_message_code(answer.code) if answer.buffer is None else self._received(answer, buffer == "large")]

    def _received(self, answer: MsgAnswer, large: bool) -> str:
        assert answer.buffer is not None
        buffer = bytes(answer.buffer)
        size = int.from_bytes(buffer[4:8], "little")
        if answer.code == c.MACH_RCV_TOO_LARGE and large:
            return f"MACH_RCV_TOO_LARGE size={size}"
        # The size in the header is that of GNU Mach's own layout.
        whole = answer.code != c.MACH_RCV_TOO_LARGE
        parsed = layout.parse(buffer[:-_TRAILER_SIZE] if whole else buffer)
        dest = self._right(parsed.local_disposition, parsed.local)
        reply = self._right(parsed.remote_disposition, parsed.remote)
        id = embedded._NOTIFICATION_NAMES.get(parsed.id, str(parsed.id))
        if not whole:
            return f"MACH_RCV_TOO_LARGE id={id} size={size} dest={dest} reply={reply}"
        user = parsed.id >= embedded._FIRST_USER_ID
        start = (
            f"{_message_code(answer.code)} kind={'user' if user else 'notification'} id={id}"
            f" seqno={int.from_bytes(buffer[-4:], 'little')} dest={dest} reply={reply}"
        )
        if user:
            return f"{start} ports={self._rights(parsed.descriptors)}"
        if parsed.id == c.MACH_NOTIFY_PORT_DESTROYED:
            return f"{start} right={self._rights(parsed.descriptors)[1:-1]}"
        if parsed.id == c.MACH_NOTIFY_SEND_ONCE:
            return start
        word = int.from_bytes(bytes(parsed.inline)[8:12], "little")
        if parsed.id == c.MACH_NOTIFY_NO_SENDERS:
            return f"{start} count={word}"
        return f"{start} name={self._symbols[word >> embedded._SPACE_SHIFT].symbol(word)}"

    # Words of the transcripts

    def _carried(self, text: str) -> tuple[int, int]:
        disposition, name = embedded._split_carried(text)
        return disposition, self._mine.number(name)

    def _carried_or_null(self, text: str, null_disposition: int) -> tuple[int, int]:
        return (null_disposition, c.MACH_PORT_NULL) if text == "null" else self._carried(text)

    def _right(self, kind: int, name: int) -> str:
        return f"{embedded._KINDS[kind]}({self._mine.symbol(name)})"

    def _rights(self, descriptors: Sequence[layout.Descriptor]) -> str:
        return f"[{','.join([self._right(d.disposition, d.name) for d in descriptors])}]"


def _right(text: str) -> int:
    return _number(embedded._RIGHTS, text)


def _number(table: dict[str, int], text: str) -> int:
    return table[text] if text in table else int(text)


def _value(text: str) -> str:
    return text.partition("=")[2]


def _success(values: str = "") -> list[str]:
    return [f"KERN_SUCCESS {values}"] if values else ["KERN_SUCCESS"]


def _message_code(code: int) -> str:
    return code_name(code) if code else "MACH_MSG_SUCCESS"
