"""Calls on messages that no thread waits for: many under way by one channel, and a descriptor that tells of answers.

What an event loop needs.  A call is begun and gets a tag; its answer is taken later, or the call is cancelled, which
brings its answer at once.  Used by one thread; ``end`` may come from any.  Knows traps and answers, never a loop.
"""

from __future__ import annotations

import contextlib
import socket
import weakref
from collections import deque
from typing import TYPE_CHECKING

from machport.abi import constants as c
from machport.abi import message as message_layout
from machport.abi import traps as t
from machport.abi.errors import LimitReached, MachError, ProtocolError
from machport.abi.traps import Buffer, MsgAnswer, MsgTrap, Payload, pack_async, unpack_tagged
from machport.carrier import packet
from machport.carrier.rings import RingPair
from machport.client.channel import Answer, Channel, payload_size
from machport.ring import layout, memory, sleeping, waking

if TYPE_CHECKING:
    from machport.client.connection import Connection

_TAGS = 1 << 32
#: Nanoseconds between looks at a ring that the daemon does not empty.
_PAUSE = 1_000_000


class Events(Channel):
    """The channel of a loop.

    Args:
        connection: the task's, whose state says what the end of the channel means.
    """

    __slots__ = ("_by_socket", "_connection", "_kept", "_last", "_packets", "_under_way")

    def __init__(self, sock: socket.socket, pair: RingPair, connection: Connection) -> None:
        super().__init__(sock, pair)
        sock.setblocking(False)
        # Not held: a task that nobody has any more ends, though a loop still looks at its channel.
        self._connection = weakref.ref(connection)
        self._last = 0
        #: Tags of calls that are not answered; whether the trap went by the socket.
        self._under_way: dict[int, bool] = {}
        #: Answers that came while another was looked for.
        self._kept: dict[int, MsgAnswer] = {}
        self._packets: deque[Answer] = deque()

    def fileno(self) -> int:
        """A descriptor that is readable while there is something to be taken, if ``arm`` has said so, or at the end."""
        return self._descriptor

    def __len__(self) -> int:
        """How many calls are under way, or answered and not taken."""
        return len(self._under_way) + len(self._kept)

    def __bool__(self) -> bool:
        return True

    def begin(self, trap: MsgTrap) -> int:
        """Begin a call; the tag that its answer will have.

        Raises:
            LimitReached: as many calls as may be are under way, or no memory is left for the message; nothing was sent.
            DaemonLost, DeadTask, ForkedTask: as ``Connection.trap``.
        """
        connection = self._connection()
        if connection is not None:
            connection.tell_forgotten()
        if len(self._under_way) >= t.ASYNC_MAX:
            raise LimitReached(f"{t.ASYNC_MAX} calls of this loop wait already")
        tag = self._next_tag()
        if (len(trap.memory) or trap.size() > message_layout.MAX_SIZE) and trap.packed_size > packet.TRAP_MAX:
            self._kept[tag] = MsgAnswer(c.MACH_SEND_NO_BUFFER, rule="M section 3")
            return tag
        payload = pack_async(tag, trap)
        size = payload_size(payload)
        if not len(self) and (self._wants_wide or size > self._longest):
            # Answers to others would be in the rings that are left.
            self._widen(size)
        try:
            by_socket = size > self._longest
            if by_socket:
                self._post(payload)
            else:
                self._write(payload)
        except BaseException as error:
            raise self._failed(error) from None
        self._under_way[tag] = by_socket
        return tag

    def call(self, trap: MsgTrap) -> MsgAnswer:
        """Make a call that does not wait, and wait for its answer; those of others are kept.

        Raises: as ``begin``.
        """
        tag = self.begin(trap)
        try:
            while tag not in self._kept:
                self._await()
                self._collect()
        except BaseException as error:
            raise self._failed(error) from None
        return self._kept.pop(tag)

    def cancel(self, tag: int) -> MsgAnswer:
        """Interrupt a call if it waits; its answer, which is taken with that, and may be any.

        Raises: as ``begin``, but no LimitReached.
        """
        try:
            self._collect()
            if tag not in self._kept:
                # Behind the call itself.
                trap = t.CANCEL.pack(tag)
                if self._under_way[tag]:
                    self._post(trap)
                else:
                    self._write(trap)
                self._collect()
            while tag not in self._kept:
                self._await()
                self._collect()
        except BaseException as error:
            raise self._failed(error) from None
        return self._kept.pop(tag)

    def look(self) -> list[tuple[int, MsgAnswer]]:
        """Take the answers that have come, without a look at the descriptor: while the bell is not armed.

        Raises: as ``take``.
        """
        try:
            self._collect()
        except BaseException as error:
            raise self._failed(error) from None
        return self._taken()

    def take(self) -> list[tuple[int, MsgAnswer]]:
        """Take the answers that have come, each with its tag.  The descriptor is not readable then, until ``arm``.

        Raises:
            LimitReached: no memory or descriptor is left to take an answer by; the channel is at its end.
            DaemonLost, DeadTask, ForkedTask: as ``Connection.trap``; whatever came before was taken.
        """
        lost: BaseException | None = None
        try:
            self._thread_bell.disarm()
            try:
                self._take_packets()
            except ConnectionError as error:
                lost = error
            self._collect()
            if lost is not None and not self._kept:
                raise lost
        except BaseException as error:
            raise self._failed(error) from None
        return self._taken()

    def wait(self, nanoseconds: int) -> bool:
        """Look, without sleeping, for as long; whether an answer has come."""
        return bool(self._kept) or self._up.look(nanoseconds)

    def arm(self) -> bool:
        """Let the descriptor tell of the next answer; False if one is there already."""
        self._thread_bell.arm()
        if self._kept or self._up.data_available():
            # If the bell rang, its wake-up comes later, and there is nothing to be taken.
            self._thread_bell.disarm()
            return False
        return True

    def end(self) -> None:
        """From any thread: nothing comes any more, which the descriptor tells."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def _next_tag(self) -> int:
        while True:
            self._last = (self._last + 1) % _TAGS
            if self._last not in self._under_way and self._last not in self._kept:
                return self._last

    def _taken(self) -> list[tuple[int, MsgAnswer]]:
        if not self._kept:
            return []
        answers = list(self._kept.items())
        self._kept.clear()
        return answers

    # Down

    def _widen(self, size: int) -> None:
        try:
            self._make_room(size)
        except BaseException as error:
            # Also a handler of signals that raised: what comes next would have no tag.
            self._give_up(error)
            raise

    def _write(self, payload: Payload) -> None:
        """Write a trap to the ring, when there is room for it."""
        self._check_open()
        until = 0
        while True:
            if isinstance(payload, bytes):
                outcome = self._down.enqueue(payload)
            else:
                outcome = self._down.enqueue_parts(payload)
            self._call_attention()
            if not outcome & ~layout.WAKE:
                return
            if not outcome & layout.FULL:
                raise ProtocolError("the daemon does not take traps in order")
            # It may wait itself for room, to answer.
            self._collect()
            now = memory.now()
            until = until or now + self._most
            if now < until:
                memory.give_way()
            else:
                sleeping.sleep_at(self._descriptor, -1, _PAUSE)
                self._take_packets()

    def _post(self, payload: Payload) -> None:
        """Write a trap to the socket, when there is room for it."""
        while True:
            self._check_open()
            try:
                self._send(payload, ())
            except BlockingIOError:
                # It may wait itself for room, to answer.
                self._take_packets()
                self._collect()
                sleeping.sleep_at(self._descriptor, -1, _PAUSE)
            else:
                return

    # Up

    def _collect(self) -> None:
        """Keep all answers that are in the ring."""
        self._check_open()
        up = self._up
        size = up.next_size()
        if size < 0 and size != layout.CORRUPT:
            return
        while size >= 0:
            entry: Buffer | None
            if size > 0:
                entry = up.dequeue()
            else:
                entry, descriptors = self._receive()
                up.skip()
                packet.close_all(descriptors)
            if entry is None:
                break
            tag, answer = unpack_tagged(entry)
            if self._under_way.pop(tag, None) is not None:
                self._kept[tag] = answer
            size = up.next_size()
        if size == layout.CORRUPT:
            raise ProtocolError("the daemon's answers are not entries")
        # The daemon may wait for the room that has just been made.  That it has ended is told by what is read.
        with contextlib.suppress(OSError):
            self._call_attention()

    def _receive(self) -> Answer:
        while not self._packets:
            self._sleep()
        answer = self._packets.popleft()
        self._note_size(len(answer[0]))
        return answer

    def _sleep(self) -> None:
        """Wait for a packet, and take all there are."""
        self._check_open()
        if not self._take_packets():
            sleeping.sleep_at(self._descriptor, -1, -1)
            self._check_open()
            self._take_packets()

    def _take_packets(self) -> bool:
        """Take what is in the socket; whether there was anything."""
        found = False
        while True:
            self._check_open()
            kind = waking.take(self._descriptor)
            if kind == waking.NOTHING:
                return found
            found = True
            if kind == waking.OTHER:
                received = packet.receive(self._sock)
                if received is None:
                    raise ConnectionResetError
                if received[0]:
                    self._packets.append(received)

    # The end

    def _failed(self, error: BaseException) -> BaseException:
        """What it means to the caller that a step went wrong.

        The channel goes on if nothing was written for want of memory, or a handler of signals raised while it waited.
        """
        if isinstance(error, OSError | ProtocolError):
            try:
                self._give_up(error)
            except MachError as meant:
                error = meant
            try:
                connection = self._connection()
                if connection is not None:
                    connection.check_usable()
            except MachError as meant:
                error = meant
        return error
