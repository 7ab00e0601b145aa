"""A process killed around ``mach_port_request_notification``: who was to be notified hears exactly one thing.

The survivor gives the process a send-once right to notify it with.  Unregistered it says "send once" when it goes with
its holder (N51); registered it says what the registration calls for (N23, N28, N48, P29).
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from actors import Client

import machport
from machport import (
    NoSendersNotification,
    PortDeletedNotification,
    PortDestroyedNotification,
    SendOnceNotification,
)
from machport.abi import constants as c

NewClient = Callable[[str], Client]
Kind = type[machport.Notification]

#: What is watched, as the process makes it; the variant; what the survivor hears once it is registered.
WATCHED = pytest.mark.parametrize(
    ("make", "variant", "told"),
    [
        ("watched = service", c.MACH_NOTIFY_DEAD_NAME, PortDeletedNotification),
        ("watched = task.allocate()", c.MACH_NOTIFY_DEAD_NAME, PortDeletedNotification),
        (
            "watched = task.allocate(); sender = watched.make_send()",
            c.MACH_NOTIFY_NO_SENDERS,
            NoSendersNotification,
        ),
        (
            "watched = task.allocate(); service.send(rights=[watched.make_send().move()])",
            c.MACH_NOTIFY_NO_SENDERS,
            SendOnceNotification,
        ),
        ("watched = task.allocate()", c.MACH_NOTIFY_PORT_DESTROYED, PortDestroyedNotification),
    ],
    ids=[
        "dead name of a sender",
        "dead name of a receiver",
        "last sender itself",
        "sender elsewhere",
        "port destroyed",
    ],
)


@pytest.fixture
def notices(task: machport.Task) -> machport.ReceiveRight:
    return task.allocate()


@pytest.fixture
def service(task: machport.Task) -> machport.ReceiveRight:
    return task.allocate()


@pytest.fixture
def watcher(new_client: NewClient, service: machport.ReceiveRight, notices: machport.ReceiveRight) -> Client:
    """A process with a send right to a ``service`` and a send-once right to ``notify``."""
    client = new_client("watcher")
    client.give("service", service.make_send().move())
    client.give("notify", notices.make_send_once().move())
    return client


def request(variant: int) -> str:
    """The call as the process makes it."""
    return (
        f"task.calls.mach_port_request_notification(task.name, watched.name, {variant}, 0, notify.name,"
        f" {c.MACH_MSG_TYPE_MOVE_SEND_ONCE})"
    )


def heard(notices: machport.ReceiveRight) -> list[Kind | type[machport.Message]]:
    kinds = []
    while True:
        try:
            kinds.append(type(notices.receive(0)))
        except machport.TimedOut:
            return list(kinds)


@WATCHED
def test_killed_before_it_asks_the_survivor_hears_that_its_send_once_right_went_unused(
    watcher: Client, notices: machport.ReceiveRight, make: str, variant: int, told: Kind
) -> None:
    watcher.do(make)
    watcher.begin(f"before_writing(die); {request(variant)}")
    watcher.wait_until_gone()
    assert heard(notices) == [SendOnceNotification]
    assert notices.status().sorights == 0


@WATCHED
def test_killed_while_it_asks_the_survivor_hears_one_of_the_two(
    watcher: Client, notices: machport.ReceiveRight, make: str, variant: int, told: Kind
) -> None:
    watcher.do(make)
    watcher.begin(f"before_reading(die); {request(variant)}")
    watcher.wait_until_gone()
    assert heard(notices) in ([SendOnceNotification], [told])
    assert notices.status().sorights == 0


@WATCHED
def test_killed_after_it_has_asked_the_survivor_hears_what_was_asked_for(
    watcher: Client, notices: machport.ReceiveRight, make: str, variant: int, told: Kind
) -> None:
    watcher.do(make)
    watcher.begin(f"after_reading(die); {request(variant)}")
    watcher.wait_until_gone()
    assert heard(notices) == [told]
    assert notices.status().sorights == 0


def test_a_process_killed_with_the_notify_port_takes_its_requests_along_and_the_watched_port_lives_on(
    task: machport.Task, new_client: NewClient
) -> None:
    client, port = new_client("client"), task.allocate()
    sender = port.make_send()
    client.give("notify", task.allocate().move())
    client.give("right", sender.copy())
    client.do("right.request_dead_name(notify)")
    client.die()
    sender.send(b"still here")
    assert port.receive(0).body == b"still here"
    assert task.calls.mach_port_get_attributes(task.name, port.name, c.MACH_PORT_DNREQUESTS_SIZE) == [0]


def test_a_dead_name_is_told_once_to_each_of_many_watchers_when_the_receiver_is_killed(
    task: machport.Task, new_client: NewClient
) -> None:
    server, others = new_client("server"), [new_client(f"watcher {number}") for number in range(3)]
    port = task.allocate()
    sender = port.make_send()
    server.give("port", port.move())
    for other in others:
        other.give("right", sender.copy())
        other.do("notices = task.allocate(); right.request_dead_name(notices)")
    server.die()
    for other in others:
        assert other.do("notice = notices.receive(0)") is None
        assert other.do("notice.name == right.name")
        assert other.do("notices.status().msgcount") == 0
        # The reference that came with the notification, and the one of the right (N19).
        assert other.do("task.calls.mach_port_get_refs(task.name, right.name, 4)") == 2
