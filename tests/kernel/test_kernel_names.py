"""Names and the calls on them: P1-P4 and the first rows of section 5 of the specification of ports."""

from __future__ import annotations

import pytest
from kernel_driver import (
    DEAD,
    DEAD_NAME,
    DEAD_RIGHT,
    DEATH,
    MAKE_SEND,
    NOTHING,
    NULL,
    PORT_SET,
    RECEIVE,
    RECEIVE_RIGHT,
    REQUESTED,
    SEND,
    SEND_ONCE_RIGHT,
    SEND_RECEIVE,
    SEND_RIGHT,
    SET_RIGHT,
    three_tasks,
)

from machport.abi import constants as c
from machport.kernel import ports
from machport.kernel.space import FreshNames, GenerationNames

RIGHTS = {RECEIVE_RIGHT: RECEIVE, SET_RIGHT: PORT_SET, DEAD_RIGHT: DEAD_NAME}
NAMELESS = pytest.mark.parametrize("name", [NULL, DEAD])


@NAMELESS
def test_no_call_finds_anything_under_null_or_dead(name: int) -> None:
    """P1, D4: 0 and ~0 are never names, so every call that looks one up gives 15."""
    a, *_ = three_tasks()
    a.port()
    for call in (
        lambda: a.type(name),
        lambda: a.refs(name, SEND_RIGHT),
        lambda: a.mod_refs(name, SEND_RIGHT, 0),
        lambda: a.deallocate(name),
        lambda: a.destroy(name),
        lambda: a.rename(name, 0x500),
        lambda: a.status(name),
        lambda: a.set_mscount(name, 1),
        lambda: a.members(name),
        lambda: a.take(a, name, MAKE_SEND),
    ):
        with a.world.refuses(c.KERN_INVALID_NAME):
            call()


def test_a_number_without_an_entry_is_an_invalid_name_for_every_call() -> None:
    """Section 5: a name without an entry is 15."""
    a, *_ = three_tasks()
    port = a.port()
    for call in (
        lambda: a.type(NOTHING),
        lambda: a.refs(NOTHING, SEND_RIGHT),
        lambda: a.mod_refs(NOTHING, SEND_RIGHT, 0),
        lambda: a.deallocate(NOTHING),
        lambda: a.destroy(NOTHING),
        lambda: a.rename(NOTHING, 0x500),
        lambda: a.status(NOTHING),
        lambda: a.srights(NOTHING),
        lambda: a.set_mscount(NOTHING, 1),
        lambda: a.set_seqno(NOTHING, 1),
        lambda: a.set_qlimit(NOTHING, 1),
        lambda: a.move_member(NOTHING, NULL),
        lambda: a.move_member(port, NOTHING),
        lambda: a.members(NOTHING),
        lambda: a.take(a, NOTHING, MAKE_SEND),
    ):
        with a.world.refuses(c.KERN_INVALID_NAME):
            call()


@pytest.mark.parametrize(("right", "type"), RIGHTS.items())
def test_allocate_makes_a_receive_right_a_set_or_a_dead_name(right: int, type: int) -> None:
    """Section 5: each with one reference."""
    a, *_ = three_tasks()
    name = a.allocate(right)
    assert a.names() == {name: type}
    assert a.refs(name, right) == 1


@pytest.mark.parametrize("right", [SEND_RIGHT, SEND_ONCE_RIGHT, 5, 6, -1])
def test_no_other_right_can_be_allocated(right: int) -> None:
    """Section 5: 18."""
    a, *_ = three_tasks()
    with a.world.refuses(c.KERN_INVALID_VALUE):
        a.allocate(right)
    with a.world.refuses(c.KERN_INVALID_VALUE):
        a.allocate_name(0x500, right)


@pytest.mark.parametrize(("right", "type"), RIGHTS.items())
def test_allocate_name_takes_any_legal_name(right: int, type: int) -> None:
    """P3, D1: callers may pick any name but 0 and ~0."""
    a, *_ = three_tasks()
    for name in (1, 2, 0x300, 0xFFFFFFFE):
        a.allocate_name(name, right)
        assert a.type(name) == type
        assert a.refs(name, right) == 1


@NAMELESS
def test_null_and_dead_cannot_be_chosen(name: int) -> None:
    """P1, section 5: 18, and before the right is looked at."""
    a, *_ = three_tasks()
    port = a.port()
    with a.world.refuses(c.KERN_INVALID_VALUE):
        a.allocate_name(name, RECEIVE_RIGHT)
    with a.world.refuses(c.KERN_INVALID_VALUE):
        a.rename(port, name)


def test_a_chosen_name_must_be_free() -> None:
    """Section 5: 13; a bad right is noticed before."""
    a, *_ = three_tasks()
    for name in (a.port(), a.pset(), a.dead_name()):
        with a.world.refuses(c.KERN_NAME_EXISTS):
            a.allocate_name(name, RECEIVE_RIGHT)
        with a.world.refuses(c.KERN_INVALID_VALUE):
            a.allocate_name(name, SEND_RIGHT)


def test_names_of_two_spaces_are_unrelated() -> None:
    """P2: the same number is the name of different things."""
    a, b, _ = three_tasks()
    a.allocate_name(0x500, RECEIVE_RIGHT)
    b.allocate_name(0x500, DEAD_RIGHT)
    assert (a.type(0x500), b.type(0x500)) == (RECEIVE, DEAD_NAME)
    b.deallocate(0x500)
    assert a.names() == {0x500: RECEIVE}
    assert b.names() == {}


def test_the_kernel_picks_index_and_generation() -> None:
    """P3: index from 1, generation 3, and 4 more at each reuse of the index."""
    a, *_ = three_tasks()
    assert [a.port(), a.port()] == [0x103, 0x203]
    a.destroy(0x103)
    assert a.port() == 0x107
    assert a.port() == 0x303


def test_generations_come_round_to_3() -> None:
    """P3: 3, 7, ... 255, 3."""
    names = GenerationNames()
    picked = []
    for _ in range(65):
        picked.append(names.pick({}))
        names.freed(picked[-1])
    assert [name & 0xFF for name in picked] == [*range(3, 256, 4), 3]
    assert {name >> 8 for name in picked} == {1}


def test_a_picked_name_is_never_one_in_use() -> None:
    """P3: a name that a caller chose is passed over."""
    a, *_ = three_tasks()
    a.allocate_name(0x103, DEAD_RIGHT)
    a.allocate_name(0x207, DEAD_RIGHT)
    first, second = a.port(), a.port()
    assert len({first, second, 0x103, 0x207}) == 4
    a.destroy(second)
    a.destroy(0x103)
    assert len({a.port() for _ in range(5)} | {first, 0x207}) == 7


def test_names_given_up_are_not_picked_again_at_once() -> None:
    """P3: a stale name fails instead of denoting a stranger."""
    a, *_ = three_tasks()
    seen = set()
    for _ in range(200):
        name = a.port()
        seen.add(name)
        a.destroy(name)
    assert len(seen) == 64  # all generations of one index


def test_fresh_names_are_never_used_twice() -> None:
    """For transcripts: ascending, past names in use."""
    names = FreshNames(10)
    names.freed(11)
    assert names.pick({}) == 11
    assert names.pick({12: object()}) == 13  # type: ignore[dict-item]


def test_a_full_space_refuses_new_names_and_nothing_else() -> None:
    """P4: 3; joining an entry that is there needs no name."""
    a, b, _ = three_tasks(name_limit=2)
    port = a.port()
    other = b.port()
    a.take(b, other, MAKE_SEND)
    with a.world.refuses(c.KERN_NO_SPACE):
        a.port()
    with a.world.refuses(c.KERN_NO_SPACE):
        a.allocate_name(0x500, SET_RIGHT)
    with a.world.refuses(c.KERN_NO_SPACE):
        ports.mach_port_construct(a.kernel, a.task, 0, 0, 0)
    a.insert(port, port, MAKE_SEND)
    a.take(b, other, MAKE_SEND)
    assert a.type(port) == SEND_RECEIVE
    a.destroy(port)
    a.port()


def test_a_bad_right_is_noticed_before_a_full_space() -> None:
    """Section 5: arguments come first."""
    a, *_ = three_tasks(name_limit=0)
    with a.world.refuses(c.KERN_INVALID_VALUE):
        a.allocate(SEND_RIGHT)


def test_rename_moves_the_entry_with_all_it_has() -> None:
    """Section 5: rights, references, set, requests; the old name is free."""
    a, *_ = three_tasks()
    port, notify = a.port_with_send(3), a.port()
    pset = a.pset(port)
    a.request(DEATH, port, notify)
    a.rename(port, 0x500)
    a.rename(pset, 0x600)
    assert a.type(0x500) == SEND_RECEIVE | REQUESTED
    assert a.urefs(0x500) == 3
    assert a.status(0x500).pset == 0x600
    assert a.members(0x600) == [0x500]
    assert set(a.names()) == {0x500, 0x600, notify}


def test_rename_needs_an_unused_new_name() -> None:
    """Section 5: 13 before 15, also when old and new are the same name."""
    a, *_ = three_tasks()
    first, second = a.port(), a.port()
    for old, new in ((first, second), (first, first), (NOTHING, first)):
        with a.world.refuses(c.KERN_NAME_EXISTS):
            a.rename(old, new)


def test_names_lists_every_name_with_its_type() -> None:
    """Section 5: one consistent snapshot, with the bit of a request."""
    a, b, _ = three_tasks()
    port, pset, dead = a.port(), a.pset(), a.dead_name()
    remote = b.port()
    send = a.take(b, remote, MAKE_SEND)
    a.request(DEATH, send, port)
    assert a.names() == {port: RECEIVE, pset: PORT_SET, dead: DEAD_NAME, send: SEND | REQUESTED}
    b.kill(remote)
    assert a.names()[send] == DEAD_NAME


def test_a_reply_port_is_a_receive_right() -> None:
    a, *_ = three_tasks()
    name = a.world.call(ports.mach_reply_port, a.task)
    assert a.type(name) == RECEIVE
