"""One thread's way to its kernel: traps down a ring, answers up another, and a socket for what does not fit there.

Descriptors and what is too long for the rings go by the socket; so do the wake-ups of a side that sleeps, and the end
of the daemon, which a sleeper sees at once.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Callable, Sequence

from machport.abi import constants as c
from machport.abi import traps as t
from machport.abi.errors import DaemonLost, LimitReached, ProtocolError
from machport.abi.traps import Buffer, Payload, is_last, number_of
from machport.carrier import packet, rings
from machport.carrier.rings import RingPair
from machport.ring import layout, memory, waking
from machport.ring.spinning import after_sleep, spin_ns

#: The bytes of an answer, and the descriptors that came with it.
Answer = tuple[Buffer, Sequence[int]]
#: Milliseconds for which the daemon is waited for to take back what a channel was answered; it takes a tenth of one.
_TAKES_BACK_MS = 100
#: Bytes of the longest entry of wide rings.
_LONGEST_WIDE = rings.longest_of(rings.WIDE)
#: What comes beside an answer, almost always.
_NONE: Sequence[int] = ()
#: What ends the answers to ``receive_many`` when the daemon's own end of them cannot be had.
_NO_MORE = t.MsgAnswer(c.MACH_RCV_TIMED_OUT).pack()


class Channel:
    """The channel of one thread.  One trap, or one batch of traps, is under way at a time.

    Attributes:
        under_way: a call of this thread has not come back.  A handler of signals that wants to call finds it so.
    """

    __slots__ = (
        "__weakref__",
        "_budget",
        "_daemon_bell",
        "_descriptor",
        "_down",
        "_early",
        "_longest",
        "_most",
        "_rings",
        "_sock",
        "_thread_bell",
        "_up",
        "_wants_wide",
        "closed",
        "under_way",
    )

    def __init__(self, sock: socket.socket, pair: RingPair) -> None:
        self._sock = sock
        self._descriptor = sock.fileno()
        self._use(pair)
        self._most = self._budget = spin_ns()
        self._early: Answer | None = None
        self._wants_wide = False
        self.under_way = False
        self.closed = False

    def trap(self, payload: Payload, descriptors: Sequence[int] = _NONE) -> Answer:
        """Carry one trap, and wait for its answer.

        If a signal handler raises meanwhile, as for KeyboardInterrupt, or the answer cannot be taken for want of a
        descriptor, the channel ends: a message that was to be received is back in its queue, and one that waited to
        be sent is destroyed with its rights.

        Raises:
            LimitReached: no memory or descriptor is left for what goes or comes.
            DaemonLost: the daemon is gone.
        """
        self.under_way = True
        try:
            size = payload_size(payload)
            if self._wants_wide or size > self._longest:
                self._make_room(size)
            if len(descriptors) or size > self._longest:
                self._send(payload, descriptors)
                return self._receive()
            self._publish(payload)
            return self._answer()
        except BaseException as error:
            self._give_up(error)
            raise
        finally:
            self.under_way = False

    def traps(self, payloads: Sequence[Payload], answer_max: int) -> list[Buffer]:
        """Carry many traps, without waiting for one before the next goes; their answers, in order.

        They are carried out one after the other, as if each had been waited for; one that has to wait holds up those
        behind it.

        Args:
            answer_max: bytes that no answer exceeds.

        Raises: as ``trap``; it is not known then how many were carried out.
        """
        self.under_way = True
        try:
            longest = answer_max
            for payload in payloads:
                longest = max(longest, payload_size(payload))
            self._make_room(longest * 4)
            if longest > self._longest:
                return [self._one_of_many(payload) for payload in payloads]
            return self._pipeline(payloads, answer_max)
        except BaseException as error:
            self._give_up(error)
            raise
        finally:
            self.under_way = False

    def stream(self, payload: bytes) -> list[Buffer]:
        """Carry one trap that has many answers; all of them, with the one that says it is the last.

        If one cannot be taken for want of a descriptor, those before it are all.

        Raises: as ``trap``.  If a signal handler raises while more than the ring holds is on its way, the answers that
        were taken by then are lost.
        """
        self.under_way = True
        answers: list[Buffer] = []
        try:
            if self._wants_wide:
                self._make_room(0)
            self._publish(payload)
            self._stream(answers)
            return answers
        except ProtocolError as error:
            if not answers:
                self._give_up(error)
            self._abandon()
            answers.append(_NO_MORE)
            return answers
        except BaseException as error:
            self._give_up(error)
            raise
        finally:
            self.under_way = False

    def interrupt(self) -> None:
        """From another thread: let the call under way return, if it is waiting."""
        packet.send(self._sock, t.INTERRUPT.pack())

    def end(self) -> None:
        """The task is over."""
        self.close()

    def close(self, close: Callable[[socket.socket], None] = packet.close) -> None:
        """End the channel; in a forked child, let go of it, because its rings are those of the parent's thread."""
        self.closed = True
        # A default, because names of modules are None at the end of the interpreter.
        close(self._sock)

    def __del__(self) -> None:
        self.close()

    def _use(self, pair: RingPair) -> None:
        self._rings = pair
        self._up, self._down = pair.up, pair.down
        self._daemon_bell, self._thread_bell = pair.daemon_bell, pair.thread_bell
        self._longest = pair.longest

    # Down

    def _publish(self, payload: Payload) -> None:
        if isinstance(payload, bytes):
            outcome = self._down.enqueue(payload)
        else:
            outcome = self._down.enqueue_parts(payload)
        if outcome & ~layout.WAKE:
            raise ProtocolError("the daemon does not take traps in order")
        self._call_attention()

    def _send(self, payload: Payload, descriptors: Sequence[int]) -> None:
        packet.send_parts(self._sock, (payload,) if isinstance(payload, bytes) else payload, descriptors)

    def _call_attention(self) -> None:
        """What was published, or made room for, is seen by the daemon: it looks, or it is woken."""
        if self._daemon_bell.ring():
            waking.wake(self._descriptor)

    def _one_of_many(self, payload: Payload) -> Buffer:
        if payload_size(payload) > self._longest:
            self._send(payload, _NONE)
            answer, descriptors = self._receive()
        else:
            self._publish(payload)
            answer, descriptors = self._answer()
        packet.close_all(descriptors)
        return answer

    def _pipeline(self, payloads: Sequence[Payload], answer_max: int) -> list[Buffer]:
        answers: list[Buffer] = []
        # As many at a time as have room for their answers, so that neither side ever waits for the other to read.
        window = max(1, self._longest // (answer_max + layout.ENTRY_HEADER_SIZE))
        published = 0
        while len(answers) < len(payloads):
            room = window - (published - len(answers))
            if published < len(payloads) and room > window // 2:
                published += self._publish_many(payloads[published : published + room])
                self._call_attention()
            self._take_all(answers)
        return answers

    def _publish_many(self, payloads: Sequence[Payload]) -> int:
        """As many of these traps as the ring has room for now."""
        if isinstance(payloads[0], bytes):
            # Long ones come in parts; but one call makes them all, so they are all of one kind, or few.
            whole = [payload if isinstance(payload, bytes) else b"".join(payload) for payload in payloads]
            return self._down.enqueue_many(whole)[0]
        for count, payload in enumerate(payloads):
            parts = (payload,) if isinstance(payload, bytes) else payload
            if self._down.enqueue_parts(parts) & ~layout.WAKE:
                return count
        return len(payloads)

    def _make_room(self, size: int) -> None:
        """Ask for wider rings where ``size`` bytes do not fit into those that there are."""
        wide = self._wants_wide or self._longest < size
        self._wants_wide = False
        if not wide or self._rings.is_wide or size > _LONGEST_WIDE:
            return
        self._publish(t.WIDEN.pack())
        answer, descriptors = self._answer()
        try:
            if not number_of(answer):
                self._use(rings.attach(descriptors[0]))
        except LimitReached:
            # The daemon uses them already.
            self._give_up(ProtocolError())
        finally:
            packet.close_all(descriptors)

    # Up

    def _answer(self) -> Answer:
        up = self._up
        while True:
            self._check_open()
            size = up.next_size()
            if size > 0:
                # A handler that raises now leaves the answer unread; a moment later it would take it along.
                memory.check_signals()
                self._check_open()
                return up.dequeue(), _NONE  # type: ignore[return-value]
            if size == 0:
                # It did not fit, or brings a descriptor.  It counts as read when this entry is taken.
                answer = self._receive()
                up.skip()
                return answer
            if size == layout.CORRUPT:
                raise ProtocolError("the daemon's answers are not entries")
            self._await()

    def _take_all(self, answers: list[Buffer]) -> None:
        """Wait for answers, and take all there are."""
        self._await()
        entries = self._up.dequeue_many()
        if not entries:
            raise ProtocolError("the daemon's answers are not entries")
        for entry in entries:
            if entry:
                answers.append(entry)
            else:
                answer, descriptors = self._receive()
                packet.close_all(descriptors)
                answers.append(answer)

    def _stream(self, answers: list[Buffer]) -> None:
        """Take answers up to the last, one by one: those that were not taken are not lost if one cannot be."""
        up = self._up
        while not answers or not is_last(answers[-1]):
            size = up.next_size()
            if size > 0:
                if not answers:
                    memory.check_signals()
                answers.append(up.dequeue())  # type: ignore[arg-type]
            elif size == 0:
                answer, descriptors = self._receive()
                up.skip()
                packet.close_all(descriptors)
                answers.append(answer)
            elif size == layout.CORRUPT:
                raise ProtocolError("the daemon's answers are not entries")
            else:
                if answers:
                    # The daemon may wait for the room that has just been made.
                    self._call_attention()
                self._await()

    def _await(self) -> None:
        """Return when there is an entry in the ring up, which is this process's to take."""
        self._check_open()
        up = self._up
        if up.look(self._budget):
            self._budget = self._most
            return
        asleep = time.monotonic_ns()
        while not up.data_available():
            self._thread_bell.arm()
            if up.data_available():
                # If the bell rang, its wake-up comes later, and is passed over then.
                self._thread_bell.disarm()
                break
            self._sleep()
        self._check_open()
        self._budget = after_sleep(self._budget, self._most, self._budget + time.monotonic_ns() - asleep)

    def _check_open(self) -> None:
        """A handler of signals may have closed the task, or forked: then what comes is not for this process."""
        if self.closed:
            raise ConnectionResetError

    def _sleep(self) -> None:
        """Wait for a packet: a wake-up, the answer itself, or the end."""
        if waking.sleep(self._descriptor):
            self._check_open()
            return
        received = packet.receive(self._sock)
        if received is None:
            raise ConnectionResetError
        if received[0]:
            self._early = received

    def _receive(self) -> Answer:
        """The answer that comes by the socket."""
        while self._early is None:
            self._sleep()
        answer, self._early = self._early, None
        self._note_size(len(answer[0]))
        return answer

    def _note_size(self, size: int) -> None:
        """After an answer by the socket, whether wider rings would have brought it."""
        self._wants_wide = self._longest < size <= _LONGEST_WIDE

    # The end

    def _abandon(self) -> None:
        """End the channel; the daemon takes back what has not been read.

        Before the next channel of the thread could receive what comes behind that.
        """
        try:
            with contextlib.suppress(OSError):
                packet.send(self._sock, t.ABANDON.pack())
                ended = select.poll()
                ended.register(self._sock, 0)
                ended.poll(_TAKES_BACK_MS)
        finally:
            self.close()

    def _give_up(self, error: BaseException) -> None:
        """End the channel, saying that whatever was answered has not been seen; raise what that means to the caller."""
        if isinstance(error, LimitReached):
            # Nothing was sent, and the channel is as it was.
            return
        self._abandon()
        if isinstance(error, ProtocolError):
            raise LimitReached(
                "no memory or descriptor is left to take a long message by; it is back in its queue"
            ) from None
        if isinstance(error, OSError) and not isinstance(error, TimeoutError):
            raise lost() from None


def payload_size(payload: Payload) -> int:
    """How many bytes a trap has."""
    if isinstance(payload, bytes):
        return len(payload)
    size = 0
    for part in payload:
        size += len(part)
    return size


def lost() -> DaemonLost:
    return DaemonLost("the daemon is gone, and with it all rights of this task; make a new Task to go on")
