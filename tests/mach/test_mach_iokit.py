"""The data queue's manual calls between two processes, with its one-message notification port (Q14 to Q35)."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator

import pytest
from actors import PATIENCE, Client

import machport
from machport import iokit, mach

NewClient = Callable[[str], Client]
Size = ctypes.c_uint32


@pytest.fixture
def port(self_task: int) -> int:
    return iokit.IODataQueueAllocateNotificationPort()


@pytest.fixture
def queue() -> Iterator[iokit.DataQueueMemory]:
    with iokit.DataQueueMemory.with_capacity(1000) as queue:
        yield queue


@pytest.fixture
def producer(self_task: int, new_client: NewClient, queue: iokit.DataQueueMemory, port: int) -> Client:
    """A process that enqueues: it has the memory as ``q`` and a send right to the notification port."""
    client = new_client("producer")
    client.do("port = mach.bootstrap_check_in(mach.bootstrap_port(), 'queue')")
    inbox = mach.bootstrap_look_up(mach.bootstrap_port(), "queue")
    memory = mach.fileport_makeport(queue.fileno())
    message = bytearray(
        mach_message(inbox, (memory, mach.MACH_MSG_TYPE_MOVE_SEND), (port, mach.MACH_MSG_TYPE_MAKE_SEND))
    )
    mach.mach_msg(message, mach.MACH_SEND_MSG, len(message), 0, 0)
    client.do(
        "from machport import iokit; from machport.abi import message as layout\n"
        "message = bytearray(200); mach.mach_msg(message, mach.MACH_RCV_MSG, 0, 200, port)\n"
        "memory, notify = [d.name for d in layout.parse(message[:52]).descriptors]\n"
        "q = iokit.DataQueueMemory.from_fd(mach.fileport_makefd(memory))\n"
        "me = mach.mach_task_self(); mach.mach_port_deallocate(me, memory)\n"
    )
    assert client.do("iokit.IODataQueueSetNotificationPort(q, notify)") == iokit.kIOReturnSuccess
    return client


def mach_message(destination: int, *rights: tuple[int, int]) -> bytes:
    from machport.abi import message as layout

    return layout.pack(
        mach.MACH_MSG_TYPE_COPY_SEND, destination, descriptors=[layout.port_descriptor(*right) for right in rights]
    )


def enqueue(producer: Client, data: bytes) -> int:
    code: int = producer.do(f"iokit.IODataQueueEnqueue(q, {data!r}, {len(data)})")
    return code


def drain(queue: iokit.DataQueueMemory) -> list[bytes]:
    entries: list[bytes] = []
    while True:
        data, size = bytearray(100), Size(100)
        code = iokit.IODataQueueDequeue(queue, data, size)
        if code == iokit.kIOReturnUnderrun:
            return entries
        assert code == iokit.kIOReturnSuccess
        entries.append(bytes(data[: size.value]))


def pending(port: int) -> int:
    return mach.mach_port_get_receive_status(mach.mach_task_self(), port).msgcount


def test_the_notification_port_is_a_receive_right_for_one_message_without_a_send_right(
    self_task: int, port: int
) -> None:
    assert mach.mach_port_type(self_task, port) == mach.MACH_PORT_TYPE_RECEIVE
    status = mach.mach_port_get_receive_status(self_task, port)
    assert (status.qlimit, status.mscount, status.srights) == (1, 0, 0)


def test_what_one_process_enqueues_another_dequeues_after_one_notification(
    producer: Client, queue: iokit.DataQueueMemory, port: int
) -> None:
    assert not iokit.IODataQueueDataAvailable(queue)
    for entry in (b"first", b"", b"third"):
        assert enqueue(producer, entry) == iokit.kIOReturnSuccess
    assert pending(port) == 1
    assert iokit.IODataQueueWaitForAvailableData(queue, port) == mach.MACH_MSG_SUCCESS
    peeked = iokit.IODataQueuePeek(queue)
    assert peeked is not None
    assert bytes(peeked) == b"first"
    del peeked
    assert drain(queue) == [b"first", b"", b"third"]


def test_a_consumer_that_waits_first_is_woken_by_the_first_entry(
    new_client: NewClient, producer: Client, queue: iokit.DataQueueMemory, port: int
) -> None:
    import threading

    codes: list[int] = []
    consumer = threading.Thread(target=lambda: codes.append(iokit.IODataQueueWaitForAvailableData(queue, port)))
    consumer.start()
    enqueue(producer, b"entry")
    consumer.join(PATIENCE)
    assert codes == [mach.MACH_MSG_SUCCESS]
    assert drain(queue) == [b"entry"]


def test_many_notifications_that_were_not_needed_leave_one_message_and_no_references(
    producer: Client, queue: iokit.DataQueueMemory, port: int
) -> None:
    for _ in range(20):
        enqueue(producer, b"x")
        drain(queue)
    assert pending(port) == 1
    assert producer.do("mach.mach_port_get_refs(me, notify, mach.MACH_PORT_RIGHT_SEND)") == 1


def test_a_full_queue_refuses_the_entry_and_notifies_all_the_same(
    producer: Client, queue: iokit.DataQueueMemory, port: int
) -> None:
    while enqueue(producer, bytes(100)) == iokit.kIOReturnSuccess:
        assert iokit.IODataQueueDataAvailable(queue)
    assert iokit.IODataQueueWaitForAvailableData(queue, port) == mach.MACH_MSG_SUCCESS
    assert enqueue(producer, bytes(100)) == iokit.kIOReturnOverrun
    assert pending(port) == 1


def test_waiting_does_not_look_at_the_ring(producer: Client, queue: iokit.DataQueueMemory, port: int) -> None:
    enqueue(producer, b"entry")
    drain(queue)
    # The message is left over from data that is drained: it returns with an empty ring (Q33).
    assert iokit.IODataQueueWaitForAvailableData(queue, port) == mach.MACH_MSG_SUCCESS
    assert not iokit.IODataQueueDataAvailable(queue)


def test_a_dead_notification_port_does_not_stop_the_queue(
    producer: Client, queue: iokit.DataQueueMemory, port: int, self_task: int
) -> None:
    mach.mach_port_mod_refs(self_task, port, mach.MACH_PORT_RIGHT_RECEIVE, -1)
    assert enqueue(producer, b"entry") == iokit.kIOReturnSuccess
    assert drain(queue) == [b"entry"]
    assert iokit.IODataQueueWaitForAvailableData(queue, port) == mach.MACH_RCV_INVALID_NAME


def test_port_0_switches_notification_off(producer: Client, queue: iokit.DataQueueMemory, port: int) -> None:
    assert producer.do("iokit.IODataQueueSetNotificationPort(q, 0)") == iokit.kIOReturnSuccess
    enqueue(producer, b"entry")
    assert pending(port) == 0


def test_null_arguments_are_bad_arguments(self_task: int, port: int, queue: iokit.DataQueueMemory) -> None:
    assert iokit.IODataQueueSetNotificationPort(None, port) == iokit.kIOReturnBadArgument
    assert not iokit.IODataQueueDataAvailable(None)
    assert iokit.IODataQueuePeek(None) is None
    assert iokit.IODataQueueDequeue(None, None, None) == iokit.kIOReturnBadArgument
    assert iokit.IODataQueueEnqueue(None, b"", 0) == iokit.kIOReturnBadArgument
    assert iokit.IODataQueueWaitForAvailableData(None, port) == iokit.kIOReturnBadArgument
    assert iokit.IODataQueueWaitForAvailableData(queue, mach.MACH_PORT_NULL) == iokit.kIOReturnBadArgument


def test_what_a_killed_producer_enqueued_is_still_there(
    producer: Client, queue: iokit.DataQueueMemory, port: int
) -> None:
    for number in range(3):
        enqueue(producer, bytes([number]))
    producer.die()
    assert drain(queue) == [b"\0", b"\1", b"\2"]


def test_the_memory_of_a_queue_leaves_no_descriptor_with_the_daemon(
    producer: Client, daemon: object, task: machport.Task
) -> None:
    from actors import DaemonProcess

    assert isinstance(daemon, DaemonProcess)
    links = [os.readlink(f"/proc/{daemon.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{daemon.pid}/fd")]
    assert not any("machport-dataqueue" in link for link in links)
