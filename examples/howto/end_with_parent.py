"""A worker ends when its parent does, however that ends: here by SIGKILL, when a parent can do nothing any more."""

import os
import sys

import machport


def work(parent: machport.SendRight, port: machport.ReceiveRight) -> None:
    parent.on_dead_name(lambda _: os._exit(1))  # nobody has the parent's port any more: it has ended
    for request in port:
        request.reply(request.body.upper())


def supervise() -> None:
    task, port = machport.task_self(), machport.inherited()["port"]
    assert isinstance(port, machport.ReceiveRight)
    with task.allocate() as alive:  # its receive right goes to nobody, so it dies with this process
        task.spawn(work, alive.make_send().move(), port.move()).join()


def main() -> None:
    with machport.Task() as task, task.allocate() as port, port.make_send() as desk:
        parent = task.spawn([sys.executable, __file__, "supervise"], rights={"port": port.move()})
        print(desk.call(b"hello", timeout=30).body)
        parent.kill()
        print("the parent ended with", parent.join())
        desk.on_dead_name().wait(timeout=30)  # the worker has the port, which dies with it
        print("the worker has ended, too")


if __name__ == "__main__":
    supervise() if "supervise" in sys.argv else main()
