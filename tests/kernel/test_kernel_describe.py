"""What the kernel knows of a port besides Mach's own state: its label, who ended with it, and requests nobody received.

None of it changes what Mach's calls and notifications say.
"""

from __future__ import annotations

import pytest
from kernel_driver import (
    DEAD_NAME,
    MAKE_SEND,
    MAKE_SEND_ONCE,
    MOVE_RECEIVE,
    MOVE_SEND_ONCE,
    ONCE,
    PORT_DESTROYED,
    PORT_SET,
    RECEIVE,
    SEND,
    SEND_ONCE,
    SEND_RECEIVE,
    Actor,
    three_tasks,
)

from machport.abi import constants as c
from machport.kernel import ports, tasks
from machport.kernel.port import LABEL_MAX
from machport.kernel.ports import Described


def describe(actor: Actor, name: int) -> Described:
    return ports.describe(actor.kernel, actor.task, name)


def label(actor: Actor, name: int, text: str) -> None:
    actor.world.call(ports.set_label, actor.task, name, text)


def unreceived(actor: Actor, name: int) -> bool:
    return describe(actor, name).unreceived


# Labels and holders


def test_a_label_moves_with_the_receive_right_and_every_holder_sees_it() -> None:
    a, b, d = three_tasks()
    name = a.port()
    assert describe(a, name).label == ""
    label(a, name, "jobs")
    send = b.take(a, name, MAKE_SEND)
    assert describe(b, send) == Described(SEND, 1, "jobs", a.task, 0, False)
    moved = d.take(a, name, MOVE_RECEIVE)
    assert describe(d, moved) == Described(RECEIVE, 0, "jobs", d.task, 0, False)
    assert describe(b, send).holder is d.task


def test_only_the_receiver_names_a_port() -> None:
    a, b, _ = three_tasks()
    name = a.port()
    send = b.take(a, name, MAKE_SEND)
    for actor, other in ((b, send), (b, b.pset()), (b, b.dead_name())):
        with actor.world.refuses(c.KERN_INVALID_RIGHT):
            label(actor, other, "mine")
    with a.world.refuses(c.KERN_INVALID_NAME):
        label(a, 0x77, "nothing")


def test_a_label_has_64_bytes_of_utf_8() -> None:
    a, *_ = three_tasks()
    name = a.port()
    label(a, name, "é" * (LABEL_MAX // 2))
    with a.world.refuses(c.KERN_INVALID_VALUE):
        label(a, name, "é" * (LABEL_MAX // 2) + "x")
    assert describe(a, name).label == "é" * 32


def test_a_right_on_its_way_is_nobodys() -> None:
    a, b, d = three_tasks()
    name, queue = a.port(), b.port()
    send = d.take(a, name, MAKE_SEND)
    a.send(a.take(b, queue, MAKE_SEND), rights=[(name, MOVE_RECEIVE)])
    assert describe(d, send).holder is None
    b.receive(queue)
    assert describe(d, send).holder is b.task


def test_what_is_no_port_has_only_its_kind() -> None:
    a, *_ = three_tasks()
    assert describe(a, a.pset()) == Described(PORT_SET, 0, "", None, 0, False)
    assert describe(a, a.dead_name(3)) == Described(DEAD_NAME, 3, "", None, 0, False)
    own = a.world.call(tasks.mach_task_self, a.task)
    assert describe(a, own) == Described(SEND, 1, "", None, 0, False)
    with a.world.refuses(c.KERN_INVALID_NAME):
        describe(a, 0x77)


# Deaths


def test_tasks_are_numbered_in_the_order_in_which_they_were_made() -> None:
    assert [actor.task.number for actor in three_tasks()] == [1, 2, 3]


@pytest.mark.parametrize("how", [MAKE_SEND, MAKE_SEND_ONCE])
def test_a_dead_name_knows_its_label_and_who_ended_with_the_port(how: int) -> None:
    a, b, _ = three_tasks()
    name = a.port()
    label(a, name, "jobs")
    right = b.take(a, name, how)
    a.terminate()
    assert describe(b, right) == Described(DEAD_NAME, 1, "jobs", None, a.task.number, False)


def test_a_port_that_came_back_knows_who_ended_and_that_it_is_held_again() -> None:
    """N30: port-destroyed brings it with its label and its senders."""
    a, b, d = three_tasks()
    name, notify = a.port(), b.port()
    label(a, name, "jobs")
    send = d.take(a, name, MAKE_SEND)
    a.request(PORT_DESTROYED, name, notify, caller=b)
    a.terminate()
    assert describe(d, send) == Described(SEND, 1, "jobs", None, a.task.number, False)
    back = b.receive(notify).rights[0][0]
    assert describe(b, back) == Described(RECEIVE, 0, "jobs", b.task, a.task.number, False)
    b.kill(back)
    assert describe(d, send) == Described(DEAD_NAME, 1, "jobs", None, 0, False), "nobody ended with it this time"


def test_rights_on_their_way_to_a_task_end_with_it() -> None:
    a, b, d = three_tasks()
    name, queue = a.port(), b.port()
    send = d.take(a, name, MAKE_SEND)
    a.send(a.take(b, queue, MAKE_SEND), rights=[(name, MOVE_RECEIVE)])
    b.terminate()
    assert describe(d, send).last_holder == b.task.number


def test_a_port_that_was_given_up_did_not_end_with_anybody() -> None:
    a, b, d = three_tasks()
    d.terminate()
    name = a.port()
    send = b.take(a, name, MAKE_SEND)
    a.kill(name)
    assert describe(b, send) == Described(DEAD_NAME, 1, "", None, 0, False)


def test_the_port_of_a_task_knows_that_the_task_ended() -> None:
    a, b, _ = three_tasks()
    name = b.world.call(tasks.task_get_special_port, b.task, a.task, c.TASK_KERNEL_PORT)
    a.terminate()
    assert describe(b, name).last_holder == a.task.number


# Lost requests


def ask(client: Actor, right: int, reply: int) -> None:
    client.send(right, reply=reply, reply_disposition=MAKE_SEND_ONCE)


def test_a_request_that_dies_in_the_queue_was_not_received() -> None:
    """N55 is as ever; the flag says which of its two causes it had."""
    a, b, _ = three_tasks()
    port, reply = a.port(), b.port()
    right = b.take(a, port, MAKE_SEND)
    ask(b, right, reply)
    assert not unreceived(b, reply)
    a.terminate()
    assert b.told(reply) == [ONCE]
    assert unreceived(b, reply)


def test_a_request_that_waits_for_room_was_not_received() -> None:
    a, b, _ = three_tasks()
    port, reply = a.port(), b.port()
    a.set_qlimit(port, 0)
    b.wait_to_send(b.take(a, port, MAKE_SEND), reply=reply, reply_disposition=MAKE_SEND_ONCE)
    a.terminate()
    assert b.told(reply) == [ONCE]
    assert unreceived(b, reply)


@pytest.mark.parametrize("end", ["dies", "drops it"])
def test_a_request_that_was_received_may_have_been_carried_out(end: str) -> None:
    a, b, _ = three_tasks()
    port, reply = a.port(), b.port()
    ask(b, b.take(a, port, MAKE_SEND), reply)
    received = a.receive(port)
    if end == "dies":
        a.terminate()
    else:
        a.deallocate(received.remote)
    assert b.told(reply) == [ONCE]
    assert not unreceived(b, reply)
    assert describe(b, reply).lost_with == (a.task.number if end == "dies" else 0)


def test_a_request_that_somebody_received_and_passed_on_may_have_been_carried_out() -> None:
    """Its reply right dies in a queue, but was not made for the message there."""
    a, b, d = three_tasks()
    first, second, reply = a.port(), d.port(), b.port()
    for rights in (False, True):
        ask(b, b.take(a, first, MAKE_SEND), reply)
        got = a.receive(first).remote
        on = a.take(d, second, MAKE_SEND)
        if rights:
            a.send(on, rights=[(got, MOVE_SEND_ONCE)])
        else:
            a.send(on, reply=got, reply_disposition=MOVE_SEND_ONCE)
    d.terminate()
    assert b.told(reply) == [ONCE, ONCE]
    assert not unreceived(b, reply)
    assert describe(b, reply).lost_with == d.task.number, "who had the right, whoever was asked"


def test_a_right_made_for_the_body_counts_as_one_made_for_the_header() -> None:
    a, b, _ = three_tasks()
    port, reply = a.port(), b.port()
    b.send(b.take(a, port, MAKE_SEND), rights=[(reply, MAKE_SEND_ONCE)])
    a.terminate()
    assert b.told(reply) == [ONCE]
    assert unreceived(b, reply)


@pytest.mark.parametrize("how", ["made", "destroyed"])
def test_the_flag_is_of_the_last_right_only(how: str) -> None:
    a, b, d = three_tasks()
    port, reply = a.port(), b.port()
    kept = d.take(b, reply, MAKE_SEND_ONCE)
    ask(b, b.take(a, port, MAKE_SEND), reply)
    a.terminate()
    assert (unreceived(b, reply), describe(b, reply).lost_with) == (True, a.task.number)
    if how == "made":
        d.take(b, reply, MAKE_SEND_ONCE)
    else:
        d.deallocate(kept)
    assert (unreceived(b, reply), describe(b, reply).lost_with) == (False, 0)


def test_only_the_receiver_learns_of_its_lost_requests() -> None:
    a, b, d = three_tasks()
    port, reply = a.port(), b.port_with_send()
    ask(b, b.take(a, port, MAKE_SEND), reply)
    once, send = d.take(b, reply, MAKE_SEND_ONCE), d.take(b, reply, MAKE_SEND)
    ask(b, b.take(a, port, MAKE_SEND), reply)
    a.terminate()
    assert describe(b, reply) == Described(SEND_RECEIVE, 1, "", b.task, 0, True, a.task.number)
    assert describe(d, send) == Described(SEND, 1, "", b.task, 0, False)
    assert describe(d, once) == Described(SEND_ONCE, 1, "", b.task, 0, False)
