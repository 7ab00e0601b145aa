"""FORGET: rights are given up without waiting for an answer, by whoever comes to it in the middle of whatever."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

import pytest
from actors import PATIENCE, Client, DaemonProcess, RawTask

import machport
from machport.abi import constants as c
from machport.abi import traps as t
from machport.carrier import packet
from machport.client.process import process_task

NewClient = Callable[[str], Client]
SEND, RECEIVE = c.MACH_PORT_RIGHT_SEND, c.MACH_PORT_RIGHT_RECEIVE
SEND_ONCE, PORT_SET = c.MACH_PORT_RIGHT_SEND_ONCE, c.MACH_PORT_RIGHT_PORT_SET


def names(task: machport.Task) -> dict[int, int]:
    """The names of a task once the daemon has heard all that was sent before on the connection: a thread is made."""
    found = dict[int, int]()
    thread = threading.Thread(target=lambda: found.update(task.calls.mach_port_names(task.name)))
    thread.start()
    thread.join(PATIENCE)
    return found


def forget(task: machport.Task, name: int, kind: int) -> None:
    task.calls.forget(name, kind)


def test_one_reference_of_each_kind_is_given_up(task: machport.Task) -> None:
    port = task.allocate()
    send = port.make_send()
    second = send.duplicate()
    once, dead = port.make_send_once(), task.calls.mach_port_allocate(task.name, c.MACH_PORT_RIGHT_DEAD_NAME)
    pset = task.port_set()
    other = task.allocate()
    forget(task, once.name, SEND_ONCE)
    forget(task, dead, c.MACH_PORT_RIGHT_DEAD_NAME)
    forget(task, pset.name, PORT_SET)
    forget(task, other.name, RECEIVE)
    forget(task, send.name, SEND)
    gone = {once.name, dead, pset.name, other.name}
    left = names(task)
    assert not gone & set(left)
    assert left[port.name] == c.MACH_PORT_TYPE_SEND_RECEIVE
    assert task.calls.mach_port_get_refs(task.name, send.name, SEND) == 1
    forget(task, send.name, SEND)
    assert names(task)[port.name] == c.MACH_PORT_TYPE_RECEIVE
    for right in (once, pset, other, send, second):
        right.gone("forgotten")


def test_others_are_told_as_of_any_right_that_is_given_up(task: machport.Task, new_client: NewClient) -> None:
    """N19, N39, N55."""
    client, port, told = new_client("holder"), task.allocate(), task.allocate()
    client.give("send", port.make_send().move())
    client.give("once", told.make_send_once().move())
    client.do("mine = task.allocate()")
    task_port = task.allocate()
    client.give("to", task_port.make_send().move())
    client.do("to.send(rights=[mine.make_send().move()])")
    right = task_port.receive(PATIENCE).rights[0]
    assert right is not None
    right.request_dead_name(told)
    port.request_no_senders(told)
    client.do(f"task.calls.forget(send.name, {SEND})")
    assert isinstance(told.receive(PATIENCE), machport.NoSendersNotification)
    client.do(f"task.calls.forget(once.name, {SEND_ONCE})")
    assert isinstance(told.receive(PATIENCE), machport.SendOnceNotification)
    client.do(f"task.calls.forget(mine.name, {RECEIVE})")
    assert isinstance(told.receive(PATIENCE), machport.DeadNameNotification)


def test_what_would_be_refused_is_passed_over(task: machport.Task) -> None:
    port = task.allocate()
    task.calls.mach_port_guard(task.name, port.name, 7, False)
    before = names(task)
    for name, kind in ((0x77, SEND), (0, SEND), (c.MACH_PORT_DEAD, SEND), (port.name, SEND), (port.name, RECEIVE)):
        forget(task, name, kind)
    forget(task, port.name, PORT_SET)
    forget(task, port.name, 99)
    assert names(task) == before


def test_it_comes_between_the_words_of_other_threads_that_ask_for_channels(task: machport.Task) -> None:
    """It has no answer, so no thread takes another's."""
    rights = [task.allocate() for _ in range(400)]
    done = threading.Event()

    def let_go() -> None:
        for right in rights:
            task.calls.forget(right.name, RECEIVE)
        done.set()

    forgetter = threading.Thread(target=let_go)
    forgetter.start()
    made = list[int]()
    while not done.is_set() or len(made) < 20:
        thread = threading.Thread(target=lambda: made.append(task.calls.mach_port_type(task.name, task.name)))
        thread.start()
        thread.join(PATIENCE)
    forgetter.join(PATIENCE)
    assert set(made) == {c.MACH_PORT_TYPE_SEND}
    assert not {right.name for right in rights} & set(names(task))


def test_it_comes_in_the_middle_of_a_call_that_waits(task: machport.Task, new_client: NewClient) -> None:
    """As from a finalizer: no channel is made for it, and the call goes on."""
    client = new_client("waits")
    client.do("port = task.allocate(); waits = task.allocate(); to = waits.make_send(); fired = []")
    client.do(
        "def forget():\n"
        f"    fired.append(task.calls.forget(port.name, {RECEIVE}))\n"
        "    threading.Thread(target=lambda: to.send(b'go on')).start()\n"
    )
    client.do("before_sleeping(forget)")
    assert client.do(f"waits.receive({PATIENCE}).body") == b"go on"
    assert client.do("fired") == [None]
    client.do("thread = threading.Thread(target=lambda: fired.append(dict(task.calls.mach_port_names(task.name))))")
    assert client.do("thread.start() or thread.join() or port.name in fired[-1]") is False


def test_what_a_daemon_has_no_room_to_hear_of_it_hears_before_the_next_call(
    daemon: DaemonProcess, task: machport.Task
) -> None:
    port = task.allocate()
    right = port.make_send()
    for _ in range(5000):
        right.duplicate().gone("left to be forgotten")
    daemon.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, daemon.pid, os.WSTOPPED | os.WNOWAIT)
    for _ in range(5000):
        task.calls.forget(right.name, SEND)
    daemon.process.send_signal(signal.SIGCONT)
    task.calls.mach_port_type(task.name, port.name)
    names(task)
    assert task.calls.mach_port_get_refs(task.name, right.name, SEND) == 1


def test_nothing_is_left_to_forget_after_the_task_or_its_daemon(daemon: DaemonProcess) -> None:
    with machport.Task(label="closed") as closed, machport.Task(label="lost") as lost:
        port = closed.allocate()
        name = port.name
        closed.close()
        closed.calls.forget(name, RECEIVE)
        port = lost.allocate()
        name = port.name
        daemon.kill()
        lost.calls.forget(name, RECEIVE)


def test_a_forked_child_gives_up_nothing_of_its_parents(task: machport.Task, new_client: NewClient) -> None:
    client = new_client("parent")
    client.do("port = task.allocate()")
    client.do(
        "pid = os.fork()\n"
        f"if not pid: task.calls.forget(port.name, {RECEIVE}); os._exit(0)\n"
        "ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])\n"
    )
    assert client.do("ended") == 0
    assert client.do("port.status().msgcount") == 0


def test_the_process_does_not_join_to_forget(socket_path: object) -> None:
    process_task.restart()
    process_task.forget(0x77, SEND)
    assert process_task._connection is None


def test_the_task_of_the_process_forgets(self_task: int) -> None:
    task = machport.task_self()
    port = task.allocate()
    forget(task, port.name, RECEIVE)
    assert port.name not in names(task)


@pytest.mark.parametrize("words", [[1], [1, 2, 3]])
def test_a_name_without_its_kind_is_cut_off(daemon: DaemonProcess, words: list[int]) -> None:
    with RawTask(daemon.path) as raw:
        packet.send(raw.control, t.FORGET.pack(words=words))
        assert raw.is_cut_off()


def test_a_terminated_task_has_nothing_to_forget(task: machport.Task) -> None:
    other = machport.Task(label="other")
    port = other.allocate()
    other.calls.task_terminate(other.name)
    forget(other, port.name, RECEIVE)
    assert names(task)
    other.close()
