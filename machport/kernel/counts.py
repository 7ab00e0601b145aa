"""What a kernel has done, in numbers, and what was lost with each task that ended.

Counted where it happens, by adding to an integer; what a task's end destroys is told apart by ``Kernel.ending``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from machport.abi import constants as c
from machport.kernel.message import Message

if TYPE_CHECKING:
    from machport.kernel.port import Port

#: Notifications that are told one by one; of those behind them there is only the number.
NOTES_MAX: Final = 8
#: Losses that are kept for whoever drives the kernel.
_LOSSES_MAX: Final = 1024
#: Each kind of notification by the name of its count.
KINDS: Final = {
    c.MACH_NOTIFY_DEAD_NAME: "dead_name",
    c.MACH_NOTIFY_NO_SENDERS: "no_senders",
    c.MACH_NOTIFY_PORT_DESTROYED: "port_destroyed",
    c.MACH_NOTIFY_SEND_ONCE: "send_once",
    c.MACH_NOTIFY_PORT_DELETED: "port_deleted",
    c.MACH_NOTIFY_SEND_POSSIBLE: "send_possible",
}


class Counts:
    """Numbers since the kernel began, but for ``ports`` and ``queued``, which are of now.

    Attributes:
        sent, sent_bytes: messages that tasks gave to the kernel, with memory beside them.
        received, received_bytes: messages that tasks were given.
        queued: messages in queues, notifications included.
        ports: ports that live, those of tasks and files included.
        notified: notifications that were sent, by ``KINDS``.
    """

    __slots__ = ("notified", "ports", "queued", "received", "received_bytes", "sent", "sent_bytes")

    def __init__(self) -> None:
        self.sent = 0
        self.sent_bytes = 0
        self.received = 0
        self.received_bytes = 0
        self.queued = 0
        self.ports = 0
        self.notified: dict[int, int] = dict.fromkeys(KINDS, 0)


class Note:
    """One notification that a task's end has caused.

    Attributes:
        kind: its id, MACH_NOTIFY_.
        port: label of the port that it tells of.
        name: what it is called by whoever is told, or by whoever had it; 0 if it has no name now.
        task: number of the task that is told; 0 if the notification travels to nobody yet.
        label: of that task.
    """

    __slots__ = ("kind", "label", "name", "port", "task")

    def __init__(self, kind: int, port: str, name: int, task: int, label: str) -> None:
        self.kind = kind
        self.port = port
        self.name = name
        self.task = task
        self.label = label


class Losses:
    """What was lost with a task, and which notifications that caused.

    Attributes:
        ports: ports that died, because their receive rights were the task's or in messages that were destroyed.
        returned: receive rights that went to whoever had asked for port-destroyed.
        send_rights, send_once_rights: rights that the task had.
        messages, bytes: messages that nobody had received, and nobody will.
        caused: notifications, by ``KINDS``.
        notes: the first of them.
    """

    __slots__ = ("bytes", "caused", "messages", "notes", "ports", "returned", "send_once_rights", "send_rights")

    def __init__(self) -> None:
        self.ports = 0
        self.returned = 0
        self.send_rights = 0
        self.send_once_rights = 0
        self.messages = 0
        self.bytes = 0
        self.caused: dict[int, int] = {}
        self.notes: list[Note] = []

    def destroyed(self, message: Message) -> None:
        """A message is destroyed that nobody has received."""
        self.messages += 1
        self.bytes += message.size() + memory_size(message)

    def notified(self, notification: Message, to: Port, about: Port | None) -> None:
        """A notification is sent because the task ends."""
        kind = notification.id
        self.caused[kind] = self.caused.get(kind, 0) + 1
        if len(self.notes) < NOTES_MAX:
            task = None if to.receiver is None else to.receiver.task
            self.notes.append(
                Note(
                    kind,
                    "" if about is None else about.label,
                    _name_in(notification, about),
                    0 if task is None else task.number,
                    "" if task is None else task.label,
                )
            )


class LossesByTask:
    """The losses of the tasks that ended last, until whoever drives the kernel takes them."""

    __slots__ = ("_of",)

    def __init__(self) -> None:
        self._of: dict[int, Losses] = {}

    def of(self, number: int) -> Losses:
        """What has been lost so far with the task that is being terminated."""
        losses = self._of.get(number)
        if losses is None:
            losses = self._of[number] = Losses()
            if len(self._of) > _LOSSES_MAX:
                del self._of[next(iter(self._of))]
        return losses

    def take(self, number: int) -> Losses:
        """All that was lost with a task, once it has ended."""
        return self._of.pop(number, None) or Losses()


def memory_size(message: Message) -> int:
    """Bytes of the memory that goes beside a message."""
    size = 0
    if message.items is not None:
        for item in message.items:
            size += len(item.memory)
    return size


def _name_in(notification: Message, about: Port | None) -> int:
    if notification.id in (c.MACH_NOTIFY_DEAD_NAME, c.MACH_NOTIFY_PORT_DELETED):
        return int.from_bytes(notification.inline[8:12], "little")
    return 0 if about is None else about.name
