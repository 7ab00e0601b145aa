"""A data queue from one program to another that it starts, without a daemon."""

import os
import subprocess
import sys

import machport


def film(queue: machport.DataQueue) -> None:
    for number in range(3):
        queue.enqueue(b"frame %d" % number)


def start() -> None:
    queue = machport.DataQueue(1 << 16)
    descriptor = queue.detach_producer()
    camera = subprocess.Popen([sys.executable, __file__, str(descriptor)], pass_fds=[descriptor])
    os.close(descriptor)  # or a child that dies before from_fd would not be noticed
    with queue, camera:
        print(*map(bytes, queue))


def main() -> None:
    if len(sys.argv) == 1:
        start()
    else:
        with machport.DataQueue.from_fd(int(sys.argv[1])) as queue:
            film(queue)


if __name__ == "__main__":
    main()
