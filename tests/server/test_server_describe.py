"""What the daemon knows of ports and deaths, and to whom it tells it.  Real processes, and real ends of them."""

from __future__ import annotations

import os
import pickle
import signal
import time
from collections.abc import Callable

import pytest
from actors import PATIENCE, Client, DaemonProcess

import machport
from machport.abi import constants as c
from machport.client.description import Description
from machport.peer.death import Obituary
from machport.server import obituaries

NewClient = Callable[[str], Client]


def describe(right: machport.Right) -> Description:
    return right.task.calls.describe(right.name)


def obituary_of(right: machport.Right) -> Obituary:
    obituary = describe(right).obituary
    assert obituary is not None
    return obituary


# Labels


def test_a_label_is_seen_by_every_holder_and_goes_with_the_receive_right(
    task: machport.Task, new_client: NewClient
) -> None:
    client, port = new_client("worker"), task.allocate()
    task.calls.port_label(port.name, "jobs é")
    send = port.make_send()
    own = Description(c.MACH_PORT_TYPE_SEND_RECEIVE, 1, "jobs é", task.label, os.getpid(), None, False)
    assert describe(send) == own
    assert not own.is_dead
    client.give("port", port.move())
    label = client.do("task.label")
    assert describe(send) == Description(c.MACH_PORT_TYPE_SEND, 1, "jobs é", label, client.pid, None, False)
    client.do("task.calls.port_label(port.name, 'done')")
    assert describe(send).label == "done"


@pytest.mark.parametrize("label", ["x" * 65, "é" * 33, "a\nb", "a\0b"])
def test_a_label_that_is_too_long_or_cannot_be_shown_is_refused(task: machport.Task, label: str) -> None:
    port = task.allocate()
    task.calls.port_label(port.name, "before")
    with pytest.raises(machport.InvalidArgument, match="label"):
        task.calls.port_label(port.name, label)
    assert describe(port).label == "before"


def test_who_has_no_right_learns_nothing_and_names_nothing(task: machport.Task) -> None:
    with pytest.raises(machport.InvalidName):
        task.calls.describe(0x77)
    with pytest.raises(machport.InvalidName):
        task.calls.port_label(0x77, "x")
    with pytest.raises(machport.InvalidRight):
        task.calls.port_label(task.name, "x")
    assert task.bootstrap is not None
    assert describe(task.bootstrap)[2:5] == ("", "bootstrap", 0)


# Obituaries


@pytest.mark.parametrize(
    ("end", "number", "code", "how"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", signal.SIGKILL, None, "was killed by SIGKILL"),
        ("os.kill(os.getpid(), signal.SIGTERM)", signal.SIGTERM, None, "was killed by SIGTERM"),
        ("os._exit(3)", None, 3, "exited with 3"),
        ("threading.Thread(target=os._exit, args=(0,)).start()", None, 0, "exited with 0"),
    ],
)
def test_an_obituary_says_who_it_was_and_how_its_process_ended(
    task: machport.Task, new_client: NewClient, end: str, number: int | None, code: int | None, how: str
) -> None:
    before = time.time()
    client = new_client("worker")
    label = client.do("task.label")
    client.begin(end)
    client.wait()
    client.wait_until_gone()
    obituary = obituary_of(client.inbox)
    assert describe(client.inbox).is_dead
    assert (obituary.label, obituary.pid, obituary.reason) == (label, client.pid, "")
    assert (obituary.signal, obituary.exit_code) == (number, code)
    assert before <= obituary.when <= time.time()
    at = time.strftime("%H:%M:%S", time.localtime(obituary.when))
    assert str(obituary) == f"task worker[{client.pid}] {how} at {at}"
    again = pickle.loads(pickle.dumps(obituary))
    assert (again, str(again)) == (obituary, str(obituary))
    assert len({again, obituary}) == 1


@pytest.fixture
def other(new_client: NewClient) -> Client:
    """Whoever is not the parent of the process that dies."""
    return new_client("other")


def test_the_parent_knows_how_it_ended_before_it_has_collected_it(task: machport.Task, new_client: NewClient) -> None:
    client = new_client("worker")
    client.process.kill()
    client.wait_until_gone()
    obituary = obituary_of(client.inbox)
    assert obituary.wait(PATIENCE)
    assert obituary.signal == signal.SIGKILL
    assert client.wait() == -signal.SIGKILL


def test_how_it_ended_may_be_known_later_and_is_asked_again(new_client: NewClient, other: Client) -> None:
    """The system tells others than the parent when the parent has collected the process."""
    client = new_client("worker")
    other.give("right", client.inbox.copy())
    client.process.kill()
    os.waitid(os.P_PID, client.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and stays a zombie
    client.wait_until_gone()
    other.do("death = right.describe().obituary")
    assert other.do("death.signal, death.exit_code") == (None, None)
    assert "ended, and the system has not said how, at" in other.do("str(death)")
    client.wait()
    assert other.do("death.signal") == signal.SIGKILL
    assert "was killed by SIGKILL" in other.do("str(death)")


def test_what_is_asked_again_too_late_stays_unknown(new_client: NewClient, other: Client) -> None:
    client = new_client("worker")
    other.give("right", client.inbox.copy())
    client.process.kill()
    os.waitid(os.P_PID, client.pid, os.WEXITED | os.WNOWAIT)
    client.wait_until_gone()
    other.do("death = right.describe().obituary; right.close()")
    client.wait()
    assert other.do("death.signal") is None


def test_the_daemon_keeps_no_descriptor_of_a_process_that_was_collected(
    daemon: DaemonProcess, task: machport.Task, new_client: NewClient
) -> None:
    task.allocate()
    before = daemon.descriptors()
    client = new_client("worker")
    client.process.kill()
    os.waitid(os.P_PID, client.pid, os.WEXITED | os.WNOWAIT)
    client.wait_until_gone()
    assert daemon.descriptors() == before + 1
    client.wait()
    assert obituary_of(client.inbox).signal == signal.SIGKILL
    assert daemon.descriptors() == before


def test_a_task_that_was_closed_did_not_die(task: machport.Task, new_client: NewClient) -> None:
    client = new_client("worker")
    client.do("task.close()")
    client.wait_until_gone()
    obituary = obituary_of(client.inbox)
    assert (obituary.reason, obituary.signal, obituary.exit_code) == ("closed its task", None, None)
    assert str(obituary).startswith(f"task worker[{client.pid}] closed its task at ")


def test_a_process_that_replaces_its_program_lets_its_task_go(task: machport.Task, new_client: NewClient) -> None:
    client = new_client("worker")
    client.begin("os.execv('/bin/sleep', ['sleep', '1000'])")
    client.wait_until_gone()
    assert obituary_of(client.inbox).reason == "let its connection go"


def test_who_breaks_the_protocol_is_said_to_be_cut_off_and_why(task: machport.Task, new_client: NewClient) -> None:
    client = new_client("rogue")
    client.do(
        "for fd in map(int, os.listdir('/proc/self/fd')):\n"
        "    with contextlib.suppress(OSError):\n"
        "        if os.readlink(f'/proc/self/fd/{fd}').startswith('socket:'): os.write(fd, b'nonsense')\n"
    )
    client.wait_until_gone()
    obituary = obituary_of(client.inbox)
    assert obituary.reason.startswith("was cut off: a packet of 8 bytes that claims kind ")
    assert (obituary.pid, obituary.signal) == (client.pid, None)


def test_a_terminated_task_and_an_unclaimed_child_have_their_reasons(
    task: machport.Task, new_client: NewClient
) -> None:
    client = new_client("worker")
    ended = task.calls.task_create(task.name)
    task.calls.task_terminate(ended)
    first = task.calls.describe(ended).obituary
    assert first is not None
    assert (first.pid, first.reason) == (0, "was terminated")
    client.do("child = machport.SendRight(task, task.calls.task_create(task.name))")
    reply = task.allocate()
    client.give("to", reply.make_send().move())
    client.do("to.send(rights=[child.copy()])")
    child = reply.receive(PATIENCE).rights[0]
    assert child is not None
    client.die()
    second = obituary_of(child)
    assert second.label.endswith("/child")
    assert second.reason == f"ended with the task that had made it, worker[{client.pid}],"


def test_a_port_that_came_back_says_who_lost_it(task: machport.Task, new_client: NewClient) -> None:
    """N30."""
    client, port, back = new_client("worker"), task.allocate(), task.allocate()
    task.calls.port_label(port.name, "jobs")
    send = port.make_send()
    port.request_port_destroyed(back)
    client.give("port", port.move())
    client.die()
    notification = back.receive(PATIENCE)
    assert isinstance(notification, machport.PortDestroyedNotification)
    known = describe(send)
    assert (known.label, known.holder, known.is_dead) == ("jobs", task.label, False)
    assert obituary_of(send).label == f"worker[{client.pid}]"
    notification.right.close()
    assert describe(send).obituary is None, "it was given up, by somebody who lives"


def test_only_the_last_deaths_are_remembered(task: machport.Task) -> None:
    """The daemon's memory does not grow with dead tasks."""
    first = task.calls.task_create(task.name)
    task.calls.task_terminate(first)
    for _ in range(obituaries.HISTORY - 1):
        child = task.calls.task_create(task.name)
        task.calls.task_terminate(child)
        task.calls.mach_port_deallocate(task.name, child)
    assert task.calls.describe(first).obituary is not None
    child = task.calls.task_create(task.name)
    task.calls.task_terminate(child)
    assert task.calls.describe(first).obituary is None
    assert task.calls.describe(child).obituary is not None


# Lost requests


@pytest.mark.parametrize("received", [False, True])
def test_whoever_waits_can_learn_whether_its_request_was_received(
    task: machport.Task, new_client: NewClient, received: bool
) -> None:
    client, reply = new_client("worker"), task.allocate()
    if received:
        client.do("in_thread(task, lambda: (inbox.receive(), mark(), inbox.receive()))")
    client.inbox.send(b"work", reply_to=reply)
    if received:
        client.wait_for_mark()
    client.die()
    assert isinstance(reply.receive(PATIENCE), machport.SendOnceNotification)
    assert describe(reply).unreceived is not received
