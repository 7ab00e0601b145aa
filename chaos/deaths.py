"""One of twenty processes after the other is killed, at any instant, and started again.

They call each other, send one way, hand receive rights with full queues around, register for notifications, check in
under names, and start programs.  Every request has one answer, or the word that its server died with it, and is carried
out once at most; nothing is lost that was not received; every right comes back; no call hangs; and at the end the
daemon has what it had at the beginning.
"""

from __future__ import annotations

import contextlib
import faulthandler
import itertools
import math
import mmap
import os
import random
import signal
import struct
import tempfile
import time
from collections import Counter
from typing import Final

from chaos.processes import Child, state_of
from chaos.report import Report
from chaos.watched_daemon import Figures, Watched
from machport import (
    AlreadyExists,
    DeadName,
    DeadNameNotification,
    DeadPort,
    InvalidName,
    Message,
    PortDestroyedNotification,
    ReceiveRight,
    SendOnceNotification,
    SendRight,
    ServerDied,
    Task,
    TimedOut,
)

AMOUNT: Final = 2000
UNIT: Final = "kills"
SERVICES: Final = 5
CLIENTS: Final = 15
TOKENS: Final = 8
#: Seconds after which a process that has done nothing counts as hanging; their calls take thousandths.
PATIENCE: Final = 30.0
#: Seconds between two kills, on average.
_PAUSE: Final = 0.09
#: Turns of the daemon's loop between two looks at its kernel's invariants.
_EVERY: Final = 100

# What the journal tells, each with slot and life of the client, number of the request, and the service.
ASKED, ANSWERED, DIED, DIED_UNREAD, SENT, RECEIVED, GOT = range(7)
_RECORD: Final = struct.Struct("=BBHII")
_BODY: Final = struct.Struct("=BHI")
_HELLO: Final = struct.Struct("=BH")
_ONE_WAY: Final = 1
_HOME: Final = 2
_TOKEN: Final = 3
#: What waits in each token's queue wherever the token goes.
_INSIDE: Final = [b"first", b"second" * 3000, b"third"]


def run(report: Report) -> None:
    """Kill as often as asked."""
    with Watched(_EVERY) as daemon:
        Task().close()
        before = settled(daemon)
        cast = Cast(report)
        try:
            cast.play(int(report.amount))
        finally:
            cast.close()
        left = settled(daemon, before).differs(before)
        if left:
            report.anomaly(f"left in the daemon: {', '.join(left)}")
        last = daemon.look()
        if last.broken:
            report.anomaly(f"{last.broken}: {daemon.log()}")
        elif daemon.log():
            report.anomaly(f"the daemon says: {daemon.log()[:2000]}")
        cast.tell()
        report.figure("left in the daemon (tasks, ports, messages, descriptors)", len(left), "0", not left)
        report.figure("looks at all invariants of the kernel", last.checks)


def settled(daemon: Watched, before: Figures | None = None) -> Figures:
    """The daemon's figures, as soon as they are what they were before, or when they will not be."""
    deadline = time.monotonic() + 10
    last = daemon.look()
    while time.monotonic() < deadline:
        now = daemon.look()
        if now.clients == 0 and not now.differs(last if before is None else before):
            return now
        last = now
    return last


class Journal:
    """What processes have done, which is there also if they are killed at once; and signs of life."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        descriptor = os.open(f"/proc/self/fd/{self._file.fileno()}", os.O_WRONLY | os.O_APPEND)
        self._writing = descriptor
        self._at = 0
        self.steps = mmap.mmap(-1, 8 * (SERVICES + CLIENTS))

    def write(self, kind: int, slot: int, life: int, number: int, service: int) -> None:
        os.write(self._writing, _RECORD.pack(kind, slot, life, number, service))

    def step(self, slot: int) -> None:
        """A process is where it was not before."""
        at = 8 * slot
        self.steps[at : at + 8] = (int.from_bytes(self.steps[at : at + 8], "little") + 1).to_bytes(8, "little")

    def read(self) -> list[tuple[int, int, int, int, int]]:
        """What was written since the last time."""
        data = os.pread(self._file.fileno(), 1 << 28, self._at)
        data = data[: len(data) // _RECORD.size * _RECORD.size]
        self._at += len(data)
        return list(_RECORD.iter_unpack(data))

    def close(self) -> None:
        self._file.close()
        os.close(self._writing)
        self.steps.close()


class Ledger:
    """Compares what clients have asked with what they were told and what servers have received."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self.counts: Counter[int] = Counter()
        #: How many times each request was received, while nobody has told its end.
        self._open: dict[tuple[int, int, int], int] = {}
        self._one_way: dict[tuple[int, int, int], int] = {}
        self._early: set[tuple[int, int, int]] = set()
        self._got: dict[tuple[int, int], int] = {}
        self.lost: Counter[int] = Counter()

    def enter(self, records: list[tuple[int, int, int, int, int]]) -> None:
        for kind, slot, life, number, service in records:
            key = (slot, life, number)
            self.counts[kind] += 1
            if kind == ASKED:
                self._open[key] = 0
            elif kind == RECEIVED:
                if self._open.get(key, 1):
                    self._report.anomaly(f"request {key} was received twice, or after its end was told")
                else:
                    self._open[key] = 1
            elif kind == ANSWERED:
                if self._open.pop(key, 0) != 1:
                    self._report.anomaly(f"request {key} was answered and not received")
            elif kind in (DIED, DIED_UNREAD):
                received = self._open.pop(key, 0)
                if kind == DIED_UNREAD and received:
                    self._report.anomaly(f"request {key} is said to be unread, and was received")
                self.lost[service] += kind == DIED
                if kind == DIED_UNREAD:
                    self._report.anomaly(f"the port of service {service} died for client {key}")
            elif kind == SENT:
                # It may have come before its sender could tell.
                if key in self._early:
                    self._early.remove(key)
                else:
                    self._one_way[key] = service
            elif kind == GOT:
                if self._got.get((slot, life), 0) >= number:
                    self._report.anomaly(f"message {number} of client {slot, life} came twice, or out of order")
                self._got[slot, life] = number
                if self._one_way.pop(key, None) is None:
                    self._early.add(key)

    def end(self) -> None:
        """Everything that was not received by now is lost."""
        for service in self._one_way.values():
            self.lost[service] += 1


class Cast:
    """The processes, and their supervisor, which is this one."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._chance = random.Random(report.seed)
        self._journal = Journal()
        self._ledger = Ledger(report)
        self._task = Task(label="supervisor")
        self._port = self._task.check_in("supervisor")
        self._port.set_qlimit(200)
        self._back, self._deaths = self._task.allocate_many(2)
        self._all = self._task.port_set(self._port, self._back, self._deaths)
        self._services = [self._task.allocate(qlimit=20) for _ in range(SERVICES)]
        self._senders = [port.make_send() for port in self._services]
        #: The receive rights that are here, by name.
        self._here: dict[int, ReceiveRight] = {}
        #: Servers that wait for their port.
        self._asks: dict[int, Message] = {}
        for number, (port, sender) in enumerate(zip(self._services, self._senders, strict=True)):
            self._here[port.name] = port
            self._task.register(f"service-{number}", sender)
        self._tokens: dict[int, SendRight] = {}
        for _ in range(TOKENS):
            token = self._task.allocate()
            sender = token.make_send()
            for body in _INSIDE:
                sender.send(body)
            self._tokens[token.name] = sender
            self._here[token.name] = token
        self._children: list[Child | None] = [None] * (SERVICES + CLIENTS)
        self._lives = [0] * (SERVICES + CLIENTS)
        #: Inboxes of those who have said hello, by name; and which are dying.
        self._inboxes: dict[int, tuple[int, SendRight]] = {}
        self._dying: set[int] = set()
        #: Who was dying when it was looked last, and which of its deaths that was.
        self._untold: set[tuple[int, int]] = set()
        self._kills: Counter[int] = Counter()
        self._returned = self._went = 0
        self._seen = bytes(8 * (SERVICES + CLIENTS))
        self._looked = time.monotonic()
        self._ending = False

    def play(self, kills: int, seconds: float = math.inf) -> None:
        """Kill so many, or for so long."""
        end = time.monotonic() + seconds
        for slot in range(SERVICES + CLIENTS):
            self._start(slot)
        next_kill = time.monotonic() + 0.5
        killed = 0
        while killed < kills and time.monotonic() < end and len(self._report.anomalies) < 10:
            self._attend(next_kill)
            if time.monotonic() >= next_kill:
                killed += self._kill_one()
                next_kill = time.monotonic() + self._chance.expovariate(1 / _PAUSE)
                self._ledger.enter(self._journal.read())
            self._watch()
        self._wind_up()

    def _attend(self, until: float) -> None:
        """One event, if there is one by then."""
        with contextlib.suppress(TimedOut):
            message = self._all.receive(max(0.0, until - time.monotonic()))
            if isinstance(message, PortDestroyedNotification):
                self._came_back(message.right)
            elif isinstance(message, DeadNameNotification):
                self._died(message)
            elif isinstance(message, SendOnceNotification):
                # A request for port-destroyed that was made again.
                message.close()
            elif message.id == _HOME:
                right = message.rights[0]
                assert isinstance(right, ReceiveRight)
                self._came_back(right)
            else:
                self._hello(message)

    def _start(self, slot: int) -> None:
        self._lives[slot] += 1
        life, seed = self._lives[slot], self._chance.randrange(1 << 32)
        if slot < SERVICES:
            self._children[slot] = Child(lambda: serve(self._journal, slot, life))
        else:
            self._children[slot] = Child(lambda: ask(self._journal, slot, life, random.Random(seed)))

    def _hello(self, message: Message) -> None:
        slot, life = _HELLO.unpack(message.body)
        inbox = message.rights[0]
        if life != self._lives[slot] or not isinstance(inbox, SendRight):
            # It was killed meanwhile; if its life is the present one, its death is seen here.
            message.close()
            if life == self._lives[slot]:
                self._collect(slot)
            return
        message.rights[0] = None
        self._inboxes[inbox.name] = (slot, inbox)
        inbox.request_dead_name(self._deaths)
        if slot < SERVICES:
            self._asks[slot] = message
            self._hand_over(slot)
        else:
            with contextlib.suppress(DeadPort):
                message.reply()

    def _hand_over(self, slot: int) -> None:
        """Give a server its port, if both are there."""
        name = self._senders[slot].name
        if slot in self._asks and name in self._here and not self._ending:
            message, port = self._asks.pop(slot), self._here[name]
            port.request_port_destroyed(self._back)
            try:
                message.reply(rights=[port.move()])
                del self._here[name]
            except DeadPort:
                message.close()

    def _came_back(self, right: ReceiveRight) -> None:
        self._returned += 1
        name = right.name
        if name in self._here:
            self._report.anomaly("a receive right came back twice")
        self._here[name] = right
        if name in self._tokens:
            waiting = right.status().msgcount
            if waiting != len(_INSIDE):
                self._report.anomaly(f"a port came back with {waiting} of {len(_INSIDE)} messages")
            self._send_token(name)
            return
        for slot, sender in enumerate(self._senders):
            if sender.name == name:
                self._hand_over(slot)

    def _send_token(self, name: int) -> None:
        if self._ending or not self._inboxes:
            return
        _, inbox = self._chance.choice(list(self._inboxes.values()))
        token = self._here[name]
        token.request_port_destroyed(self._back)
        with contextlib.suppress(TimedOut, DeadPort):
            inbox.send(id=_TOKEN, rights=[token.move()], timeout=0)
            del self._here[name]
            self._went += 1

    def _died(self, notice: DeadNameNotification) -> None:
        slot, inbox = self._inboxes.pop(notice.name)
        inbox.close()
        notice.close()
        if slot not in self._dying:
            self._report.anomaly(f"process {slot} is said to have died, and was not killed")
        self._collect(slot)

    def _collect(self, slot: int) -> None:
        """A process is gone, and the daemon knows; the next one begins."""
        self._asks.pop(slot, None)
        self._dying.discard(slot)
        child = self._children[slot]
        self._children[slot] = None
        if child is not None:
            status = child.wait()
            if status != signal.SIGKILL:
                self._report.anomaly(f"process {slot} ended with {status}")
        if not self._ending:
            self._start(slot)
            for name in self._tokens:
                if name in self._here:
                    self._send_token(name)

    def _kill_one(self) -> int:
        slot = self._chance.randrange(SERVICES + CLIENTS)
        child = self._children[slot]
        if child is None or slot in self._dying:
            return 0
        self._dying.add(slot)
        self._kills[slot] += 1
        os.kill(child.pid, signal.SIGKILL)
        if not any(known == slot for known, _ in self._inboxes.values()):
            # Nobody watches one that has not said hello; if it had, in a message that waits here, that is passed over.
            self._collect(slot)
        return 1

    def _watch(self) -> None:
        """Whoever has done nothing for long hangs."""
        if time.monotonic() < self._looked + PATIENCE:
            return
        self._looked = time.monotonic()
        now = self._journal.steps[:]
        for slot, child in enumerate(self._children):
            at = 8 * slot
            if child is not None and slot not in self._dying and now[at : at + 8] == self._seen[at : at + 8]:
                self._report.anomaly(f"process {slot} does nothing: {state_of(child.pid)}")
                os.kill(child.pid, signal.SIGUSR2)
        dying = {(slot, self._kills[slot]) for slot in self._dying}
        for slot, _ in dying & self._untold:
            self._report.anomaly(f"nobody is told of the death of process {slot}")
        self._untold = dying
        self._seen = now

    def _wind_up(self) -> None:
        """Kill the rest, and wait for all that must come back."""
        self._ending = True
        for slot, child in enumerate(self._children):
            if child is not None and slot not in self._dying:
                self._dying.add(slot)
                self._kills[slot] += 1
                os.kill(child.pid, signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE
        while (len(self._here) < SERVICES + TOKENS or self._inboxes) and time.monotonic() < deadline:
            self._attend(deadline)
        missing = SERVICES + TOKENS - len(self._here)
        if missing:
            self._report.anomaly(f"{missing} receive rights did not come back")
        for child in self._children:
            if child is not None and child.running:
                child.wait()
        for slot, sender in enumerate(self._senders):
            self._drain(slot, self._here[sender.name])
        for name in self._tokens:
            bodies = [self._here[name].receive(0).body for _ in _INSIDE]
            if bodies != _INSIDE:
                self._report.anomaly("what waited in a queue came back in another order")
        self._ledger.enter(self._journal.read())
        self._ledger.end()

    def _drain(self, slot: int, port: ReceiveRight) -> None:
        """What nobody has received is not lost."""
        with contextlib.suppress(TimedOut):
            while True:
                with port.receive(0) as message:
                    client, life, number = _BODY.unpack_from(message.body)
                    self._journal.write(GOT if message.id == _ONE_WAY else RECEIVED, client, life, number, slot)
                    if message.id != _ONE_WAY and not isinstance(message.reply_right, DeadName):
                        self._report.anomaly(
                            f"the caller of request {client, life, number} is dead and can be answered"
                        )

    def tell(self) -> None:
        """The figures."""
        report, counts = self._report, self._ledger.counts
        killed, lost = sum(self._kills.values()), sum(self._ledger.lost.values())
        servers = sum(self._kills[slot] for slot in range(SERVICES))
        report.figure(
            "kills, the last of all processes included", killed, f">= {report.amount:g}", killed >= report.amount
        )
        report.figure("requests", counts[ASKED])
        report.figure("answers", counts[ANSWERED])
        report.figure("callers told that their server died with the request", counts[DIED])
        report.figure("messages one way", counts[SENT])
        for slot in range(SERVICES):
            if self._ledger.lost[slot] > self._kills[slot]:
                report.anomaly(
                    f"service {slot} lost {self._ledger.lost[slot]} messages with {self._kills[slot]} servers, each of"
                    " which had one in its hands at most"
                )
        report.figure("requests and messages that ended with a server that had received them", lost, f"<= {servers}")
        report.figure("receive rights that came back", self._returned)
        report.figure("hand-overs of full queues", self._went)

    def close(self) -> None:
        for child in self._children:
            if child is not None and child.running:
                child.kill()
        self._task.close()
        self._journal.close()


def _begin(journal: Journal, slot: int, life: int) -> tuple[Task, ReceiveRight, SendRight, Message]:
    """What every process does first: it is a task, checks in, and says hello."""
    faulthandler.register(signal.SIGUSR2)
    task = Task(label=f"{'server' if slot < SERVICES else 'client'}-{slot}.{life}")
    while True:
        with contextlib.suppress(AlreadyExists):
            # A predecessor may have been killed a moment ago whose end nobody waited for.
            inbox = task.check_in(f"inbox-{slot}")
            break
    supervisor = task.look_up("supervisor")
    answer = supervisor.call(_HELLO.pack(slot, life), rights=[inbox.make_send().move()])
    journal.step(slot)
    return task, inbox, supervisor, answer


def serve(journal: Journal, slot: int, life: int) -> None:
    """A server, which has one request in its hands at a time."""
    task, _inbox, _, answer = _begin(journal, slot, life)
    chance = random.Random(life)
    # Each calls those behind it only, so that no two wait for each other.
    others = [task.look_up(f"service-{number}") for number in range(slot + 1, SERVICES)]
    numbers = itertools.count(1)
    port = answer.rights[0]
    assert isinstance(port, ReceiveRight)

    def carry_out(request: Message) -> bytes | None:
        client, life, number = _BODY.unpack_from(request.body)
        one_way = request.id == _ONE_WAY
        journal.write(GOT if one_way else RECEIVED, client, life, number, slot)
        journal.step(slot)
        if one_way:
            request.close()
            return None
        if chance.random() < 0.1:
            time.sleep(chance.random() * 0.005)
        if others and chance.random() < 0.2:
            service = slot + 1 + chance.randrange(len(others))
            _call(journal, slot, life, next(numbers), service, others[service - slot - 1], b"")
        return request.body

    if life % 2:
        port.serve(carry_out)
    else:
        for request in port:
            with request:
                if (body := carry_out(request)) is not None:
                    with contextlib.suppress(DeadPort):
                        request.reply(body)
    raise AssertionError("the port of a service is gone")


def _call(journal: Journal, slot: int, life: int, number: int, service: int, right: SendRight, padding: bytes) -> None:
    """A request that ends one way or the other."""
    body = _BODY.pack(slot, life, number) + padding
    journal.write(ASKED, slot, life, number, service)
    try:
        with right.call(body) as answer:
            assert answer.body == body
        journal.write(ANSWERED, slot, life, number, service)
    except ServerDied as error:
        journal.write(DIED_UNREAD if error.retry_safe else DIED, slot, life, number, service)


def ask(journal: Journal, slot: int, life: int, chance: random.Random) -> None:
    """A client, which does everything that there is to do, in any order."""
    task, inbox, supervisor, _ = _begin(journal, slot, life)
    services = [task.look_up(f"service-{number}") for number in range(SERVICES)]
    held: list[ReceiveRight] = []
    number = 0
    while True:
        journal.step(slot)
        number += 1
        what, service = chance.random(), chance.randrange(SERVICES)
        if what < 0.6:
            size = 20_000 if chance.random() < 0.05 else chance.randrange(200)
            _call(journal, slot, life, number, service, services[service], bytes(size))
        elif what < 0.75:
            services[0].send(_BODY.pack(slot, life, number), id=_ONE_WAY)
            journal.write(SENT, slot, life, number, 0)
        elif what < 0.85:
            with task.allocate() as port, services[service].duplicate() as right:
                right.request_dead_name(port)
                port.request_no_senders(port)
                if chance.random() < 0.5:
                    right.request_dead_name(None)
        elif what < 0.9:
            task.look_up(f"service-{service}").close()
        elif held:
            _pass_on(task, supervisor, held, chance)
        else:
            with contextlib.suppress(TimedOut):
                token = inbox.receive(0).rights[0]
                assert isinstance(token, ReceiveRight)
                held.append(token)


def _pass_on(task: Task, supervisor: SendRight, held: list[ReceiveRight], chance: random.Random) -> None:
    """Let a receive right go: to another client, to a program that knows nothing of it, or home."""
    token, where = held[-1], chance.random()
    if where < 0.1:
        child = task.spawn(["sleep", "0.01"], rights={"token": token.move()})
        held.pop()
        if chance.random() < 0.5:
            child.join()
        return
    if where < 0.3:
        held.pop()
        supervisor.send(id=_HOME, rights=[token.move()])
        return
    with contextlib.suppress(InvalidName, TimedOut, DeadPort):
        other = SERVICES + chance.randrange(CLIENTS)
        with task.look_up(f"inbox-{other}") as peer:
            peer.send(id=_TOKEN, rights=[token.move()], timeout=0.01)
            held.pop()
