"""A data queue to a child of multiprocessing; no daemon is needed."""

import multiprocessing

import machport


def produce(queue: machport.DataQueue) -> None:
    for number in range(3):
        queue.enqueue(b"entry %d" % number)


def main() -> None:
    queue = machport.DataQueue(1 << 16)
    context = multiprocessing.get_context("spawn")  # or "forkserver", not "fork"
    context.Process(target=produce, args=(queue.move_producer(),)).start()
    with queue:
        print(*map(bytes, queue))


if __name__ == "__main__":
    main()
