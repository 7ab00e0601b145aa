"""Functions and programs are started with just the rights they are given, and their end has a cause (A4, A7)."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from actors import PATIENCE, DaemonProcess

import machport
from machport import DataQueue, mach
from machport.abi.errors import ProtocolError
from machport.client import inheritance
from machport.client.inheritance import VARIABLE

#: What every program of these tests begins with.
PRELUDE = """
import os, subprocess, sys, machport
def names(task): return sorted(kind for name, kind in task.calls.mach_port_names(task.name) if name != task.name)
"""


@pytest.fixture
def own_task(daemon: DaemonProcess) -> Iterator[machport.Task]:
    """The task of the test's process, new for the test."""
    mach.mach_init()
    yield machport.task_self()
    mach.mach_init()


@pytest.fixture
def held(task: machport.Task) -> Callable[[], list[int]]:
    return lambda: sorted(kind for _, kind in task.calls.mach_port_names(task.name))


def program(source: str) -> list[str]:
    return [sys.executable, "-c", PRELUDE + source]


def echo(port: machport.ReceiveRight) -> None:
    for request in port:
        request.reply(request.body.upper())


def tell(word: str, *, out: machport.SendRight, queue: DataQueue | None = None) -> None:
    out.send(f"{word} {type(out).__name__} {type(queue).__name__}".encode())


def leave(code: int) -> None:
    sys.exit(code)


def sleep() -> None:
    threading.Event().wait()


async def asynchronous(out: machport.SendRight) -> None:
    """Nobody runs it."""


class Serves:
    async def method(self) -> None:
        """Nobody runs it."""


# Functions


def test_a_function_finds_rights_by_name_among_its_arguments(task: machport.Task) -> None:
    port = task.allocate()
    with DataQueue(100) as queue:
        rights = {"out": port.make_send().move(), "queue": queue.move_producer()}
        with task.spawn(tell, "word", rights=rights) as child:
            assert port.receive(PATIENCE).body == b"word SendRight DataQueue"
            assert child.join(PATIENCE) == 0


def test_the_processes_own_task_spawns_without_being_named(own_task: machport.Task) -> None:
    port = own_task.allocate()
    sender = port.make_send()
    with machport.spawn(echo, port.move()):
        assert sender.call(b"hello", timeout=PATIENCE).body == b"HELLO"


@pytest.mark.parametrize(
    ("end", "exit_code", "number"),
    [
        (lambda child: child.kill(), None, signal.SIGKILL),
        (lambda child: child.terminate(), None, signal.SIGTERM),
    ],
)
@pytest.mark.parametrize("what", [sleep, [sys.executable, "-c", "import threading; threading.Event().wait()"]])
def test_a_killed_child_has_a_death(
    task: machport.Task,
    what: Any,
    end: Callable[[machport.Child], None],
    exit_code: int | None,
    number: signal.Signals,
) -> None:
    child = task.spawn(what)
    assert child.death is None and child.exitcode is None
    assert child.join(0) is None
    end(child)
    assert child.join(PATIENCE) == -number
    assert child.death is not None and child.death is child.death
    assert (child.death.pid, child.death.signal, child.death.exit_code) == (child.pid, number, exit_code)
    assert number.name in str(child.death)
    child.close()


@pytest.mark.parametrize("what", [(leave, 5), ([sys.executable, "-c", "exit(5)"],)])
def test_a_child_that_exits_has_a_death(task: machport.Task, what: Any) -> None:
    with task.spawn(*what) as child:
        assert child.join(PATIENCE) == 5
        assert child.death is not None
        assert (child.death.signal, child.death.exit_code) == (None, 5)
        assert str(child.death).endswith("exited with 5")


def test_no_right_goes_twice_by_name(task: machport.Task, held: Callable[[], list[int]]) -> None:
    port = task.allocate()
    sender = port.make_send()
    before = held()
    with pytest.raises(machport.InvalidArgument, match="in rights="):
        task.spawn(tell, "word", out=sender.copy(), rights={"out": sender.copy()})
    for what in (tell, program("")):
        with pytest.raises(machport.InvalidArgument, match="moved twice"):
            task.spawn(what, rights={"out": port.move(), "queue": port.move()})
    assert held() == before
    sender.send(b"still here")
    assert port.receive(PATIENCE).body == b"still here"


@pytest.mark.parametrize(
    "target",
    [
        asynchronous,
        functools.partial(asynchronous, 1),  # type: ignore[arg-type]
        Serves().method,
        "ls",
        b"ls",
        [],
        ["ls", 5],
        None,
        {"ls"},
        echo(iter(())),  # type: ignore[arg-type, func-returns-value]
    ],
    ids=repr,
)
@pytest.mark.parametrize("start", ["task", "module"])
def test_what_cannot_be_started_is_refused(
    task: machport.Task, own_task: machport.Task, held: Callable[[], list[int]], target: Any, start: str
) -> None:
    """Nothing started, nothing leaked, rights still the parent's."""
    using = task if start == "task" else own_task
    spawn: Any = task.spawn if start == "task" else machport.spawn
    port = using.allocate()
    before = held()
    with pytest.raises(machport.InvalidArgument):
        spawn(target, rights={"port": port.move()})
    assert held() == before
    port.make_send().send(b"still here")


def test_a_coroutine_is_refused_and_not_forgotten(task: machport.Task) -> None:
    """Nobody is warned of it behind."""
    coroutine: Any = asynchronous(None)  # type: ignore[arg-type]
    with pytest.raises(machport.InvalidArgument, match=r"write spawn\(f, arg\)"):
        task.spawn(coroutine)
    with pytest.raises(RuntimeError, match="cannot reuse"):
        asyncio.run(coroutine)


@pytest.mark.parametrize("what", [tell, program("")], ids=["function", "program"])
def test_rights_are_given_as_moves_or_copies_of_the_task_that_spawns(
    task: machport.Task, held: Callable[[], list[int]], what: Any
) -> None:
    with machport.Task(label="other") as other:
        mine, theirs = task.allocate(), other.allocate()
        before = held()
        for rights, text in (
            ({"out": mine}, r"right\.move\(\)"),
            ({"out": theirs.move()}, "not of task"),
            ({"out": mine.move(), "queue": theirs.move()}, "not of task"),
            ({5: mine.move()}, "strings"),
        ):
            with pytest.raises(machport.InvalidArgument, match=text):
                task.spawn(what, rights=rights)  # type: ignore[arg-type]
            assert held() == before
        mine.make_send().send(b"still here")
        theirs.make_send().send(b"still here")


# Programs


def test_a_program_finds_its_rights_and_no_others(task: machport.Task) -> None:
    """Promise 2: objects of its own task, and no bootstrap port to ask for more."""
    port, service = task.allocate(), task.allocate()
    server, sender = service.make_send(), port.make_send()
    source = """
rights = machport.inherited()
task = machport.task_self()
assert all(right.task is task for right in rights.values())
kinds = sorted((name, type(right).__name__) for name, right in rights.items())
rights["out"].send(repr((names(task), kinds, task.bootstrap)).encode())
for request in rights["service"]: request.reply(request.body.upper())
"""
    rights = {"out": sender.copy(), "service": service.move()}
    with task.spawn(program(source), rights=rights):
        kinds, found, bootstrap = eval(port.receive(PATIENCE).body)
        assert sorted(kinds) == sorted([mach.MACH_PORT_TYPE_SEND, mach.MACH_PORT_TYPE_RECEIVE])
        assert found == [("out", "SendRight"), ("service", "ReceiveRight")]
        assert bootstrap is None
        assert service.closed and not sender.closed
        assert server.call(b"hello", timeout=PATIENCE).body == b"HELLO"


def test_a_program_gets_an_end_of_a_data_queue(task: machport.Task) -> None:
    source = "with machport.inherited()['queue'] as queue: queue.enqueue(b'entry')"
    with DataQueue(100) as queue, task.spawn(program(source), rights={"queue": queue.move_producer()}):
        assert [bytes(entry) for entry in queue] == [b"entry"]


def test_a_program_with_its_bootstrap_port_finds_services(task: machport.Task) -> None:
    service = task.check_in("org.example.report")
    source = "machport.inherited(); machport.task_self().look_up('org.example.report').send(b'found')"
    with task.spawn(program(source), bootstrap=True):
        assert service.receive(PATIENCE).body == b"found"


def test_a_program_has_the_environment_directory_and_files_it_is_given(task: machport.Task, tmp_path: Path) -> None:
    source = """
print(os.environ["WORD"], os.getcwd(), sys.stdin.read(), sorted(machport.inherited()))
print("trouble", file=sys.stderr); sys.exit(3)
"""
    port = task.allocate()
    child = task.spawn(
        program(source),
        rights={"port": port.move()},
        env={"WORD": "word", "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stdin and child.stdout and child.stderr
    child.stdin.write(b"input")
    child.stdin.close()
    with child:
        assert child.stdout.read().decode() == f"word {tmp_path} input ['port']\n"
        assert child.stderr.read() == b"trouble\n"
        assert child.join() == 3
    assert child.stdout.closed


def test_rights_are_given_out_once(task: machport.Task) -> None:
    """And grandchildren, however they are started, inherit nothing."""
    port = task.allocate()
    source = f"""
out = machport.inherited()["out"]
try: machport.inherited()
except machport.InvalidArgument: out.send(b"once")
ask = [sys.executable, "-c", "import machport; print(machport.inherited())"]
said = subprocess.run(ask, capture_output=True, close_fds=False).stdout
out.send(repr((said, {VARIABLE!r} in os.environ, names(machport.task_self()))).encode())
"""
    with task.spawn(program(source), rights={"out": port.make_send().move()}):
        assert port.receive(PATIENCE).body == b"once"
        assert eval(port.receive(PATIENCE).body) == (b"{}\n", False, [mach.MACH_PORT_TYPE_SEND])


def test_a_program_in_between_passes_on_what_it_was_left_or_closes_it(task: machport.Task) -> None:
    """A shell does the first; what closes all descriptors, as Python, leaves a number that stands for nothing."""
    port = task.allocate()
    tell = "import machport; machport.inherited()['out'].send(b'through a shell')"
    with task.spawn(
        ["sh", "-c", '"$0" -c "$1"; exit 4', sys.executable, tell], rights={"out": port.make_send().move()}
    ) as child:
        assert port.receive(PATIENCE).body == b"through a shell"
        assert child.join(PATIENCE) == 4
    source = """
ask = [sys.executable, "-c", "import machport; print(machport.inherited())"]
print(subprocess.run(ask, capture_output=True).stdout)
with open(os.devnull) as other:
    os.environ["MACHPORT_INHERITED"] = f"{other.fileno()}:{os.fstat(other.fileno()).st_ino}"
    print(machport.inherited(), other.read())
"""
    with task.spawn(program(source), stdout=subprocess.PIPE, rights={"out": port.make_send().move()}) as child:
        assert child.stdout and child.stdout.read().splitlines() == [b"b'{}\\n'", b"{} "]


def test_the_own_task_of_a_program_is_the_one_that_was_left_to_it(task: machport.Task) -> None:
    """Whether it first asks for its rights or for its task; a task of its own making is another."""
    port = task.allocate()
    source = """
other, mine = machport.Task(label="other"), machport.task_self()
machport.inherited()["out"].send(repr((len(names(mine)), len(names(other)))).encode())
"""
    with task.spawn(program(source), rights={"out": port.make_send().move()}) as child:
        assert port.receive(PATIENCE).body == b"(1, 0)"
        deaths = task.allocate()
        child.task_right.request_dead_name(deaths)
        child.join(PATIENCE)
        assert isinstance(deaths.receive(PATIENCE), machport.DeadNameNotification)


def test_a_program_that_does_not_look_holds_its_rights_until_it_ends(task: machport.Task) -> None:
    """Promise 3, N28: its task ends with its process."""
    port, back = task.allocate(), task.allocate()
    port.request_port_destroyed(back)
    with task.spawn(["cat"], stdin=subprocess.PIPE, rights={"port": port.move()}) as child:
        with pytest.raises(machport.TimedOut):
            back.receive(0)
        child.kill()
        assert isinstance(back.receive(PATIENCE), machport.PortDestroyedNotification)


def test_a_task_that_is_gone_before_its_program_looks_is_told(task: machport.Task) -> None:
    source = """
sys.stdin.readline()
try: machport.inherited()
except machport.InvalidRight: print("gone")
"""
    child = task.spawn(program(source), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin and child.stdout
    task.calls.task_terminate(child.task_right.name)
    child.stdin.write(b"\n")
    child.stdin.flush()
    assert child.stdout.read() == b"gone\n"
    child.close()


@pytest.mark.parametrize(
    ("argv", "options", "error"),
    [
        (["/no/such/program"], {}, machport.ProgramNotStarted),
        (["no-such-program-anywhere"], {}, machport.ProgramNotStarted),
        ([os.devnull], {}, machport.ProgramNotStarted),
        (["true"], {"cwd": "/no/such/directory"}, machport.ProgramNotStarted),
        (["true\0"], {}, machport.InvalidArgument),
        (["true"], {"shell": True}, machport.InvalidArgument),
        (["true"], {"pass_fds": (1,)}, machport.InvalidArgument),
        (["true"], {"env": {"A=B": "c"}}, machport.InvalidArgument),
    ],
)
def test_a_program_that_does_not_start_leaves_everything_as_it_was(
    task: machport.Task, held: Callable[[], list[int]], argv: list[str], options: Any, error: type[machport.MachError]
) -> None:
    port, other = task.allocate(), task.allocate()
    once = other.make_send_once()
    before, descriptors = held(), len(os.listdir("/proc/self/fd"))
    with DataQueue(100) as queue:
        with pytest.raises(error):
            task.spawn(argv, rights={"a": port.move(), "b": once.move(), "c": queue.move_producer()}, **options)
        queue.enqueue(b"still here")
        assert queue.dequeue() == b"still here"
    assert held() == before
    assert len(os.listdir("/proc/self/fd")) == descriptors
    port.make_send().send(b"still here")
    assert port.receive(PATIENCE).body == b"still here"


def test_a_missing_program_is_an_error_of_the_system(task: machport.Task) -> None:
    with pytest.raises(OSError, match="no-such-program-anywhere was not started: No such file") as refused:
        task.spawn(["no-such-program-anywhere"])
    assert isinstance(refused.value, machport.MachError) and refused.value.errno == 2


def test_arguments_of_a_program_are_in_its_list(task: machport.Task) -> None:
    with pytest.raises(machport.InvalidArgument, match="belong into its list"):
        task.spawn(["ls"], "-l")


def test_a_child_that_was_collected_by_others_is_watched_no_more(
    task: machport.Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process was dead and gone before the daemon could be told of it."""
    port, back = task.allocate(), task.allocate()
    port.request_port_destroyed(back)
    real = os.pidfd_open

    def late(pid: int) -> int:
        os.waitid(os.P_PID, pid, os.WEXITED)
        return real(pid)

    monkeypatch.setattr(os, "pidfd_open", late)
    child = task.spawn(["true"], rights={"port": port.move()})
    assert isinstance(back.receive(PATIENCE), machport.PortDestroyedNotification)
    child.close()


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{", b'["/x", "00", "label", {}]', b'["/x", "", 5, {}]', b'["/x", "", "", {"a": [1, "b", 0]}]'],
)
def test_what_is_no_inheritance_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """It was meant for this process, so it is not passed over; and it is not found again."""
    descriptor = os.memfd_create("machport-inheritance")
    os.write(descriptor, content)
    monkeypatch.setenv(VARIABLE, f"{descriptor}:{os.fstat(descriptor).st_ino}")
    with pytest.raises(ProtocolError, match="is no inheritance"):
        inheritance.take()
    assert VARIABLE not in os.environ
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
