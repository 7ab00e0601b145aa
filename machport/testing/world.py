"""A world: an embedded kernel, its tasks, and processes that take turns."""

from __future__ import annotations

import os
import signal
import traceback
from collections import Counter, deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from machport.abi import constants as c
from machport.abi import traps as t
from machport.abi.errors import DeadTask, InvalidArgument, error_for
from machport.abi.limits import Limits
from machport.abi.traps import Payload
from machport.client.process import process_task
from machport.face.blocking import Task
from machport.face.closing import Closing
from machport.face.rights import Right
from machport.face.task import AnyTask
from machport.kernel import invariants, phase
from machport.kernel.port import Port
from machport.kernel.space import Entry
from machport.kernel.task import Task as KernelTask
from machport.testing import transcript
from machport.testing.errors import BrokenInvariant, Leak
from machport.testing.machine import PID, Call, Machine
from machport.testing.places import Place, user_line
from machport.testing.scheduler import Scheduler, Thread
from machport.testing.tasks import Arrival, WorldTask, arrive, giver

#: Steps of all processes together after which a run is given up.
STEP_LIMIT: Final = 20_000
_KINDS: Final = {
    c.MACH_PORT_TYPE_SEND: "send right",
    c.MACH_PORT_TYPE_RECEIVE: "receive right",
    c.MACH_PORT_TYPE_SEND_RECEIVE: "receive right and send right",
    c.MACH_PORT_TYPE_SEND_ONCE: "send-once right",
    c.MACH_PORT_TYPE_PORT_SET: "port set",
    c.MACH_PORT_TYPE_DEAD_NAME: "dead name",
}


class Held(NamedTuple):
    """A name that a task holds.

    Attributes:
        task: label of the task.
        name: the name in its space.
        kind: what it denotes, in words.
        refs: user references of it.
        port: what is known of the port: its label, its service, or where it was allocated.
    """

    task: str
    name: int
    kind: str
    refs: int
    port: str

    def __str__(self) -> str:
        references = f", {self.refs} references" if self.refs > 1 else ""
        return f"{self.task} holds {self.kind} {self.name:#x}{references}: {self.port}"


class Process:
    """A process of a world; it begins when the test waits or runs the world.

    Attributes:
        label: its function's name, or what it was called; with a number behind it if the world has several.
        task: its task, of which it has rights; ends with it.
        steps: how often it was let go on so far: at its start, before each trap, and after each wait.
    """

    def __init__(self, world: World, thread: Thread, task: WorldTask) -> None:
        self._world = world
        self._exitcode: int | None = None
        self.thread = thread
        self.task = task

    @property
    def label(self) -> str:
        return self.thread.label

    @property
    def name(self) -> str:
        return self.thread.label

    @property
    def steps(self) -> int:
        return self.thread.steps

    @property
    def pid(self) -> int:
        """Its number, as messages have it that it sends."""
        return self.task.kernel_task.tokens[PID]

    @property
    def exitcode(self) -> int | None:
        """0 when its function has returned, 1 if that raised, -9 if it was killed; None while it runs."""
        return self._exitcode

    @property
    def failure(self) -> BaseException | None:
        """What its function raised; once looked at, it fails neither ``run`` nor the end of the world."""
        self._world.seen(self)
        return self.thread.failure

    def is_alive(self) -> bool:
        return self._exitcode is None

    def kill(self) -> None:
        """End it here and now, as SIGKILL does; nothing happens if it has ended."""
        self._world.kill(self)

    def terminate(self) -> None:
        """The same by SIGTERM."""
        self._world.kill(self, signal.SIGTERM)

    def join(self, timeout: float | None = None) -> int | None:
        """Let processes run until this one has ended; its exit code, None if it has not in ``timeout`` seconds."""
        self._world.wait_for(lambda: self._exitcode is not None, f"for the end of {self.label}", timeout)
        return self._exitcode

    def ended(self, exitcode: int) -> None:
        if self._exitcode is None:
            self._exitcode = exitcode

    def __repr__(self) -> str:
        state = "runs" if self._exitcode is None else f"ended with {self._exitcode}"
        return f"<Process {self.label}, step {self.steps}, {state}>"


class World(Closing):
    """A kernel without a daemon, tasks without processes, and processes that take turns in an order drawn by a seed.

    Args:
        seed: the same seed gives the same order, always.
        step_limit: steps of all processes together after which a run is given up as endless; and calls of the test
            itself.
    """

    def __init__(self, seed: int = 0, *, step_limit: int = STEP_LIMIT) -> None:
        self.seed = seed
        self.processes: list[Process] = []
        self._process_of: dict[Thread | None, Process] = {}
        #: How many processes were called the same.
        self._same: Counter[str] = Counter()
        self.machine = Machine()
        self._scheduler = Scheduler(seed, step_limit, self._pass_time, self._crash)
        self._tasks: dict[KernelTask, WorldTask] = {}
        self._owners: dict[KernelTask, Thread | None] = {}
        self._ended: set[KernelTask] = set()
        self._calls: dict[Thread | None, Call] = {}
        #: Threads that receive for watches, and whose they are; None for the test's own.
        self._helped: dict[Thread, Thread | None] = {}
        self._forgotten: deque[tuple[KernelTask, int, int]] = deque()
        self._timers: dict[object, int] = {}
        self._crashes: dict[str, int] = {}
        self._labels: dict[Port, str] = {}
        #: Ports that were sent to or received from, by task and name.
        self._names: dict[tuple[KernelTask, int], Port] = {}
        self._places: dict[Port, Place | None] = {}
        self._known: set[Port] = set()
        self._seen: set[Process] = set()
        self._root: WorldTask | None = None
        self._closed = False
        #: How many events there were when the world was closed; None before.
        self._last: int | None = None

    # Tasks and processes

    def task(self, label: str = "task") -> WorldTask:
        """A task of the calling process, or of the test itself: a ``machport.Task`` like any other."""
        self._check_open()
        task = self.machine.begin_task(self._numbered(label), self._tokens())
        return self._enter(task, self._scheduler.running)

    def _enter(self, task: KernelTask, owner: Thread | None) -> WorldTask:
        self._tasks[task] = WorldTask(self, task)
        self._owners[task] = owner
        return self._tasks[task]

    def _tokens(self) -> tuple[int, ...]:
        uid, gid, pid = os.geteuid(), os.getegid(), len(self.machine.members) + 1
        return (uid, gid, uid, uid, gid, uid, gid, pid, 0, 0)

    def _numbered(self, label: str) -> str:
        return f"{label}[{len(self.machine.members) + 1}]"

    def _check_open(self) -> None:
        if self._closed:
            raise DeadTask("the world has ended")

    def process(
        self, function: Callable[..., object], *args: Any, label: str | None = None, daemon: bool = False
    ) -> Process:
        """A process that calls ``function(*args)``, with a task of its own, and may ask for services by name.

        Rights go as ``right.move()`` or ``right.copy()``, all of one task, and arrive as rights of the process's own,
        which is ``task_self()`` there.

        Args:
            label: what people call it; the function's name by default.
            daemon: ``run`` does not wait for its end.
        """
        self._check_open()
        if not callable(function):
            raise InvalidArgument(f"a process needs a function, not {function!r}; write process(f, arg)")
        maker = giver(args) or self._maker()
        name, process = self.start(maker, function, args, {}, bootstrap=True, label=label, daemon=daemon)
        maker.calls.mach_port_deallocate(maker.name, name)
        return process

    def _maker(self) -> WorldTask:
        """The task that makes processes to which no right is given."""
        running = self._scheduler.running
        if running in self._process_of:
            return self._process_of[running].task
        if self._root is None:
            self._root = self.task("world")
        return self._root

    def start(
        self,
        maker: WorldTask,
        function: Callable[..., object],
        args: Sequence[Any],
        kwargs: dict[str, Any],
        *,
        bootstrap: bool,
        label: str | None,
        daemon: bool,
        limits: Limits | None = None,
    ) -> tuple[int, Process]:
        """Make a task, give it the rights among the arguments, and a process that has it; the maker's name for it."""
        calls = maker.calls
        child = calls.task_create(maker.name)
        arrival = Arrival(maker, child)
        try:
            if limits is not None:
                calls.task_set_limits(child, limits)
            if bootstrap:
                port = maker.bootstrap
                if port is not None:
                    with port:
                        calls.task_set_special_port(child, c.TASK_BOOTSTRAP_PORT, port.name)
            carried = arrival.carry((tuple(args), kwargs))
        except BaseException:
            arrival.handover.undo()
            calls.task_terminate(child)
            calls.mach_port_deallocate(maker.name, child)
            raise
        label = label or str(getattr(function, "__name__", type(function).__name__))
        kernel_task = self.machine.claim(maker.kernel_task, child, self._numbered(label), self._tokens())
        # A name of its own for each, by which it can be told to crash.
        self._same[label.partition("#")[0]] += 1
        count = self._same[label]
        label = f"{label}#{count}" if count > 1 else label
        arrival.handover.done()
        process = self._new_process(function, carried, kernel_task, label, daemon)
        return child, process

    def _new_process(
        self, function: Callable[..., object], carried: Any, kernel_task: KernelTask, label: str, daemon: bool
    ) -> Process:
        def body() -> None:
            process_task.play(task, task.carrier)
            args, kwargs = arrive(task, carried)
            exitcode = 1
            try:
                function(*args, **kwargs)
                exitcode = 0
            except SystemExit as end:
                exitcode = end.code if isinstance(end.code, int) else int(end.code is not None)
            finally:
                if not thread.dead:
                    process.ended(exitcode)
                    self._end_tasks_of(thread, exitcode << 8 & 0xFFFF, ())

        thread = self._scheduler.add(label, body, daemon)
        thread.crash_at = self._crashes.get(label, 0)
        task = self._enter(kernel_task, thread)
        process = Process(self, thread, task)
        self.processes.append(process)
        self._process_of[thread] = process
        return process

    def begin_thread(self, label: str, body: Callable[[], object]) -> None:
        """One more thread of the calling process, or of the test itself, for which nobody waits."""
        running = self._scheduler.running
        self._helped[self._scheduler.add(label, body, daemon=True)] = running

    # What tasks do

    def carry(
        self, task: KernelTask, payload: Payload, descriptors: Sequence[int]
    ) -> tuple[list[bytes], Sequence[int]]:
        """Carry out a trap of the calling thread, and wait for its answer: the answers, and descriptors with them."""
        self._scheduler.at_trap()
        self._give_up_forgotten()
        self._check_task(task)
        call = self.machine.trap(task, payload, [os.dup(descriptor) for descriptor in descriptors])
        self._tell(call)
        if call.port is not None:
            self._places[call.port] = user_line()
        if call.answers is None:
            self._wait_for_call(call)
        if not call.answers:
            raise DeadTask("the task was closed, or its process has ended", task=task.label)
        return call.answers, [os.dup(descriptor) for descriptor in call.descriptors]

    def _tell(self, call: Call) -> None:
        """The present step makes a call, about which people may ask when its names are of something else."""
        running = self._scheduler.running
        if running is None or running.step is None:
            return
        number = t.number_of(call.payload)
        port: Port | None = None
        if number == t.MACH_MSG:
            msg = t.unpack_msg(call.payload)
            sends, receives = msg.option & c.MACH_SEND_MSG, msg.option & c.MACH_RCV_MSG
            what = "in call to" if sends and receives else "in send to" if sends else "in receive at"
            name = _destination(call.payload) if sends else msg.rcv_name
            port = self._named_port(call.task, name)
            running.step.says = lambda: f"{what} {self._describe(port) if port is not None else f'name {name:#x}'}"
        else:
            running.step.says = lambda: f"in {t.TRAPS[number].call}"
        running.step.error = lambda: _error(call)

    def _named_port(self, task: KernelTask, name: int) -> Port | None:
        entry = task.space.lookup(name)
        if entry is None:
            return None
        if entry.port is not None:
            self._names[task, name] = entry.port
        # A dead name is what it was before.
        return self._names.get((task, name))

    def _check_task(self, task: KernelTask) -> None:
        running = self._scheduler.running
        if not self.lives(task):
            raise DeadTask("the task was closed, or its process has ended", task=task.label)
        if running is not None and self._owners[task] is not self._helped.get(running, running):
            raise InvalidArgument(
                f"process {running.label} uses a right of task {task.label}; give it right.move() or right.copy(), as "
                "an argument or in a message",
                task=task.label,
            )

    def _wait_for_call(self, call: Call) -> None:
        running = self._scheduler.running
        self._calls[running] = call
        try:
            self._scheduler.wait(lambda: call.answers is not None, lambda: self._says(call))
        finally:
            self._calls.pop(running, None)
            if call.answers is None:
                self.machine.abandon(call)

    def interrupt(self, ident: int) -> None:
        """Let the call that a thread waits in return, as ``thread_abort``."""
        self._scheduler.at_trap()
        for thread, call in self._calls.items():
            if thread is not None and thread.ident == ident and call.answers is None:
                self.machine.interrupt(call)
                return

    def forget(self, task: KernelTask, name: int, kind: int) -> None:
        """A task gives up a right whose object was collected: before the next trap of anybody, or when all wait."""
        self._forgotten.append((task, name, kind))

    def _give_up_forgotten(self) -> None:
        while self._forgotten:
            task, name, kind = self._forgotten.popleft()
            if self.lives(task):
                self.machine.trap(task, t.FORGET.pack(words=[name, kind]))

    def lives(self, task: KernelTask) -> bool:
        """Whether a task has not ended with its process."""
        return task not in self._ended

    # Ends

    def abandon(self, task: Task) -> None:
        """End a task as the death of its process does: by ``kill`` if it has one in this world.

        Its rights die in order, a receive right with a port-destroyed request goes there with its queue, and whoever
        waits for an answer is told that none comes.
        """
        own = self._own(task)
        for process in self.processes:
            if process.task is own:
                self.kill(process)
        self.end(own.kernel_task, signal.SIGKILL)

    def _own(self, task: AnyTask) -> WorldTask:
        if not isinstance(task, WorldTask) or task.kernel_task not in self._tasks:
            raise InvalidArgument(f"{task!r} is not of this world")
        return task

    def end(self, task: KernelTask, status: int | None = None) -> None:
        """A task ends, because it was closed unless ``status`` says how its process ended."""
        self._scheduler.check_alive()
        self._end_task(task, status, ())

    def _end_task(self, task: KernelTask, status: int | None, unread: Sequence[Call]) -> None:
        if self.lives(task):
            self._ended.add(task)
            del self._owners[task]
            self.machine.end_task(task, status, unread)

    def kill(self, process: Process, number: int = signal.SIGKILL) -> None:
        """End a process here and now: nothing more of it runs but what unwinds its threads.

        A message that was handed to it and that it had not read is in its queue again.
        """
        self._scheduler.check_alive()
        if process.thread.done:
            return
        process.ended(-number)
        threads = [*[helper for helper, helped in self._helped.items() if helped is process.thread], process.thread]
        calls = [self._calls[thread] for thread in threads if thread in self._calls]
        for thread in threads:
            thread.dead = True
        self._end_tasks_of(process.thread, number, [call for call in calls if call.answers is not None])
        # The caller's own thread is the last, because it does not come back.
        running = self._scheduler.running
        for thread in sorted(threads, key=lambda thread: thread is running):
            self._helped.pop(thread, None)
            self._scheduler.unwind(thread)

    def _end_tasks_of(self, thread: Thread, status: int, unread: Sequence[Call]) -> None:
        for task, owner in list(self._owners.items()):
            if owner is thread:
                self._end_task(task, status, [call for call in unread if call.task is task])

    def _crash(self, thread: Thread) -> None:
        self.kill(self._process_of[thread])

    def crash_at(self, process: Process | str, step: int) -> None:
        """Kill a process, or the one that will have a label, when it would begin its ``step``-th step (from 1)."""
        if step < 1:
            raise InvalidArgument(f"steps are counted from 1, and {step} is none")
        label = process if isinstance(process, str) else process.label
        self._crashes[label] = step
        for known in self.processes:
            if known.label == label:
                known.thread.crash_at = step

    # Time and turns

    @property
    def now(self) -> float:
        """Virtual time in seconds since the world began.  It passes only while everybody waits."""
        return self.machine.now / 1000

    def sleep(self, seconds: float) -> None:
        """Let virtual time pass for the caller, and others go on."""
        self._wait_until(lambda: False, lambda: f"for {seconds} s to pass", seconds)

    def wait_for(self, until: Callable[[], bool], says: str, timeout: float | None = None) -> None:
        """Let others go on until something is true, or until ``timeout`` seconds have passed."""
        self._scheduler.at_trap()
        if timeout is None:
            self._scheduler.wait(until, lambda: says)
            return
        self._wait_until(until, lambda: says, timeout)

    def _wait_until(self, until: Callable[[], bool], says: Callable[[], str], seconds: float) -> None:
        end, timer = self.machine.now + round(seconds * 1000), object()
        self._timers[timer] = end
        try:
            self._scheduler.wait(lambda: until() or self.machine.now >= end, says)
        finally:
            del self._timers[timer]

    def _pass_time(self) -> bool:
        """Everybody waits: it becomes the next moment for which somebody does."""
        if self._forgotten:
            self._give_up_forgotten()
            return True
        call = self.machine.next_deadline()
        moments = [*self._timers.values(), *([] if call is None or call.deadline is None else [call.deadline])]
        if not moments:
            return False
        self.machine.pass_time(max(self.machine.now, min(moments)))
        if call is not None and call.deadline is not None and call.deadline <= self.machine.now:
            self.machine.expire(call)
        return True

    def run(self) -> None:
        """Let all processes take turns until every one has ended that is not a daemon.

        Raises:
            Deadlock: nobody can go on; the text says who waits for what, and where.
            Livelock: they made as many steps as the world allows.
            BaseException: what the function of a process raised.
        """
        if self._scheduler.running is not None:
            raise InvalidArgument("a process of the world cannot run it; it is run already")
        self._scheduler.run(self._scheduler.all_done)
        self._raise_failure()

    def _raise_failure(self) -> None:
        for process in self.processes:
            failure = process.thread.failure
            if failure is not None and process not in self._seen:
                self._seen.add(process)
                failure.add_note(f"in process {process.label} of the world with seed {self.seed}")
                raise failure

    def seen(self, process: Process) -> None:
        """Somebody has looked at how a process failed."""
        self._seen.add(process)

    @property
    def interleaving(self) -> list[str]:
        """Labels of the processes in the order in which they were let go on."""
        return list(self._scheduler.order)

    # Looking at it

    def label(self, right: Right, label: str) -> None:
        """Call a right's port by a name of its own in what people read."""
        port = self._port_of(right)
        if port is not None:
            self._labels[port] = label

    def _port_of(self, right: Right) -> Port | None:
        entry = self._own(right.task).kernel_task.space.lookup(right.name)
        return None if entry is None else entry.port

    def _describe(self, port: Port | None) -> str:
        """A port in words: its label, its service, or where it was allocated."""
        if port is None:
            return "nothing that is known"
        kobject = port.kobject
        if kobject is not None:
            return f"task {kobject.label}" if isinstance(kobject, KernelTask) else "an open file"
        label = self._labels.get(port, port.label)
        if label:
            return repr(label)
        service = self.machine.service_of(port)
        if service is not None:
            return f"the service {service!r}"
        if port is self.machine.bootstrap.port:
            return "the service of names"
        place = self._places.get(port)
        return "a port" if place is None else f"the port allocated at {place}"

    def _receiver(self, port: Port) -> str:
        if not port.active:
            return "which is dead"
        if port.receiver is None:
            return "whose receive right is on its way in a message"
        return (
            "of which the kernel is the receiver"
            if port.receiver.task is None
            else (f"whose receiver is {port.receiver.task.label}")
        )

    def _says(self, call: Call) -> str:
        """What a call waits for, in words."""
        waiter = call.waiter
        assert waiter is not None
        if waiter.phase == phase.SEND:
            assert waiter.message is not None
            port = waiter.message.remote
            assert port is not None
            return f"in send for room in the queue of {self._describe(port)}, {self._receiver(port)}"
        entry = call.task.space.lookup(waiter.rcv_name)
        assert entry is not None
        if waiter.option & c.MACH_SEND_MSG and entry.port is not None:
            asked = call.task.space.lookup(_destination(call.payload))
            if asked is not None and asked.port is not None:
                return f"in call for the answer of {self._describe(asked.port)}, {self._receiver(asked.port)}"
        what = "a port set" if entry.pset is not None else self._describe(entry.port)
        return f"in receive for a message at {what}, name {waiter.rcv_name:#x}"

    def check(self) -> None:
        """Look whether all counts add up, every right has one holder, and every send-once right gave its one message.

        Raises:
            BrokenInvariant: they do not; the kernel is at fault.
        """
        try:
            invariants.check(self.machine.kernel, self._known, Counter())
        except BrokenInvariant as error:
            source = traceback.extract_tb((error.__cause__ or error).__traceback__)[-1].line
            raise BrokenInvariant(f"in the kernel this does not hold: {source}") from error
        for port in self.machine.send_once.unanswered:
            raise BrokenInvariant(f"a send-once right to {self._describe(port)} went without a message (N50)")

    def leaks(self) -> list[Held]:
        """What tasks hold that have not ended, without their rights to themselves and ports for their next answers."""
        self._give_up_forgotten()
        held = []
        for kernel_task, task in self._tasks.items():
            if self.lives(kernel_task) and task is not self._root:
                spare = task.free_reply_ports()
                for entry in kernel_task.space.living_entries():
                    is_own = entry.port is not None and entry.port.kobject is kernel_task
                    if not is_own and entry.name not in spare:
                        held.append(self._held(kernel_task, entry))
        return held

    def _held(self, task: KernelTask, entry: Entry) -> Held:
        if entry.pset is not None:
            says = f"{len(entry.pset.members)} members"
        else:
            says = self._describe(entry.port) if entry.port is not None else "its port died"
        return Held(task.label, entry.name, _KINDS[entry.type], max(entry.urefs, 1), says)

    def assert_clean(self) -> None:
        """Look whether tasks that have not ended hold nothing.

        Raises:
            Leak: one does; the text says what, and where its port was allocated.
        """
        held = self.leaks()
        if held:
            raise Leak("rights were left:\n" + "\n".join(f"  {each}" for each in held))

    def record(self, path: Path | str) -> None:
        """Write what has happened since the world began as a transcript for ``machport replay``.

        How tasks end when the world is closed is not in it.
        """
        Path(path).write_text("\n".join(self.transcript()) + "\n")

    def transcript(self) -> list[str]:
        """The same as lines."""
        crashes = "".join(f" crash={label}@{step}" for label, step in self._crashes.items())
        return transcript.lines(f"seed={self.seed}{crashes}", self.machine.events[: self._last])

    # The end

    def end_processes(self) -> None:
        """Kill every process that still runs, the newest first."""
        for process in reversed(self.processes):
            self.kill(process)

    def close(self) -> None:
        """End everything: processes are killed, tasks end, files are closed."""
        if self._closed:
            return
        self._closed = True
        self._last = len(self.machine.events)
        self.end_processes()
        for task in self.machine.members:
            self._end_task(task, None, ())
        for thread in self._scheduler.threads:
            self._scheduler.unwind(thread)

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self.close()
        if error is None:
            self._raise_failure()
            return
        for process in self.processes:
            if process.thread.failure is not None and process.thread.failure is not error:
                error.add_note(f"process {process.label} had ended with {process.thread.failure!r}")

    def __repr__(self) -> str:
        return f"<World seed={self.seed} of {len(self.processes)} processes>"


def _destination(payload: bytes) -> int:
    """The name that a ``mach_msg`` sends to."""
    return int.from_bytes(t.unpack_msg(payload).buffer[8:12], "little")


def _error(call: Call) -> str:
    """The name of the exception that a call was answered with; "" if it was not refused."""
    code = t.number_of(call.answers[0]) if call.answers else 0
    return type(error_for(code)).__name__ if code else ""
