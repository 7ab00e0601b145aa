"""What becomes of rights whose objects are forgotten: they are given up when the objects are collected."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading

import pytest
from actors import PATIENCE, DaemonProcess

import machport
from machport import mach


def heard(task: machport.Task) -> None:
    """Return when the daemon has heard of what was forgotten: a new thread's channel is asked for after that."""
    thread = threading.Thread(target=task.calls.mach_port_names, args=(task.name,))
    thread.start()
    thread.join()


def names(task: machport.Task) -> dict[int, int]:
    return dict(task.calls.mach_port_names(task.name))


def test_a_forgotten_receive_right_dies_with_its_port(task: machport.Task) -> None:
    """N13: who has a right to send there is told."""
    port = task.allocate()
    right = port.make_send()
    watch = right.on_dead_name()

    del port

    assert watch.wait(PATIENCE).name == right.name


def test_a_forgotten_send_right_is_one_sender_less(task: machport.Task) -> None:
    """N37."""
    port = task.allocate()
    first, second = port.make_send(), port.make_send()
    watch = port.on_no_senders()

    del first
    heard(task)
    assert task.calls.mach_port_get_refs(task.name, port.name, mach.MACH_PORT_RIGHT_SEND) == 1
    del second

    assert watch.wait(PATIENCE).count == 2


def test_a_forgotten_request_tells_its_caller_that_no_answer_comes(task: machport.Task) -> None:
    """N50: every send-once right yields one message."""
    port, answers = task.allocate(), task.allocate()
    port.make_send().send(b"hello", reply_to=answers)

    request = port.receive(PATIENCE)
    assert request.expects_reply
    del request

    assert isinstance(answers.receive(PATIENCE), machport.SendOnceNotification)


def test_rights_in_a_forgotten_message_are_given_up(task: machport.Task) -> None:
    port, inside = task.allocate(), task.allocate()
    watch = inside.on_no_senders()
    assert watch.wait(PATIENCE).count == 0
    port.make_send().send(rights=[inside.make_send().move()])
    watch = inside.on_no_senders(sync=2)

    del port

    assert watch.wait(PATIENCE).count == 1


def test_a_forgotten_dead_name_notification_gives_its_reference_back(task: machport.Task) -> None:
    """N19, N20."""
    port, deaths = task.allocate(), task.allocate()
    right = port.make_send()
    right.request_dead_name(deaths)
    port.close()

    notice = deaths.receive(PATIENCE)
    assert task.calls.mach_port_get_refs(task.name, right.name, mach.MACH_PORT_RIGHT_DEAD_NAME) == 2
    del notice
    heard(task)

    assert task.calls.mach_port_get_refs(task.name, right.name, mach.MACH_PORT_RIGHT_DEAD_NAME) == 1


def test_rights_in_a_cycle_are_given_up_when_it_is_collected(task: machport.Task) -> None:
    """Also on whatever thread, in the middle of whatever call, that is."""
    port = task.allocate()
    watch = port.on_no_senders(sync=1)
    cycle: list[object] = [port.make_send()]
    cycle.append(cycle)

    del cycle
    gc.collect()

    assert watch.wait(PATIENCE).count == 1


def test_objects_of_members_do_not_take_the_ports_along(task: machport.Task) -> None:
    """They stand for rights that whoever put them in has."""
    port = task.allocate()
    pset = task.port_set(port)

    assert pset.members() == [port]

    assert port.status().pset is not None
    port.make_send().send(b"still there")
    assert pset.receive(PATIENCE).body == b"still there"


def test_what_was_closed_moved_or_used_is_not_given_up_again(task: machport.Task) -> None:
    port, box = task.allocate(), task.allocate()
    keep = port.make_send()
    for _ in range(50):
        port.make_send().close()
        with box.make_send() as way:
            way.send(rights=[port.make_send().move()])
        box.receive(PATIENCE).close()
        port.make_send_once().send(b"used")
        port.receive(PATIENCE)
    gc.collect()
    heard(task)

    assert task.calls.mach_port_get_refs(task.name, port.name, mach.MACH_PORT_RIGHT_SEND) == 1
    keep.close()


def test_a_million_forgotten_rights_are_too_many_for_no_socket(task: machport.Task) -> None:
    """What the daemon has no room to hear of waits, and goes before the next message."""
    port = task.allocate()
    keep = port.make_send()
    before = names(task)
    for _ in range(20_000):
        task.allocate()
        port.make_send()
    port.make_send().send(b"flushes")
    port.receive(PATIENCE)

    heard(task)

    assert task.calls.mach_port_get_refs(task.name, port.name, mach.MACH_PORT_RIGHT_SEND) == 1
    assert names(task) == before
    keep.close()


def test_a_collection_while_something_is_forgotten_gives_nothing_up_twice(task: machport.Task) -> None:
    """Nor does it leave anything out; whatever is under way when a cycle with rights is found."""
    port = task.allocate()
    keep = port.make_send()
    before = gc.get_threshold()
    gc.disable()
    try:
        for threshold in [1, 1, 1, 2, 3, 5, 8] * 12:
            forgotten: list[machport.SendRight | None] = [port.make_send() for _ in range(40)]
            for _ in range(4):
                cycle: list[object] = [port.make_send() for _ in range(3)]
                cycle.append(cycle)
            del cycle
            gc.set_threshold(threshold, 1000, 1000)
            gc.enable()
            for number in range(40):
                forgotten[number] = None
            gc.disable()
            gc.collect()
            heard(task)
            assert task.calls.mach_port_get_refs(task.name, port.name, mach.MACH_PORT_RIGHT_SEND) == 1
    finally:
        gc.set_threshold(*before)
        gc.enable()
    keep.close()


def test_development_mode_warns_of_what_is_forgotten(daemon: DaemonProcess) -> None:
    source = """
import machport
with machport.Task(label="careless") as task:
    port = task.allocate()
    del port
    kept = task.allocate()
    with task.allocate():
        pass
"""
    command = [sys.executable, "-X", "dev", "-W", "default::ResourceWarning", "-c", source]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ))
    assert answer.stderr.count("was forgotten; close it, or use it in a with block") == 1
    assert "ReceiveRight" in answer.stderr


def test_a_warning_that_is_an_error_keeps_nothing_from_being_given_up(daemon: DaemonProcess) -> None:
    source = """
import machport
with machport.Task(label="careless") as task, task.allocate() as port:
    watch = port.on_no_senders(sync=1)
    port.make_send()
    print(watch.wait(30).count)
"""
    command = [sys.executable, "-X", "dev", "-W", "error::ResourceWarning", "-c", source]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE)
    assert answer.stdout == "1\n"


@pytest.mark.parametrize("ending", ["pass", "sys.exit(0)", "raise SystemExit", "task.close()"])
def test_an_interpreter_that_exits_with_rights_left_does_not_hang(daemon: DaemonProcess, ending: str) -> None:
    """Its rights go with it, by the end of its task."""
    source = f"""
import sys, threading
import machport
task = machport.Task(label="leaving")
port = task.allocate()
right = port.make_send()
right.on_dead_name(print)
cycle = [right]
cycle.append(cycle)
threading.Thread(target=lambda: port.receive(), daemon=True).start()
{ending}
"""
    answer = subprocess.run(
        [sys.executable, "-X", "dev", "-c", source], capture_output=True, text=True, timeout=PATIENCE
    )
    assert (answer.returncode, answer.stdout) == (0, "")
    assert "Error" not in answer.stderr
