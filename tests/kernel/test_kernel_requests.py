"""``mach_port_request_notification``: section 1 of the specification of notifications, each step and each cell."""

from __future__ import annotations

import pytest
from kernel_driver import (
    COPY_SEND,
    DEAD,
    DEAD_NAME,
    DEAD_RIGHT,
    DEATH,
    MAKE_SEND,
    MAKE_SEND_ONCE,
    MOVE_RECEIVE,
    MOVE_SEND,
    MOVE_SEND_ONCE,
    NO_SENDERS,
    NOTHING,
    NULL,
    ONCE,
    PORT_DESTROYED,
    RECEIVE,
    REQUESTED,
    SEND_ONCE,
    SEND_POSSIBLE,
    Actor,
    three_tasks,
)

from machport.abi import constants as c

VARIANTS = (PORT_DESTROYED, NO_SENDERS, DEATH)
ENTRIES = ("receive", "send", "send and receive", "send-once", "port set", "dead name", "dead send")


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
    name = a.take(b, port, MAKE_SEND_ONCE if entry == "send-once" else MAKE_SEND)
    if entry == "dead send":
        b.kill(port)
    return name


# The order of checks


@pytest.mark.parametrize("how", [0, 1, 15, MOVE_RECEIVE, MOVE_SEND, COPY_SEND, MAKE_SEND, 22, -1])
@pytest.mark.parametrize("variant", [*VARIANTS, 0])
def test_notify_type_makes_a_send_once_right(how: int, variant: int) -> None:
    """Step 2, F1: -304, whatever else is wrong; nothing is consumed (N10)."""
    a, *_ = three_tasks()
    port = a.port_with_send()
    for name, notify in ((port, port), (NOTHING, port), (port, NOTHING)):
        with a.world.refuses(c.MIG_BAD_ARGUMENTS):
            a.request(variant, name, notify, how=how)


@pytest.mark.parametrize("how", [MAKE_SEND_ONCE, MOVE_SEND_ONCE, 0, COPY_SEND])
def test_dead_is_no_notify_right(how: int) -> None:
    """Steps 2 and 3: ~0 is 20 with any type."""
    a, *_ = three_tasks()
    port = a.port()
    with a.world.refuses(c.KERN_INVALID_CAPABILITY):
        a.request(DEATH, port, DEAD, how=how)


@pytest.mark.parametrize(
    ("how", "entry"),
    [
        (MAKE_SEND_ONCE, "send"),
        (MAKE_SEND_ONCE, "send-once"),
        (MAKE_SEND_ONCE, "port set"),
        (MAKE_SEND_ONCE, "dead name"),
        (MOVE_SEND_ONCE, "send"),
        (MOVE_SEND_ONCE, "receive"),
        (MOVE_SEND_ONCE, "send and receive"),
        (MOVE_SEND_ONCE, "port set"),
    ],
)
def test_notify_is_the_right_that_its_type_needs(how: int, entry: str) -> None:
    """Step 3, F2: 20, nothing consumed (N10)."""
    a, b, _ = three_tasks()
    port, notify = a.port(), make_entry(a, b, entry)
    for variant in (*VARIANTS, 0):
        with a.world.refuses(c.KERN_INVALID_CAPABILITY):
            a.request(variant, port, notify, how=how)
    with a.world.refuses(c.KERN_INVALID_CAPABILITY):
        a.request(DEATH, NOTHING, NOTHING, how=how)


@pytest.mark.parametrize("dead", ["dead name", "dead send-once"])
def test_a_dead_notify_right_is_refused_and_moved(dead: str) -> None:
    """Step 3, N10: 20; with MOVE_SEND_ONCE a dead name loses one uref (P7)."""
    a, b, _ = three_tasks()
    port = a.port()
    if dead == "dead name":
        notify = a.dead_name(2)
    else:
        remote = b.port()
        notify = a.take(b, remote, MAKE_SEND_ONCE)
        b.kill(remote)
        assert a.type(notify) == DEAD_NAME
        a.mod_refs(notify, DEAD_RIGHT, 1)
    with a.world.refuses_and_consumes(c.KERN_INVALID_CAPABILITY):
        a.request(DEATH, port, notify, how=MOVE_SEND_ONCE)
    assert a.urefs(notify) == 1
    with a.world.refuses_and_consumes(c.KERN_INVALID_CAPABILITY):
        a.request(DEATH, port, notify, how=MOVE_SEND_ONCE)
    assert a.names() == {port: RECEIVE}


def failing_request(step: str, a: Actor, b: Actor) -> tuple[int, int, int, int]:
    """Name, variant, sync and code of a request that fails at a step from 5 on."""
    port = a.port_with_send()
    return {
        "variant": (port, 64, 0, c.KERN_INVALID_VALUE),
        "port-deleted": (port, 65, 0, c.KERN_INVALID_VALUE),
        "send-once": (port, 71, 0, c.KERN_INVALID_VALUE),
        "variant and name": (NOTHING, 73, 0, c.KERN_INVALID_VALUE),
        "sync": (port, PORT_DESTROYED, 1, c.KERN_INVALID_VALUE),
        "sync and name": (NOTHING, PORT_DESTROYED, 1, c.KERN_INVALID_VALUE),
        "port-destroyed of nothing": (NOTHING, PORT_DESTROYED, 0, c.KERN_INVALID_NAME),
        "no-senders of nothing": (NOTHING, NO_SENDERS, 0, c.KERN_INVALID_NAME),
        "dead-name of nothing": (NOTHING, DEATH, 0, c.KERN_INVALID_NAME),
        "dead-name of null": (NULL, DEATH, 0, c.KERN_INVALID_NAME),
        "no-senders of dead": (DEAD, NO_SENDERS, 0, c.KERN_INVALID_NAME),
        "port-destroyed of null": (NULL, PORT_DESTROYED, 0, c.KERN_INVALID_NAME),
        "port-destroyed of a set": (a.pset(), PORT_DESTROYED, 0, c.KERN_INVALID_RIGHT),
        "no-senders of a send right": (a.take(b, b.port(), MAKE_SEND), NO_SENDERS, 0, c.KERN_INVALID_RIGHT),
        "dead-name of a set": (a.pset(), DEATH, 0, c.KERN_INVALID_RIGHT),
        "dead-name of a dead name": (a.dead_name(), DEATH, 0, c.KERN_INVALID_ARGUMENT),
        "dead-name of a full dead name": (a.dead_name(65535), DEATH, 1, c.KERN_UREFS_OVERFLOW),
    }[step]


STEPS = [
    "variant",
    "port-deleted",
    "send-once",
    "variant and name",
    "sync",
    "sync and name",
    "port-destroyed of nothing",
    "no-senders of nothing",
    "dead-name of nothing",
    "dead-name of null",
    "no-senders of dead",
    "port-destroyed of null",
    "port-destroyed of a set",
    "no-senders of a send right",
    "dead-name of a set",
    "dead-name of a dead name",
    "dead-name of a full dead name",
]


@pytest.mark.parametrize("step", STEPS)
def test_a_refused_request_destroys_the_right_that_it_was_given(step: str) -> None:
    """Steps 5 to 8, N9, N52: the code, 71 at the notify port, and nothing else changes."""
    a, b, _ = three_tasks()
    name, variant, sync, code = failing_request(step, a, b)
    notify = b.port()
    before = a.world.snapshot()
    with a.world.refuses_and_consumes(code):
        a.request(variant, name, notify, sync=sync, caller=b)
    assert b.told(notify) == [ONCE]
    b.set_seqno(notify, 0)
    assert a.world.snapshot() == before


@pytest.mark.parametrize("step", STEPS)
def test_a_refused_request_uses_up_a_moved_right(step: str) -> None:
    """N9: with MOVE_SEND_ONCE the caller's name is free."""
    a, b, _ = three_tasks()
    name, variant, sync, code = failing_request(step, a, b)
    notify = b.port()
    once = b.take(b, notify, MAKE_SEND_ONCE)
    with a.world.refuses_and_consumes(code):
        a.request(variant, name, once, sync=sync, how=MOVE_SEND_ONCE, caller=b)
    assert once not in b.names()
    assert b.told(notify) == [ONCE]


@pytest.mark.parametrize("step", STEPS)
def test_a_refused_request_without_a_right_changes_nothing(step: str) -> None:
    """Section 1: the same checks in the same order with notify 0; a full dead name is 4 then."""
    a, b, _ = three_tasks()
    name, variant, sync, code = failing_request(step, a, b)
    if code == c.KERN_UREFS_OVERFLOW:
        code = c.KERN_INVALID_ARGUMENT
    with a.world.refuses(code):
        a.request(variant, name, sync=sync, caller=b)


@pytest.mark.parametrize("how", [0, MOVE_RECEIVE, 99, MAKE_SEND_ONCE])
def test_a_null_notify_needs_no_type(how: int) -> None:
    """Step 2."""
    a, *_ = three_tasks()
    port = a.port()
    assert a.request(DEATH, port, how=how) == NULL


# The tables


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("cancel", [False, True])
def test_port_destroyed_is_for_receive_rights(entry: str, cancel: bool) -> None:
    """Section 1.1: each row."""
    a, b, _ = three_tasks()
    name, notify = make_entry(a, b, entry), b.port()
    chosen = NULL if cancel else notify
    if "receive" not in entry:
        with a.world.refuses_and_consumes(c.KERN_INVALID_RIGHT):
            a.request(PORT_DESTROYED, name, chosen, caller=b)
        assert b.told(notify) == ([] if cancel else [ONCE])
        return
    assert a.request(PORT_DESTROYED, name, chosen, caller=b) == NULL
    assert a.status(name).pdrequest == int(not cancel)


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("cancel", [False, True])
def test_no_senders_is_for_receive_rights(entry: str, cancel: bool) -> None:
    """Section 1.2: anything else is 17."""
    a, b, _ = three_tasks()
    name, notify = make_entry(a, b, entry), b.port()
    chosen = NULL if cancel else notify
    if "receive" not in entry:
        with a.world.refuses_and_consumes(c.KERN_INVALID_RIGHT):
            a.request(NO_SENDERS, name, chosen, caller=b)
        assert b.told(notify) == ([] if cancel else [ONCE])
        return
    assert a.request(NO_SENDERS, name, chosen, sync=2, caller=b) == NULL
    assert a.status(name).nsrequest == int(not cancel)


@pytest.mark.parametrize("senders", [0, 1])
@pytest.mark.parametrize("sync", [0, 1, 2, 3, 0xFFFFFFFF])
@pytest.mark.parametrize("cancel", [False, True])
def test_no_senders_is_immediate_or_registered(senders: int, sync: int, cancel: bool) -> None:
    """Section 1.2, N42, N43: srights against 0, sync against mscount 2."""
    a, b, _ = three_tasks()
    port, first, second = a.port(), b.port(), b.port()
    if senders:
        b.take(a, port, MAKE_SEND)
    a.set_mscount(port, 2)
    a.request(NO_SENDERS, port, first, sync=3, caller=b)
    registered = bool(senders)
    if senders == 0:
        registered = True  # 3 > 2
    previous = a.request(NO_SENDERS, port, NULL if cancel else second, sync=sync, caller=b)
    assert (b.type(previous) == SEND_ONCE) == registered
    immediate = not cancel and senders == 0 and sync <= 2
    assert b.told(second) == ([("no-senders", 2)] if immediate else [])
    assert b.told(first) == []
    assert a.status(port).nsrequest == int(not cancel and not immediate)


@pytest.mark.parametrize("entry", ["receive", "send", "send and receive", "send-once"])
@pytest.mark.parametrize("sync", [0, 1, 9])
def test_dead_name_is_registered_on_a_live_right(entry: str, sync: int) -> None:
    """Section 1.3, N12: whatever sync; the type shows it; 0 cancels."""
    a, b, _ = three_tasks()
    name, notify = make_entry(a, b, entry), b.port()
    plain = a.type(name)
    assert a.request(DEATH, name, notify, sync=sync, caller=b) == NULL
    assert a.type(name) == plain | REQUESTED
    previous = a.request(DEATH, name, NULL, sync=sync, caller=b)
    assert b.type(previous) == SEND_ONCE
    assert a.type(name) == plain
    assert a.request(DEATH, name, NULL, sync=sync, caller=b) == NULL
    assert b.told(notify) == []


@pytest.mark.parametrize("entry", ["dead name", "dead send"])
@pytest.mark.parametrize("sync", [0, 1])
@pytest.mark.parametrize("cancel", [False, True])
def test_dead_name_on_a_dead_name_is_immediate_or_an_error(entry: str, sync: int, cancel: bool) -> None:
    """Section 1.3, F5, N22, N19."""
    a, b, _ = three_tasks()
    name, notify = make_entry(a, b, entry), b.port()
    if sync and not cancel:
        assert a.request(DEATH, name, notify, sync=sync, caller=b) == NULL
        assert a.urefs(name) == 2
        assert a.type(name) == DEAD_NAME
        assert b.told(notify) == [("dead-name", name)]
        return
    with a.world.refuses_and_consumes(c.KERN_INVALID_ARGUMENT):
        a.request(DEATH, name, NULL if cancel else notify, sync=sync, caller=b)
    assert a.urefs(name) == 1
    assert b.told(notify) == ([] if cancel else [ONCE])


@pytest.mark.parametrize("urefs", [65534, 65535])
def test_an_immediate_dead_name_needs_room_for_its_uref(urefs: int) -> None:
    """Section 1.3, F7: 19 at the maximum; nothing changes; 71."""
    a, *_ = three_tasks()
    name, notify = a.dead_name(urefs), a.port()
    if urefs == 65534:
        a.request(DEATH, name, notify, sync=1)
        assert a.told(notify) == [("dead-name", name)]
    else:
        with a.world.refuses_and_consumes(c.KERN_UREFS_OVERFLOW):
            a.request(DEATH, name, notify, sync=1)
        assert a.told(notify) == [ONCE]
    assert a.urefs(name) == 65535


# What the call gives back: N1-N8


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_second_request_replaces_the_first_and_returns_it(variant: int) -> None:
    """N2, N3: previous is a live send-once right; nobody is told of the swap."""
    a, *_ = three_tasks()
    port, first, second = a.port(), a.port(), a.port()
    sync = 1 if variant == NO_SENDERS else 0
    assert a.request(variant, port, first, sync=sync) == NULL
    previous = a.request(variant, port, second, sync=sync)
    assert a.type(previous) == SEND_ONCE
    assert a.told(first) == a.told(second) == []
    a.send(previous, MOVE_SEND_ONCE, id=8)
    assert a.told(first) == [("message", 8)]
    previous = a.request(variant, port)
    a.deallocate(previous)
    assert a.told(second) == [ONCE]


def test_the_three_slots_are_independent() -> None:
    """N1: and a request on another name of the port is another slot."""
    a, b, _ = three_tasks()
    port, notify = a.port_with_send(), a.port()
    other = b.take(a, port, MAKE_SEND)
    for variant in VARIANTS:
        assert a.request(variant, port, notify, sync=int(variant == NO_SENDERS)) == NULL
    assert b.request(DEATH, other, notify, caller=a) == NULL
    status = a.status(port)
    assert (status.pdrequest, status.nsrequest) == (1, 1)
    assert a.type(port) & b.type(other) & REQUESTED
    for variant in VARIANTS:
        assert a.request(variant, port) != NULL
    assert a.status(port).pdrequest == a.status(port).nsrequest == 0
    assert b.type(other) & REQUESTED


def test_pending_and_queued_notifications_count_in_sorights() -> None:
    """N4, N55."""
    a, b, _ = three_tasks()
    port, notify = b.port(), a.port()
    send = a.take(b, port, MAKE_SEND)
    a.request(DEATH, send, notify)
    assert a.status(notify).sorights == 1
    b.kill(port)
    assert (a.status(notify).sorights, a.status(notify).msgcount) == (1, 1)
    a.receive(notify)
    assert a.status(notify).sorights == 0


def test_the_slots_are_shown() -> None:
    """N5: by the status of the port and the type of the entry."""
    a, *_ = three_tasks()
    port, notify = a.port(), a.port()
    for variant in VARIANTS:
        a.request(variant, port, notify, sync=int(variant == NO_SENDERS))
    assert (a.status(port).nsrequest, a.status(port).pdrequest) == (1, 1)
    assert a.type(port) == RECEIVE | REQUESTED
    assert a.type(notify) == RECEIVE


def test_the_notify_port_may_be_any_port() -> None:
    """N6: the watched port itself, one for many, one in another space."""
    a, b, _ = three_tasks()
    port, elsewhere = a.port_with_send(), b.port()
    a.request(NO_SENDERS, port, port, sync=1)
    a.request(DEATH, port, port)
    a.deallocate(port)
    assert a.told(port) == [("no-senders", 1)]
    a.request(DEATH, port, elsewhere, caller=b)
    a.destroy(port)
    assert b.told(elsewhere) == [("port-deleted", port)]


def test_a_registration_keeps_nothing_alive() -> None:
    """N7: neither the watched port nor the notify port."""
    a, b, _ = three_tasks()
    port, notify = b.port(), a.port()
    send = a.take(b, port, MAKE_SEND)
    a.request(DEATH, send, notify)
    b.request(NO_SENDERS, port, notify, sync=9, caller=a)
    a.kill(notify)
    b.kill(port)
    assert a.names() == {send: DEAD_NAME}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_registration_with_a_dead_notify_port_stays_in_its_slot(variant: int) -> None:
    """N8: it still shows; previous is ~0."""
    a, *_ = three_tasks()
    port, notify = a.port(), a.port()
    a.request(variant, port, notify, sync=int(variant == NO_SENDERS))
    a.kill(notify)
    shown = a.status(port).nsrequest + a.status(port).pdrequest + bool(a.type(port) & REQUESTED)
    assert shown == 1
    assert a.request(variant, port) == DEAD
    assert a.request(variant, port) == NULL


def test_the_request_may_be_on_another_tasks_name() -> None:
    """Section 1: notify from the caller's space, previous into it; the name is the task's."""
    a, b, _ = three_tasks()
    port, notify = b.port(), a.port()
    b.request(DEATH, port, notify, caller=a)
    previous = b.request(DEATH, port, a.take(a, notify, MAKE_SEND_ONCE), how=MOVE_SEND_ONCE, caller=a)
    assert a.type(previous) == SEND_ONCE
    assert b.names() == {port: RECEIVE | REQUESTED}
    b.destroy(port)
    assert a.told(notify) == [("port-deleted", port)]


def test_move_send_once_uses_the_name_up() -> None:
    """Section 1."""
    a, *_ = three_tasks()
    port, notify = a.port(), a.port()
    once = a.take(a, notify, MAKE_SEND_ONCE)
    a.request(PORT_DESTROYED, port, once, how=MOVE_SEND_ONCE)
    assert once not in a.names()
    assert a.status(notify).sorights == 1


def test_previous_without_room_is_destroyed() -> None:
    """P15: the swap stands; the old notify port is told."""
    a, *_ = three_tasks(name_limit=2)
    port, notify = a.port(), a.port()
    a.request(DEATH, port, notify)
    assert a.request(DEATH, port, notify) == NULL
    assert a.told(notify) == [ONCE]
    assert a.type(port) & REQUESTED


def test_a_request_with_the_watched_right_itself_as_notify() -> None:
    """A send-once right that is used up as notify is gone when the name is looked at: 15, and 71."""
    a, *_ = three_tasks()
    port = a.port()
    once = a.take(a, port, MAKE_SEND_ONCE)
    with a.world.refuses_and_consumes(c.KERN_INVALID_NAME):
        a.request(DEATH, once, once, how=MOVE_SEND_ONCE)
    assert a.told(port) == [ONCE]


def test_send_possible_can_be_asked_for_and_msg_accepted_cannot() -> None:
    """Step 5, N66: 66 is implemented here."""
    a, *_ = three_tasks()
    port = a.port()
    assert a.request(SEND_POSSIBLE, port, port) == NULL
