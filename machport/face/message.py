"""Messages as objects, and the notifications of the kernel, one class each.

A received message owns the rights in it until they are taken or the message is closed.  A notification is what comes
from the kernel by a send-once right; no other task can make one (N62).
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from machport.abi import constants as c
from machport.abi import message as layout
from machport.abi import words as w
from machport.abi.errors import ClosedRight, DeadPort, InvalidArgument, MachError, ProtocolError
from machport.abi.message import Parsed, round_up
from machport.abi.traps import Buffer
from machport.face.closing import Closing
from machport.face.deaths import death_at
from machport.face.rights import AnyReceiveRight, AnySendRight, DeadName, Right, SendOnceRight, Transfer, received_right
from machport.peer.death import Obituary

if TYPE_CHECKING:
    from machport.face.task import AnyTask

_LENGTH_SIZE = 4
_NOBODY_WAITS = "whoever asked does not wait any more; pass it over"
#: What the kernel says it is, as the sender of its notifications (N62).
_KERNEL_UID, _KERNEL_GID = layout.KERNEL_TOKENS[:2]


def pack_body(body: bytes | bytearray | memoryview) -> bytes:
    """Inline data of any length: its length as u32, the data, zeros to a multiple of four."""
    data = memoryview(body).tobytes()
    return (len(data).to_bytes(_LENGTH_SIZE, "little") + data).ljust(layout.round_up(_LENGTH_SIZE + len(data)), b"\0")


class Message(Closing):
    """A received message.

    Attributes:
        id: ``msgh_id``, free for sender and receiver to agree on.
        body: the data that was given to ``send``.
        view: the same as a read-only view, which takes no copy of a long one.
        inline: the inline data as it is in the message, for senders of other conventions.
        rights: the rights that came along; None for a null one, a ``DeadName`` if its port died on the way.
        memory: the out-of-line regions, as read-only views.
        reply_right: where the answer goes: a send-once or send right, or None.
        port: name of the receive right that the message came to.
        seqno: its number at that port.
        sender: (euid, egid) of the sender, attested.
        pid: process of the sender, attested.
    """

    __slots__ = (
        "_buffer",
        "_inline_at",
        "_inline_end",
        "id",
        "memory",
        "pid",
        "port",
        "reply_right",
        "rights",
        "sender",
        "seqno",
        "task",
    )

    def begin(self, task: AnyTask, buffer: Buffer, size: int, memory: Sequence[Buffer]) -> Message:
        """Take the message apart that came in ``buffer``: ``size`` bytes, and its audit trailer behind them."""
        at, tail = w.address(buffer), round_up(size)
        bits = w.u32(at, 0)
        self.task = task
        self._buffer = buffer
        self._inline_at, self._inline_end = w.HEADER_SIZE, size
        self.id = w.u32(at, 20)
        self.port = w.u32(at, 12)
        self.reply_right = received_right(task, w.u32(at, 8), bits & 0x1F)
        self.rights: list[Right | None] = []
        self.memory: list[memoryview] = []
        self.seqno = w.u32(at, tail + w.SEQNO_AT)
        self.sender = (w.u32(at, tail + w.SENDER_AT), w.u32(at, tail + w.SENDER_AT + 4))
        self.pid = w.u32(at, tail + w.PID_AT)
        if bits & c.MACH_MSGH_BITS_COMPLEX:
            self._take(layout.parse(w.part(buffer, 0, size)), memory)
        return self

    def _take(self, parsed: Parsed, memory: Sequence[Buffer]) -> None:
        self._inline_at = self._inline_end - len(parsed.inline)
        regions = iter(memory)
        for descriptor in parsed.descriptors:
            if descriptor.type == c.MACH_MSG_PORT_DESCRIPTOR:
                self.rights.append(received_right(self.task, descriptor.name, descriptor.disposition))
            elif descriptor.type == c.MACH_MSG_OOL_PORTS_DESCRIPTOR:
                for name in memoryview(next(regions)).cast("I"):
                    self.rights.append(received_right(self.task, name, descriptor.disposition))
            else:
                self.memory.append(memoryview(next(regions)).toreadonly())

    @property
    def inline(self) -> bytes:
        return bytes(w.part(self._buffer, self._inline_at, self._inline_end))

    @property
    def body(self) -> bytes:
        start, stop = self._body_range()
        return bytes(w.part(self._buffer, start, stop))

    @property
    def view(self) -> memoryview:
        start, stop = self._body_range()
        return memoryview(self._buffer)[start:stop]

    def _body_range(self) -> tuple[int, int]:
        """Where the data is that ``pack_body`` packed; all inline data if it is something else."""
        start, stop = self._inline_at, self._inline_end
        if stop - start >= _LENGTH_SIZE:
            length = w.u32(w.address(self._buffer), start)
            if stop - start == round_up(_LENGTH_SIZE + length):
                return start + _LENGTH_SIZE, start + _LENGTH_SIZE + length
        return start, stop

    @property
    def expects_reply(self) -> bool:
        """Whether somebody waits for an answer that has not been given."""
        return isinstance(self.reply_right, SendOnceRight | AnySendRight) and not self.reply_right.closed

    def reply(
        self,
        body: bytes | bytearray | memoryview = b"",
        *,
        id: int | None = None,
        rights: Sequence[Transfer] = (),
        memory: Sequence[bytes] = (),
    ) -> None:
        """Answer the message; its ``id`` is the request's plus 100 unless it is given.

        Raises:
            InvalidArgument: nobody asked for an answer.
            ClosedRight: it was answered, or closed.
            DeadPort: who asked is gone.
        """
        right = self.open_reply_right()
        if right is None:
            raise DeadPort(_NOBODY_WAITS, call="reply", task=self.task.label)
        number = (self.id + 100) & 0xFFFFFFFF if id is None else id
        if isinstance(right, SendOnceRight):
            try:
                right.send(body, id=number, rights=rights, memory=memory)
            except DeadPort as error:
                error.call, error.says = "reply", _NOBODY_WAITS
                raise
            return
        copy, timeout = c.MACH_MSG_TYPE_COPY_SEND, self.task.reply_timeout
        self.task.send(right.name, copy, body, number, rights, memory, None, timeout)
        right.close()

    def open_reply_right(self) -> SendOnceRight | AnySendRight | None:
        """The right that an answer goes by; None if whoever asked is gone.

        Raises:
            InvalidArgument: nobody asked for an answer.
            ClosedRight: it was answered, or closed.
        """
        right = self.reply_right
        if isinstance(right, DeadName):
            return None
        if not isinstance(right, SendOnceRight | AnySendRight):
            raise InvalidArgument(
                f"{type(self).__name__} {self.id} was sent, not called, and nobody waits; look at expects_reply",
                task=self.task.label,
            )
        if right.closed:
            raise ClosedRight("the message was answered or closed already", task=self.task.label)
        return right

    def close(self) -> None:
        """Give up every right of the message that was not taken: who waits for an answer learns that none comes.

        A right is taken by keeping its object and setting its place in ``rights`` to None.
        """
        if self.reply_right is not None:
            with contextlib.suppress(MachError):
                self.reply_right.close()
        self.close_rights()

    def close_rights(self) -> None:
        """Give up every right in ``rights``; the answer is still to be given."""
        for right in self.rights:
            if right is not None:
                with contextlib.suppress(MachError):
                    right.close()

    def __repr__(self) -> str:
        size = self._inline_end - self._inline_at
        return f"<{type(self).__name__} id={self.id} {size} bytes, {len(self.rights)} rights>"


class Notification(Message):
    """A message from the kernel about a right."""

    __slots__ = ()

    msgh_id = 0

    @property
    def word(self) -> int:
        """The name or count in the notification."""
        return int.from_bytes(self.inline[8:12], "little")


class PortDeletedNotification(Notification):
    """A name with a dead-name request was freed; it may denote something else by now."""

    __slots__ = ()

    msgh_id = c.MACH_NOTIFY_PORT_DELETED

    @property
    def name(self) -> int:
        """The name, in the space where the request was made."""
        return self.word


class SendPossibleNotification(Notification):
    """A message can be queued at the port of this name now."""

    __slots__ = ()

    msgh_id = c.MACH_NOTIFY_SEND_POSSIBLE

    @property
    def name(self) -> int:
        """The name, in the space where the request was made."""
        return self.word


class AnyPortDestroyedNotification(Notification):
    """The receive right that would have been destroyed, with its queue and its senders."""

    __slots__ = ()

    msgh_id = c.MACH_NOTIFY_PORT_DESTROYED

    @property
    def right(self) -> AnyReceiveRight:
        """The receive right, now of this task.

        Raises:
            ClosedRight: the port died on the way.
        """
        right = self.rights[0] if self.rights else None
        if not isinstance(right, AnyReceiveRight):
            raise ClosedRight("the port died on the way", task=self.task.label)
        return right

    @property
    def death(self) -> Obituary | None:
        """How the task ended that had the receive right; None if it gave the right up.  Asking costs a trap."""
        right = self.rights[0] if self.rights else None
        return None if right is None or right.closed else death_at(self.task, right.name)


class NoSendersNotification(Notification):
    """Nobody has a send right to the port any more."""

    __slots__ = ()

    msgh_id = c.MACH_NOTIFY_NO_SENDERS

    @property
    def count(self) -> int:
        """How many send rights had been made by then; fewer than now means the notification is stale (N44)."""
        return self.word


class SendOnceNotification(Notification):
    """A send-once right to this port was destroyed unused: the answer that was waited for will not come."""

    __slots__ = ()

    msgh_id = c.MACH_NOTIFY_SEND_ONCE


class DeadNameNotification(Notification):
    """The port behind a name died.  The notification holds one reference of the dead name; closing gives it back."""

    __slots__ = ()

    msgh_id = c.MACH_NOTIFY_DEAD_NAME

    @property
    def name(self) -> int:
        """The dead name, in the space where the request was made."""
        return self.word

    def begin(self, task: AnyTask, buffer: Buffer, size: int, memory: Sequence[Buffer]) -> Message:
        """As every message; the reference of the dead name is one of its rights."""
        super().begin(task, buffer, size, memory)
        # The reference that came with the notification (N20).
        self.rights.append(DeadName(task, self.word))
        return self

    @property
    def death(self) -> Obituary | None:
        """How the task ended that had the receive right; None if it gave the right up, or the name is closed already.

        Asking costs a trap.
        """
        return death_at(self.task, self.word)


_NOTIFICATIONS: dict[int, type[Notification]] = {
    kind.msgh_id: kind
    for kind in (
        PortDeletedNotification,
        SendPossibleNotification,
        AnyPortDestroyedNotification,
        NoSendersNotification,
        SendOnceNotification,
        DeadNameNotification,
    )
}


def received_message(task: AnyTask, buffer: Buffer, memory: Sequence[Buffer]) -> Message:
    """The object for a received buffer with its audit trailer.

    Raises:
        ProtocolError: it is shorter than it says.
    """
    at = w.address(buffer)
    size = w.u32(at, 4) if len(buffer) >= w.HEADER_SIZE else 0
    tail = round_up(size)
    if size < w.HEADER_SIZE or len(buffer) < tail + w.AUDIT_END:
        raise ProtocolError(f"{len(buffer)} bytes are no received message")
    kind: type[Message] = Message
    if (
        w.u32(at, tail + w.SENDER_AT + 4) == _KERNEL_GID
        and w.u32(at, tail + w.SENDER_AT) == _KERNEL_UID
        and w.u32(at, 0) >> 8 & 0x1F == c.MACH_MSG_TYPE_PORT_SEND_ONCE
        and not any(w.part(buffer, tail + w.AUDIT_AT, tail + w.AUDIT_END))
    ):
        kind = _NOTIFICATIONS.get(w.u32(at, 20), Message)
        if kind is AnyPortDestroyedNotification:
            kind = task.port_destroyed_kind
    message = kind.__new__(kind)
    return message.begin(task, buffer, size, memory)
