"""A record of all that a kernel is asked, in the order in which it is, and of what it answered: a transcript.

Each call on the kernel is a step, also those that the daemon makes by itself: a ``receive_many`` is as many
``mach_msg`` as it came to, and a task's end is a step for each call that was abandoned, each message that went back,
and the end.  So whoever does the same again comes to the same answers, whatever the clients' rings and clocks did
meanwhile; what is no call on the kernel, such as ``describe``, is not in it.  Times and threads are comments.

Whoever reads has a pipe.  It is written to only as far as it takes at once: behind a reader that is too slow, steps are
dropped, and a line says how many.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Final

from machport.abi import constants as c
from machport.abi import message as layout
from machport.abi import transcript as words
from machport.abi import traps as t
from machport.abi.traps import Buffer
from machport.kernel import phase
from machport.kernel.counts import KINDS
from machport.kernel.kernel import Kernel
from machport.kernel.message import Message
from machport.kernel.port import Port
from machport.kernel.task import Task
from machport.kernel.waiter import Result, Waiter
from machport.server.bootstrap import Bootstrap
from machport.server.connection import Channel
from machport.server.dispatch import Answer, answer_parts
from machport.server.outlet import Outlet
from machport.server.tracestate import waiting

#: Characters that wait for a reader; what comes when there are more is dropped.
_WAITING_MAX: Final = 8 << 20
#: Characters after which they are written at once.
_PIECE: Final = 1 << 16
#: Calls on the daemon that are calls on its kernel as well.
_KERNEL_CALLS: Final = frozenset(trap.number for trap in (t.TASK_CREATE, t.DEPOSIT, t.CLAIM, t.FILEPORT_MAKEPORT))
_MACH_MSG: Final = "mach_msg"
#: The first field of most traps is the task that they are done to.
_NAMES: Final = ("name", "member", "old", "pset")


class Filters:
    """Which steps are wanted; all of them if nothing is said.

    Args:
        tasks: patterns of labels.
        pid: of a process; 0 for any.
        calls: names.
        ports: patterns of labels.
    """

    def __init__(
        self, tasks: Sequence[str] = (), pid: int = 0, calls: Sequence[str] = (), ports: Sequence[str] = ()
    ) -> None:
        self._tasks = tasks
        self._pid = pid
        self._calls = frozenset(calls)
        self._ports = ports
        self.are_none = not (tasks or pid or calls or ports)

    @classmethod
    def of_words(cls, pid: int, listed: Sequence[int]) -> Filters:
        """Filters as TRACE has them."""
        tasks, calls, ports = [text.split(",") if text else [] for text in t.unpack_texts(listed, 3)]
        return cls(tasks, pid, calls, ports)

    def want(self, task: Task, call: str, port: Port | None) -> bool:
        """Whether a call of a task on a port is wanted."""
        return (
            (not self._tasks or _matches(task.label, self._tasks))
            and (not self._pid or task.tokens[7] == self._pid)
            and (not self._calls or call in self._calls)
            and (not self._ports or (port is not None and _matches(port.label, self._ports)))
        )


class Tracer:
    """Writes a trace.

    Args:
        outlet: where to; the tracer's from now on.
        state: the state that the trace begins with (``tracestate``); "" if it begins with a kernel's first call.
        unread: receptions that may go back to their queues, as that state has them.
        why_not: why the trace cannot be played again; "" if it can.
        wait_writable: call ``flush`` when the descriptor takes more, or no more.

    Attributes:
        records, lost: how many steps were written, and dropped.
        is_over: nobody reads any more.
    """

    def __init__(
        self,
        kernel: Kernel,
        bootstrap: Bootstrap,
        outlet: Outlet,
        filters: Filters | None = None,
        *,
        state: str = "",
        unread: Sequence[Result] = (),
        why_not: str = "",
        wait_writable: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self._kernel = kernel
        self._bootstrap = bootstrap
        self._outlet = outlet
        self._filters = filters or Filters()
        self._wait_writable = wait_writable
        self.records = 0
        self.lost = 0
        self.is_over = False
        self._untold = 0
        self._text: list[str] = []
        self._size = 0
        self._rest = b""
        #: The lines of the step that was recorded last; what it set going may still be added.
        self._step: list[str] = []
        self._waits = 0
        self._numbers: dict[Waiter, int] = {}
        self._receptions = 0
        self._nested = False
        self._since = self._began = time.monotonic_ns()
        self._thread = 0
        self._sent = kernel.counts.sent
        kernel.notices = []
        when = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        self._write(f"{'record' if why_not or not self._filters.are_none else 'trace'} {when}")
        if why_not:
            self._write(f"# cannot be played again: {why_not}")
        for result in unread:
            self._receptions += 1
            result.serial = self._receptions
        if state:
            self._write(f"> t0 state {state}")
            self._write(f"= {words.SUCCESS}")
        for task in kernel.tasks:
            self._introduce(task)
        for waiter in waiting(kernel, bootstrap):
            if not self._filters.want(waiter.task, _MACH_MSG, _port_waited_for(waiter)):
                continue
            self._number(waiter)
            self._write(f"# w{self._numbers[waiter]} of t{waiter.task.number} waits since before")

    # What was asked

    def begin(self, channel: Channel) -> None:
        """A trap of a thread is about to be carried out."""
        self._since = time.monotonic_ns()
        self._thread = channel.sock.fileno()
        self._nested = True

    def message(self, task: Task, trap: t.MsgTrap, waiter: Waiter) -> None:
        """A ``mach_msg`` was carried out."""
        call = words.write_message(
            trap.option, trap.buffer, trap.memory, trap.rcv_limit, trap.rcv_name, trap.timeout_ms
        )
        result = waiter.result
        more = self._sends()
        if result is None:
            if not self._begin_step(task, call, more, self._port_of(task, trap, None)):
                return
            self._number(waiter)
            self._step.append(f"= waits w{self._numbers[waiter]}")
            return
        more += self._receives(result)
        if self._begin_step(task, call, more, self._port_of(task, trap, result)):
            self._step.append(f"= {_answer(result)}")

    def trap(self, task: Task, payload: Buffer, files: int, answer: Answer, *, own: bool) -> None:
        """Another trap was carried out; by the daemon itself if it is its own."""
        number = t.number_of(payload)
        if not own or number in _KERNEL_CALLS:
            call = words.write_trap(payload) + (f" files={files}" if files else "")
            if self._begin_step(task, call, "", self._port_named(task, number, payload)):
                self._step.append(f"= {' '.join(words.write_answers(number, [b''.join(answer.parts)]))}")
        self._nested = False

    def forgotten(self, task: Task, payload: Buffer) -> None:
        """A task has given up rights that it has forgotten."""
        self._done(task, words.write_trap(payload))

    def gave_up(self, how: str, waiter: Waiter) -> None:
        """A call that waited was given up: "expire", "interrupt" or "abandon"."""
        number = self._numbers.get(waiter)
        if number is not None:
            self._done(waiter.task, f"{how} w{number}")
            if waiter.result is not None and not waiter.changed:
                # Nobody is told of it.
                del self._numbers[waiter]

    def began(self, task: Task) -> None:
        """A process has joined with a new task."""
        self._introduce(task)
        self._done(task, f"task {words.write_text(task.label)} {words.write_numbers(task.tokens)}")

    def claimed(self, task: Task) -> None:
        """A process has joined with a task that was made for it."""
        self._introduce(task)
        self._done(task, f"claimed {words.write_text(task.label)} {words.write_numbers(task.tokens)}")

    def limited(self, task: Task) -> None:
        """A task has other limits from now on."""
        quota = task.space.quota
        assert quota is not None
        limits = [task.space.limit, quota.messages_max, quota.bytes_max, quota.sending_max]
        self._done(task, f"limits {words.write_numbers(limits)}")

    def ended(self, task: Task) -> None:
        """A task was terminated, not by a trap."""
        if not self._nested:
            self._done(task, "end")

    def taken_back(self, task: Task, result: Result) -> None:
        """A message went back to its queue because its receiver has ended."""
        if result.serial:
            self._done(task, f"take_back r{result.serial}")
        else:
            self._lose("a message that was received before the trace began")

    def unmade(self, task: Task, name: int) -> None:
        """A port went again, because its receiver has ended and did not know of it."""
        self._done(task, f"unmade {name:#x}")

    def served(self) -> None:
        """The service of names has answered what there was."""
        self._done(self._bootstrap.task, "serve", self._sends())

    def collected(self, changed: Sequence[Waiter]) -> None:
        """The kernel was asked which calls have gone on."""
        lines = []
        for waiter in changed:
            if waiter is self._bootstrap.waiter:
                lines.append("| bootstrap")
            elif waiter in self._numbers:
                number, result = self._numbers[waiter], waiter.result
                if result is None:
                    lines.append(f"| w{number} waits")
                else:
                    del self._numbers[waiter]
                    lines.append(f"# w{number} at {self._now():.3f}{self._receives(result)}")
                    lines.append(f"| w{number} {_answer(result)}")
        if not self._filters.are_none:
            lines = [line for line in lines if line != "| bootstrap"]
            if not lines:
                return
        if not self._step or self._step[-1].startswith("| "):
            # What was done since the last step is not in the trace, or that step has been collected for.
            self._end_step()
            self._step = [f"# at {self._now():.3f}", "> t0 collect", f"= {words.SUCCESS}"]
        self._step += [*self._notices(), *lines]

    # Steps

    def _done(self, task: Task, what: str, more: str = "") -> None:
        if self._begin_step(task, what, more, None):
            self._step.append(f"= {words.SUCCESS}")

    def _begin_step(self, task: Task, call: str, more: str, port: Port | None) -> bool:
        """End the step before; whether this one is wanted."""
        now = time.monotonic_ns()
        self._end_step()
        if not self._filters.are_none and not self._filters.want(task, call.split(" ", 1)[0], port):
            self._notices()
            return False
        at = (self._since - self._began if self._nested else now - self._began) / 1000
        took = (now - self._since) / 1000 if self._nested else 0.0
        label = f" port {words.write_text(port.label)}" if port is not None and port.label else ""
        thread = self._thread if self._nested else 0
        self._since = now
        self._step = [
            f"# at {at:.3f} took {took:.3f} thread {thread}{more}{label}",
            *self._notices(),
            f"> t{task.number} {call}",
        ]
        return True

    def _end_step(self) -> None:
        if not self._step:
            return
        if self._size > _WAITING_MAX:
            self.lost += 1
            self._untold += 1
        else:
            if self._untold:
                self._tell_lost()
            self.records += 1
            for line in self._step:
                self._write(line)
        self._step = []

    def _tell_lost(self) -> None:
        self._write(f"# lost {self._untold}")
        self._write(f"> t0 lost records={self._untold}")
        self._write(f"= {words.SUCCESS}")
        self._untold = 0

    def _lose(self, why: str) -> None:
        """What comes cannot be played again."""
        self._end_step()
        self._write(f"# {why}")
        self._untold += 1
        self._tell_lost()

    def _notices(self) -> list[str]:
        notices = self._kernel.notices
        if not notices:
            return []
        self._kernel.notices = []
        return [_notice(kind, about, to) for kind, about, to in notices]

    def _number(self, waiter: Waiter) -> None:
        self._waits += 1
        self._numbers[waiter] = self._waits

    def _introduce(self, task: Task) -> None:
        self._end_step()
        self._write(f"# t{task.number} is {words.write_text(task.label)} process {task.tokens[7]}")

    def _sends(self) -> str:
        """Which messages the call has sent, if it has."""
        before, self._sent = self._sent, self._kernel.counts.sent
        if self._sent - before < 2:
            return f" sends {self._sent}" if self._sent > before else ""
        return f" sends {before + 1}-{self._sent}"

    def _receives(self, result: Result) -> str:
        """Give a reception its number; which message it is."""
        message: Message | None = result.received
        if message is None:
            return ""
        self._receptions += 1
        result.serial = self._receptions
        return f" receives {message.serial}" if message.serial else f" notified {KINDS.get(message.id, message.id)}"

    def _port_of(self, task: Task, trap: t.MsgTrap, result: Result | None) -> Port | None:
        if result is not None and result.port is not None:
            return result.port
        name = trap.rcv_name
        if trap.option & c.MACH_SEND_MSG and len(trap.buffer) >= layout.HEADER_SIZE:
            name = layout.HEADER.unpack_from(trap.buffer)[2]
        return self._port_called(task, name)

    def _port_named(self, task: Task, number: int, payload: Buffer) -> Port | None:
        fields = t.TRAPS[number].fields
        field = next((fields.index(name) for name in _NAMES if name in fields), None)
        return None if field is None else self._port_called(task, t.TRAPS[number].unpack(payload)[0][field])

    def _port_called(self, task: Task, name: int) -> Port | None:
        entry = task.space.entries.get(name)
        return None if entry is None else entry.port

    def _now(self) -> float:
        return (time.monotonic_ns() - self._began) / 1000

    # Out

    def _write(self, line: str) -> None:
        self._text.append(line)
        self._size += len(line) + 1

    def settled(self) -> None:
        """A trap and all that it set going are done."""
        self._nested = False
        if self._size > _PIECE and not self._rest:
            self.flush()

    def flush(self) -> None:
        """Write what there is, as far as it is taken at once."""
        self._end_step()
        while not self.is_over:
            if not self._rest:
                if not self._text:
                    self._wait_writable(False)
                    return
                self._rest = ("\n".join(self._text) + "\n").encode()
                self._text.clear()
            try:
                written = self._outlet.write(self._rest)
            except BlockingIOError:
                self._wait_writable(True)
                return
            except OSError as error:
                self.is_over = error.errno != errno.EINTR
                continue
            self._rest = self._rest[written:]
            self._size -= written

    def close(self) -> None:
        """Write the rest, as far as it is taken, and the end."""
        self._end_step()
        if self._untold:
            self._tell_lost()
        self._write("end")
        self.flush()
        self._kernel.notices = None
        self._outlet.close()


def _port_waited_for(waiter: Waiter) -> Port | None:
    """The port that a call waits to send to or to receive from; None for a set."""
    if waiter.phase == phase.SEND:
        assert waiter.message is not None
        return waiter.message.remote
    return waiter.source if isinstance(waiter.source, Port) else None


def _matches(label: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(label, pattern) for pattern in patterns)


def _answer(result: Result) -> str:
    return words.write_message_answer(t.unpack_msg_answer(b"".join(answer_parts(result))))


def _notice(kind: int, about: Port | None, to: Port) -> str:
    task = None if to.receiver is None else to.receiver.task
    port = f" port {words.write_text(about.label)}" if about is not None and about.label else ""
    return f"# notifies {KINDS[kind]}{port} to t{0 if task is None else task.number}"
