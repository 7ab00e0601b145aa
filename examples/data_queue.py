"""A large file through a data queue: one process reads it, another has its digest, and nothing is copied on the way."""

import hashlib
import sys
from pathlib import Path

import machport

CHUNK = 256 * 1024


def read(path: Path, queue: machport.DataQueue) -> None:
    with open(path, "rb", buffering=0) as file:
        left = path.stat().st_size
        while left:
            with queue.reserve(min(CHUNK, left)) as room:  # the file is read where the other process will look
                file.readinto(room)
                left -= len(room)


def main(path: Path) -> None:
    digest = hashlib.sha256()
    queue = machport.DataQueue(8 * CHUNK)
    with machport.Task() as task, queue, task.spawn(read, path, queue.move_producer()):
        for entry in queue:  # views of the shared memory; sleeps when there is none, ends when the file has ended
            digest.update(entry)
    print(digest.hexdigest() == hashlib.sha256(path.read_bytes()).hexdigest())


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else sys.executable).resolve())
