"""Frames of a camera through shared memory, NumPy arrays without a copy, and what a kill -9 of either end shows.

The camera draws a ball that moves by seven pixels from frame to frame.  Needs NumPy; machport does not.
"""

import itertools
import signal

import numpy as np
import numpy.typing as npt

import machport

SHAPE = (480, 640, 3)
SIZE = int(np.prod(SHAPE))
Frame = npt.NDArray[np.uint8]


def draw(frame: Frame, number: int) -> None:
    frame[...] = 16
    x = 40 + 7 * number % 560
    frame[220:260, x - 20 : x + 20] = (250, 200, 40)


def film(frames: machport.DataQueue) -> None:
    """The camera: each frame is drawn in the memory where it will be seen."""
    number = 0
    while True:
        try:
            with frames.reserve(SIZE) as room:
                draw(np.frombuffer(room, np.uint8).reshape(SHAPE), number)
        except machport.PeerDied as end:
            print("camera: nobody looks any more;", cause(end), flush=True)
            return
        number += 1


def watch(frames: machport.DataQueue, places: machport.DataQueue) -> None:
    for entry in frames:
        places.enqueue(place(np.frombuffer(entry, np.uint8).reshape(SHAPE)).to_bytes(4, "little"))


def cause(end: machport.PeerDied) -> str:
    end.death.wait()  # the end is known at once, why a moment later
    return f"its process was killed by {signal.Signals(end.death.signal).name}"


def place(frame: Frame) -> int:
    """Where the ball is."""
    return int(np.flatnonzero(frame[240, :, 0] > 128).mean())


def kill_the_camera(task: machport.Task) -> None:
    with machport.DataQueue.with_entries(4, SIZE) as frames, task.spawn(film, frames.move_producer()) as camera:
        places = []
        try:
            for entry in frames:
                # Its room is given back when the last array of it is gone.
                places.append(place(np.frombuffer(entry, np.uint8).reshape(SHAPE)))
                if len(places) == 100:
                    camera.kill()
        except machport.PeerDied as end:
            print("viewer: no frame comes any more;", cause(end))
        steps = {(after - before) % 560 for before, after in itertools.pairwise(places)}
        print("viewer: from frame to frame the ball moved by", steps)


def kill_the_viewer(task: machport.Task) -> None:
    with (
        machport.DataQueue.with_entries(4, SIZE) as frames,
        machport.DataQueue(1 << 16) as places,
        task.spawn(watch, frames.move_consumer(), places.move_producer()) as viewer,
        task.spawn(film, frames.move_producer()) as camera,
    ):
        for number, _ in enumerate(places):
            if number == 100:
                viewer.kill()
                break
        viewer.join()
        camera.join()


def main() -> None:
    with machport.Task() as task:
        kill_the_camera(task)
        kill_the_viewer(task)


if __name__ == "__main__":
    main()
