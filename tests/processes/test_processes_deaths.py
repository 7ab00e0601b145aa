"""A death is seen at once, whoever still holds the sockets and whether or not the process was reaped (T1, T2)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from actors import PATIENCE, Client, DaemonProcess

import machport

NewClient = Callable[[str], Client]


def test_rights_go_at_once_though_a_child_of_the_dead_process_holds_its_sockets(new_client: NewClient) -> None:
    client = new_client("client")
    client.hold_sockets()
    client.die()


def test_a_process_that_nobody_has_reaped_is_dead(new_client: NewClient) -> None:
    client = new_client("client")
    client.process.kill()
    os.waitid(os.P_PID, client.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and stays a zombie
    client.wait_until_gone()
    assert Path(f"/proc/{client.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_blocked_sender_is_released_though_the_child_of_the_dead_receiver_holds_its_sockets(
    task: machport.Task, new_client: NewClient
) -> None:
    server, caller, port = new_client("server"), new_client("caller"), task.allocate(qlimit=1)
    caller.give("right", port.make_send().move())
    server.give("port", port.move())
    server.hold_sockets()
    caller.begin("right.send(b'fills the queue'); before_reading(mark); right.send(b'waits for room')")
    caller.wait_for_mark()
    server.die()
    # A message that was accepted by a port that dies is a message sent (M16).
    caller.finish()
    with pytest.raises(AssertionError, match="DeadPort"):
        caller.do("right.send(b'too late')")


def test_a_task_ends_when_its_process_replaces_its_program(new_client: NewClient) -> None:
    client = new_client("client")
    client.begin("os.execv('/bin/sleep', ['sleep', '1000'])")
    client.wait_until_gone()
    assert client.process.poll() is None


def test_a_task_ends_when_it_is_closed_and_its_process_goes_on(new_client: NewClient) -> None:
    client = new_client("client")
    client.do("task.close()")
    client.wait_until_gone()
    client.do("task = machport.Task(); task.allocate()")


def test_a_task_ends_with_the_interpreter_and_not_with_the_thread_that_made_it(
    task: machport.Task, new_client: NewClient
) -> None:
    client = new_client("client")
    client.do("made = []; thread = threading.Thread(target=lambda: made.append(task.check_in('by a thread')))")
    client.do("thread.start(); thread.join()")
    task.look_up("by a thread").send(b"to a thread that ended")
    assert client.do(f"made[0].receive({PATIENCE}).body") == b"to a thread that ended"


def test_what_a_process_held_is_gone_from_the_daemon_when_it_has_died(
    daemon: DaemonProcess, task: machport.Task, new_client: NewClient
) -> None:
    new_client("first").die()
    before = daemon.descriptors()
    for number in range(5):
        client = new_client(f"client {number}")
        client.do("file = task.fileport(0); [in_thread(task, inbox.receive) for _ in range(3)]")
        assert daemon.descriptors() > before
        client.die()
        assert daemon.descriptors() == before
