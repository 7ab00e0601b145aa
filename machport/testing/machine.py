"""The daemon's work without its processes: one kernel, the service of names, and traps from whoever makes them.

Knows no threads and no real time: a call that has to wait stays open until another one, or ``expire``, finishes it.
Everything that is done to it is an ``Event``, from which a transcript is written.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from machport.abi import constants as c
from machport.abi import traps as t
from machport.abi.traps import Batch, Payload, number_of
from machport.carrier import hello
from machport.kernel import tasks
from machport.kernel.copyout import take_back
from machport.kernel.kernel import Kernel
from machport.kernel.messages import abandon, collect, expire, interrupt, mach_msg
from machport.kernel.port import Port
from machport.kernel.refusal import Refusal
from machport.kernel.task import Task
from machport.kernel.waiter import Result, Waiter
from machport.server.bootstrap import Bootstrap
from machport.server.children import Children
from machport.server.configuration import Configuration
from machport.server.describing import describe
from machport.server.dispatch import Answer, OpenFile, answer_parts, carry_out_mach_msg, dispatch, forget
from machport.server.limits import Limiter
from machport.server.obituaries import Obituaries
from machport.testing.sendonce import SendOnceRights

_NO_MORE: Final = t.MsgAnswer(c.MACH_RCV_TIMED_OUT).pack()
#: Stands for the answer to what has none.
_NOTED: Final = bytes(4)
#: Where tokens have the number of the process.
PID: Final = 7
#: Traps after which a port is new.
_MAKERS: Final = frozenset((t.ALLOCATE.number, t.ALLOCATE_NAME.number, t.CONSTRUCT.number, t.REPLY_PORT.number))
#: Stands for a descriptor where nobody has files: in a transcript that is played.
NO_FILE: Final = -1


#: Descriptors of a daemon that a world has to share among its tasks: none is ever used up.
_DESCRIPTORS: Final = 1 << 20


class Call:
    """One trap of a task, and what came of it.

    Attributes:
        task: whose it is.
        files: how many came with it.
        payload: the trap.
        answers: its answer, or of ``receive_many`` all of them; None while it waits.
        descriptors: files that go with the answer; they stay the kernel's.
        number: among the calls that had to wait, 0 if it had not.
        deadline: milliseconds of virtual time at which it gives up; None if it does not.
        port: that it has made; None if it has made none.
        results: receptions that its answers tell of, for as long as nobody has read them.
    """

    __slots__ = (
        "answers",
        "batch",
        "deadline",
        "descriptors",
        "files",
        "left",
        "number",
        "payload",
        "port",
        "received",
        "results",
        "task",
        "waiter",
    )

    def __init__(self, task: Task, files: int, payload: bytes) -> None:
        self.task = task
        self.files = files
        self.payload = payload
        self.answers: list[bytes] | None = None
        self.descriptors: Sequence[int] = ()
        self.number = 0
        self.deadline: int | None = None
        self.port: Port | None = None
        self.results: list[Result] = []
        self.waiter: Waiter | None = None
        self.batch: Batch | None = None
        #: Messages that a ``receive_many`` may still take, and the answers that tell of those it took.
        self.left = 0
        self.received: list[bytes] = []


class Event:
    """One thing that was done to the kernel.

    Attributes:
        kind: "task", "child", "trap", "expire", "interrupt", "abandon", "end" or "time".
        task: number of the task that did it, or to which it was done; 0 for the time, which is everybody's.
        call: the trap, or the call that was given up; None for the rest.
        says: label and tokens of a new task; of one that ends, how, and the numbers of its unread calls; the time.
        waits: the trap was not answered at once.
        finished: calls of others that it has answered.
    """

    __slots__ = ("call", "finished", "kind", "says", "task", "waits")

    def __init__(self, kind: str, task: int, call: Call | None = None, says: Sequence[object] = ()) -> None:
        self.kind = kind
        self.task = task
        self.call = call
        self.says = says
        self.waits = False
        self.finished: list[Call] = []


#: What tasks may have unless somebody says more.
_DEFAULTS: Final = Configuration()


class Machine:
    """A kernel with its services, driven by one call after the other.

    Args:
        close: what becomes of a file that nobody has a right to any more.
        configuration: what tasks may have.

    Attributes:
        now: virtual time in milliseconds.
        members: every task there ever was, in the order in which they began; the service of names is not one.
        events: all that was done.
        send_once: the send-once rights to ports that tasks have made.
    """

    def __init__(self, close: Callable[[int], object] = os.close, configuration: Configuration = _DEFAULTS) -> None:
        self.kernel = Kernel()
        self.bootstrap = Bootstrap(self.kernel)
        self.now = 0
        self.members: list[Task] = []
        self.events: list[Event] = []
        self.send_once = SendOnceRights()
        self._numbers: dict[Task, int] = {}
        self._obituaries = Obituaries(lambda *_: False, lambda _: None, 0, lambda: self.now / 1000)
        self._limiter = Limiter(self.kernel, configuration, _DESCRIPTORS)
        self._children = Children(
            self.kernel,
            self._obituaries,
            lambda *_: False,
            lambda _: None,
            self._new_ticket,
            lambda task, maker: self._limiter.begin(task, task.label, maker),
        )
        self._tickets = 0
        self._waiting: dict[Call, None] = {}
        self._waits = 0
        self._close = close
        self._own_calls: Final[dict[int, Callable[[Task, bytes, Sequence[int]], Answer]]] = {
            t.TASK_CREATE.number: lambda task, trap, files: self._children.create(
                task, t.TASK_CREATE.unpack(trap)[0][0]
            ),
            t.TICKET.number: lambda task, trap, files: self._children.ticket(task, t.TICKET.unpack(trap)[0][0]),
            t.WATCH.number: lambda task, trap, files: self._children.watch(task, t.WATCH.unpack(trap)[0][0], files),
            t.DEPOSIT.number: lambda task, trap, files: self._children.deposit(task, *t.DEPOSIT.unpack(trap)[0]),
            t.CLAIM.number: lambda task, trap, files: self._children.claim_right(task, _ticket(t.CLAIM, trap)),
            t.WATCH_DEPOSIT.number: lambda task, trap, files: self._children.watch_deposit(
                task, _ticket(t.WATCH_DEPOSIT, trap), files
            ),
            t.DESCRIBE.number: self._describe,
            t.TASK_FOR_PID.number: _refuse_numbers,
            t.ALLOW_TASK_FOR_PID.number: _refuse_numbers,
            t.TASK_SET_LIMITS.number: self._set_limits,
            t.TASK_GET_LIMITS.number: self._get_limits,
        }

    def _new_ticket(self) -> bytes:
        """The same each time that the same is done: nobody in a world guesses."""
        self._tickets += 1
        return self._tickets.to_bytes(hello.TICKET_SIZE, "little")

    def _describe(self, task: Task, trap: bytes, files: Sequence[int]) -> Answer:
        return describe(self.kernel, self._obituaries, task, t.DESCRIBE.unpack(trap)[0][0], self._pid_of)

    def _set_limits(self, maker: Task, trap: bytes, files: Sequence[int]) -> Answer:
        (name,), words = t.TASK_SET_LIMITS.unpack(trap)
        return self._limiter.set_limits(self._child(maker, name), maker, words)

    def _get_limits(self, caller: Task, trap: bytes, files: Sequence[int]) -> Answer:
        (name,), _ = t.TASK_GET_LIMITS.unpack(trap)
        task = tasks.resolve_task(caller, name)
        return self._limiter.get_limits(task if task is caller else self._child(caller, name))

    def _child(self, maker: Task, name: int) -> Task:
        return self._children.waiting_child(maker, name)

    def _pid_of(self, task: Task) -> int:
        return task.tokens[PID] if task in self._numbers else 0

    # Tasks

    def begin_task(self, label: str, tokens: Sequence[int]) -> Task:
        """A new task, which may ask for services by name."""
        task = tasks.create_task(self.kernel, label, tokens, bootstrap=self.bootstrap.port)
        self._limiter.begin(task, label)
        self._enter(task, Event("task", len(self.members), says=(label, tokens)))
        return task

    def claim(self, maker: Task, name: int, label: str, tokens: Sequence[int]) -> Task:
        """The child task that ``maker`` made and has under ``name``: it is no child any more."""
        task = tasks.resolve_task(maker, name)
        self._children.forget(task)
        if (account := self._limiter.of(task)) is not None:
            account.limit_to(account.limits)
        task.label, task.tokens = label, tokens
        self._enter(task, Event("child", len(self.members), says=(label, tokens, self._numbers[maker], name)))
        return task

    def _enter(self, task: Task, event: Event) -> None:
        self._numbers[task] = len(self.members)
        self.members.append(task)
        self.events.append(event)

    def end_task(self, task: Task, status: int | None, unread: Sequence[Call] = ()) -> None:
        """The task's process is gone: what the daemon does then, in the same order.

        Args:
            status: how the process ended, as ``wait`` has it; None if the task was closed.
            unread: calls of it that were answered, and whose answers nobody has read: what they received goes back to
                its queues.
        """
        # Once more from the oldest, because a transcript has to tell them without their order.
        unread = sorted(unread, key=lambda call: call.number)
        event = Event("end", self._numbers[task], says=[status, *[call.number for call in unread]])
        own = [call for call in self._waiting if call.task is task]
        for call in own:
            assert call.waiter is not None
            abandon(self.kernel, call.waiter)
            self._give_up(call)
        for call in unread:
            for result in call.results:
                take_back(self.kernel, task, result)
        self._obituaries.record(task, self._pid_of(task), "closed its task" if status is None else "")
        obituary = self._obituaries.of(task.number)
        if obituary is not None and status is not None:
            obituary.learn(status)
        if task.active:
            tasks.task_terminate(self.kernel, task)
        self._children.end_all_of(task)
        self._settle(event)

    def pass_time(self, now: int) -> None:
        """It is ``now`` milliseconds since the beginning."""
        self.now = now
        self.events.append(Event("time", 0, says=(now,)))

    # Traps

    def trap(self, task: Task, payload: Payload, descriptors: Sequence[int] = ()) -> Call:
        """Carry out one trap.

        Args:
            descriptors: files that go with it; they are the machine's from now on.
        """
        call = Call(task, len(descriptors), payload if isinstance(payload, bytes) else b"".join(payload))
        event = Event("trap", self._numbers[task], call)
        number = number_of(call.payload)
        if number == t.MACH_MSG:
            msg = t.unpack_msg(call.payload)
            if msg.option & c.MACH_SEND_MSG:
                self.send_once.named_by_message(task, msg.buffer, msg.memory)
            self._begun(call, carry_out_mach_msg(self.kernel, task, call.payload))
        elif number == t.RECEIVE_MANY.number:
            self._receive_many(call)
        elif number == t.FORGET.number:
            forget(self.kernel, task, call.payload)
            call.answers = [_NOTED]
        elif number == t.SEND_MANY.number:
            call.batch = Batch(call.payload)
            self._send_next(call, call.batch)
        else:
            self.send_once.named_by_trap(task, call.payload)
            answer = self._other(task, number, call.payload, descriptors)
            if not answer.keeps_descriptors:
                for descriptor in descriptors:
                    self._let_go(descriptor)
            call.answers = [b"".join(answer.parts)]
            call.descriptors = answer.descriptors
            if number in _MAKERS and not number_of(call.answers[0]):
                self._note_port(call)
        self._settle(event)
        event.waits = call.answers is None
        return call

    def _note_port(self, call: Call) -> None:
        """The newest entry of a task may be a port that nobody had before."""
        call.port = next(reversed(call.task.space.entries.values())).port
        if call.port is not None:
            self.send_once.made(call.port)

    def _other(self, task: Task, number: int, payload: bytes, descriptors: Sequence[int]) -> Answer:
        try:
            own = self._own_calls.get(number)
            if own is None:
                return dispatch(self.kernel, task, payload, descriptors)
            tasks.check_alive(task)
            return own(task, payload, descriptors)
        except Refusal as refusal:
            return Answer(t.pack_refusal(refusal.code, refusal.rule, refusal.says))

    def expire(self, call: Call) -> None:
        """The time of a waiting call is over."""
        assert call.waiter is not None
        expire(self.kernel, call.waiter)
        self._settle(self._about("expire", call))

    def interrupt(self, call: Call) -> None:
        """Another thread interrupts a waiting call."""
        assert call.waiter is not None
        interrupt(self.kernel, call.waiter)
        self._settle(self._about("interrupt", call))

    def abandon(self, call: Call) -> None:
        """Whoever made a waiting call goes on without its answer."""
        assert call.waiter is not None
        event = self._about("abandon", call)
        abandon(self.kernel, call.waiter)
        self._give_up(call)
        self._settle(event)

    def _about(self, kind: str, call: Call) -> Event:
        return Event(kind, self._numbers[call.task], call)

    def waiting(self) -> Iterator[Call]:
        """Calls that wait, in the order in which they began to."""
        return iter(self._waiting)

    def next_deadline(self) -> Call | None:
        """The waiting call whose time is over first; of several, the one that waits longest."""
        timed = [call for call in self._waiting if call.deadline is not None]
        return min(timed, key=lambda call: call.deadline or 0, default=None)

    # After each event

    def _settle(self, event: Event) -> None:
        self.events.append(event)
        while True:
            for waiter in collect(self.kernel):
                self._changed(waiter, event)
            if self.kernel.woken.first is None:
                break
        for released in self.kernel.take_released():
            if isinstance(released, OpenFile):
                self._let_go(released.descriptor)
            else:
                self._children.forget(released)
                self._obituaries.record(released, self._pid_of(released), "was terminated")
                self._limiter.end(released)
        self.send_once.settle()

    def _let_go(self, descriptor: int) -> None:
        if descriptor != NO_FILE:
            self._close(descriptor)

    def _changed(self, waiter: Waiter, event: Event) -> None:
        if waiter.owner is self.bootstrap:
            self.bootstrap.serve()
            return
        call = waiter.owner
        if not isinstance(call, Call) or call.waiter is not waiter:
            return
        if waiter.result is None:
            self._arm(call, waiter)
            return
        call.waiter = None
        self._finish(call, waiter, waiter.result)
        if call.answers is not None and (call is not event.call or event.kind != "trap"):
            event.finished.append(call)

    # Calls on messages

    def _begun(self, call: Call, waiter: Waiter) -> None:
        if waiter.result is not None:
            self._finish(call, waiter, waiter.result)
            return
        call.waiter = waiter
        waiter.owner = call
        if not call.number:
            self._waits += 1
            call.number = self._waits
        self._waiting[call] = None
        self._arm(call, waiter)

    def _arm(self, call: Call, waiter: Waiter) -> None:
        milliseconds = waiter.deadline_ms
        call.deadline = None if milliseconds is None else self.now + milliseconds

    def _finish(self, call: Call, waiter: Waiter, result: Result) -> None:
        self.send_once.received(result)
        if call.batch is not None:
            self._sent_one(call, call.batch, result)
        elif call.left and result.head is not None:
            self._take_more(call, waiter, result)
        else:
            if result.received is not None:
                call.results.append(result)
            self._answer(call, [b"".join(answer_parts(result))])

    def _answer(self, call: Call, answers: list[bytes]) -> None:
        call.answers = answers
        call.deadline = None
        self._waiting.pop(call, None)

    def _give_up(self, call: Call) -> None:
        call.waiter = None
        self._answer(call, [])

    def _send_next(self, call: Call, batch: Batch) -> None:
        while (buffer := batch.next()) is not None:
            self.send_once.named_by_message(call.task, buffer)
            waiter = mach_msg(self.kernel, call.task, c.MACH_SEND_MSG, buffer)
            if waiter.result is None or waiter.result.code:
                self._begun(call, waiter)
                return
        self._answer(call, [t.SEND_MANY.pack_answer((batch.sent, 0))])

    def _sent_one(self, call: Call, batch: Batch, result: Result) -> None:
        if not result.code:
            self._send_next(call, batch)
        elif result.code == c.MACH_SEND_INTERRUPTED and result.buffer is not None:
            # It came back, and goes out again (M36).
            self._begun(call, mach_msg(self.kernel, call.task, c.MACH_SEND_MSG, result.buffer))
        else:
            self._answer(call, [t.SEND_MANY.pack_answer((batch.sent - 1, result.code))])

    def _receive_many(self, call: Call) -> None:
        (option, rcv_limit, rcv_name, timeout_ms, count), _ = t.RECEIVE_MANY.unpack(call.payload)
        call.left = min(max(count, 1), t.RECEIVE_MANY_MAX)
        option = option & ~c.MACH_SEND_MSG | c.MACH_RCV_MSG
        self._begun(call, mach_msg(self.kernel, call.task, option, b"", (), rcv_limit, rcv_name, timeout_ms))

    def _take_more(self, call: Call, many: Waiter, result: Result) -> None:
        """The first message of a ``receive_many`` is there, and with it all that wait behind it."""
        option = many.option | c.MACH_RCV_TIMEOUT
        answers: list[bytes] = []
        while result.head is not None:
            answers.append(b"".join(answer_parts(result)))
            call.results.append(result)
            if len(answers) == call.left:
                break
            waiter = mach_msg(self.kernel, call.task, option, b"", (), many.rcv_limit, many.rcv_name, 0)
            assert waiter.result is not None
            result = waiter.result
            self.send_once.received(result)
        self._answer(call, [*answers, _NO_MORE])

    # For people

    def service_of(self, port: Port) -> str | None:
        """The name under which a port is served."""
        for name, right in self.bootstrap.names.items():
            entry = self.bootstrap.task.space.lookup(right)
            if entry is not None and entry.port is port:
                return name
        return None


def _refuse_numbers(task: Task, trap: bytes, files: Sequence[int]) -> Answer:
    raise Refusal(c.KERN_NOT_SUPPORTED, "task_for_pid", "the processes of a world have no numbers")


def _ticket(trap: t.Trap, payload: bytes) -> bytes:
    return b"".join([word.to_bytes(4, "little") for word in trap.unpack(payload)[1]])
