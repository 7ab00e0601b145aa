"""Arrays of NumPy in the memory of a data queue."""

import numpy as np
import numpy.typing as npt

import machport

SHAPE = (480, 640)
Array = npt.NDArray[np.float32]


def array_of(entry: memoryview) -> Array:  # reading: a view, read-only
    return np.frombuffer(entry, np.float32).reshape(SHAPE)


def write(queue: machport.DataQueue, array: Array) -> None:
    queue.enqueue(array.data)  # writing: one copy, of any contiguous array
    with queue.reserve(array.nbytes) as room:  # or none
        np.frombuffer(room, np.float32).reshape(SHAPE)[...] = 2


def main() -> None:
    with machport.DataQueue.with_entries(4, 4 * 480 * 640) as queue:
        write(queue, np.ones(SHAPE, np.float32))
        for _ in range(2):
            with queue.peek() as entry:  # taken when the block ends
                print(array_of(entry).mean())


if __name__ == "__main__":
    main()
