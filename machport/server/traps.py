"""The traps of all threads: taken from their rings, carried out and answered, and whoever that sets free answered, too.

Only the rings that were busy lately are looked at; the others have a bell, which their threads ring.  A thread whose
call waits has nothing to say until it is answered.  Knows channels and the kernel; never how connections begin or end.
"""

from __future__ import annotations

import logging
import sys
import time
from array import array
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from machport.abi import constants as c
from machport.abi import traps as t
from machport.abi.errors import LimitReached, ProtocolError
from machport.abi.traps import Batch, number_of, pack_tag, unpack_async
from machport.kernel.kernel import Kernel
from machport.kernel.messages import abandon, collect, expire, interrupt, mach_msg
from machport.kernel.refusal import Refusal
from machport.kernel.task import Task
from machport.kernel.tasks import resolve_task
from machport.kernel.waiter import Result, Waiter, new_result
from machport.ring import memory
from machport.ring.spinning import spin_ns
from machport.server.bootstrap import Bootstrap
from machport.server.connection import Channel, TaggedCall
from machport.server.deadlines import Deadlines
from machport.server.dispatch import Answer, answer_parts, carry_out_mach_msg, dispatch, forget, msg_answer, new_answer
from machport.server.log import event

if TYPE_CHECKING:
    from machport.server.tracing import Tracer

_log: Final = logging.getLogger("machport.daemon")
#: Numbers of the traps that carry messages.
MACH_MSG: Final = t.MACH_MSG
_RECEIVE_MANY: Final = t.RECEIVE_MANY.number
_SEND_MANY: Final = t.SEND_MANY.number
#: Those that come by a socket and have no answer.
_NOTES: Final = frozenset(trap.number for trap in (t.INTERRUPT, t.ABANDON, t.FORGET, t.CLOSE))
_ASYNC: Final = t.ASYNC.number
_CANCEL: Final = t.CANCEL.number
_REPLY_PORT: Final = t.REPLY_PORT.number
#: The rule of what is refused for a limit.
LIMITS: Final = "limits"
#: Traps that make a port in the space of a task.
_MAKERS: Final = {trap.number: trap for trap in (t.REPLY_PORT, t.ALLOCATE, t.CONSTRUCT)}
#: Traps of one task that are carried out before the next task has its turn; its busy threads share them.
_TURN: Final = 64
#: Traps that a dead process is still granted.
_DRAINED: Final = 4096
#: Numbers of traps below which each is counted.
_NUMBERS: Final = 4096
#: Nanoseconds after which a call counts as a long one, and bytes from which on a message does.
_LONG_CALL: Final = 50_000
_LONG_MESSAGE: Final = 64 * 1024
#: Nanoseconds for which rings are looked at before sockets and deaths are.
_SLICE: Final = 200_000

#: Bytes of an answer before its message.
_ANSWER_HEAD: Final = 24
#: The answer to a call that would be one too many.
_TOO_MANY: Final = t.MsgAnswer(c.KERN_RESOURCE_SHORTAGE, rule="async").pack()
#: Ends the answers to ``receive_many``.
_NO_MORE: Final = t.MsgAnswer(c.MACH_RCV_TIMED_OUT).pack()

#: A call on the daemon itself: the channel, the bytes of the trap, and its descriptors.
#: None if its answer comes later.
OwnCall = Callable[[Channel, bytes | memoryview, list[int]], Answer | None]


class Traps:
    """What the kernel is asked, and what it answers.

    Args:
        own_calls: calls on the daemon rather than on the kernel, by the numbers of their traps.
        wait_writable: call ``flush`` when the channel's socket can be written to.
        released: what the kernel held, and nobody can reach any more.

    Attributes:
        broken: channels that are to be ended, each with the reason.
        descriptor_limit: files with this number or a higher one are not taken from clients.
        refusals: calls that were refused, by their codes.
        cut_offs: connections that ended because they broke the protocol.
        tracer: writes what the kernel is asked; None if nobody wants to know.
    """

    def __init__(
        self,
        kernel: Kernel,
        bootstrap: Bootstrap,
        own_calls: dict[int, OwnCall],
        wait_writable: Callable[[Channel], None],
        released: Callable[[object], None],
    ) -> None:
        self.kernel = kernel
        self.bootstrap = bootstrap
        self.deadlines = Deadlines()
        self.broken: deque[tuple[Channel, str]] = deque()
        self.descriptor_limit = sys.maxsize
        self.refusals: dict[int, int] = {}
        self.cut_offs = 0
        self.tracer: Tracer | None = None
        #: How many traps of each number there were.
        self._counts = array("q", bytes(8 * _NUMBERS))
        self._own_calls = own_calls
        self._wait_writable = wait_writable
        self._released = released
        self._busy: list[Channel] = []
        self._spin = spin_ns()
        #: When the rings were last looked at.
        self._now = 0
        #: The trap that was carried out last was for many messages, or a long one: it ends the turn.
        self._ends_turn = False
        #: Tasks that have had a long call since every busy thread was looked at: none of their threads has another.
        self._spent: set[Task] = set()

    def calls_by_number(self) -> dict[int, int]:
        """How often each call was made; 0 stands for those that there are not."""
        return {number: count for number, count in enumerate(self._counts) if count}

    def count_from(self, calls: dict[int, int]) -> None:
        """Go on from these numbers of ``calls_by_number``."""
        for number, count in calls.items():
            self._counts[number] = count

    # Looking at rings

    def look(self) -> bool:
        """Serve the busy rings for a while; False when all of them are quiet and every bell is armed."""
        self._now = memory.now()
        end = self._now + _SLICE
        while self._busy:
            served = self._turn()
            if self.broken:
                return True
            self._now = memory.now()
            if not served:
                self._retire(self._now)
                memory.give_way()
            if self._now > end:
                return True
        return False

    def _turn(self) -> int:
        """Each busy thread's next traps, up to a bound; how many there were."""
        served = 0
        if self._spent:
            self._spent.clear()
        for channel in self._busy:
            if channel.waiter is None and not channel.outbox:
                served += self._serve(channel)
        return served

    def _serve(self, channel: Channel) -> int:
        count = 0
        task = channel.task
        assert task is not None and task.space.quota is not None
        if self._spent and task in self._spent:
            return 0
        busy = task.space.quota.busy
        turn = _TURN // busy if 0 < busy < _TURN else 1
        try:
            while count < turn:
                trap = channel.next_trap()
                if trap is None:
                    break
                count += 1
                channel.begin(True)
                self._ends_turn = False
                self._carry_out(channel, trap, [])
                if channel.waiter is not None or channel.outbox or not channel.is_busy or self._ends_turn:
                    break
        except ProtocolError as error:
            self._cut_off(channel, error)
        if count:
            channel.looked_at = self._now
        return count

    def _retire(self, now: int) -> None:
        """Look no longer at rings that have been quiet, or full; their bells are armed, unless their threads wait."""
        for channel in self._busy:
            if now - channel.looked_at > self._spin:
                break
        else:
            return
        for channel in list(self._busy):
            if now - channel.looked_at <= self._spin:
                continue
            # With an answer that waits for room, the bell is armed for that, or the socket is waited for.
            if channel.waiter is None and not channel.outbox and not channel.is_quiet():
                channel.looked_at = now
                continue
            self._leave(channel)

    def _leave(self, channel: Channel) -> None:
        """The channel's rings are not looked at any more."""
        channel.is_busy = False
        self._busy.remove(channel)
        quota = channel.task.space.quota  # type: ignore[union-attr]
        assert quota is not None
        quota.busy -= 1

    def attend(self, channel: Channel) -> None:
        """The channel's bell rang, or its thread is about to speak: look at its rings from now on."""
        if channel.outbox:
            self.flush(channel)
        if channel.is_busy:
            channel.looked_at = self._now
        elif channel.waiter is None:
            channel.is_busy = True
            channel.looked_at = memory.now()
            self._busy.append(channel)
            quota = channel.task.space.quota  # type: ignore[union-attr]
            assert quota is not None
            quota.busy += 1

    def forget(self, channel: Channel) -> None:
        """The channel is gone: its call ends without an answer."""
        channel.deadline = None
        if channel.is_busy:
            self._leave(channel)
        self.abandon(channel)

    def abandon(self, channel: Channel) -> None:
        """The calls that wait end without an answer; messages that they send are destroyed."""
        waiter, channel.waiter = channel.waiter, None
        if waiter is not None:
            self._abandon(waiter)
        if channel.tagged:
            calls = list(channel.tagged.values())
            channel.tagged.clear()
            for call in calls:
                waiter, call.waiter = call.waiter, None
                call.deadline = None
                assert waiter is not None
                self._abandon(waiter)

    def _abandon(self, waiter: Waiter) -> None:
        abandon(self.kernel, waiter)
        if self.tracer is not None:
            self.tracer.gave_up("abandon", waiter)

    def _interrupt(self, waiter: Waiter) -> None:
        interrupt(self.kernel, waiter)
        if self.tracer is not None:
            self.tracer.gave_up("interrupt", waiter)

    # Traps

    def take(self, channel: Channel, payload: bytes | memoryview, descriptors: list[int]) -> None:
        """Carry out a trap that came by the socket, and close those of its descriptors that are not kept.

        Raises:
            ProtocolError: the thread has a call under way, or these bytes are no trap.
        """
        number = number_of(payload)
        if number in _NOTES:
            channel.closer.close(descriptors)
            self._take_note(channel, payload)
            return
        if channel.waiter is not None:
            raise ProtocolError("a trap while another of the same thread is under way")
        if channel.tagged is not None and number != _ASYNC and number != _CANCEL:
            # Its answer would go by the ring, for whose room nobody who writes to the socket waits.
            raise ProtocolError("a trap without a tag by the socket of a channel whose calls have tags")
        channel.begin(False)
        self._carry_out(channel, payload, descriptors)

    def _take_note(self, channel: Channel, payload: bytes | memoryview) -> None:
        """Something that a task lets its kernel know, whatever it is doing; nobody waits for an answer."""
        client, number = channel.client, number_of(payload)
        assert client is not None
        self._counts[number] += 1
        if number == t.INTERRUPT.number:
            if channel.waiter is not None:
                self._interrupt(channel.waiter)
        elif number == t.ABANDON.number:
            channel.reset = True
            self.broken.append((channel, "its thread gave its call up"))
        elif number == t.CLOSE.number:
            client.closes = True
        else:
            try:
                forget(self.kernel, client.task, payload)
                if self.tracer is not None:
                    self.tracer.forgotten(client.task, payload)
            except ProtocolError:
                raise
            except Exception as error:
                raise self._fault(channel, error) from error
            self.settle()

    def _carry_out(self, channel: Channel, payload: bytes | memoryview, descriptors: list[int]) -> None:
        """Carry out a trap, and answer it unless it has to wait."""
        task = channel.task
        assert task is not None
        number = number_of(payload)
        self._counts[number if 0 < number < _NUMBERS else 0] += 1
        if self.tracer is not None:
            self.tracer.begin(channel)
        try:
            if number == MACH_MSG:
                if len(payload) > _LONG_MESSAGE:
                    self._spend(task)
                self._begun(channel, self._carry_out_message(task, payload))
            elif number == _RECEIVE_MANY:
                self._ends_turn = True
                self._begun(channel, self._receive_many(channel, payload))
            elif number == _ASYNC:
                self._begin_tagged(channel, payload)
            elif number == _CANCEL:
                self._cancel(channel, payload)
            elif number == _SEND_MANY:
                self._ends_turn = True
                self._send_many(channel, payload)
            else:
                self._carry_out_other(channel, number, payload, descriptors)
                return
        except ProtocolError:
            raise
        except Exception as error:
            raise self._fault(channel, error) from error
        if descriptors:
            channel.closer.close(descriptors)
        self.settle()

    def _spend(self, task: Task) -> None:
        """What is carried out is a whole turn of all the task's threads."""
        self._ends_turn = True
        self._spent.add(task)

    def _carry_out_message(self, task: Task, payload: bytes | memoryview) -> Waiter:
        waiter = carry_out_mach_msg(self.kernel, task, payload)
        if self.tracer is not None:
            self.tracer.message(task, t.unpack_msg(payload), waiter)
        return waiter

    def _mach_msg(
        self, task: Task, option: int, buffer: bytes | memoryview, rcv_limit: int, rcv_name: int, timeout_ms: int
    ) -> Waiter:
        """One of the messages that a trap for many comes to."""
        waiter = mach_msg(self.kernel, task, option, buffer, (), rcv_limit, rcv_name, timeout_ms)
        if self.tracer is not None:
            self.tracer.message(task, t.MsgTrap(option, buffer, (), rcv_limit, rcv_name, timeout_ms), waiter)
        return waiter

    def _carry_out_other(
        self, channel: Channel, number: int, payload: bytes | memoryview, descriptors: list[int]
    ) -> None:
        task = channel.task
        assert task is not None
        began = memory.now()
        own_call = self._own_calls.get(number)
        files = len(descriptors)
        is_traced = False
        answer: Answer | None
        try:
            if descriptors and max(descriptors) >= self.descriptor_limit:
                raise Refusal(c.KERN_RESOURCE_SHORTAGE, "descriptors", "the daemon has no descriptor left for files")
            # What is refused above nobody has asked the kernel.
            is_traced = True
            if own_call is not None:
                answer = own_call(channel, payload, descriptors)
            else:
                answer = dispatch(self.kernel, task, payload, descriptors)
                if number in _MAKERS:
                    answer.result = _made(task, number, payload, answer)
        except Refusal as refusal:
            # Limits that the server counts are none of the kernel's.
            is_traced = is_traced and refusal.rule != LIMITS
            answer = Answer(t.pack_refusal(refusal.code, refusal.rule, refusal.says))
        except ProtocolError:
            raise
        except Exception as error:
            raise self._fault(channel, error) from error
        if descriptors and (answer is None or not answer.keeps_descriptors):
            channel.closer.close(descriptors)
        if answer is not None and (code := number_of(answer.parts[0])):
            self._refused(code)
        if self.tracer is not None and is_traced and answer is not None:
            self.tracer.trap(task, payload, files, answer, own=own_call is not None)
        # Before the answer: a file that the call let go of is closed when the call returns.
        self._release()
        if answer is not None:
            self._answer(channel, answer)
        self.settle()
        if memory.now() - began > _LONG_CALL:
            self._spend(task)

    def _fault(self, channel: Channel, error: Exception) -> ProtocolError:
        """A fault of ours.  Whoever met it is cut off, and everybody else goes on."""
        assert channel.client is not None
        task = channel.client.task
        _log.exception(
            "a trap of task %s could not be carried out",
            task.label,
            extra=event("fault", task=task.number, label=task.label, pid=channel.client.peer.pid),
        )
        return ProtocolError(str(error))

    def _begun(self, channel: Channel, waiter: Waiter) -> None:
        """A ``mach_msg`` is done, or waits."""
        if waiter.result is not None:
            self._finish(channel, waiter)
        else:
            channel.waiter = waiter
            waiter.owner = channel
            self._arm(channel, waiter)

    def drain(self, channel: Channel) -> None:
        """Carry out what a thread had asked for before its process died, or its socket was closed."""
        left = _DRAINED if channel.rings is not None else 0
        while left > 0 and channel.waiter is None and not channel.outbox:
            served = self._serve(channel)
            left = left - served if served else 0

    # Calls that wait

    def settle(self) -> None:
        """Answer every thread whose call has been finished by what was done last."""
        while True:
            changed = collect(self.kernel)
            if self.tracer is not None and changed:
                self.tracer.collected(changed)
            for waiter in changed:
                self._changed(waiter)
            if not self.kernel.woken:
                break
        if self.tracer is not None:
            self.tracer.settled()
        self._release()

    def _release(self) -> None:
        """Let go of what nobody has a right to any more."""
        if self.kernel.released:
            for released in self.kernel.take_released():
                self._released(released)

    def _changed(self, waiter: Waiter) -> None:
        if waiter.owner is self.bootstrap:
            self.bootstrap.serve()
            if self.tracer is not None:
                self.tracer.served()
            return
        if isinstance(waiter.owner, TaggedCall):
            self._changed_tagged(waiter.owner, waiter)
            return
        channel: Channel | None = waiter.owner  # type: ignore[assignment]
        if channel is None or channel.waiter is not waiter:
            return
        if waiter.result is None:
            self._arm(channel, waiter)
            return
        channel.waiter = None
        channel.deadline = None
        self._finish(channel, waiter)
        if channel.rings is not None:
            self.attend(channel)

    def _arm(self, waiting: Channel | TaggedCall, waiter: Waiter) -> None:
        milliseconds = waiter.deadline_ms
        waiting.deadline = None
        if milliseconds is not None:
            self.deadlines.add(waiting, time.monotonic() + milliseconds / 1000)

    def resume_deadlines(self, channel: Channel) -> None:
        """The calls of a channel, which another process had until now, are over when they were to be."""
        if channel.deadline is not None:
            self.deadlines.add(channel, channel.deadline)
        for call in (channel.tagged or {}).values():
            if call.deadline is not None:
                self.deadlines.add(call, call.deadline)

    def expire(self) -> None:
        """Calls whose time is over return."""
        for waiting in self.deadlines.due(time.monotonic()):
            if waiting.waiter is not None:
                expire(self.kernel, waiting.waiter)
                if self.tracer is not None:
                    self.tracer.gave_up("expire", waiting.waiter)
                self.settle()

    # Calls with tags

    def _begin_tagged(self, channel: Channel, payload: bytes | memoryview) -> None:
        """Carry out a ``mach_msg`` of a thread that does not wait for its answer."""
        task = channel.task
        assert task is not None
        if channel.rings is None:
            raise ProtocolError("a call with a tag where the connection began")
        tag, trap = unpack_async(payload)
        calls = channel.tagged_calls()
        if tag in calls:
            raise ProtocolError(f"a second call with the tag {tag}")
        if len(channel.outbox) >= t.ASYNC_MAX:
            raise ProtocolError("it asks and does not read what it is answered")
        call = TaggedCall(channel, tag)
        quota = task.space.quota
        assert quota is not None
        if len(calls) >= t.ASYNC_MAX or len(task.waiters) >= quota.waiters_max:
            quota.note("waiters", min(t.ASYNC_MAX, quota.waiters_max), len(task.waiters))
            self._answer(channel, new_answer((pack_tag(tag), _TOO_MANY)))
            return
        waiter = self._carry_out_message(task, trap)
        if waiter.result is not None:
            self._finish_tagged(call, waiter.result)
        else:
            call.waiter = waiter
            calls[tag] = call
            waiter.owner = call
            self._arm(call, waiter)

    def _cancel(self, channel: Channel, payload: bytes | memoryview) -> None:
        (tag,), _ = t.CANCEL.unpack(payload)
        if channel.tagged is None:
            raise ProtocolError("a call with a tag is cancelled, and there never was one")
        call = channel.tagged.get(tag)
        if call is not None:
            assert call.waiter is not None
            self._interrupt(call.waiter)

    def _changed_tagged(self, call: TaggedCall, waiter: Waiter) -> None:
        if call.waiter is not waiter:
            return
        if waiter.result is None:
            self._arm(call, waiter)
            return
        channel = call.channel
        assert channel.tagged is not None
        call.waiter = None
        call.deadline = None
        del channel.tagged[call.tag]
        self._finish_tagged(call, waiter.result)
        # What it has waited for as a rule lets it speak.
        if not channel.is_busy and channel.waiter is None and not channel.outbox:
            channel.is_expected()
        self.attend(channel)

    def _refused(self, code: int) -> None:
        self.refusals[code] = self.refusals.get(code, 0) + 1

    def _finish_tagged(self, call: TaggedCall, result: Result) -> None:
        if result.code:
            self._refused(result.code)
        answer = msg_answer(result)
        answer.parts = (pack_tag(call.tag), *answer.parts)
        self._answer(call.channel, answer)

    # Calls on messages

    def _finish(self, channel: Channel, waiter: Waiter) -> None:
        """Answer a ``mach_msg`` that is done, or go on with the messages of which it sent or received one."""
        result = waiter.result
        assert result is not None
        if result.code:
            self._refused(result.code)
        if channel.batch is not None:
            self._sent_one(channel, result)
        elif channel.left:
            if result.head is None:
                channel.left = 0
                self._answer(channel, msg_answer(result))
            else:
                channel.many = waiter
                self._go_on(channel, result)
        else:
            self._answer(channel, msg_answer(result))

    def _send_many(self, channel: Channel, payload: bytes | memoryview) -> None:
        channel.batch = Batch(payload)
        self._send_next(channel)

    def _send_next(self, channel: Channel) -> None:
        """Send messages of a batch until one has to wait, or fails, or there are no more."""
        batch, task = channel.batch, channel.task
        assert batch is not None and task is not None
        while (buffer := batch.next()) is not None:
            waiter = self._mach_msg(task, c.MACH_SEND_MSG, buffer, 0, 0, 0)
            result = waiter.result
            if result is None or result.code:
                self._begun(channel, waiter)
                return
        self._end_batch(channel, batch.sent, 0)

    def _sent_one(self, channel: Channel, result: Result) -> None:
        """A message of a batch has left, after a wait, or has failed."""
        batch, task = channel.batch, channel.task
        assert batch is not None and task is not None
        if not result.code:
            self._send_next(channel)
        elif result.code == c.MACH_SEND_INTERRUPTED and result.head is not None:
            # It came back, and goes out again (M36).
            self._begun(channel, self._mach_msg(task, c.MACH_SEND_MSG, result.head + result.inline, 0, 0, 0))
        else:
            self._end_batch(channel, batch.sent - 1, result.code)

    def _end_batch(self, channel: Channel, sent: int, code: int) -> None:
        channel.batch = None
        self._answer(channel, new_answer((t.SEND_MANY.pack_answer((sent, code)),)))

    def _receive_many(self, channel: Channel, payload: bytes | memoryview) -> Waiter:
        (option, rcv_limit, rcv_name, timeout_ms, count), _ = t.RECEIVE_MANY.unpack(payload)
        channel.left = min(max(count, 1), t.RECEIVE_MANY_MAX)
        task = channel.task
        assert task is not None
        option = option & ~c.MACH_SEND_MSG | c.MACH_RCV_MSG
        return self._mach_msg(task, option, b"", rcv_limit, rcv_name, timeout_ms)

    def _go_on(self, channel: Channel, result: Result | None) -> None:
        """Take the next messages of a ``receive_many`` while there is room for their answers.

        Args:
            result: one that was received already.
        """
        many = channel.many
        assert many is not None
        option = many.option | c.MACH_RCV_TIMEOUT
        while channel.left and not channel.outbox:
            # As many in one answer as go by the ring.
            parts: list[bytes | memoryview] = []
            results: list[Result] = []
            size = 0
            while channel.left:
                if result is None:
                    waiter = self._mach_msg(many.task, option, b"", many.rcv_limit, many.rcv_name, 0)
                    result = waiter.result
                    assert result is not None
                if result.head is None:
                    # Nothing more is there.
                    channel.left, result = 0, None
                    break
                length = len(result.head) + len(result.inline) + len(result.tail) + _ANSWER_HEAD
                if results and (size + length > channel.room() or result.memory or result.rule):
                    break
                parts.extend(answer_parts(result))
                results.append(result)
                channel.left -= 1
                size += length
                if result.memory or result.rule:
                    result = None
                    break
                result = None
            if results:
                answer = new_answer(tuple(parts))
                answer.result = results[0]
                if len(results) > 1:
                    answer.more = results[1:]
                self._answer(channel, answer)
            if result is not None and channel.outbox:
                # It has left its queue, and waits here for the others to be read.
                answer = msg_answer(result)
                self._answer(channel, answer)
                channel.left -= 1
                result = None
        if not channel.left:
            channel.many = None
            self._answer(channel, new_answer((_NO_MORE,)))

    # Answers

    def _answer(self, channel: Channel, answer: Answer) -> None:
        try:
            if not channel.answer(answer):
                quota = channel.task.space.quota if channel.task is not None else None
                if quota is not None and channel.kept > quota.bytes_max and len(channel.outbox) > 1:
                    # What it was given without reading counts no more in its queues, to which it goes back.
                    self.broken.append((channel, "it does not read what it is answered"))
                else:
                    self._keep(channel)
        except (OSError, LimitReached) as error:
            self.broken.append((channel, f"an answer could not be written: {error}"))
        except ProtocolError as error:
            self._cut_off(channel, error)

    def _cut_off(self, channel: Channel, error: ProtocolError) -> None:
        """Whoever breaks the protocol in one thread loses the whole task."""
        if channel.client is not None:
            self.cut_offs += 1
            self.broken.append((channel.client.control, f"cut off: {error}"))

    def flush(self, channel: Channel) -> bool:
        """There may be room now for answers that were kept; whether none is left."""
        try:
            if channel.flush():
                if channel.many is not None:
                    self._go_on(channel, None)
                return not channel.outbox
            self._keep(channel)
        except (OSError, LimitReached) as error:
            self.broken.append((channel, f"an answer could not be written: {error}"))
        except ProtocolError as error:
            self._cut_off(channel, error)
        return False

    def _keep(self, channel: Channel) -> None:
        """An answer waits: for its socket to be written to, unless the thread's bell will tell that it has read."""
        if channel.waits_for_socket():
            self._wait_writable(channel)


def _made(task: Task, number: int, payload: bytes | memoryview, answer: Answer) -> Result | None:
    """The port that a trap has made for its caller, which goes if the caller never reads under which name."""
    if number_of(answer.parts[0]):
        return None
    if number != _REPLY_PORT and resolve_task(task, _MAKERS[number].unpack(payload)[0][0]) is not task:
        return None
    name = _MAKERS[number].unpack_answer(b"".join(answer.parts))[0][0]
    entry = task.space.lookup(name)
    if entry is None or entry.port is None or entry.port.receiver is not task.space:
        return None
    made = new_result(0)
    made.port = entry.port
    return made
