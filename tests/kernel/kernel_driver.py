"""The kernel as the tests see it: three tasks whose calls read like sentences.

Every helper makes one call of ``machport.kernel`` and then collects the waiters that it finished, as a driver must.
Names are the plain numbers of the kernel.  Helpers without "try" in their name assert success.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import pytest
from kernel_snapshot import snapshot

from machport.abi import constants as c
from machport.abi import message as layout
from machport.abi.status import PortStatus
from machport.kernel import messages, phase, ports, requests, tasks
from machport.kernel.dialect import MANUAL, Dialect
from machport.kernel.kernel import Kernel
from machport.kernel.port import Port
from machport.kernel.refusal import Refusal
from machport.kernel.space import DEFAULT_NAME_LIMIT
from machport.kernel.waiter import Result, Waiter

T = TypeVar("T")

NULL: Final = c.MACH_PORT_NULL
DEAD: Final = c.MACH_PORT_DEAD
MOVE_RECEIVE: Final = c.MACH_MSG_TYPE_MOVE_RECEIVE
MOVE_SEND: Final = c.MACH_MSG_TYPE_MOVE_SEND
MOVE_SEND_ONCE: Final = c.MACH_MSG_TYPE_MOVE_SEND_ONCE
COPY_SEND: Final = c.MACH_MSG_TYPE_COPY_SEND
MAKE_SEND: Final = c.MACH_MSG_TYPE_MAKE_SEND
MAKE_SEND_ONCE: Final = c.MACH_MSG_TYPE_MAKE_SEND_ONCE
DISPOSITIONS: Final = (MOVE_RECEIVE, MOVE_SEND, MOVE_SEND_ONCE, COPY_SEND, MAKE_SEND, MAKE_SEND_ONCE)

SEND: Final = c.MACH_PORT_TYPE_SEND
RECEIVE: Final = c.MACH_PORT_TYPE_RECEIVE
SEND_RECEIVE: Final = c.MACH_PORT_TYPE_SEND_RECEIVE
SEND_ONCE: Final = c.MACH_PORT_TYPE_SEND_ONCE
PORT_SET: Final = c.MACH_PORT_TYPE_PORT_SET
DEAD_NAME: Final = c.MACH_PORT_TYPE_DEAD_NAME
REQUESTED: Final = c.MACH_PORT_TYPE_DNREQUEST

SEND_RIGHT: Final = c.MACH_PORT_RIGHT_SEND
RECEIVE_RIGHT: Final = c.MACH_PORT_RIGHT_RECEIVE
SEND_ONCE_RIGHT: Final = c.MACH_PORT_RIGHT_SEND_ONCE
SET_RIGHT: Final = c.MACH_PORT_RIGHT_PORT_SET
DEAD_RIGHT: Final = c.MACH_PORT_RIGHT_DEAD_NAME

PORT_DESTROYED: Final = c.MACH_NOTIFY_PORT_DESTROYED
NO_SENDERS: Final = c.MACH_NOTIFY_NO_SENDERS
DEATH: Final = c.MACH_NOTIFY_DEAD_NAME
SEND_POSSIBLE: Final = c.MACH_NOTIFY_SEND_POSSIBLE

#: Told of a send-once right that was destroyed unused.
ONCE: Final = ("send-once",)
#: A number that no test uses as a name.
NOTHING: Final = 0xDEAD00

_SEND: Final = c.MACH_SEND_MSG | c.MACH_SEND_TIMEOUT
_RECEIVE: Final = c.MACH_RCV_MSG | c.MACH_RCV_TIMEOUT
ALL_TRAILER: Final = c.MACH_RCV_TRAILER_AV << c.MACH_RCV_TRAILER_ELEMENTS_SHIFT
ROOM: Final = 1 << 16

_WORDS: Final = {
    c.MACH_NOTIFY_PORT_DELETED: "port-deleted",
    c.MACH_NOTIFY_SEND_POSSIBLE: "send-possible",
    c.MACH_NOTIFY_NO_SENDERS: "no-senders",
    c.MACH_NOTIFY_DEAD_NAME: "dead-name",
}


@dataclass(frozen=True)
class Received:
    """A message as it arrived, or came back."""

    code: int
    bits: int
    size: int
    remote: int
    remote_kind: int
    local: int
    local_kind: int
    id: int
    rights: list[tuple[int, int]]
    descriptors: Sequence[layout.Descriptor]
    inline: bytes
    memory: Sequence[bytes]
    trailer: layout.Trailer | None

    @property
    def seqno(self) -> int:
        assert self.trailer is not None and self.trailer.seqno is not None
        return self.trailer.seqno

    def told(self) -> tuple[Any, ...]:
        """In a word and a number: what a notification says, or the id of an ordinary message."""
        if self.local_kind != MOVE_SEND_ONCE or not c.MACH_NOTIFY_FIRST < self.id <= c.MACH_NOTIFY_LAST:
            return "message", self.id
        if self.id == c.MACH_NOTIFY_SEND_ONCE:
            return ONCE
        if self.id == c.MACH_NOTIFY_PORT_DESTROYED:
            return "port-destroyed", self.rights[0][0]
        return _WORDS[self.id], int.from_bytes(self.inline[8:12], "little")


def parse_result(result: Result) -> Received:
    """Take a received message, or one given back, apart."""
    assert result.buffer is not None
    size = layout.HEADER.unpack_from(result.buffer)[1]
    parsed = layout.parse(result.buffer[:size])
    end = layout.round_up(min(size, len(result.buffer)))
    if result.code in (c.MACH_RCV_TOO_LARGE, c.MACH_RCV_HEADER_ERROR | c.MACH_MSG_IPC_SPACE):
        end = layout.HEADER_SIZE
    trailer = layout.parse_trailer(result.buffer[end:]) if len(result.buffer) > end else None
    return Received(
        result.code,
        parsed.bits,
        size,
        parsed.remote,
        parsed.remote_disposition,
        parsed.local,
        parsed.local_disposition,
        parsed.id,
        [(d.name, d.disposition) for d in parsed.descriptors if d.type == c.MACH_MSG_PORT_DESCRIPTOR],
        parsed.descriptors,
        parsed.inline,
        result.memory,
        trailer,
    )


class World:
    """A kernel and its three tasks."""

    def __init__(self, dialect: Dialect, name_limit: int) -> None:
        self.kernel = Kernel(dialect, name_limit=name_limit)
        self.actors = [Actor(self, label) for label in "abc"]

    def call(self, function: Callable[..., T], *arguments: Any, **options: Any) -> T:
        """One call on the kernel, and then what a driver does."""
        try:
            return function(self.kernel, *arguments, **options)
        finally:
            messages.collect(self.kernel)

    def snapshot(self) -> Any:
        return snapshot(self.kernel)

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        before = self.snapshot()
        yield
        assert self.snapshot() == before

    @contextmanager
    def refuses(self, code: int) -> Iterator[None]:
        """The call is refused with the code and changes nothing."""
        with self.unchanged(), self.refuses_and_consumes(code):
            yield

    @contextmanager
    def refuses_and_consumes(self, code: int) -> Iterator[None]:
        """The call is refused with the code; what it does besides is for the test to say."""
        with pytest.raises(Refusal) as caught:
            yield
        assert caught.value.code == code


class Actor:
    """A task, and its calls."""

    def __init__(self, world: World, label: str) -> None:
        self.world = world
        self.task = tasks.create_task(world.kernel, label, (501, 20, *range(8)))

    def __repr__(self) -> str:
        return self.task.label

    @property
    def kernel(self) -> Kernel:
        return self.world.kernel

    # Names

    def allocate(self, right: int) -> int:
        return self.world.call(ports.mach_port_allocate, self.task, right)

    def port(self) -> int:
        """A new receive right."""
        return self.allocate(RECEIVE_RIGHT)

    def port_with_send(self, urefs: int = 1) -> int:
        """A new receive right and a send right under one name."""
        name = self.port()
        self.insert(name, name, MAKE_SEND)
        if urefs > 1:
            self.mod_refs(name, SEND_RIGHT, urefs - 1)
        return name

    def pset(self, *members: int) -> int:
        """A new set with members."""
        name = self.allocate(SET_RIGHT)
        for member in members:
            self.move_member(member, name)
        return name

    def dead_name(self, urefs: int = 1) -> int:
        name = self.allocate(DEAD_RIGHT)
        if urefs > 1:
            self.mod_refs(name, DEAD_RIGHT, urefs - 1)
        return name

    def allocate_name(self, name: int, right: int) -> None:
        self.world.call(ports.mach_port_allocate_name, self.task, right, name)

    def rename(self, old: int, new: int) -> None:
        self.world.call(ports.mach_port_rename, self.task, old, new)

    def names(self) -> dict[int, int]:
        return dict(ports.mach_port_names(self.kernel, self.task))

    def type(self, name: int) -> int:
        return ports.mach_port_type(self.kernel, self.task, name)

    # References

    def refs(self, name: int, right: int) -> int:
        return ports.mach_port_get_refs(self.kernel, self.task, name, right)

    def urefs(self, name: int) -> int:
        """References of a send right or a dead name."""
        return self.refs(name, DEAD_RIGHT if self.type(name) & DEAD_NAME else SEND_RIGHT)

    def mod_refs(self, name: int, right: int, delta: int) -> None:
        self.world.call(ports.mach_port_mod_refs, self.task, name, right, delta)

    def deallocate(self, name: int) -> None:
        self.world.call(ports.mach_port_deallocate, self.task, name)

    def destroy(self, name: int) -> None:
        self.world.call(ports.mach_port_destroy, self.task, name)

    def kill(self, name: int) -> None:
        """Destroy a receive right, and nothing else under its name."""
        self.mod_refs(name, RECEIVE_RIGHT, -1)

    def terminate(self) -> None:
        self.world.call(tasks.task_terminate, self.task)

    # Rights

    def insert(self, name: int, right: int, disposition: int, *, caller: Actor | None = None) -> None:
        """Into this task under ``name``; the right comes from the caller, which is this task if not said."""
        self.world.call(ports.mach_port_insert_right, (caller or self).task, self.task, name, right, disposition)

    def take(self, owner: Actor, name: int, disposition: int) -> int:
        """Extract a right of another task; its name here."""
        return self.world.call(ports.mach_port_extract_right, self.task, owner.task, name, disposition)[0]

    def request(
        self,
        variant: int,
        name: int,
        notify: int = NULL,
        *,
        sync: int = 0,
        how: int = MAKE_SEND_ONCE,
        caller: Actor | None = None,
    ) -> int:
        """Ask for a notification on this task's name; ``notify`` is a name of the caller."""
        return self.world.call(
            requests.mach_port_request_notification, (caller or self).task, self.task, name, variant, sync, notify, how
        )

    # Receive rights and sets

    def status(self, name: int) -> PortStatus:
        return ports.mach_port_get_receive_status(self.kernel, self.task, name)

    def srights(self, name: int) -> int:
        return ports.mach_port_get_srights(self.kernel, self.task, name)

    def set_qlimit(self, name: int, qlimit: int) -> None:
        self.world.call(ports.mach_port_set_qlimit, self.task, name, qlimit)

    def set_mscount(self, name: int, mscount: int) -> None:
        self.world.call(ports.mach_port_set_mscount, self.task, name, mscount)

    def set_seqno(self, name: int, seqno: int) -> None:
        self.world.call(ports.mach_port_set_seqno, self.task, name, seqno)

    def move_member(self, member: int, after: int) -> None:
        self.world.call(ports.mach_port_move_member, self.task, member, after)

    def members(self, name: int) -> list[int]:
        return ports.mach_port_get_set_status(self.kernel, self.task, name)

    def port_behind(self, name: int) -> Port:
        """The kernel's own object, to look at."""
        port = self.task.space.entries[name].port
        assert port is not None
        return port

    # Messages

    def mach_msg(self, option: int, buffer: bytes | memoryview = b"", **options: Any) -> Waiter:
        return self.world.call(messages.mach_msg, self.task, option, buffer, **options)

    def try_send(
        self,
        remote: int,
        disposition: int = COPY_SEND,
        *,
        id: int = 1,
        reply: int = NULL,
        reply_disposition: int = 0,
        rights: Sequence[tuple[int, int]] = (),
        inline: bytes = b"",
        option: int = _SEND,
    ) -> Waiter:
        """Send ``rights``, pairs of name and disposition, in the body of a message."""
        buffer = layout.pack(
            layout.bits(disposition, reply_disposition),
            remote,
            reply,
            id,
            descriptors=[layout.port_descriptor(name, how) for name, how in rights],
            inline=inline,
        )
        return self.mach_msg(option, buffer)

    def send(self, remote: int, disposition: int = COPY_SEND, **options: Any) -> None:
        result = self.try_send(remote, disposition, **options).result
        assert result is not None and result.code == c.MACH_MSG_SUCCESS

    def send_error(self, remote: int, disposition: int = COPY_SEND, **options: Any) -> int:
        """The code with which a send fails; nothing comes back."""
        result = self.try_send(remote, disposition, **options).result
        assert result is not None and result.buffer is None
        return result.code

    def wait_to_send(
        self, remote: int, disposition: int = COPY_SEND, *, receive: bool = False, **options: Any
    ) -> Waiter:
        """Send to a full queue without a timeout, perhaps to receive after that."""
        option = c.MACH_SEND_MSG | c.MACH_RCV_MSG if receive else c.MACH_SEND_MSG
        waiter = self.try_send(remote, disposition, option=option, **options)
        assert waiter.phase == phase.SEND
        return waiter

    def fill(self, name: int) -> int:
        """Fill the queue of a receive right of this task; how many messages that took."""
        count = 0
        while not self.port_behind(name).full():
            self.send(name, MAKE_SEND, id=100 + count)
            count += 1
        return count

    def try_receive(self, name: int, *, option: int = _RECEIVE | ALL_TRAILER, limit: int = ROOM) -> Result:
        result = self.mach_msg(option, rcv_limit=limit, rcv_name=name).result
        assert result is not None
        return result

    def receive(self, name: int) -> Received:
        result = self.try_receive(name)
        assert result.code == c.MACH_MSG_SUCCESS
        return parse_result(result)

    def wait_to_receive(self, name: int, *, option: int = 0, limit: int = ROOM) -> Waiter:
        """Receive without a timeout where nothing waits."""
        waiter = self.mach_msg(c.MACH_RCV_MSG | ALL_TRAILER | option, rcv_limit=limit, rcv_name=name)
        assert waiter.phase == phase.RECEIVE
        return waiter

    def told(self, name: int) -> list[tuple[Any, ...]]:
        """All that waits at a port or set, received: notifications and messages in a word and a number."""
        found = []
        while (result := self.try_receive(name)).code != c.MACH_RCV_TIMED_OUT:
            assert result.code == c.MACH_MSG_SUCCESS
            found.append(parse_result(result).told())
        return found

    # Waiters

    def expire(self, waiter: Waiter) -> Result:
        self.world.call(messages.expire, waiter)
        return done(waiter)

    def interrupt(self, waiter: Waiter) -> Result:
        self.world.call(messages.interrupt, waiter)
        return done(waiter)


def done(waiter: Waiter) -> Result:
    """The result of a call that is over."""
    assert waiter.phase == phase.DONE and waiter.result is not None
    return waiter.result


def waits(waiter: Waiter) -> bool:
    return waiter.result is None


def three_tasks(dialect: Dialect = MANUAL, *, name_limit: int = DEFAULT_NAME_LIMIT) -> tuple[Actor, Actor, Actor]:
    """Three tasks of a new kernel."""
    a, b, c = World(dialect, name_limit).actors
    return a, b, c
