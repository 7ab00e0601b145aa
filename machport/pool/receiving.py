"""The thread that gives calls to workers, and receives what came of them: from one port set, whatever it is."""

from __future__ import annotations

import contextlib

from machport.abi.errors import ClosedRight, DaemonLost, DeadPort, InvalidName, MachError
from machport.face.blocking import PortDestroyedNotification, Task
from machport.face.message import Message, SendOnceNotification
from machport.pool import work
from machport.pool.errors import RemoteTraceback
from machport.pool.keeping import Keeping, settle, settle_with_result
from machport.pool.slots import Call, Slot, Slots


class Receiving:
    """Receives for a pool.

    Attributes:
        control: the port for what workers say of themselves, and for their ports when they die.
    """

    def __init__(self, task: Task, slots: Slots) -> None:
        self._slots = slots
        self._task = task
        self.control = task.allocate()
        self.notices = self.control.make_send()
        # At most one message says that there is a new call, however many there are.
        self._new_calls = task.allocate(qlimit=1)
        self._bell = self._new_calls.make_send()
        self._arrivals = task.port_set(self.control, self._new_calls)
        self._by_replies: dict[int, Slot] = {}
        self._by_requests: dict[int, Slot] = {}

    def open(self, slot: Slot) -> None:
        """Make a slot's ports."""
        port, replies = self._task.allocate(), self._task.allocate()
        slot.requests = port.make_send()
        self._by_replies[replies.name] = self._by_requests[port.name] = slot
        slot.port, slot.replies = port, replies
        self._arrivals.add(replies)

    def ring(self) -> None:
        """There is a new call, or no more will come.  From any thread."""
        # Nobody needs to be told twice, nor after the end.
        with contextlib.suppress(MachError):
            self._bell.send(timeout=0)

    def run(self, keeping: Keeping) -> None:
        """Receive until the ports are closed."""
        self._keeping = keeping
        try:
            while (messages := self._receive()) is not None:
                for message in messages:
                    with message:
                        self._take(message)
                self._advance()
        except BaseException as error:
            keeping.break_pool("answers cannot be received any more", error)

    def _receive(self) -> list[Message] | None:
        """What there is; None when the ports are closed."""
        try:
            return self._arrivals.receive_many()
        except (DeadPort, ClosedRight, InvalidName):
            if self._arrivals.closed:
                return None
            raise

    def close(self) -> None:
        """Give every port up, by which ``run`` ends."""
        replies = [slot.replies for slot in self._slots.all() if slot.replies is not None]
        for right in (self._arrivals, self._bell, self.notices, self._new_calls, self.control, *replies):
            with contextlib.suppress(MachError):
                right.close()

    def _advance(self) -> None:
        """Give calls to workers that are free, and have more started if there are calls left."""
        while (pair := self._slots.assign()) is not None:
            self._send(*pair)
        for slot in self._slots.to_start():
            self._keeping.start(slot)
        if self._slots.finish():
            self._keeping.wind_up()

    def _send(self, slot: Slot, call: Call) -> None:
        packed = call.packed
        assert slot.requests is not None
        try:
            slot.requests.send(
                packed.body, id=packed.id, rights=packed.rights, memory=packed.memory, reply_to=slot.replies
            )
        except DaemonLost:
            raise
        except Exception as error:
            # A right in it is not there any more, or it is too long.
            self._slots.not_sent(slot)
            settle(call, error)

    def _take(self, message: Message) -> None:
        slot = self._by_replies.get(message.port)
        if slot is not None:
            self._take_reply(slot, message)
        elif isinstance(message, PortDestroyedNotification):
            self._take_port(message)
        elif message.id == work.READY:
            self._slots.ready(self._slot_of(message))
        elif message.id == work.FAILED:
            text = message.body[4:].decode(errors="replace")
            self._keeping.break_pool("the initializer of a worker failed", RemoteTraceback(text))

    def _take_reply(self, slot: Slot, message: Message) -> None:
        if isinstance(message, SendOnceNotification):
            # It comes before anything from a worker that was started after this death, or behind the worker's port,
            # but then no later worker can have been ready.
            call, child = self._slots.dropped(slot)
            if call is not None and child is not None:
                self._keeping.bury(child, call)
            return
        call = self._slots.answered(slot)
        # The worker's next call goes first.
        self._advance()
        if call is None:
            return
        if message.id == work.EXCEPTION:
            settle(call, work.unpack_exception(message))
            return
        try:
            result = work.unpack(message)
        except Exception as error:
            settle(call, error)
        else:
            settle_with_result(call, result)

    def _take_port(self, notice: PortDestroyedNotification) -> None:
        """A worker's port came back, with what the worker had not received."""
        with self._keeping.starting:
            port = notice.right
            slot = self._by_requests.get(port.name)
        if slot is None or self._slots.finished:
            return
        notice.rights[0] = None
        child, too_many = self._slots.returned(slot, port, port.status().msgcount > 0)
        if child is not None:
            self._keeping.bury(child, breaks_pool=too_many)

    def _slot_of(self, notice: Message) -> Slot:
        # A worker may speak before the thread that started it has written that down.
        with self._keeping.starting:
            return self._slots.all()[int.from_bytes(notice.body[:4], "little")]
