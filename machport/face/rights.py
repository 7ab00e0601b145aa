"""Rights as objects: what a task holds, by kind.

An object stands for one user reference of a name in its task's space.  It is used up by ``close``, by being moved into
a message or a child, and if it is a send-once right by sending; after that it raises ``ClosedRight``.  One that is
forgotten is given up when its object is collected.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any, Self, TypeVar, cast

from machport.abi import constants as c
from machport.abi.errors import ClosedRight, DaemonLost, InvalidArgument, InvalidRight, MachError
from machport.abi.status import PortStatus
from machport.client.description import Description
from machport.face.closing import Closing

if TYPE_CHECKING:
    from machport.face.blocking import SendTransfer
    from machport.face.dataqueue import DataQueue
    from machport.face.task import AnyTask
    from machport.face.watching import Callback, Watch


#: Objects that a port set keeps before it looks which of them are closed.
_MANY_MEMBERS = 64

_Kind = TypeVar("_Kind", bound="Right")


class Right(Closing):
    """A right of a task.  Equal rights are of one task under one name."""

    kind = -1
    type_name = "right"

    __slots__ = ("__weakref__", "_borrowed", "_gone", "_name", "_quiet", "task")

    def __init__(self, task: AnyTask, name: int) -> None:
        self.task = task
        self._name = name
        self._gone = ""
        self._borrowed = False
        self._quiet = False

    def __del__(self) -> None:
        if not self._gone and not self._borrowed:
            self.task.forgotten(self)

    @property
    def name(self) -> int:
        """The right's name in its task's space.

        Raises:
            ClosedRight: it was closed, moved or used up.
        """
        self._check_there()
        return self._name

    def _check_there(self) -> None:
        if self._gone:
            raise ClosedRight(
                f"this {self.type_name} was {self._gone}, and is not this task's any more",
                task=self.task.label,
                name=self._name,
            )

    def name_in(self, task: AnyTask) -> int:
        """The right's name, as an argument of a call of ``task``.

        Raises:
            InvalidArgument: it is a right of another task, whose names mean nothing here.
            ClosedRight: it was closed, moved or used up.
        """
        if self.task is not task:
            raise InvalidArgument(
                f"{self!r} is not of task {task.label}, where it means nothing; send it there first", task=task.label
            )
        return self.name

    @property
    def closed(self) -> bool:
        """Whether the object stands for a right no more."""
        return bool(self._gone)

    def gone(self, how: str) -> None:
        """The right was given up, by a call that others made for it."""
        self._gone = self._gone or how

    def back(self, name: int) -> None:
        """The right that was moved away is this task's again, under this name."""
        self._name = name
        self._gone = ""

    def close(self) -> None:
        """Give the right up; closing again, or after its task or the daemon ended, does nothing."""
        if self._gone:
            return
        # Before it is: another thread that then finds the right gone looks here for why.
        self._gone = "closed"
        if not self.task.closed:
            try:
                self._release()
            except DaemonLost:
                pass
            except MachError:
                self._gone = ""
                raise

    def _release(self) -> None:
        self.task.calls.mach_port_deallocate(self.task.name, self._name)

    def move(self) -> Transfer:
        """Let the right itself go into a message or a child; this object is used up when it does.

        Raises:
            ClosedRight: it is not there to be moved.
        """
        self._check_there()
        return Transfer(self, _MOVES[self.kind])

    def is_dead(self) -> bool:
        """Whether the port has died, so that the name is a dead name."""
        return bool(self.task.calls.mach_port_type(self.task.name, self.name) & c.MACH_PORT_TYPE_DEAD_NAME)

    @property
    def label(self) -> str:
        """What its receiver calls the port, or called it when it died; "" if nothing.  Asking costs a trap."""
        return self.describe().label

    def describe(self) -> Description:
        """What the kernel knows of the right: the port's label, who receives there, and how who did before ended.

        Raises:
            ClosedRight: it was closed, moved or used up.
        """
        return self.task.calls.describe(self.name)

    def request_dead_name(self, notify: AnyReceiveRight | None) -> SendOnceRight | None:
        """Ask for a dead-name notification when the port dies, at once if it is dead; None cancels.

        If the name is freed before, a port-deleted notification comes instead.

        Returns:
            The send-once right that was registered before.  (Rules N11 to N23.)
        """
        return self.request_notification(c.MACH_NOTIFY_DEAD_NAME, 1, notify)

    def request_notification(
        self, variant: int, sync: int, notify: AnyReceiveRight | SendOnceRight | None
    ) -> SendOnceRight | None:
        """Ask for a notification as ``mach_port_request_notification`` does.

        Args:
            variant: ``MACH_NOTIFY_DEAD_NAME``, ``MACH_NOTIFY_NO_SENDERS``, ... of ``machport.mach``.
            notify: the port to tell, or a send-once right to it, which is used up; None cancels.

        Returns:
            The send-once right that was registered before.
        """
        name, disposition = c.MACH_PORT_NULL, c.MACH_MSG_TYPE_MAKE_SEND_ONCE
        if isinstance(notify, SendOnceRight):
            name, disposition = notify.name_in(self.task), c.MACH_MSG_TYPE_MOVE_SEND_ONCE
        elif notify is not None:
            name = require(AnyReceiveRight, notify, "notify").name_in(self.task)
        previous = self.task.calls.mach_port_request_notification(
            self.task.name, self.name, variant, sync, name, disposition
        )
        if isinstance(notify, SendOnceRight):
            notify.gone("used")
        if previous in (c.MACH_PORT_NULL, c.MACH_PORT_DEAD):
            return None
        return SendOnceRight(self.task, previous)

    def on_dead_name(self, callback: Callback | None = None) -> Watch:
        """Watch for the death of the port.

        Args:
            callback: called with the ``DeadNameNotification``: by a thread of the task, or in ``machport.aio`` by the
                loop.  Any number may watch; see ``request_dead_name`` for a notification to a port of your own.

        Returns:
            What to wait for (``watch.wait()``, or ``await watch`` in ``machport.aio``) and to cancel by (``close``).
        """
        return self.task.attendant.begin(self, c.MACH_NOTIFY_DEAD_NAME, 1, callback)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Right):
            return NotImplemented
        return self.task is other.task and self._name == other._name

    def __hash__(self) -> int:
        return hash((id(self.task), self._name))

    def __repr__(self) -> str:
        """Kind, name, label of the port, task, and user references, for which the kernel is asked if it can be."""
        if self._gone or self._name == c.MACH_PORT_DEAD:
            return self.short_repr()
        try:
            known = self.task.calls.describe(self._name)
        except MachError:
            return self.short_repr()
        label = f" {known.label!r}" if known.label else ""
        state = ", dead" if known.is_dead and self.kind != c.MACH_PORT_RIGHT_DEAD_NAME else ""
        urefs = f", {known.urefs} urefs" if known.urefs > 1 else ""
        return f"<{type(self).__name__} {self._name:#x}{label} of {self.task.label}{state}{urefs}>"

    def short_repr(self) -> str:
        """What can be said without the kernel."""
        state = f" {self._gone}" if self._gone else ""
        return f"<{type(self).__name__} {self._name:#x} of {self.task.label}{state}>"

    def __reduce__(self) -> Any:
        raise InvalidArgument(
            f"a {self.type_name} does not travel as it is: pass it on as right.move(), or a send right as right.copy()",
            task=self.task.label,
            name=self._name,
        )


class Transfer:
    """A right on its way out of a task: what ``move`` and ``copy`` give, for messages and processes.

    Attributes:
        ticket: the sender's side of the ticket that it was last pickled as, if it was.
    """

    #: What arrives is to be opened as a data queue.
    brings_queue = False

    __slots__ = ("disposition", "right", "ticket")

    def __init__(self, right: Right, disposition: int) -> None:
        self.right = right
        self.disposition = disposition
        self.ticket: Any = None
        if not _taught:
            _teach()

    def prepare(self, task: AnyTask) -> None:
        """The right is about to leave ``task``; what stands for it is made now if it is not a right by itself."""

    def undo(self) -> None:
        """Nothing was sent: the right stays."""

    @property
    def moves(self) -> bool:
        """Whether the task has the right no longer afterwards."""
        return self.disposition != c.MACH_MSG_TYPE_COPY_SEND

    def done(self) -> None:
        """The right has left."""
        if self.moves:
            self.right._gone = "moved away"

    def drop(self) -> None:
        """The message was not sent: the right would have gone with it, and is given up."""
        if self.moves:
            self.right.close()

    def returned(self, name: int) -> None:
        """The message came back, with the right under this name now (M19)."""
        if self.moves:
            self.right._name = name
        elif name != c.MACH_PORT_DEAD:
            self.right.task.calls.mach_port_deallocate(self.right.task.name, name)

    def recall(self) -> None:
        """Take back what was pickled for a process and has not arrived; the right object can be used again.

        Raises:
            InvalidArgument: it was not pickled.
            InvalidRight: the process has it already.
        """
        if self.ticket is None:
            raise InvalidArgument(f"{self!r} was not pickled for a process, or only for one that Task.spawn starts")
        self.ticket.recall()
        self.ticket = None

    def __reduce__(self) -> Any:
        raise InvalidArgument(
            "a right travels in a message, or in what spawn or multiprocessing pickles for a process, and in no other"
            " pickle" + ("" if _taught else "; import multiprocessing before you call move() or copy()")
        )

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{self!r} has no {name!r}: {_NOT_ARRIVED}")

    def __repr__(self) -> str:
        return f"<{'move' if self.moves else 'copy'} of {self.right!r}>"


class AnySendRight(Right):
    """The right to send any number of messages to a port, as far as nothing of it waits."""

    kind = c.MACH_PORT_RIGHT_SEND
    type_name = "send right"
    reply_disposition = c.MACH_MSG_TYPE_MOVE_SEND
    __slots__ = ()

    def copy(self) -> Transfer:
        """Let a copy go into a message or a child; this object stays."""
        self._check_there()
        return Transfer(self, c.MACH_MSG_TYPE_COPY_SEND)

    def duplicate(self) -> Self:
        """Another object for the same right: one more user reference."""
        self.task.calls.mach_port_mod_refs(self.task.name, self.name, c.MACH_PORT_RIGHT_SEND, 1)
        return type(self)(self.task, self.name)

    def open_file(self) -> int:
        """A descriptor of the open file that the right stands for, which the caller closes."""
        return self.task.calls.fileport_makefd(self.name)

    def open_data_queue(self) -> DataQueue:
        """The data queue of which the right brings an end; the right is used up.

        Raises:
            QueueMisuse: it brings none, or the end was taken already.
            InvalidRight: it stands for no open file at all.
        """
        from machport.dataqueue.handover import carrier_at
        from machport.face.dataqueue import DataQueue

        descriptor = self.open_file()
        try:
            carrier = carrier_at(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        queue = DataQueue.from_fd(carrier.detach())
        self.close()
        return queue


class Fileport(AnySendRight):
    """A send right that stands for an open file, of this process or another (``fileport_makeport``).

    A fileport that comes in a message is a send right like any other; its ``open_file`` does the same.
    """

    __slots__ = ()

    def move(self) -> SendTransfer:
        """Let the right itself go into a message or a child; this object is used up when it does."""
        return cast("SendTransfer", Right.move(self))

    def copy(self) -> SendTransfer:
        """Let a copy go into a message or a child; this object stays."""
        return cast("SendTransfer", AnySendRight.copy(self))

    def open(self, mode: str = "rb", **options: Any) -> IO[Any]:
        """A file object for the open file, whose position it shares.

        Args:
            mode: as that of ``open``; it has to fit how the file was opened.
            options: others of ``open``.
        """
        return os.fdopen(self.open_file(), mode, **options)


class SendOnceRight(Right):
    """The right to send one message.  Closing it unused tells its port so, by a send-once notification."""

    kind = c.MACH_PORT_RIGHT_SEND_ONCE
    type_name = "send-once right"
    reply_disposition = c.MACH_MSG_TYPE_MOVE_SEND_ONCE
    __slots__ = ()

    def move(self) -> SendOnceTransfer:
        """Let the right itself go into a message or a child; this object is used up when it does."""
        return cast("SendOnceTransfer", Right.move(self))

    def send(
        self,
        body: bytes | bytearray | memoryview = b"",
        *,
        id: int = 0,
        rights: Sequence[Transfer] = (),
        memory: Sequence[bytes] = (),
    ) -> None:
        """Send the one message; it never waits.  The right is used up.

        Raises:
            DeadPort: the port is dead; nobody waits for this message any more.
        """
        try:
            self.task.send(self.name, c.MACH_MSG_TYPE_MOVE_SEND_ONCE, body, id, rights, memory, None, None)
        except InvalidRight:
            # A body that fails takes the right that it was to go by along (M8).
            self._gone = "used"
            raise
        except MachError:
            raise
        except BaseException:
            # The call was given up by a handler of signals: its message went, or was destroyed with the right.
            self._gone = "used"
            raise
        self._gone = "used"


class DeadName(Right):
    """A name whose port has died.  It holds the name so that it is not used again, until it is closed."""

    kind = c.MACH_PORT_RIGHT_DEAD_NAME
    type_name = "dead name"
    __slots__ = ()

    def _release(self) -> None:
        if self._name != c.MACH_PORT_DEAD:
            super()._release()


class AnyReceiver(Right):
    """What messages are received from: a receive right or a port set."""

    __slots__ = ()

    def _release(self) -> None:
        self.task.calls.mach_port_mod_refs(self.task.name, self._name, self.kind, -1)


class AnyReceiveRight(AnyReceiver):
    """The one right to receive a port's messages, and to make rights to send them, as far as nothing of it waits."""

    kind = c.MACH_PORT_RIGHT_RECEIVE
    type_name = "receive right"
    __slots__ = ()

    def make_send(self) -> AnySendRight:
        """A new send right, which counts as made (N46)."""
        self.task.calls.mach_port_insert_right(self.task.name, self.name, self.name, c.MACH_MSG_TYPE_MAKE_SEND)
        return self.task.send_kind(self.task, self.name)

    def make_send_once(self) -> SendOnceRight:
        """A new send-once right."""
        calls, disposition = self.task.calls, c.MACH_MSG_TYPE_MAKE_SEND_ONCE
        return SendOnceRight(self.task, calls.mach_port_extract_right(self.task.name, self.name, disposition)[0])

    def request_no_senders(self, notify: AnyReceiveRight | None, *, sync: int = 0) -> SendOnceRight | None:
        """Ask for one no-senders notification; None cancels.

        It comes when the last send right goes; at once if there is none now and at least ``sync`` were made with
        ``make_send`` so far (N42, N43).
        """
        return self.request_notification(c.MACH_NOTIFY_NO_SENDERS, sync, notify)

    def request_port_destroyed(self, notify: AnyReceiveRight | None) -> SendOnceRight | None:
        """Ask for the receive right, with its queue and its senders, when it would be destroyed; None cancels.

        It survives moves of the right and is used up by coming true (N28, N36).
        """
        return self.request_notification(c.MACH_NOTIFY_PORT_DESTROYED, 0, notify)

    def on_no_senders(self, callback: Callback | None = None, *, sync: int = 0) -> Watch:
        """Watch for the moment when nobody has a send right to the port any more, as ``request_no_senders`` asks.

        The watch is over when the receive right is moved away (N47).
        """
        return self.task.attendant.begin(self, c.MACH_NOTIFY_NO_SENDERS, sync, callback)

    def on_port_destroyed(self, callback: Callback | None = None) -> Watch:
        """Watch for the return of the receive right, as ``request_port_destroyed`` asks: before it is moved away."""
        return self.task.attendant.begin(self, c.MACH_NOTIFY_PORT_DESTROYED, 0, callback)

    def status(self) -> PortStatus:
        """The state of the port: counts, limits, requests."""
        return self.task.calls.mach_port_get_receive_status(self.task.name, self.name)

    def set_label(self, label: str) -> None:
        """What errors and ``label`` call the port from now on, also after it has moved: up to 64 bytes in UTF-8."""
        self.task.calls.port_label(self.name, label)

    def set_qlimit(self, qlimit: int) -> None:
        """How many messages may wait before their senders do, 0 to 1024."""
        self.task.calls.mach_port_set_qlimit(self.task.name, self.name, qlimit)


class AnyPortSet(AnyReceiver):
    """Receive rights of one task that are received from together, as far as nothing of it waits."""

    kind = c.MACH_PORT_RIGHT_PORT_SET
    type_name = "port set"
    __slots__ = ("_many", "_members")

    def __init__(self, task: AnyTask, name: int) -> None:
        super().__init__(task, name)
        self._members: dict[int, AnyReceiveRight] = {}
        self._many = _MANY_MEMBERS

    def add(self, port: AnyReceiveRight) -> None:
        """Put a receive right in, out of any other set; its object lives as long as the set's."""
        member = require(AnyReceiveRight, port, "port").name_in(self.task)
        self.task.calls.mach_port_move_member(self.task.name, member, self.name)
        if len(self._members) >= self._many:
            self._members = {name: right for name, right in self._members.items() if not right.closed}
            self._many = 2 * len(self._members) + _MANY_MEMBERS
        self._members[member] = port

    def remove(self, port: AnyReceiveRight) -> None:
        """Take a receive right out, with its waiting messages."""
        member = require(AnyReceiveRight, port, "port").name_in(self.task)
        self.task.calls.mach_port_extract_member(self.task.name, member, self.name)
        self._members.pop(member, None)

    def members(self) -> Sequence[AnyReceiveRight]:
        """The receive rights in the set: the objects that were put in.

        One that was put in otherwise, as by its name, is an object that does not give the right up when forgotten.
        """
        return [self._member(name) for name in self.task.calls.mach_port_get_set_status(self.task.name, self.name)]

    def keep_members_of(self, other: AnyPortSet) -> None:
        """The objects in another form of the same set live as long as this one."""
        self._members = other._members

    def _member(self, name: int) -> AnyReceiveRight:
        right = self._members.get(name)
        if right is None or right.closed:
            right = self.task.receive_kind(self.task, name)
            right._borrowed = True
        return right

    def move(self) -> Transfer:
        """Never possible: a port set is not sent, but its members are."""
        raise InvalidArgument("a port set is never sent; move its members", task=self.task.label, name=self._name)


if TYPE_CHECKING:
    # Typed calls take a right where a hint says so, and what is given there is its transfer.  So to type checkers a
    # transfer is also a right of its kind: one that is on its way, with which nothing can be done but let it go.

    class RightTransfer(Transfer, Right):  # type: ignore[misc]
        pass

    class SendOnceTransfer(RightTransfer, SendOnceRight):  # type: ignore[misc]
        right: SendOnceRight


def require(kind: type[_Kind], thing: object, argument: str) -> _Kind:
    """An argument that must be a right of one kind.

    Raises:
        InvalidArgument: it is something else.
    """
    if not isinstance(thing, kind):
        raise InvalidArgument(f"{argument} must be a {kind.__name__.removeprefix('Any')}, not {thing!r}")
    return thing


_NOT_ARRIVED = (
    "it is a right on its way, and becomes a right where it is unpickled or received; children that are forked get no"
    " rights, so let multiprocessing start them by spawn or forkserver, or use machport.spawn"
)
#: Whether pickles for processes can have rights yet.
_taught = False


def _teach() -> None:
    """Once ``multiprocessing`` is there; nobody pickles for processes before."""
    global _taught
    if "multiprocessing.reduction" in sys.modules:
        from machport.face import pickling

        _taught = pickling.register()


_MOVES = {
    c.MACH_PORT_RIGHT_SEND: c.MACH_MSG_TYPE_MOVE_SEND,
    c.MACH_PORT_RIGHT_RECEIVE: c.MACH_MSG_TYPE_MOVE_RECEIVE,
    c.MACH_PORT_RIGHT_SEND_ONCE: c.MACH_MSG_TYPE_MOVE_SEND_ONCE,
    c.MACH_PORT_RIGHT_DEAD_NAME: c.MACH_MSG_TYPE_MOVE_SEND,
}


def received_right(task: AnyTask, name: int, kind: int) -> Right | None:
    """The object for a right that came in a message; None for a null right."""
    if name == c.MACH_PORT_NULL:
        return None
    if name == c.MACH_PORT_DEAD:
        return DeadName(task, name)
    if kind == c.MACH_MSG_TYPE_PORT_SEND_ONCE:
        right = SendOnceRight.__new__(SendOnceRight)
        right.task = task
        right._name = name
        right._gone = ""
        right._borrowed = False
        right._quiet = False
        return right
    kinds = task.send_kind if kind == c.MACH_MSG_TYPE_PORT_SEND else task.receive_kind
    return kinds(task, name)
