"""Bulk data through a shared-memory queue, whose reader is woken by at most one pending message."""

import contextlib
import ctypes

import machport
from machport import iokit

ENTRIES = 10_000


def produce(memory: machport.SendRight, wakeup: machport.SendRight, room: machport.ReceiveRight) -> None:
    with iokit.DataQueueMemory.from_fd(memory.open_file()) as queue:
        iokit.IODataQueueSetNotificationPort(queue, wakeup.name)  # a name in this task, which does the enqueueing
        for index in range(ENTRIES):
            entry = index.to_bytes(4, "little") * 100
            while iokit.IODataQueueEnqueue(queue, entry, len(entry)) == iokit.kIOReturnOverrun:
                room.receive()  # the queue is full: wait until the reader says that it has drained it


def main() -> None:
    # iokit speaks for the process's own task, so its ports must be that task's, too.
    task = machport.task_self()
    with (
        iokit.DataQueueMemory.with_capacity(1 << 16, shared=True) as queue,
        machport.ReceiveRight(task, iokit.IODataQueueAllocateNotificationPort()) as wakeup,
        task.allocate(qlimit=1) as room,
        room.make_send() as room_right,
        task.spawn(produce, task.fileport(queue).move(), wakeup.make_send().move(), room.move()),
    ):
        buffer, size = bytearray(1000), ctypes.c_uint32()
        taken = 0
        while taken < ENTRIES:
            size.value = len(buffer)
            if iokit.IODataQueueDequeue(queue, buffer, size) == iokit.kIOReturnSuccess:
                assert int.from_bytes(buffer[:4], "little") == taken
                taken += 1
                continue
            with contextlib.suppress(machport.TimedOut):  # one such message waits already, and one is enough
                room_right.send(timeout=0)
            iokit.IODataQueueWaitForAvailableData(queue, wakeup.name)  # drain first, then wait
    print(f"{taken} entries, in order")


if __name__ == "__main__":
    main()
