"""Entries from one process to another through shared memory."""

from collections.abc import Iterator

import machport


def frames() -> Iterator[bytes]:
    for number in range(1000):
        yield b"%4d" % number * 1000


def produce(queue: machport.DataQueue) -> None:
    for frame in frames():
        queue.enqueue(frame)  # any buffer; waits while the ring is full


def main() -> None:
    total = 0
    queue = machport.DataQueue(8 << 20)  # a ring in memory that two processes share
    with machport.Task() as task, queue, task.spawn(produce, queue.move_producer()):
        for entry in queue:  # views, not copies; sleeps while there is nothing
            total += len(entry)  # and raises PeerDied, saying who and why, when the producer was killed
    print(total, "bytes")


if __name__ == "__main__":
    main()
