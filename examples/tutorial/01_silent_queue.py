"""A worker is killed, and its queue says nothing."""

import multiprocessing
import os
import queue
import signal
from multiprocessing.queues import Queue


def work(jobs: "Queue[str]", answers: "Queue[str]") -> None:
    while True:
        job = jobs.get()
        if job == "too large":
            os.kill(os.getpid(), signal.SIGKILL)  # what Linux does to a process that takes too much memory
        answers.put(job.upper())


def main() -> None:
    context = multiprocessing.get_context("spawn")
    jobs: Queue[str] = context.Queue()
    answers: Queue[str] = context.Queue()
    worker = context.Process(target=work, args=(jobs, answers), daemon=True)
    worker.start()

    jobs.put("hello")
    print(answers.get())
    jobs.put("too large")
    try:
        print(answers.get(timeout=1))  # without the timeout it would wait for ever
    except queue.Empty:
        print("no answer after a second; is the worker slow, or dead?")
    worker.join()


if __name__ == "__main__":
    main()
