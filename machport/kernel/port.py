"""Ports, port sets, and the requests that watch a port: state only.

Knows the fields of section 2 of the specification of ports and the order of queues.  Never knows what happens when a
right goes (``release``) or what a name means (``space``).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any, Final

from machport.abi import constants as c
from machport.abi import words

if TYPE_CHECKING:
    from machport.kernel.message import Message
    from machport.kernel.space import Entry, Space
    from machport.kernel.waiter import Line


#: Bytes of a port's label in UTF-8.
LABEL_MAX: Final = 64
#: Ports that may travel in each other's queues, one inside the other.
TRANSIT_MAX: Final = 1024
#: A limit that nobody meets.
UNLIMITED: Final = (1 << 63) - 1


class Excess:
    """A limit that a holder has met, and how often since the driver last took what was noted.

    Attributes:
        holder: the task.
        what: ``"names"``, ``"messages"``, ``"bytes"`` or ``"sending"``.
        limit, use: as they were when it was met first.
        port: where a message was to go; None if the limit is not about one.
    """

    __slots__ = ("count", "holder", "limit", "port", "use", "what")

    def __init__(self, holder: object, what: str, limit: int, use: int, port: Port | None) -> None:
        self.holder = holder
        self.what = what
        self.limit = limit
        self.use = use
        self.port = port
        self.count = 1


class Quota:
    """What waits in the queues of one holder's ports, and how much may.

    A port whose receive right is on its way counts with its last holder until somebody receives it, so that nothing
    escapes by being put into a message.  A message is accepted while less than the limit is used, as with ``qlimit``;
    messages that wait for no room are counted and accepted, too: there are no more of them than rights.

    Attributes:
        holder: the task; None when it has ended.
        messages, bytes: in the queues now; bytes as ``Message.weigh`` has them.
        messages_max, bytes_max: how many there may be before senders wait.
        waiters_max: calls of the holder that may wait; the driver looks at it.
        busy: threads of the holder to whose calls the driver looks now; the driver's.
        sending, sending_max: bytes of messages of the holder's own that wait for room elsewhere.
        waiting: ports with room of their own at which somebody waits for room here: each lets one sender go on when
            it is its turn, so that many senders at one port do not hold up those at another.
        relieved: the kernel's list of quotas that have room again for those that wait.
        exceeded: the kernel's list of limits that were met; ``noted`` are those of this quota in it.
    """

    __slots__ = (
        "busy",
        "bytes",
        "bytes_max",
        "exceeded",
        "holder",
        "is_relieved",
        "messages",
        "messages_max",
        "noted",
        "relieved",
        "sending",
        "sending_max",
        "waiters_max",
        "waiting",
    )

    def __init__(self, holder: object, relieved: list[Quota], exceeded: list[Excess]) -> None:
        self.holder = holder
        self.messages = 0
        self.bytes = 0
        self.sending = 0
        self.messages_max = UNLIMITED
        self.bytes_max = UNLIMITED
        self.sending_max = UNLIMITED
        self.waiters_max = UNLIMITED
        self.busy = 0
        self.waiting: OrderedDict[Port, None] = OrderedDict()
        self.relieved = relieved
        self.is_relieved = False
        self.exceeded = exceeded
        self.noted: dict[str, Excess] = {}

    def full(self) -> bool:
        """Whether senders of ordinary messages have to wait at all of the holder's ports."""
        return self.messages >= self.messages_max or self.bytes >= self.bytes_max

    def limit_to(self, messages_max: int, bytes_max: int) -> None:
        """Set the limits; those that wait go on if there is room now."""
        self.messages_max = messages_max
        self.bytes_max = bytes_max
        self.relieve()

    def relieve(self) -> None:
        """There may be room for those that wait: the kernel looks when the present call is over."""
        if self.waiting and not self.is_relieved and not self.full():
            self.is_relieved = True
            self.relieved.append(self)

    def wait(self, port: Port) -> None:
        """Somebody at the port waits for room here."""
        self.waiting[port] = None
        self.relieve()

    def note_full(self, port: Port) -> None:
        """A sender had to wait, or was refused, because of this quota."""
        if self.messages >= self.messages_max:
            self.note("messages", self.messages_max, self.messages, port)
        else:
            self.note("bytes", self.bytes_max, self.bytes, port)

    def note(self, what: str, limit: int, use: int, port: Port | None = None) -> None:
        """A limit was met, of which the driver is to hear."""
        if self.holder is None:
            return
        excess = self.noted.get(what)
        if excess is None:
            excess = self.noted[what] = Excess(self.holder, what, limit, use, port)
            self.exceeded.append(excess)
        else:
            excess.count += 1


class Port:
    """A queue of messages and the rights that exist to it.

    Where the receive right is: ``receiver`` is its space; in transit, ``receiver`` is None and ``destination`` the
    port in whose queue it travels; in limbo both are None.  A port that is not ``active`` is dead for ever.
    """

    __slots__ = (
        "active",
        "bytes",
        "context",
        "destination",
        "first",
        "guarded",
        "kobject",
        "label",
        "last",
        "last_holder",
        "lost_with",
        "mscount",
        "msgcount",
        "name",
        "ns_request",
        "pd_request",
        "pset",
        "qlimit",
        "quota",
        "receiver",
        "receivers",
        "requests",
        "senders",
        "seqno",
        "sorights",
        "srights",
        "strict",
        "ticket",
        "unreceived",
    )

    def begin(self, receiver: Space | None) -> None:
        self.active = True
        self.receiver = receiver
        self.name = c.MACH_PORT_NULL
        self.destination: Port | None = None
        self.mscount = 0
        self.srights = 0
        self.sorights = 0
        self.qlimit = c.MACH_PORT_QLIMIT_DEFAULT
        self.seqno = 0
        #: The queue: messages linked from the oldest to the newest.
        self.first: Message | None = None
        self.last: Message | None = None
        self.msgcount = 0
        #: Bytes of the messages in the queue, and the quota that they count in: that of the last holder.
        self.bytes = 0
        self.quota: Quota | None = receiver.quota if receiver is not None else None
        self.pset: PortSet | None = None
        #: Membership in the set that the tokens in the set's order belong to.
        self.ticket: Ticket | None = None
        self.ns_request: Port | None = None
        self.pd_request: Port | None = None
        self.requests: RequestTable | None = None
        self.context = 0
        self.guarded = False
        self.strict = False
        #: Threads blocked in receive on the port itself, and senders blocked on its full queue, in order of arrival;
        #: None until there is one, because there may be a million ports.
        self.receivers: Line | None = None
        self.senders: Line | None = None
        #: What a port of the kernel stands for: a task, a file.
        self.kobject: Any = None
        #: What people call the port; no meaning to the kernel.  It moves with the receive right.
        self.label = ""
        #: ``Task.number`` of the task that held the receive right last and ended with it; 0 if none did.
        self.last_holder = 0
        #: The send-once right that was destroyed last was in the message that it had been made for, which nobody had
        #: received.
        self.unreceived = False
        #: ``Task.number`` of the task that ended with that right, or with the queue that the message was in; 0 if none.
        self.lost_with = 0

    def full(self) -> bool:
        """Whether a sender of an ordinary message has to wait (M11)."""
        return self.msgcount >= self.qlimit or (self.quota is not None and self.quota.full())

    def charge_to(self, quota: Quota | None) -> None:
        """The queue counts among those of another holder from now on, where its senders wait, too."""
        before = self.quota
        if before is quota:
            return
        self.quota = quota
        if before is not None:
            before.messages -= self.msgcount
            before.bytes -= self.bytes
            before.waiting.pop(self, None)
            before.relieve()
        if quota is not None:
            quota.messages += self.msgcount
            quota.bytes += self.bytes
            if self.msgcount < self.qlimit and self.is_wanted():
                quota.wait(self)

    def is_wanted(self) -> bool:
        """Whether anybody waits for room in the queue: a sender, or an armed send-possible request."""
        return bool(self.senders) or (self.requests is not None and bool(self.requests.armed))

    def append(self, message: Message) -> None:
        """A message joins the queue, and the order of the port's set."""
        if self.last is None:
            self.first = message
        else:
            self.last.next = message
        self.last = message
        self._count(message)
        if self.pset is not None:
            self.pset.arrived(self)

    def _count(self, message: Message) -> None:
        weight = message.weigh()
        self.msgcount += 1
        self.bytes += weight
        if self.quota is not None:
            self.quota.messages += 1
            self.quota.bytes += weight

    def pop(self) -> Message:
        """The oldest message leaves the queue; every such leaving counts in seqno."""
        message = self.first
        assert message is not None
        self.first = message.next
        if self.first is None:
            self.last = None
        message.next = None
        weight = message.weigh()
        self.msgcount -= 1
        self.bytes -= weight
        quota = self.quota
        if quota is not None:
            quota.messages -= 1
            quota.bytes -= weight
            if quota.waiting:
                quota.relieve()
        message.returned = False
        message.seqno = self.seqno
        self.seqno = words.wrap(self.seqno + 1)
        return message

    def push_back(self, message: Message) -> None:
        """Undo a ``pop``: the message is before all that were never taken, and in order among those that were."""
        before: Message | None = None
        after = self.first
        while after is not None and after.returned and after.seqno < message.seqno:
            before, after = after, after.next
        message.returned = True
        message.next = after
        if before is None:
            self.first = message
        else:
            before.next = message
        if after is None:
            self.last = message
        self._count(message)
        self.seqno = words.wrap(self.seqno - 1)
        if self.pset is not None:
            assert self.ticket is not None
            self.pset.order.appendleft(self.ticket)

    def above(self) -> set[Port] | None:
        """This port, and those in whose queues it travels, directly or not (P26); None if they are too many."""
        found: set[Port] = set()
        link: Port | None = self
        while link is not None:
            if len(found) == TRANSIT_MAX:
                return None
            found.add(link)
            link = link.destination if link.active and link.receiver is None else None
        return found


def new_port(receiver: Space | None) -> Port:
    """A port without rights, whose receive right is about to be entered into a space."""
    port = Port.__new__(Port)
    port.begin(receiver)
    return port


def _dead_port() -> Port:
    port = new_port(None)
    port.active = False
    return port


#: The port that stands for MACH_PORT_DEAD as a value, a right whose port had died before it was taken: dead from the
#: start.
DEAD = _dead_port()


class Ticket:
    """One membership of a port in a set.  A port that leaves and comes back has a new one."""

    __slots__ = ("port",)

    def __init__(self, port: Port) -> None:
        self.port = port


#: Tickets that a set's order may have before those of ports that left are looked for.
_COMPACT_AT = 4096


class PortSet:
    """Receive rights of one space that are received from together, in the order in which messages arrived.

    ``order`` has one ticket for each waiting message.  Tickets of ports that left are passed over, so leaving a set
    costs nothing however long the queue is.
    """

    __slots__ = ("_compact_at", "active", "members", "name", "order", "receivers")

    def __init__(self, name: int) -> None:
        self.active = True
        self.name = name
        self.members: dict[Port, None] = {}
        self.order: deque[Ticket] = deque()
        self._compact_at = _COMPACT_AT
        self.receivers: Line | None = None

    def insert(self, port: Port) -> None:
        """The port joins; its waiting messages arrive now (P35)."""
        port.pset = self
        port.ticket = Ticket(port)
        self.members[port] = None
        self.order.extend([port.ticket] * port.msgcount)
        if len(self.order) > self._compact_at:
            self._compact()

    def _compact(self) -> None:
        """Drop the tickets of ports that left; seldom enough to cost each insertion a constant."""
        self.order = deque(ticket for ticket in self.order if ticket.port.ticket is ticket)
        self._compact_at = max(_COMPACT_AT, 2 * len(self.order))

    def remove(self, port: Port) -> None:
        """The port leaves and takes its messages along (P36)."""
        del self.members[port]
        port.pset = None
        port.ticket = None
        if not self.members:
            self.order.clear()

    def arrived(self, port: Port) -> None:
        """A message was queued at a member."""
        assert port.ticket is not None
        self.order.append(port.ticket)

    def first(self) -> Port | None:
        """The member whose oldest message is the oldest of the set."""
        order = self.order
        while order:
            ticket = order[0]
            if ticket.port.ticket is ticket:
                return ticket.port
            order.popleft()
        return None


class Request:
    """A dead-name or send-possible request of one entry: its name there, and the send-once right to tell."""

    __slots__ = ("entry", "name", "notify", "send_possible")

    def begin(self, entry: Entry, name: int, notify: Port, send_possible: bool) -> None:
        self.entry = entry
        self.name = name
        self.notify = notify
        self.send_possible = send_possible


def new_request(entry: Entry, name: int, notify: Port, send_possible: bool) -> Request:
    request = Request.__new__(Request)
    request.begin(entry, name, notify, send_possible)
    return request


class RequestTable:
    """The requests on one port, by slot, in the order of registration.  An entry stores its slot; 0 is none."""

    __slots__ = ("armed", "next", "slots")

    def __init__(self) -> None:
        self.slots: dict[int, Request] = {}
        self.next = 1
        #: Slots of send-possible requests that fire at the next dequeue.
        self.armed: dict[int, None] = {}

    def add(self, request: Request) -> int:
        slot = self._take_slot()
        self.slots[slot] = request
        return slot

    def cancel(self, slot: int) -> Request:
        if self.armed:
            self.armed.pop(slot, None)
        return self.slots.pop(slot)

    def in_order(self) -> list[Request]:
        return list(self.slots.values())

    def __len__(self) -> int:
        return len(self.slots)

    def _take_slot(self) -> int:
        self.next += 1
        return self.next - 1


class SlottedRequestTable(RequestTable):
    """The same in GNU Mach's order: a table of 2, 4, 8... slots, free ones last-in first-out, fired by slot.

    When the table grows the highest of the new slots is the first to be used.
    """

    __slots__ = ("free", "size")

    def __init__(self) -> None:
        RequestTable.__init__(self)
        self.size = 2
        self.free = [1]

    def cancel(self, slot: int) -> Request:
        self.free.append(slot)
        return RequestTable.cancel(self, slot)

    def in_order(self) -> list[Request]:
        return [self.slots[slot] for slot in sorted(self.slots)]

    def _take_slot(self) -> int:
        if not self.free:
            self.free.extend(range(self.size, self.size * 2))
            self.size *= 2
        return self.free.pop()
