"""Calls that no thread waits for: each is answered once, cancelled ones have taken nothing, and the descriptor tells.

Promise 3, nobody hangs; M18 and M36 for what is interrupted, M27 for a message that is left where it is.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Callable, Iterator

import pytest
from actors import PATIENCE, Client, DaemonProcess
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import machport
from machport.abi import constants as c
from machport.abi import message as layout
from machport.abi import traps as t
from machport.abi.traps import MsgAnswer, MsgTrap, new_msg
from machport.client.connection import Connection
from machport.client.events import Events
from machport.client.process import process_task
from machport.face.message import pack_body
from machport.mach import mach_task_self

NewClient = Callable[[str], Client]
TRAILER = c.MACH_RCV_TRAILER_AUDIT << c.MACH_RCV_TRAILER_ELEMENTS_SHIFT
#: As long as a message can be: so each is received whole.
ANY = 0xFFFFFFFF


@pytest.fixture
def events(self_task: int) -> Iterator[Events]:
    events = process_task.connection.events()
    yield events
    events.close()


@pytest.fixture
def me(events: Events) -> machport.Task:
    """The task whose channel ``events`` is."""
    task = machport.task_self()
    assert task.name == mach_task_self()
    return task


def wait_at(port: machport.Right, timeout_ms: int | None = None) -> MsgTrap:
    """A trap that waits until there is a message, and leaves it there."""
    option = c.MACH_RCV_MSG | c.MACH_RCV_LARGE | TRAILER | (0 if timeout_ms is None else c.MACH_RCV_TIMEOUT)
    return new_msg(option, b"", 0, port.name, timeout_ms or 0)


def receive_at(port: machport.Right) -> MsgTrap:
    return new_msg(c.MACH_RCV_MSG | TRAILER, b"", ANY, port.name)


def send_to(right: machport.Right, body: bytes = b"") -> MsgTrap:
    return new_msg(c.MACH_SEND_MSG, layout.pack(c.MACH_MSG_TYPE_COPY_SEND, right.name, inline=pack_body(body)))


def readable(events: Events, seconds: float = 0) -> bool:
    return bool(select.select([events.fileno()], [], [], seconds)[0])


def next_answers(events: Events, count: int = 1) -> list[tuple[int, MsgAnswer]]:
    """That many answers, which are waited for as an event loop does it."""
    answers = list[tuple[int, MsgAnswer]]()
    while len(answers) < count:
        if events.arm():
            assert readable(events, PATIENCE), "no answer comes"
        answers += events.take()
    assert len(answers) == count
    return answers


def codes(answers: list[tuple[int, MsgAnswer]]) -> dict[int, int]:
    return {tag: answer.code for tag, answer in answers}


def body_of(answer: MsgAnswer) -> bytes:
    assert answer.buffer is not None
    return bytes(answer.buffer[28 : 28 + int.from_bytes(answer.buffer[24:28], "little")])


def test_a_port_tells_that_it_has_a_message_and_keeps_it(events: Events, me: machport.Task) -> None:
    """M27: RCV_LARGE without room; the descriptor is readable from then until the answer is taken, and no longer."""
    port = me.allocate()
    tag = events.begin(wait_at(port))
    assert events.arm() and not readable(events)
    port.make_send().send(b"here")
    assert readable(events, PATIENCE) and readable(events)
    assert codes(events.take()) == {tag: c.MACH_RCV_TOO_LARGE}
    assert events.arm() and not readable(events)
    assert events.take() == events.look() == []
    assert port.receive(0).body == b"here"


def test_all_who_wait_at_a_port_are_told_of_one_message(events: Events, me: machport.Task) -> None:
    """Each leaves it to the next, and the last to whoever receives it."""
    port = me.allocate()
    tags = {events.begin(wait_at(port)) for _ in range(3)}
    port.make_send().send(b"one")
    assert codes(next_answers(events, 3)) == dict.fromkeys(tags, c.MACH_RCV_TOO_LARGE)
    assert port.status().msgcount == 1


def test_answers_come_in_the_order_in_which_calls_end(events: Events, me: machport.Task) -> None:
    idle, *ports = me.allocate_many(4)
    tags = [events.begin(receive_at(port)) for port in ports]
    assert events.call(wait_at(idle, 0)).code == c.MACH_RCV_TIMED_OUT, "by now all of them wait"
    for port in reversed(ports):
        port.make_send().send(port.name.to_bytes(4, "little"))
    answers = next_answers(events, 3)
    assert [tag for tag, _ in answers] == tags[::-1]
    assert [body_of(answer) for _, answer in answers] == [port.name.to_bytes(4, "little") for port in reversed(ports)]


def test_a_call_that_does_not_wait_is_answered_the_same_way(events: Events, me: machport.Task) -> None:
    port, other = me.allocate_many(2)
    sender = port.make_send()
    sent, empty = events.begin(send_to(sender, b"body")), events.begin(wait_at(other, 0))
    assert codes(next_answers(events, 2)) == {sent: 0, empty: c.MACH_RCV_TIMED_OUT}
    assert port.receive(0).body == b"body"


def test_each_call_has_a_time_of_its_own(events: Events, me: machport.Task) -> None:
    """M2: the one with the shorter time ends first, and the one without any not at all."""
    port, narrow = me.allocate(), me.allocate(qlimit=0)
    full = narrow.make_send()
    for_ever = events.begin(wait_at(port))
    later = events.begin(wait_at(port, 40))
    sooner = events.begin(wait_at(port, 1))
    sending = send_to(full)
    sending.option |= c.MACH_SEND_TIMEOUT
    sending.timeout_ms = 20
    between = events.begin(sending)
    answers = next_answers(events, 3)
    assert [tag for tag, _ in answers] == [sooner, between, later]
    assert codes(answers) == {sooner: c.MACH_RCV_TIMED_OUT, between: c.MACH_SEND_TIMED_OUT, later: c.MACH_RCV_TIMED_OUT}
    assert events.cancel(for_ever).code == c.MACH_RCV_INTERRUPTED


def test_a_cancelled_receive_has_taken_nothing(events: Events, me: machport.Task) -> None:
    port = me.allocate()
    tag = events.begin(receive_at(port))
    assert events.cancel(tag).code == c.MACH_RCV_INTERRUPTED
    port.make_send().send(b"for another")
    assert port.receive(0).body == b"for another"
    assert len(events) == 0 and events.take() == []


def test_a_cancelled_send_gives_its_message_and_its_rights_back(events: Events, me: machport.Task) -> None:
    """M18: as an interrupted thread gets them."""
    full, moved = me.allocate(qlimit=0), me.allocate()
    bits = layout.bits(c.MACH_MSG_TYPE_COPY_SEND, complex=True)
    rights = [layout.port_descriptor(moved.name, c.MACH_MSG_TYPE_MOVE_RECEIVE)]
    sender = full.make_send()
    before = sorted(me.calls.mach_port_names(me.name))
    tag = events.begin(MsgTrap(c.MACH_SEND_MSG, layout.pack(bits, sender.name, descriptors=rights)))
    answer = events.cancel(tag)
    assert answer.code == c.MACH_SEND_INTERRUPTED and answer.buffer is not None
    back = layout.parse(answer.buffer)
    assert back.descriptors[0].disposition == c.MACH_MSG_TYPE_MOVE_RECEIVE
    me.calls.mach_port_deallocate(me.name, back.remote)
    if back.descriptors[0].name != moved.name:
        me.calls.mach_port_rename(me.name, back.descriptors[0].name, moved.name)
    assert sorted(me.calls.mach_port_names(me.name)) == before
    assert full.status().msgcount == 0


def test_a_call_that_was_done_before_it_is_cancelled_is_done(events: Events, me: machport.Task) -> None:
    port = me.allocate()
    port.make_send().send(b"taken")
    tag = events.begin(receive_at(port))
    assert body_of(events.cancel(tag)) == b"taken"
    assert len(events) == 0


def test_answers_of_others_that_come_while_one_is_cancelled_are_kept(events: Events, me: machport.Task) -> None:
    port, other = me.allocate(), me.allocate()
    kept, cancelled = events.begin(receive_at(port)), events.begin(wait_at(other))
    assert events.arm()
    port.make_send().send(b"kept")
    assert events.cancel(cancelled).code == c.MACH_RCV_INTERRUPTED
    assert not events.arm(), "nobody would be woken for what is here already"
    assert [(tag, body_of(answer)) for tag, answer in events.look()] == [(kept, b"kept")]


SIZES = [9_000, 100_000, 600_000]


@pytest.mark.parametrize("size", SIZES)
def test_messages_that_are_too_long_for_the_ring_go_and_come(events: Events, me: machport.Task, size: int) -> None:
    """First while another call waits, so that the rings cannot be replaced, and then alone, by wider ones."""
    port, idle = me.allocate(), me.allocate()
    sender = port.make_send()
    waiting = events.begin(wait_at(idle))
    for _ in range(3):
        body = os.urandom(size)
        sent = events.begin(send_to(sender, body))
        received = events.begin(receive_at(port))
        answers = dict(next_answers(events, 2))
        assert answers[sent].code == 0 and body_of(answers[received]) == body
        if waiting:
            assert events.cancel(waiting).code == c.MACH_RCV_INTERRUPTED
            waiting = 0


def test_a_long_send_can_be_cancelled(events: Events, me: machport.Task) -> None:
    """It went by the socket, and so does what cancels it: never before it."""
    full = me.allocate(qlimit=0)
    sender, idle = full.make_send(), me.allocate()
    waiting = events.begin(wait_at(idle))
    for _ in range(20):
        body = os.urandom(300_000)
        answer = events.cancel(events.begin(send_to(sender, body)))
        assert answer.code == c.MACH_SEND_INTERRUPTED and body_of(answer) == body
    assert events.cancel(waiting).code == c.MACH_RCV_INTERRUPTED


def test_as_many_calls_wait_as_may_and_one_more_is_refused(events: Events, me: machport.Task) -> None:
    port = me.allocate()
    trap = wait_at(port)
    tags = {events.begin(trap) for _ in range(t.ASYNC_MAX)}
    with pytest.raises(machport.LimitReached, match="wait already"):
        events.begin(trap)
    port.make_send().send(b"to all")
    assert codes(next_answers(events, t.ASYNC_MAX)) == dict.fromkeys(tags, c.MACH_RCV_TOO_LARGE)
    assert events.cancel(events.begin(receive_at(port))).code == 0


def test_a_flood_of_long_messages_both_ways_stops_nobody(events: Events, me: machport.Task) -> None:
    """Socket and rings are full at once: each side reads what the other has written."""
    port = me.allocate(qlimit=1024)
    sender, idle = port.make_send(), me.allocate()
    events.begin(wait_at(idle))
    body = os.urandom(20_000)
    for _ in range(300):
        events.begin(send_to(sender, body))
        events.begin(receive_at(port))
    answers = next_answers(events, 600)
    assert sum(answer.buffer is not None and body_of(answer) == body for _, answer in answers) == 300


def test_closing_the_task_wakes_the_loop_with_what_a_blocked_thread_gets(daemon: DaemonProcess) -> None:
    """From another thread, and though the daemon stands still."""
    connection = Connection("closing")
    events = connection.events()
    events.begin(wait_at_name(1))
    assert events.arm() or events.take()
    daemon.process.send_signal(signal.SIGSTOP)
    try:
        thread = threading.Thread(target=connection.close)
        thread.start()
        assert readable(events, PATIENCE)
        thread.join()
        with pytest.raises(machport.DeadTask, match="closed"):
            events.take()
        with pytest.raises(machport.DeadTask):
            events.begin(wait_at_name(1))
        with pytest.raises(machport.DeadTask):
            connection.events()
    finally:
        daemon.process.send_signal(signal.SIGCONT)
    events.close()


def wait_at_name(name: int) -> MsgTrap:
    return new_msg(c.MACH_RCV_MSG | c.MACH_RCV_LARGE | TRAILER, b"", 0, name)


def test_the_end_of_the_daemon_is_told_after_the_answers_before_it(
    daemon: DaemonProcess, events: Events, me: machport.Task
) -> None:
    port, idle = me.allocate_many(2)
    tag, other = events.begin(wait_at(port)), events.begin(wait_at(idle))
    events.call(wait_at(idle, 0))  # once this is answered, the others are known
    assert events.arm()
    port.make_send().send(b"")
    port.status()  # once this is answered, so is the loop
    daemon.kill()
    assert readable(events, PATIENCE)
    assert codes(events.take()) == {tag: c.MACH_RCV_TOO_LARGE}
    assert readable(events), "it stays readable"
    for call in (events.take, events.look, lambda: events.cancel(other), lambda: events.begin(wait_at_name(1))):
        with pytest.raises(machport.DaemonLost):
            call()


def test_a_daemon_that_is_killed_does_not_let_a_cancellation_wait(
    daemon: DaemonProcess, events: Events, me: machport.Task
) -> None:
    port = me.allocate()
    tag = events.begin(wait_at(port))
    assert events.arm()
    daemon.process.send_signal(signal.SIGSTOP)
    killer = threading.Timer(0.01, daemon.kill)
    killer.start()
    with pytest.raises(machport.DaemonLost):
        events.cancel(tag)
    killer.join()


def test_a_handler_that_raises_in_a_cancellation_leaves_the_other_calls_alone(
    daemon: DaemonProcess, events: Events, me: machport.Task
) -> None:
    """The call that was to be cancelled is answered when its time comes, as if it had not waited."""
    port, idle = me.allocate_many(2)
    cancelled, other = events.begin(wait_at(idle)), events.begin(wait_at(port))
    assert events.arm()
    daemon.process.send_signal(signal.SIGSTOP)
    before = signal.signal(signal.SIGALRM, lambda *_: next(iter(())))
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    try:
        with pytest.raises(StopIteration):
            events.cancel(cancelled)
    finally:
        signal.signal(signal.SIGALRM, before)
        daemon.process.send_signal(signal.SIGCONT)
    port.make_send().send(b"")
    assert codes(next_answers(events, 2)) == {cancelled: c.MACH_RCV_INTERRUPTED, other: c.MACH_RCV_TOO_LARGE}


def test_a_forked_child_neither_calls_nor_disturbs_its_parent(events: Events, me: machport.Task) -> None:
    port = me.allocate()
    tag = events.begin(wait_at(port))
    assert events.arm()
    child = os.fork()
    if not child:
        try:
            events.take()
        except machport.ForkedTask:
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    port.make_send().send(b"")
    assert codes(next_answers(events)) == {tag: c.MACH_RCV_TOO_LARGE}


SETUP = """
from machport.abi import constants as c, message as layout
from machport.abi.traps import new_msg
events = task._connection.events()
def receive(limit):
    option = c.MACH_RCV_MSG | c.MACH_RCV_TRAILER_AUDIT << c.MACH_RCV_TRAILER_ELEMENTS_SHIFT
    return new_msg(option, b"", limit, port.name)
"""


@pytest.fixture
def victim(task: machport.Task, new_client: NewClient) -> tuple[Client, machport.SendRight, machport.ReceiveRight]:
    """A client with a channel for events that has a ``port``, which comes back when it dies."""
    client = new_client("victim")
    client.do(SETUP)
    port, returned = task.allocate(qlimit=1024), task.allocate()
    sender = port.make_send()
    port.request_port_destroyed(returned)
    client.give("port", port.move())
    return client, sender, returned


def test_messages_that_a_killed_loop_had_not_taken_go_back_to_their_queue(
    victim: tuple[Client, machport.SendRight, machport.ReceiveRight],
) -> None:
    """M30: what it took is received, the others are there again in their order."""
    client, sender, returned = victim
    client.do("tags = [events.begin(receive(0xFFFFFFFF)) for _ in range(4)]")
    client.do("import select; events.arm()")
    sender.send(b"taken")
    client.do("select.select([events.fileno()], [], []); events.take()")
    bodies = [b"1", b"2" * 20_000, b"3", b"4"]
    for body in bodies:
        sender.send(body)
    client.die()
    with returned.receive(PATIENCE) as notice:
        assert isinstance(notice, machport.PortDestroyedNotification)
        assert [notice.right.receive(0).body for _ in bodies] == bodies
        assert notice.right.status().msgcount == 0


def test_what_a_killed_loop_waits_to_send_is_destroyed(
    task: machport.Task, victim: tuple[Client, machport.SendRight, machport.ReceiveRight]
) -> None:
    client, _, _ = victim
    full, reply = task.allocate(qlimit=0), task.allocate()
    client.give("full", full.make_send().move())
    client.give("inside", reply.make_send_once().move())
    client.do(
        "from machport.abi.traps import MsgTrap\n"
        "rights = [layout.port_descriptor(inside.name, c.MACH_MSG_TYPE_MOVE_SEND_ONCE)]\n"
        "bits = layout.bits(c.MACH_MSG_TYPE_COPY_SEND, complex=True)\n"
        "tag = events.begin(MsgTrap(c.MACH_SEND_MSG, layout.pack(bits, full.name, descriptors=rights)))\n"
        "task.calls.mach_port_names(task.name)"
    )
    client.die()
    with reply.receive(PATIENCE) as notice:
        assert isinstance(notice, machport.SendOnceNotification)
    assert full.status().msgcount == 0


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(st.sampled_from(["send", "receive", "wait", "cancel", "take"]), st.integers(0, 9))))
def test_in_any_order_every_call_is_answered_once_and_no_message_is_lost(
    events: Events, me: machport.Task, steps: list[tuple[str, int]]
) -> None:
    port = me.allocate(qlimit=3)
    sender = port.make_send()
    under_way, kinds = list[int](), dict[int, str]()
    sent = received = 0

    def note(tag: int, answer: MsgAnswer) -> None:
        nonlocal sent, received
        under_way.remove(tag)
        sent += kinds[tag] == "send" and answer.code == 0
        received += kinds[tag] == "receive" and answer.code == 0
        assert answer.code in (0, c.MACH_RCV_TOO_LARGE, c.MACH_RCV_INTERRUPTED, c.MACH_SEND_INTERRUPTED)
        if answer.code == c.MACH_SEND_INTERRUPTED:
            assert answer.buffer is not None
            me.calls.mach_port_deallocate(me.name, layout.parse(answer.buffer).remote)

    traps = {"send": lambda: send_to(sender), "receive": lambda: receive_at(port), "wait": lambda: wait_at(port)}
    for step, number in steps:
        if step in traps:
            tag = events.begin(traps[step]())
            kinds[tag] = step
            under_way.append(tag)
        elif step == "take":
            for tag, answer in events.take():
                note(tag, answer)
        elif under_way:
            tag = under_way[number % len(under_way)]
            note(tag, events.cancel(tag))
    for tag in list(under_way):
        note(tag, events.cancel(tag))
    assert len(events) == 0
    assert port.status().msgcount == sent - received
    assert me.calls.mach_port_get_refs(me.name, sender.name, c.MACH_PORT_RIGHT_SEND) == 1
    sender.close()
    port.close()
