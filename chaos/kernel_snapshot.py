"""All that a kernel holds as plain data, to compare before and after a call.

Ports are numbers in the order of discovery, so two snapshots are equal if and only if nothing observable changed.
Looking changes nothing: a name whose port has died is shown as the dead name that it will be when it is looked at.
"""

from __future__ import annotations

from typing import Any

from machport.abi import constants as c
from machport.kernel.kernel import Kernel
from machport.kernel.message import Message
from machport.kernel.port import Port, PortSet
from machport.kernel.space import Entry, Space
from machport.kernel.task import Task


def snapshot(kernel: Kernel) -> dict[str, Any]:
    """Tasks, spaces, entries, ports, messages and waiters, and what is left to be done (which must be nothing)."""
    return _Walk(kernel).walk()


class _Walk:
    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.numbers: dict[Port, int] = {}
        self.found: list[Port] = []

    def walk(self) -> dict[str, Any]:
        tasks = [self.task(task) for task in self.kernel.tasks]
        ports = []
        for port in self.found:  # grows meanwhile
            ports.append(self.port_state(port))
        return {
            "tasks": tasks,
            "ports": ports,
            "garbage": len(self.kernel.garbage),
            "woken": len(list(self.kernel.woken)),
            "changed": len(self.kernel.changed),
        }

    def port(self, port: Port | None) -> str:
        if port is None:
            return "none"
        if not port.active:
            return "dead"
        if port not in self.numbers:
            self.numbers[port] = len(self.numbers)
            self.found.append(port)
        return f"port {self.numbers[port]}"

    def task(self, task: Task) -> dict[str, Any]:
        return {
            "label": task.label,
            "active": task.active,
            "port": self.port(task.port),
            "special": {which: self.port(port) for which, port in sorted(task.special.items())},
            "registered": [self.port(port) for port in task.registered],
            "space": self.space(task.space),
            "waiters": len(task.waiters),
        }

    def space(self, space: Space) -> list[Any]:
        return [self.entry(space.entries[name]) for name in sorted(space.entries)]

    def entry(self, entry: Entry) -> dict[str, Any]:
        if entry.port is not None and not entry.port.active:
            return {"name": entry.name, "type": c.MACH_PORT_TYPE_DEAD_NAME, "urefs": entry.urefs + bool(entry.request)}
        state: dict[str, Any] = {"name": entry.name, "type": entry.type, "urefs": entry.urefs}
        if entry.port is not None:
            state["port"] = self.port(entry.port)
            if entry.request:
                assert entry.port.requests is not None
                request = entry.port.requests.slots[entry.request]
                armed = entry.request in entry.port.requests.armed
                state["request"] = (self.port(request.notify), request.name, request.send_possible, armed)
        if entry.pset is not None:
            state["set"] = self.set(entry.pset)
        return state

    def set(self, pset: PortSet) -> dict[str, Any]:
        order = [self.port(ticket.port) for ticket in pset.order if ticket.port.ticket is ticket]
        members = sorted(self.port(member) for member in pset.members)
        return {"name": pset.name, "members": members, "order": order, "receivers": len(list(pset.receivers or ()))}

    def port_state(self, port: Port) -> dict[str, Any]:
        queue, message = [], port.first
        while message is not None:
            queue.append(self.message(message))
            message = message.next
        receiver = port.receiver
        where: object = "nowhere"
        if receiver is not None:
            where = (receiver.task.label if receiver.task is not None else "kernel", port.name)
        elif port.destination is not None:
            where = self.port(port.destination)
        requests = port.requests.in_order() if port.requests is not None else ()
        return {
            "where": where,
            "mscount": port.mscount,
            "srights": port.srights,
            "sorights": port.sorights,
            "qlimit": port.qlimit,
            "seqno": port.seqno,
            "msgcount": port.msgcount,
            "set": port.pset.name if port.pset is not None else 0,
            "ns": self.port(port.ns_request),
            "pd": self.port(port.pd_request),
            "dn": [(self.port(request.notify), request.name) for request in requests],
            "context": (port.context, port.guarded, port.strict),
            "queue": queue,
            "receivers": len(list(port.receivers or ())),
            "senders": [self.message(waiter.message) for waiter in port.senders or () if waiter.message is not None],
        }

    def message(self, message: Message) -> Any:
        return (
            (self.port(message.remote), message.remote_type),
            (self.port(message.local), message.local_type),
            message.id,
            [
                (item.type, [self.port(port) for port in item.ports], _plain(item.memory))
                for item in message.items or ()
            ],
            _plain(message.inline),
            tuple(message.tokens),
        )


def _plain(data: bytes | memoryview | None) -> bytes | None:
    """A view of memory shows where it is, which is no part of what it says."""
    return None if data is None else bytes(data)
