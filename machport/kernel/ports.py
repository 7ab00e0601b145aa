"""The ``mach_port_`` calls on a space, each with the checks of section 5 of the specification in their order.

``task`` is the task worked on; where rights come from or go to another task's space, that is ``caller``.  Every call
raises ``Refusal`` with the table's code, and then has changed nothing but what its rule says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from machport.abi import constants as c
from machport.abi import words
from machport.abi.message import Trailer, is_disposition
from machport.abi.status import PortStatus
from machport.kernel.kernel import Kernel
from machport.kernel.port import DEAD, LABEL_MAX, Port, PortSet, new_port
from machport.kernel.queueing import admit_senders, destroy_set, join_set, leave_set, received_size
from machport.kernel.refusal import Refusal
from machport.kernel.release import (
    destroy_entry,
    free_entry,
    notify,
    release_receive,
    release_reference,
    release_right,
)
from machport.kernel.rights import (
    copyin,
    copyout,
    destroy_refused,
    enter_right,
    has_right_for,
    is_nameless,
    join_entry,
    kind_of,
)
from machport.kernel.space import Entry, Space, new_entry
from machport.kernel.task import Task

_STATUS_GUARDED, _STATUS_STRICT = 0x02, 0x04


class Peeked(NamedTuple):
    """What ``mach_port_peek`` tells of a waiting message."""

    seqno: int
    size: int
    id: int
    trailer: Trailer


class Described(NamedTuple):
    """What may be known of a name by whoever has it.

    Attributes:
        type: MACH_PORT_TYPE_ bits, without those of requests.
        urefs: user references.
        label: of the port, also of one that died.
        holder: the task that has the receive right now, if one has.
        last_holder: ``Task.number`` of the one that had it last and ended with it, or 0.
        unreceived, lost_with: for a receive right, those of its port.
    """

    type: int
    urefs: int
    label: str
    holder: Task | None
    last_holder: int
    unreceived: bool = False
    lost_with: int = 0


def _entry(task: Task, name: int) -> Entry:
    entry = task.space.lookup(name)
    if entry is None:
        raise Refusal(c.KERN_INVALID_NAME, "P section 5", "the task has nothing under this name")
    return entry


def _receive_right(task: Task, name: int) -> Port:
    entry = _entry(task, name)
    if not entry.type & c.MACH_PORT_TYPE_RECEIVE:
        raise Refusal(c.KERN_INVALID_RIGHT, "P section 5", "not a receive right")
    assert entry.port is not None
    return entry.port


def _set_entry(task: Task, name: int) -> PortSet:
    pset = _entry(task, name).pset
    if pset is None:
        raise Refusal(c.KERN_INVALID_RIGHT, "P section 10", "not a port set")
    return pset


def _check_new_name(name: int) -> None:
    if is_nameless(name):
        raise Refusal(c.KERN_INVALID_VALUE, "P1", "0 and ~0 are never names")


def _check_guard(port: Port) -> None:
    if port.guarded:
        raise Refusal(c.KERN_INVALID_RIGHT, "P section 12", "the receive right is guarded")


# Names


def describe(kernel: Kernel, task: Task, name: int) -> Described:
    """What is known of a name, and of its port if there is one."""
    entry = _entry(task, name)
    port = entry.died if entry.port is None else entry.port
    if port is None:
        return Described(entry.type, entry.urefs, "", None, 0)
    holder = None if port.receiver is None else port.receiver.task
    if holder is not None and not holder.active:
        # Its end has not come to this port yet.
        return Described(entry.type, entry.urefs, port.label, None, holder.number)
    if not entry.type & c.MACH_PORT_TYPE_RECEIVE:
        return Described(entry.type, entry.urefs, port.label, holder, port.last_holder)
    lost = port.unreceived, port.lost_with
    return Described(entry.type, entry.urefs, port.label, holder, port.last_holder, *lost)


def mach_port_allocate(kernel: Kernel, task: Task, right: int) -> int:
    """A new receive right, port set or dead name; its name."""
    _check_allocatable(right)
    name = task.space.pick_name()
    _allocate(kernel, task.space, name, right)
    return name


def mach_port_allocate_name(kernel: Kernel, task: Task, right: int, name: int) -> None:
    """The same under a name of the caller's choice."""
    _check_new_name(name)
    _check_allocatable(right)
    if task.space.lookup(name) is not None:
        raise Refusal(c.KERN_NAME_EXISTS, "P section 5", "the name is in use")
    task.space.check_room()
    _allocate(kernel, task.space, name, right)


def _check_allocatable(right: int) -> None:
    if (
        right != c.MACH_PORT_RIGHT_RECEIVE
        and right != c.MACH_PORT_RIGHT_PORT_SET
        and right != c.MACH_PORT_RIGHT_DEAD_NAME
    ):
        raise Refusal(c.KERN_INVALID_VALUE, "P section 5", f"right {right} cannot be allocated")


def _allocate(kernel: Kernel, space: Space, name: int, right: int) -> None:
    if right == c.MACH_PORT_RIGHT_RECEIVE:
        kernel.counts.ports += 1
        space.add(new_entry(name, c.MACH_PORT_TYPE_RECEIVE, 0, new_port(space)))
    elif right == c.MACH_PORT_RIGHT_PORT_SET:
        space.add(new_entry(name, c.MACH_PORT_TYPE_PORT_SET, 0, None, PortSet(name)))
    else:
        space.add(new_entry(name, c.MACH_PORT_TYPE_DEAD_NAME, 1))


def mach_reply_port(kernel: Kernel, task: Task) -> int:
    """A new receive right for replies."""
    return mach_port_allocate(kernel, task, c.MACH_PORT_RIGHT_RECEIVE)


def mach_port_rename(kernel: Kernel, task: Task, old: int, new: int) -> None:
    """All that ``old`` denotes moves to the unused name ``new``."""
    _check_new_name(new)
    if task.space.lookup(new) is not None:
        raise Refusal(c.KERN_NAME_EXISTS, "P section 5", "the new name is in use")
    task.space.rename(_entry(task, old), new)


def mach_port_names(kernel: Kernel, task: Task) -> list[tuple[int, int]]:
    """Every name with its type bits, in one consistent snapshot."""
    found = []
    for entry in task.space.living_entries():
        found.append((entry.name, entry.reported_type()))
    return found


def mach_port_type(kernel: Kernel, task: Task, name: int) -> int:
    """Type bits of one name."""
    return _entry(task, name).reported_type()


# References


def _right_type(kernel: Kernel, right: int) -> int:
    if not 0 <= right < kernel.dialect.right_number:
        raise Refusal(c.KERN_INVALID_VALUE, "P section 5", f"{right} is not a right")
    # The bits are in the order of the numbers; the right after the last of them is never there.
    return c.MACH_PORT_TYPE_SEND << right if right <= c.MACH_PORT_RIGHT_DEAD_NAME else 0


def _urefs_max(right: int) -> int:
    """How many references an entry may have to a right."""
    if right == c.MACH_PORT_RIGHT_SEND:
        return c.SEND_UREFS_MAX
    return c.MACH_PORT_UREFS_MAX if right == c.MACH_PORT_RIGHT_DEAD_NAME else 1


def mach_port_get_refs(kernel: Kernel, task: Task, name: int, right: int) -> int:
    """User references of one right of a name; 0 if the name is there without it."""
    type = _right_type(kernel, right)
    entry = _entry(task, name)
    if not entry.type & type:
        return 0
    return entry.urefs if _urefs_max(right) > 1 else 1


def mach_port_mod_refs(kernel: Kernel, task: Task, name: int, right: int, delta: int) -> None:
    """Change the user references of one right of a name; at 0 the right is given up (section 5.1)."""
    type = _right_type(kernel, right)
    entry = _entry(task, name)
    if not entry.type & type:
        raise Refusal(c.KERN_INVALID_RIGHT, "P19", "the name is there without that right")
    most = _urefs_max(right)
    urefs = entry.urefs if most > 1 else 1
    if urefs + delta < 0 or (delta > 0 and most == 1):
        raise Refusal(c.KERN_INVALID_VALUE, "P20", f"{urefs} references cannot change by {delta}")
    if urefs + delta > most:
        raise Refusal(c.KERN_UREFS_OVERFLOW, "P20", f"{urefs} references cannot become more than {most}")
    if delta == 0:
        return
    if right == c.MACH_PORT_RIGHT_RECEIVE:
        assert entry.port is not None
        _check_guard(entry.port)
        _destroy_receive(kernel, task.space, entry, entry.port)
    elif right == c.MACH_PORT_RIGHT_PORT_SET:
        assert entry.pset is not None
        task.space.free(entry)
        destroy_set(kernel, entry.pset)
    elif delta > 0:
        entry.urefs += delta
    else:
        release_reference(kernel, task.space, entry, -delta)


def _destroy_receive(kernel: Kernel, space: Space, entry: Entry, port: Port) -> None:
    """The receive right of a name is given up; a send right under it lives or dies with the port (D7)."""
    deleted = None
    if not entry.type & c.MACH_PORT_TYPE_SEND:
        deleted = free_entry(space, entry)
    elif kernel.dialect.saved_port_deadens_send and port.pd_request is not None:
        del space.by_port[port]
        entry.type = c.MACH_PORT_TYPE_DEAD_NAME
        entry.port = None
        if entry.request:
            entry.request = 0
            entry.urefs += 1
    else:
        entry.type = c.MACH_PORT_TYPE_SEND
    release_receive(kernel, port)
    notify(kernel, deleted)


def mach_port_deallocate(kernel: Kernel, task: Task, name: int) -> None:
    """Give up one user reference of a send right, a send-once right or a dead name, whichever it is."""
    entry = _entry(task, name)
    if entry.type == c.MACH_PORT_TYPE_RECEIVE or entry.type == c.MACH_PORT_TYPE_PORT_SET:
        raise Refusal(c.KERN_INVALID_RIGHT, "D5", "only send, send-once and dead names can be deallocated")
    release_reference(kernel, task.space, entry)


def mach_port_destroy(kernel: Kernel, task: Task, name: int) -> None:
    """Give up all rights of a name; the name is free."""
    entry = _entry(task, name)
    if entry.port is not None and entry.type & c.MACH_PORT_TYPE_RECEIVE:
        _check_guard(entry.port)
    destroy_entry(kernel, task.space, entry)


# Rights between spaces


def mach_port_insert_right(kernel: Kernel, caller: Task, task: Task, name: int, right: int, disposition: int) -> None:
    """A right of the caller goes into the task under a chosen name; it is consumed even by a refusal (P16)."""
    port = _copyin_carried(kernel, caller, right, disposition)
    kind = kind_of(disposition)
    try:
        _check_new_name(name)
        if port is None or not port.active:
            raise Refusal(c.KERN_INVALID_CAPABILITY, "P section 5", "the right is null or dead")
        _insert(task.space, name, port, kind)
    except Refusal:
        destroy_refused(kernel, port, kind)
        raise


def _copyin_carried(kernel: Kernel, caller: Task, name: int, disposition: int) -> Port | None:
    """The right that a call carries; None for null."""
    if not is_disposition(disposition):
        raise Refusal(c.KERN_INVALID_VALUE, "P section 5", f"{disposition} is not a disposition")
    if is_nameless(name):
        return DEAD if name else None
    entry = caller.space.lookup(name)
    if entry is not None and has_right_for(entry, disposition):
        return copyin(kernel, caller.space, entry, disposition)
    if kernel.calls_are_messages:
        raise Refusal(c.MACH_SEND_INVALID_RIGHT, "F2")
    if entry is None:
        raise Refusal(c.KERN_INVALID_NAME, "P17", f"the caller has nothing under the name {name:#x}")
    raise Refusal(c.KERN_INVALID_RIGHT, "P17", f"{name:#x} is not the right that the disposition needs")


def _insert(space: Space, name: int, port: Port, kind: int) -> None:
    entry = space.lookup(name)
    holder = None if kind == c.MACH_MSG_TYPE_PORT_SEND_ONCE else space.by_port.get(port)
    if holder is not None and holder is not entry:
        raise Refusal(c.KERN_RIGHT_EXISTS, "P section 5", f"the task has the port under {holder.name:#x}")
    if holder is not None:
        if kind == c.MACH_MSG_TYPE_PORT_SEND and holder.urefs >= c.SEND_UREFS_MAX:
            raise Refusal(c.KERN_UREFS_OVERFLOW, "P14", "the send right has all references that it can have")
        join_entry(space, holder, port, kind)
    elif entry is not None:
        raise Refusal(c.KERN_NAME_EXISTS, "P section 5", "the name denotes another right")
    else:
        space.check_room()
        enter_right(space, name, port, kind)


def mach_port_extract_right(kernel: Kernel, caller: Task, task: Task, name: int, disposition: int) -> tuple[int, int]:
    """A right of the task goes to the caller: the caller's name for it, and its kind.

    A dead name gives ~0 where the disposition allows one (P7).  A right that the caller has no room for is destroyed,
    and the call refused (P15).
    """
    if not is_disposition(disposition):
        raise Refusal(c.KERN_INVALID_VALUE, "P section 5", f"{disposition} is not a disposition")
    entry = _entry(task, name)
    if not has_right_for(entry, disposition):
        raise Refusal(c.KERN_INVALID_RIGHT, "P8", "the name is there without the right that the disposition needs")
    port = copyin(kernel, task.space, entry, disposition)
    kind = kind_of(disposition)
    try:
        return copyout(caller.space, port, kind), kind
    except Refusal:
        release_right(kernel, port, kind)
        raise


# Attributes of a receive right


def set_label(kernel: Kernel, task: Task, name: int, label: str) -> None:
    """What people are to call the port, which has it for as long as its receiver does not change it."""
    if len(label.encode()) > LABEL_MAX:
        raise Refusal(c.KERN_INVALID_VALUE, "port_label", f"a label has at most {LABEL_MAX} bytes")
    _receive_right(task, name).label = label


def mach_port_get_attributes(kernel: Kernel, task: Task, name: int, flavor: int, count: int) -> Sequence[int]:
    """Words of one flavor of information; ``count`` is how many the caller has room for."""
    if flavor not in _FLAVOR_COUNTS:
        raise Refusal(c.KERN_INVALID_ARGUMENT, "P section 5", f"flavor {flavor} is not known")
    if count < _FLAVOR_COUNTS[flavor]:
        raise Refusal(c.KERN_FAILURE, "P section 5", f"the flavor has {_FLAVOR_COUNTS[flavor]} words")
    port = _receive_right(task, name)
    if flavor == c.MACH_PORT_LIMITS_INFO:
        return [port.qlimit]
    if flavor == c.MACH_PORT_RECEIVE_STATUS:
        return mach_port_get_receive_status(kernel, task, name)
    return [len(port.requests) if port.requests is not None else 0]


_FLAVOR_COUNTS = {
    c.MACH_PORT_LIMITS_INFO: c.MACH_PORT_LIMITS_INFO_COUNT,
    c.MACH_PORT_RECEIVE_STATUS: c.MACH_PORT_RECEIVE_STATUS_COUNT,
    c.MACH_PORT_DNREQUESTS_SIZE: c.MACH_PORT_DNREQUESTS_SIZE_COUNT,
}


def mach_port_set_attributes(kernel: Kernel, task: Task, name: int, flavor: int, info: Sequence[int]) -> None:
    """Set LIMITS_INFO, the only flavor that can be set."""
    if flavor != c.MACH_PORT_LIMITS_INFO:
        raise Refusal(c.KERN_INVALID_ARGUMENT, "P section 5", f"flavor {flavor} cannot be set")
    if len(info) < c.MACH_PORT_LIMITS_INFO_COUNT:
        raise Refusal(c.KERN_FAILURE, "P section 5", "the limits have one word")
    mach_port_set_qlimit(kernel, task, name, info[0])


def mach_port_set_qlimit(kernel: Kernel, task: Task, name: int, qlimit: int) -> None:
    """How many messages may wait before senders do; raising it by n lets up to n blocked senders go on."""
    if not 0 <= qlimit <= kernel.dialect.qlimit_max:
        raise Refusal(c.KERN_INVALID_VALUE, "D11", f"a queue limit is 0 to {kernel.dialect.qlimit_max}")
    port = _receive_right(task, name)
    raised = qlimit - port.qlimit
    port.qlimit = qlimit
    if raised > 0:
        admit_senders(kernel, port, raised)


def mach_port_get_receive_status(kernel: Kernel, task: Task, name: int) -> PortStatus:
    """The state of a port, as its receiver may see it (P5, P18)."""
    port = _receive_right(task, name)
    return PortStatus(
        pset=port.pset.name if port.pset is not None else c.MACH_PORT_NULL,
        seqno=port.seqno,
        mscount=port.mscount,
        qlimit=port.qlimit,
        msgcount=port.msgcount,
        sorights=port.sorights,
        srights=int(port.srights > 0),
        pdrequest=int(port.pd_request is not None),
        nsrequest=int(port.ns_request is not None),
        flags=_STATUS_GUARDED * port.guarded | _STATUS_STRICT * port.strict,
    )


def mach_port_set_mscount(kernel: Kernel, task: Task, name: int, mscount: int) -> None:
    """Set the make-send count; no notification comes of it (N45)."""
    _receive_right(task, name).mscount = words.wrap(mscount)


def mach_port_set_seqno(kernel: Kernel, task: Task, name: int, seqno: int) -> None:
    """Set the sequence number of the next message."""
    _receive_right(task, name).seqno = words.wrap(seqno)


def mach_port_get_srights(kernel: Kernel, task: Task, name: int) -> int:
    """The number of send rights to the port."""
    return _receive_right(task, name).srights


def mach_port_get_context(kernel: Kernel, task: Task, name: int) -> int:
    """The receiver's 64-bit cookie; 0 while a strict guard uses it."""
    port = _receive_right(task, name)
    return 0 if port.strict else port.context


def mach_port_set_context(kernel: Kernel, task: Task, name: int, context: int) -> None:
    """Set the receiver's cookie."""
    port = _receive_right(task, name)
    if port.strict:
        raise Refusal(c.KERN_INVALID_ARGUMENT, "P section 12", "the context is a strict guard")
    port.context = context & 0xFFFFFFFFFFFFFFFF


def mach_port_guard(kernel: Kernel, task: Task, name: int, guard: int, strict: bool) -> None:
    """Protect a receive right against being destroyed by accident."""
    port = _receive_right(task, name)
    if port.guarded or port.context:
        raise Refusal(c.KERN_INVALID_ARGUMENT, "P section 12", "the port has a context already")
    port.context, port.guarded, port.strict = guard & 0xFFFFFFFFFFFFFFFF, True, strict


def mach_port_unguard(kernel: Kernel, task: Task, name: int, guard: int) -> None:
    """Take the protection away; ``guard`` must be the value it was made with."""
    port = _receive_right(task, name)
    if not port.guarded or port.context != guard:
        raise Refusal(c.KERN_INVALID_ARGUMENT, "P section 12", "not the guard of this port")
    port.context, port.guarded, port.strict = 0, False, False


def mach_port_peek(kernel: Kernel, task: Task, name: int, seqno: int) -> Peeked:
    """Look at a waiting message: the one numbered ``seqno``, or with 0 the next."""
    port = _receive_right(task, name)
    ahead = words.wrap(seqno - port.seqno) if seqno else 0
    message = port.first
    for _ in range(min(ahead, port.msgcount)):
        assert message is not None
        message = message.next
    if message is None:
        raise Refusal(c.KERN_FAILURE, "mach_port_peek", "no such message is waiting")
    number = words.wrap(port.seqno + ahead)
    tokens = tuple(message.tokens)
    trailer = Trailer(68, number, (tokens[0], tokens[1]), tokens[2:], port.context)
    return Peeked(number, received_size(kernel, message), message.id, trailer)


# Creating and destroying with options


def mach_port_construct(kernel: Kernel, task: Task, flags: int, qlimit: int, context: int) -> int:
    """A new receive right with options of MPO_ (section 6); its name."""
    unknown = flags & ~(c.MPO_QLIMIT | c.MPO_INSERT_SEND_RIGHT | c.MPO_CONTEXT_AS_GUARD | c.MPO_STRICT)
    if unknown:
        raise Refusal(c.KERN_INVALID_ARGUMENT, "P section 6", f"options {unknown:#x} are not implemented")
    if flags & c.MPO_QLIMIT and not 0 <= qlimit <= kernel.dialect.qlimit_max:
        raise Refusal(c.KERN_INVALID_VALUE, "P section 6", f"a queue limit is 0 to {kernel.dialect.qlimit_max}")
    name = mach_port_allocate(kernel, task, c.MACH_PORT_RIGHT_RECEIVE)
    port = _receive_right(task, name)
    entry = _entry(task, name)
    if flags & c.MPO_QLIMIT:
        port.qlimit = qlimit
    port.context = context & 0xFFFFFFFFFFFFFFFF
    port.guarded = bool(flags & c.MPO_CONTEXT_AS_GUARD)
    port.strict = port.guarded and bool(flags & c.MPO_STRICT)
    if flags & c.MPO_INSERT_SEND_RIGHT:
        entry.type |= c.MACH_PORT_TYPE_SEND
        entry.urefs = 1
        port.mscount = port.srights = 1
    return name


def mach_port_destruct(kernel: Kernel, task: Task, name: int, srdelta: int, guard: int) -> None:
    """Drop send references and destroy the receive right, which a guard does not protect if it is given."""
    port = _receive_right(task, name)
    entry = _entry(task, name)
    if srdelta and not entry.type & c.MACH_PORT_TYPE_SEND:
        raise Refusal(c.KERN_INVALID_RIGHT, "P section 6", "the name has no send right to drop")
    if srdelta > 0 or srdelta < -entry.urefs:
        raise Refusal(c.KERN_INVALID_VALUE, "P section 6", f"{entry.urefs} references cannot change by {srdelta}")
    if port.guarded and port.context != guard:
        raise Refusal(c.KERN_INVALID_ARGUMENT, "P section 6", "not the guard of this port")
    if srdelta:
        release_reference(kernel, task.space, entry, -srdelta)
    _destroy_receive(kernel, task.space, entry, port)


# Port sets


def mach_port_move_member(kernel: Kernel, task: Task, member: int, after: int) -> None:
    """Move a receive right into the set ``after``, out of any other; with 0 out of the one it is in (P33)."""
    port = _receive_right(task, member)
    if after == c.MACH_PORT_NULL:
        if port.pset is None:
            raise Refusal(c.KERN_NOT_IN_SET, "P33", "the port is in no set")
        leave_set(port)
        return
    pset = _set_entry(task, after)
    if port.pset is not pset:
        leave_set(port)
        join_set(kernel, port, pset)


def mach_port_insert_member(kernel: Kernel, task: Task, member: int, pset_name: int) -> None:
    """Put a receive right into a set, and out of the one it may be in (P39)."""
    port = _receive_right(task, member)
    if port.pset is _set_entry(task, pset_name):
        raise Refusal(c.KERN_ALREADY_IN_SET, "P39", "the port is in that set already")
    mach_port_move_member(kernel, task, member, pset_name)


def mach_port_extract_member(kernel: Kernel, task: Task, member: int, pset_name: int) -> None:
    """Take a receive right out of a set (P39)."""
    port = _receive_right(task, member)
    if port.pset is not _set_entry(task, pset_name):
        raise Refusal(c.KERN_NOT_IN_SET, "P39", "the port is not in that set")
    leave_set(port)


def mach_port_get_set_status(kernel: Kernel, task: Task, name: int) -> list[int]:
    """Names of the members of a set (P38)."""
    return [port.name for port in _set_entry(task, name).members]
