"""A server killed at each step of a request: one answer for the caller, and nothing unread is lost.

Promises 1 and 3.  A server that is stopped does not read: what the daemon hands to it stays in its socket.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from actors import PATIENCE, Client

import machport

NewClient = Callable[[str], Client]

#: A message longer than a packet goes beside it, and must come back all the same.
LONG = bytes(range(256)) * 1000


@pytest.fixture
def back(task: machport.Task) -> machport.ReceiveRight:
    """Where the port of a killed server comes back to."""
    return task.allocate()


@pytest.fixture
def server(new_client: NewClient) -> Client:
    return new_client("server")


@pytest.fixture
def sender(task: machport.Task, server: Client, back: machport.ReceiveRight) -> machport.SendRight:
    """A send right to the ``port`` of the server, which survives it."""
    port = task.allocate(qlimit=20)
    sender = port.make_send()
    port.request_port_destroyed(back)
    server.give("port", port.move())
    return sender


def returned(back: machport.ReceiveRight) -> machport.ReceiveRight:
    """The port, from its port-destroyed notification."""
    notice = back.receive(PATIENCE)
    assert isinstance(notice, machport.PortDestroyedNotification)
    return notice.right


def waiting(port: machport.ReceiveRight) -> list[machport.Message]:
    messages = []
    while True:
        try:
            messages.append(port.receive(0))
        except machport.TimedOut:
            return messages


def bodies(port: machport.ReceiveRight) -> list[bytes]:
    return [message.body for message in waiting(port)]


def blocked_in_receive(server: Client, task: machport.Task, call: str = "port.receive()") -> None:
    """Let the server begin a call, and return when the daemon has it waiting."""
    server.begin(f"before_reading(mark); {call}")
    server.wait_for_mark()
    # Traps are carried out in the order in which they were written: once this one is, the server's is.
    task.calls.mach_port_names(task.name)


def test_a_server_killed_while_it_waits_gives_its_port_back_alive(
    task: machport.Task, server: Client, sender: machport.SendRight, back: machport.ReceiveRight
) -> None:
    blocked_in_receive(server, task)
    server.kill()
    port = returned(back)
    assert port.name == sender.name
    sender.send(b"after")
    assert bodies(port) == [b"after"]


@pytest.mark.parametrize("body", [b"first", LONG], ids=["short", "long"])
def test_a_message_that_was_handed_over_and_not_read_comes_back_before_those_behind_it(
    task: machport.Task, server: Client, sender: machport.SendRight, back: machport.ReceiveRight, body: bytes
) -> None:
    blocked_in_receive(server, task)
    server.stop()
    for each in (body, b"second", b"third"):
        sender.send(each)
    server.kill()
    port = returned(back)
    assert port.status().msgcount == 3
    assert bodies(port) == [body, b"second", b"third"]


def test_rights_and_memory_of_a_message_that_was_not_read_come_back_with_it(
    task: machport.Task, server: Client, sender: machport.SendRight, back: machport.ReceiveRight
) -> None:
    moved, made, answers = task.allocate(), task.allocate(), task.allocate()
    moved.make_send().send(b"inside the moved port")
    blocked_in_receive(server, task)
    server.stop()
    sender.send(
        b"rights",
        rights=[moved.move(), made.make_send().move(), made.make_send_once().move()],
        memory=[LONG],
        reply_to=answers,
    )
    server.kill()
    (message,) = waiting(returned(back))
    receive, send, send_once = message.rights
    assert isinstance(receive, machport.ReceiveRight)
    assert bodies(receive) == [b"inside the moved port"]
    for right in (send, send_once):
        assert isinstance(right, machport.SendRight | machport.SendOnceRight)
        right.send(type(right).__name__.encode())
    assert bodies(made) == [b"SendRight", b"SendOnceRight"]
    assert message.memory == [LONG]
    message.reply(b"by the successor")
    assert bodies(answers) == [b"by the successor"]


def test_the_caller_whose_request_was_not_read_is_answered_by_the_successor(
    task: machport.Task, new_client: NewClient, server: Client, sender: machport.SendRight, back: machport.ReceiveRight
) -> None:
    caller = new_client("caller")
    caller.give("upper", sender.copy())
    blocked_in_receive(server, task)
    server.stop()
    caller.begin("before_reading(mark); answer = upper.call(b'question').body; mark()")
    caller.wait_for_mark()
    task.calls.mach_port_names(task.name)
    server.kill()
    with returned(back).receive(PATIENCE) as request:
        request.reply(request.body.upper())
    caller.wait_for_mark()
    caller.finish()
    assert caller.do("answer") == b"QUESTION"


@pytest.mark.parametrize("held", [False, True], ids=["sockets closed", "sockets held by a child"])
def test_messages_handed_to_several_threads_come_back_in_the_order_in_which_they_were_sent(
    task: machport.Task, server: Client, sender: machport.SendRight, back: machport.ReceiveRight, held: bool
) -> None:
    # More threads than there are messages: they must not be given what the others had not read.
    server.do("for _ in range(8): in_thread(task, port.receive)")
    if held:
        server.hold_sockets()
    task.calls.mach_port_names(task.name)
    server.stop()
    for number in range(3):
        sender.send(bytes([number]))
    server.kill()
    assert bodies(returned(back)) == [bytes([number]) for number in range(3)]


def test_a_message_taken_through_a_port_set_comes_back_to_its_port(
    task: machport.Task, server: Client, sender: machport.SendRight, back: machport.ReceiveRight
) -> None:
    server.do("pset = task.port_set(port, task.allocate())")
    blocked_in_receive(server, task, "pset.receive()")
    server.stop()
    sender.send(b"first")
    sender.send(b"second")
    server.kill()
    assert bodies(returned(back)) == [b"first", b"second"]


def test_a_message_that_nobody_reads_any_more_is_destroyed_with_its_port_and_answers_its_caller(
    task: machport.Task, server: Client
) -> None:
    port, answers = task.allocate(), task.allocate()
    sender = port.make_send()
    server.give("port", port.move())
    blocked_in_receive(server, task)
    server.stop()
    sender.send(b"handed over", reply_to=answers)
    sender.send(b"queued", reply_to=answers)
    server.die()
    assert [type(answer) for answer in waiting(answers)] == [machport.SendOnceNotification] * 2
    assert sender.is_dead()


def test_a_server_killed_with_a_request_in_hand_costs_its_caller_one_server_died_and_keeps_the_rest(
    task: machport.Task, server: Client, sender: machport.SendRight, back: machport.ReceiveRight
) -> None:
    answers = task.allocate()
    for body in (b"first", b"second"):
        sender.send(body, reply_to=answers)
    server.do(f"request = port.receive({PATIENCE})")
    assert server.do("request.body") == b"first"
    server.kill()
    port = returned(back)
    assert [type(answer) for answer in waiting(answers)] == [machport.SendOnceNotification]
    (second,) = waiting(port)
    second.reply(b"answer to the second")
    assert bodies(answers) == [b"answer to the second"]


def test_a_call_under_way_raises_server_died_when_its_request_was_read(
    new_client: NewClient, server: Client, sender: machport.SendRight
) -> None:
    caller = new_client("caller")
    caller.give("upper", sender.copy())
    caller.begin("upper.call(b'question')")
    server.do(f"request = port.receive({PATIENCE})")
    server.kill()
    with pytest.raises(AssertionError, match=r"ServerDied: call in task caller.*may have been carried out"):
        caller.finish()


def test_a_server_killed_after_its_reply_has_answered_exactly_once(
    task: machport.Task, server: Client, sender: machport.SendRight, back: machport.ReceiveRight
) -> None:
    answers = task.allocate()
    sender.send(b"question", reply_to=answers)
    server.do(f"port.receive({PATIENCE}).reply(b'answer')")
    server.kill()
    assert waiting(returned(back)) == []
    assert bodies(answers) == [b"answer"]


@pytest.mark.parametrize("step", ["before_writing", "before_reading", "after_reading"])
def test_a_server_killed_at_any_step_of_its_reply_gives_its_caller_exactly_one_answer(
    task: machport.Task, server: Client, sender: machport.SendRight, back: machport.ReceiveRight, step: str
) -> None:
    answers = task.allocate()
    sender.send(b"question", reply_to=answers)
    server.do(f"request = port.receive({PATIENCE})")
    server.begin(f"{step}(die); request.reply(b'answer')")
    assert waiting(returned(back)) == []
    (answer,) = waiting(answers)
    sent = {"before_writing": {False}, "before_reading": {False, True}, "after_reading": {True}}[step]
    assert (answer.body == b"answer") in sent
    assert isinstance(answer, machport.SendOnceNotification) == (answer.body != b"answer")
    assert answers.status().sorights == 0


def test_a_reply_port_that_dies_with_its_caller_gives_back_the_rights_in_an_unread_answer(
    task: machport.Task, new_client: NewClient, back: machport.ReceiveRight
) -> None:
    caller, port, moved = new_client("caller"), task.allocate(), task.allocate()
    moved.request_port_destroyed(back)
    caller.give("service", port.make_send().move())
    caller.begin("before_reading(mark); service.call(b'question')")
    caller.wait_for_mark()
    request = port.receive(PATIENCE)
    caller.stop()
    request.reply(b"answer", rights=[moved.move()])
    caller.kill()
    assert returned(back).status().msgcount == 0
