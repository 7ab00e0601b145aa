"""What a failure says and leaves: task, name and rule in its words, and rights where they were before."""

from __future__ import annotations

import pytest
from actors import PATIENCE, DaemonProcess

import machport
from machport.abi import constants as c


def names(task: machport.Task) -> dict[int, int]:
    return dict(task.calls.mach_port_names(task.name))


def test_an_error_says_call_task_name_code_and_rule(task: machport.Task) -> None:
    port = task.allocate()
    with task.port_set(port), pytest.raises(machport.InvalidRight) as error:
        port.receive()
    where = f"receive in task {task.label} on name {port.name:#x}"
    what = "the port is in a port set; receive from the set, or take it out first"
    assert str(error.value) == f"{where}: {what}: MACH_RCV_IN_SET (rule P34)"
    assert (error.value.code, error.value.rule, error.value.name) == (c.MACH_RCV_IN_SET, "P34", port.name)
    with pytest.raises(machport.InvalidArgument) as refused:
        port.set_qlimit(1025)
    assert "a queue limit is 0 to 1024" in str(refused.value)
    assert task.label in str(refused.value)


def test_a_call_that_finds_no_room_gives_its_rights_back_and_leaves_no_names(task: machport.Task) -> None:
    closed, other, receive = task.allocate(qlimit=0), task.allocate(), task.allocate()
    full, send, send_once = closed.make_send(), other.make_send(), other.make_send_once()
    sender = receive.make_send()
    sender.send(b"inside")
    before = names(task)
    with pytest.raises(machport.TimedOut) as error:
        full.call(rights=[send.copy(), receive.move(), send.move(), send_once.move()], timeout=0)
    assert error.value.code == c.MACH_SEND_TIMED_OUT
    assert sorted(names(task).values()) == sorted(before.values())
    assert receive.receive(0).body == b"inside"
    send.send(b"usable")
    send_once.send(b"usable")
    full.close()


@pytest.mark.parametrize("memory", [True, False], ids=["memory", "body"])
def test_a_message_larger_than_any_is_refused_and_the_task_lives_on(task: machport.Task, memory: bool) -> None:
    port, moved = task.allocate(), task.allocate()
    size = 300 * 1024 * 1024 if memory else 60 * 1024 * 1024
    region = bytes(size)
    with pytest.raises((machport.LimitReached, machport.MessageTooLarge)):
        port.make_send().send(
            b"" if memory else region, rights=[moved.move()], memory=[region] if memory else [], timeout=PATIENCE
        )
    assert not moved.closed
    assert moved.status().msgcount == 0
    with pytest.raises(machport.TimedOut):
        port.receive(0)


def test_rights_close_quietly_when_the_daemon_is_lost_and_everything_else_says_so(
    daemon: DaemonProcess, task: machport.Task
) -> None:
    port = task.allocate()
    with port.make_send() as sender:
        daemon.kill()
        with pytest.raises(machport.DaemonLost, match="make a new Task"):
            sender.send(b"")
    assert sender.closed
    port.close()
    with pytest.raises(machport.ClosedRight):
        port.receive()


def test_the_task_of_the_process_is_one_object(self_task: int) -> None:
    task = machport.task_self()
    assert machport.task_self() is task
    assert task.name == self_task
    task.close()
    assert not task.closed
    task.allocate().close()


def test_a_body_that_fails_takes_only_the_rights_before_the_bad_one(task: machport.Task) -> None:
    """M8: the object of a right behind it still stands for its right."""
    port = task.allocate()
    lost, bad, kept = task.allocate(), task.allocate(), task.allocate()
    task.calls.mach_port_destroy(task.name, bad.name)  # behind the object's back

    with pytest.raises(machport.InvalidRight) as caught:
        port.make_send().send(rights=[lost.move(), bad.move(), kept.move()])
    assert caught.value.code == c.MACH_SEND_INVALID_RIGHT
    assert lost.closed
    assert kept.status().msgcount == 0


def test_a_call_that_cannot_be_packed_leaves_no_reply_port(task: machport.Task) -> None:
    port = task.allocate()
    send = port.make_send()
    before = len(task.calls.mach_port_names(task.name))
    for _ in range(3):
        with pytest.raises(machport.InvalidArgument):
            send.call(id=-1)
    assert len(task.calls.mach_port_names(task.name)) == before
