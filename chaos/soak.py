"""Everything at once, for as long as one likes, with kills: nothing is lost, doubled or left, and nobody hangs.

Requests and one-way streams among processes that are killed, hand-overs of full queues, names, notifications, programs
that are started, data queues whose ends die, typed calls to servers that are killed, a pool whose workers are, files
and long messages, threads, interrupts, and coroutines that are cancelled; all of them have one daemon.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import random
import select
import signal
import time
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, Protocol

import anyio

import machport
from chaos import deaths, leaks, storms
from chaos.deaths import settled
from chaos.processes import Child, check, checked_entry, state_of
from chaos.report import Report
from chaos.watched_daemon import Watched
from machport import DataQueue, PeerDied, ReceiveRight, SendRight, ServerDied, Task, WorkerDied, WorkerPool, aio

AMOUNT: Final = 1800
UNIT: Final = "seconds"
#: Seconds after its time within which each kind of load must have ended.
PATIENCE: Final = 90.0
_LONG: Final = 700_000
_RESULTS: Final = 1
#: Seconds for each of the shorter pieces of a load.
_CALL: Final = 30.0

Found = dict[str, Any]
#: Until when, what is chosen at random, and where to put what was not as promised.
Load = Callable[[float, random.Random, list[str]], Counter[str]]


def run(report: Report) -> None:
    """All loads at once."""
    with Watched(500) as daemon:
        Task().close()
        before = settled(daemon)
        end = time.monotonic() + report.amount
        running = [(load, *_begin(load, end, report.seed + number)) for number, load in enumerate(LOADS)]
        for load, child, results in running:
            with child, open(results, "rb") as file:
                left = max(0.0, end - time.monotonic()) + PATIENCE
                if not select.select([file], [], [], left)[0]:
                    os.kill(child.pid, signal.SIGUSR2)
                    time.sleep(0.5)
                    report.anomaly(f"{load.__name__} hangs: {state_of(child.pid)}")
                    continue
                data = file.read()
                if child.wait() or not data:
                    report.anomaly(f"{load.__name__} broke down")
                    continue
                found: Found = json.loads(data)
                for what, count in found["counts"].items():
                    rate = f"{count}, {count / report.amount:.1f} a second"
                    report.figure(f"{load.__name__.replace('_', ' ')}: {what}", rate)
                for says in found["anomalies"]:
                    report.anomaly(f"{load.__name__}: {says}")
        left_over = settled(daemon, before).differs(before)
        last = daemon.look()
        report.figure("left in the daemon", len(left_over), "0", not left_over)
        report.figure("looks at all invariants of the kernel", last.checks)
        if left_over:
            report.anomaly(f"left in the daemon: {', '.join(left_over)}")
        if last.broken:
            report.anomaly(last.broken)
        if daemon.log():
            report.anomaly(f"the daemon says: {daemon.log()[:2000]}")


def _begin(load: Load, end: float, seed: int) -> tuple[Child, int]:
    """A process with one kind of load, and where its results come."""
    reading, writing = os.pipe()

    def work() -> None:
        faulthandler.register(signal.SIGUSR2)
        anomalies: list[str] = []
        counts = load(end, random.Random(seed), anomalies)
        os.write(writing, json.dumps({"counts": counts, "anomalies": anomalies[:20]}).encode())

    child = Child(work)
    os.close(writing)
    return child, reading


def killed_processes(end: float, chance: random.Random, anomalies: list[str]) -> Counter[str]:
    """Those of ``chaos deaths``: calls, streams, hand-overs, names, notifications and programs."""
    report = Report("deaths", "", 0, "", chance.randrange(1 << 32))
    cast = deaths.Cast(report)
    try:
        cast.play(1 << 40, end - time.monotonic())
    finally:
        cast.close()
    cast.tell()
    anomalies += report.anomalies
    return Counter({what: int(measured) for what, _, measured, _ in report.figures})


def births_and_deaths(end: float, chance: random.Random, anomalies: list[str]) -> Counter[str]:
    """Those of ``chaos leaks``."""
    births, counts = leaks.Births(chance), Counter[str]()
    while time.monotonic() < end:
        births.one(counts["births"])
        counts["births"] += 1
        time.sleep(chance.random() * 0.02)
    births.close()
    return counts


def data_queues(end: float, chance: random.Random, anomalies: list[str]) -> Counter[str]:
    """Streams of checked entries, whose producers die or close, go by a message and back."""
    task, counts = Task(label="streams"), Counter[str]()
    port = task.check_in("soak-streams")
    while time.monotonic() < end:
        with DataQueue(100_000) as queue, Child(lambda: _stream(chance.random())) as child:
            with port.receive(_CALL) as hello:
                hello.reply(rights=[queue.move_producer()])
            wanted, closes = chance.randrange(2000), chance.random() < 0.3
            number = 0
            try:
                while True:
                    if number == wanted:
                        os.kill(child.pid, signal.SIGTERM if closes else signal.SIGKILL)
                    with queue.peek(_CALL) as entry:
                        if check(entry) != number:
                            anomalies.append(f"entry {check(entry)} where {number} is due")
                    number += 1
            except PeerDied:
                counts["producers killed"] += not closes
            except machport.QueueEnded:
                counts["producers that closed"] += 1
                if not closes:
                    anomalies.append("a queue is said to be closed, and its producer was killed")
            if number < wanted:
                anomalies.append(f"{number} entries of {wanted} came")
            child.wait()
            counts["entries"] += number
    task.close()
    return counts


def _stream(seed: float) -> None:
    ended = False

    def end(*_: object) -> None:
        nonlocal ended
        ended = True

    signal.signal(signal.SIGTERM, end)
    chance = random.Random(seed)
    task = Task(label="producer")
    with task.look_up("soak-streams") as streams, streams.call() as answer:
        queue = answer.rights[0].open_data_queue()  # type: ignore[union-attr]
    number = 0
    with queue:
        while not ended:
            queue.enqueue(checked_entry(number, chance.randrange(3000)))
            number += 1


class Refused(Exception):
    """An error of the interface."""


@machport.interface(name="chaos.ledger", version=(1, 0), errors=(Refused,))
class Ledger(Protocol):
    """What typed calls are made to."""

    def add(self, number: int, text: str) -> str: ...
    def refuse(self, number: int) -> None: ...
    def tell(self, where: SendRight) -> None: ...


class Book:
    """What carries them out."""

    def add(self, number: int, text: str) -> str:
        return f"{number} {text}"

    def refuse(self, number: int) -> None:
        raise Refused(number)

    def tell(self, where: SendRight) -> None:
        with where:
            where.send(b"told")


def typed_calls(end: float, chance: random.Random, anomalies: list[str]) -> Counter[str]:
    """A proxy whose server is killed again and again; the port goes to the next."""
    task, counts = Task(label="typed"), Counter[str]()
    desk, port, back = task.check_in("soak-typed"), *task.allocate_many(2)
    sender = port.make_send()
    with Child(lambda: _ask_typed(end, chance)) as client, desk.receive(_CALL) as hello:
        hello.reply(rights=[sender.move()])
        results: machport.Message | None = None
        while results is None:
            port.request_port_destroyed(back)
            with Child(_keep_the_book), desk.receive(_CALL + PATIENCE) as asked:
                if asked.id == _RESULTS:
                    results = asked
                else:
                    asked.reply(rights=[port.move()])
                    counts["servers"] += 1
                    with contextlib.suppress(machport.TimedOut):
                        results = desk.receive(chance.random() * 0.3)
            if results is not asked:
                with back.receive(_CALL) as notice:
                    assert isinstance(notice, machport.PortDestroyedNotification)
                    port = notice.right
                    notice.rights[0] = None
        told = json.loads(results.body)
        client.wait()
    counts.update(told["counts"])
    anomalies += told["anomalies"]
    task.close()
    return counts


def _ask_typed(end: float, chance: random.Random) -> None:
    task, counts = Task(label="asks"), Counter[str]()
    anomalies: list[str] = []
    news = task.allocate()
    desk = task.look_up("soak-typed")
    with desk.call() as answer:
        right = answer.rights[0]
        assert isinstance(right, SendRight)
        answer.rights[0] = None
    ledger = machport.proxy(Ledger, right, timeout=_CALL)
    number = 0
    while time.monotonic() < end:
        number += 1
        try:
            if ledger.add(number, "x" * chance.randrange(500)).split()[0] != str(number):
                anomalies.append("an answer to another call")
            try:
                ledger.refuse(number)
                anomalies.append("an error did not come")
            except Refused:
                pass
            ledger.tell(news.make_send().move())
            if news.receive(_CALL).body != b"told":
                anomalies.append("a right that went along told something else")
            counts["calls"] += 3
        except ServerDied:
            counts["servers killed in a call"] += 1
            with contextlib.suppress(machport.TimedOut):
                news.receive(0)
    desk.send(json.dumps({"counts": counts, "anomalies": anomalies[:20]}).encode(), id=_RESULTS)


def _keep_the_book() -> None:
    task = Task(label="book")
    with task.look_up("soak-typed") as desk, desk.call() as answer:
        port = answer.rights[0]
        assert isinstance(port, ReceiveRight)
        answer.rights[0] = None
    machport.serve(Ledger, Book(), port)


def pool(end: float, chance: random.Random, anomalies: list[str]) -> Counter[str]:
    """A pool of workers, some of which die with their call."""
    counts: Counter[str] = Counter()
    with WorkerPool(2) as workers:
        while time.monotonic() < end:
            futures: list[tuple[int, Future[int]]] = []
            deadly = chance.randrange(60)
            for number in range(50):
                futures.append((number, workers.submit(_compute, number, number == deadly)))
            for number, future in futures:
                try:
                    if future.result(_CALL) != zlib.crc32(b"%d" % number):
                        anomalies.append("a call has another's result")
                    counts["calls"] += 1
                except WorkerDied:
                    counts["workers killed"] += 1
                    if number != deadly:
                        anomalies.append("a worker's death concerned a call that it had not received")
    return counts


def _compute(number: int, deadly: bool) -> int:
    if deadly:
        os.kill(os.getpid(), signal.SIGKILL)
    return zlib.crc32(b"%d" % number)


def files_and_long_messages(end: float, chance: random.Random, anomalies: list[str]) -> Counter[str]:
    """Open files, memory beside a message, and bodies of all lengths, to a server that gives them back."""
    task, counts = Task(label="long"), Counter[str]()
    desk = task.check_in("soak-long")
    with Child(_give_back), desk.receive(_CALL) as hello:
        right = hello.rights[0]
        assert isinstance(right, SendRight)
        hello.reply()
        while time.monotonic() < end:
            body = bytes([chance.randrange(256)]) * chance.choice((10, 5000, 100_000, _LONG))
            file = os.memfd_create("soak")
            os.write(file, body[:4000])
            with task.fileport(file) as fileport:
                os.close(file)
                with right.call(body, rights=[fileport.move()], memory=[body], timeout=_CALL) as answer:
                    if answer.body != body or bytes(answer.memory[0]) != body:
                        anomalies.append("a message changed on its way")
                    back = answer.rights[0].open_file()  # type: ignore[union-attr]
                    if os.pread(back, 5000, 0) != body[:4000]:
                        anomalies.append("a file is another one")
                    os.close(back)
            counts["messages"] += 1
            counts["MiB"] += 2 * len(body)
            time.sleep(chance.random() * 0.01)
    counts["MiB"] >>= 20
    task.close()
    return counts


def _give_back() -> None:
    task = Task(label="gives back")
    port = task.allocate()
    with task.look_up("soak-long") as desk:
        desk.call(rights=[port.make_send().move()]).close()
    for request in port:
        with request:
            file = request.rights[0]
            assert file is not None
            request.reply(request.body, rights=[file.move()], memory=[bytes(each) for each in request.memory])


def coroutines(end: float, chance: random.Random, anomalies: list[str]) -> Counter[str]:
    """Coroutines that are cancelled, of asyncio and trio."""
    return _rounds(end, chance, anomalies, lambda: _cancel("asyncio", chance), lambda: _cancel("trio", chance))


def _cancel(backend: str, chance: random.Random) -> Found:
    found: Found = {"anomalies": []}
    with aio.Task(label=backend) as task:
        anyio.run(storms.storm_of_cancellations, task, 100, chance, found, backend=backend)
    return found


def interrupts(end: float, chance: random.Random, anomalies: list[str]) -> Counter[str]:
    """Receivers, callers and readers that are interrupted."""
    return _rounds(
        end,
        chance,
        anomalies,
        lambda: storms.interrupted_receivers(100, chance),
        lambda: storms.interrupted_callers(100, chance),
        lambda: storms.interrupted_readers(50, chance),
    )


def threads_and_forks(end: float, chance: random.Random, anomalies: list[str]) -> Counter[str]:
    """64 threads at a port, and children that are forked from them."""
    return _rounds(
        end, chance, anomalies, lambda: storms.threads_in_receive(100, chance), lambda: storms.forks(100, chance)
    )


def _rounds(end: float, chance: random.Random, anomalies: list[str], *works: Callable[[], Found]) -> Counter[str]:
    """Pieces of storms, one after the other."""
    counts: Counter[str] = Counter()
    while time.monotonic() < end:
        for work in works:
            found = work()
            anomalies += found.pop("anomalies")
            counts.update(found)
            time.sleep(chance.random() * 0.2)
    return counts


LOADS: Final[list[Load]] = [
    killed_processes,
    births_and_deaths,
    data_queues,
    typed_calls,
    pool,
    files_and_long_messages,
    coroutines,
    interrupts,
    threads_and_forks,
]
