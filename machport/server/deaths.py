"""Deaths of clients before their pidfds tell of them, by lifelines and a look at what is left of the process.

A thread at a time waits for up to 127 lifelines.  One that goes slack is a sign, and a sign is only a reason to look:
it comes as well when a thread ended and its process did not, when another program was started, and when a client has
written into its page.  ``peer.liveness`` says when a process is dead.

Why no dead one is missed.  A look can come too soon: the other threads of the process still have to notice.  So
several looks are taken, ever later; after the last one the sign was false, or the death is a slow one.  The pidfd is
watched all the time and tells the truth in either case.

Why the loop does not look by itself.  Who reads the flags of a thread holds its memory meanwhile, and whoever lets go
of memory last takes it down.  That happens if the process gives it up within those microseconds; then a watcher takes
its time, and the deaths that it watches for are seen by pidfd.  With many threads dying it would happen often, so
of them only the link is read, which holds nothing; the first one's flags are read when its sign has come.

A client has one lifeline, and it gives one sign.  What a client writes into its page makes the daemon look at
that client's process a few times, and then no more.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from machport.abi import constants as c
from machport.abi import traps as t
from machport.kernel.refusal import Refusal
from machport.peer.liveness import can_be_seen, is_dead, number_in_proc
from machport.ring import lifeline
from machport.server.connection import Client
from machport.server.dispatch import Answer
from machport.server.log import event
from machport.server.snapshot import Restoring, Saving, State

_log: Final = logging.getLogger("machport.daemon")
#: Seconds between the first and the second look; each pause is twice the one before.
_FIRST_PAUSE: Final = 0.00005
#: Looks at a process that gave a sign.  The last one comes four tenths of a second after the first.
_LOOKS: Final = 14
#: Seconds that a thread may take to end: it could be taking down the memory of a client.
_PATIENCE: Final = 1.0
#: Lifelines that one thread waits for; the system allows 128 words.
_LINES: Final = 127


class Line:
    """One client's lifeline: its word, the process as procfs numbers it, and the watcher, until the line is dropped.

    ``descriptor`` is the page with the word, by which another daemon can watch it, too.
    """

    __slots__ = ("client", "descriptor", "looks", "process", "watcher", "word")

    def __init__(self, client: Client, process: int, word: lifeline.Word, watcher: Watcher, descriptor: int) -> None:
        self.client = client
        self.process = process
        self.word = word
        self.descriptor = descriptor
        self.watcher: Watcher | None = watcher
        self.looks = 0


class Deaths:
    """The lifelines of all clients.  Everything here is for the loop's thread.

    Args:
        register: call back when a descriptor is readable.
        died: called, by that callback, with a client whose process runs its program no more.
    """

    def __init__(
        self, register: Callable[[int, Callable[[int], None]], object], died: Callable[[Client], None]
    ) -> None:
        self._died = died
        self._lines: dict[Client, Line] = {}
        self._watchers: list[Watcher] = []
        self._verdicts: deque[tuple[Line, bool]] = deque()
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        register(self._bell, lambda _: self._hear())

    def watch(self, client: Client, offset: int, descriptors: Sequence[int]) -> Answer:
        """Watch the lifeline that a client gives.

        Args:
            descriptors: its page, which is kept until the client is forgotten.

        Raises:
            Refusal: it is none, or the client has one, or it cannot be watched here; its pidfd is, as ever.
        """
        if client in self._lines or len(descriptors) != 1:
            raise Refusal(c.KERN_INVALID_ARGUMENT, "lifeline", "a task has one lifeline, which is one file")
        process = number_in_proc(client.peer.pidfd)
        if process <= 0:
            raise Refusal(c.KERN_FAILURE, "lifeline", "the process has no number in /proc")
        try:
            word = lifeline.Word(descriptors[0], offset)
            watcher = self._find_watcher()
        except ValueError as error:
            raise Refusal(c.KERN_INVALID_ARGUMENT, "lifeline", str(error)) from None
        except (OSError, RuntimeError) as error:
            raise Refusal(c.KERN_FAILURE, "lifeline", f"lifelines cannot be watched here: {error}") from None
        line = self._lines[client] = Line(client, process, word, watcher, descriptors[0])
        watcher.lines += 1
        watcher.order(line.word, line)
        return Answer(t.LIFELINE.pack_answer(), keeps_descriptors=True)

    def state(self, saving: Saving) -> State:
        """The lifelines that have given no sign, for ``resume``."""
        return [
            [saving.channel(line.client.control), line.word.offset, saving.descriptor(line.descriptor)]
            for line in self._lines.values()
            if line.watcher is not None
        ]

    def resume(self, state: State, restoring: Restoring) -> None:
        """Watch what a daemon did whose place is taken.  Of those that gave a sign meanwhile, the pidfds tell."""
        for channel, offset, number in state:
            client, descriptor = restoring.channels[channel].client, restoring.descriptor(number)
            assert client is not None
            try:
                self.watch(client, offset, [descriptor])
            except Refusal:
                os.close(descriptor)

    def line_of(self, client: Client) -> Line | None:
        """The lifeline that a client has given; its watcher is None once it gave its sign."""
        return self._lines.get(client)

    def forget(self, client: Client) -> None:
        """The client is no more, or has no lifeline."""
        line = self._lines.pop(client, None)
        if line is None:
            return
        os.close(line.descriptor)
        if line.watcher is not None:
            line.watcher.order(line.word, None)
            self._leave(line)

    def close(self) -> None:
        """End the threads."""
        for client in list(self._lines):
            self.forget(client)
        for watcher in self._watchers:
            watcher.stop()
        os.close(self._bell)

    def _find_watcher(self) -> Watcher:
        for watcher in self._watchers:
            if watcher.lines < _LINES and watcher.is_alive():
                return watcher
        watcher = Watcher(self._tell)
        self._watchers.append(watcher)
        return watcher

    def _leave(self, line: Line) -> None:
        """The line takes no room at its watcher any more."""
        if line.watcher is not None:
            line.watcher.lines -= 1
            line.watcher = None

    def _tell(self, line: Line, dead: bool) -> None:
        """From a watcher's thread: what became of a line, which it has dropped."""
        self._verdicts.append((line, dead))
        os.eventfd_write(self._bell, 1)

    def _hear(self) -> None:
        os.eventfd_read(self._bell)
        while self._verdicts:
            line, dead = self._verdicts.popleft()
            self._leave(line)
            if self._lines.get(line.client) is line:
                # A line that gave a false sign stays the one that its client has: there is no second try.
                if dead:
                    self._died(line.client)
                else:
                    task = line.client.task
                    fields = event("false_sign", task=task.number, label=task.label, pid=line.client.peer.pid)
                    _log.debug("task %s gave a sign and lives", task.label, extra=fields)


class Watcher:
    """A thread that waits for lifelines, and looks at processes that gave a sign.

    Args:
        tell: called from the thread with a line and whether its process is dead; the line is dropped.

    Attributes:
        lines: how many lines the loop has given it.

    Raises:
        OSError: the system cannot wait for many words.
        RuntimeError: it has no room for a thread.
    """

    def __init__(self, tell: Callable[[Line, bool], None]) -> None:
        self.lines = 0
        self._tell = tell
        self._watch = lifeline.Watch()
        self._orders: deque[tuple[lifeline.Word, Line | None] | None] = deque()
        self._lines: dict[lifeline.Word, Line] = {}
        self._order = itertools.count()
        self._looks: list[tuple[float, int, Line]] = []
        self._thread = threading.Thread(target=self._run, name="deaths", daemon=True)
        self._thread.start()

    def order(self, word: lifeline.Word, line: Line | None) -> None:
        """Watch a word as the line of a client, or no more."""
        self._orders.append((word, line))
        self._watch.ring()

    def is_alive(self) -> bool:
        """Whether it still watches; the system may have refused."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """End the thread."""
        self._orders.append(None)
        self._watch.ring()
        self._thread.join(_PATIENCE)

    def _run(self) -> None:
        while self._obey():
            try:
                words = self._watch.wait(self._time_to_sleep())
            except OSError as error:
                fields = event("lifelines_lost", tasks=len(self._lines), reason=error.strerror)
                _log.warning(
                    "%d deaths will be seen by their pidfds only: %s", len(self._lines), error.strerror, extra=fields
                )
                return
            for word in words:
                self._look(self._lines[word])
            self._look_again()

    def _obey(self) -> bool:
        """Carry out the loop's orders; False if it is to end."""
        while self._orders:
            order = self._orders.popleft()
            if order is None:
                return False
            word, line = order
            if line is not None and can_be_seen(line.process):
                self._lines[word] = line
                self._watch.add(word)
            elif line is not None:
                self._tell(line, False)
            elif self._lines.pop(word, None) is not None:
                self._watch.remove(word)
        return True

    def _time_to_sleep(self) -> float:
        return max(0.0, self._looks[0][0] - time.monotonic()) if self._looks else -1.0

    def _look_again(self) -> None:
        """Look at each process whose time has come."""
        while self._looks and self._looks[0][0] <= time.monotonic():
            _, _, line = heapq.heappop(self._looks)
            if line.word in self._lines:
                self._look(line)

    def _look(self, line: Line) -> None:
        dead = is_dead(line.process)
        line.looks += 1
        if dead or line.looks == _LOOKS:
            del self._lines[line.word]
            self._tell(line, dead)
        else:
            pause = _FIRST_PAUSE * 2 ** (line.looks - 1)
            heapq.heappush(self._looks, (time.monotonic() + pause, next(self._order), line))
