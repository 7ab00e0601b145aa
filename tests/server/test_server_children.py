"""Tasks that wait for their processes, on the daemon's parts without its processes."""

from __future__ import annotations

from machport.abi import constants as c
from machport.abi import traps as t
from machport.kernel import ports, requests, tasks
from machport.testing.machine import PID, Machine

TOKENS = tuple(range(PID + 3))


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
