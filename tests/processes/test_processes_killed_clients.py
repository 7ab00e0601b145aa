"""A client killed at each step of a send: what it sent arrives or does not, and its rights go at once.

Promises 1 and 4: nothing is lost silently, and nobody hangs.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from actors import PATIENCE, Client

import machport

NewClient = Callable[[str], Client]


def waiting(port: machport.ReceiveRight) -> list[machport.Message]:
    """Every message in the queue."""
    messages = []
    while True:
        try:
            messages.append(port.receive(0))
        except machport.TimedOut:
            return messages


def bodies(port: machport.ReceiveRight) -> list[bytes]:
    return [message.body for message in waiting(port)]


def test_a_client_killed_before_its_send_leaves_only_the_news_that_it_is_gone(
    task: machport.Task, new_client: NewClient
) -> None:
    client, port, notices = new_client("client"), task.allocate(), task.allocate()
    sender = port.make_send()
    port.request_no_senders(notices)
    client.give("right", sender.move())
    client.begin("before_writing(die); right.send(b'never')")
    client.wait_until_gone()
    notice = notices.receive(PATIENCE)
    assert isinstance(notice, machport.NoSendersNotification)
    assert notice.count == 1
    assert waiting(port) == []


@pytest.mark.parametrize("step", ["before_reading", "after_reading"])
def test_a_client_killed_once_its_trap_is_carried_out_has_sent_its_message_and_lost_its_right(
    task: machport.Task, new_client: NewClient, step: str
) -> None:
    client, port, notices = new_client("client"), task.allocate(), task.allocate()
    sender = port.make_send()
    port.request_no_senders(notices)
    client.give("right", sender.move())
    client.begin(f"{step}(lambda: (mark(), signal.pause())); right.send(b'sent', rights=[right.move()])")
    client.wait_for_mark()
    assert port.status().msgcount == 1
    client.die()
    message = port.receive(0)
    assert message.body == b"sent"
    assert waiting(notices) == []
    message.close()
    assert [type(notice) for notice in waiting(notices)] == [machport.NoSendersNotification]


def test_a_client_killed_with_its_trap_written_has_sent_a_whole_message_or_none(
    task: machport.Task, new_client: NewClient
) -> None:
    client, port, notices = new_client("client"), task.allocate(), task.allocate()
    sender = port.make_send()
    port.request_no_senders(notices)
    client.give("right", sender.move())
    client.begin("before_reading(die); right.send(b'perhaps')")
    client.wait_until_gone()
    assert bodies(port) in ([], [b"perhaps"])
    assert [type(notice) for notice in waiting(notices)] == [machport.NoSendersNotification]


def test_a_client_killed_while_it_waits_for_room_sends_nothing_and_what_its_message_held_is_released(
    task: machport.Task, new_client: NewClient
) -> None:
    client, port, moved, notices = new_client("client"), task.allocate(qlimit=1), task.allocate(), task.allocate()
    moved.request_port_destroyed(notices)
    sender = port.make_send()
    sender.send(b"first")
    client.give("right", sender.copy())
    client.give("moved", moved.move())
    client.begin("before_reading(mark); right.send(b'second', rights=[moved.move()])")
    client.wait_for_mark()
    assert port.status().msgcount == 1
    client.die()
    assert bodies(port) == [b"first"]
    (notice,) = waiting(notices)
    assert isinstance(notice, machport.PortDestroyedNotification)
    sender.send(b"there is room")
    assert bodies(port) == [b"there is room"]


def test_the_next_blocked_sender_is_served_when_the_one_before_it_is_killed(
    task: machport.Task, new_client: NewClient
) -> None:
    first, second, port = new_client("first"), new_client("second"), task.allocate(qlimit=1)
    sender = port.make_send()
    sender.send(b"fills the queue")
    for client, body in ((first, "first"), (second, "second")):
        client.give("right", sender.copy())
        client.begin(f"before_reading(mark); right.send(b{body!r})")
        client.wait_for_mark()
        assert port.status().msgcount == 1
    first.die()
    assert port.receive(0).body == b"fills the queue"
    second.finish()
    assert bodies(port) == [b"second"]


def test_messages_of_a_killed_client_stay_queued_in_order(task: machport.Task, new_client: NewClient) -> None:
    client, port = new_client("client"), task.allocate()
    client.give("right", port.make_send().move())
    client.do("for number in range(4): right.send(bytes([number]))")
    client.die()
    assert bodies(port) == [bytes([number]) for number in range(4)]


def test_the_reply_to_a_killed_client_is_refused_and_costs_the_server_nothing(
    task: machport.Task, new_client: NewClient
) -> None:
    client, port = new_client("client"), task.allocate()
    client.give("right", port.make_send().move())
    client.begin("right.call(b'question')")
    request = port.receive(PATIENCE)
    client.die()
    with pytest.raises(machport.DeadPort):
        request.reply(b"answer")
    request.close()
    assert {name for name, _ in task.calls.mach_port_names(task.name)} == {
        task.name,
        port.name,
        client.deaths.name,
        client.inbox.name,
    }
