"""Protocols as users write them, to be looked at in worlds: a lease with its server, a work queue with failover."""

from __future__ import annotations

import contextlib
from collections import deque

import machport

# A lease: whoever holds it is alone


def lease_server(port: machport.ReceiveRight) -> None:
    """Give the lease to one client after the other; it is over when the client's right is gone, however it goes."""
    task = port.task
    waiting: deque[machport.Message] = deque()
    lease: machport.ReceiveRight | None = None
    for message in port:
        if isinstance(message, machport.NoSendersNotification):
            assert lease is not None
            lease.close()
            lease = None
        else:
            waiting.append(message)
        while waiting and lease is None:
            lease = task.allocate()
            lease.request_no_senders(port, sync=1)
            right = lease.make_send()
            try:
                waiting.popleft().reply(rights=[right.move()])
            except machport.DeadPort:
                lease.close()
                right.close()
                lease = None


def forgetful_lease_server(port: machport.ReceiveRight) -> None:
    """The same with a mistake: the lease is over when the client says so."""
    waiting: deque[machport.Message] = deque()
    free = True
    for message in port:
        if message.id == 2:
            free = True
        else:
            waiting.append(message)
        while waiting and free:
            with contextlib.suppress(machport.DeadPort):
                waiting.popleft().reply()
                free = False


class Counter:
    """What the lease protects, and who is there."""

    def __init__(self) -> None:
        self.value = 0
        self.inside: list[str] = []

    def add(self, task: machport.Task) -> None:
        """Read, do something else, write."""
        self.inside.append(task.label)
        try:
            assert len(self.inside) == 1, f"{self.inside} are there together"
            value = self.value
            assert task.calls.mach_port_type(task.name, task.name)
            self.value = value + 1
        finally:
            self.inside.remove(task.label)


def lease_client(service: machport.SendRight, counter: Counter, times: int) -> None:
    with contextlib.suppress(machport.ServerDied):
        for _ in range(times):
            with service.call(id=1):
                counter.add(service.task)


def polite_client(service: machport.SendRight, counter: Counter, times: int) -> None:
    """A client of the forgetful server."""
    with contextlib.suppress(machport.DeadPort):
        for _ in range(times):
            service.call(id=1)
            counter.add(service.task)
            service.send(id=2)


def careless_client(service: machport.SendRight, counter: Counter, times: int) -> None:
    """Without any lease."""
    for _ in range(times):
        value = counter.value
        service.send(id=3)
        counter.value = value + 1


# A work queue: the successor of a killed worker finds the jobs that wait


def worker(jobs: machport.ReceiveRight, done: machport.SendRight) -> None:
    """Say of each job that it is done, and then answer it."""
    for job in jobs:
        if job.expects_reply:
            done.send(job.body)
            with job, contextlib.suppress(machport.DeadPort):
                job.reply(job.body.upper())


def supervisor(jobs: machport.ReceiveRight, done: machport.SendRight, generations: int) -> None:
    """Let workers serve the jobs, each the successor of one that was killed."""
    back = jobs.task.allocate()
    for _ in range(generations):
        jobs.request_port_destroyed(back)
        with jobs.task.spawn(worker, jobs.move(), done.copy()):
            notice = back.receive()
            assert isinstance(notice, machport.PortDestroyedNotification)
            jobs = notice.right


def hasty_supervisor(jobs: machport.ReceiveRight, done: machport.SendRight, generations: int) -> None:
    """The same with a mistake: it moves the right away before it asks to have it back."""
    back, deaths = jobs.task.allocate(), jobs.task.allocate()
    with jobs.task.spawn(worker, jobs.move(), done.copy()) as child:
        child.task_right.request_dead_name(deaths)
        deaths.receive()
        back.close()


def customer(service: machport.SendRight, bodies: list[bytes], answers: list[bytes]) -> None:
    """Have every job answered; a job whose worker died with it is asked for again."""
    for body in bodies:
        while True:
            try:
                answers.append(service.call(body).body)
                break
            except machport.ServerDied as error:
                if error.code == machport.DeadPort.default_code:
                    return
