"""Descriptors as rights: one file seen by two processes, and none left with the daemon (T13)."""

from __future__ import annotations

import os
from collections.abc import Callable

from actors import PATIENCE, Client, DaemonProcess

import machport

NewClient = Callable[[str], Client]


def test_a_descriptor_passes_from_one_process_to_another(task: machport.Task, new_client: NewClient) -> None:
    client = new_client("client")
    reading, writing = os.pipe()
    client.give("file", task.fileport(writing).move())
    os.close(writing)
    client.do("descriptor = file.open_file(); os.write(descriptor, b'through the pipe')")
    assert os.read(reading, 100) == b"through the pipe"
    # The end of the pipe is seen when the last of its holders is gone: the client's descriptor and its right.
    client.do("os.close(descriptor); file.close()")
    assert os.read(reading, 100) == b""
    os.close(reading)


def test_a_file_is_held_by_its_rights_alone_and_closed_with_the_last(
    daemon: DaemonProcess, task: machport.Task, new_client: NewClient
) -> None:
    client = new_client("client")
    before = daemon.descriptors()
    file = task.fileport(0)
    other = file.duplicate()
    client.give("file", file.copy())
    assert daemon.descriptors() == before + 1
    file.close()
    other.close()
    assert daemon.descriptors() == before + 1
    client.die()
    assert daemon.descriptors() < before + 1


def test_an_unread_message_with_files_and_rights_leaks_nothing_when_it_is_destroyed(
    daemon: DaemonProcess, task: machport.Task
) -> None:
    port, notices = task.allocate(qlimit=10), task.allocate()
    sender, carried = port.make_send(), task.allocate()
    task.calls.mach_port_names(task.name)
    before = daemon.descriptors()
    watched = carried.make_send()
    carried.request_no_senders(notices)
    sender.send(rights=[task.fileport(0).move() for _ in range(5)] + [watched.move()], memory=[bytes(100_000)])
    sender.send(rights=[task.fileport(0).move()])
    assert daemon.descriptors() == before + 6
    port.close()
    task.calls.mach_port_names(task.name)
    assert daemon.descriptors() == before
    assert isinstance(notices.receive(PATIENCE), machport.NoSendersNotification)
