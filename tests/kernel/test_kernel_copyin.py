"""Taking rights out of a space: section 3 of the specification of ports, P7-P9."""

from __future__ import annotations

import pytest
from kernel_driver import (
    COPY_SEND,
    DEAD,
    DEAD_NAME,
    DEATH,
    DISPOSITIONS,
    MAKE_SEND,
    MAKE_SEND_ONCE,
    MOVE_RECEIVE,
    MOVE_SEND,
    MOVE_SEND_ONCE,
    NOTHING,
    ONCE,
    RECEIVE,
    SEND,
    SEND_ONCE,
    SEND_RECEIVE,
    Actor,
    three_tasks,
)

from machport.abi import constants as c

KINDS = {
    MOVE_RECEIVE: MOVE_RECEIVE,
    MOVE_SEND: MOVE_SEND,
    MOVE_SEND_ONCE: MOVE_SEND_ONCE,
    COPY_SEND: MOVE_SEND,
    MAKE_SEND: MOVE_SEND,
    MAKE_SEND_ONCE: MOVE_SEND_ONCE,
}
TYPES = {MOVE_RECEIVE: RECEIVE, MOVE_SEND: SEND, MOVE_SEND_ONCE: SEND_ONCE}

#: What each kind of entry is good for; dead names are for P7.
GOOD_FOR = {
    "receive": {MOVE_RECEIVE, MAKE_SEND, MAKE_SEND_ONCE},
    "send": {MOVE_SEND, COPY_SEND},
    "send and receive": set(DISPOSITIONS) - {MOVE_SEND_ONCE},
    "send-once": {MOVE_SEND_ONCE},
    "port set": set(),
    "dead name": {MOVE_SEND, MOVE_SEND_ONCE, COPY_SEND},
}
CELLS = [(entry, disposition) for entry in GOOD_FOR for disposition in DISPOSITIONS]


def make_entry(a: Actor, b: Actor, entry: str) -> int:
    """A name of ``a``; the port of a send or send-once right belongs to ``b``."""
    if entry == "receive":
        return a.port()
    if entry == "send and receive":
        return a.port_with_send()
    if entry == "port set":
        return a.pset()
    if entry == "dead name":
        return a.dead_name()
    return a.take(b, b.port(), MAKE_SEND if entry == "send" else MAKE_SEND_ONCE)


@pytest.mark.parametrize(("entry", "disposition"), CELLS)
def test_extract_needs_the_right_that_the_disposition_takes(entry: str, disposition: int) -> None:
    """Section 3, P7, P8: each entry with each disposition; a refusal is 17 and changes nothing."""
    a, b, other = three_tasks()
    name = make_entry(a, b, entry)
    if disposition not in GOOD_FOR[entry]:
        with a.world.refuses(c.KERN_INVALID_RIGHT):
            other.take(a, name, disposition)
        return
    taken = other.take(a, name, disposition)
    if entry == "dead name":
        assert taken == DEAD
    else:
        assert other.type(taken) == TYPES[KINDS[disposition]]


@pytest.mark.parametrize(("entry", "disposition"), CELLS)
def test_a_body_needs_the_right_that_the_disposition_takes(entry: str, disposition: int) -> None:
    """Section 3, P7, P8: the same for a message; 17 is SEND_INVALID_RIGHT there."""
    a, b, _ = three_tasks()
    name = make_entry(a, b, entry)
    server = a.port()
    if disposition not in GOOD_FOR[entry]:
        before = a.names()
        code = a.send_error(server, MAKE_SEND, rights=[(name, disposition)])
        assert code == c.MACH_SEND_INVALID_RIGHT
        assert a.names() == before
        return
    a.send(server, MAKE_SEND, rights=[(name, disposition)])
    ((arrived, kind),) = a.receive(server).rights
    assert kind == KINDS[disposition]
    if entry == "dead name":
        assert arrived == DEAD


@pytest.mark.parametrize("disposition", [0, 15, 22, 31, -1])
def test_only_16_to_21_are_dispositions(disposition: int) -> None:
    """Section 5: 18, before the name is looked at."""
    a, b, _ = three_tasks()
    for name in (a.port(), NOTHING):
        with a.world.refuses(c.KERN_INVALID_VALUE):
            b.take(a, name, disposition)
        with a.world.refuses(c.KERN_INVALID_VALUE):
            b.insert(0x500, name, disposition, caller=a)


def test_move_receive_leaves_the_send_right() -> None:
    """Section 3: the entry loses RECEIVE and keeps SEND if it had it, else the name is freed."""
    a, b, _ = three_tasks()
    both, alone = a.port_with_send(2), a.port()
    moved = b.take(a, both, MOVE_RECEIVE)
    b.take(a, alone, MOVE_RECEIVE)
    assert a.names() == {both: SEND}
    assert a.urefs(both) == 2
    assert b.status(moved).srights == 1


@pytest.mark.parametrize(("urefs", "left"), [(3, 2), (2, 1), (1, 0)])
def test_move_send_takes_one_reference(urefs: int, left: int) -> None:
    """Section 3: at 0 the name is freed; srights grows only if a right stays behind."""
    a, b, other = three_tasks()
    port = b.port()
    send = a.take(b, port, MAKE_SEND)
    a.mod_refs(send, 0, urefs - 1)
    other.take(a, send, MOVE_SEND)
    assert a.names() == ({send: SEND} if left else {})
    assert b.srights(port) == (2 if left else 1)


def test_the_last_send_reference_leaves_a_receive_right_alone() -> None:
    """Section 3: SEND|RECEIVE becomes RECEIVE."""
    a, b, _ = three_tasks()
    port = a.port_with_send()
    b.take(a, port, MOVE_SEND)
    assert a.type(port) == RECEIVE
    assert a.srights(port) == 1


def test_move_send_once_frees_the_name() -> None:
    """Section 3: sorights stays as it is."""
    a, b, other = three_tasks()
    port = b.port()
    once = a.take(b, port, MAKE_SEND_ONCE)
    other.take(a, once, MOVE_SEND_ONCE)
    assert a.names() == {}
    assert b.status(port).sorights == 1


def test_copy_send_takes_nothing_and_makes_a_right() -> None:
    """Section 3, N46: srights +1, mscount as before."""
    a, b, other = three_tasks()
    port = b.port()
    send = a.take(b, port, MAKE_SEND)
    other.take(a, send, COPY_SEND)
    assert a.urefs(send) == 1
    assert b.srights(port) == 2
    assert b.status(port).mscount == 1


def test_each_make_send_counts() -> None:
    """Section 3, N46: mscount +1 and srights +1, also when the right is absorbed by an entry."""
    a, b, other = three_tasks()
    port = b.port()
    send = a.take(b, port, MAKE_SEND)
    assert a.take(b, port, MAKE_SEND) == send
    other.take(b, port, MAKE_SEND)
    assert b.status(port).mscount == 3
    assert b.srights(port) == 2


def test_mscount_wraps_at_32_bits() -> None:
    a, b, _ = three_tasks()
    port = b.port()
    b.set_mscount(port, 0xFFFFFFFF)
    a.take(b, port, MAKE_SEND)
    assert b.status(port).mscount == 0


def test_make_send_once_counts_in_sorights() -> None:
    """Section 3: and in nothing else."""
    a, b, _ = three_tasks()
    port = b.port()
    a.take(b, port, MAKE_SEND_ONCE)
    a.take(b, port, MAKE_SEND_ONCE)
    status = b.status(port)
    assert (status.sorights, status.srights, status.mscount) == (2, 0, 0)


@pytest.mark.parametrize(("disposition", "left"), [(MOVE_SEND, 1), (MOVE_SEND_ONCE, 1), (COPY_SEND, 2)])
def test_a_dead_name_can_be_carried(disposition: int, left: int) -> None:
    """P7: as a body right, reply and in extract it results in ~0; the moves take a reference."""
    a, b, _ = three_tasks()
    server = a.port()
    dead = a.dead_name(2)
    a.send(server, MAKE_SEND, rights=[(dead, disposition)])
    assert a.receive(server).rights == [(DEAD, KINDS[disposition])]
    assert a.urefs(dead) == left

    dead = a.dead_name(2)
    a.send(server, MAKE_SEND, reply=dead, reply_disposition=disposition)
    assert a.receive(server).remote == DEAD
    assert a.urefs(dead) == left

    dead = a.dead_name(2)
    assert b.take(a, dead, disposition) == DEAD
    assert a.urefs(dead) == left


@pytest.mark.parametrize("disposition", [MOVE_SEND, MOVE_SEND_ONCE])
def test_the_last_reference_of_a_dead_name_frees_it(disposition: int) -> None:
    """P7: at 0 the name is free."""
    a, b, _ = three_tasks()
    b.take(a, a.dead_name(), disposition)
    assert a.names() == {}


@pytest.mark.parametrize("disposition", [MOVE_SEND, COPY_SEND])
def test_a_right_whose_port_has_died_is_a_dead_name(disposition: int) -> None:
    """P7: whoever looks at it first."""
    a, b, other = three_tasks()
    port = b.port()
    send = a.take(b, port, MAKE_SEND)
    b.kill(port)
    assert other.take(a, send, disposition) == DEAD
    assert a.names() == ({send: DEAD_NAME} if disposition == COPY_SEND else {})


@pytest.mark.parametrize("disposition", [MOVE_SEND, MOVE_SEND_ONCE, COPY_SEND])
def test_a_dead_name_is_not_a_destination(disposition: int) -> None:
    """P7, M4: SEND_INVALID_DEST, nothing taken."""
    a, *_ = three_tasks()
    dead = a.dead_name()
    with a.world.unchanged():
        assert a.send_error(dead, disposition) == c.MACH_SEND_INVALID_DEST


@pytest.mark.parametrize(
    ("entry", "disposition"),
    [("receive", MOVE_RECEIVE), ("send", MOVE_SEND), ("send-once", MOVE_SEND_ONCE)],
)
def test_a_request_on_a_name_that_copyin_frees_gives_port_deleted(entry: str, disposition: int) -> None:
    """P9, N23."""
    a, b, other = three_tasks()
    notify = a.port()
    name = make_entry(a, b, entry)
    a.request(DEATH, name, notify)
    other.take(a, name, disposition)
    assert a.told(notify) == [("port-deleted", name)]


def test_a_right_changes_space_by_message_insert_extract_and_port_destroyed_only() -> None:
    """P2: each of the ways, and what arrives is the right."""
    a, b, _ = three_tasks()
    port = a.port()
    a.insert(port, port, MAKE_SEND)
    b.insert(0x500, port, COPY_SEND, caller=a)
    assert b.take(a, port, COPY_SEND) == 0x500
    inbox = b.port()
    a.send(a.take(b, inbox, MAKE_SEND), rights=[(port, COPY_SEND)])
    assert b.receive(inbox).rights == [(0x500, MOVE_SEND)]
    assert b.type(0x500) == SEND
    assert a.type(port) == SEND_RECEIVE
    a.request(c.MACH_NOTIFY_PORT_DESTROYED, port, a.take(b, inbox, MAKE_SEND_ONCE), how=MOVE_SEND_ONCE)
    a.kill(port)
    assert b.told(inbox) == [("port-destroyed", 0x500)]
    assert b.type(0x500) == SEND_RECEIVE


def test_a_failed_call_is_not_told_to_anybody() -> None:
    """P8: the owner of the port hears nothing of a refusal."""
    a, b, _ = three_tasks()
    port = b.port()
    once = a.take(b, port, MAKE_SEND_ONCE)
    with a.world.refuses(c.KERN_INVALID_RIGHT):
        b.take(a, once, COPY_SEND)
    assert b.told(port) == []
    a.deallocate(once)
    assert b.told(port) == [ONCE]
