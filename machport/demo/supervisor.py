"""The supervisor: makes the ports, keeps none of them in use, and hands them from each killed server to the next."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from machport import (
    Child,
    DeadNameNotification,
    Message,
    Notification,
    PortDestroyedNotification,
    ReceiveRight,
    Task,
    iokit,
)
from machport.demo.client import ask_for_all, walk
from machport.demo.protocol import (
    CAPACITY,
    PROGRESS,
    PROGRESS_ID,
    QLIMIT,
    SERVER_ENDS,
    SERVER_ENDS_ID,
    SUMMARY_ID,
    Summary,
)
from machport.demo.server import serve


@dataclass
class Kill:
    """A server that was killed, and what became of its work.

    Attributes:
        at: files answered when it was decided.
        waiting: requests that were waiting at the port, unreceived.
        came_back: requests that it had received and that came back to the client.
        seconds: from the kill until the successor's first answer.
    """

    generation: int
    pid: int
    at: int
    moment: float
    waiting: int = 0
    came_back: int = 0
    seconds: float | None = None


@dataclass
class Outcome:
    """All that happened."""

    directory: Path
    total: int
    kills_wanted: int
    kills: list[Kill] = field(default_factory=list)
    summary: Summary | None = None
    no_senders_count: int | None = None
    notifications: Counter[tuple[str, str]] = field(default_factory=Counter)


class ServerFailed(RuntimeError):
    """A server ended in a way that belongs to no demonstration."""


#: Called with files answered, bytes answered, kills so far.
Progress = Callable[[int, int, int], None]


class Supervisor:
    """Runs one demonstration.

    Args:
        leave_out: names of folders that are not entered.
        kills: how many servers to kill, spread at random over the files.
        seed: of that randomness.
    """

    def __init__(
        self,
        task: Task,
        directory: Path,
        *,
        leave_out: frozenset[str] = frozenset(),
        kills: int,
        seed: int,
        progress: Progress,
    ) -> None:
        self.task = task
        self._leave_out = leave_out
        total = sum(1 for _ in walk(directory, leave_out))
        self.outcome = Outcome(directory, total, kills)
        self._progress = progress
        chance = random.Random(seed)
        self._kill_at = sorted(chance.randrange(max(1, total)) for _ in range(kills))
        self._generation = 0
        self._answered = self._bytes = self._came_back = 0
        self._client_ended = self._server_ended = False

        self._memory = iokit.DataQueueMemory.with_capacity(CAPACITY, shared=True)
        self._memory_right = task.fileport(self._memory)
        self._report = task.allocate(qlimit=1024)
        self._reports = self._report.make_send()
        # One port for each question: what a notification is about is told by where it arrives.
        self._service_back, self._wakeup_back = task.allocate(), task.allocate()
        self._server_death, self._client_death = task.allocate(), task.allocate()
        self._events = task.port_set(
            self._report, self._service_back, self._wakeup_back, self._server_death, self._client_death
        )
        self._servers: dict[int, Child] = {}
        self._service: ReceiveRight | None = None
        self._wakeup: ReceiveRight | None = None

    def run(self) -> Outcome:
        """Start client and server, kill servers, and wait until both have ended by themselves."""
        service, wakeup, room = (
            self.task.allocate(qlimit=QLIMIT),
            self.task.allocate(qlimit=1),
            self.task.allocate(qlimit=1),
        )
        self._rooms = room.make_send()
        client = self.task.spawn(
            ask_for_all,
            service.make_send().move(),
            wakeup.make_send().move(),
            self._memory_right.copy(),
            room.move(),
            self._reports.copy(),
            str(self.outcome.directory),
            self._leave_out,
        )
        client.task_right.request_dead_name(self._client_death)
        self._service, self._wakeup = service, wakeup
        self._start_server()
        try:
            while not (self._client_ended and self._server_ended):
                with self._events.receive() as message:
                    self._take(message)
        finally:
            client.close()
            for server in self._servers.values():
                server.close()
            self._memory.close()
        return self.outcome

    def _start_server(self) -> None:
        """Give both receive rights to a new server, with a request to get them back."""
        assert self._service is not None and self._wakeup is not None
        self._generation += 1
        self._service.request_port_destroyed(self._service_back)
        self._wakeup.request_port_destroyed(self._wakeup_back)
        child = self.task.spawn(
            serve,
            self._service.move(),
            self._wakeup.move(),
            self._memory_right.copy(),
            self._rooms.copy(),
            self._reports.copy(),
            self._generation,
        )
        self._service = self._wakeup = None
        child.task_right.request_dead_name(self._server_death)
        self._servers[child.task_right.name] = self._server = child

    def _take(self, message: Message) -> None:
        if isinstance(message, Notification):
            self._notified(message)
        elif message.id == PROGRESS_ID:
            self._advance(*PROGRESS.unpack(message.body))
        elif message.id == SUMMARY_ID:
            self.outcome.summary = Summary.unpack(message.memory[0].tobytes())
            for kind, count in self.outcome.summary.notifications.items():
                self.outcome.notifications["client", kind] += count
        elif message.id == SERVER_ENDS_ID:
            _, self.outcome.no_senders_count = SERVER_ENDS.unpack(message.body)
            self.outcome.notifications["server", "NoSendersNotification"] += 1

    def _notified(self, message: Notification) -> None:
        self.outcome.notifications["supervisor", type(message).__name__] += 1
        if isinstance(message, DeadNameNotification):
            if message.port == self._client_death.name:
                self._client_ended = True
            else:
                self._server_died(self._servers.pop(message.name))
        elif isinstance(message, PortDestroyedNotification):
            right = message.right
            message.rights[0] = None
            if message.port == self._service_back.name:
                self._service = right
                self._lost().waiting = right.status().msgcount
            else:
                self._wakeup = right
            if self._service is not None and self._wakeup is not None:
                self._start_server()

    def _lost(self) -> Kill:
        """The loss of the present server: a kill of ours, or a death that nobody ordered."""
        if not self.outcome.kills or self.outcome.kills[-1].generation != self._generation:
            self._kill(time.monotonic())
        return self.outcome.kills[-1]

    def _kill(self, moment: float) -> None:
        self.outcome.kills.append(Kill(self._generation, self._server.pid, self._answered, moment))
        self._server.kill()

    def _server_died(self, server: Child) -> None:
        exitcode = server.join()
        server.close()
        if exitcode not in (0, -signal.SIGKILL):
            raise ServerFailed(f"a server ended by itself with exit code {exitcode}; what it said stands above")
        self._server_ended = self.outcome.no_senders_count is not None

    def _advance(self, answered: int, bytes_answered: int, came_back: int, generation: int) -> None:
        self._answered, self._bytes = answered, bytes_answered
        for kill in self.outcome.kills:
            if kill.seconds is None and generation > kill.generation:
                kill.seconds = time.monotonic() - kill.moment
                kill.came_back, self._came_back = came_back - self._came_back, came_back
        # The next server is killed only when the last one's successor has answered.
        recovered = all(kill.seconds is not None for kill in self.outcome.kills)
        if self._kill_at and recovered and generation == self._generation and answered >= self._kill_at[0]:
            self._kill_at.pop(0)
            self._kill(time.monotonic())
        self._progress(answered, bytes_answered, len(self.outcome.kills))
