"""A pool of worker processes of which one is killed: only the call that it had received is lost, and it says why.

The others go on, a successor takes the killed worker's place, and a lost call can be submitted again.
"""

import os
import signal

import machport


def square(number: int) -> int:
    return number * number


def work_for_ever(started: machport.SendRight) -> None:
    started.send(b"%d" % os.getpid())
    signal.pause()


def main() -> None:
    with machport.Task() as task, machport.WorkerPool(2, task=task) as pool:
        started = task.allocate()
        doomed = pool.submit(work_for_ever, started.make_send().move())
        waiting = [pool.submit(square, number) for number in range(10)]
        os.kill(int(started.receive(timeout=30).body), signal.SIGKILL)
        try:
            doomed.result(timeout=30)
        except machport.WorkerDied as error:
            print("lost, and how:", str(error.death).partition(") ")[2])
        print(*(future.result(timeout=30) for future in waiting))
        print("and the pool goes on:", pool.submit(square, 12).result(timeout=30))


if __name__ == "__main__":
    main()
