"""Many writers, one reader: a queue for each writer, and one port set that tells which of them to look at.

A queue has one producer, so writers never wait for each other's locks, and one that is killed in the middle of an entry
costs its own queue.  The reader takes a bounded batch from each queue in turn, so that none of them starves.
"""

import os
import signal
from collections import deque

import machport

WRITERS = 4
ENTRIES = 2000
BATCH = 64


def write(number: int, queue: machport.DataQueue, wakeup: machport.SendRight) -> None:
    queue.set_notification_port(wakeup)  # an empty message whenever the reader may have found the queue empty
    for index in range(ENTRIES):
        queue.enqueue(b"%d" % index)
        if number == 0 and index == ENTRIES // 2:
            os.kill(os.getpid(), signal.SIGKILL)


def news(fan: machport.PortSet, timeout: float | None) -> list[int]:
    """The ports that have a message."""
    try:
        return [message.port for message in fan.receive_many(timeout=timeout)]
    except machport.TimedOut:
        return []


def main() -> None:
    taken = [0] * WRITERS
    ends = [""] * WRITERS
    with machport.Task() as task:
        fan, queues, children = task.port_set(), {}, []
        for number in range(WRITERS):
            port, queue = task.allocate(qlimit=1), machport.DataQueue(16 * 1024)
            wakeup = port.make_send()
            port.request_no_senders(port)  # when the writer has ended, nobody can send: that is a message, too
            fan.add(port)
            queues[port.name] = (number, queue)
            children.append(task.spawn(write, number, queue.move_producer(), wakeup.move()))

        turns: deque[int] = deque()
        while queues:
            ready = news(fan, timeout=0 if turns else None)
            turns.extend(name for name in ready if name in queues and name not in turns)
            if not turns:
                continue
            number, queue = queues[turns[0]]
            try:
                taken[number] += len(queue.dequeue_many(BATCH, timeout=0))
                turns.rotate(-1)  # the others first
            except machport.QueueEmpty:
                turns.popleft()  # its next entry sends a message
            except machport.QueueEnded as end:
                ends[number] = "killed" if isinstance(end, machport.PeerDied) else "done"
                queues.pop(turns.popleft())
                queue.close()

        for child in children:
            child.close()
    print(ends[0], taken[0] == ENTRIES // 2 + 1, ends[1:], taken[1:])


if __name__ == "__main__":
    main()
