"""A task: a space of rights in the kernel, joined by this process."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from machport.abi import constants as c
from machport.abi import message as layout
from machport.abi import traps as t
from machport.abi import words as w
from machport.abi.errors import (
    AlreadyExists,
    BadArguments,
    DaemonLost,
    InvalidArgument,
    LimitReached,
    MachError,
    MessageTooLarge,
    error_for,
)
from machport.abi.limits import Limits
from machport.abi.traps import new_msg, unpack_msg_answer, unpack_msg_answers
from machport.client.calls import Calls, Carrier
from machport.client.connection import Connection
from machport.face.closing import Closing
from machport.face.deaths import failure, server_died
from machport.face.message import (
    AnyPortDestroyedNotification,
    Message,
    SendOnceNotification,
    pack_body,
    received_message,
)
from machport.face.rights import (
    AnyPortSet,
    AnyReceiver,
    AnyReceiveRight,
    AnySendRight,
    Fileport,
    Right,
    SendOnceRight,
    Transfer,
    require,
)
from machport.face.spawn import start_child
from machport.mach import bootstrap
from machport.peer.introduction import default_label

if TYPE_CHECKING:
    from machport.confinement.policy import Confinement
    from machport.face.child import Child
    from machport.face.watching import Attendant

#: Messages come with all that the kernel attests.
TRAILER = c.MACH_RCV_TRAILER_AUDIT << c.MACH_RCV_TRAILER_ELEMENTS_SHIFT
#: In a code of ``mach_msg``: it was the receiving half that failed.
RECEIVE_FAILED = 0x4000
_MAX_TIMEOUT_MS = 0xFFFFFFFF
_MAX_ID = 0xFFFFFFFF
#: Bytes of a body: the longest message less its header, a body's own length, and room for descriptors.
_MAX_BODY = layout.MAX_SIZE - 64 * 1024
#: Every message fits: the answer brings as many bytes as it has.
RCV_LIMIT = 0xFFFFFFFF
#: Bytes of an answer before the message that comes back in it, and more than what a short answer has.
_ANSWER_HEAD = 64
#: Ports for answers that are kept for the next calls.
_REPLY_PORTS_MAX = 256
#: Bytes of a body up to which it costs less to copy it once more than to write it by itself.
_SHORT = 4096

Body = bytes | bytearray | memoryview


class AnyTask(Closing):
    """A task of this user's daemon, which is started if there is none.

    What rights it makes is its subclass's matter: they differ in how they wait, and in nothing else.

    Args:
        label: what the daemon and error messages call the task; the program's name by default.
        path: socket of another daemon.

    Raises:
        DaemonUnavailable: no daemon can be reached or started; the text says what to do.
    """

    #: What its rights are objects of.
    send_kind = AnySendRight  # type: type[AnySendRight]
    receive_kind = AnyReceiveRight  # type: type[AnyReceiveRight]
    set_kind = AnyPortSet  # type: type[AnyPortSet]
    port_destroyed_kind = AnyPortDestroyedNotification  # type: type[AnyPortDestroyedNotification]
    #: Whether it can start coroutine functions as processes.
    runs_coroutines = False
    #: Seconds for which an answer waits that goes by a send right whose queue is full.
    reply_timeout = 0  # type: float | None

    def __init__(self, *, label: str | None = None, path: Path | str | None = None) -> None:
        self._carrier: Carrier
        self._connection: Connection | None = None
        self._attach(Connection(label or default_label(), path=None if path is None else Path(path)))

    def _attach(self, carrier: Carrier) -> None:
        self._carrier = carrier
        self._connection = carrier if isinstance(carrier, Connection) else None
        self.calls = Calls(carrier)
        self._local = threading.local()
        self._reply_ports: list[int] = []
        self._attendant: Attendant | None = None
        #: Itself and its other forms, as long as somebody has them.
        self._forms: weakref.WeakValueDictionary[type[AnyTask], AnyTask] = weakref.WeakValueDictionary()
        self._forms[type(self)] = self

    @classmethod
    def of(cls, task: AnyTask) -> Self:
        """The same task with rights that wait in the way of this class; each of the two lives and ends with the other.

        ``machport.aio.Task.of(task)`` is an ordinary task for an event loop, ``machport.Task.of(task)`` the reverse.
        The rights of one become rights of the other by ``adopt``.
        """
        form = require_task(task)._forms.get(cls)
        if form is None:
            form = cls.__new__(cls)
            form._attach(task._carrier)
            form._connection = task._connection
            form._forms = task._forms
            task._forms[cls] = form
        assert isinstance(form, cls)
        return form

    def adopt(self, right: Right) -> Right:
        """A right of this task in another form (``of``), as a right of this one; the object that is given is used up.

        Raises:
            InvalidArgument: it is a right of another task.
        """
        name = require(Right, right, "right").name
        if right.task._carrier is not self._carrier:
            raise InvalidArgument(f"{right!r} is not of task {self.label}; send it there", task=self.label)
        kinds = {
            c.MACH_PORT_RIGHT_SEND: self.send_kind,
            c.MACH_PORT_RIGHT_RECEIVE: self.receive_kind,
            c.MACH_PORT_RIGHT_PORT_SET: self.set_kind,
        }
        kind = type(right) if isinstance(right, Fileport) else kinds.get(right.kind, type(right))
        adopted = kind(self, name)
        if isinstance(right, AnyPortSet) and isinstance(adopted, AnyPortSet):
            adopted.keep_members_of(right)
        adopted._borrowed = right._borrowed
        right.gone("adopted")
        return adopted

    @staticmethod
    def of_process() -> AnyTask:
        """The task of this process, in this form."""
        raise NotImplementedError

    @property
    def attendant(self) -> Attendant:
        """Receives the notifications that its rights' watches wait for."""
        if self._attendant is None:
            self._attendant = self.new_attendant()
        return self._attendant

    def new_attendant(self) -> Attendant:
        """Whoever receives as this kind of task waits."""
        raise NotImplementedError

    @property
    def label(self) -> str:
        """What the daemon calls the task, with its process number."""
        return self._carrier.label

    @property
    def name(self) -> int:
        """The task's name for its own port."""
        return self.calls.mach_task_self()

    @property
    def path(self) -> Path:
        """Where its daemon listens."""
        return self._carrier.path

    @property
    def closed(self) -> bool:
        """Whether the task has ended."""
        return self._connection is not None and self._connection.closed

    # Rights

    def allocate(self, *, qlimit: int | None = None, label: str = "") -> AnyReceiveRight:
        """A new port, of which the task has the receive right.

        Args:
            qlimit: how many messages may wait before their senders do; 5 by default.
            label: what errors call the port, also those of its senders.
        """
        if qlimit is not None and not 0 <= qlimit <= c.MACH_PORT_QLIMIT_MAX:
            raise InvalidArgument(f"a queue limit is 0 to {c.MACH_PORT_QLIMIT_MAX}, not {qlimit}", task=self.label)
        if qlimit is None:
            right = self.receive_kind(self, self.calls.mach_port_allocate(self.name, c.MACH_PORT_RIGHT_RECEIVE))
        else:
            right = self.receive_kind(self, self.calls.mach_port_construct(self.name, c.MPO_QLIMIT, qlimit))
        if label:
            try:
                right.set_label(label)
            except BaseException:
                right.close()
                raise
        return right

    def allocate_many(self, count: int) -> Sequence[AnyReceiveRight]:
        """``count`` new ports, asked for together: many times faster than one by one."""
        if count < 0:
            raise InvalidArgument(f"a count of ports is 0 or more, not {count}", task=self.label)
        asked = [(self.name, c.MACH_PORT_RIGHT_RECEIVE)] * count
        return [self.receive_kind(self, name) for (name,), _ in self.calls.many(t.ALLOCATE, asked)]

    def close_many(self, rights: Iterable[Right]) -> None:
        """Give up many rights together, as ``close`` does one by one; those that are closed already are passed over.

        Raises:
            InvalidArgument: one is of another task, or no right; nothing was given up.
            MachError: one was refused, the first of them; all others were given up.
        """
        # By identity: equal objects stand for one user reference each, and the same object twice for one.
        given = {id(right): right for right in rights if not require(Right, right, "rights").closed}.values()
        for right in given:
            right.name_in(self)
        if self.closed:
            for right in given:
                right.gone("closed")
            return
        receivers = [right for right in given if isinstance(right, AnyReceiver)]
        others = [right for right in given if not isinstance(right, AnyReceiver)]
        names = [right.name for right in others if right.name != c.MACH_PORT_DEAD]
        try:
            self._close_together(
                t.MOD_REFS, [(self.name, right.name, right.kind, -1) for right in receivers], receivers
            )
        finally:
            self._close_together(t.DEALLOCATE, [(self.name, name) for name in names], others)

    def _close_together(self, trap: t.Trap, calls: Sequence[Sequence[int]], rights: Sequence[Right]) -> None:
        with contextlib.suppress(DaemonLost):
            try:
                self.calls.many(trap, calls)
            finally:
                for right in rights:
                    right.gone("closed")

    def forgotten(self, right: Right) -> None:
        """The object of a right is collected, which nobody has closed: the right is given up, and nothing waited for.

        In development mode (``python -X dev``) there is a ``ResourceWarning``, but for dead names: those come with
        notifications, which nobody has to keep.
        """
        # At the very end of the interpreter, names of modules are None.
        if sys is None or sys.is_finalizing() or self.closed or right._name == c.MACH_PORT_DEAD:
            return
        # First: a warning may be an error.
        self.calls.forget(right._name, right.kind)
        if sys.flags.dev_mode and right.kind != c.MACH_PORT_RIGHT_DEAD_NAME and not right._quiet:
            says = f"{right.short_repr()} was forgotten; close it, or use it in a with block"
            warnings.warn(says, ResourceWarning, stacklevel=2, source=right)

    def port_set(self, *ports: AnyReceiveRight) -> AnyPortSet:
        """A new port set with these receive rights in it."""
        pset = self.set_kind(self, self.calls.mach_port_allocate(self.name, c.MACH_PORT_RIGHT_PORT_SET))
        for port in ports:
            pset.add(port)
        return pset

    def fileport(self, file: int | Any) -> Fileport:
        """A send right that stands for an open file, given as a descriptor or anything with ``fileno``."""
        descriptor = file if isinstance(file, int) else file.fileno()
        try:
            os.fstat(descriptor)
        except OSError:
            raise InvalidArgument(f"descriptor {descriptor} is not open", call="fileport", task=self.label) from None
        return Fileport(self, self.calls.fileport_makeport(descriptor))

    # Services by name

    @property
    def bootstrap(self) -> AnySendRight | None:
        """The right to the service of names; None if the parent gave none."""
        port = self.calls.task_get_special_port(self.name, c.TASK_BOOTSTRAP_PORT)
        return self.send_kind(self, port) if port else None

    def look_up(self, service_name: str) -> AnySendRight:
        """A send right to a service.

        Raises:
            InvalidName: nobody serves under the name.
        """
        with self._bootstrap() as bp:
            name = require_text(service_name)
            return self.send_kind(self, bootstrap.bootstrap_look_up(self.calls, bp.name, name))

    def check_in(self, service_name: str) -> AnyReceiveRight:
        """The receive right of a service; the name is free again when it is gone.

        Raises:
            AlreadyExists: somebody serves under the name, whom the text names.
        """
        with self._bootstrap() as bp:
            try:
                port = bootstrap.bootstrap_check_in(self.calls, bp.name, require_text(service_name))
            except AlreadyExists as error:
                with contextlib.suppress(MachError), self.look_up(service_name) as right:
                    error.says = f"{service_name!r} is served by {right.describe().holder or 'nobody just now'}"
                raise
            return self.receive_kind(self, port)

    def register(self, service_name: str, right: AnySendRight) -> None:
        """Give others copies of a send right by a name, until its port dies."""
        with self._bootstrap() as bp:
            name = require(AnySendRight, right, "right").name_in(self)
            bootstrap.bootstrap_register(self.calls, bp.name, require_text(service_name), name)

    def _bootstrap(self) -> AnySendRight:
        port = self.bootstrap
        if port is None:
            raise InvalidArgument(
                "the task has no bootstrap port; spawn it with bootstrap=True", code=c.BOOTSTRAP_NOT_PRIVILEGED
            )
        return port

    # Messages, for the rights

    def send(
        self,
        name: int,
        disposition: int,
        body: Body,
        id: int,
        rights: Sequence[Transfer],
        memory: Sequence[bytes],
        reply_to: AnyReceiveRight | None,
        timeout: float | None,
    ) -> None:
        """Send to the right under ``name``; what rights call for themselves."""
        reply_name = c.MACH_PORT_NULL
        if reply_to is not None:
            reply_name = require(AnyReceiveRight, reply_to, "reply_to").name_in(self)
        timeout_ms = milliseconds(timeout)
        trap = self._pack(name, disposition, reply_name, body, id, rights, memory)
        if timeout is not None:
            trap.option |= c.MACH_SEND_TIMEOUT
            trap.timeout_ms = timeout_ms
        answer = self._carry(trap, rights)
        if answer.code or len(rights):
            self._settle(answer, rights, "send", name)

    def send_many(self, name: int, bodies: Iterable[Body], id: int) -> int:
        """Send many messages to the send right under ``name``, one behind the other."""
        traps = [self._pack(name, c.MACH_MSG_TYPE_COPY_SEND, c.MACH_PORT_NULL, body, id, (), ()) for body in bodies]
        if not traps:
            return 0
        if max([trap.size() for trap in traps]) > _SHORT:
            sent, code = self._send_long(traps)
        else:
            sent, code = self._send_short(traps)
        if code:
            raise failure(self, code, f"{sent} of {len(traps)} messages were sent", call="send_many", name=name)
        return sent

    def _send_short(self, traps: list[t.MsgTrap]) -> tuple[int, int]:
        """Send messages by as few traps as may be; how many were sent, and the code of the first that was not."""
        buffers = [bytes(trap.buffer) for trap in traps]
        batches = [
            t.pack_send_many(buffers[start : start + t.SEND_MANY_MAX])
            for start in range(0, len(buffers), t.SEND_MANY_MAX)
        ]
        sent, first = 0, 0
        for answer in self._carrier.traps(batches, _ANSWER_HEAD):
            (count, code), _ = t.SEND_MANY.unpack_answer(answer)
            sent += count
            first = first or code
        return sent, first

    def _send_long(self, traps: list[t.MsgTrap]) -> tuple[int, int]:
        """The same by a trap for each, of which many are under way at a time."""
        # The longest answer is a message that comes back.
        answer_max = max([trap.size() for trap in traps]) + _ANSWER_HEAD
        answers = self._carrier.traps([trap.payload() for trap in traps], answer_max)
        sent, first = 0, 0
        for trap, data in zip(traps, answers, strict=True):
            if data != t.SENT:
                answer = unpack_msg_answer(data)
                if answer.code == c.MACH_SEND_INTERRUPTED and answer.buffer is not None:
                    trap.again(answer.buffer, answer.memory)
                    answer = self.calls.mach_msg(trap)
                if answer.code:
                    first = first or answer.code
                    continue
            sent += 1
        return sent, first

    def call(
        self,
        name: int,
        disposition: int,
        body: Body,
        id: int,
        rights: Sequence[Transfer],
        memory: Sequence[bytes],
        timeout: float | None,
    ) -> Message:
        """Send a request to the right under ``name`` and receive its answer, in one trap."""
        timeout_ms = milliseconds(timeout)
        reply_port = self._take_reply_port()
        try:
            trap = self._pack(name, disposition, reply_port, body, id, rights, memory)
            trap.option |= c.MACH_RCV_MSG | TRAILER
            trap.rcv_limit = RCV_LIMIT
            trap.rcv_name = reply_port
            if timeout is not None:
                trap.option |= c.MACH_SEND_TIMEOUT | c.MACH_RCV_TIMEOUT
                trap.timeout_ms = timeout_ms
            answer = self._carry(trap, rights)
        except BaseException:
            self._drop_reply_port(reply_port)
            raise
        if answer.code:
            self._drop_reply_port(reply_port)
        if answer.code == c.MACH_SEND_INVALID_DEST:
            for transfer in rights:
                transfer.undo()
            raise server_died(self, name, answer.code, rule=answer.rule)
        if answer.code or len(rights):
            self._settle(answer, rights, "call", name)
        assert answer.buffer is not None
        message = received_message(self, answer.buffer, answer.memory)
        try:
            if isinstance(message, SendOnceNotification):
                raise server_died(self, name, c.MIG_SERVER_DIED, reply_port)
            return message
        finally:
            # Not before: the next right that is made there is another story.
            self._keep_reply_port(reply_port)

    def receive(self, name: int, timeout: float | None) -> Message:
        """Receive from the receive right or port set under ``name``."""
        option = c.MACH_RCV_MSG | TRAILER | (c.MACH_RCV_TIMEOUT if timeout is not None else 0)
        answer = self.calls.mach_msg(new_msg(option, b"", RCV_LIMIT, name, milliseconds(timeout)))
        return self._received(answer, name)

    def receive_many(self, name: int, limit: int, timeout: float | None) -> list[Message]:
        """Wait for a message at the receive right or port set under ``name``; up to ``limit`` that are there then."""
        option = c.MACH_RCV_MSG | TRAILER | (c.MACH_RCV_TIMEOUT if timeout is not None else 0)
        trap = t.RECEIVE_MANY.pack(option, RCV_LIMIT, name, milliseconds(timeout), min(limit, t.RECEIVE_MANY_MAX))
        while True:
            received = []
            for entry in self._carrier.stream(trap):
                received += unpack_msg_answers(entry)
            last = received.pop()
            if received:
                return [self._received(answer, name) for answer in received]
            if last.code != c.MACH_RCV_INTERRUPTED:
                raise error_for(last.code, call="receive_many", task=self.label, name=name, rule=last.rule)

    def reply_and_receive(
        self,
        reply: SendOnceRight | AnySendRight | None,
        body: Body,
        id: int,
        rights: Sequence[Transfer],
        memory: Sequence[bytes],
        name: int,
        timeout: float | None,
    ) -> Message:
        """Send an answer and receive from the right under ``name``, in one trap.

        An answer that nobody waits for any more is dropped; None for ``reply`` says that nobody does.
        """
        if reply is None:
            self._pack(c.MACH_PORT_DEAD, c.MACH_MSG_TYPE_MOVE_SEND_ONCE, c.MACH_PORT_NULL, body, id, rights, memory)
            for transfer in rights:
                transfer.drop()
            return self.receive(name, timeout)
        timeout_ms = milliseconds(timeout)
        trap = self._pack(reply.name, reply.reply_disposition, c.MACH_PORT_NULL, body, id, rights, memory)
        trap.option |= c.MACH_RCV_MSG | TRAILER
        trap.rcv_limit = RCV_LIMIT
        trap.rcv_name = name
        if timeout is not None:
            trap.option |= c.MACH_RCV_TIMEOUT
            trap.timeout_ms = timeout_ms
        try:
            answer = self._carry(trap, rights)
        except LimitReached:
            raise
        except BaseException:
            reply.gone("used")
            raise
        if answer.code == c.MACH_SEND_INVALID_DEST:
            with contextlib.suppress(MachError):
                reply.close()
            for transfer in rights:
                transfer.drop()
            return self.receive(name, timeout)
        if answer.code and not answer.code & RECEIVE_FAILED:
            reply_name = reply._name
            if answer.code == c.MACH_SEND_INVALID_RIGHT:
                # A body that fails takes the right that it was to go by along (M8).
                reply.gone("used")
            self._settle(answer, rights, "reply", reply_name)
        reply.gone("used")
        for transfer in rights:
            transfer.done()
        return self._received(answer, name)

    def _received(self, answer: t.MsgAnswer, name: int) -> Message:
        if answer.buffer is None or (answer.code and answer.code & ~c.MACH_MSG_MASK != c.MACH_RCV_BODY_ERROR):
            raise error_for(answer.code, call="receive", task=self.label, name=name, rule=answer.rule)
        return received_message(self, answer.buffer, answer.memory)

    def mach_msg(self, trap: t.MsgTrap) -> t.MsgAnswer:
        """Carry one ``mach_msg`` of the calling thread, and wait for its answer."""
        return self.calls.mach_msg(trap)

    def _carry(self, trap: t.MsgTrap, rights: Sequence[Transfer]) -> t.MsgAnswer:
        try:
            return self.mach_msg(trap)
        except LimitReached:
            for transfer in rights:
                transfer.undo()
            raise
        except BaseException:
            # The call was given up: its message went, or was destroyed with the rights in it.
            for transfer in rights:
                transfer.done()
            raise

    def _pack(
        self,
        name: int,
        disposition: int,
        reply_name: int,
        body: Body,
        id: int,
        rights: Sequence[Transfer],
        memory: Sequence[bytes],
    ) -> t.MsgTrap:
        """A trap that sends this message."""
        if not 0 <= id <= _MAX_ID:
            raise InvalidArgument(f"an id is 0 to {_MAX_ID}, not {id}", task=self.label)
        if isinstance(rights, Transfer):
            raise BadArguments("rights= is a list: rights=[right.move()]", task=self.label)
        try:
            data = body if isinstance(body, bytes) else memoryview(body).cast("B")
        except TypeError as error:
            raise BadArguments(
                f"a body is bytes or a buffer of them, not {type(body).__name__} ({error}); encode text first",
                task=self.label,
            ) from None
        size = len(data)
        if size > _MAX_BODY:
            raise MessageTooLarge(
                f"a body holds up to {_MAX_BODY} bytes, not {size}; give it in memory=, or use a data queue",
                call="send",
                task=self.label,
            )
        bits = disposition | (c.MACH_MSG_TYPE_MAKE_SEND_ONCE << 8 if reply_name else 0)
        if not len(rights) and not len(memory):
            if size < _SHORT or not isinstance(data, bytes):
                return new_msg(c.MACH_SEND_MSG, w.pack_message(bits, name, reply_name, id, data))
            return new_msg(c.MACH_SEND_MSG, w.pack_message_head(bits, name, reply_name, id, size), 0, 0, 0, data)
        try:
            self._check_transfers(rights)
            descriptors = [layout.port_descriptor(transfer.right.name, transfer.disposition) for transfer in rights]
            descriptors.extend([layout.memory_descriptor(len(region)) for region in memory])
            message = layout.pack(bits, name, reply_name, id, descriptors=descriptors, inline=pack_body(data))
        except BaseException:
            for transfer in rights:
                if isinstance(transfer, Transfer):
                    transfer.undo()
            raise
        return t.MsgTrap(c.MACH_SEND_MSG, message, memory)

    def _check_transfers(self, rights: Sequence[Transfer]) -> None:
        """Every right is given as a move or a copy, is of this task, and is moved once."""
        # By kind, too: a send right and the receive right of one port have one name.
        moved: set[tuple[int, Right]] = set()
        objects: set[int] = set()
        for transfer in rights:
            if isinstance(transfer, Right):
                raise InvalidArgument(
                    f"{transfer!r} cannot go into a message as it is; give right.move() or right.copy()",
                    task=self.label,
                )
            if not isinstance(transfer, Transfer):
                raise InvalidArgument(f"rights are given as right.move() or right.copy(), not as {transfer!r}")
            transfer.prepare(self)
            transfer.right.name_in(self)
            if id(transfer.right) in objects or (
                (transfer.right.kind, transfer.right) in moved and not isinstance(transfer.right, AnySendRight)
            ):
                raise InvalidArgument(f"{transfer.right!r} is moved twice in one message", task=self.label)
            if transfer.moves:
                moved.add((transfer.right.kind, transfer.right))
                objects.add(id(transfer.right))

    def _settle(self, answer: t.MsgAnswer, rights: Sequence[Transfer], call: str, name: int) -> None:
        """What became of the rights that a message carried; raise what went wrong."""
        if not answer.code or answer.code & RECEIVE_FAILED:
            for transfer in rights:
                transfer.done()
        elif answer.code == c.MACH_SEND_INVALID_RIGHT:
            for transfer in rights[: answer.taken]:
                transfer.done()
            for transfer in rights[answer.taken :]:
                transfer.undo()
        elif answer.buffer is not None:
            self._take_back(answer, rights)
        else:
            for transfer in rights:
                transfer.undo()
        if answer.code:
            raise failure(self, answer.code, call=call, name=name, rule=answer.rule)

    def _take_back(self, answer: t.MsgAnswer, rights: Sequence[Transfer]) -> None:
        """A message came back unsent: its rights are this task's again, and copies made for it go (M19)."""
        assert answer.buffer is not None
        back = layout.parse(answer.buffer)
        for name in (back.remote, back.local):
            if name not in (c.MACH_PORT_NULL, c.MACH_PORT_DEAD):
                self.calls.mach_port_deallocate(self.name, name)
        for transfer, descriptor in zip(rights, back.descriptors, strict=False):
            transfer.returned(descriptor.name)

    def _take_reply_port(self) -> int:
        """A port for one answer at a time: one that is free, or a new one."""
        try:
            return self._reply_ports.pop()
        except IndexError:
            return self.calls.mach_reply_port()

    def _keep_reply_port(self, port: int) -> None:
        """Nothing more comes to the port: another call may use it, unless many are kept already."""
        if len(self._reply_ports) < _REPLY_PORTS_MAX:
            self._reply_ports.append(port)
        else:
            self._drop_reply_port(port)

    def _drop_reply_port(self, port: int) -> None:
        """Nobody waits for what may still come to this port."""
        with contextlib.suppress(MachError):
            self.calls.mach_port_mod_refs(self.name, port, c.MACH_PORT_RIGHT_RECEIVE, -1)

    # Children

    def spawn(
        self,
        target: Callable[..., object] | Sequence[str],
        *args: Any,
        rights: Mapping[str, Transfer] | None = None,
        bootstrap: bool = False,
        confined: Confinement | bool = False,
        limits: Limits | None = None,
        **kwargs: Any,
    ) -> Child:
        """Start a process whose task has just the rights that it is given, as ``right.move()`` or ``right.copy()``.

        A function is called as ``target(*args, **kwargs, **rights)`` in a new process of Python, and finds rights of
        its own task among its arguments.  All that is pickled: so it is a function of a module, and a program needs
        its ``if __name__ == "__main__":``.  The child does not run on if this process exits normally.

        A list of strings is a program and its arguments, as ``subprocess`` has them, with ``env``, ``cwd``, ``stdin``,
        ``stdout`` and ``stderr`` among ``kwargs``.  It finds its rights by ``machport.inherited()``; one that does not
        look has none.

        Args:
            rights: what the child is given by name; ends of data queues, too.
            bootstrap: also let the child ask for services by name.
            confined: let the system refuse the child all but its rights and what a ``Confinement`` allows; True for the
                strictest one.
            limits: what the child may have at most, as ``Limits(names=100)``; by default what this task may.

        Raises:
            LimitReached: a limit is above that of this task.
            InvalidArgument: a right was given as it is, or twice, or is of another task; or ``target`` is neither a
                function nor a list.
            ProgramNotStarted: there is no such program; everything given is still here.
            ConfinementUnavailable: this system cannot confine it so; nothing was started.
        """
        return start_child(
            self, target, args, kwargs, rights=rights or {}, bootstrap=bootstrap, confined=confined, limits=limits
        )

    # Tasks of other processes

    def task_for_pid(self, pid: int) -> AnySendRight:
        """A send right to the task of a process, with which everything can be done that the task can do.

        Root may have any; a process its own; others of the same user that of a process which has agreed
        (``allow_task_for_pid``), or any if the daemon was started with ``--task-for-pid user``.

        Raises:
            AccessDenied: this task may not have it.
            InvalidArgument: the process has no task of this daemon.
        """
        return self.send_kind(self, self.calls.task_for_pid(self.name, pid))

    def allow_task_for_pid(self, allowed: bool = True) -> None:
        """Agree that other tasks of this user have this one's port, as for a debugger; or, with False, no more.

        Rights that were given out stay where they are.
        """
        self.calls.allow_task_for_pid(allowed)

    # Limits

    def limits(self) -> Limits:
        """What the task may have at most."""
        return self.calls.task_get_limits(self.name)[0]

    def usage(self) -> Limits:
        """How much the task has of everything that is limited."""
        return self.calls.task_get_limits(self.name)[1]

    # Ending

    def close(self) -> None:
        """End the task: every right it has is given up, and whoever watched one of them is told."""
        if self._connection is not None:
            self._connection.close()

    def __repr__(self) -> str:
        return f"<Task {self.label}>"


def require_text(service_name: object) -> str:
    """The name of a service.

    Raises:
        BadArguments: it is no text.
    """
    if not isinstance(service_name, str):
        raise BadArguments(f"the name of a service is a string, not {service_name!r}")
    return service_name


def require_task(task: AnyTask) -> AnyTask:
    """An argument that must be a task.

    Raises:
        InvalidArgument: it is something else.
    """
    if not isinstance(task, AnyTask):
        raise InvalidArgument(f"task must be a Task, not {task!r}")
    return task


def milliseconds(timeout: float | None) -> int:
    """Seconds as traps have them.

    Raises:
        InvalidArgument: it is no number of seconds.
    """
    if timeout is None:
        return 0
    if not isinstance(timeout, int | float) or not timeout >= 0:
        raise InvalidArgument(f"a timeout is 0 or more seconds, not {timeout!r}")
    if math.isinf(timeout):
        return _MAX_TIMEOUT_MS
    return min(-int(-timeout * 1000 // 1), _MAX_TIMEOUT_MS)
