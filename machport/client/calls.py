"""Every call of a task on its kernel, by its manual name: arguments packed, the answer unpacked or raised.

Names of ports and tasks are integers of the calling task's space.  A refusal is raised as a ``MachError`` that has the
table's code, the task, the port name and the rule.
"""

# A protocol's members have docstrings for bodies.
# pyright: reportReturnType=false

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn, Protocol

from machport.abi import constants as c
from machport.abi import message as layout
from machport.abi import traps as t
from machport.abi.errors import MachError, error_for
from machport.abi.limits import Limits
from machport.abi.status import PortStatus
from machport.abi.traps import Buffer, Payload, number_of, unpack_msg_answer
from machport.carrier import packet
from machport.client.description import Description, Fields, unpack_description

#: Bytes that no answer of a call that names only numbers exceeds, what is said about a refusal included.
_SHORT_ANSWER = 256


class Carrier(Protocol):
    """What carries the traps of whichever thread calls."""

    @property
    def label(self) -> str:
        """What the daemon calls the task."""

    @property
    def path(self) -> Path:
        """Where the daemon listens."""

    @property
    def self_name(self) -> int:
        """The task's name for its own port once it has asked, else 0."""

    @self_name.setter
    def self_name(self, name: int) -> None:
        """The task has asked."""

    def trap(self, payload: Payload, descriptors: Sequence[int] = ()) -> tuple[Buffer, Sequence[int]]:
        """One trap in, one answer out, with the descriptors that came along."""

    def traps(self, payloads: Sequence[Payload], answer_max: int) -> list[Buffer]:
        """Many traps in, one behind the other, and their answers out."""

    def stream(self, payload: bytes) -> list[Buffer]:
        """One trap in, many answers out."""

    def interrupt(self, thread: int) -> None:
        """Let the call that a thread waits in return."""

    def forget(self, name: int, kind: int) -> None:
        """Give up a reference without waiting."""


class Peeked(NamedTuple):
    """What ``mach_port_peek`` tells of a waiting message: number, size, id, and its sender's tokens."""

    seqno: int
    size: int
    id: int
    sender: tuple[int, int]
    audit: tuple[int, ...]


class Calls:
    """The calls of one task."""

    def __init__(self, carrier: Carrier) -> None:
        self.carrier = carrier

    def _trap(
        self, trap: t.Trap, arguments: tuple[int, ...], words: Sequence[int] = ()
    ) -> tuple[tuple[int, ...], list[int]]:
        payload, descriptors = self.carrier.trap(trap.pack(*arguments, words=words))
        if len(descriptors):
            packet.close_all(descriptors)
        if number_of(payload):
            self._refused(trap, arguments, payload)
        return trap.unpack_answer(payload)

    def many(self, trap: t.Trap, calls: Sequence[Sequence[int]]) -> list[tuple[tuple[int, ...], list[int]]]:
        """The same call many times, without waiting for one before the next goes; the fields and words of each answer.

        All are carried out.  Then the first that was refused is raised, if there is one.

        Args:
            calls: the arguments of each.
        """
        answers = self.carrier.traps([trap.pack(*arguments) for arguments in calls], _SHORT_ANSWER)
        results = []
        refused: tuple[Sequence[int], Buffer] | None = None
        for arguments, payload in zip(calls, answers, strict=True):
            if not number_of(payload):
                results.append(trap.unpack_answer(payload))
            elif refused is None:
                refused = arguments, payload
        if refused is not None:
            self._refused(trap, *refused)
        return results

    def _refused(self, trap: t.Trap, arguments: Sequence[int], payload: Buffer) -> NoReturn:
        rule, says = t.unpack_refusal(payload)
        name = None if trap.subject is None else arguments[trap.subject]
        raise error_for(
            _signed(number_of(payload)), says, call=trap.call, task=self.carrier.label, name=name, rule=rule
        )

    def _one(self, trap: t.Trap, arguments: tuple[int, ...]) -> int:
        return self._trap(trap, arguments)[0][0]

    # Names and rights

    def mach_reply_port(self) -> int:
        """A new receive right."""
        return self._one(t.REPLY_PORT, ())

    def mach_port_names(self, task: int) -> list[tuple[int, int]]:
        """Every name of a task with its MACH_PORT_TYPE_ bits, as one snapshot."""
        words = self._trap(t.NAMES, (task,))[1]
        return list(zip(words[::2], words[1::2], strict=True))

    def mach_port_type(self, task: int, name: int) -> int:
        """The MACH_PORT_TYPE_ bits of a name."""
        return self._one(t.TYPE, (task, name))

    def mach_port_rename(self, task: int, old: int, new: int) -> None:
        """All that ``old`` denotes moves to the unused name ``new``."""
        self._trap(t.RENAME, (task, old, new))

    def mach_port_allocate_name(self, task: int, right: int, name: int) -> None:
        """As ``mach_port_allocate``, under an unused name of the caller's choice."""
        self._trap(t.ALLOCATE_NAME, (task, right, name))

    def mach_port_allocate(self, task: int, right: int) -> int:
        """A new receive right, port set or dead name (MACH_PORT_RIGHT_); its name."""
        return self._one(t.ALLOCATE, (task, right))

    def mach_port_allocate_full(self, task: int, right: int, qlimit: int = c.MACH_PORT_QLIMIT_DEFAULT) -> int:
        """As ``mach_port_allocate``, for a receive right with its queue limit."""
        if right != c.MACH_PORT_RIGHT_RECEIVE:
            return self.mach_port_allocate(task, right)
        return self.mach_port_construct(task, c.MPO_QLIMIT, qlimit)

    def mach_port_construct(self, task: int, flags: int, qlimit: int = 0, context: int = 0) -> int:
        """A new receive right with MPO_ options; its name."""
        return self._one(t.CONSTRUCT, (task, flags, qlimit, context))

    def mach_port_destruct(self, task: int, name: int, srdelta: int = 0, guard: int = 0) -> None:
        """Drop ``-srdelta`` send references and destroy the receive right, in one step."""
        self._trap(t.DESTRUCT, (task, name, srdelta, guard))

    def mach_port_destroy(self, task: int, name: int) -> None:
        """Give up all rights of a name."""
        self._trap(t.DESTROY, (task, name))

    def mach_port_deallocate(self, task: int, name: int) -> None:
        """Give up one reference of a send right, a send-once right or a dead name."""
        self._trap(t.DEALLOCATE, (task, name))

    def mach_port_get_refs(self, task: int, name: int, right: int) -> int:
        """User references of one right of a name, 0 if it has other rights only."""
        return self._one(t.GET_REFS, (task, name, right))

    def mach_port_mod_refs(self, task: int, name: int, right: int, delta: int) -> None:
        """Change the user references of one right of a name."""
        self._trap(t.MOD_REFS, (task, name, right, delta))

    def mach_port_insert_right(self, task: int, name: int, right: int, disposition: int) -> None:
        """A right of the caller goes into a task under a chosen name; it is consumed even by a refusal."""
        self._trap(t.INSERT_RIGHT, (task, name, right, disposition))

    def mach_port_extract_right(self, task: int, name: int, disposition: int) -> tuple[int, int]:
        """A right of a task goes to the caller; its name and kind (MACH_MSG_TYPE_PORT_)."""
        right, kind = self._trap(t.EXTRACT_RIGHT, (task, name, disposition))[0]
        return right, kind

    def mach_port_request_notification(
        self, task: int, name: int, variant: int, sync: int, notify: int, notify_type: int
    ) -> int:
        """Register, replace or cancel (``notify`` 0) a notification; the send-once right registered before, or 0."""
        return self._one(t.REQUEST_NOTIFICATION, (task, name, variant, sync, notify, notify_type))

    # What is known of them

    def describe(self, name: int) -> Description:
        """What is known of a name of the caller's own: its port, who receives there, and how who did before ended."""
        return unpack_description(self._trap(t.DESCRIBE, (name,)), lambda: self._describe_again(name))

    def _describe_again(self, name: int) -> Fields | None:
        try:
            return self._trap(t.DESCRIBE, (name,))
        except MachError:
            return None

    def port_label(self, name: int, label: str) -> None:
        """What people are to call a port, of which the caller has the receive right: up to 64 bytes of UTF-8."""
        self._trap(t.PORT_LABEL, (name,), t.pack_texts(label))

    def forget(self, name: int, kind: int) -> None:
        """Give up one reference of a right (MACH_PORT_RIGHT_) without waiting, from wherever; also in a finalizer."""
        self.carrier.forget(name, kind)

    # Receive rights

    def mach_port_get_attributes(self, task: int, name: int, flavor: int, count: int = 32) -> list[int]:
        """Words of one flavor of information, such as MACH_PORT_LIMITS_INFO."""
        return self._trap(t.GET_ATTRIBUTES, (task, name, flavor, count))[1]

    def mach_port_set_attributes(self, task: int, name: int, flavor: int, info: Sequence[int]) -> None:
        """Set the words of one flavor: MACH_PORT_LIMITS_INFO, the queue limit."""
        self._trap(t.SET_ATTRIBUTES, (task, name, flavor), words=info)

    def mach_port_set_qlimit(self, task: int, name: int, qlimit: int) -> None:
        """The classic name of setting MACH_PORT_LIMITS_INFO."""
        self.mach_port_set_attributes(task, name, c.MACH_PORT_LIMITS_INFO, [qlimit])

    def mach_port_get_receive_status(self, task: int, name: int) -> PortStatus:
        """The classic name of getting MACH_PORT_RECEIVE_STATUS."""
        return PortStatus(*self.mach_port_get_attributes(task, name, c.MACH_PORT_RECEIVE_STATUS))

    def mach_port_set_mscount(self, task: int, name: int, mscount: int) -> None:
        """Set the make-send count."""
        self._trap(t.SET_MSCOUNT, (task, name, mscount))

    def mach_port_set_seqno(self, task: int, name: int, seqno: int) -> None:
        """Set the number of the next message."""
        self._trap(t.SET_SEQNO, (task, name, seqno))

    def mach_port_get_srights(self, task: int, name: int) -> int:
        """The number of send rights to the port."""
        return self._one(t.GET_SRIGHTS, (task, name))

    def mach_port_get_context(self, task: int, name: int) -> int:
        """The receiver's 64-bit cookie."""
        return self._one(t.GET_CONTEXT, (task, name))

    def mach_port_set_context(self, task: int, name: int, context: int) -> None:
        """Set the receiver's 64-bit cookie."""
        self._trap(t.SET_CONTEXT, (task, name, context))

    def mach_port_guard(self, task: int, name: int, guard: int, strict: bool) -> None:
        """Protect a receive right against being destroyed, and if strict moved, by accident."""
        self._trap(t.GUARD, (task, name, guard, int(strict)))

    def mach_port_unguard(self, task: int, name: int, guard: int) -> None:
        """Take the protection away again."""
        self._trap(t.UNGUARD, (task, name, guard))

    def mach_port_peek(self, task: int, name: int, seqno: int = 0) -> Peeked:
        """Look at the next waiting message, or at the one numbered ``seqno``, and leave it there."""
        (number, size, id), tokens = self._trap(t.PEEK, (task, name, seqno))
        return Peeked(number, size, id, (tokens[0], tokens[1]), tuple(tokens[2:]))

    # Port sets

    def mach_port_move_member(self, task: int, member: int, after: int) -> None:
        """Move a receive right into a set, out of any other; with 0 out of the one it is in."""
        self._trap(t.MOVE_MEMBER, (task, member, after))

    def mach_port_insert_member(self, task: int, member: int, pset: int) -> None:
        """Put a receive right into a set."""
        self._trap(t.INSERT_MEMBER, (task, member, pset))

    def mach_port_extract_member(self, task: int, member: int, pset: int) -> None:
        """Take a receive right out of a set."""
        self._trap(t.EXTRACT_MEMBER, (task, member, pset))

    def mach_port_get_set_status(self, task: int, name: int) -> list[int]:
        """Names of the members of a set."""
        return self._trap(t.GET_SET_STATUS, (task, name))[1]

    # Tasks

    def mach_task_self(self) -> int:
        """The name of the task's own port; one reference is kept for all who ask."""
        if not self.carrier.self_name:
            self.carrier.self_name = self._one(t.TASK_SELF, ())
        return self.carrier.self_name

    def task_create(self, task: int) -> int:
        """A child task without threads, rights or bootstrap port; its task port.

        It ends with the task that made it unless a process claims it by a ticket.
        """
        return self._one(t.TASK_CREATE, (task,))

    def task_for_pid(self, target_task: int, pid: int) -> int:
        """A send right to the task of a process; of one with several, that which joined first of those one may have.

        Args:
            target_task: the caller's own task.

        Raises:
            AccessDenied: the caller was made by another task, or is neither root nor has the process agreed.
            InvalidArgument: KERN_FAILURE, the process has no task of this daemon.
        """
        return self._one(t.TASK_FOR_PID, (target_task, pid))

    def allow_task_for_pid(self, allowed: bool) -> None:
        """Agree that tasks of the same user may have this task's port by ``task_for_pid``, or no more."""
        self._trap(t.ALLOW_TASK_FOR_PID, (int(allowed),))

    def task_terminate(self, task: int) -> None:
        """End a task: all its rights go."""
        self._trap(t.TASK_TERMINATE, (task,))

    def task_get_special_port(self, task: int, which: int) -> int:
        """A send right to a special port, such as TASK_BOOTSTRAP_PORT; 0 if there is none."""
        return self._one(t.GET_SPECIAL_PORT, (task, which))

    def task_set_special_port(self, task: int, which: int, port: int) -> None:
        """Replace a special port by a copy of the caller's send right; 0 for none."""
        self._trap(t.SET_SPECIAL_PORT, (task, which, port))

    def mach_ports_register(self, task: int, ports: Sequence[int]) -> None:
        """Keep copies of up to TASK_PORT_REGISTER_MAX send rights with a task."""
        self._trap(t.PORTS_REGISTER, (task,), words=ports)

    def mach_ports_lookup(self, task: int) -> list[int]:
        """Send rights to the ports registered with a task."""
        return self._trap(t.PORTS_LOOKUP, (task,))[1]

    def task_set_limits(self, task: int, limits: Limits) -> None:
        """Set limits of a child task that waits for its process; none may be above the caller's own."""
        self._trap(t.TASK_SET_LIMITS, (task,), words=limits.words())

    def task_get_limits(self, task: int) -> tuple[Limits, Limits]:
        """The limits of the caller's task, or of a child that waits for its process; and how much of them is used."""
        words = self._trap(t.TASK_GET_LIMITS, (task,))[1]
        half = len(words) // 2
        return Limits.of_words(words[:half]), Limits.of_words(words[half:])

    def ticket(self, task: int) -> bytes:
        """What a process says in its hello to become the child task that the caller made; good once."""
        return b"".join(word.to_bytes(4, "little") for word in self._trap(t.TICKET, (task,))[1])

    def thread_abort(self, thread: int) -> None:
        """Interrupt the ``mach_msg`` that a thread of this task (``threading.get_ident``) waits in, if it does."""
        self.carrier.interrupt(thread)

    def watch(self, task: int, descriptor: int) -> None:
        """Let a child task that waits for its process end when ``descriptor``, the process's pidfd, says that it died.

        Once the process has claimed the task this does nothing: the daemon then watches it by itself.
        """
        payload, descriptors = self.carrier.trap(t.WATCH.pack(task), (descriptor,))
        packet.close_all(descriptors)
        if number_of(payload):
            self._refused(t.WATCH, (task,), payload)

    def deposit(self, name: int, disposition: int) -> bytes:
        """Let a right of the task wait for whoever has its ticket, as long as the task lives; the ticket, good once."""
        return b"".join(word.to_bytes(4, "little") for word in self._trap(t.DEPOSIT, (name, disposition))[1])

    def claim(self, ticket: bytes) -> tuple[int, int]:
        """The right of a ticket comes to the task; its name and kind (MACH_MSG_TYPE_PORT_)."""
        name, kind = self._trap(t.CLAIM, (), _words(ticket))[0]
        return name, kind

    def watch_deposit(self, ticket: bytes, descriptor: int) -> None:
        """Let a right that waits for its ticket go when ``descriptor``, a pidfd, says that its process died."""
        payload, descriptors = self.carrier.trap(t.WATCH_DEPOSIT.pack(words=_words(ticket)), (descriptor,))
        packet.close_all(descriptors)
        if number_of(payload):
            self._refused(t.WATCH_DEPOSIT, (), payload)

    # Files

    def fileport_makeport(self, descriptor: int) -> int:
        """A send right that stands for an open file; the caller's descriptor stays open."""
        payload, descriptors = self.carrier.trap(t.FILEPORT_MAKEPORT.pack(), (descriptor,))
        packet.close_all(descriptors)
        if number_of(payload):
            self._refused(t.FILEPORT_MAKEPORT, (), payload)
        return t.FILEPORT_MAKEPORT.unpack_answer(payload)[0][0]

    def fileport_makefd(self, name: int) -> int:
        """A descriptor of the file that a send right stands for; the caller owns it, the right stays."""
        payload, descriptors = self.carrier.trap(t.FILEPORT_MAKEFD.pack(name))
        if number_of(payload) or len(descriptors) != 1:
            packet.close_all(descriptors)
            self._refused(t.FILEPORT_MAKEFD, (name,), payload)
        return descriptors[0]

    # Messages

    def mach_msg(self, trap: t.MsgTrap) -> t.MsgAnswer:
        """Send, receive, or both; the result with its code, which is never raised.

        A wait that is interrupted goes on unless the INTERRUPT option of its half is given (M36).
        """
        if (len(trap.memory) or trap.size() > layout.MAX_SIZE) and trap.packed_size > packet.TRAP_MAX:
            return t.MsgAnswer(c.MACH_SEND_NO_BUFFER, rule="M section 3")
        while True:
            payload, descriptors = self.carrier.trap(trap.payload())
            if len(descriptors):
                packet.close_all(descriptors)
            answer = unpack_msg_answer(payload)
            if answer.code == c.MACH_SEND_INTERRUPTED and answer.buffer is None:
                # The task was terminated: there is nothing to go on with.
                return answer
            if answer.code == c.MACH_SEND_INTERRUPTED and not trap.option & c.MACH_SEND_INTERRUPT:
                assert answer.buffer is not None
                trap.again(answer.buffer, answer.memory)
            elif answer.code == c.MACH_RCV_INTERRUPTED and not trap.option & c.MACH_RCV_INTERRUPT:
                trap.option &= ~c.MACH_SEND_MSG
                trap.again(b"", ())
            else:
                return answer


def _signed(code: int) -> int:
    """Return codes of MIG are negative; those of IOKit are not."""
    return code - (1 << 32) if code >= 0xFFFFF000 else code


def _words(ticket: bytes) -> list[int]:
    return list(memoryview(ticket).cast("I"))
