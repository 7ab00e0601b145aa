"""Child processes that hold just the rights they were given: functions of this program, and other programs.

The parent makes the child's task and puts rights into it; the child's process claims the task by a ticket.  A function
runs in a process of ``multiprocessing`` with its spawn method, and finds rights among its arguments; a program is
started by ``subprocess``, and finds them by ``inherited``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from machport.abi import constants as c
from machport.abi.errors import ConfinementUnavailable, DeadTask, InvalidArgument, InvalidRight, ProgramNotStarted
from machport.abi.limits import Limits
from machport.client import inheritance
from machport.client.connection import Connection
from machport.client.process import process_task
from machport.face import pickling
from machport.face.handover import Handover, right_of_child
from machport.face.rights import AnySendRight, Right, Transfer

if TYPE_CHECKING:
    from machport.confinement.policy import Confinement
    from machport.face.child import Child, Process, Program
    from machport.face.dataqueue import DataQueue
    from machport.face.task import AnyTask

#: What may be given beside the list of a program: they are those of ``subprocess.Popen``.
_PROGRAM_OPTIONS = ("env", "cwd", "stdin", "stdout", "stderr")
#: In the flags of a function's code: calling it runs nothing yet.
_IS_COROUTINE = 0x80
_IS_ASYNC_GENERATOR = 0x200
#: Processes of ``multiprocessing`` that were started here.
_processes: weakref.WeakSet[Any] = weakref.WeakSet()


def _forked() -> None:
    """In a forked child: they are the parent's, and ``multiprocessing`` would end them when the child exits."""
    getattr(sys.modules.get("multiprocessing.process"), "_children", set()).difference_update(_processes)


os.register_at_fork(after_in_child=_forked)


class _Membership:
    """The first thing a child unpickles: it joins the daemon as the task that its parent made."""

    def __init__(self, path: Path, ticket: bytes, label: str, confinement: dict[str, Any] | None) -> None:
        self._arguments = (path, ticket, label, confinement)

    def __reduce__(self) -> Any:
        return _join, self._arguments


class _ConfinedName(str):
    """The name of a process that is confined, with its membership: it comes there before any other module is imported.

    It comes once more with the function, as the membership does itself.
    """

    def __new__(cls, name: str, membership: _Membership) -> _ConfinedName:
        named = super().__new__(cls, name)
        named._membership = membership
        return named

    _membership: _Membership

    def __reduce__(self) -> Any:
        return _name_of, (str(self), self._membership)


def _name_of(name: str, membership: None) -> str:
    return name


_joined = False


def _join(path: Path, ticket: bytes, label: str, confinement: dict[str, Any] | None) -> None:
    global _joined
    if _joined:
        return
    process_task.join(Connection(label, ticket, path))
    if confinement is not None:
        from machport.confinement.applying import apply

        _leave_tracker()
        apply(**confinement)
    _joined = True


def _leave_tracker() -> None:
    """The parent's process that takes away shared memory by its name would take away anybody's."""
    from multiprocessing import resource_tracker

    tracker: Any = resource_tracker._resource_tracker
    descriptor, tracker._fd = tracker._fd, None
    if descriptor is not None:
        os.close(descriptor)


def _run(
    membership: None, awaited: bool, target: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]
) -> None:
    # A terminal's interrupt goes to the whole group; it is the parent's to decide what becomes of the child.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        if awaited:
            import asyncio

            asyncio.run(target(*args, **kwargs))
        else:
            target(*args, **kwargs)
    finally:
        # Whoever has the other ends of its data queues shall see whether it ended in order.
        queue = sys.modules.get("machport.dataqueue.queue")
        if queue is not None:
            queue.close_in_order()


class _Start:
    """A task that waits for its process, and the rights that are put into it.

    Attributes:
        child: the parent's name for the task.
    """

    def __init__(self, task: AnyTask, form: type[AnyTask] | None) -> None:
        self.task = task
        self.child = task.calls.task_create(task.name)
        self.handover = Handover(task, self.child, form)
        self._process: Process | None = None

    def give_bootstrap(self) -> None:
        with self.task.bootstrap or contextlib.nullcontext() as port:
            name = c.MACH_PORT_NULL if port is None else port.name
            self.task.calls.task_set_special_port(self.child, c.TASK_BOOTSTRAP_PORT, name)

    def started(self, process: Process) -> None:
        """Let the child's rights go if its process dies before it is a task's."""
        self._process = process
        assert process.pid is not None
        try:
            pidfd = os.pidfd_open(process.pid)
        except ProcessLookupError:
            # It has ended, and another thread has collected it.
            self.task.calls.task_terminate(self.child)
            return
        try:
            # It may have joined and ended already, and its task with it.
            with contextlib.suppress(DeadTask):
                self.task.calls.watch(self.child, pidfd)
        finally:
            os.close(pidfd)

    def undo(self) -> None:
        """There is no child: everything is as it was."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
        self.handover.undo()
        self.task.calls.task_terminate(self.child)
        self.task.calls.mach_port_deallocate(self.task.name, self.child)

    def done(self) -> AnySendRight:
        """The child has started; the right to its task."""
        self.handover.done()
        return self.task.send_kind(self.task, self.child)


@contextlib.contextmanager
def _starting(task: AnyTask, bootstrap: bool, form: type[AnyTask] | None, limits: Limits | None) -> Iterator[_Start]:
    start = _Start(task, form)
    try:
        if limits is not None:
            task.calls.task_set_limits(start.child, limits)
        if bootstrap:
            start.give_bootstrap()
        yield start
    except BaseException:
        start.undo()
        raise


def start_child(
    task: AnyTask,
    target: Callable[..., object] | Sequence[str],
    args: Sequence[Any],
    kwargs: dict[str, Any],
    *,
    rights: Mapping[str, Transfer],
    bootstrap: bool,
    confined: Confinement | bool,
    limits: Limits | None,
) -> Child:
    """What ``Task.spawn`` does."""
    _check_rights(rights)
    if limits is not None and not isinstance(limits, Limits):
        raise InvalidArgument(f"limits= is Limits(names=100), or the like, not {limits!r}")
    confinement = _checked_confinement(confined)
    if callable(target):
        form = _form_for(task, target)
        both = sorted(set(rights) & set(kwargs))
        if both:
            raise InvalidArgument(f"{both[0]!r} is given as an argument and in rights=")
        return _start_function(task, target, args, {**kwargs, **rights}, bootstrap, form, confinement, limits)
    argv = _checked_argv(target)
    if args:
        raise InvalidArgument(f"the arguments of a program belong into its list, not behind it: {args!r}")
    unknown = sorted(set(kwargs) - set(_PROGRAM_OPTIONS))
    if unknown:
        raise InvalidArgument(
            f"a program is started with {', '.join(_PROGRAM_OPTIONS)}; {unknown[0]!r} is none of them"
        )
    return _start_program(task, argv, rights, kwargs, bootstrap, confinement, limits)


def _start_function(
    task: AnyTask,
    target: Callable[..., object],
    args: Sequence[Any],
    kwargs: dict[str, Any],
    bootstrap: bool,
    form: type[AnyTask] | None,
    confinement: dict[str, Any] | None,
    limits: Limits | None,
) -> Child:
    # Imported only here: most tasks start no child, and this is the larger part of the import time.
    import multiprocessing

    from machport.face.child import Child

    if multiprocessing.current_process().daemon:
        raise InvalidArgument(
            "this process is a child that ends with its parent, and starts no functions in children of its own; start a"
            " program by its list, or let the parent start them",
            call="spawn",
            task=task.label,
        )
    label = getattr(target, "__name__", type(target).__name__)
    with _starting(task, bootstrap, form, limits) as start:
        membership = _Membership(task.path, task.calls.ticket(start.child), label, confinement)
        process = multiprocessing.get_context("spawn").Process(
            target=_run,
            args=(membership, form is not None, target, args, kwargs),
            name=label if confinement is None else _ConfinedName(label, membership),
            daemon=True,
        )
        pickling.register()
        _processes.add(process)
        with pickling.carried_by(start.handover):
            process.start()
        # Whoever pickles it from now on means the name.
        process.name = label
        start.started(process)
    return Child(process, start.done())


def _start_program(
    task: AnyTask,
    argv: list[str],
    rights: Mapping[str, Transfer],
    options: dict[str, Any],
    bootstrap: bool,
    confinement: dict[str, Any] | None,
    limits: Limits | None,
) -> Child:
    import subprocess

    from machport.face.child import Child, Program

    label = Path(argv[0]).name
    environment = dict(os.environ if options.get("env") is None else options["env"])
    with _starting(task, bootstrap, None, limits) as start:
        named = {name: start.handover.put(transfer) for name, transfer in rights.items()}
        ticket = task.calls.ticket(start.child)
        descriptor, environment[inheritance.VARIABLE] = inheritance.leave(
            inheritance.Inheritance(task.path, ticket, label, named)
        )
        options = {**options, "env": environment}
        try:
            if confinement is None:
                process = Program(subprocess.Popen(argv, **options, pass_fds=(descriptor,)), label)
            else:
                process = _launch_confined(argv, options, descriptor, label, confinement)
        except OSError as error:
            refusal = ProgramNotStarted(f"{argv[0]} was not started: {error.strerror}", call="spawn", task=task.label)
            refusal.errno = error.errno
            raise refusal from error
        except ValueError as error:
            raise InvalidArgument(f"{argv[0]} cannot be started so: {error}", call="spawn", task=task.label) from error
        finally:
            os.close(descriptor)
        start.started(process)
    return Child(process, start.done())


def _launch_confined(
    argv: list[str], options: dict[str, Any], descriptor: int, label: str, confinement: dict[str, Any]
) -> Program:
    """Start a confined program, and return when it is the program.

    Raises:
        OSError: as ``subprocess.Popen``.
        ConfinementUnavailable: as ``confinement.applying.apply``.
        InvalidRight: its task is gone.
    """
    import json
    import subprocess

    from machport.face.child import Program
    from machport.face.launching import command

    failures, end = os.pipe()
    with open(failures, "rb") as heard:
        try:
            process = Program(
                subprocess.Popen(command(confinement, end, argv), **options, pass_fds=(descriptor, end)), label
            )
        finally:
            os.close(end)
        failure = heard.read()
    if not failure:
        return process
    process.process.wait()
    process.close_pipes()
    kind, code, text = json.loads(failure)
    if code:
        raise OSError(code, text)
    if kind:
        raise ConfinementUnavailable(text, call="spawn")
    raise InvalidRight(text, call="spawn")


def _checked_confinement(confined: Any) -> dict[str, Any] | None:
    """The keywords of ``confinement.applying.apply``; None for a child that is not confined.

    Raises:
        ConfinementUnavailable: this system cannot.
        InvalidArgument: it is no confinement, or has a path that is not there.
    """
    if confined is False or confined is None:
        return None
    from machport.confinement.applying import available, check
    from machport.confinement.policy import Confinement

    if confined is True:
        confined = Confinement()
    if not isinstance(confined, Confinement):
        raise InvalidArgument(f"confined= is a Confinement, or True for the strictest; not {confined!r}", call="spawn")
    check(available(), confined.best_effort)
    return confined.resolved()


def _check_rights(rights: Mapping[str, Transfer]) -> None:
    for name, transfer in rights.items():
        if not isinstance(name, str):
            raise InvalidArgument(f"rights= has names for rights, which are strings, not {name!r}")
        if not isinstance(transfer, Transfer):
            raise InvalidArgument(f"rights= has rights as right.move() or right.copy(); {name!r} is {transfer!r}")


def _form_for(task: AnyTask, target: Callable[..., object]) -> type[AnyTask] | None:
    """How the rights of a function that is to run in a process wait; None for as those of ordinary functions do.

    Raises:
        InvalidArgument: nobody would run what it returns.
    """
    function: Any = target
    while hasattr(function, "func"):
        function = function.func
    function = getattr(function, "__func__", function)
    flags = getattr(getattr(function, "__code__", None), "co_flags", 0)
    if flags & _IS_COROUTINE and task.runs_coroutines:
        return type(task)
    if flags & (_IS_COROUTINE | _IS_ASYNC_GENERATOR):
        raise InvalidArgument(
            f"{target!r} is asynchronous, and nobody would run what it returns; spawn a function that calls asyncio.run"
            ", or a coroutine function from a task of machport.aio"
        )
    return None


def _checked_argv(target: Any) -> list[str]:
    if hasattr(target, "cr_code") or hasattr(target, "ag_code"):
        if hasattr(target, "close"):
            target.close()
        raise InvalidArgument(f"spawn needs a function, not what one returned: {target!r}; write spawn(f, arg)")
    if isinstance(target, str | bytes):
        raise InvalidArgument(f"a program is given as a list, as ['program', 'argument'], not as {target!r}")
    if not isinstance(target, Sequence):
        raise InvalidArgument(
            f"spawn needs a function or the list of a program, not {target!r}; write spawn(f, arg), not spawn(f(arg))"
        )
    if not target:
        raise InvalidArgument("the list of a program has the program itself, and then its arguments; this one is empty")
    for argument in target:
        if not isinstance(argument, str | os.PathLike):
            raise InvalidArgument(f"the list of a program has strings, not {argument!r}")
    return [os.fsdecode(argument) for argument in target]


def spawn(
    target: Callable[..., object] | Sequence[str],
    *args: Any,
    rights: Mapping[str, Transfer] | None = None,
    bootstrap: bool = False,
    confined: Confinement | bool = False,
    limits: Limits | None = None,
    **kwargs: Any,
) -> Child:
    """``Task.spawn`` for this process's own task, ``task_self()``."""
    from machport.face.blocking import task_self

    return task_self().spawn(
        target, *args, rights=rights, bootstrap=bootstrap, confined=confined, limits=limits, **kwargs
    )


def inherited() -> dict[str, Right | DataQueue]:
    """The rights that this program was started with, by name: what ``rights=`` of ``spawn`` had in its parent.

    They are rights of ``task_self()``, which is the task that the parent made.  There are none if the program was not
    started by ``spawn``, or only by a program that was.

    Raises:
        InvalidArgument: they were given out before; keep what the first call returns.
        InvalidRight: the task is gone that was made for this program.
    """
    global _given_out
    if _given_out:
        raise InvalidArgument("inherited() was called before in this process; keep what it returns")
    rights = process_task.take_inherited()
    _given_out = True

    found: dict[str, Right | DataQueue] = {}
    for name, (number, kind, brings_queue) in rights.items():
        right: Any = right_of_child(number, kind)
        found[name] = right.open_data_queue() if brings_queue else right
    return found


_given_out = False
