"""Task ports, special and registered ports, and the kernel's own objects."""

from __future__ import annotations

import pytest
from kernel_driver import (
    COPY_SEND,
    DEAD,
    DEAD_NAME,
    DEATH,
    MAKE_SEND,
    MAKE_SEND_ONCE,
    MOVE_SEND,
    NO_SENDERS,
    NOTHING,
    NULL,
    RECEIVE,
    SEND,
    Actor,
    three_tasks,
)

from machport.abi import constants as c
from machport.kernel import tasks
from machport.kernel.refusal import Refusal


class File:
    """Something that a port of the kernel stands for."""


def task_self(a: Actor) -> int:
    return a.world.call(tasks.mach_task_self, a.task)


def get_special(caller: Actor, a: Actor, which: int) -> int:
    return a.world.call(tasks.task_get_special_port, caller.task, a.task, which)


def set_special(caller: Actor, a: Actor, which: int, name: int) -> None:
    a.world.call(tasks.task_set_special_port, caller.task, a.task, which, name)


def register(caller: Actor, a: Actor, *names: int) -> None:
    a.world.call(tasks.mach_ports_register, caller.task, a.task, names)


def lookup(caller: Actor, a: Actor) -> list[int]:
    return a.world.call(tasks.mach_ports_lookup, caller.task, a.task)


def test_a_task_has_a_send_right_to_its_own_port() -> None:
    """Each call gives one reference more of the same name."""
    a, *_ = three_tasks()
    name = task_self(a)
    assert task_self(a) == name
    assert (a.type(name), a.urefs(name)) == (SEND, 2)
    assert tasks.resolve_task(a.task, name) is a.task


def test_a_task_port_can_be_given_away() -> None:
    """Section 5 of ports: whoever has a send right to it may work on the task."""
    a, b, _ = three_tasks()
    inbox = b.port()
    a.send(a.take(b, inbox, MAKE_SEND), rights=[(task_self(a), MOVE_SEND)])
    ((name, _),) = b.receive(inbox).rights
    assert tasks.resolve_task(b.task, name) is a.task


def test_a_message_to_a_task_port_gets_an_error_reply() -> None:
    """The calls on tasks are traps; a message is answered as MIG answers an unknown id."""
    a, *_ = three_tasks()
    reply, task = a.port(), task_self(a)
    a.send(task, reply=reply, reply_disposition=MAKE_SEND_ONCE, id=3400)
    message = a.receive(reply)
    assert message.id == 3500
    assert int.from_bytes(message.inline[8:12], "little", signed=True) == c.MIG_BAD_ID
    a.send(task, id=1)
    a.send(task, reply=task, reply_disposition=COPY_SEND)
    a.send(task, reply=DEAD, reply_disposition=COPY_SEND)
    assert a.told(reply) == []


def test_the_bootstrap_port_is_handed_to_new_tasks() -> None:
    """The kernel holds a send right for each."""
    a, b, _ = three_tasks()
    port = a.port()
    child = a.world.call(tasks.create_task, "child", bootstrap=a.port_behind(port))
    assert a.srights(port) == 1
    name = a.world.call(tasks.task_get_special_port, b.task, child, c.TASK_BOOTSTRAP_PORT)
    assert b.type(name) == SEND
    assert a.srights(port) == 2
    a.world.call(tasks.task_terminate, child)
    assert a.srights(port) == 1


def test_a_dead_bootstrap_port_is_not_handed_on() -> None:
    a, *_ = three_tasks()
    port = a.port()
    behind = a.port_behind(port)
    a.kill(port)
    child = a.world.call(tasks.create_task, "child", bootstrap=behind)
    assert a.world.call(tasks.task_get_special_port, a.task, child, c.TASK_BOOTSTRAP_PORT) == NULL


def test_special_ports_can_be_replaced() -> None:
    """The send right before is released; 0 leaves the task without one."""
    a, b, _ = three_tasks()
    first, second = a.port_with_send(), a.port_with_send()
    assert get_special(b, a, c.TASK_BOOTSTRAP_PORT) == NULL
    set_special(a, b, c.TASK_BOOTSTRAP_PORT, first)
    assert a.srights(first) == 2
    set_special(a, b, c.TASK_BOOTSTRAP_PORT, second)
    assert (a.srights(first), a.srights(second)) == (1, 2)
    assert get_special(a, b, c.TASK_BOOTSTRAP_PORT) == second
    assert a.urefs(second) == 2
    set_special(a, b, c.TASK_BOOTSTRAP_PORT, NULL)
    assert get_special(a, b, c.TASK_BOOTSTRAP_PORT) == NULL
    assert a.srights(second) == 1


def test_a_special_port_that_died_is_dead() -> None:
    """P10."""
    a, b, _ = three_tasks()
    port = a.port_with_send()
    set_special(a, b, c.TASK_BOOTSTRAP_PORT, port)
    a.kill(port)
    assert get_special(b, b, c.TASK_BOOTSTRAP_PORT) == DEAD
    set_special(a, b, c.TASK_BOOTSTRAP_PORT, port)
    assert get_special(b, b, c.TASK_BOOTSTRAP_PORT) == NULL


def test_special_port_calls_that_are_refused() -> None:
    a, b, _ = three_tasks()
    port = a.port()
    for which in (0, 2, 3, 5, -1):
        with a.world.refuses(c.KERN_INVALID_ARGUMENT):
            get_special(a, b, which)
        with a.world.refuses(c.KERN_INVALID_ARGUMENT):
            set_special(a, b, which, port)
    with a.world.refuses(c.KERN_INVALID_ARGUMENT):
        set_special(a, b, c.TASK_KERNEL_PORT, port)
    for name in (port, a.pset(), NOTHING):
        with a.world.refuses(c.KERN_INVALID_CAPABILITY):
            set_special(a, b, c.TASK_BOOTSTRAP_PORT, name)


def test_registered_ports_are_kept_with_the_task() -> None:
    """Up to three; the ones before are released."""
    a, b, _ = three_tasks()
    ports = [a.port_with_send() for _ in range(3)]
    register(a, b, *ports)
    assert lookup(a, b) == ports
    assert [a.urefs(port) for port in ports] == [2, 2, 2]
    register(a, b, NULL, ports[0])
    assert lookup(a, b) == [NULL, ports[0], NULL]
    assert a.srights(ports[1]) == 1
    register(a, b)
    assert lookup(a, b) == [NULL] * 3
    assert a.srights(ports[0]) == 1


def test_register_checks_all_its_names_first() -> None:
    """A refusal changes nothing."""
    a, b, _ = three_tasks()
    port, receive = a.port_with_send(), a.port()
    register(a, b, port)
    for names, code in (
        ([port] * 4, c.KERN_INVALID_ARGUMENT),
        ([port, receive], c.KERN_INVALID_CAPABILITY),
        ([port, port, NOTHING], c.KERN_INVALID_CAPABILITY),
    ):
        with a.world.refuses(code):
            register(a, b, *names)
    register(a, b, a.dead_name(), DEAD)
    assert lookup(a, b) == [NULL] * 3


def test_the_kernels_rights_keep_a_port_from_having_no_senders() -> None:
    """Section 2 of ports: srights counts what the kernel holds."""
    a, b, _ = three_tasks()
    port, notify = a.port_with_send(), a.port()
    a.request(NO_SENDERS, port, notify, sync=1)
    register(a, b, port)
    a.deallocate(port)
    assert a.told(notify) == []
    register(a, b)
    assert a.told(notify) == [("no-senders", 1)]


def test_an_object_lives_as_long_as_a_right_to_it() -> None:
    """In spaces and in messages; the last one releases it."""
    a, b, _ = three_tasks()
    file = File()
    name = a.world.call(tasks.make_object, a.task, file)
    assert a.type(name) == SEND
    assert tasks.object_of(a.task, name, File) is file
    inbox = b.port()
    a.send(a.take(b, inbox, MAKE_SEND), rights=[(name, MOVE_SEND)])
    assert a.kernel.take_released() == []
    ((received, _),) = b.receive(inbox).rights
    assert tasks.object_of(b.task, received, File) is file
    b.deallocate(received)
    assert a.kernel.take_released() == [file]
    assert a.kernel.take_released() == []


@pytest.mark.parametrize("way", ["termination", "queue", "message to it"])
def test_an_object_is_released_in_every_way(way: str) -> None:
    a, b, _ = three_tasks()
    file = File()
    name = a.world.call(tasks.make_object, a.task, file)
    if way == "termination":
        a.terminate()
    elif way == "queue":
        inbox = a.port()
        a.send(inbox, MAKE_SEND, rights=[(name, MOVE_SEND)])
        a.kill(inbox)
    else:
        a.send(name, MOVE_SEND)
    ended = [a.task] if way == "termination" else []
    assert a.kernel.take_released() == [file, *ended]
    assert b.names() == {}


def test_a_request_on_a_right_to_an_object_fires_like_any_other() -> None:
    """N23: with the last reference the name goes."""
    a, *_ = three_tasks()
    notify = a.port()
    name = a.world.call(tasks.make_object, a.task, File())
    a.request(DEATH, name, notify)
    a.deallocate(name)
    assert a.told(notify) == [("port-deleted", name)]


def test_an_object_needs_a_name() -> None:
    """P4: refused before it is made."""
    a, *_ = three_tasks(name_limit=0)
    with a.world.refuses(c.KERN_NO_SPACE):
        a.world.call(tasks.make_object, a.task, File())
    assert a.kernel.take_released() == []


def test_object_of_needs_a_right_to_such_an_object() -> None:
    a, *_ = three_tasks()
    for name, code in (
        (NOTHING, c.KERN_INVALID_NAME),
        (a.port(), c.KERN_INVALID_RIGHT),
        (a.dead_name(), c.KERN_INVALID_RIGHT),
        (task_self(a), c.KERN_INVALID_RIGHT),
    ):
        with a.world.refuses(code):
            tasks.object_of(a.task, name, File)


def test_a_task_without_room_gets_no_right_to_itself() -> None:
    """P4, P15: the call is refused, and the copy is dropped."""
    a, *_ = three_tasks(name_limit=0)
    with a.world.unchanged(), pytest.raises(Refusal) as caught:
        task_self(a)
    assert (caught.value.code, caught.value.rule) == (c.KERN_NO_SPACE, "P4")


def test_the_kernel_knows_its_living_tasks() -> None:
    a, b, other = three_tasks()
    b.terminate()
    assert list(a.kernel.tasks) == [a.task, other.task]
    assert repr(a.task) == "<Task a>"
    assert not b.task.active


def test_a_refusal_says_what_was_wrong() -> None:
    """Code, rule and a sentence."""
    a, *_ = three_tasks()
    with pytest.raises(Refusal) as caught:
        a.move_member(a.port(), NULL)
    assert (caught.value.code, caught.value.rule) == (c.KERN_NOT_IN_SET, "P33")
    assert "set" in caught.value.says
    assert a.type(a.dead_name()) == DEAD_NAME
    assert RECEIVE in a.names().values()
