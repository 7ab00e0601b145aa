"""Whether every send-once right gives its one message (N50), looked at after each event.

Only ports that have send-once rights are counted, because a world may have made many others.  A port comes to have one
where a task names it, because a right is made from the receive right under its name; or where a message goes back to
the queue of a killed receiver, which outlives it by a port-destroyed request only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from machport.abi import constants as c
from machport.abi import message as layout
from machport.abi import traps as t
from machport.abi.traps import Buffer, number_of
from machport.kernel.port import Port
from machport.kernel.task import Task
from machport.kernel.waiter import Result


class SendOnceRights:
    """The send-once rights to the ports that tasks have made.

    Attributes:
        unanswered: the ports of those that went without a message; there are none.
        counted: ports that may have some, and how many they had after the last event.
    """

    def __init__(self) -> None:
        self.unanswered: list[Port] = []
        self.counted: dict[Port, int] = {}
        self._made: set[Port] = set()
        self._used: Counter[Port] = Counter()

    def made(self, port: Port) -> None:
        """A task has made a port.  Those of services are not counted."""
        self._made.add(port)

    def named(self, task: Task, names: Iterable[int]) -> None:
        """A task names its rights in a call that is about to be carried out."""
        for name in names:
            entry = task.space.lookup(name)
            if entry is not None and entry.type & c.MACH_PORT_TYPE_RECEIVE:
                port = entry.port
                if port is not None and port in self._made:
                    self.counted.setdefault(port, port.sorights)

    def named_by_message(self, task: Task, buffer: Buffer, memory: Iterable[Buffer | None] = ()) -> None:
        """A task is about to send a message."""
        message = layout.parse(buffer, True)
        if message.code:
            return
        regions = [bytes(region) if region is not None and not len(region) % 4 else b"" for region in memory]
        names = [name for name, _ in layout.body_rights(message, regions)]
        self.named(task, [message.remote, message.local, *names])

    def named_by_trap(self, task: Task, payload: bytes) -> None:
        """A task is about to make a call that sends no message: each of its words may be a name."""
        words = memoryview(payload)[: len(payload) & ~3].cast("I")
        self.named(task, words)
        if number_of(payload) == t.EXTRACT_RIGHT.number:
            entry = task.space.lookup(t.EXTRACT_RIGHT.unpack(payload)[0][0])
            if entry is not None and entry.port is not None and isinstance(entry.port.kobject, Task):
                self.named(entry.port.kobject, words)

    def received(self, result: Result) -> None:
        """A message was received: perhaps by a send-once right, and certainly so if nobody can tell any more."""
        message = result.received
        if result.port is not None and (message is None or message.remote_type == c.MACH_MSG_TYPE_PORT_SEND_ONCE):
            self._used[result.port] += 1

    def settle(self) -> None:
        """An event is over: no send-once right of a living port went but by a message that was received there."""
        # A port-destroyed request may end in a circle, where nobody could receive.
        excused = {port.pd_request for port in self.counted if port.active}
        for port, before in list(self.counted.items()):
            now = port.sorights
            if port.active and port not in excused and now < before - self._used[port]:
                self.unanswered.append(port)
            if port.active and (now or port.pd_request is not None):
                self.counted[port] = now
            else:
                del self.counted[port]
        self._used.clear()
