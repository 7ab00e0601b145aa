"""The end of a task: section 11 of the specification of ports, P40-P43, N65."""

from __future__ import annotations

import gc

import pytest
from kernel_driver import (
    COPY_SEND,
    DEAD,
    DEAD_NAME,
    DEATH,
    MAKE_SEND,
    MAKE_SEND_ONCE,
    MOVE_RECEIVE,
    MOVE_SEND,
    MOVE_SEND_ONCE,
    NO_SENDERS,
    NOTHING,
    ONCE,
    PORT_DESTROYED,
    RECEIVE,
    SEND,
    done,
    three_tasks,
)

from machport.abi import constants as c
from machport.kernel import ports, tasks
from machport.kernel.kernel import Kernel
from machport.kernel.port import Port
from machport.kernel.refusal import Refusal
from machport.kernel.space import Space
from machport.kernel.task import Task


def test_a_dead_task_sends_and_receives_nothing() -> None:
    """Section 11 step 1: SEND_INVALID_DEST, RCV_INVALID_NAME."""
    a, b, _ = three_tasks()
    port, other = a.port(), b.port()
    send = a.take(b, other, MAKE_SEND)
    a.terminate()
    with a.world.unchanged():
        assert a.send_error(send) == c.MACH_SEND_INVALID_DEST
        assert a.try_receive(port).code == c.MACH_RCV_INVALID_NAME


def test_calls_on_a_dead_task_are_refused() -> None:
    """Section 11 step 1: 16, by whatever way it is named."""
    a, b, _ = three_tasks()
    name = b.world.call(tasks.task_get_special_port, b.task, a.task, c.TASK_KERNEL_PORT)
    assert tasks.resolve_task(b.task, name) is a.task
    a.terminate()
    assert a.task not in a.kernel.tasks
    with pytest.raises(Refusal) as caught:
        tasks.resolve_task(b.task, name)
    assert caught.value.code == c.KERN_INVALID_TASK
    with a.world.refuses(c.KERN_INVALID_TASK):
        a.terminate()


@pytest.mark.parametrize("kind", ["receive right", "dead name", "nothing", "port set"])
def test_only_a_task_port_names_a_task(kind: str) -> None:
    """Section 5: 16."""
    a, *_ = three_tasks()
    name = {"receive right": a.port(), "dead name": a.dead_name(), "nothing": NOTHING, "port set": a.pset()}[kind]
    with a.world.refuses(c.KERN_INVALID_TASK):
        tasks.resolve_task(a.task, name)


def test_its_threads_are_released() -> None:
    """Section 11 step 1: receivers with PORT_DIED; what a blocked sender held is destroyed."""
    a, b, _ = three_tasks()
    port, pset, full, reply = a.port(), a.pset(), b.port(), b.port()
    b.set_qlimit(full, 0)
    a.insert(0x5000, reply, MAKE_SEND_ONCE, caller=b)
    receivers = [a.wait_to_receive(port), a.wait_to_receive(pset)]
    sender = a.wait_to_send(a.take(b, full, MAKE_SEND), reply=0x5000, reply_disposition=MOVE_SEND_ONCE)
    a.terminate()
    assert [done(waiter).code for waiter in receivers] == [c.MACH_RCV_PORT_DIED] * 2
    assert done(sender).code == c.MACH_SEND_INTERRUPTED
    assert done(sender).buffer is None
    assert b.told(reply) == [ONCE]
    assert b.srights(full) == 0
    assert a.task.waiters == {}


def test_a_send_and_receive_whose_task_ends_after_the_send_receives_nothing() -> None:
    """Section 11 step 1."""
    a, b, _ = three_tasks()
    full = b.port()
    b.set_qlimit(full, 0)
    waiter = a.wait_to_send(a.take(b, full, MAKE_SEND), receive=True)
    a.terminate()
    assert done(waiter).code == c.MACH_SEND_INTERRUPTED


def test_every_kind_of_entry_is_cleaned() -> None:
    """Section 11 step 3: the table, with a request on each, told elsewhere (P40)."""
    a, b, _ = three_tasks()
    notify, remote = b.port(), b.port()
    names = {
        "send": a.take(b, remote, MAKE_SEND),
        "send-once": a.take(b, remote, MAKE_SEND_ONCE),
        "receive": a.port(),
        "both": a.port_with_send(),
    }
    a.mod_refs(names["send"], 0, 5)
    a.dead_name()
    member = a.port()
    a.pset(member)
    for name in names.values():
        a.request(DEATH, name, notify, caller=b)
    a.request(NO_SENDERS, names["both"], notify, sync=1, caller=b)
    b.request(NO_SENDERS, remote, notify, sync=1)
    a.terminate()
    assert b.told(notify) == [
        ("no-senders", 1),
        ("port-deleted", names["send"]),
        ("port-deleted", names["send-once"]),
        ("port-deleted", names["receive"]),
        ("no-senders", 1),
        ("port-deleted", names["both"]),
    ]
    assert b.told(remote) == [ONCE]
    assert a.task.space.entries == {}


def test_names_are_cleaned_in_ascending_order() -> None:
    """Section 11 step 3: the order of notifications shows it."""
    a, b, _ = three_tasks()
    notify, remote = b.port(), b.port()
    for name in (0x900, 0x100, 0x500):
        a.insert(name, remote, MAKE_SEND_ONCE, caller=b)
        a.request(DEATH, name, notify, caller=b)
    a.terminate()
    assert b.told(notify) == [("port-deleted", name) for name in (0x100, 0x500, 0x900)]


def test_requests_told_to_the_dying_space_are_lost_with_it() -> None:
    """P40: notify ports that were its own."""
    a, b, _ = three_tasks()
    notify, remote = a.port(), b.port()
    send = a.take(b, remote, MAKE_SEND)
    a.request(DEATH, send, notify)
    once = a.take(a, notify, MAKE_SEND_ONCE)
    a.request(NO_SENDERS, notify, once, how=MOVE_SEND_ONCE)
    a.terminate()
    assert b.names() == {remote: RECEIVE}
    assert b.srights(remote) == 0


def test_requests_of_others_on_its_ports_fire() -> None:
    """P41, N65: port-destroyed and no-senders are on ports, not on the space."""
    a, b, _ = three_tasks()
    saved, lost, notify = a.port(), a.port(), b.port()
    a.send(saved, MAKE_SEND, id=6)
    a.request(PORT_DESTROYED, saved, notify, caller=b)
    a.request(NO_SENDERS, lost, notify, sync=1, caller=b)
    watch = b.take(a, lost, MAKE_SEND)
    b.request(DEATH, watch, notify)
    a.terminate()
    first, *rest = b.told(notify)
    assert first[0] == "port-destroyed"
    assert rest == [ONCE, ("dead-name", watch)]
    assert b.told(first[1]) == [("message", 6)]


def test_what_it_had_sent_stays_queued() -> None:
    """P42: and what was queued for it is destroyed."""
    a, b, _ = three_tasks()
    inbox, carried, reply = b.port(), a.port(), b.port()
    a.send(a.take(b, inbox, MAKE_SEND), id=3, rights=[(carried, MOVE_RECEIVE)])
    a.send(a.take(b, inbox, MAKE_SEND), id=4)
    server = a.port()
    b.send(b.take(a, server, MAKE_SEND), reply=reply, reply_disposition=MAKE_SEND_ONCE)
    a.terminate()
    ((right, _),) = b.receive(inbox).rights
    assert b.type(right) == RECEIVE
    assert b.told(inbox) == [("message", 4)]
    assert b.told(reply) == [ONCE]


def test_its_task_port_dies_last() -> None:
    """Section 11 step 4, N65: this is how a parent learns of it."""
    a, b, _ = three_tasks()
    notify, port = b.port(), a.port()
    task = b.world.call(tasks.task_get_special_port, b.task, a.task, c.TASK_KERNEL_PORT)
    b.request(DEATH, task, notify)
    watch = b.take(a, port, MAKE_SEND)
    b.request(DEATH, watch, notify)
    a.terminate()
    assert b.told(notify) == [("dead-name", watch), ("dead-name", task)]
    assert b.type(task) == DEAD_NAME


def test_the_rights_that_the_kernel_holds_for_it_go_first() -> None:
    """Section 11 step 2: bootstrap and registered ports, before the entries."""
    a, b, _ = three_tasks()
    notify, bootstrap, registered = b.port(), b.port(), b.port()
    for which in (bootstrap, registered):
        b.request(NO_SENDERS, which, notify, sync=1)
    b.world.call(tasks.task_set_special_port, b.task, a.task, c.TASK_BOOTSTRAP_PORT, b.take(b, bootstrap, MAKE_SEND))
    b.world.call(tasks.mach_ports_register, b.task, a.task, [b.take(b, registered, MAKE_SEND)])
    b.deallocate(bootstrap)
    b.deallocate(registered)
    port = a.port()
    watch = b.take(a, port, MAKE_SEND)
    b.request(DEATH, watch, notify)
    assert b.told(notify) == []
    a.terminate()
    assert b.told(notify) == [("no-senders", 1), ("no-senders", 1), ("dead-name", watch)]


@pytest.mark.parametrize("order", [(0x100, 0x200), (0x200, 0x100)])
def test_a_right_saved_into_the_same_dying_space_ends_up_dead(order: tuple[int, int]) -> None:
    """P43: whichever of the two names is cleaned first."""
    a, b, _ = three_tasks()
    saved, heir = order
    a.allocate_name(saved, c.MACH_PORT_RIGHT_RECEIVE)
    a.allocate_name(heir, c.MACH_PORT_RIGHT_RECEIVE)
    a.request(PORT_DESTROYED, saved, heir)
    send, notify = b.take(a, saved, MAKE_SEND), b.port()
    b.request(DEATH, send, notify)
    a.terminate()
    assert b.told(notify) == [("dead-name", send)]
    assert b.type(send) == DEAD_NAME


def test_a_right_saved_into_the_same_dying_space_while_somebody_receives_there() -> None:
    """P43: the thread is released and the right is dead all the same."""
    a, b, _ = three_tasks()
    a.allocate_name(0x100, c.MACH_PORT_RIGHT_RECEIVE)
    a.allocate_name(0x200, c.MACH_PORT_RIGHT_RECEIVE)
    a.request(PORT_DESTROYED, 0x100, 0x200)
    send, notify = b.take(a, 0x100, MAKE_SEND), b.port()
    b.request(DEATH, send, notify)
    waiting = a.wait_to_receive(0x200)
    a.terminate()
    assert done(waiting).code == c.MACH_RCV_INVALID_NAME
    assert b.told(notify) == [("dead-name", send)]


def test_rights_in_flight_to_a_dead_task_are_given_back_to_nobody() -> None:
    """P42, M31: send rights are counted down, send-once rights say so."""
    a, b, other = three_tasks()
    inbox, port, notify = a.port(), b.port(), b.port()
    b.request(NO_SENDERS, port, notify, sync=1)
    other.send(
        other.take(a, inbox, MAKE_SEND),
        rights=[(other.take(b, port, MAKE_SEND), MOVE_SEND), (other.take(b, port, MAKE_SEND_ONCE), MOVE_SEND_ONCE)],
    )
    a.terminate()
    assert b.told(notify) == [("no-senders", 1)]
    assert b.told(port) == [ONCE]


def test_a_dead_task_leaves_nothing_in_the_kernel() -> None:
    """Section 11: two spaces and all between them."""
    a, b, other = three_tasks()
    port = a.port_with_send()
    b.take(a, port, COPY_SEND)
    a.send(port, rights=[(a.port(), MOVE_RECEIVE), (DEAD, COPY_SEND)])
    a.terminate()
    b.terminate()
    other.terminate()
    state = a.world.snapshot()
    assert state == {"tasks": [], "ports": [], "garbage": 0, "woken": 0, "changed": 0}


def test_names_in_a_terminated_task_do_not_matter_to_others() -> None:
    """Section 11: the sender keeps its own right, now a dead name."""
    a, b, _ = three_tasks()
    port = a.port()
    send = b.take(a, port, MAKE_SEND)
    assert b.type(send) == SEND
    a.terminate()
    assert ports.mach_port_names(b.kernel, b.task) == [(send, DEAD_NAME)]


def test_a_task_that_has_ended_is_let_go_at_once_by_whoever_counts_references() -> None:
    """The daemon collects no old garbage, because that would hold up everybody: a circle would stay for ever."""
    kernel = Kernel()
    gc.collect()
    gc.disable()
    try:
        before = [type(thing) for thing in gc.get_objects() if isinstance(thing, (Task, Space, Port))]
        task, watcher = tasks.create_task(kernel, "ends"), tasks.create_task(kernel, "watches")
        ports.mach_port_allocate(kernel, task, c.MACH_PORT_RIGHT_RECEIVE)
        tasks.copy_to(kernel, watcher, task.port)
        for each in (task, watcher):
            tasks.task_terminate(kernel, each)
        kernel.take_released()
        del task, watcher, each
        after = [type(thing) for thing in gc.get_objects() if isinstance(thing, (Task, Space, Port))]
        assert len(after) == len(before)
    finally:
        gc.enable()
