"""Children that hold just the rights they were given."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from actors import PATIENCE, DaemonProcess

import machport
from machport import mach

WAIT = 20.0


def echo(port: machport.ReceiveRight) -> None:
    for request in port:
        request.reply(request.body.upper())


def tell_names(report: machport.SendRight, *rights: machport.Right) -> None:
    calls = report.task.calls
    names = calls.mach_port_names(report.task.name)
    kinds = [kind for name, kind in names if name != report.task.name]
    bootstrap = report.task.bootstrap is not None
    report.send(repr((sorted(kinds), [type(right).__name__ for right in rights], bootstrap)).encode())


def look_up(report: machport.SendRight) -> None:
    report.task.look_up("org.example.report").send(b"found")


def spawn_and_tell(report: machport.SendRight) -> None:
    before = report.task.calls.mach_port_names(report.task.name)
    try:
        report.task.spawn(echo)
    except machport.InvalidArgument as error:
        after = report.task.calls.mach_port_names(report.task.name)
        report.send(f"{before == after} {error}".encode())


def send_by_all(report: machport.SendRight, *rights: machport.SendRight | machport.SendOnceRight) -> None:
    for right in rights:
        try:
            right.send(b"is anybody there?")
            report.send(b"somebody")
        except machport.DeadPort:
            report.send(b"nobody")


def be_killed(report: machport.SendRight) -> None:
    report.send(b"ready")
    threading.Event().wait()


def test_a_child_has_just_the_rights_it_was_given(task: machport.Task) -> None:
    """Promise 2: and no bootstrap port to ask for more."""
    port, other, third = task.allocate(), task.allocate(), task.allocate()
    with task.spawn(
        tell_names, port.make_send().move(), other.move(), third.make_send_once().move(), third.make_send().copy()
    ):
        kinds, types, bootstrap = eval(port.receive(WAIT).body)

    # The child's send right to its own task is not in the list.
    send, receive, once = mach.MACH_PORT_TYPE_SEND, mach.MACH_PORT_TYPE_RECEIVE, mach.MACH_PORT_TYPE_SEND_ONCE
    assert kinds == sorted([send, receive, once, send])
    assert types == ["ReceiveRight", "SendOnceRight", "SendRight"]
    assert not bootstrap
    assert other.closed


def test_rights_to_one_port_come_together_in_the_child(task: machport.Task) -> None:
    """P11."""
    port, other = task.allocate(), task.allocate()
    first, second = other.make_send(), other.make_send()
    with task.spawn(tell_names, port.make_send().move(), first.move(), second.move()):
        kinds, _, _ = eval(port.receive(WAIT).body)

    assert kinds == [mach.MACH_PORT_TYPE_SEND] * 2


def test_a_child_serves_and_its_death_is_told(task: machport.Task) -> None:
    port, deaths = task.allocate(), task.allocate()
    send = port.make_send()
    send.request_dead_name(deaths)
    child = task.spawn(echo, port.move())
    assert send.call(b"hello", timeout=WAIT).body == b"HELLO"
    child.kill()

    notice = deaths.receive(WAIT)
    assert isinstance(notice, machport.DeadNameNotification)
    assert notice.name == send.name
    with pytest.raises(machport.ServerDied):
        send.call(b"again", timeout=WAIT)
    assert child.join(WAIT) == -signal.SIGKILL
    child.close()


def test_the_right_to_a_childs_task_dies_with_its_process(task: machport.Task) -> None:
    """P section 11, step 4."""
    report, deaths = task.allocate(), task.allocate()
    child = task.spawn(be_killed, report.make_send().move())
    child.task_right.request_dead_name(deaths)
    assert report.receive(WAIT).body == b"ready"
    child.kill()

    assert isinstance(deaths.receive(WAIT), machport.DeadNameNotification)
    child.close()


def test_with_its_bootstrap_port_a_child_finds_services(task: machport.Task) -> None:
    service = task.check_in("org.example.report")
    nobody = task.allocate()
    with task.spawn(look_up, nobody.make_send().move(), bootstrap=True):
        assert service.receive(WAIT).body == b"found"


def test_a_child_that_cannot_start_leaves_everything_as_it_was(task: machport.Task) -> None:
    port, other = task.allocate(), task.allocate()
    send, once = port.make_send(), other.make_send_once()
    before = sorted(task.calls.mach_port_names(task.name))
    unpicklable = threading.Lock()

    with pytest.raises(TypeError, match="pickle"):
        task.spawn(tell_names, send.move(), once.move(), other.move(), unpicklable)

    assert sorted(kind for _, kind in task.calls.mach_port_names(task.name)) == sorted(kind for _, kind in before)
    send.send(b"still mine")
    once.send(b"still mine, too")
    assert port.receive(WAIT).body == b"still mine"
    assert other.receive(WAIT).body == b"still mine, too"


def test_a_right_that_died_before_the_child_was_made_arrives_as_one_that_dies_after(task: machport.Task) -> None:
    """As in a message: who hands a right on cannot know whether its port still lives (M6)."""
    report, port = task.allocate(), task.allocate()
    copied, moved, once = port.make_send(), port.make_send(), port.make_send_once()
    port.close()
    with report.make_send() as to_report:
        with pytest.raises(TypeError, match="pickle"):
            task.spawn(send_by_all, moved.move(), once.move(), threading.Lock())
        assert not moved.closed and not once.closed

        rights = copied.copy(), copied.copy(), moved.move(), once.move()
        child = task.spawn(send_by_all, to_report.copy(), *rights)
        assert [report.receive(WAIT).body for _ in rights] == [b"nobody"] * 4
        assert (copied.closed, moved.closed, once.closed) == (False, True, True)
        assert child.join(WAIT) == 0
        child.close()
    copied.close()
    kinds = [kind for _, kind in task.calls.mach_port_names(task.name)]
    assert mach.MACH_PORT_TYPE_DEAD_NAME not in kinds


def test_a_right_given_as_it_is_is_refused(task: machport.Task) -> None:
    port = task.allocate()
    before = len(task.calls.mach_port_names(task.name))
    with pytest.raises(machport.InvalidArgument, match=r"right.move\(\)"):
        task.spawn(echo, port)
    assert len(task.calls.mach_port_names(task.name)) == before


def test_a_child_killed_before_it_joins_gives_its_rights_back(task: machport.Task) -> None:
    """Promise 3, N28: the task that was made for it ends with the process that was to claim it."""
    port, back = task.allocate(), task.allocate()
    send = port.make_send()
    for _ in range(5):
        port.request_port_destroyed(back)
        send.send(b"waiting")
        with task.spawn(echo, port.move()) as child:
            child.kill()  # long before a new interpreter can have said hello
        notice = back.receive(WAIT)
        assert isinstance(notice, machport.PortDestroyedNotification)
        port = notice.right
        assert port.receive(WAIT).body == b"waiting"


def test_only_a_pidfd_can_be_watched(task: machport.Task, tmp_path: Path) -> None:
    child = task.calls.task_create(task.name)
    with open(tmp_path / "file", "w") as file, pytest.raises(machport.InvalidArgument, match="not a pidfd"):
        task.calls.watch(child, file.fileno())
    task.calls.task_terminate(child)


def test_a_child_that_spawns_a_function_is_told_at_the_call(task: machport.Task) -> None:
    """It is ended with its parent, and could not take its own children along."""
    report = task.allocate()
    with task.spawn(spawn_and_tell, report.make_send().move()):
        said = report.receive(PATIENCE).body.decode()
    assert said.startswith("True") and "let the parent start them" in said


FORKS = """
import os, sys
import machport

def wait(port):
    port.receive()

if __name__ == "__main__":
    port = machport.task_self().allocate()
    right = port.make_send()
    with machport.spawn(wait, port.move()) as child:
        pid = os.fork()
        if pid == 0:
            {}
        assert os.waitpid(pid, 0)[1] == 0
        right.send(b"end in order")
        print("ended with", child.join(30))
"""


@pytest.mark.parametrize("ending", ["child = None; sys.exit()", "sys.exit()", "child.close(); os._exit(0)"])
def test_a_forked_child_that_ends_leaves_the_children_of_its_parent_alone(
    daemon: DaemonProcess, tmp_path: Path, ending: str
) -> None:
    """Its exit, its ``with`` blocks and its ``close`` are those of a process that started none (T11)."""
    program = tmp_path / "forks.py"
    program.write_text(FORKS.format(ending))
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert (done.stdout, done.stderr) == ("ended with 0\n", "")
