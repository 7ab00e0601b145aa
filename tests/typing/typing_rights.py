"""What the types say about tasks and rights.  mypy and pyright read this; nobody runs it.

Each line that expects an error fails if there is none.
"""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

import machport
from machport import (
    Child,
    DeadName,
    Fileport,
    Message,
    PortSet,
    ReceiveRight,
    Right,
    SendOnceRight,
    SendRight,
    Task,
    Transfer,
    Watch,
    task_self,
)


def tasks(task: Task) -> None:
    assert_type(task_self(), Task)
    assert_type(task.label, str)
    assert_type(task.path, Path)
    assert_type(task.closed, bool)
    assert_type(machport.is_compiled(), bool)
    with Task(label="one", path="/run/x") as entered:
        assert_type(entered, Task)
    Task("one")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    task.allocate(5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def what_a_task_makes(task: Task, port: ReceiveRight, right: SendRight) -> None:
    assert_type(task.allocate(qlimit=1), ReceiveRight)
    assert_type(task.allocate_many(3), list[ReceiveRight])
    assert_type(task.port_set(port), PortSet)
    assert_type(task.look_up("a service"), SendRight)
    assert_type(task.check_in("a service"), ReceiveRight)
    assert_type(task.fileport(0), Fileport)
    task.register("a service", right)
    task.register("a service", port)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    task.port_set(right)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def rights_of_each_kind(
    port: ReceiveRight, right: SendRight, once: SendOnceRight, dead: DeadName, members: PortSet
) -> None:
    assert_type(port.make_send(), SendRight)
    assert_type(port.make_send_once(), SendOnceRight)
    assert_type(right.duplicate(), SendRight)
    assert_type(right.name, int)
    assert_type(right.is_dead(), bool)
    assert_type(members.members(), list[ReceiveRight])
    members.add(port)
    with right as entered:
        assert_type(entered, SendRight)
    every: list[Right] = [port, right, once, dead, members]
    every[0].close()
    members.add(right)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    right.receive()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    port.send(b"")  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    once.call(b"")  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    once.copy()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    port.copy()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]


def a_right_goes_as_a_move_or_a_copy(right: SendRight, port: ReceiveRight) -> None:
    # Each is also a right of its kind, where a typed call takes one.
    several: list[Transfer] = [right.move(), right.copy(), port.move(), port.make_send_once().move()]
    right.send(b"", rights=several)
    right.send(b"", rights=[right.copy(), port.move()])
    right.send(b"", rights=[port])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    right.call(b"", rights=[right])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]


def sending(right: SendRight, port: ReceiveRight) -> None:
    assert_type(right.call(b"", id=1, timeout=0.5), Message)
    assert_type(right.send_many([b"", bytearray(), memoryview(b"")]), int)
    right.send(memoryview(b""), memory=[b""], reply_to=port, timeout=None)
    right.send("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    right.send(b"", 1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    right.send(b"", reply_to=right)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    right.call(b"", timeout="1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def asking_for_notifications(port: ReceiveRight, right: SendRight) -> None:
    assert_type(right.request_dead_name(port), SendOnceRight | None)
    assert_type(port.request_no_senders(None, sync=1), SendOnceRight | None)
    assert_type(port.request_port_destroyed(port), SendOnceRight | None)
    right.request_no_senders(port)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    right.request_dead_name(right)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def asking_about_a_right(right: SendRight) -> None:
    known = right.describe()
    assert_type(known, machport.Description)
    assert_type(known.holder, str)
    assert_type(known.obituary, machport.Obituary | None)
    if known.obituary is not None:
        assert_type(known.obituary.signal, int | None)


async def awaiting(port: machport.aio.ReceiveRight, right: machport.aio.SendRight) -> None:
    assert_type(await right.call(b""), machport.Message)
    assert_type(await right.dead(), machport.DeadNameNotification)
    async for message in port:
        assert_type(message, machport.Message)
    for _ in port:  # type: ignore[attr-defined]  # pyright: ignore
        pass


def pooling(right: SendRight) -> None:
    with machport.WorkerPool(2) as pool:
        future = pool.submit(pow, 2, 3)
        assert_type(pool, machport.WorkerPool)
        try:
            print(future.result(timeout=1))
        except machport.WorkerDied as error:
            assert_type(error.retry_safe, bool)
        except (machport.PoolBroken, machport.PoolShutDown, machport.LoopMisuse) as error:
            assert_type(error.code, int)
    machport.WorkerPool("2")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def watching(port: ReceiveRight, right: SendRight) -> None:
    def told(notice: machport.DeadNameNotification) -> None:
        print(notice.name)

    watch = right.on_dead_name(told)
    assert_type(watch, Watch)
    assert_type(watch.done, bool)
    assert_type(right.dead(timeout=1), machport.DeadNameNotification)
    assert_type(port.no_senders(), machport.NoSendersNotification)
    right.on_dead_name(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def children(task: Task, port: ReceiveRight) -> None:
    child = task.spawn(print, port.move(), bootstrap=True, limits=machport.Limits(names=5))
    assert_type(task.limits(), machport.Limits)
    assert_type(task.usage().names, int | None)
    assert_type(child, Child)
    assert_type(child.pid, int)
    assert_type(child.exitcode, int | None)
    assert_type(child.join(1.5), int | None)
    assert_type(child.task_right.request_dead_name(port), SendOnceRight | None)
    program = machport.spawn(["sort"], rights={"lines": port.move()}, stdout=-1)
    assert_type(program, Child)
    assert_type(machport.inherited(), dict[str, Right | machport.DataQueue])
    task.spawn(["sort"], rights={"lines": port})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    task.spawn(print, confined=True)
    task.task_for_pid(1).send(b"")
    task.allow_task_for_pid(False)
    machport.spawn(["sort"], confined=machport.Confinement(read=["/srv"], write=[], network=True))
    task.spawn(print, confined=1.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    task.spawn(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
