"""Calls with tags, in the daemon: a channel of which many calls wait is looked at, and let go of, as any other.

Promise 3: in every short order of what a loop, another thread and the daemon do, nothing is left behind.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable

import pytest
from test_server_looking import SELF, Looking, Thread, new_looking  # noqa: F401

from machport.abi import constants as c
from machport.abi import traps as t
from machport.abi.errors import ProtocolError
from machport.abi.traps import pack_async, unpack_msg, unpack_tagged

NewLooking = Callable[..., Looking]


def asynchronous(tag: int, trap: bytes) -> bytes:
    payload = pack_async(tag, unpack_msg(trap))
    assert isinstance(payload, bytes)
    return payload


#: What may come of a call: full queues and long messages are told, and lose nothing.
CODES = (
    c.MACH_MSG_SUCCESS,
    c.MACH_SEND_TIMED_OUT,
    c.MACH_RCV_TOO_LARGE,
    c.MACH_RCV_INTERRUPTED,
    c.MACH_RCV_TIMED_OUT,
)


class Loop:
    """The first thread, as a loop uses its channel: every tag once."""

    def __init__(self, looking: Looking) -> None:
        self.looking = looking
        self.thread: Thread = looking.threads[0]
        self.tags = itertools.count(1)
        self.under_way = set[int]()

    def ask(self, trap: bytes) -> None:
        tag = next(self.tags)
        if self.thread.publish(asynchronous(tag, trap)):
            self.under_way.add(tag)

    def cancel(self) -> None:
        if self.under_way and self.thread.publish(t.CANCEL.pack(min(self.under_way))):
            self.thread.asked -= 1

    def read(self) -> None:
        for entry in self.thread.read():
            tag, answer = unpack_tagged(entry)
            self.under_way.remove(tag)
            assert answer.code in CODES

    def settle(self) -> None:
        while self.under_way:
            self.thread.deliver()
            self.looking.look()
            self.read()
            self.cancel()
        other = self.looking.threads[1]
        while other.answered != other.asked:
            other.deliver()
            self.looking.look()
            other.read()
        self.looking.look()
        assert not self.thread.channel.tagged and self.thread.answered == self.thread.asked


def take(looking: Looking) -> bytes:
    """A trap that receives a message, which is destroyed: there is no room for it."""
    return t.MsgTrap(c.MACH_RCV_MSG | c.MACH_RCV_TIMEOUT, rcv_name=looking.port).pack()


ACTIONS: dict[str, Callable[[Loop], object]] = {
    "loop waits": lambda loop: loop.ask(loop.looking.receive()),
    "loop sends": lambda loop: loop.ask(loop.looking.send()),
    "loop polls": lambda loop: loop.ask(loop.looking.receive(0)),
    "loop cancels": lambda loop: loop.cancel(),
    "other takes": lambda loop: loop.looking.threads[1].publish(take(loop.looking)),
    "other sends": lambda loop: loop.looking.threads[1].publish(loop.looking.send()),
    "loop is heard": lambda loop: loop.thread.deliver(),
    "other is heard": lambda loop: loop.looking.threads[1].deliver(),
    "daemon looks": lambda loop: loop.looking.look(),
    "loop reads": lambda loop: loop.read(),
}


@pytest.mark.parametrize("first", ACTIONS)
def test_in_every_short_order_nothing_is_left_behind(
    new_looking: NewLooking,  # noqa: F811
    first: str,
) -> None:
    loop = Loop(new_looking(512))
    for rest in itertools.product(ACTIONS, repeat=2):
        for action in (first, *rest):
            ACTIONS[action](loop)
        loop.looking.look()
        loop.settle()


def test_a_loop_whose_call_ended_need_not_wake_the_daemon(new_looking: NewLooking) -> None:  # noqa: F811
    """It is about to speak: its ring is looked at, and its bell silent."""
    looking = new_looking()
    loop = Loop(looking)
    loop.ask(looking.receive())
    loop.thread.deliver()
    looking.look()
    assert loop.thread.bell == 1 and not loop.thread.channel.is_busy
    looking.traps.take(looking.threads[1].channel, looking.send(), [])
    assert loop.thread.channel.is_busy and loop.thread.bell == 0
    assert loop.thread.publish(SELF) and not loop.thread.on_its_way
    looking.look()
    assert len(loop.thread.read()) == 2


def test_a_plain_call_that_waits_holds_up_what_is_asked_behind_it_and_no_answer(
    new_looking: NewLooking,  # noqa: F811
) -> None:
    looking = new_looking(512)
    loop = Loop(looking)
    loop.ask(looking.receive())
    assert loop.thread.publish(looking.receive())
    loop.ask(looking.receive(0))
    loop.thread.deliver()
    looking.look()
    assert loop.thread.read() == []
    looking.traps.take(looking.threads[1].channel, looking.send(), [])
    looking.look()
    answers = loop.thread.read()
    assert [struct.unpack_from("<I", answer)[0] for answer in answers] == [1, c.MACH_RCV_TOO_LARGE, 2]


@pytest.mark.parametrize(
    "payload",
    [
        t.ASYNC.pack(1),
        t.ASYNC.pack(1) + SELF,
        t.ASYNC.pack(1) + t.SEND_MANY.pack(),
        t.ASYNC.pack(1) + struct.pack("<I", t.MACH_MSG),
        t.CANCEL.pack(1) + b"more",
        t.CANCEL.pack(1)[:-1],
    ],
    ids=["nothing", "another trap", "a batch", "half a mach_msg", "a long cancel", "a short cancel"],
)
def test_what_is_no_call_with_a_tag_breaks_the_protocol(
    new_looking: NewLooking,  # noqa: F811
    payload: bytes,
) -> None:
    looking = new_looking()
    with pytest.raises(ProtocolError):
        looking.traps.take(looking.threads[0].channel, payload, [])


def test_a_tag_is_used_once_at_a_time(new_looking: NewLooking) -> None:  # noqa: F811
    looking = new_looking()
    channel = looking.threads[0].channel
    looking.traps.take(channel, asynchronous(7, looking.receive(0)), [])
    looking.traps.take(channel, asynchronous(7, looking.receive()), [])
    with pytest.raises(ProtocolError, match="second call with the tag 7"):
        looking.traps.take(channel, asynchronous(7, looking.receive()), [])


def test_a_tag_that_nobody_has_is_cancelled_for_nothing_and_where_there_never_was_one_by_mistake(
    new_looking: NewLooking,  # noqa: F811
) -> None:
    looking = new_looking()
    loop = Loop(looking)
    with pytest.raises(ProtocolError, match="never was one"):
        looking.traps.take(loop.thread.channel, t.CANCEL.pack(1), [])
    loop.ask(looking.receive())
    loop.thread.deliver()
    looking.look()
    looking.traps.take(loop.thread.channel, t.CANCEL.pack(2), [])
    assert loop.thread.read() == [] and looking.task.waiters


def test_the_connection_itself_has_no_calls_with_tags(new_looking: NewLooking) -> None:  # noqa: F811
    looking = new_looking()
    with pytest.raises(ProtocolError, match="where the connection began"):
        looking.traps.take(looking.client.control, asynchronous(1, looking.receive()), [])


def test_a_trap_without_a_tag_comes_by_the_ring_or_not_at_all(new_looking: NewLooking) -> None:  # noqa: F811
    """Its answer would wait for room in the ring, and nobody would stop the next."""
    looking = new_looking()
    channel = looking.threads[0].channel
    looking.traps.take(channel, asynchronous(1, looking.receive()), [])
    with pytest.raises(ProtocolError, match="without a tag"):
        looking.traps.take(channel, SELF, [])


def test_one_call_too_many_is_refused_and_who_never_reads_is_cut_off(
    new_looking: NewLooking,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(t, "ASYNC_MAX", 3)
    looking = new_looking(256)
    loop = Loop(looking)
    channel = loop.thread.channel
    for tag in range(3):
        looking.traps.take(channel, asynchronous(tag, looking.receive()), [])
    looking.traps.take(channel, asynchronous(3, looking.receive()), [])
    tag, answer = unpack_tagged(loop.thread.read()[0])
    assert (tag, answer.code, answer.rule) == (3, c.KERN_RESOURCE_SHORTAGE, "async")
    while len(channel.outbox) < 3:
        looking.traps.take(channel, asynchronous(4, looking.receive()), [])
    with pytest.raises(ProtocolError, match="does not read"):
        looking.traps.take(channel, asynchronous(4, looking.receive()), [])


def test_a_channel_that_ends_leaves_no_waiter_and_no_deadline(new_looking: NewLooking) -> None:  # noqa: F811
    looking = new_looking()
    channel = looking.threads[0].channel
    for tag in range(5):
        looking.traps.take(channel, asynchronous(tag, looking.receive(10_000)), [])
    assert len(looking.task.waiters) == 5
    calls = list(channel.tagged.values()) if channel.tagged else []
    looking.traps.forget(channel)
    looking.traps.settle()
    assert not looking.task.waiters and not channel.tagged
    assert [(call.waiter, call.deadline) for call in calls] == [(None, None)] * 5
