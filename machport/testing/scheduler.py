"""Processes of a world: threads of which exactly one runs at a time.

A thread hands over where it makes a trap, and nowhere else.  Who goes on is drawn by the seed among those that can, so
the same seed gives the same interleaving.  Time stands still while anybody can go on.
"""

from __future__ import annotations

import gc
import random
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from machport.abi.errors import InvalidArgument
from machport.testing.errors import Deadlock, Killed, Livelock
from machport.testing.places import Place, user_line
from machport.testing.steps import LAST, Step, tell

#: How often a killed thread may catch its end before it is left where it is.
_PATIENCE: Final = 100
#: Calls that a test may make by itself in any world, however few steps its processes may make.
_OWN_TRAPS: Final = 1000


class Thread:
    """One thread of execution of a world.

    Attributes:
        label: what people call it.
        steps: how often it was let go on: at its start, before each trap, and after each wait.
        dead: it was killed, and makes no trap any more.
        done: it runs no more.
        says: what it waits for, in words; "" if it can go on.
        line: where it is in the program under test; None before it has begun.
        step: its present one; None before it has begun.
    """

    def __init__(self, label: str, body: Callable[[], object], daemon: bool) -> None:
        self.label = label
        self.daemon = daemon
        self.steps = 0
        self.crash_at = 0
        self.dead = False
        self.done = False
        self.failure: BaseException | None = None
        self.says = ""
        self.line: Place | None = None
        self.step: Step | None = None
        self.until: Callable[[], bool] | None = None
        self._body = body
        self._last_words = 0
        self._go = threading.Semaphore(0)
        self._back = threading.Semaphore(0)
        self._thread: threading.Thread | None = None

    @property
    def ready(self) -> bool:
        """Whether it can go on."""
        return not self.done and (self.until is None or self.until())

    @property
    def ident(self) -> int | None:
        """Number of the system's thread; None before it has begun."""
        return None if self._thread is None else self._thread.ident

    def resume(self) -> None:
        """Let it run up to where it hands over next, or to its end."""
        if self._thread is None:
            if self.dead:
                self.done = True
                return
            self._thread = threading.Thread(target=self._run, name=self.label, daemon=True)
            self._thread.start()
        else:
            self._go.release()
        self._back.acquire()
        if self.done and not self._last_words >= _PATIENCE:
            self._thread.join()

    def _run(self) -> None:
        try:
            self._body()
        except Killed:
            pass
        except BaseException as failure:
            if not self.dead:
                self.failure = failure
        finally:
            self.done = True
            self._back.release()

    def hand_over(self) -> None:
        """Called by the thread itself: others go on, until it is its turn again.

        Raises:
            Killed: it has none any more.
        """
        self.check_alive()
        self._back.release()
        self._go.acquire()
        self.check_alive()

    def check_alive(self) -> None:
        if not self.dead:
            return
        self._last_words += 1
        if self._last_words >= _PATIENCE:
            # It catches what ends it, again and again.  Nobody waits for it any more, and it never goes on.
            self.done = True
            self._back.release()
            self._go.acquire()
        raise Killed


class Scheduler:
    """The threads of one world.

    Args:
        seed: of the order in which they go on.
        step_limit: steps of all together, and calls of the test itself, before a run is given up.
        pass_time: move the clock to the next deadline; False if there is none.
        crash: kill a thread that is not the caller, at the step that was chosen for it.
    """

    def __init__(
        self, seed: int, step_limit: int, pass_time: Callable[[], bool], crash: Callable[[Thread], object]
    ) -> None:
        self.threads: list[Thread] = []
        self._living: list[Thread] = []
        self.running: Thread | None = None
        self.steps = 0
        self.order: list[str] = []
        self._own_traps = 0
        self._last: deque[Step] = deque(maxlen=LAST)
        self._random = random.Random(seed)
        self._step_limit = step_limit
        self._pass_time = pass_time
        self._crash = crash
        self._owner = threading.get_ident()

    def add(self, label: str, body: Callable[[], object], daemon: bool) -> Thread:
        """A thread that begins when somebody waits."""
        thread = Thread(label, body, daemon)
        self.threads.append(thread)
        self._living.append(thread)
        return thread

    def at_trap(self) -> None:
        """The calling thread is about to make a trap: this is where others may go first.

        Raises:
            Killed: the caller was killed.
            Livelock: the caller is the test itself, and makes calls for ever.
        """
        thread = self._caller()
        if thread is not None:
            thread.line = user_line()
            thread.hand_over()
            return
        self._own_traps += 1
        if self._own_traps % max(self._step_limit, _OWN_TRAPS) == 0:
            # Not at each one after that: what the test closes now is closed.
            raise Livelock(
                f"the test itself made {self._own_traps} calls and is not done, now at {user_line()}; give the world a "
                "higher step_limit if that is right"
            )

    def wait(self, until: Callable[[], bool], says: Callable[[], str]) -> None:
        """Let others go on until something is true.

        Args:
            says: what the caller waits for, in words.

        Raises:
            Deadlock: it never will be.
            Killed: the caller was killed.
        """
        thread = self._caller()
        if thread is None:
            self.run(until, says)
            return
        if until():
            return
        thread.until, thread.line = until, user_line()
        thread.says = text = says()
        if thread.step is None or thread.step.line != thread.line or thread.step.says is str:
            # It waits for something else than the answer to its call.
            thread.step = Step(thread.label, thread.line)
            thread.step.says = lambda: f"waiting {text}"
        try:
            thread.hand_over()
        finally:
            thread.until, thread.says = None, ""

    def run(self, until: Callable[[], bool], says: Callable[[], str] = str) -> None:
        """From the test itself: let all go on, one at a time, until something is true."""
        # Rights that are forgotten are given up when they are collected; in a circle, that would be at any time.
        collects = gc.isenabled()
        gc.disable()
        try:
            while not until():
                self._living = [thread for thread in self._living if not thread.done]
                ready = [thread for thread in self._living if thread.ready]
                if ready:
                    self._step(ready[0] if len(ready) == 1 else self._random.choice(ready))
                elif not self._pass_time():
                    raise self._deadlock(says())
        finally:
            if collects:
                gc.enable()

    def all_done(self) -> bool:
        """Whether only daemons are left."""
        return all(thread.done or thread.daemon for thread in self._living)

    def _step(self, thread: Thread) -> None:
        if self.steps >= self._step_limit:
            raise Livelock(
                f"the processes made {self.steps} steps and are not done; give the world a higher step_limit if that "
                f"is right; of the last {len(self._last)} steps\n" + "\n".join(f"  {line}" for line in tell(self._last))
            )
        self.steps += 1
        thread.steps += 1
        self.order.append(thread.label)
        if thread.step is None or thread.until is None:
            thread.step = Step(thread.label, thread.line)
        self._last.append(thread.step)
        if thread.steps == thread.crash_at:
            self._crash(thread)
        else:
            self._resume(thread)

    def unwind(self, thread: Thread) -> None:
        """Let a thread that is not to make any trap more run to its end.

        Raises:
            Killed: the thread is the caller.
        """
        thread.dead = True
        if thread is self.running:
            raise Killed
        if not thread.done:
            self._resume(thread)

    def check_alive(self) -> None:
        """Look whether the calling thread may do anything at all.

        Raises:
            Killed: it was killed.
        """
        if self.running is not None:
            self.running.check_alive()

    def _resume(self, thread: Thread) -> None:
        before, self.running = self.running, thread
        try:
            thread.resume()
        finally:
            self.running = before

    def _caller(self) -> Thread | None:
        """The thread that calls; None for the test itself.

        Raises:
            InvalidArgument: it is neither.
        """
        running = self.running
        if threading.get_ident() == (self._owner if running is None else running.ident):
            if running is not None:
                running.check_alive()
            return running
        raise InvalidArgument("a thread of its own takes no turns in a world; start it by world.process(function)")

    def _deadlock(self, says: str) -> Deadlock:
        lines = [f"the test waits {says}, at {user_line()}"] if says else []
        for thread in self.threads:
            if not thread.done:
                lines.append(f"{thread.label} waits {thread.says}, at {thread.line}")
        failed = [thread for thread in self.threads if thread.failure is not None]
        lines += [f"{thread.label} has ended with {thread.failure!r}" for thread in failed]
        error = Deadlock("nobody can go on\n" + "\n".join(f"  {line}" for line in lines))
        if failed:
            error.__cause__ = failed[0].failure
        return error
