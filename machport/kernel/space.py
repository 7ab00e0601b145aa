"""Spaces and entries: one task's table from names to rights.

Knows names, type bits and user references, and how a name is picked.  Never knows messages.  That a port has died is
noticed here, when an entry is looked at (section 9, step 6 of the specification of ports).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from machport.abi import constants as c
from machport.kernel.port import Port, PortSet, Quota, Request
from machport.kernel.refusal import Refusal

if TYPE_CHECKING:
    from machport.kernel.task import Task

DEFAULT_NAME_LIMIT: Final = 1 << 20


class Entry:
    """What one name denotes: type bits, user references, a port or set, and at most one request's slot.

    ``died`` is what a dead name was the name of, for whoever asks about it.
    """

    __slots__ = ("died", "name", "port", "pset", "request", "type", "urefs")

    def begin(self, name: int, type: int, urefs: int, port: Port | None, pset: PortSet | None) -> None:
        self.name = name
        self.type = type
        self.urefs = urefs
        self.port = port
        self.pset = pset
        self.request = 0
        self.died: Port | None = None

    def reported_type(self) -> int:
        """Type bits as ``mach_port_type`` reports them, with the bits of a registered request (N5, N70)."""
        if not self.request:
            return self.type
        assert self.port is not None and self.port.requests is not None
        request: Request = self.port.requests.slots[self.request]
        if not request.send_possible:
            return self.type | c.MACH_PORT_TYPE_DNREQUEST
        if self.request in self.port.requests.armed:
            return self.type | c.MACH_PORT_TYPE_SPREQUEST
        return self.type | c.MACH_PORT_TYPE_SPREQUEST | c.MACH_PORT_TYPE_SPREQUEST_DELAYED


def new_entry(name: int, type: int, urefs: int, port: Port | None = None, pset: PortSet | None = None) -> Entry:
    entry = Entry.__new__(Entry)
    entry.begin(name, type, urefs, port, pset)
    return entry


class Space:
    """One task's rights.

    ``limit`` is the number of entries it may have (P4); ``quota`` is for what waits in its ports' queues.  ``maker`` is
    the space with which it counts, of the task that made its own; ``lent`` are the entries of spaces that count here.
    """

    __slots__ = ("active", "by_port", "entries", "lent", "limit", "maker", "names", "quota", "task")

    def __init__(self, task: Task | None, limit: int = DEFAULT_NAME_LIMIT, names: NamePicker | None = None) -> None:
        self.task = task
        self.active = True
        self.limit = limit
        self.entries: dict[int, Entry] = {}
        #: The entry that holds SEND or RECEIVE for a port: rights of these kinds coalesce (P11, P12).
        self.by_port: dict[Port, Entry] = {}
        self.quota: Quota | None = None
        self.maker: Space | None = None
        self.lent = 0
        self.names: NamePicker = GenerationNames() if names is None else names

    def lookup(self, name: int) -> Entry | None:
        """The entry of a name, turned into a dead name if its port has died; None if there is none."""
        entry = self.entries.get(name)
        if entry is not None and entry.type & c.MACH_PORT_TYPE_SEND_RIGHTS:
            port = entry.port
            assert port is not None
            if not port.active:
                self._bury(entry, port)
        return entry

    def _bury(self, entry: Entry, port: Port) -> None:
        if entry.type & c.MACH_PORT_TYPE_SEND:
            del self.by_port[port]
        entry.type = c.MACH_PORT_TYPE_DEAD_NAME
        entry.port = None
        entry.died = port
        if entry.request:
            # The notification that was sent when the port died stands for this reference (N19).
            entry.request = 0
            entry.urefs += 1

    def living_entries(self) -> list[Entry]:
        """Every entry, in ascending order of names, as it is now."""
        found = []
        for name in sorted(self.entries):
            entry = self.lookup(name)
            assert entry is not None
            found.append(entry)
        return found

    def pick_name(self) -> int:
        """An unused name.

        Raises:
            Refusal: KERN_NO_SPACE, the space, or that with which it counts, has ``limit`` entries (P4).
        """
        self.check_room()
        return self.names.pick(self.entries)

    def check_room(self) -> None:
        if len(self.entries) + self.lent >= self.limit:
            if self.quota is not None:
                self.quota.note("names", self.limit, len(self.entries) + self.lent)
            raise Refusal(c.KERN_NO_SPACE, "P4", f"the task has all {self.limit} names that it may have")
        if self.maker is not None:
            self.maker.check_room()

    def add(self, entry: Entry) -> None:
        self.entries[entry.name] = entry
        if self.maker is not None:
            self.maker.lent += 1
        if entry.type & c.MACH_PORT_TYPE_SEND_RECEIVE:
            assert entry.port is not None
            self.by_port[entry.port] = entry
            if entry.type & c.MACH_PORT_TYPE_RECEIVE:
                entry.port.name = entry.name

    def free(self, entry: Entry) -> None:
        """The name denotes nothing any more.  What that means for its rights is the caller's business."""
        del self.entries[entry.name]
        if self.maker is not None:
            self.maker.lent -= 1
        self.names.freed(entry.name)
        if entry.type & c.MACH_PORT_TYPE_SEND_RECEIVE:
            assert entry.port is not None
            del self.by_port[entry.port]

    def rename(self, entry: Entry, name: int) -> None:
        """The entry, its requests and memberships move to another, unused name (N25)."""
        del self.entries[entry.name]
        self.names.freed(entry.name)
        entry.name = name
        self.entries[name] = entry
        if entry.request:
            assert entry.port is not None and entry.port.requests is not None
            request: Request = entry.port.requests.slots[entry.request]
            request.name = name
        if entry.type & c.MACH_PORT_TYPE_RECEIVE:
            assert entry.port is not None
            entry.port.name = name
        if entry.pset is not None:
            entry.pset.name = name


class NamePicker:
    """Picks the names that a kernel chooses."""

    __slots__ = ()

    def pick(self, used: dict[int, Entry]) -> int:
        """A name that is not used."""
        raise NotImplementedError

    def freed(self, name: int) -> None:
        """The name is free again."""
        raise NotImplementedError


class GenerationNames(NamePicker):
    """``index << 8 | generation``, a new generation at each reuse of an index, so that stale names fail (P3)."""

    __slots__ = ("free", "generations")

    def __init__(self) -> None:
        #: The generation last given to each index, all of whose lowest two bits are set; without them while the index
        #: waits to be used again.
        self.generations = bytearray()
        self.free: deque[int] = deque()

    def pick(self, used: dict[int, Entry]) -> int:
        while True:
            if self.free:
                index = self.free.popleft()
                generation = self.generations[index] + c.PORT_NAME_GEN_STEP & 0xFF | c.PORT_NAME_GEN_FIRST
                self.generations[index] = generation
            else:
                index = len(self.generations)
                generation = c.PORT_NAME_GEN_FIRST
                self.generations.append(generation)
            name = index + 1 << c.PORT_NAME_INDEX_SHIFT | generation
            if name not in used:
                return name

    def freed(self, name: int) -> None:
        index = (name >> c.PORT_NAME_INDEX_SHIFT) - 1
        generation = name & 0xFF
        if 0 <= index < len(self.generations) and self.generations[index] == generation:
            self.generations[index] = generation & ~c.PORT_NAME_GEN_FIRST
            self.free.append(index)


class FreshNames(NamePicker):
    """Ascending names after ``last``, none of them ever used twice: for transcripts."""

    __slots__ = ("last",)

    def __init__(self, last: int = 0) -> None:
        self.last = last

    def pick(self, used: dict[int, Entry]) -> int:
        self.last += 1
        while self.last in used:
            self.last += 1
        return self.last

    def freed(self, name: int) -> None:
        pass
