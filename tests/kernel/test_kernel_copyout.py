"""Putting rights into a space: section 4 of the specification of ports, P10-P17."""

from __future__ import annotations

import pytest
from kernel_driver import (
    COPY_SEND,
    DEAD,
    DEATH,
    MAKE_SEND,
    MAKE_SEND_ONCE,
    MOVE_RECEIVE,
    MOVE_SEND,
    MOVE_SEND_ONCE,
    NOTHING,
    NULL,
    ONCE,
    PORT_DESTROYED,
    RECEIVE,
    SEND,
    SEND_ONCE,
    SEND_RECEIVE,
    SEND_RIGHT,
    Actor,
    parse_result,
    three_tasks,
)

from machport.abi import constants as c

UREFS_MAX = c.SEND_UREFS_MAX


def test_a_port_that_died_on_the_way_arrives_as_dead() -> None:
    """P10: nothing is entered, and it is no error."""
    a, b, _ = three_tasks()
    inbox, port = a.port(), b.port()
    to_a = b.take(a, inbox, MAKE_SEND)
    b.send(to_a, rights=[(port, MAKE_SEND), (port, MAKE_SEND_ONCE)], reply=port, reply_disposition=MAKE_SEND_ONCE)
    b.kill(port)
    message = a.receive(inbox)
    assert message.code == c.MACH_MSG_SUCCESS
    assert message.rights == [(DEAD, MOVE_SEND), (DEAD, MOVE_SEND_ONCE)]
    assert message.remote == DEAD
    assert a.names() == {inbox: RECEIVE}


def test_a_send_right_gets_a_new_name_with_one_reference() -> None:
    """P11: where the space has nothing for the port."""
    a, b, _ = three_tasks()
    send = a.take(b, b.port(), MAKE_SEND)
    assert a.names() == {send: SEND}
    assert a.urefs(send) == 1


def test_a_send_right_joins_the_send_right_that_is_there() -> None:
    """P11: urefs +1, and the carried right is absorbed."""
    a, b, _ = three_tasks()
    port = b.port()
    send = a.take(b, port, MAKE_SEND)
    assert a.take(b, port, MAKE_SEND) == send
    assert a.urefs(send) == 2
    assert b.srights(port) == 1


def test_a_send_right_joins_the_receive_right_that_is_there() -> None:
    """P11: RECEIVE becomes SEND|RECEIVE with one reference."""
    a, b, _ = three_tasks()
    port = a.port()
    send = b.take(a, port, MAKE_SEND)
    assert a.take(b, send, MOVE_SEND) == port
    assert a.type(port) == SEND_RECEIVE
    assert a.urefs(port) == 1
    assert a.srights(port) == 1


def test_a_receive_right_joins_the_send_right_that_is_there() -> None:
    """P12: the name gains RECEIVE, urefs unchanged."""
    a, b, _ = three_tasks()
    port = b.port()
    send = a.take(b, port, MAKE_SEND)
    a.mod_refs(send, SEND_RIGHT, 2)
    assert a.take(b, port, MOVE_RECEIVE) == send
    assert a.type(send) == SEND_RECEIVE
    assert a.urefs(send) == 3


def test_a_receive_right_gets_a_new_name_otherwise() -> None:
    """P12: also where the space has send-once rights to the port."""
    a, b, _ = three_tasks()
    port = b.port()
    once = a.take(b, port, MAKE_SEND_ONCE)
    moved = a.take(b, port, MOVE_RECEIVE)
    assert a.names() == {once: SEND_ONCE, moved: RECEIVE}


def test_each_send_once_right_gets_a_name_of_its_own() -> None:
    """P13: whatever else the space holds to the port."""
    a, b, _ = three_tasks()
    port = a.port_with_send()
    first, second = a.take(a, port, MAKE_SEND_ONCE), a.take(a, port, MAKE_SEND_ONCE)
    assert len({port, first, second}) == 3
    assert a.type(first) == a.type(second) == SEND_ONCE
    assert a.refs(first, c.MACH_PORT_RIGHT_SEND_ONCE) == 1
    assert b.names() == {}


def full_send_right(a: Actor, b: Actor) -> tuple[int, int]:
    """A send right of ``a`` with all references it can have, and its port, of ``b``."""
    port = b.port()
    send = a.take(b, port, MAKE_SEND)
    a.mod_refs(send, SEND_RIGHT, UREFS_MAX - 1)
    return send, port


def test_a_full_send_right_absorbs_what_a_message_brings() -> None:
    """P14: silently; so does extract."""
    a, b, _ = three_tasks()
    send, port = full_send_right(a, b)
    inbox = a.port()
    b.send(b.take(a, inbox, MAKE_SEND), rights=[(port, MAKE_SEND)])
    assert a.receive(inbox).rights == [(send, MOVE_SEND)]
    a.take(b, port, MAKE_SEND)
    assert a.urefs(send) == UREFS_MAX
    assert b.srights(port) == 1


def test_a_full_send_right_refuses_insert() -> None:
    """P14: 19, and the right is consumed (P16)."""
    a, b, _ = three_tasks()
    send, port = full_send_right(a, b)
    with a.world.refuses_and_consumes(c.KERN_UREFS_OVERFLOW):
        a.insert(send, port, MAKE_SEND, caller=b)
    assert a.urefs(send) == UREFS_MAX
    assert b.srights(port) == 1
    assert b.status(port).mscount == 2


def test_a_right_that_gets_no_name_is_destroyed() -> None:
    """P15, M28: the receiver sees 0 and IPC_SPACE; the right's owner hears of it."""
    a, b, _ = three_tasks(name_limit=3)
    inbox = a.port()
    a.pset()
    a.pset()
    port = b.port()
    b.send(b.take(a, inbox, MAKE_SEND), rights=[(port, MAKE_SEND_ONCE), (port, MAKE_SEND)])
    result = a.try_receive(inbox)
    assert result.code == c.MACH_RCV_BODY_ERROR | c.MACH_MSG_IPC_SPACE
    assert parse_result(result).rights == [(NULL, MOVE_SEND_ONCE), (NULL, MOVE_SEND)]
    assert b.told(port) == [ONCE]
    assert b.status(port).srights == 0


@pytest.mark.parametrize("disposition", [MAKE_SEND, MAKE_SEND_ONCE, MOVE_RECEIVE])
def test_extract_into_a_full_space_destroys_the_right(disposition: int) -> None:
    """P4, P15: 3, never a success without a name."""
    a, b, _ = three_tasks(name_limit=1)
    a.pset()
    port = b.port()
    with a.world.refuses_and_consumes(c.KERN_NO_SPACE):
        a.take(b, port, disposition)
    if disposition == MOVE_RECEIVE:
        assert b.names() == {}
    else:
        assert b.told(port) == ([ONCE] if disposition == MAKE_SEND_ONCE else [])
        assert b.status(port).srights == 0


def test_insert_right_enters_a_right_under_the_name() -> None:
    """Section 5: copyout under the caller's choice."""
    a, b, _ = three_tasks()
    port = a.port()
    b.insert(0x500, port, MAKE_SEND, caller=a)
    b.insert(0x600, port, MAKE_SEND_ONCE, caller=a)
    b.insert(0x500, port, MOVE_RECEIVE, caller=a)
    assert b.names() == {0x500: SEND_RECEIVE, 0x600: SEND_ONCE}
    assert a.names() == {}


def test_the_ordinary_way_to_get_a_send_right_of_the_same_name() -> None:
    """P17: twice; urefs and mscount count, srights stays 1."""
    a, *_ = three_tasks()
    port = a.port()
    for count in (1, 2):
        a.insert(port, port, MAKE_SEND)
        assert a.type(port) == SEND_RECEIVE
        assert a.urefs(port) == count
        assert a.status(port).mscount == count
        assert a.srights(port) == 1


def test_make_send_of_a_port_set_is_refused() -> None:
    """P17: 17, and nothing was taken."""
    a, *_ = three_tasks()
    pset = a.pset()
    with a.world.refuses(c.KERN_INVALID_RIGHT):
        a.insert(pset, pset, MAKE_SEND)
    with a.world.refuses(c.KERN_INVALID_NAME):
        a.insert(pset, NOTHING, MAKE_SEND)


@pytest.mark.parametrize(
    ("name", "right", "disposition", "code"),
    [
        (NULL, "port", MAKE_SEND, c.KERN_INVALID_VALUE),
        (DEAD, "port", MAKE_SEND, c.KERN_INVALID_VALUE),
        (NULL, "null", MAKE_SEND, c.KERN_INVALID_VALUE),
        (0x500, "null", MAKE_SEND, c.KERN_INVALID_CAPABILITY),
        (0x500, "dead", MOVE_SEND, c.KERN_INVALID_CAPABILITY),
        ("used", "null", MOVE_SEND, c.KERN_INVALID_CAPABILITY),
        (0x500, "port", MAKE_SEND, c.KERN_RIGHT_EXISTS),
        ("used", "port", MAKE_SEND, c.KERN_RIGHT_EXISTS),
        ("used", "port", MAKE_SEND_ONCE, c.KERN_NAME_EXISTS),
        ("used", "stranger", MAKE_SEND, c.KERN_NAME_EXISTS),
        ("used", "stranger", MAKE_SEND_ONCE, c.KERN_NAME_EXISTS),
        ("held", "port", MAKE_SEND_ONCE, c.KERN_NAME_EXISTS),
    ],
)
def test_insert_right_checks_in_order(name: int | str, right: str, disposition: int, code: int) -> None:
    """Section 5: the name, the right, where the port is held, whether the name is in use."""
    a, b, _ = three_tasks()
    port, stranger = a.port(), a.port()
    held = b.take(a, port, MAKE_SEND)
    used = b.dead_name()
    rights = {"port": port, "stranger": stranger, "null": NULL, "dead": DEAD}
    names = {"used": used, "held": held}
    entries = b.names()
    with a.world.refuses_and_consumes(code):
        b.insert(names[name] if isinstance(name, str) else name, rights[right], disposition, caller=a)
    assert b.names() == entries
    assert a.status(port).srights == 1
    assert a.status(stranger).srights == 0


#: Each way in which insert_right fails after its right was taken: the name to insert under, and the code.
FAILING_INSERTS = {
    "null name": (NULL, c.KERN_INVALID_VALUE),
    "dead name": (DEAD, c.KERN_INVALID_VALUE),
    "name in use": (0x600, c.KERN_NAME_EXISTS),
    "no space": (0x700, c.KERN_NO_SPACE),
}


@pytest.mark.parametrize("how", FAILING_INSERTS)
def test_a_refused_insert_kills_the_receive_right_that_it_was_given(how: str) -> None:
    """P16: a failing MOVE_RECEIVE is destroyed as in section 8."""
    a, b, other = three_tasks(name_limit=3)
    b.allocate_name(0x600, c.MACH_PORT_RIGHT_DEAD_NAME)
    b.dead_name()
    b.dead_name()
    port = a.port()
    watch = other.port()
    other.request(DEATH, other.take(a, port, MAKE_SEND), watch)
    name, code = FAILING_INSERTS[how]
    with a.world.refuses_and_consumes(code):
        b.insert(name, port, MOVE_RECEIVE, caller=a)
    assert a.names() == {}
    assert [event for event, *_ in other.told(watch)] == ["dead-name"]


@pytest.mark.parametrize("how", FAILING_INSERTS)
def test_a_refused_insert_sends_the_receive_right_to_its_port_destroyed_request(how: str) -> None:
    """P16: section 8 honours the request."""
    a, b, other = three_tasks(name_limit=3)
    b.allocate_name(0x600, c.MACH_PORT_RIGHT_DEAD_NAME)
    b.dead_name()
    b.dead_name()
    port = a.port()
    heir = other.port()
    a.request(PORT_DESTROYED, port, a.take(other, heir, MAKE_SEND_ONCE), how=MOVE_SEND_ONCE)
    name, code = FAILING_INSERTS[how]
    with a.world.refuses_and_consumes(code):
        b.insert(name, port, MOVE_RECEIVE, caller=a)
    ((event, inherited),) = other.told(heir)
    assert event == "port-destroyed"
    assert other.type(inherited) == RECEIVE


@pytest.mark.parametrize("how", FAILING_INSERTS)
def test_a_refused_insert_destroys_the_send_once_right_that_it_was_given(how: str) -> None:
    """P16: its port is told."""
    a, b, _ = three_tasks(name_limit=3)
    b.allocate_name(0x600, c.MACH_PORT_RIGHT_DEAD_NAME)
    b.dead_name()
    b.dead_name()
    port = a.port()
    once = a.take(a, port, MAKE_SEND_ONCE)
    name, code = FAILING_INSERTS[how]
    with a.world.refuses_and_consumes(code):
        b.insert(name, once, MOVE_SEND_ONCE, caller=a)
    assert a.told(port) == [ONCE]
    assert a.names() == {port: RECEIVE}


def test_a_right_that_the_caller_does_not_have_is_not_consumed() -> None:
    """P8: a refusal of the copyin takes nothing."""
    a, b, _ = three_tasks()
    send = a.take(b, b.port(), MAKE_SEND)
    for right, disposition, code in (
        (send, MOVE_SEND_ONCE, c.KERN_INVALID_RIGHT),
        (send, MOVE_RECEIVE, c.KERN_INVALID_RIGHT),
        (NOTHING, COPY_SEND, c.KERN_INVALID_NAME),
    ):
        with a.world.refuses(code):
            b.insert(0x500, right, disposition, caller=a)
