"""A worker is killed with a request in its hands, and whoever waits for the answer is told at once."""

import os
import signal

import machport


def work(port: machport.ReceiveRight) -> None:
    for request in port:
        if request.body == b"too large":
            os.kill(os.getpid(), signal.SIGKILL)
        request.reply(request.body.upper())


def main() -> None:
    with machport.Task() as task:
        port = task.allocate()
        worker = port.make_send()
        task.spawn(work, port.move())

        print(worker.call(b"hello").body)
        for job in (b"too large", b"hello again"):
            try:
                worker.call(job)  # no timeout, and none is needed
            except machport.ServerDied as error:
                print(job, "->", "ask again" if error.retry_safe else "perhaps done, perhaps not")


if __name__ == "__main__":
    main()
