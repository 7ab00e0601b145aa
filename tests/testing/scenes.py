"""Scenes that happen with a daemon and in a world alike: what a person would see of each, line by line.

Each gets a task and makes everything from it; what differs by nature (numbers of processes) is left out.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable

import machport
from machport import mach

#: Seconds for what does come.
PATIENCE = 30.0


class Log:
    """What a scene shows."""

    def __init__(self, task: machport.Task) -> None:
        self.task = task
        self.lines: list[str] = []

    def note(self, *what: object) -> None:
        self.lines.append(re.sub(r"(?<=\[)\d+(?=\])|\d\d:\d\d:\d\d", "", " ".join(map(str, what))))

    def attempt(self, call: Callable[[], object]) -> None:
        """What a call gives back, or how it fails, in full."""
        try:
            self.note(call())
        except machport.MachError as error:
            self.note(type(error).__name__, error)

    def message(self, port: machport.ReceiveRight, timeout: float = PATIENCE) -> machport.Message:
        message = port.receive(timeout)
        kinds = [type(right).__name__ for right in message.rights]
        self.note(type(message).__name__, message.id, message.body, kinds, message.sender, message.seqno, message.port)
        return message

    def names(self) -> None:
        for name, kind in sorted(self.task.calls.mach_port_names(self.task.name)):
            self.note(f"{name:#x} {kind:#x}")


def answer_upper(port: machport.ReceiveRight) -> None:
    for request in port:
        if request.expects_reply:
            request.reply(request.body.upper())


def take_and_wait(port: machport.ReceiveRight, ready: machport.SendRight, count: int) -> None:
    """Take some requests, and never answer."""
    for _ in range(count):
        port.receive()
    ready.send(b"took them")
    port.task.allocate().receive()


def hold(*rights: machport.Right) -> None:
    ready = rights[0]
    assert isinstance(ready, machport.SendRight)
    ready.send(b"ready")
    ready.task.allocate().receive()


def end_at_once(*rights: machport.Right) -> None:
    pass


def killed_server(log: Log) -> None:
    task = log.task
    port, deaths = task.allocate(), task.allocate()
    right = port.make_send()
    log.note(right.request_dead_name(deaths))
    with task.spawn(answer_upper, port.move()) as child:
        log.note(right.call(b"hello", timeout=PATIENCE).body)
        child.kill()
        log.note(child.join(PATIENCE), child.exitcode)
        log.message(deaths).close()
        log.attempt(lambda: right.call(b"again"))
        log.attempt(lambda: right.send(b"again"))
    log.note(right.is_dead())
    log.names()


def requests_die_with_their_server(log: Log) -> None:
    task = log.task
    port, answers, ready = task.allocate(qlimit=10), task.allocate(qlimit=20), task.allocate()
    right = port.make_send()
    back = task.allocate()
    port.request_port_destroyed(back)
    with task.spawn(take_and_wait, port.move(), ready.make_send().move(), 2) as child:
        for number in range(5):
            right.send(b"%d" % number, id=number, reply_to=answers)
        log.message(ready)
        child.kill()
        notice = log.message(back)
        assert isinstance(notice, machport.PortDestroyedNotification)
        again = notice.right
        assert isinstance(again, machport.ReceiveRight)
        log.note(again.status())
        for _ in range(2):
            log.message(answers)
        for _ in range(3):
            with log.message(again) as request:
                request.reply(b"from the successor")
        for _ in range(3):
            log.message(answers)
    log.names()


def deaths_in_order(log: Log) -> None:
    """Everything that a process held goes at once, in the order of its names."""
    task = log.task
    ports = [task.allocate() for _ in range(4)]
    events, ready = task.allocate(qlimit=50), task.allocate()
    rights: list[machport.Transfer] = [ready.make_send().move()]
    for port in ports:
        rights.append(port.make_send().move())
        port.request_no_senders(events)
        once = events.make_send_once()
        rights.append(once.move())
    dying = [task.allocate() for _ in range(3)]
    for port in dying:
        port.make_send().request_dead_name(events)
        rights.append(port.move())
    with task.spawn(hold, *rights) as child:
        child.task_right.request_dead_name(events)
        log.message(ready)
        child.kill()
        for _ in range(4 + 4 + 3 + 1):
            log.message(events)
        log.attempt(lambda: events.receive(0))


def a_child_that_ends(log: Log) -> None:
    task = log.task
    port, events = task.allocate(), task.allocate()
    port.request_no_senders(events)
    with task.spawn(end_at_once, port.make_send().move()) as child:
        log.note(child.join(PATIENCE))
        log.message(events)


def refusals(log: Log) -> None:
    task = log.task
    port = task.allocate(qlimit=1)
    right, calls = port.make_send(), task.calls
    right.send(b"full")
    log.attempt(lambda: right.send(b"more", timeout=0))
    log.attempt(lambda: right.send(b"more", rights=[task.allocate().move()], timeout=0.01))
    log.attempt(lambda: right.call(b"more", timeout=0.01))
    log.attempt(lambda: calls.mach_port_type(task.name, 0x7777))
    log.attempt(lambda: calls.mach_port_mod_refs(task.name, right.name, 0, -2))
    log.attempt(lambda: calls.mach_port_allocate(0x7777, 1))
    log.attempt(lambda: calls.mach_port_rename(task.name, right.name, port.name))
    log.attempt(lambda: calls.mach_port_insert_right(task.name, port.name, 0x7777, 20))
    log.attempt(lambda: task.look_up("org.example.nobody"))
    log.attempt(right.open_file)
    log.message(port)
    log.attempt(lambda: port.receive(timeout=0))
    log.attempt(lambda: port.receive_many(timeout=0))
    log.names()


def services_and_files(log: Log) -> None:
    task = log.task
    with task.check_in("org.example.service") as service, task.look_up("org.example.service") as right:
        log.attempt(lambda: task.check_in("org.example.service"))
        read, write = os.pipe()
        with task.fileport(write) as file:
            right.send(b"a file", rights=[file.copy()], memory=[b"and memory" * 1000])
        os.close(write)
        with log.message(service) as message:
            log.note(bytes(message.memory[0][:10]), len(message.memory[0]))
            (arrived,) = message.rights
            assert isinstance(arrived, machport.SendRight)
            with open(arrived.open_file(), "wb") as there:
                there.write(b"written")
        log.note(os.read(read, 100), os.read(read, 100))
        os.close(read)
    with contextlib.closing(task.allocate(qlimit=100)) as port, port.make_send() as many:
        log.note(many.send_many([b"%d" % number for number in range(70)]))
        log.note([message.body for message in port.receive_many(40)], len(port.receive_many(40)))
    log.names()


def what_is_known(log: Log) -> None:
    """Labels, holders, and how those ended who held a port."""
    task = log.task

    def describe(right: machport.Right) -> None:
        known = task.calls.describe(right.name)
        end = known.obituary
        log.note(known.type, known.urefs, known.label, known.holder, known.is_dead, known.unreceived)
        if end is not None:
            log.note(end.label, end.status, end.reason)

    # When the daemon hears of a right that is forgotten is not promised, and so not which name is free by then.
    held: list[machport.Right] = []
    for how in ("kill", "terminate", "close"):
        port, answers, ready = task.allocate(), task.allocate(), task.allocate()
        task.calls.port_label(port.name, "jobs")
        right = port.make_send()
        held += [port, answers, ready, right]
        describe(right)
        with task.spawn(take_and_wait, port.move(), ready.make_send().move(), 1) as child:
            for _ in range(2):
                right.send(b"", reply_to=answers)
            log.message(ready)
            describe(right)
            if how != "close":
                getattr(child, how)()
                log.note(child.join(PATIENCE), child.death is not None and child.death.signal)
        for _ in range(2):
            log.message(answers)
            describe(answers)
        describe(right)
    log.attempt(lambda: task.calls.port_label(right.name, "not a receiver"))
    log.attempt(lambda: task.calls.port_label(answers.name, "x" * 65))


def watches(log: Log) -> None:
    task = log.task
    port, other = task.allocate(), task.allocate()
    right, told = port.make_send(), list[str]()
    watch = right.on_dead_name(lambda notice: told.append(type(notice).__name__))
    log.attempt(watch.result)
    with task.spawn(hold, other.make_send().move(), port.move()) as child:
        log.message(other)
        log.attempt(lambda: right.dead(timeout=0.01))
        senders = other.on_no_senders()
        child.kill()
        log.note(type(watch.wait(PATIENCE)).__name__, type(right.dead(PATIENCE)).__name__)
        log.note(type(senders.wait(PATIENCE)).__name__, senders.done)
    log.note(told)
    with other.make_send() as again:
        log.attempt(lambda: again.dead(timeout=0))
        given_up = again.on_dead_name()
        other.close()
    with given_up:
        log.note(type(given_up.wait(PATIENCE)).__name__)


def rights_with_tickets(log: Log) -> None:
    task, calls = log.task, log.task.calls
    port = task.allocate()
    right = port.make_send()
    ticket = calls.deposit(right.name, mach.MACH_MSG_TYPE_COPY_SEND)
    log.note(len(ticket), calls.claim(ticket)[1])
    log.attempt(lambda: calls.claim(ticket))
    with open(os.devnull) as file:
        log.attempt(lambda: calls.watch_deposit(ticket, file.fileno()))
        log.attempt(lambda: calls.watch_deposit(calls.deposit(port.name, 20), file.fileno()))
    log.attempt(lambda: calls.deposit(0x7777, 20))
    log.names()


SCENES: list[Callable[[Log], None]] = [
    killed_server,
    requests_die_with_their_server,
    deaths_in_order,
    a_child_that_ends,
    refusals,
    services_and_files,
    what_is_known,
    watches,
    rights_with_tickets,
]
