"""Tasks that wait for their processes, on the daemon's parts without its processes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from actors import DaemonProcess, RawTask, connect
from lineage import Lineage

import machport
from machport.abi import constants as c
from machport.abi import message as words
from machport.abi import traps as t
from machport.abi.limits import Limits
from machport.carrier import packet
from machport.carrier.hello import Hello
from machport.kernel import invariants, ports, requests, tasks
from machport.kernel.port import Port
from machport.kernel.refusal import Refusal
from machport.kernel.task import Task
from machport.ring import layout
from machport.server.configuration import DEFAULTS, Configuration
from machport.testing.machine import PID, Machine

TOKENS = tuple(range(PID + 3))
RECEIVE, MAKE_SEND = c.MACH_PORT_RIGHT_RECEIVE, c.MACH_MSG_TYPE_MAKE_SEND


def number(answers: list[bytes] | None) -> int:
    """The first result of a call that succeeded."""
    assert answers is not None and not t.number_of(answers[0])
    return int(t.number_of(answers[0][4:]))


def test_children_end_in_the_order_in_which_they_were_made() -> None:
    """N1: so those who are told of it are told in an order that is the same each time."""
    machine = Machine()
    kernel = machine.kernel
    maker, witness = machine.begin_task("maker", TOKENS), machine.begin_task("witness", TOKENS)
    me = number(machine.trap(maker, t.TASK_SELF.pack()).answers)
    inbox = ports.mach_port_construct(kernel, witness, c.MPO_QLIMIT, c.MACH_PORT_QLIMIT_MAX, 0)
    names = []
    for _ in range(50):
        child = tasks.resolve_task(maker, number(machine.trap(maker, t.TASK_CREATE.pack(me)).answers))
        names.append(tasks.copy_to(kernel, witness, child.port))
        requests.mach_port_request_notification(
            kernel, witness, witness, names[-1], c.MACH_NOTIFY_DEAD_NAME, 0, inbox, c.MACH_MSG_TYPE_MAKE_SEND_ONCE
        )
    machine.end_task(maker, 0)
    told = []
    for _ in names:
        receive = t.MsgTrap(c.MACH_RCV_MSG | c.MACH_RCV_TIMEOUT, b"", (), 1000, inbox)
        answers = machine.trap(witness, receive.pack()).answers
        assert answers is not None
        buffer = t.unpack_msg_answer(answers[0]).buffer
        assert buffer is not None
        told.append(int.from_bytes(bytes(buffer)[32:36], "little"))
    assert told == names


def test_a_task_that_another_terminated_is_remembered_so_in_a_world_as_well() -> None:
    """Whoever asks about a port that ended with it is told why."""
    machine = Machine()
    first, second = machine.begin_task("first", TOKENS), machine.begin_task("second", TOKENS)
    port = ports.mach_port_construct(machine.kernel, second, c.MPO_INSERT_SEND_RIGHT, 0, 0)
    entry = second.space.lookup(port)
    assert entry is not None
    right = tasks.copy_to(machine.kernel, first, entry.port)
    machine.trap(first, t.TASK_TERMINATE.pack(tasks.copy_to(machine.kernel, first, second.port)))
    answers = machine.trap(first, t.DESCRIBE.pack(right)).answers
    assert answers is not None
    _, words = t.DESCRIBE.unpack_answer(answers[0])
    assert t.unpack_texts(words, 6)[2:4] == ["second", "was terminated"]


def test_a_dead_task_whose_names_go_piecemeal_gets_no_more_of_them() -> None:
    """Section 11: it is dead at once."""
    machine = Machine()
    dead = machine.begin_task("dead", TOKENS)
    machine.kernel.slice = 2
    me = number(machine.trap(dead, t.TASK_SELF.pack()).answers)
    child = number(machine.trap(dead, t.TASK_CREATE.pack(me)).answers)
    right, _ = [ports.mach_port_construct(machine.kernel, dead, c.MPO_INSERT_SEND_RIGHT, 0, 0) for _ in range(2)]
    deposit = machine.trap(dead, t.DEPOSIT.pack(right, c.MACH_MSG_TYPE_COPY_SEND)).answers
    assert deposit is not None
    machine.trap(dead, t.TASK_TERMINATE.pack(me))
    assert machine.kernel.unfinished
    before = list(dead.space.entries)
    for trap in (
        t.TASK_CREATE.pack(me),
        t.TICKET.pack(child),
        t.DEPOSIT.pack(right, c.MACH_MSG_TYPE_COPY_SEND),
        t.CLAIM.pack(words=t.DEPOSIT.unpack_answer(deposit[0])[1]),
        t.TASK_SET_LIMITS.pack(child, words=Limits(names=2).words()),
        t.TASK_GET_LIMITS.pack(me),
        t.DESCRIBE.pack(right),
    ):
        answers = machine.trap(dead, trap).answers
        assert answers is not None and t.number_of(answers[0]) == c.KERN_INVALID_TASK, t.number_of(trap)
    with pytest.raises(Refusal):
        tasks.copy_to(machine.kernel, dead, machine.bootstrap.port)
    assert list(dead.space.entries) == before
    invariants.check(machine.kernel, set(), Counter())


def test_a_task_that_terminates_itself_makes_no_children_while_its_names_go(daemon: DaemonProcess) -> None:
    with RawTask(daemon.path) as raw, raw.rings() as thread:
        (me,) = raw.call(t.TASK_SELF)
        for _ in range(2000):
            raw.call(t.ALLOCATE, me, c.MACH_PORT_RIGHT_RECEIVE)
        # All of it is there when the daemon hears of it.
        for trap in (t.TASK_TERMINATE.pack(me), *[t.TASK_CREATE.pack(me)] * 20, t.ALLOW_TASK_FOR_PID.pack(1)):
            assert not thread.ends.down.enqueue(trap) & ~layout.WAKE
        thread.ring()
        codes = [t.number_of(thread.answer()) for _ in range(22)]
    assert codes == [0] + [c.KERN_INVALID_TASK] * 21


def usage(machine: Machine, task: Task, name: int) -> Limits:
    answers = machine.trap(task, t.TASK_GET_LIMITS.pack(name)).answers
    assert answers is not None
    return Limits.of_words(t.TASK_GET_LIMITS.unpack_answer(answers[0])[1][18:])


def test_what_a_child_has_counts_with_its_maker_until_a_process_joins() -> None:
    """Nothing is hidden from a limit in children that are never started."""
    machine = Machine(configuration=Configuration(DEFAULTS._replace(names=12, messages=3)))
    kernel, known = machine.kernel, set[Port]()
    maker = machine.begin_task("maker", TOKENS)
    me = number(machine.trap(maker, t.TASK_SELF.pack()).answers)
    names = [number(machine.trap(maker, t.TASK_CREATE.pack(me)).answers) for _ in range(2)]

    def code(*traps: bytes) -> int:
        for trap in traps:
            answers = machine.trap(maker, trap).answers
            assert answers is not None
            found = t.number_of(answers[0])
        invariants.check(kernel, known, Counter())
        return found

    ports_of = [number(machine.trap(maker, t.ALLOCATE.pack(child, RECEIVE)).answers) for child in names]
    sends = []
    for child, port in zip(names, ports_of, strict=True):
        sends.append(number(machine.trap(maker, t.EXTRACT_RIGHT.pack(child, port, MAKE_SEND)).answers))
    buffers = [words.pack(words.bits(c.MACH_MSG_TYPE_COPY_SEND), right) for right in sends]
    send = [t.MsgTrap(c.MACH_SEND_MSG | c.MACH_SEND_TIMEOUT, buffer, (), 0, 0).pack() for buffer in buffers]
    send = [trap if isinstance(trap, bytes) else b"".join(trap) for trap in send]
    assert code(send[0], send[1], send[0]) == 0
    assert code(send[1]) == c.MACH_SEND_TIMED_OUT
    found = usage(machine, maker, me)
    # Its own port, those of its children and of theirs, and what the children have.
    assert (found.names, found.messages) == (5 + 2, 3)
    assert usage(machine, maker, names[0])[:3] == (1, 0, 0)
    assert code(*[t.ALLOCATE.pack(names[0], RECEIVE)] * 5) == 0
    assert code(t.ALLOCATE.pack(names[1], RECEIVE)) == c.KERN_NO_SPACE
    assert code(t.ALLOCATE.pack(me, RECEIVE)) == c.KERN_NO_SPACE
    assert code(t.MOD_REFS.pack(names[0], ports_of[0], c.MACH_PORT_RIGHT_RECEIVE, -1)) == 0
    assert usage(machine, maker, me)[:2] == (12 - 1, 1)
    # One is claimed, and has limits of its own; the other ends.
    claimed = machine.claim(maker, names[1], "child", TOKENS)
    assert usage(machine, maker, me)[:2] == (10, 0)
    assert code(send[1], send[1]) == 0
    assert code(send[1]) == c.MACH_SEND_TIMED_OUT
    assert (len(claimed.space.entries), claimed.space.limit) == (1, 12)
    assert code(t.TASK_TERMINATE.pack(names[0])) == 0
    assert usage(machine, maker, me)[:2] == (5, 0)


def test_what_a_child_has_counts_with_its_maker_with_the_daemons_successor_as_well(socket_path: Path) -> None:
    with Lineage(socket_path) as daemon, machport.Task() as task:
        child = task.calls.task_create(task.name)
        own = task.usage().names
        assert own is not None
        port = task.calls.mach_port_allocate(child, RECEIVE)
        right, _ = task.calls.mach_port_extract_right(child, port, MAKE_SEND)
        sender = machport.SendRight(task, right)
        sender.send(b"waits")
        for _ in range(2):
            daemon.upgrade()
            assert task.usage()[:2] == (own + 2, 1)
        with connect(socket_path) as joins:
            packet.send(joins, Hello("child", task.calls.ticket(child)).pack())
            assert RawTask.read(joins)[:4] == bytes(4)
            assert task.usage()[:2] == (own + 1, 0)
        sender.close()
