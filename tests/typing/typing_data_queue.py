"""What the types say about data queues and the manuals' functions.  mypy and pyright read this; nobody runs it."""

from __future__ import annotations

import ctypes
from typing import assert_type

from machport import DataQueue, SendRight, Task, iokit, mach


def both_ends(queue: DataQueue, task: Task, right: SendRight) -> None:
    assert_type(DataQueue(1 << 16), DataQueue)
    assert_type(DataQueue.with_entries(4, 100), DataQueue)
    assert_type(right.open_data_queue(), DataQueue)
    with queue as entered:
        assert_type(entered, DataQueue)
    task.spawn(print, queue.move_producer(), queue.move_consumer())
    right.send(rights=[queue.move_consumer()])
    right.send(rights=[queue])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    DataQueue("8M")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def writing(queue: DataQueue) -> None:
    queue.enqueue(bytearray(4), timeout=1)
    with queue.reserve(4) as room:
        assert_type(room, memoryview)
    queue.enqueue("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def reading(queue: DataQueue) -> None:
    assert_type(queue.dequeue(timeout=0), bytes)
    assert_type(queue.dequeue_many(8), list[bytes])
    assert_type(queue.fileno(), int)
    for entry in queue:
        assert_type(entry, memoryview)


async def reading_while_the_loop_goes_on(queue: DataQueue) -> None:
    async for entry in queue:
        assert_type(entry, memoryview)
    await queue.readable()
    await queue.writable(100)


def notifying(queue: DataQueue, right: SendRight) -> None:
    queue.set_notification_port(right)
    queue.set_notification_port(None)
    queue.set_notification_port(right.name)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def by_the_names_of_the_manuals() -> None:
    task = mach.mach_task_self()
    port = mach.mach_port_allocate(task, mach.MACH_PORT_RIGHT_RECEIVE)
    assert_type(port, int)
    queue = iokit.DataQueueMemory.with_capacity(1 << 16, shared=True)
    assert_type(iokit.IODataQueueDequeue(queue, bytearray(4), ctypes.c_uint32(4)), int)
    assert_type(iokit.IODataQueuePeek(queue), memoryview | None)
    mach.mach_port_allocate(task, "receive")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
