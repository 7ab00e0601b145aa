"""User references: section 5.1 of the specification of ports, P19, P20, and the calls that count them."""

from __future__ import annotations

import pytest
from kernel_driver import (
    DEAD_NAME,
    DEAD_RIGHT,
    DEATH,
    MAKE_SEND,
    MAKE_SEND_ONCE,
    NOTHING,
    ONCE,
    RECEIVE,
    RECEIVE_RIGHT,
    SEND,
    SEND_ONCE_RIGHT,
    SEND_RECEIVE,
    SEND_RIGHT,
    SET_RIGHT,
    Actor,
    three_tasks,
)

from machport.abi import constants as c

RIGHTS = (SEND_RIGHT, RECEIVE_RIGHT, SEND_ONCE_RIGHT, SET_RIGHT, DEAD_RIGHT)
HAS = {
    "receive": {RECEIVE_RIGHT},
    "send": {SEND_RIGHT},
    "send and receive": {SEND_RIGHT, RECEIVE_RIGHT},
    "send-once": {SEND_ONCE_RIGHT},
    "port set": {SET_RIGHT},
    "dead name": {DEAD_RIGHT},
    "dead send": {DEAD_RIGHT},
    "dead send-once": {DEAD_RIGHT},
}
CELLS = [(entry, right) for entry in HAS for right in RIGHTS]
COUNTED = {SEND_RIGHT: c.SEND_UREFS_MAX, DEAD_RIGHT: c.MACH_PORT_UREFS_MAX}


def make_entry(a: Actor, b: Actor, entry: str) -> int:
    if entry == "receive":
        return a.port()
    if entry == "send and receive":
        return a.port_with_send()
    if entry == "port set":
        return a.pset()
    if entry == "dead name":
        return a.dead_name()
    port = b.port()
    name = a.take(b, port, MAKE_SEND_ONCE if "once" in entry else MAKE_SEND)
    if "dead" in entry:
        b.kill(port)
    return name


@pytest.mark.parametrize(("entry", "right"), CELLS)
def test_get_refs_of_each_right_of_each_entry(entry: str, right: int) -> None:
    """Section 5: 0 if the entry is there without that right."""
    a, b, _ = three_tasks()
    name = make_entry(a, b, entry)
    assert a.refs(name, right) == int(right in HAS[entry])


@pytest.mark.parametrize("name", [NOTHING, "port"])
def test_a_number_that_is_no_right_is_refused_before_the_name_is_looked_at(name: int | str) -> None:
    """Section 5: 18; the obsolete number 5 is a right that nothing has."""
    a, *_ = three_tasks()
    port = a.port()
    for right in (6, 7, -1):
        with a.world.refuses(c.KERN_INVALID_VALUE):
            a.refs(NOTHING if name == NOTHING else port, right)
        with a.world.refuses(c.KERN_INVALID_VALUE):
            a.mod_refs(NOTHING if name == NOTHING else port, right, 0)
    assert a.refs(port, 5) == 0
    with a.world.refuses(c.KERN_INVALID_RIGHT):
        a.mod_refs(port, 5, 0)


@pytest.mark.parametrize(("entry", "right"), CELLS)
@pytest.mark.parametrize("delta", [0, -1, 1])
def test_mod_refs_needs_the_right(entry: str, right: int, delta: int) -> None:
    """Section 5.1, P19: 17 where the entry lacks it; a right whose port has died is a dead name."""
    a, b, _ = three_tasks()
    name = make_entry(a, b, entry)
    if right in HAS[entry]:
        return
    with a.world.refuses(c.KERN_INVALID_RIGHT):
        a.mod_refs(name, right, delta)


@pytest.mark.parametrize(("entry", "right"), [(entry, right) for entry in HAS for right in HAS[entry]])
def test_delta_0_only_checks_that_the_right_is_there(entry: str, right: int) -> None:
    """P20."""
    a, b, _ = three_tasks()
    name = make_entry(a, b, entry)
    with a.world.unchanged():
        a.mod_refs(name, right, 0)


@pytest.mark.parametrize("right", [RECEIVE_RIGHT, SEND_ONCE_RIGHT, SET_RIGHT])
@pytest.mark.parametrize("delta", [1, 2, -2, -65536, 1 << 31])
def test_uncounted_rights_take_only_minus_1(right: int, delta: int) -> None:
    """Section 5.1: 18."""
    a, b, _ = three_tasks()
    name = make_entry(a, b, {RECEIVE_RIGHT: "receive", SEND_ONCE_RIGHT: "send-once", SET_RIGHT: "port set"}[right])
    with a.world.refuses(c.KERN_INVALID_VALUE):
        a.mod_refs(name, right, delta)


@pytest.mark.parametrize("entry", ["send", "send and receive", "dead name"])
def test_counted_rights_go_from_0_to_their_maximum(entry: str) -> None:
    """Section 5.1, P20: below 0 is 18, above the maximum 19, neither changes anything."""
    a, b, _ = three_tasks()
    name = make_entry(a, b, entry)
    right = DEAD_RIGHT if entry == "dead name" else SEND_RIGHT
    most = COUNTED[right]
    a.mod_refs(name, right, most - 1)
    assert a.refs(name, right) == most
    for delta, code in ((1, c.KERN_UREFS_OVERFLOW), (-most - 1, c.KERN_INVALID_VALUE)):
        with a.world.refuses(code):
            a.mod_refs(name, right, delta)
    a.mod_refs(name, right, 1 - most)
    assert a.refs(name, right) == 1
    a.mod_refs(name, right, -1)
    assert a.names() == ({name: RECEIVE} if entry == "send and receive" else {})


def test_more_references_are_not_more_rights() -> None:
    """N41: urefs do not count in srights."""
    a, b, _ = three_tasks()
    port = b.port()
    send = a.take(b, port, MAKE_SEND)
    a.mod_refs(send, SEND_RIGHT, 9)
    assert b.srights(port) == 1


def test_mod_refs_of_a_dead_name_tells_nobody() -> None:
    """Section 5.1: freed silently."""
    a, b, _ = three_tasks()
    notify = a.port()
    dead = make_entry(a, b, "dead send")
    a.mod_refs(dead, DEAD_RIGHT, -1)
    assert a.names() == {notify: RECEIVE}


def test_mod_refs_destroys_the_only_send_once_right() -> None:
    """Section 5.1: as in section 8."""
    a, b, _ = three_tasks()
    port = b.port()
    once = a.take(b, port, MAKE_SEND_ONCE)
    a.mod_refs(once, SEND_ONCE_RIGHT, -1)
    assert a.names() == {}
    assert b.told(port) == [ONCE]


@pytest.mark.parametrize("urefs", [1, 4])
def test_mod_refs_of_receive_leaves_a_dead_name_where_there_was_a_send_right(urefs: int) -> None:
    """Section 5.1: with the same urefs; one more if it had a dead-name request."""
    a, *_ = three_tasks()
    plain, asked, notify = a.port_with_send(urefs), a.port_with_send(urefs), a.port()
    a.request(DEATH, asked, notify)
    a.kill(plain)
    a.kill(asked)
    assert a.names() == {plain: DEAD_NAME, asked: DEAD_NAME, notify: RECEIVE}
    assert a.urefs(plain) == urefs
    assert a.urefs(asked) == urefs + 1
    assert a.told(notify) == [("dead-name", asked)]


def test_mod_refs_of_receive_leaves_a_live_send_right_where_a_request_saves_the_port() -> None:
    """Section 5.1, D7, N34."""
    a, b, _ = three_tasks()
    port, heir = a.port_with_send(3), b.port()
    a.request(c.MACH_NOTIFY_PORT_DESTROYED, port, a.take(b, heir, MAKE_SEND_ONCE), how=c.MACH_MSG_TYPE_MOVE_SEND_ONCE)
    a.kill(port)
    assert a.names() == {port: SEND}
    assert a.urefs(port) == 3
    ((_, inherited),) = b.told(heir)
    assert b.status(inherited).srights == 1
    a.send(port, id=7)
    assert b.told(inherited) == [("message", 7)]


@pytest.mark.parametrize("entry", ["receive", "port set"])
def test_deallocate_is_not_for_receive_rights_and_sets(entry: str) -> None:
    """D5: 17."""
    a, b, _ = three_tasks()
    name = make_entry(a, b, entry)
    with a.world.refuses(c.KERN_INVALID_RIGHT):
        a.deallocate(name)


@pytest.mark.parametrize("entry", ["send", "send and receive", "send-once", "dead name", "dead send", "dead send-once"])
def test_deallocate_takes_one_reference_of_whatever_it_is(entry: str) -> None:
    """Section 5, P19: the call to drop what a name has become."""
    a, b, _ = three_tasks()
    name = make_entry(a, b, entry)
    if "once" not in entry:
        a.mod_refs(name, next(right for right in HAS[entry] if right != RECEIVE_RIGHT), 1)
        a.deallocate(name)
        assert a.urefs(name) == 1
    a.deallocate(name)
    assert a.names() == ({name: RECEIVE} if entry == "send and receive" else {})


def test_destroy_gives_up_all_rights_of_a_name() -> None:
    """Section 5: whatever its references."""
    a, b, _ = three_tasks()
    for entry in HAS:
        name = make_entry(a, b, entry)
        if entry in ("send", "send and receive"):
            a.mod_refs(name, SEND_RIGHT, 5)
        a.destroy(name)
        assert a.names() == {}


def test_type_shows_what_each_entry_is() -> None:
    """Section 1: the legal combinations."""
    a, b, _ = three_tasks()
    types = {entry: a.type(make_entry(a, b, entry)) for entry in HAS}
    assert types["send and receive"] == SEND_RECEIVE == SEND | RECEIVE
    assert types["dead name"] == types["dead send"] == types["dead send-once"] == DEAD_NAME
    assert len(set(types.values())) == 6
