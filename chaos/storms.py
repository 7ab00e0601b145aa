"""Interrupts, cancellations, threads and forks at any instant of receiving, calling, sending and waiting at a queue.

Every message comes once, every request is carried out once at most, and is answered unless its caller gave it up; no
port for answers is left; a forked child is told that it holds nothing, and is a task of its own if it wants.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import mmap
import os
import random
import select
import signal
import threading
import time
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final

import anyio
from anyio.lowlevel import checkpoint

from chaos.deaths import settled
from chaos.processes import Child, state_of
from chaos.report import Report
from chaos.watched_daemon import Watched
from machport import (
    DataQueue,
    DeadPort,
    ForkedTask,
    MachError,
    Message,
    QueueEmpty,
    ReceiveRight,
    SendRight,
    Task,
    TimedOut,
    aio,
)

AMOUNT: Final = 5000
UNIT: Final = "interrupts, and as many of each other kind"
#: Seconds for which a storm may do nothing.
PATIENCE: Final = 60.0
_THREADS: Final = 64
_LONG: Final = bytes(range(256)) * 80

Found = dict[str, Any]


def run(report: Report) -> None:
    """One storm after the other."""
    amount = int(report.amount)
    with Watched(200) as daemon:
        Task().close()
        before = settled(daemon)
        for number, storm in enumerate(STORMS):
            found = _apart(report, storm, amount, report.seed + number)
            name = storm.__name__.replace("_", " ")
            for what, measured in found.items():
                if what != "anomalies":
                    report.figure(f"{name}: {what}", measured)
            for says in found.get("anomalies", []):
                report.anomaly(f"{name}: {says}")
            left = settled(daemon, before).differs(before)
            if left:
                report.anomaly(f"{name}: left in the daemon: {', '.join(left)}")
        last = daemon.look()
        if last.broken or daemon.log():
            report.anomaly(f"the daemon says: {last.broken} {daemon.log()[:2000]}")


def _apart(report: Report, storm: Callable[[int, random.Random], Found], amount: int, seed: int) -> Found:
    """Run a storm in a process of its own, which may have threads."""
    reading, writing = os.pipe()

    def work() -> None:
        faulthandler.register(signal.SIGUSR2)
        try:
            found = storm(amount, random.Random(seed))
        except Exception:
            found = {"anomalies": [traceback.format_exc()]}
        os.write(writing, json.dumps(found).encode())

    with Child(work) as child, open(reading, "rb") as results:
        os.close(writing)
        if not select.select([results], [], [], PATIENCE + amount / 50)[0]:
            os.kill(child.pid, signal.SIGUSR2)
            time.sleep(0.5)
            report.anomaly(f"{storm.__name__} hangs: {state_of(child.pid)}")
            return {}
        data = results.read()
        status = child.wait()
        if status or not data:
            report.anomaly(f"{storm.__name__} ended with {status}")
            return {}
        found: Found = json.loads(data)
        return found


def _names(task: Task | aio.Task) -> int:
    """How many names the task has, but for ports for answers that are kept for the next calls."""
    kept = set(task._reply_ports)
    return sum(name not in kept for name, _ in task.calls.mach_port_names(task.name))


def _tally(found: Found, sent: int, got: Counter[int], of_what: str) -> None:
    """Every one of the numbers up to ``sent`` came once."""
    lost = sent - len(got)
    twice = sum(got.values()) - len(got)
    if lost or twice:
        found["anomalies"].append(f"{lost} of {sent} {of_what} were lost, {twice} came twice")


def _echo(port: ReceiveRight) -> None:
    """Answer every request until the task is closed."""
    with contextlib.suppress(MachError):
        port.serve(lambda request: request.body)


# Interrupts


class Victim:
    """A process that is interrupted, one SIGINT after the other, each as soon as it has noticed the one before."""

    def __init__(self, work: Callable[[Callable[[], None]], None]) -> None:
        self._noticed = mmap.mmap(-1, 8)

        def play() -> None:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            work(self._notice)

        self.child = Child(play)

    def _notice(self) -> None:
        """In the victim: the next interrupt may come."""
        self._noticed[:8] = (int.from_bytes(self._noticed[:8], "little") + 1).to_bytes(8, "little")

    def interrupt(self, chance: random.Random) -> bool:
        """One interrupt at some instant; False if the victim has done its work."""
        end = time.monotonic() + chance.random() ** 3 * 0.004
        while time.monotonic() < end:
            os.sched_yield()
        before = self._noticed[:8]
        os.kill(self.child.pid, signal.SIGINT)
        return self._wait(before)

    def begin(self) -> bool:
        """Wait until it may be interrupted."""
        return self._wait(bytes(8))

    def _wait(self, before: bytes) -> bool:
        deadline = time.monotonic() + PATIENCE
        while self._noticed[:8] == before:
            if not self.child.running or self.child.poll() is not None:
                return False
            if time.monotonic() > deadline:
                raise RuntimeError(f"a KeyboardInterrupt does nothing: {state_of(self.child.pid)}")
            os.sched_yield()
        return True


def _until_done(notice: Callable[[], None], ready: Callable[[], bool], work: Callable[[], None]) -> None:
    """Do some work again after each interrupt, until it is done."""
    while True:
        try:
            # From here on the next may come.
            notice()
            if ready():
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                return
            work()
        except KeyboardInterrupt:
            # A block of contextlib's could be interrupted itself.
            pass


def interrupted_receivers(amount: int, chance: random.Random) -> Found:
    """``for message in port`` loses no message, with whatever is in it, by any KeyboardInterrupt."""
    task = Task(label="sender")
    inbox, once_port = task.check_in("storm-receiver"), task.allocate()
    found: Found = {"anomalies": []}
    port = task.allocate(qlimit=10)
    sender = port.make_send()

    def receive(notice: Callable[[], None]) -> None:
        mine = Task(label="receiver")
        with mine.look_up("storm-receiver") as right:
            port = right.call().rights[0]
        assert isinstance(port, ReceiveRight)
        got: list[Message] = []
        before = _names(mine)

        def loop() -> None:
            nonlocal got
            for message in port:
                # Nothing is called here, before or after which an interrupt could be raised.
                got += [message]
                if message.id == 0:
                    return

        _until_done(notice, lambda: bool(got) and got[-1].id == 0, loop)
        for message in got:
            if message.rights:
                message.rights[0].send(b"used")  # type: ignore[union-attr]
        with mine.look_up("storm-receiver") as right:
            right.send(json.dumps([[message.id for message in got], _names(mine) - 1 - before]).encode())

    victim = Victim(receive)
    with victim.child:
        inbox.receive(PATIENCE).reply(rights=[port.move()])
        victim.begin()
        stop = threading.Event()
        sent = used = 0

        def send() -> None:
            nonlocal sent
            while not stop.is_set():
                number = sent + 1
                body = _LONG if number % 50 == 0 else b"short"
                rights = [once_port.make_send_once().move()] if number % 7 == 0 else []
                sender.send(body, id=number, rights=rights)
                sent = number
            sender.send(id=0)

        thread = threading.Thread(target=send)
        thread.start()
        for _ in range(amount):
            if not victim.interrupt(chance):
                break
        stop.set()
        thread.join(PATIENCE)
        with inbox.receive(PATIENCE) as result:
            got, names = json.loads(result.body)
    with contextlib.suppress(TimedOut):
        while True:
            used += once_port.receive(0).body == b"used"
    counted = Counter(number for number in got if number)
    _tally(found, sent, counted, "messages")
    if got != [*sorted(got[:-1]), 0]:
        found["anomalies"].append("messages came out of order")
    if names:
        found["anomalies"].append(f"{names} names more than before")
    found |= {"interrupts": amount, "messages": sent, "send-once rights in them that were used": used}
    task.close()
    return found


def interrupted_callers(amount: int, chance: random.Random) -> Found:
    """A ``call`` that is given up leaves no port behind, and its request is carried out once at most."""
    task = Task(label="server")
    port = task.check_in("storm-server")
    found: Found = {"anomalies": []}
    received: Counter[int] = Counter()
    done = threading.Event()
    results: list[Any] = []

    def serve() -> None:
        for request in port:
            if request.id == 0:
                results.extend(json.loads(request.body))
                done.set()
                return
            received[request.id] += 1
            with request, contextlib.suppress(DeadPort):
                request.reply(request.body)

    def call(notice: Callable[[], None]) -> None:
        mine = Task(label="caller")
        right = mine.look_up("storm-server")
        stop = mmap_stop
        asked: list[int] = []
        answered: list[int] = []
        before = _names(mine)

        def loop() -> None:
            while not stop[0]:
                asked.append(len(asked) + 1)
                number = asked[-1]
                body = _LONG if number % 50 == 0 else b"%d" % number
                answer = right.call(body, id=number)
                assert answer.body == body, "an answer to another request"
                answered.append(number)

        _until_done(notice, lambda: bool(stop[0]), loop)
        right.send(json.dumps([len(asked), answered, _names(mine) - before]).encode(), id=0)

    mmap_stop = mmap.mmap(-1, 1)
    victim = Victim(call)
    server = threading.Thread(target=serve, daemon=True)
    server.start()
    with victim.child:
        victim.begin()
        for _ in range(amount):
            if not victim.interrupt(chance):
                break
        mmap_stop[0] = 1
        done.wait(PATIENCE)
    if not results:
        found["anomalies"].append("the caller hangs")
        return found
    asked, answered, names = results
    if any(count > 1 for count in received.values()):
        found["anomalies"].append("a request was received twice")
    if not set(answered) <= set(received) or len(set(answered)) != len(answered):
        found["anomalies"].append("an answer came twice, or to no request")
    if names:
        found["anomalies"].append(f"{names} names more than before")
    found |= {"interrupts": amount, "requests": asked, "received": len(received), "answered": len(answered)}
    task.close()
    return found


def interrupted_readers(amount: int, chance: random.Random) -> Found:
    """``for entry in queue`` loses no entry by any KeyboardInterrupt."""
    found: Found = {"anomalies": []}
    queue = DataQueue(4000)
    descriptor = queue.detach_consumer()
    reading, writing = os.pipe()

    def read(notice: Callable[[], None]) -> None:
        mine = DataQueue.from_fd(descriptor)
        got = bytearray()

        def loop() -> None:
            nonlocal got
            for entry in mine:
                # Nothing is called here, before or after which an interrupt could be raised.
                got += entry
                if got[-1] == 255:
                    return

        _until_done(notice, lambda: got[-1:] == b"\xff", loop)
        with open(writing, "wb") as results:
            results.write(got)

    victim = Victim(read)
    os.close(descriptor)
    os.close(writing)
    with victim.child, open(reading, "rb") as results:
        sent = 0
        stop = threading.Event()

        def send() -> None:
            nonlocal sent
            while not stop.is_set():
                queue.enqueue((sent + 1).to_bytes(4, "little"))
                sent += 1
            queue.enqueue(b"\xff\xff\xff\xff")

        thread = threading.Thread(target=send)
        victim.begin()
        thread.start()
        for _ in range(amount):
            if not victim.interrupt(chance):
                break
        stop.set()
        thread.join(PATIENCE)
        got = list(memoryview(results.read()).cast("I"))
    _tally(found, sent, Counter(got[:-1]), "entries")
    found |= {"interrupts": amount, "entries": sent}
    queue.close()
    return found


def handlers_that_call(amount: int, chance: random.Random) -> Found:
    """A handler of signals makes calls in the middle of a receive, a call and a wait at a queue, and all go on."""
    task = Task(label="handler")
    port, served = task.allocate(), task.allocate()
    sender, echo = port.make_send(), served.make_send()
    queue = DataQueue(4000)
    found: Found = {"anomalies": []}
    handled = 0
    stop = threading.Event()
    threading.Thread(target=_echo, args=(served,), daemon=True).start()

    def handle(*_: object) -> None:
        nonlocal handled
        handled += 1
        if echo.call(b"from a handler").body != b"from a handler":
            found["anomalies"].append("a handler got another answer")
        # Not before: it would come again and again in the middle of itself.
        if handled < amount:
            signal.setitimer(signal.ITIMER_REAL, chance.random() * 0.001 + 1e-6)

    def feed() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            with contextlib.suppress(TimedOut):
                sender.send(id=number, timeout=0.1)
            queue.enqueue(b"%d" % number)
            if number % 3 == 0:
                time.sleep(chance.random() * 0.002)

    feeder = threading.Thread(target=feed)
    before = _names(task)
    signal.signal(signal.SIGALRM, handle)
    feeder.start()
    signal.setitimer(signal.ITIMER_REAL, 0.001)
    rounds = last = 0
    while handled < amount:
        rounds += 1
        message = port.receive(PATIENCE)
        if message.id <= last:
            found["anomalies"].append("messages came out of order")
        last = message.id
        queue.dequeue(PATIENCE)
        if echo.call(b"%d" % rounds).body != b"%d" % rounds:
            found["anomalies"].append("a call got another answer")
    stop.set()
    while feeder.is_alive():
        with contextlib.suppress(TimedOut):
            port.receive(0)
        with contextlib.suppress(TimedOut, QueueEmpty):
            queue.dequeue(0)
        feeder.join(0.01)
    if _names(task) != before:
        found["anomalies"].append(f"{_names(task) - before} names more than before")
    found |= {"signals handled": handled, "rounds": rounds}
    task.close()
    return found


# Threads


def threads_in_receive(amount: int, chance: random.Random) -> Found:
    """64 threads receive from one port, and then from one set: every message comes once."""
    task = Task(label="threads")
    found: Found = {"anomalies": []}
    for kind in ("port", "set"):
        ports = task.allocate_many(1 if kind == "port" else 8)
        for port in ports:
            port.set_qlimit(100)
        senders = [port.make_send() for port in ports]
        receiver: Any = ports[0] if kind == "port" else task.port_set(*ports)
        taken: list[list[int]] = [[] for _ in range(_THREADS)]

        def take(into: list[int], receiver: Any = receiver) -> None:
            for message in receiver:
                if not message.id:
                    return
                into.append(message.id)

        threads = [threading.Thread(target=take, args=(into,)) for into in taken]
        for thread in threads:
            thread.start()
        for number in range(1, 2 * amount + 1):
            chance.choice(senders).send(id=number)
        for number in range(_THREADS):
            senders[number % len(senders)].send(id=0)
        for thread in threads:
            thread.join(PATIENCE)
        if any(thread.is_alive() for thread in threads):
            found["anomalies"].append(f"a thread hangs at a {kind}")
        _tally(found, 2 * amount, Counter(number for each in taken for number in each), f"messages to a {kind}")
    found |= {"threads": _THREADS, "messages to a port, and to a set": 2 * amount}
    task.close()
    return found


# Forks


def forks(amount: int, chance: random.Random) -> Found:
    """Children that are forked while threads receive, call, wait at a queue, begin and end."""
    task = Task(label="forking")
    found: Found = {"anomalies": []}
    port, served = task.check_in("storm-forks"), task.allocate()
    sender, echo = port.make_send(), served.make_send()
    queue = DataQueue(4000)
    stop = threading.Event()
    counts: Counter[str] = Counter()

    def receive() -> None:
        while not stop.is_set():
            with contextlib.suppress(TimedOut):
                port.receive(0.05).close()
                counts["messages"] += 1

    def call() -> None:
        while not stop.is_set():
            assert echo.call(b"question", timeout=PATIENCE).body == b"question"
            counts["calls"] += 1

    def read() -> None:
        while not stop.is_set():
            with contextlib.suppress(TimedOut):
                queue.dequeue(0.05)
                counts["entries"] += 1

    def write() -> None:
        while not stop.is_set():
            queue.enqueue(b"entry")
            time.sleep(0.001)

    def come_and_go() -> None:
        while not stop.is_set():
            thread = threading.Thread(target=lambda: task.allocate().close())
            thread.start()
            thread.join()
            Task(label="short").close()
            counts["threads and tasks"] += 1

    works: list[Callable[[], None]] = [receive, call, read, write, come_and_go]
    threads = [threading.Thread(target=work) for work in works]
    threading.Thread(target=_echo, args=(served,), daemon=True).start()
    for thread in threads:
        thread.start()
    children = max(10, amount // 10)
    for number in range(children):
        time.sleep(chance.random() * 0.002)
        pid = os.fork()
        if not pid:
            os._exit(_forked(task, port, sender, echo))
        pidfd = os.pidfd_open(pid)
        if not select.select([pidfd], [], [], PATIENCE)[0]:
            found["anomalies"].append(f"forked child {number} hangs: {state_of(pid)}")
            os.kill(pid, signal.SIGUSR2)
            time.sleep(0.2)
            os.kill(pid, signal.SIGKILL)
        os.close(pidfd)
        status = os.waitpid(pid, 0)[1]
        if status:
            found["anomalies"].append(f"forked child {number} ended with {status}")
        if len(found["anomalies"]) > 5:
            break
    stop.set()
    for thread in threads:
        thread.join(PATIENCE)
        if thread.is_alive():
            found["anomalies"].append("a thread hangs")
    found |= {"children": children, **counts}
    task.close()
    return found


def _forked(task: Task, port: ReceiveRight, sender: SendRight, echo: SendRight) -> int:
    """What each child does; 0 if all was as it must be."""
    try:
        for use in (
            lambda: port.receive(0),
            lambda: sender.send(b"from a child"),
            lambda: echo.call(b""),
            task.allocate,
        ):
            try:
                use()
                return 1
            except ForkedTask:
                pass
        with Task(label="child") as mine:
            with mine.look_up("storm-forks") as right, contextlib.suppress(TimedOut):
                right.send(b"from a task of its own", timeout=PATIENCE)
            mine.allocate().close()
    except BaseException:
        faulthandler.dump_traceback()
        import traceback

        traceback.print_exc()
        return 2
    return 0


# Cancellations


def cancellations_in_asyncio(amount: int, chance: random.Random) -> Found:
    """Coroutines of asyncio that receive, send and call are cancelled at any pass of the loop."""
    return _cancellations("asyncio", amount, chance)


def cancellations_in_trio(amount: int, chance: random.Random) -> Found:
    """The same under trio."""
    return _cancellations("trio", amount, chance)


def _cancellations(backend: str, amount: int, chance: random.Random) -> Found:
    found: Found = {"anomalies": []}
    task = aio.Task(label=backend)
    anyio.run(storm_of_cancellations, task, amount, chance, found, backend=backend)
    task.close()
    return found


async def storm_of_cancellations(task: aio.Task, amount: int, chance: random.Random, found: Found) -> None:
    port, served, tickets = task.allocate(qlimit=3), task.allocate(), task.allocate(qlimit=1000)
    sender, echo = port.make_send(), served.make_send()
    got: Counter[int] = Counter()
    sent: set[int] = set()
    received: Counter[int] = Counter()
    answered: Counter[int] = Counter()
    numbers = iter(range(1, 1 << 40))
    cancelled = 0
    await echo_once(served, echo)
    before = _names(task)

    async def receive() -> None:
        message = await port.receive()
        got[message.id] += 1
        message.close()

    async def send() -> None:
        number, once = next(numbers), tickets.make_send_once()
        try:
            await sender.send(id=number, rights=[once.move()])
        finally:
            # The right is here again if the message was not sent.
            if once.closed:
                sent.add(number)
            else:
                once.close()

    async def call() -> None:
        number = next(numbers)
        answer = await echo.call(b"%d" % number, id=number)
        assert answer.body == b"%d" % number
        answered[number] += 1

    async def serve() -> None:
        async for request in served:
            received[request.id] += 1
            with request, contextlib.suppress(DeadPort):
                request.reply(request.body)

    async def cancel_one(work: Callable[[], Awaitable[None]], passes: int) -> None:
        nonlocal cancelled
        done = anyio.Event()
        scope = anyio.CancelScope()

        async def play() -> None:
            with scope:
                await work()
            done.set()

        async with anyio.create_task_group() as group:
            group.start_soon(play)
            for _ in range(passes):
                await checkpoint()
            scope.cancel()
            await done.wait()
        cancelled += scope.cancelled_caught

    async def storm(share: int) -> None:
        for _ in range(share):
            await cancel_one(chance.choice((receive, receive, send, send, call)), chance.randrange(12))

    async with anyio.create_task_group() as group:
        group.start_soon(serve)
        async with anyio.create_task_group() as storms:
            for _ in range(8):
                storms.start_soon(storm, max(1, amount // 4))
        with contextlib.suppress(TimedOut):
            while True:
                with await port.receive(0.05) as message:
                    got[message.id] += 1
        group.cancel_scope.cancel()
    with contextlib.suppress(TimedOut):
        while True:
            (await tickets.receive(0)).close()
    if set(got) != sent or any(count > 1 for count in got.values()):
        found["anomalies"].append(
            f"{len(sent - set(got))} messages were lost, {len(set(got) - sent)} came that were not sent,"
            f" {sum(count > 1 for count in got.values())} twice"
        )
    if any(count > 1 for count in received.values()) or not set(answered) <= set(received):
        found["anomalies"].append("a request was carried out twice")
    if _names(task) != before:
        found["anomalies"].append(f"{_names(task) - before} names more than before")
    found |= {"cancelled": cancelled, "messages": len(sent), "requests": len(received), "answered": len(answered)}


async def echo_once(served: aio.ReceiveRight, echo: aio.SendRight) -> None:
    """A first call, so that what it makes is there before anything is counted."""
    async with anyio.create_task_group() as group:
        group.start_soon(echo.call)
        with await served.receive() as request:
            request.reply()


STORMS: Final[list[Callable[[int, random.Random], Found]]] = [
    interrupted_receivers,
    interrupted_callers,
    interrupted_readers,
    handlers_that_call,
    threads_in_receive,
    forks,
    cancellations_in_asyncio,
    cancellations_in_trio,
]
