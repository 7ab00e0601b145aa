"""Every message says who sent it, whatever way it went; and who may have the task of another process."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from actors import PATIENCE, Client, DaemonProcess, command_as

import machport
from machport import aio, mach
from machport.abi import message as layout

NewClient = Callable[[str], Client]
AUDIT = mach.MACH_RCV_TRAILER_AUDIT << mach.MACH_RCV_TRAILER_ELEMENTS_SHIFT
NOBODY = 65534
as_root = pytest.mark.skipif(os.getuid() != 0, reason="needs to be two users")


def token_of(pid: int) -> tuple[tuple[int, int], tuple[int, ...]]:
    """Sender and audit token that messages of a process of this user have (M33)."""
    uid, gid = os.getuid(), os.getgid()
    began = int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
    return (uid, gid), (uid, uid, gid, uid, gid, pid, 0, began & 0xFFFFFFFF)


def trailer(port: machport.ReceiveRight) -> tuple[tuple[int, int] | None, tuple[int, ...] | None]:
    """Those of the next message."""
    buffer = port.task.calls.mach_msg(
        machport.abi.traps.MsgTrap(
            mach.MACH_RCV_MSG | mach.MACH_RCV_TIMEOUT | AUDIT,
            rcv_limit=1 << 30,
            rcv_name=port.name,
            timeout_ms=int(PATIENCE * 1000),
        )
    ).buffer
    assert buffer is not None
    size = int.from_bytes(bytes(buffer[4:8]), "little")
    told = layout.parse_trailer(buffer[layout.round_up(size) :])
    return told.sender, told.audit


WAYS = {
    "mach_msg": "out.send(b'x')",
    "with rights": "out.send(b'x', rights=[task.allocate().move()])",
    "a long body": "out.send(bytes(1 << 20))",
    "many": "out.send_many([b'x'])",
    "many long ones": "out.send_many([bytes(100_000)])",
    "a call": "threading.Thread(target=lambda: out.call(b'x'), daemon=True).start()",
    "a coroutine": "__import__('asyncio').run(send_in_loop(out))",
    "a typed call": "threading.Thread(target=machport.proxy(Notes, out).note, args=('x',), daemon=True).start()",
    "another thread": "(lambda t: (t.start(), t.join()))(threading.Thread(target=out.send, args=(b'x',)))",
}


def test_sender_and_audit_token_are_the_processes_whatever_way_a_message_goes(
    task: machport.Task, new_client: NewClient
) -> None:
    """M35: and the last word tells processes apart that had the same number."""
    client = new_client("client")
    port = task.allocate()
    client.give("out", port.make_send().move())
    client.do(
        "import asyncio, machport.aio\n"
        "@machport.interface()\n"
        "class Notes:\n"
        "    @machport.oneway\n"
        "    def note(self, text: str) -> None: ...\n"
        "async def send_in_loop(right):\n"
        "    loop_task = machport.aio.Task.of(task)\n"
        "    await loop_task.adopt(right.duplicate()).send(b'x')"
    )
    for way, order in WAYS.items():
        client.do(order)
        assert trailer(port) == token_of(client.pid), way


def test_an_answer_is_of_the_one_who_answers(task: machport.Task, new_client: NewClient) -> None:
    client = new_client("client")
    port, answers = task.allocate(), task.allocate()
    send = port.make_send()
    client.give("port", port.move())
    send.send(b"request", reply_to=answers)
    client.do("port.receive().reply(b'answer')")
    assert trailer(answers) == token_of(client.pid)


def test_notifications_are_of_the_kernel(task: machport.Task) -> None:
    """M35: sender {0, 1}, and an audit token of zeros."""
    port, notices = task.allocate(), task.allocate()
    right = port.make_send()
    right.request_dead_name(notices)
    port.close()
    assert trailer(notices) == ((0, 1), (0,) * 8)


def tell_parent(port: machport.SendRight) -> None:
    port.send(b"x")


def test_a_spawned_child_is_itself_and_not_its_parent(task: machport.Task) -> None:
    port = task.allocate()
    with task.spawn(tell_parent, port.make_send().move()) as child:
        assert trailer(port) == token_of(child.pid)
        child.join()


def test_a_forked_child_with_a_task_of_its_own_is_itself(task: machport.Task, new_client: NewClient) -> None:
    parent = new_client("parent")
    port = task.check_in("org.example.told")
    parent.do(
        "import time\npid = os.fork()\nif not pid:\n    own = machport.Task()\n"
        "    own.look_up('org.example.told').send(b'x')\n    signal.pause()"
    )
    child = parent.do("pid")
    assert trailer(port) == token_of(child)
    parent.do("os.kill(pid, signal.SIGKILL)")


def test_who_has_anothers_task_sends_in_its_own_name(task: machport.Task, new_client: NewClient) -> None:
    """A right to a task is no identity."""
    owner, taker = new_client("owner"), new_client("taker")
    port = task.allocate()
    for client in (owner, taker):
        client.give("out", port.make_send().move())
    carrier = task.allocate()
    owner.give("carrier", carrier.make_send().move())
    owner.do("carrier.send(rights=[machport.SendRight(task, task.name).copy()])")
    right = carrier.receive(PATIENCE).rights[0]
    assert right is not None
    taker.give("other", right.move())
    taker.do("out.send(b'x')")
    assert trailer(port) == token_of(taker.pid)
    owner.do("out.send(b'x')")
    assert trailer(port) == token_of(owner.pid)


# Task ports of others


@pytest.fixture
def users_daemon(socket_path: Path) -> Iterator[DaemonProcess]:
    """A daemon of another user than root, whose tasks may join it."""
    os.chown(socket_path.parent, NOBODY, NOBODY)
    with DaemonProcess(socket_path, user=NOBODY) as daemon:
        yield daemon


def asks(path: Path, pid: int | str, *, user: int = NOBODY, before: str = "") -> str:
    """What a process of a user is told that wants the task of another."""
    source = f"""
task = machport.Task(path={str(path)!r})
{before}
try:
    right = task.task_for_pid({pid})
    print(type(task.calls.mach_port_names(right.name)).__name__)
except machport.MachError as error: print(type(error).__name__, error.code, error.says)
"""
    done = subprocess.run(command_as(user, source), capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.stderr == ""
    return done.stdout.strip()


def holding(path: Path, *, agrees: str = "") -> subprocess.Popen[str]:
    """A process of nobody's with a task."""
    source = f"task = machport.Task(path={str(path)!r}); {agrees}\nprint(flush=True); sys.stdin.read()"
    process = subprocess.Popen(command_as(NOBODY, source), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    return process


@as_root
def test_the_task_of_another_process_is_for_root_and_for_whom_it_agrees_with(users_daemon: DaemonProcess) -> None:
    """Promise 2, and a line in the log for each refusal."""
    path = users_daemon.path
    with holding(path) as other:
        refused = asks(path, other.pid)
        assert refused.startswith(f"AccessDenied {mach.KERN_NO_ACCESS} process {other.pid} has not agreed")
        assert f"was refused the task of process {other.pid}: process {other.pid} has not agreed" in users_daemon.log()
        assert asks(path, other.pid, user=0) == "list"
        other.kill()
    with holding(path, agrees="task.allow_task_for_pid()") as other:
        assert asks(path, other.pid) == "list"
        other.kill()
    with holding(path, agrees="task.allow_task_for_pid(); task.allow_task_for_pid(False)") as other:
        assert asks(path, other.pid).startswith("AccessDenied")
        other.kill()
    with machport.Task(path=path) as roots:
        roots.allow_task_for_pid()
        assert asks(path, os.getpid()).startswith("AccessDenied")
    assert asks(path, "os.getpid()") == "list"
    assert asks(path, 1).startswith(f"InvalidArgument {mach.KERN_FAILURE} process 1 has no task")


@as_root
def test_a_daemon_may_be_started_so_that_all_tasks_of_a_user_agree(socket_path: Path) -> None:
    os.chown(socket_path.parent, NOBODY, NOBODY)
    with DaemonProcess(socket_path, "--task-for-pid", "user", user=NOBODY) as daemon:
        with holding(daemon.path) as other:
            assert asks(daemon.path, other.pid) == "list"
            other.kill()
        with machport.Task(path=daemon.path):
            assert asks(daemon.path, os.getpid()).startswith("AccessDenied")


def ask_for(port: machport.SendRight, pid: int) -> None:
    try:
        mach.task_for_pid(mach.mach_task_self(), pid)
        port.send(b"given")
    except machport.AccessDenied as error:
        port.send(error.says.encode())


def test_a_task_that_was_made_is_refused_whoever_has_agreed(task: machport.Task) -> None:
    """Also under root, and also its own."""
    task.allow_task_for_pid()
    port = task.allocate()
    with task.spawn(ask_for, port.make_send().move(), os.getpid()) as child:
        assert b"another made this one" in bytes(port.receive(PATIENCE).body)
        child.join()


@as_root
def test_of_several_tasks_of_a_process_the_first_is_given_that_one_may_have(users_daemon: DaemonProcess) -> None:
    """And of the own process the calling task."""
    path = users_daemon.path
    agrees = f"second = machport.Task(path={str(path)!r}); kept = second.allocate(); second.allow_task_for_pid()"
    with holding(path, agrees=agrees) as other:
        with machport.Task(path=path) as roots:
            right = roots.task_for_pid(other.pid)
            assert roots.calls.mach_port_names(right.name) == []
            # Its own, under the name that it has for itself.
            with roots.task_for_pid(os.getpid()) as own:
                assert own.name == roots.name
        count = f"""
task = machport.Task(path={str(path)!r})
right = task.task_for_pid({other.pid})
names = task.calls.mach_port_names(right.name)
print(sum(bool(kind & {mach.MACH_PORT_TYPE_RECEIVE}) for _, kind in names))
"""
        done = subprocess.run(command_as(NOBODY, count), capture_output=True, text=True, timeout=PATIENCE, check=True)
        assert done.stdout == "1\n"
        other.kill()


def test_a_coroutines_task_gives_a_right_that_waits_in_its_loop(loop_task: aio.Task) -> None:
    right = loop_task.task_for_pid(os.getpid())
    assert isinstance(right, aio.SendRight)
    right.close()
