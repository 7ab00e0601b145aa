"""What one task does costs the kernel, and others, no more than it is worth."""

from __future__ import annotations

import pytest

from machport.abi import constants as c
from machport.abi import message as layout
from machport.kernel import messages, ports, tasks
from machport.kernel.kernel import Kernel
from machport.kernel.refusal import Refusal
from machport.kernel.task import Task


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


@pytest.fixture
def task(kernel: Kernel) -> Task:
    return tasks.create_task(kernel, "a")


def send(kernel: Kernel, task: Task, buffer: bytes, option: int = 0) -> int:
    result = messages.mach_msg(kernel, task, c.MACH_SEND_MSG | c.MACH_SEND_TIMEOUT | option, buffer).result
    assert result is not None
    return result.code


def test_a_message_with_too_many_descriptors_is_refused_before_they_are_read() -> None:
    """M section 3, step 2: the count alone decides."""
    claims = layout.HEADER.pack(layout.COMPLEX | c.MACH_MSG_TYPE_COPY_SEND, 0, 0x103, 0, 0, 0)
    body = layout.COUNT.pack(layout.MAX_PORTS + 1) + b"\xff" * 12 * (layout.MAX_PORTS + 1)

    assert layout.parse(claims + body, sent=True).code == c.MACH_SEND_TOO_LARGE


def test_a_port_that_joins_and_leaves_a_set_leaves_nothing_in_its_order(kernel: Kernel, task: Task) -> None:
    """P35, P36: also while another member's message stands before all that the port had."""
    pset = ports.mach_port_allocate(kernel, task, c.MACH_PORT_RIGHT_PORT_SET)
    names = [ports.mach_port_construct(kernel, task, c.MPO_QLIMIT, 1024, 0) for _ in range(2)]
    for name, count in zip(names, (1, 1000), strict=True):
        for _ in range(count):
            assert send(kernel, task, layout.pack(layout.bits(c.MACH_MSG_TYPE_MAKE_SEND), name)) == 0
    ports.mach_port_move_member(kernel, task, names[0], pset)
    for _ in range(100):
        ports.mach_port_move_member(kernel, task, names[1], pset)
        ports.mach_port_move_member(kernel, task, names[1], 0)
    entry = task.space.lookup(pset)

    assert entry is not None
    assert entry.pset is not None
    assert len(entry.pset.order) < 10_000
    assert entry.pset.first() is not None


def test_an_answer_of_the_kernel_does_not_pass_the_queue_limit(kernel: Kernel, task: Task) -> None:
    """M11: only a send-once right is answered beyond it."""
    port = ports.mach_port_construct(kernel, task, c.MPO_QLIMIT | c.MPO_INSERT_SEND_RIGHT, 1, 0)
    self_name = tasks.mach_task_self(kernel, task)
    for local in (c.MACH_MSG_TYPE_COPY_SEND, c.MACH_MSG_TYPE_COPY_SEND, c.MACH_MSG_TYPE_MAKE_SEND_ONCE):
        message = layout.pack(layout.bits(c.MACH_MSG_TYPE_COPY_SEND, local), self_name, port, 77)
        assert send(kernel, task, message) == 0

    status = ports.mach_port_get_receive_status(kernel, task, port)
    assert (status.msgcount, status.sorights) == (2, 1)


def test_a_lookup_of_registered_ports_gives_all_or_none(kernel: Kernel) -> None:
    """P4: a refused call changes nothing."""
    owner, caller = tasks.create_task(kernel, "owner"), tasks.create_task(kernel, "caller", name_limit=2)
    names = [ports.mach_port_construct(kernel, owner, c.MPO_INSERT_SEND_RIGHT, 0, 0) for _ in range(3)]
    tasks.mach_ports_register(kernel, owner, owner, names)

    with pytest.raises(Refusal) as caught:
        tasks.mach_ports_lookup(kernel, caller, owner)
    assert caught.value.code == c.KERN_NO_SPACE
    assert ports.mach_port_names(kernel, caller) == []
    assert [ports.mach_port_get_srights(kernel, owner, name) for name in names] == [2, 2, 2]


def test_a_send_that_its_thread_abandons_destroys_its_message(kernel: Kernel, task: Task) -> None:
    """M8, N51: nobody will look at the buffer, so its rights do not come back to names that nobody knows."""
    full, moved, answers = (ports.mach_port_construct(kernel, task, c.MPO_QLIMIT, 0, 0) for _ in range(3))
    buffer = layout.pack(
        layout.bits(c.MACH_MSG_TYPE_MAKE_SEND, c.MACH_MSG_TYPE_MAKE_SEND_ONCE),
        full,
        answers,
        descriptors=[layout.port_descriptor(moved, c.MACH_MSG_TYPE_MOVE_RECEIVE)],
    )
    waiter = messages.mach_msg(kernel, task, c.MACH_SEND_MSG, buffer)
    assert waiter.result is None
    messages.abandon(kernel, waiter)
    messages.collect(kernel)

    assert waiter.result is not None
    assert sorted(name for name, _ in ports.mach_port_names(kernel, task)) == sorted([full, answers])
    assert ports.mach_port_get_receive_status(kernel, task, answers).msgcount == 1
    assert ports.mach_port_get_srights(kernel, task, full) == 0
