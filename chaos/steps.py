"""A process that is killed at each step of an operation has carried it out, or it has not: nothing is between the two.

The operations are: send, receive, reply, call, registration, check-in, spawn, and handing a data queue over.  The steps
are every system call, as it begins and as it ends, every line of machport's sources, and instructions chosen at random.
After each kill rights are conserved, notifications have come, and the daemon has what it had before.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import chaos
from chaos.deaths import settled
from chaos.processes import Child
from chaos.report import Report
from chaos.stepping import DONE, INSTRUCTIONS, INSTRUCTIONS_MAX, LINES, SYSTEM_CALLS, Traced, act
from chaos.watched_daemon import Figures, Watched
from machport import (
    DataQueue,
    DeadNameNotification,
    DeadPort,
    InvalidName,
    Message,
    PortDeletedNotification,
    PortDestroyedNotification,
    QueueEnded,
    ReceiveRight,
    SendOnceNotification,
    SendRight,
    Task,
    TimedOut,
    Transfer,
    is_compiled,
)
from machport.abi import constants as c
from machport.ring.spinning import VARIABLE as SPIN

AMOUNT: Final = 13000
UNIT: Final = "kills at most"
#: Seconds after which what a survivor waits for will not come.
PATIENCE: Final = 30.0
#: Instructions at which each operation is killed, of the many that there are.
_SAMPLE: Final = 60
#: Calls that wait when nothing is done: the service of names, and who echoes.
_WAITERS: Final = 2
_LONG: Final = bytes(range(256)) * 100
_INSIDE: Final = b"inside"
_NAME: Final = "victim"


class Wrong(Exception):
    """What is left of an operation is neither all of it nor nothing."""


class Scene:
    """One operation: what the victim is given, what it does, and what survivors find afterwards.

    Every scene has cargo: a receive right with a message in its queue, which comes back if nobody has it any more, and
    a send-once right, which tells if it was not used.
    """

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.task = task = stage.task
        self.back, self.answers, self.out, self.port, self.inner = task.allocate_many(5)
        self.inner.make_send().send(_INSIDE)
        self.inner.request_port_destroyed(self.back)
        self.once = self.answers.make_send_once()
        self.home = task.allocate()

    def give(self) -> Sequence[Transfer]:
        """What the victim gets."""
        raise NotImplementedError

    @staticmethod
    def prepare(task: Task, rights: list[Any]) -> Callable[[], object]:
        """In the victim: its operation."""
        raise NotImplementedError

    def outcome(self) -> str:
        """Which of the outcomes that may be it was.

        Raises:
            Wrong: it is none of them.
        """
        raise NotImplementedError

    def close(self) -> None:
        rights = [self.back, self.answers, self.out, self.port, self.inner, self.once, self.home]
        self.task.close_many(right for right in rights if not right.closed)

    # What is left

    def cargo_is_back(self, timeout: float = 0) -> None:
        """The cargo came back, both parts, each once."""
        notice = take(self.back, timeout)
        require(isinstance(notice, PortDestroyedNotification), f"no receive right came back, but {notice}")
        assert isinstance(notice, PortDestroyedNotification)
        self.check_inside(notice.right)
        notice.right.close()
        self.nothing_more(self.back)

    def once_was_not_used(self) -> None:
        notice = take(self.answers)
        require(isinstance(notice, SendOnceNotification), f"a send-once right went silently: {notice}")
        self.nothing_more(self.answers)

    def check_inside(self, inner: object) -> None:
        require(isinstance(inner, ReceiveRight), f"a receive right is {inner!r}")
        assert isinstance(inner, ReceiveRight)
        message = take(inner)
        require(message is not None and message.body == _INSIDE, f"a queue came back with {message!r}")

    def cargo_is_in(self, message: Message) -> None:
        """Both parts of the cargo came with a message, and nowhere else."""
        require(message.memory == [_LONG], "the memory of a message has changed")
        inner, once = message.rights
        self.check_inside(inner)
        once.send(b"used")  # type: ignore[union-attr]
        answer = take(self.answers)
        require(answer is not None and answer.body == b"used", f"a send-once right sent {answer!r}")
        self.nothing_more(self.answers)
        self.nothing_more(self.back)
        # Or it would come back when it is closed here.
        previous = inner.request_port_destroyed(None)  # type: ignore[union-attr]
        message.close()
        if previous is not None:
            previous.close()

    def nothing_more(self, port: ReceiveRight) -> None:
        message = take(port)
        require(message is None, f"something came twice: {message!r}")

    def port_is_home(self) -> ReceiveRight:
        notice = take(self.home)
        require(isinstance(notice, PortDestroyedNotification), f"no receive right came home, but {notice!r}")
        assert isinstance(notice, PortDestroyedNotification)
        return notice.right


class Sending(Scene):
    """``send`` of a receive right, a send-once right and memory."""

    def give(self) -> Sequence[Transfer]:
        return [self.out.make_send().move(), self.inner.move(), self.once.move()]

    @staticmethod
    def prepare(task: Task, rights: list[Any]) -> Callable[[], object]:
        out, inner, once = rights
        return lambda: out.send(b"cargo", rights=[inner.move(), once.move()], memory=[_LONG])

    def outcome(self) -> str:
        message = take(self.out)
        if message is not None:
            self.cargo_is_in(message)
            return "sent"
        self.cargo_is_back()
        self.once_was_not_used()
        return "not sent"


class Receiving(Scene):
    """``receive`` of a message with a receive right, a send-once right and memory."""

    def give(self) -> Sequence[Transfer]:
        self.port.request_port_destroyed(self.home)
        with self.port.make_send() as right:
            right.send(b"cargo", rights=[self.inner.move(), self.once.move()], memory=[_LONG])
        return [self.port.move()]

    @staticmethod
    def prepare(task: Task, rights: list[Any]) -> Callable[[], object]:
        (port,) = rights
        return lambda: port.receive()

    def outcome(self) -> str:
        with self.port_is_home() as port:
            message = take(port)
            if message is not None:
                self.cargo_is_in(message)
                return "not received"
            self.cargo_is_back()
            self.once_was_not_used()
            return "received"


class Replying(Scene):
    """``receive``, and ``reply`` with a receive right."""

    def give(self) -> Sequence[Transfer]:
        self.port.request_port_destroyed(self.home)
        self.once.close()
        require(isinstance(take(self.answers), SendOnceNotification), "a send-once right was closed silently")
        with self.port.make_send() as right:
            right.send(b"question", reply_to=self.answers)
        return [self.port.move(), self.inner.move()]

    @staticmethod
    def prepare(task: Task, rights: list[Any]) -> Callable[[], object]:
        port, inner = rights
        return lambda: port.receive().reply(b"answer", rights=[inner.move()])

    def outcome(self) -> str:
        with self.port_is_home() as port:
            request = take(port)
            if request is not None:
                self.nothing_more(self.answers)
                request.reply(b"by the successor")
                answer = take(self.answers)
                require(answer is not None and answer.body == b"by the successor", "a successor could not answer")
                self.cargo_is_back()
                return "not received"
        answer = take(self.answers)
        self.nothing_more(self.answers)
        if isinstance(answer, SendOnceNotification):
            self.cargo_is_back()
            return "received, and not answered"
        require(answer is not None and answer.body == b"answer", f"the answer is {answer!r}")
        assert answer is not None
        self.check_inside(answer.rights[0])
        self.nothing_more(self.back)
        return "answered"

    def close(self) -> None:
        # First: what is closed after it goes nowhere.
        self.back.close()
        super().close()


class Serving(Replying):
    """``reply_and_receive``, as ``serve`` does it."""

    @staticmethod
    def prepare(task: Task, rights: list[Any]) -> Callable[[], object]:
        port, inner = rights

        def serve() -> None:
            with contextlib.suppress(TimedOut):
                port.reply_and_receive(port.receive(), b"answer", rights=[inner.move()], timeout=0)

        return serve


class Calling(Scene):
    """``call`` with a receive right, which comes back in the answer."""

    def give(self) -> Sequence[Transfer]:
        self.once.close()
        return [self.stage.echo.copy(), self.inner.move()]

    @staticmethod
    def prepare(task: Task, rights: list[Any]) -> Callable[[], object]:
        echo, inner = rights
        return lambda: echo.call(b"question", rights=[inner.move()])

    def outcome(self) -> str:
        self.cargo_is_back(PATIENCE)
        before, self.stage.echoed = self.stage.echoed, int(self.stage.echo.call(b"count").body)
        asked = self.stage.echoed - before
        require(asked in (0, 1), f"a request came {asked} times")
        return "asked" if asked else "not asked"


class Registering(Scene):
    """``mach_port_request_notification`` of a dead name."""

    def give(self) -> Sequence[Transfer]:
        return [self.out.make_send().move(), self.once.move()]

    @staticmethod
    def prepare(task: Task, rights: list[Any]) -> Callable[[], object]:
        out, once = rights
        arguments = (task.name, out.name, c.MACH_NOTIFY_DEAD_NAME, 0, once.name, c.MACH_MSG_TYPE_MOVE_SEND_ONCE)
        return lambda: task.calls.mach_port_request_notification(*arguments)

    def outcome(self) -> str:
        notice = take(self.answers)
        self.nothing_more(self.answers)
        if isinstance(notice, PortDeletedNotification):
            return "registered"
        require(isinstance(notice, SendOnceNotification), f"a request ended with {notice!r}")
        return "not registered"


class CheckingIn(Scene):
    """``check_in`` under a name, and ``register`` under another."""

    def give(self) -> Sequence[Transfer]:
        return [self.out.make_send().move()]

    @staticmethod
    def prepare(task: Task, rights: list[Any]) -> Callable[[], object]:
        (out,) = rights

        def check_in() -> None:
            task.check_in(_NAME)
            task.register(_NAME + "-out", out)

        return check_in

    def outcome(self) -> str:
        # The name of a dead service is free.
        self.task.check_in(_NAME).close()
        try:
            right = self.task.look_up(_NAME + "-out")
        except InvalidName:
            self.task.register(_NAME + "-out", self.out.make_send())
            return "not registered"
        with right:
            right.send(b"by name")
        message = take(self.out)
        require(message is not None and message.body == b"by name", "a name stands for something else")
        return "registered"


class Spawning(Scene):
    """``spawn`` of a program with a receive right."""

    def give(self) -> Sequence[Transfer]:
        return [self.inner.move()]

    @staticmethod
    def prepare(task: Task, rights: list[Any]) -> Callable[[], object]:
        (inner,) = rights
        return lambda: task.spawn(["true"], rights={"inner": inner.move()})

    def outcome(self) -> str:
        # The program may have it, and ends soon.
        self.cargo_is_back(PATIENCE)
        return "came back"


class HandingOver(Scene):
    """``send`` of the consuming end of a data queue that has entries."""

    def give(self) -> Sequence[Transfer]:
        self.queue = DataQueue(4000)
        for entry in (b"1", b"2", b"3"):
            self.queue.enqueue(entry)
        return [self.out.make_send().move(), self.queue.move_consumer()]

    @staticmethod
    def prepare(task: Task, rights: list[Any]) -> Callable[[], object]:
        out, fileport = rights
        queue = fileport.open_data_queue()
        return lambda: out.send(b"queue", rights=[queue.move_consumer()])

    def outcome(self) -> str:
        message = take(self.out)
        if message is not None:
            with message.rights[0].open_data_queue() as queue:  # type: ignore[union-attr]
                self.queue.enqueue(b"4", timeout=0)
                entries = [bytes(queue.dequeue(PATIENCE)) for _ in range(4)]
                require(entries == [b"1", b"2", b"3", b"4"], f"a queue was handed over with {entries}")
            message.close()
            return "handed over"
        try:
            while True:
                self.queue.enqueue(bytes(1000), timeout=PATIENCE)
        except QueueEnded:
            return "ended"

    def close(self) -> None:
        self.queue.close()
        super().close()


SCENES: Final[list[type[Scene]]] = [
    Sending,
    Receiving,
    Replying,
    Serving,
    Calling,
    Registering,
    CheckingIn,
    Spawning,
    HandingOver,
]


def take(port: ReceiveRight, timeout: float = 0) -> Message | None:
    """The next message, if there is one."""
    with contextlib.suppress(TimedOut):
        return port.receive(timeout)
    return None


def require(condition: bool, says: str) -> None:
    if not condition:
        raise Wrong(says)


class Stage:
    """The survivors: this process, and one that echoes."""

    def __init__(self, daemon: Watched) -> None:
        self.daemon = daemon
        self.echoed = 0
        self.counted = mmap.mmap(-1, 8)
        self._echo = Child(_echo)
        self.task = Task(label="survivor")
        self._port = self.task.check_in("stage")
        self._deaths = self.task.allocate()
        with self._port.receive(PATIENCE) as hello:
            echo = hello.rights[0]
            assert isinstance(echo, SendRight)
            self.echo = echo
            hello.rights[0] = None
            hello.reply()
        # Whatever a first call makes is there before anything is counted.
        self.echo.call(b"count")
        self.before = settled_with(daemon, None)

    def kill_at(self, kind: type[Scene], how: str, step: int, instructions: int = 0) -> tuple[str, int | None]:
        """Kill a victim at a step of a scene; the outcome, and how many steps there are if it has come to the last.

        Raises:
            Wrong: the outcome is none of those that may be.
        """
        scene = kind(self)
        with Child(lambda: self._play(kind, how, step)) as victim:
            with self._port.receive(PATIENCE) as hello:
                inbox = hello.rights[0]
                assert isinstance(inbox, SendRight)
                inbox.request_dead_name(self._deaths)
                hello.reply(rights=scene.give())
                count = None
                if how != LINES:
                    traced = Traced(victim.pid)
                    count = traced.go_to(step)
                    if count is None:
                        traced.step(instructions)
                    victim.kill()
                elif victim.wait() >> 8 == DONE:
                    count = int.from_bytes(self.counted[:], "little")
                notice = self._deaths.receive(PATIENCE)
                require(isinstance(notice, DeadNameNotification), f"a death is told by {notice!r}")
                notice.close()
            outcome = scene.outcome()
            scene.close()
        now = settled_with(self.daemon, self.before)
        left = now.differs(self.before)
        require(not left, f"left in the daemon: {', '.join(left)}")
        require(not now.broken, now.broken)
        return outcome, count

    def _play(self, kind: type[Scene], how: str, step: int) -> None:
        task = Task(label="victim")
        inbox, stage = task.allocate(), task.look_up("stage")
        answer = stage.call(rights=[inbox.make_send().move()])
        operation = kind.prepare(task, list(answer.rights))
        act(how, step, memoryview(self.counted), operation)

    def close(self) -> None:
        self.task.close()
        self._echo.kill()


def settled_with(daemon: Watched, before: Figures | None) -> Figures:
    """The daemon's figures once files that it closes are closed, or when they will not be."""
    deadline = time.monotonic() + 3
    while True:
        now = daemon.look()
        done = now.waiters == _WAITERS if before is None else not now.differs(before)
        if done or time.monotonic() > deadline:
            return now
        os.sched_yield()


def _echo() -> None:
    task = Task(label="echo")
    port = task.allocate()
    stage = None
    while stage is None:
        # It comes in a moment.
        with contextlib.suppress(InvalidName):
            stage = task.look_up("stage")
    stage.call(rights=[port.make_send().move()]).close()
    count = 0
    for request in port:
        with request, contextlib.suppress(DeadPort):
            if request.body == b"count":
                request.reply(str(count).encode())
                continue
            count += 1
            inner = request.rights[0]
            assert isinstance(inner, ReceiveRight)
            request.reply(rights=[inner.move()])


def play(how: str, amount: int, chance: random.Random, found: dict[str, Any]) -> None:
    """Kill at steps of one kind, all of them if ``amount`` allows it."""
    # Sleepers are stopped in system calls, and lookers at chance.
    os.environ[SPIN] = "0"
    with Watched() as daemon:
        Task().close()
        settled(daemon)
        stage = Stage(daemon)
        try:
            first = LINES if how == LINES else SYSTEM_CALLS
            totals = {kind: stage.kill_at(kind, first, 1 << 40)[1] for kind in SCENES}
            steps = _choose(how, totals, amount, chance)
            outcomes: dict[type[Scene], Counter[str]] = {kind: Counter() for kind in SCENES}
            for kind, step, instructions in steps:
                try:
                    outcome, _ = stage.kill_at(kind, how, step, instructions)
                except (Wrong, TimedOut, RuntimeError) as error:
                    found["anomalies"].append(f"{kind.__name__} at {how} {step}+{instructions}: {error}")
                    if len(found["anomalies"]) == 10:
                        return
                    continue
                outcomes[kind][outcome] += 1
            for kind in SCENES:
                says = ", ".join(f"{outcome} {count}" for outcome, count in sorted(outcomes[kind].items()))
                killed = sum(outcomes[kind].values())
                there = "" if how == INSTRUCTIONS else f" of {totals[kind]}"
                found["figures"].append((f"{kind.__name__}, {how}", f"{killed}{there}: {says}"))
            if daemon.log():
                found["anomalies"].append(f"the daemon says: {daemon.log()[:2000]}")
        finally:
            stage.close()


def _choose(
    how: str, totals: dict[type[Scene], int | None], amount: int, chance: random.Random
) -> list[tuple[type[Scene], int, int]]:
    steps = []
    for kind, total in totals.items():
        assert total is not None
        if how == INSTRUCTIONS:
            steps += [(kind, chance.randrange(total), chance.randrange(INSTRUCTIONS_MAX)) for _ in range(_SAMPLE)]
        else:
            steps += [(kind, step, 0) for step in range(total)]
    return steps if len(steps) <= amount else chance.sample(steps, amount)


def run(report: Report) -> None:
    """Kill at all steps, or at as many as asked, chosen at random."""
    for how in (SYSTEM_CALLS, INSTRUCTIONS, LINES):
        seed = report.seed + len(report.figures)
        found: dict[str, Any] = {"figures": [], "anomalies": []}
        amount = int(report.amount) // 3
        if how == LINES:
            # Lines are there to be stopped at only if machport is interpreted.
            search = os.pathsep.join([str(Path(chaos.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
            done = subprocess.run(
                [sys.executable, "-m", "chaos.steps", str(amount), str(seed)],
                env={**os.environ, "MACHPORT_PURE": "1", "PYTHONPATH": search},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            found = json.loads(done.stdout.splitlines()[-1])
        else:
            play(how, amount, random.Random(seed), found)
        for what, measured in found["figures"]:
            report.figure(what, measured)
        for says in found["anomalies"]:
            report.anomaly(says)


if __name__ == "__main__":
    assert not is_compiled()
    found = {"figures": list[Any](), "anomalies": list[str]()}
    play(LINES, int(sys.argv[1]), random.Random(int(sys.argv[2])), found)
    print(json.dumps(found))
