"""Port-destroyed notifications: N28-N36.  The ways of dying are in ``test_kernel_port_death``."""

from __future__ import annotations

from kernel_driver import (
    DEAD_NAME,
    DEATH,
    MAKE_SEND,
    MAKE_SEND_ONCE,
    MOVE_RECEIVE,
    MOVE_SEND_ONCE,
    NO_SENDERS,
    NULL,
    ONCE,
    PORT_DESTROYED,
    RECEIVE,
    SEND,
    SEND_RECEIVE,
    Actor,
    done,
    three_tasks,
    waits,
)

from machport.abi import constants as c


def bequeath(a: Actor, port: int, b: Actor) -> int:
    """``b`` is to inherit the port; its notify port."""
    heir = b.port()
    a.request(PORT_DESTROYED, port, a.take(b, heir, MAKE_SEND_ONCE), how=MOVE_SEND_ONCE)
    return heir


def inherit(b: Actor, heir: int) -> int:
    """The name under which the receive right arrives."""
    ((event, name),) = b.told(heir)
    assert event == "port-destroyed"
    return int(name)


def test_it_fires_once() -> None:
    """N28: the slot is emptied first."""
    a, b, _ = three_tasks()
    port = a.port()
    heir = bequeath(a, port, b)
    a.destroy(port)
    name = inherit(b, heir)
    b.destroy(name)
    assert b.told(heir) == []
    assert b.names() == {heir: RECEIVE}


def test_the_message_carries_the_receive_right() -> None:
    """N30, section 2: disposition 16; it joins a send right that is there (P12)."""
    a, b, _ = three_tasks()
    port = a.port()
    heir = bequeath(a, port, b)
    send = b.take(a, port, MAKE_SEND)
    a.destroy(port)
    message = b.receive(heir)
    assert message.rights == [(send, MOVE_RECEIVE)]
    assert b.type(send) == SEND_RECEIVE


def test_the_right_arrives_with_its_queue() -> None:
    """N31: queue, limit, counts unchanged; mscount and seqno 0; no set, no requests."""
    a, b, other = three_tasks()
    port, notify = a.port(), a.port()
    heir = bequeath(a, port, b)
    send = other.take(a, port, MAKE_SEND)
    other.take(a, port, MAKE_SEND_ONCE)
    a.set_qlimit(port, 7)
    a.set_seqno(port, 3)
    a.request(NO_SENDERS, port, notify)
    a.pset(port)
    other.send(send, id=1)
    other.send(send, id=2)
    a.destroy(port)
    name = inherit(b, heir)
    status = b.status(name)
    assert (status.qlimit, status.msgcount, status.sorights) == (7, 2, 1)
    assert b.srights(name) == 3
    assert (status.mscount, status.seqno, status.pset) == (0, 0, NULL)
    assert (status.nsrequest, status.pdrequest) == (0, 0)
    assert a.told(notify) == [ONCE]
    assert b.told(name) == [("message", 1), ("message", 2)]


def test_blocked_threads_part_ways() -> None:
    """N32: receivers get PORT_DIED, senders stay blocked."""
    a, b, other = three_tasks()
    port = a.port()
    heir = bequeath(a, port, b)
    receiver = a.wait_to_receive(port)
    a.set_qlimit(port, 0)
    sender = other.wait_to_send(other.take(a, port, MAKE_SEND), id=4)
    a.destroy(port)
    assert done(receiver).code == c.MACH_RCV_PORT_DIED
    assert waits(sender)
    b.set_qlimit(name := inherit(b, heir), 1)
    assert done(sender).code == c.MACH_MSG_SUCCESS
    assert b.told(name) == [("message", 4)]


def test_senders_notice_nothing() -> None:
    """N33: messages queue while the notification waits."""
    a, b, other = three_tasks()
    port = a.port()
    heir = bequeath(a, port, b)
    send = other.take(a, port, MAKE_SEND)
    a.destroy(port)
    other.send(send, id=1)
    assert other.type(send) == SEND
    assert b.told(inherit(b, heir)) == [("message", 1)]


def test_the_old_holders_own_send_right_lives_on_after_mod_refs() -> None:
    """N34, D7: it can be used at once."""
    a, b, _ = three_tasks()
    port = a.port_with_send(2)
    heir = bequeath(a, port, b)
    a.kill(port)
    assert (a.type(port), a.urefs(port)) == (SEND, 2)
    a.send(port, id=1)
    assert b.told(inherit(b, heir)) == [("message", 1)]


def test_the_old_holders_own_send_right_is_released_by_destroy() -> None:
    """N34: possibly giving no-senders, with the count as it was."""
    a, b, _ = three_tasks()
    port, notify = a.port_with_send(), a.port()
    heir = bequeath(a, port, b)
    a.request(NO_SENDERS, port, notify, sync=1)
    a.destroy(port)
    assert a.told(notify) == [("no-senders", 1)]
    assert b.srights(inherit(b, heir)) == 0


def test_an_unreceived_notification_destroys_the_right_in_it() -> None:
    """N35, N58: when its port dies, the port dies."""
    a, b, other = three_tasks()
    port, notify = a.port(), other.port()
    heir = bequeath(a, port, b)
    send = other.take(a, port, MAKE_SEND)
    other.request(DEATH, send, notify)
    a.destroy(port)
    assert other.told(notify) == []
    b.kill(heir)
    assert other.told(notify) == [("dead-name", send)]


def test_surviving_twice_needs_a_second_request() -> None:
    """N35: registered again after the return."""
    a, b, other = three_tasks()
    port = a.port()
    send = other.take(a, port, MAKE_SEND)
    for _ in range(3):
        heir = bequeath(a, port, a)
        a.destroy(port)
        port = inherit(a, heir)
    assert other.type(send) == SEND
    a.destroy(port)
    assert other.type(send) == DEAD_NAME
    assert b.names() == {}


def test_a_request_made_while_the_right_travels_is_impossible() -> None:
    """N36: nobody holds the receive right then."""
    a, b, _ = three_tasks()
    port = a.port_with_send()
    bequeath(a, port, b)
    a.kill(port)
    with a.world.refuses_and_consumes(c.KERN_INVALID_RIGHT):
        a.request(PORT_DESTROYED, port)


def test_it_can_be_cancelled() -> None:
    """N2: previous is the right; the port then dies."""
    a, b, _ = three_tasks()
    port = a.port()
    heir = bequeath(a, port, b)
    previous = a.request(PORT_DESTROYED, port)
    a.destroy(port)
    assert b.told(heir) == []
    a.deallocate(previous)
    assert b.told(heir) == [ONCE]
