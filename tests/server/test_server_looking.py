"""The daemon looks at busy rings only: whose ring is not looked at has an armed bell, or waits in a call.

A real ``Traps`` object with the channels of two threads, whose side the test plays by hand.  Promise 3, nobody hangs:
in every short order of what threads and daemon do, nothing that was published is left behind.
"""

from __future__ import annotations

import itertools
import os
import socket
import struct
from collections.abc import Callable, Iterator

import pytest

from machport.abi import constants as c
from machport.abi import message as layout
from machport.abi import traps as t
from machport.carrier import packet, rings
from machport.carrier.rings import RingPair
from machport.kernel import ports, tasks
from machport.kernel.kernel import Kernel
from machport.peer.attestation import Peer
from machport.ring import layout as ring_layout
from machport.ring import map_shared
from machport.server.bootstrap import Bootstrap
from machport.server.closer import Closer
from machport.server.connection import Channel, Client
from machport.server.traps import Traps

#: Bytes of each ring: a handful of short traps, and of their answers.
CAPACITY = 64
LONGEST_SPIN = 1000


class Thread:
    """A thread's side of its channel, one step at a time, as a client takes them."""

    def __init__(self, looking: Looking, pair: RingPair) -> None:
        ours, self.sock = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.setblocking(False)
        self.looking = looking
        self.channel = Channel(ours, looking.closer, pair)
        pair.daemon_bell.arm()
        mapping = map_shared(pair.descriptor, os.fstat(pair.descriptor).st_size)
        self.word = memoryview(mapping)[:4]
        self.ends = RingPair(mapping)
        self.on_its_way = False
        self.asked = self.answered = 0

    def publish(self, payload: bytes) -> bool:
        """Write a trap, and ring; whether there was room for it."""
        if self.ends.down.enqueue(payload) & ~ring_layout.WAKE:
            return False
        self.asked += 1
        self.ring()
        return True

    def ring(self) -> None:
        if self.ends.daemon_bell.ring():
            assert not self.on_its_way, "a second wake-up for one armed bell"
            self.on_its_way = True

    def deliver(self) -> None:
        """The daemon reads the wake packet, if there is one."""
        if self.on_its_way:
            self.on_its_way = False
            self.looking.traps.attend(self.channel)

    def read(self) -> list[bytes]:
        """All answers that are there."""
        answers = self.ends.up.dequeue_many()
        self.answered += len(answers)
        self.ring()
        return answers

    def read_one(self) -> bytes | None:
        answer = self.ends.up.dequeue()
        if answer is not None:
            self.answered += 1
            self.ring()
        return answer

    def __repr__(self) -> str:
        channel = self.channel
        return (
            f"asked {self.asked}, answered {self.answered}, bell {self.bell}, waiter {channel.waiter is not None},"
            f" busy {channel.is_busy}, kept {len(channel.outbox)}, "
            f"in the ring {self.ends.down.unread()} and {self.ends.up.unread()}"
        )

    @property
    def bell(self) -> int:
        value: int = struct.unpack("=I", self.word)[0]
        return value

    def check(self) -> None:
        """What must hold whenever the daemon is about to sleep."""
        if self.on_its_way or self.channel.waiter is not None:
            return
        assert self.bell == 1, "nobody looks at this ring, and its bell is not armed"
        if not self.channel.outbox:
            assert not self.ends.down.data_available(), "a trap is in a ring that nobody looks at"

    def close(self) -> None:
        self.sock.close()
        self.channel.close()


class Looking:
    """The daemon's part, and two threads of one task."""

    def __init__(self, capacity: int) -> None:
        self.kernel = Kernel()
        self.closer = Closer()
        self.writable = list[Channel]()
        bootstrap = Bootstrap(self.kernel)
        self.traps = Traps(self.kernel, bootstrap, {}, self.writable.append, lambda released: None)
        self.task = tasks.create_task(self.kernel, "test")
        self.port = ports.mach_port_allocate(self.kernel, self.task, c.MACH_PORT_RIGHT_RECEIVE)
        self.control, self.other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.client = Client(Peer(0, 0, 0, -1), self.task, Channel(self.control, self.closer))
        self.threads = [Thread(self, rings.create(capacity)) for _ in range(2)]
        for thread in self.threads:
            self.client.add(thread.channel)

    def look(self) -> None:
        """The daemon looks until it would sleep."""
        for _ in range(LONGEST_SPIN):
            if not self.traps.look():
                break
        else:
            raise AssertionError(f"the daemon looks at rings for ever, and nobody says anything: {self.threads}")
        assert not self.traps.broken
        for thread in self.threads:
            thread.check()

    def send(self) -> bytes:
        """A trap that sends a message to the port."""
        header = layout.pack(c.MACH_MSG_TYPE_MAKE_SEND, self.port)
        return t.MsgTrap(c.MACH_SEND_MSG | c.MACH_SEND_TIMEOUT, header).pack()

    def receive(self, timeout_ms: int | None = None) -> bytes:
        """A trap that waits for one, and tells only that it came: it is too large."""
        option = c.MACH_RCV_MSG | c.MACH_RCV_LARGE | (0 if timeout_ms is None else c.MACH_RCV_TIMEOUT)
        return t.MsgTrap(option, rcv_name=self.port, rcv_limit=0, timeout_ms=timeout_ms or 0).pack()

    def settle(self) -> None:
        """Everything that was published is answered, and read."""
        for _ in range(LONGEST_SPIN):
            for thread in self.threads:
                thread.deliver()
            self.look()
            for thread in self.threads:
                thread.read()
            if any(thread.channel.waiter is not None for thread in self.threads):
                self.interrupt()
            if all(thread.answered == thread.asked and not thread.on_its_way for thread in self.threads):
                break
        for thread in self.threads:
            assert thread.answered == thread.asked
        self.look()

    def interrupt(self) -> None:
        for thread in self.threads:
            self.traps.take(thread.channel, t.INTERRUPT.pack(), [])
            self.traps.settle()

    def close(self) -> None:
        for thread in self.threads:
            thread.close()
        self.control.close()
        self.other.close()


@pytest.fixture
def new_looking(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Looking]]:
    """A daemon that retires rings as soon as it may, so that each look comes to its end at once."""
    monkeypatch.setenv("MACHPORT_SPIN_US", "0")
    made = list[Looking]()

    def make(capacity: int = CAPACITY) -> Looking:
        made.append(Looking(capacity))
        return made[-1]

    yield make
    for looking in made:
        looking.close()


SELF = t.TASK_SELF.pack()
ACTIONS: dict[str, Callable[[Looking], object]] = {
    "first asks": lambda looking: looking.threads[0].publish(SELF),
    "second asks": lambda looking: looking.threads[1].publish(SELF),
    "first waits": lambda looking: looking.threads[0].publish(looking.receive()),
    "second sends": lambda looking: looking.threads[1].publish(looking.send()),
    "first is heard": lambda looking: looking.threads[0].deliver(),
    "second is heard": lambda looking: looking.threads[1].deliver(),
    "daemon looks": lambda looking: looking.look(),
    "first reads": lambda looking: looking.threads[0].read_one(),
}


@pytest.mark.parametrize("first", ACTIONS)
def test_in_every_short_order_nothing_is_left_behind(new_looking: Callable[..., Looking], first: str) -> None:
    """Each order of four steps, one behind the other, with all that the orders before have left in place."""
    looking = new_looking(256)
    for rest in itertools.product(ACTIONS, repeat=2):
        for action in (first, *rest):
            ACTIONS[action](looking)
        looking.look()
        looking.settle()


def test_answers_that_had_no_room_come_in_order_when_the_thread_has_read(new_looking: Callable[..., Looking]) -> None:
    """Traps may stand behind an answer that has no room; the thread's bell tells when there is some."""
    looking = new_looking(256)
    thread, other = looking.threads
    me = tasks.mach_task_self(looking.kernel, looking.task)
    traps = [
        trap
        for number in range(30)
        for trap in (t.SET_CONTEXT.pack(me, looking.port, number), t.GET_CONTEXT.pack(me, looking.port))
    ]
    answers = list[bytes]()
    while len(answers) < len(traps):
        while thread.asked < len(traps) and thread.publish(traps[thread.asked]):
            thread.deliver()
            looking.look()
        assert other.publish(SELF)
        other.deliver()
        looking.look()
        assert other.read(), "the other thread is served meanwhile"
        answer = thread.read_one()
        assert answer is not None
        answers.append(answer)
        thread.deliver()
        looking.look()
    assert answers[1::2] == [t.GET_CONTEXT.pack_answer((number,)) for number in range(30)]


def test_who_never_reads_is_not_looked_at_and_keeps_nobody_from_sleep(new_looking: Callable[..., Looking]) -> None:
    """A full ring up and a full ring down: the daemon sleeps (``look`` returns False) until the thread rings."""
    looking = new_looking()
    thread = looking.threads[0]
    while thread.publish(SELF):
        thread.deliver()
        looking.look()
    asked = thread.asked
    assert len(thread.channel.outbox) == 1, "no trap is carried out whose answer has no room"
    assert not thread.channel.is_busy
    while thread.answered < asked:
        assert thread.read_one() is not None
        thread.deliver()
        looking.look()
    assert thread.read_one() is None


def fill(sock: socket.socket) -> None:
    """Packets until the other end has no room for another one."""
    try:
        while True:
            sock.send(bytes(1000))
    except BlockingIOError:
        pass


def empty(sock: socket.socket) -> None:
    try:
        while packet.receive(sock):
            pass
    except BlockingIOError:
        pass
