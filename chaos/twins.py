"""An embedded kernel and a daemon that are asked the same, call by call, and must answer the same.

Each task is one of the embedded kernel and one of the daemon's, whose client process has threads that may be blocked
and a channel for calls with tags.  A call is made on the embedded kernel first, which tells whether it has to wait.
After each step both kernels must hold the same, be in order, and have answered the same calls.
"""

from __future__ import annotations

import os
import pickle
import queue
import select
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from chaos.checked_daemon import PATIENCE, CheckedDaemon, limited, look
from chaos.kernel_snapshot import snapshot
from chaos.processes import Child
from machport.abi import traps as t
from machport.abi.errors import MachError
from machport.abi.traps import number_of
from machport.carrier import packet
from machport.client.connection import Connection
from machport.client.events import Events
from machport.kernel import phase
from machport.kernel.port import Port
from machport.testing.machine import NO_FILE, Call, Machine

_LONGEST: Final = 1 << 18
#: Seconds for a death, or for a thread to be blocked; what takes longer is a difference.
_SOON: Final = 15.0
#: Answers of which the words are tickets, which nobody can guess.
_TICKETS: Final = (t.TICKET.number, t.DEPOSIT.number)
#: Fields of a description that tell a time, or how a process ended, which is known when its parent has asked.
_TIMES: Final = (5, 6, 8, 9)
_STATUS: Final = t.DESCRIBE_STATUS | t.DESCRIBE_LOST_STATUS


class Difference(AssertionError):
    """The daemon did not do what the embedded kernel did."""


class Member:
    """A task of both kernels.

    Attributes:
        task: the embedded kernel's.
        self_name: its name for itself.
        blocked: calls that threads of its process wait in, each with the key that tells which.
        tagged: calls with tags that wait, each with its key.
        is_stopped: its process does nothing for now.
        unread: calls that were answered meanwhile.
    """

    def __init__(self, twins: Twins, process: Process, label: str, ticket: bytes, claim: Callable[..., Any]) -> None:
        self.process = process
        process.send("join", label, ticket)
        full_label = process.expect("joined")
        self.task = claim(full_label, twins.daemon.look(check=False).tokens)
        self.self_name = 0
        self.blocked: dict[Call, int] = {}
        self.tagged: dict[Call, int] = {}
        self.is_stopped = False
        self.unread: list[Call] = []

    @property
    def waits_to_send(self) -> bool:
        """Whether a call of it waits for room."""
        return any(
            call.waiter is not None and call.waiter.phase == phase.SEND for call in (*self.blocked, *self.tagged)
        )


class Twins:
    """The two kernels.

    Args:
        name_limit: names that a task may have.

    Attributes:
        members: the tasks with processes.
        steps: how often both were compared.
        tally: what was done, and how often.
        is_sound: no difference was found so far.
    """

    def __init__(self, daemon: CheckedDaemon, name_limit: int) -> None:
        self.daemon = daemon
        self.machine = Machine(close=lambda _: None, configuration=limited(name_limit))
        self.machine.kernel.name_limit = name_limit
        self.members: list[Member] = []
        self.steps = 0
        self.is_sound = True
        self.tally: Counter[str] = Counter()
        self._known: set[Port] = set()
        self._tickets: dict[bytes, bytes] = {}
        self._idle: list[Process] = []
        self._keys = 0

    # Tasks

    def join(self, label: str) -> Member:
        """A new task."""
        return self._joined(label, b"", self.machine.begin_task)

    def join_by_ticket(self, label: str, maker: Member, child: int, ticket: bytes) -> Member:
        """The process of a task that another made.

        Args:
            child: its name there.
            ticket: as the embedded kernel gave it.
        """
        return self._joined(label, self._tickets[ticket], lambda *told: self.machine.claim(maker.task, child, *told))

    def _joined(self, label: str, ticket: bytes, claim: Callable[..., Any]) -> Member:
        self._begin()
        process = self._idle.pop() if self._idle else Process(self.daemon.path)
        member = Member(self, process, label, ticket, claim)
        self.members.append(member)
        self._compare()
        return member

    def close(self, member: Member) -> None:
        """The task is closed by its process."""
        self._begin()
        assert not member.is_stopped
        self.members.remove(member)
        member.process.send("close")
        self.machine.end_task(member.task, None)
        self._compare()
        self._idle.append(member.process)

    def stop(self, member: Member) -> None:
        """Its process stands still, and reads nothing."""
        self.tally["processes stopped"] += 1
        member.is_stopped = True
        member.process.signal(signal.SIGSTOP)

    def go_on(self, member: Member) -> None:
        """It goes on, and reads what it was answered meanwhile."""
        self._begin()
        member.is_stopped = False
        member.process.signal(signal.SIGCONT)
        unread, member.unread = member.unread, []
        for call in unread:
            self._finished(member, call)
        self._compare()

    def kill(self, member: Member) -> None:
        """Its process is killed, whatever it does."""
        self._begin()
        self.members.remove(member)
        self.tally["processes killed"] += 1
        status = member.process.kill()
        self.machine.end_task(member.task, status, member.unread)
        self._compare()

    def end(self) -> None:
        """Everybody's process ends."""
        for process in self._idle + [member.process for member in self.members]:
            process.kill()

    # Calls

    def trap(self, member: Member, payload: bytes, files: int = 0) -> bytes:
        """A trap that must not wait; the embedded kernel's answer."""
        self._begin()
        call = self.machine.trap(member.task, payload, [NO_FILE] * files)
        assert call.answers is not None
        member.process.send("trap", payload, files)
        answer, descriptors = member.process.expect("answer")
        self._same_answer(call, answer)
        if descriptors != len(call.descriptors):
            raise Difference(f"{descriptors} descriptors came, and should have been {len(call.descriptors)}")
        self._compare()
        return b"".join(call.answers)

    def message(self, member: Member, payload: bytes, *, tagged: bool = False) -> None:
        """A trap for messages, in which a thread may be blocked; or with a tag, if it is a ``mach_msg``."""
        self._begin()
        call = self.machine.trap(member.task, payload)
        self._keys += 1
        key = self._keys
        if tagged:
            member.tagged[call] = key
            self.tally["calls with a tag"] += 1
            member.process.send("begin", key, payload)
        elif call.answers is None:
            member.blocked[call] = key
            self.tally["calls that a thread waited in"] += 1
            member.process.send("block", key, payload)
        else:
            member.process.send("trap", payload, 0)
            self._same_answer(call, member.process.expect("answer")[0])
        if tagged and call.answers is not None:
            self._finished(member, call)
        self._compare()

    def message_with_timeout(self, member: Member, payload: bytes) -> None:
        """A ``mach_msg`` whose short time-outs pass if it has to wait."""
        self._begin()
        call = self.machine.trap(member.task, payload)
        while call.answers is None:
            self.machine.expire(call)
        member.process.send("trap", payload, 0)
        self._same_answer(call, member.process.expect("answer")[0])
        self._compare()

    def forget(self, member: Member, names: Sequence[tuple[int, int]]) -> None:
        """Rights are given up without an answer."""
        self._begin()
        self.machine.trap(member.task, t.FORGET.pack(words=[word for pair in names for word in pair]))
        member.process.send("forget", names)
        self._compare()

    def interrupt(self, member: Member, call: Call) -> None:
        """A call that waits is interrupted, or cancelled if it has a tag."""
        self._begin()
        self.machine.interrupt(call)
        self.tally["calls interrupted"] += 1
        if call in member.tagged:
            member.process.send("cancel", member.tagged[call])
        else:
            member.process.send("interrupt", member.blocked[call])
        self._compare()

    def give_up(self, member: Member, payload: bytes) -> None:
        """A call of the process's first thread; if it has to wait, a handler of signals raises in the middle of it."""
        self._begin()
        call = self.machine.trap(member.task, payload)
        if call.answers is not None:
            member.process.send("trap", payload, 0)
            self._same_answer(call, member.process.expect("answer")[0])
            self._compare()
            return
        self.tally["calls given up"] += 1
        member.process.send("give_up", payload)
        self._compare()
        self._begin()
        self.machine.abandon(call)
        member.process.signal(signal.SIGUSR1)
        member.process.expect("given up")
        self._compare()

    # Comparing

    def _begin(self) -> None:
        self.is_sound = False

    def _compare(self) -> None:
        """Both have answered the same calls, hold the same, and are in order."""
        self.steps += 1
        events, self.machine.events = self.machine.events, []
        self.tally["calls"] += sum(event.kind == "trap" for event in events)
        by_task = {member.task: member for member in self.members}
        for event in events:
            for call in event.finished:
                if call.task in by_task:
                    self._finished(by_task[call.task], call)
        view = look(self.machine.kernel, self._known)
        if view.fault:
            raise Difference(f"in the embedded kernel: {view.fault}")
        if self.machine.send_once.unanswered:
            raise Difference("a send-once right of the embedded kernel gave no message")
        deadline = time.monotonic() + _SOON
        seen = self.daemon.look()
        while seen.digest != view.digest:
            if time.monotonic() > deadline:
                raise Difference(self._shown())
            os.sched_yield()
            seen = self.daemon.look()
        if seen.fault:
            raise Difference(f"in the daemon: {seen.fault}")
        for member in self.members:
            if not member.is_stopped:
                member.process.check_quiet()
        self.is_sound = True

    def _shown(self) -> str:
        """The first difference of what both hold."""
        mine, other = snapshot(self.machine.kernel), self.daemon.snapshot()
        says = _first_difference(mine, other, "kernel")
        return says or "both hold the same, but not in time"

    def _finished(self, member: Member, call: Call) -> None:
        """A call of a process that waited is over."""
        if member.is_stopped:
            member.unread.append(call)
            self.tally["answers to stopped processes"] += 1
            return
        if call in member.tagged:
            key, kind = member.tagged.pop(call), "tagged"
        elif call in member.blocked:
            key, kind = member.blocked.pop(call), "done"
        else:
            return
        self._same_answer(call, member.process.expect(kind, key))

    def _same_answer(self, call: Call, answer: bytes) -> None:
        assert call.answers is not None
        number = number_of(call.payload)
        expected = b"".join(call.answers)
        if call.results:
            self.tally["messages received"] += len(call.results)
        if number in _TICKETS and not number_of(expected) and not number_of(answer):
            self._tickets[expected[4:]] = answer[4:]
        elif number == t.DESCRIBE.number and not number_of(expected) and not number_of(answer):
            if _timeless(expected) != _timeless(answer):
                raise Difference(f"a description is {_timeless(answer)}, and should be {_timeless(expected)}")
        elif answer != expected:
            call_name = "mach_msg" if number == t.MACH_MSG else t.TRAPS[number].call
            raise Difference(f"{call_name} {call.payload.hex()} gave {answer.hex()}, and should give {expected.hex()}")

    def real_ticket(self, ticket: bytes) -> bytes:
        """The daemon's ticket for what the embedded kernel gave one."""
        return self._tickets[ticket]

    def claim(self, member: Member, ticket: bytes) -> bytes:
        """The right of a ticket, good or not, is claimed; the embedded kernel's answer."""
        self._begin()
        call = self.machine.trap(member.task, _claim(ticket))
        member.process.send("trap", _claim(self._tickets.get(ticket, ticket)), 0)
        self._same_answer(call, member.process.expect("answer")[0])
        self._compare()
        assert call.answers is not None
        return call.answers[0]


def _claim(ticket: bytes) -> bytes:
    return t.CLAIM.pack(words=list(memoryview(ticket).cast("I")))


def _timeless(answer: bytes) -> tuple[list[int], list[int]]:
    fields, words = t.DESCRIBE.unpack_answer(answer)
    told = [0 if index in _TIMES else field for index, field in enumerate(fields)]
    told[2] &= ~_STATUS
    return told, words


def _first_difference(mine: Any, other: Any, where: str) -> str:
    if isinstance(mine, dict) and isinstance(other, dict) and mine.keys() == other.keys():
        for key in mine:
            if mine[key] != other[key]:
                return _first_difference(mine[key], other[key], f"{where}, {key}")
    elif isinstance(mine, list) and isinstance(other, list) and len(mine) == len(other):
        for index, pair in enumerate(zip(mine, other, strict=True)):
            if pair[0] != pair[1]:
                return _first_difference(*pair, f"{where} {index}")
    elif mine != other:
        return f"{where}: the daemon holds {other}, and the embedded kernel {mine}"
    return ""


class Process:
    """A client process, as seen by whoever tells it what to do."""

    def __init__(self, path: Path) -> None:
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._orders.settimeout(PATIENCE)
        self._early: list[tuple[Any, ...]] = []
        self._child = Child(lambda: _Actor(theirs, path).act())
        theirs.close()
        self._poll = select.poll()
        self._poll.register(self._orders, select.POLLIN)

    def send(self, *order: object) -> None:
        """Tell it to do something."""
        self._orders.send(pickle.dumps(order))

    def expect(self, kind: str, key: int | None = None) -> Any:
        """Wait until it says that something is done, and what came of it."""
        for index, said in enumerate(self._early):
            if said[0] == kind and (key is None or said[1] == key):
                return _told(self._early.pop(index), key)
        while True:
            try:
                data = self._orders.recv(_LONGEST)
            except TimeoutError:
                raise Difference(f"what should be done now ({kind}) is not") from None
            if not data:
                raise Difference("a client process has ended")
            said = pickle.loads(data)
            if said[0] == "fault":
                raise Difference(f"a client process failed: {said[1]}")
            if said[0] == kind and (key is None or said[1] == key):
                return _told(said, key)
            self._early.append(said)

    def check_quiet(self) -> None:
        """No call has been answered that should wait."""
        if self._early or self._poll.poll(0):
            said = self._early or pickle.loads(self._orders.recv(_LONGEST))
            raise Difference(f"a call that should wait was answered: {said}")

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, and return when it has stopped if it is to stop."""
        os.kill(self._child.pid, number)
        if number == signal.SIGSTOP:
            os.waitid(os.P_PID, self._child.pid, os.WSTOPPED | os.WNOWAIT)

    def kill(self) -> int:
        """Kill it; how it ended, as ``wait`` has it."""
        self._orders.close()
        if not self._child.running:
            return 0
        os.kill(self._child.pid, signal.SIGKILL)
        return self._child.wait()


def _told(said: tuple[Any, ...], key: int | None) -> Any:
    rest = said[1:] if key is None else said[2:]
    return rest[0] if len(rest) == 1 else rest


class _GivenUp(Exception):
    """What a handler of signals raises."""


def _raise(*_: object) -> None:
    raise _GivenUp


class _Actor:
    """The client process itself.

    Its first thread makes traps and has the channel for calls with tags; others are blocked in traps.
    """

    def __init__(self, orders: socket.socket, path: Path) -> None:
        self._orders = orders
        self._path = path
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._events: Events | None = None
        self._tags: dict[int, int] = {}
        self._idle: list[queue.SimpleQueue[tuple[int, bytes]]] = []
        self._threads: dict[int, int] = {}
        self._poll = select.poll()
        self._poll.register(orders, select.POLLIN)

    def act(self) -> None:
        """Do what is told until nobody is left to tell."""
        signal.signal(signal.SIGUSR1, _raise)
        try:
            while True:
                self._look()
                for descriptor, _ in self._poll.poll():
                    if descriptor == self._orders.fileno():
                        order = self._orders.recv(_LONGEST)
                        if not order:
                            return
                        kind, *arguments = pickle.loads(order)
                        getattr(self, f"_{kind}")(*arguments)
        except BaseException as error:
            self._say("fault", f"{type(error).__name__}: {error}")
            raise

    def _say(self, *says: object) -> None:
        with self._lock:
            self._orders.send(pickle.dumps(says))

    def _joined(self) -> Connection:
        assert self._connection is not None
        return self._connection

    # The task

    def _join(self, label: str, ticket: bytes) -> None:
        self._connection = Connection(label, ticket, self._path)
        # A task that has ended gets no further channel.
        self._events = self._connection.events()
        self._poll.register(self._events.fileno(), select.POLLIN)
        self._say("joined", self._connection.label)

    def _close(self) -> None:
        if self._events is not None:
            self._poll.unregister(self._events.fileno())
            self._events = None
            self._tags.clear()
        self._joined().close()

    # Calls

    def _trap(self, payload: bytes, files: int) -> None:
        connection = self._joined()
        if number_of(payload) == t.RECEIVE_MANY.number:
            self._say("answer", b"".join(map(bytes, connection.stream(payload))), 0)
            return
        descriptors = [os.open(os.devnull, os.O_RDONLY) for _ in range(files)]
        answer, got = connection.trap(payload, descriptors)
        packet.close_all(descriptors)
        packet.close_all(got)
        self._say("answer", bytes(answer), len(got))

    def _forget(self, names: Sequence[tuple[int, int]]) -> None:
        for name, kind in names:
            self._joined().forget(name, kind)

    # Threads that are blocked

    def _block(self, key: int, payload: bytes) -> None:
        if not self._idle:
            orders: queue.SimpleQueue[tuple[int, bytes]] = queue.SimpleQueue()
            threading.Thread(target=self._wait, args=(orders,), daemon=True).start()
            self._idle.append(orders)
        self._idle.pop().put((key, payload))

    def _wait(self, orders: queue.SimpleQueue[tuple[int, bytes]]) -> None:
        while True:
            key, payload = orders.get()
            connection = self._joined()
            self._threads[key] = threading.get_ident()
            try:
                if number_of(payload) == t.RECEIVE_MANY.number:
                    answer = b"".join(map(bytes, connection.stream(payload)))
                else:
                    answer = bytes(connection.trap(payload)[0])
            except MachError:
                # The task was closed, or the call given up.
                answer = b""
            del self._threads[key]
            self._idle.append(orders)
            if not connection.closed:
                self._say("done", key, answer)

    def _interrupt(self, key: int) -> None:
        self._joined().interrupt(self._threads[key])

    def _give_up(self, payload: bytes) -> None:
        try:
            self._joined().trap(payload)
        except _GivenUp:
            self._say("given up", b"")

    # Calls with tags

    def _begin(self, key: int, payload: bytes) -> None:
        assert self._events is not None
        trap = t.unpack_msg(payload)
        self._tags[self._events.begin(trap)] = key

    def _cancel(self, key: int) -> None:
        assert self._events is not None
        tag = next(tag for tag, other in self._tags.items() if other == key)
        self._tagged(tag, self._events.cancel(tag))

    def _look(self) -> None:
        """Take what calls with tags were answered, and let the descriptor tell of what comes."""
        while self._events is not None and not self._events.arm():
            for tag, answer in self._events.take():
                self._tagged(tag, answer)

    def _tagged(self, tag: int, answer: t.MsgAnswer) -> None:
        self._say("tagged", self._tags.pop(tag), answer.pack())
