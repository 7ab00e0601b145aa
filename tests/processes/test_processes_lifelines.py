"""A death is seen while the system is still taking the process down, and nobody who lives is taken for dead."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from actors import PATIENCE, Client, DaemonProcess, RawTask

import machport
from machport.abi import traps as t
from machport.kernel import tasks
from machport.kernel.kernel import Kernel
from machport.kernel.refusal import Refusal
from machport.peer.attestation import Peer
from machport.peer.liveness import is_dead
from machport.ring.lifeline import threads_left
from machport.server import deaths
from machport.server.closer import Closer
from machport.server.connection import Channel
from machport.server.connection import Client as ServedClient
from machport.server.deaths import Deaths

NewClient = Callable[[str], Client]

_PTRACE_CONT: Final = 7
_PTRACE_SEIZE: Final = 0x4206
_PTRACE_INTERRUPT: Final = 0x4207
_WALL: Final = 0x40000000
_HELD: Final = struct.pack("=I", 0x80000001)
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW

#: A process that holds a lifeline and carries out one order.
VICTIM: Final = """
import ctypes, os, resource, signal, sys, threading, time
from machport.ring import lifeline
def end_this_thread():
    ctypes.CDLL(None).syscall({exit}, 0)
def idle():
    while True: signal.pause()
def start(run):
    begun = threading.Event()
    threading.Thread(target=lambda: (begun.set(), run()), daemon=True).start()
    begun.wait()
def relay():
    # Each of these threads starts the next one and ends.
    threading.Thread(target=relay, daemon=True).start()
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
{before}
memory, offset = lifeline.hold()
print(os.getpid(), memory, offset, flush=True)
sys.stdin.readline()
{order}
"""


def ptrace(request: int, thread: int) -> None:
    call = ctypes.CDLL(None, use_errno=True).ptrace
    call.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    assert call(request, thread, None, None) == 0, os.strerror(ctypes.get_errno())


class Victim:
    """A process with a lifeline.

    Args:
        order: what it does when it is told to.
        before: what it does before it takes hold.
    """

    def __init__(self, order: str = "idle()", before: str = "") -> None:
        source = VICTIM.format(exit=_exit_number(), order=order, before=before)
        self.process = subprocess.Popen(
            [sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        said = self.process.stdout.readline().split()
        assert said, "the victim could not take hold"
        # By its own namespace's number it may be another.
        self.pid = int(said[0]) if int(said[0]) > 1 else _only_child_of(self.process.pid)
        self.memory = os.open(f"/proc/{self.pid}/fd/{said[1]}", os.O_RDWR)
        self.offset = int(said[2])
        self.pidfd = os.pidfd_open(self.pid)

    def act(self) -> None:
        """Let it carry out its order."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def threads(self) -> list[int]:
        return sorted(map(int, os.listdir(f"/proc/{self.pid}/task")))

    def is_over(self) -> bool:
        """Whether its pidfd says so."""
        return bool(select.select([self.pidfd], [], [], 0)[0])

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.signal(signal.SIGKILL)
        self.process.kill()
        self.process.communicate(timeout=PATIENCE)
        os.close(self.memory)
        os.close(self.pidfd)


def _exit_number() -> int:
    """The system call that ends one thread."""
    return {"x86_64": 60, "aarch64": 93, "riscv64": 93}.get(os.uname().machine, 1)


def _only_child_of(pid: int) -> int:
    with open(f"/proc/{pid}/task/{pid}/children") as children:
        return int(children.read())


class Loop:
    """Lifelines, and the part of a daemon's loop that they need."""

    def __init__(self) -> None:
        self.died: list[ServedClient] = []
        self._bells: list[tuple[int, Callable[[int], None]]] = []
        self.deaths = Deaths(lambda *bell: self._bells.append(bell), self.died.append)
        self._kernel = Kernel()
        self._sockets: list[socket.socket] = []
        self._closer = Closer()

    def client(self, pidfd: int) -> ServedClient:
        sockets = socket.socketpair()
        self._sockets += sockets
        task = tasks.create_task(self._kernel, "victim", (0,) * 10)
        return ServedClient(Peer(0, 0, 0, pidfd), task, Channel(sockets[0], self._closer))

    def watch(self, victim: Victim) -> ServedClient:
        client, memory = self.client(victim.pidfd), os.dup(victim.memory)
        try:
            self.deaths.watch(client, victim.offset, [memory])
        except Refusal:
            os.close(memory)
            raise
        return client

    def wait_for_verdicts(self, count: int = 1) -> list[ServedClient]:
        """Wait until so many signs were judged; the clients that are dead of those judged so far."""
        [(bell, callback)] = self._bells
        while self.verdicts < count:
            assert select.select([bell], [], [], PATIENCE)[0], "no sign was given"
            callback(0)
        return self.died

    @property
    def verdicts(self) -> int:
        return sum(line.watcher is None for line in self.deaths._lines.values())

    def close(self) -> None:
        self.deaths.close()
        for sock in self._sockets:
            sock.close()


@pytest.fixture
def hasty_loop() -> Iterator[Loop]:
    """Gives a sign up as soon as a daemon does."""
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def loop(hasty_loop: Loop, monkeypatch: pytest.MonkeyPatch) -> Loop:
    """Gives no sign up, however slow the machine is."""
    monkeypatch.setattr(deaths, "_LOOKS", 20)
    return hasty_loop


@pytest.fixture
def new_victim() -> Iterator[Callable[..., Victim]]:
    with contextlib.ExitStack() as stack:

        def make(order: str = "idle()", before: str = "") -> Victim:
            victim = Victim(order, before)
            stack.callback(victim.close)
            return victim

        yield make


NewVictim = Callable[..., Victim]
THREADS: Final = "[start(idle) for _ in range(8)]"
ANOTHER_THREAD_HOLDS: Final = """
held, has_hold, end = [], threading.Event(), threading.Event()
def hold():
    held.append(lifeline.hold())
    has_hold.set()
    end.wait()
threading.Thread(target=hold).start()
has_hold.wait()
class lifeline: hold = held.pop
"""


# Who has died


@pytest.mark.parametrize("before", ["", THREADS], ids=["one thread", "many threads"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGABRT])
def test_a_process_that_a_signal_ends_is_dead(
    loop: Loop, new_victim: NewVictim, before: str, number: signal.Signals
) -> None:
    victim = new_victim(before=before)
    client = loop.watch(victim)
    victim.signal(number)
    assert loop.wait_for_verdicts() == [client]


@pytest.mark.parametrize("before", ["", THREADS], ids=["one thread", "many threads"])
@pytest.mark.parametrize("order", ["sys.exit(0)", "os._exit(0)", "os.abort()", "start(lambda: os._exit(3)); idle()"])
def test_a_process_that_exits_is_dead(loop: Loop, new_victim: NewVictim, before: str, order: str) -> None:
    victim = new_victim(order, before)
    client = loop.watch(victim)
    victim.act()
    assert loop.wait_for_verdicts() == [client]


def test_a_process_that_is_killed_while_it_is_stopped_is_dead(loop: Loop, new_victim: NewVictim) -> None:
    victim = new_victim(before=THREADS)
    client = loop.watch(victim)
    victim.signal(signal.SIGSTOP)
    os.waitid(os.P_PID, victim.pid, os.WSTOPPED | os.WNOWAIT)
    victim.signal(signal.SIGKILL)
    assert loop.wait_for_verdicts() == [client]


def test_a_process_that_is_killed_while_it_is_traced_is_dead(loop: Loop, new_victim: NewVictim) -> None:
    victim = new_victim()
    client = loop.watch(victim)
    ptrace(_PTRACE_SEIZE, victim.pid)
    ptrace(_PTRACE_INTERRUPT, victim.pid)
    os.waitpid(victim.pid, _WALL)
    victim.signal(signal.SIGKILL)
    assert loop.wait_for_verdicts() == [client]


def test_a_process_whose_first_thread_had_ended_is_dead_when_the_others_are_killed(
    loop: Loop, new_victim: NewVictim
) -> None:
    victim = new_victim("end_this_thread()", before=ANOTHER_THREAD_HOLDS)
    client = loop.watch(victim)
    victim.act()
    while threads_left(victim.pid) == 0:
        pass
    victim.signal(signal.SIGKILL)
    assert loop.wait_for_verdicts() == [client]


def test_a_process_is_dead_before_its_pidfd_says_so(loop: Loop, new_victim: NewVictim) -> None:
    """A tracer keeps a thread that has ended from being cleared away, as a gigabyte of memory does for a while."""
    victim = new_victim(before="start(idle)")
    client = loop.watch(victim)
    ptrace(_PTRACE_SEIZE, victim.threads()[1])
    victim.signal(signal.SIGKILL)
    assert loop.wait_for_verdicts() == [client]
    assert not victim.is_over()
    os.waitpid(victim.threads()[1], _WALL)
    assert select.select([victim.pidfd], [], [], PATIENCE)[0]


def test_a_process_in_a_process_namespace_of_its_own_is_dead(loop: Loop, new_victim: NewVictim) -> None:
    """The number in its word, and what it calls itself, are not its number here."""
    namespaces = "CLONE_NEWUSER, CLONE_NEWPID = 0x10000000, 0x20000000\n"
    enter = namespaces + "if ctypes.CDLL(None).unshare(CLONE_NEWUSER | CLONE_NEWPID): sys.exit()\n"
    probe = subprocess.run([sys.executable, "-c", f"import ctypes, sys\n{enter}print('entered')"], capture_output=True)
    if not probe.stdout:
        pytest.skip("process namespaces are not permitted here")
    victim = new_victim(before=enter + "if os.fork(): idle()")
    assert victim.pid != victim.process.pid
    client = loop.watch(victim)
    victim.signal(signal.SIGKILL)
    assert loop.wait_for_verdicts() == [client]


# Who lives


@pytest.mark.parametrize(
    "order",
    ["start(idle); end_this_thread()", "start(relay); end_this_thread()", "os.execv('/bin/sleep', ['sleep', '1000'])"],
    ids=["its first thread ends", "its threads come and go", "another program starts"],
)
def test_a_sign_from_a_process_that_lives_is_false(hasty_loop: Loop, new_victim: NewVictim, order: str) -> None:
    victim = new_victim(order)
    hasty_loop.watch(victim)
    victim.act()
    assert hasty_loop.wait_for_verdicts() == []
    assert not victim.is_over()


def test_a_sign_from_another_thread_than_the_first_is_false_if_that_ends(
    hasty_loop: Loop, new_victim: NewVictim
) -> None:
    victim = new_victim("end.set(); idle()", before=ANOTHER_THREAD_HOLDS)
    hasty_loop.watch(victim)
    victim.act()
    assert hasty_loop.wait_for_verdicts() == []


def test_threads_that_come_and_go_are_never_taken_for_a_dead_process(new_victim: NewVictim) -> None:
    victim = new_victim("start(relay); start(relay); end_this_thread()")
    victim.act()
    looks = [is_dead(victim.pid) for _ in range(2000)]
    assert not any(looks)
    assert not victim.is_over()


def test_a_process_is_not_dead_because_it_cannot_be_seen() -> None:
    assert not is_dead(os.getpid())
    assert not is_dead(0)
    assert not is_dead(-1)
    assert not is_dead(0x7FFFFFFF)


def test_a_hostile_word_is_looked_at_once_and_costs_nobody_else_anything(
    hasty_loop: Loop, new_victim: NewVictim
) -> None:
    hostile, honest = new_victim(before="lifeline._FUTURE_WRITE = 0"), new_victim()
    hasty_loop.watch(hostile)
    os.pwrite(hostile.memory, bytes(4), hostile.offset)
    # Nobody was woken for that, but here the words are looked at.
    client = hasty_loop.watch(honest)
    assert hasty_loop.wait_for_verdicts() == []
    os.pwrite(hostile.memory, _HELD, hostile.offset)
    os.pwrite(hostile.memory, bytes(4), hostile.offset)
    honest.signal(signal.SIGKILL)
    assert hasty_loop.wait_for_verdicts(2) == [client]


def test_a_client_that_is_forgotten_is_not_judged(loop: Loop, new_victim: NewVictim) -> None:
    first, second = new_victim(), new_victim()
    loop.deaths.forget(loop.watch(first))
    client = loop.watch(second)
    first.signal(signal.SIGKILL)
    second.signal(signal.SIGKILL)
    assert loop.wait_for_verdicts() == [client]
    loop.deaths.forget(client)
    loop.deaths.forget(client)


def test_more_clients_than_a_thread_can_watch_are_watched(new_victim: NewVictim) -> None:
    """By threads that end with the daemon."""
    victim, loop, before = new_victim(), Loop(), threading.active_count()
    try:
        clients = [loop.watch(victim) for _ in range(300)]
        assert threading.active_count() == before + 3
        victim.signal(signal.SIGKILL)
        assert set(loop.wait_for_verdicts(300)) == set(clients)
    finally:
        loop.close()
    assert threading.active_count() == before


def test_room_of_clients_that_are_gone_is_used_again(loop: Loop, new_victim: NewVictim) -> None:
    victim, before = new_victim(), threading.active_count()
    for _ in range(300):
        loop.deaths.forget(loop.watch(victim))
    assert threading.active_count() == before + 1


def test_a_process_that_is_gone_is_refused(loop: Loop, new_victim: NewVictim) -> None:
    victim = new_victim()
    victim.signal(signal.SIGKILL)
    victim.process.wait(PATIENCE)
    with pytest.raises(Refusal, match="no number in /proc"):
        loop.watch(victim)


def test_a_process_that_procfs_hides_is_not_watched_and_not_dead(
    hasty_loop: Loop, new_victim: NewVictim, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pidfd is all there is, then."""
    victim, hidden = new_victim(), new_victim()
    hidden.signal(signal.SIGKILL)
    hidden.process.wait(PATIENCE)
    monkeypatch.setattr(deaths, "number_in_proc", lambda pidfd: hidden.pid)
    hasty_loop.watch(victim)
    assert hasty_loop.wait_for_verdicts() == []


# With a daemon


def test_rights_go_while_the_process_is_still_being_taken_down(task: machport.Task, new_client: NewClient) -> None:
    """Neither its pidfd nor its sockets tell of its death, and every task that it had ends."""
    client = new_client("client")
    client.do("second = machport.Task(label='second'); port = second.check_in('second')")
    client.do("threading.Thread(target=signal.pause, daemon=True).start()")
    client.hold_sockets()
    notices = task.allocate()
    second = task.look_up("second")
    second.request_dead_name(notices)
    [thread] = set(map(int, os.listdir(f"/proc/{client.pid}/task"))) - {client.pid}
    ptrace(_PTRACE_SEIZE, thread)
    client.process.kill()
    client.wait_until_gone()
    assert isinstance(notices.receive(PATIENCE), machport.DeadNameNotification)
    assert client.process.poll() is None
    os.waitpid(thread, _WALL)
    client.wait()


def test_a_message_sent_before_the_death_is_sent_though_the_death_is_seen_at_once(
    task: machport.Task, new_client: NewClient
) -> None:
    for number in range(5):
        client, port = new_client(f"client {number}"), task.allocate()
        client.give("right", port.make_send().move())
        client.begin("before_reading(die); right.send(b'last words')")
        client.wait_until_gone()
        assert port.receive(0).body == b"last words"


def test_a_thread_that_ends_does_not_end_its_task(task: machport.Task, new_client: NewClient) -> None:
    client = new_client("client")
    client.do(
        "import ctypes\n"
        "def serve():\n"
        "    while True:\n"
        "        answers.send(('done', carry_out(orders.recv(), globals())))\n"
    )
    client.begin(f"threading.Thread(target=serve).start(); ctypes.CDLL(None).syscall({_exit_number()}, 0)")
    client.inbox.send(b"to those that live")
    assert client.do(f"inbox.receive({PATIENCE}).body") == b"to those that live"
    client.process.kill()
    client.wait_until_gone()


def test_a_forked_child_has_a_lifeline_of_its_own_and_does_not_let_go_of_its_parents(new_client: NewClient) -> None:
    client = new_client("client")
    client.do("from machport.peer import lifeline; theirs = lifeline._held")
    client.do(
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    own = machport.Task(label='child')\n"
        "    os._exit(lifeline._held.holds and lifeline._held != theirs)"
    )
    assert client.do("os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])") == 1
    assert client.do("lifeline._held is theirs and theirs.holds")
    client.die()


def test_a_task_is_joined_though_the_lifelines_descriptor_was_closed(new_client: NewClient) -> None:
    """Programs close all descriptors that they do not know."""
    client = new_client("client")
    client.do("from machport.peer import lifeline; os.close(lifeline._held.descriptor)")
    client.do("other = os.memfd_create('takes its number'); second = machport.Task(label='second')")
    assert client.do("lifeline._held.holds")
    client.die()


def test_the_lifeline_of_a_thread_that_ended_is_replaced_by_the_next_task(new_client: NewClient) -> None:
    client = new_client("client")
    client.do("from machport.peer import lifeline; lifeline._held = None")
    client.do("thread = threading.Thread(target=lambda: machport.Task(label='of a thread').allocate())")
    client.do("thread.start(); thread.join()")
    # Python can go on before the system has ended the thread.
    client.do("while lifeline._held.holds: pass")
    client.do("second = machport.Task(label='second')")
    assert client.do("lifeline._held.holds")


def test_threads_that_come_and_go_leave_one_lifeline_behind(new_client: NewClient) -> None:
    client = new_client("client")
    client.do("from machport.peer import lifeline; lifeline._held = None")
    client.do(
        "def join():\n"
        "    thread = threading.Thread(target=lambda: machport.Task(label='of a thread').allocate())\n"
        "    thread.start(); thread.join()\n"
    )
    client.do("join(); first = lifeline._held")
    client.do("while lifeline._held.holds: pass")
    client.do("[join() for _ in range(5)]")
    assert client.do("lifeline._held is first")


def lifeline_page(size: int = mmap.PAGESIZE, seals: int = _SEALS, word: bytes = _HELD) -> int:
    memory = os.memfd_create("lifeline", os.MFD_ALLOW_SEALING)
    os.truncate(memory, size)
    os.pwrite(memory, word, 0)
    fcntl.fcntl(memory, fcntl.F_ADD_SEALS, seals)
    return memory


@pytest.mark.parametrize(
    ("offset", "pages"),
    [
        (0, []),
        (0, [{}, {}]),
        (0, [{"seals": 0}]),
        (0, [{"size": 0}]),
        (0, [{"size": 2 * mmap.PAGESIZE}]),
        (0, [{"word": bytes(4)}]),
        (0, [{"seals": _SEALS | fcntl.F_SEAL_WRITE, "word": bytes(4)}]),
        (mmap.PAGESIZE, [{}]),
        (0xFFFFFFFF, [{}]),
    ],
)
def test_a_lifeline_that_is_none_is_refused_and_the_daemon_lives(
    daemon: DaemonProcess, offset: int, pages: list[dict[str, int]]
) -> None:
    with RawTask(daemon.path) as raw:
        raw.call(t.TASK_SELF)
        before = daemon.descriptors()
        memories = [lifeline_page(**page) for page in pages]  # type: ignore[arg-type]
        assert t.number_of(raw.trap(t.LIFELINE.pack(offset), memories)) != 0
        for memory in memories:
            os.close(memory)
        raw.call(t.TASK_SELF)
        assert daemon.descriptors() == before


def test_a_task_whose_word_changes_is_served_on(daemon: DaemonProcess, task: machport.Task) -> None:
    """The process lives, whatever its word says; and it gets no second line to pull."""
    with RawTask(daemon.path) as raw:
        memory = lifeline_page()
        assert t.number_of(raw.trap(t.LIFELINE.pack(0), [memory])) == 0
        for value in (bytes(4), b"\xff\xff\xff\xff", _HELD, bytes(4)):
            os.pwrite(memory, value, 0)
            raw.call(t.TASK_SELF)
        os.ftruncate(memory, mmap.PAGESIZE)
        os.pwrite(memory, _HELD, 0)
        assert t.number_of(raw.trap(t.LIFELINE.pack(0), [memory])) != 0
        os.close(memory)
        raw.call(t.TASK_SELF)
    task.allocate()


def test_a_daemon_waits_for_lifelines_without_ever_waking(daemon: DaemonProcess, new_client: NewClient) -> None:
    new_client("client").die()
    new_client("client")
    threads = sorted(map(int, os.listdir(f"/proc/{daemon.pid}/task")))
    futex_waitv = 449
    waits: list[str] = []
    while not waits or waits[0] == "running":
        # The words of the loop, the closer and the watcher; the number is that of the call, then come its arguments.
        calls = [Path(f"/proc/{daemon.pid}/task/{thread}/syscall").read_text().split() for thread in threads]
        waits = next((call for call in calls if call[0] == str(futex_waitv)), [])
    assert int(waits[4], 16) == 0, "it waits with a timeout"
