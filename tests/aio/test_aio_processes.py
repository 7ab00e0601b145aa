"""Event loops of two processes: requests are answered once, however many are given up, and deaths are told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from actors import PATIENCE
from anyio.lowlevel import checkpoint

import machport
from machport import aio

Run = Callable[[Callable[[], Awaitable[Any]]], Any]


async def serve(port: aio.ReceiveRight, marks: aio.SendRight) -> None:
    """Answer each request with itself, and a right that must not be lost; some at once and some later."""

    async def answer(request: machport.Message) -> None:
        number = int(request.body)
        for _ in range(number % 5):
            await asyncio.sleep(0)
        with request, contextlib.suppress(machport.DeadPort):
            request.reply(request.body, rights=[marks.copy()])

    async with asyncio.TaskGroup() as tasks:
        async for request in port:
            if request.body == b"end":
                break
            if isinstance(request, machport.Notification):
                continue
            await marks.send(request.body)
            tasks.create_task(answer(request))


@pytest.mark.parametrize("seed", [1, 2])
def test_a_storm_of_cancellations_loses_no_request_no_name_and_no_right(
    run: Run, loop_task: aio.Task, seed: int
) -> None:
    """1,000 requests, half of them given up at random: the server saw each that was sent once, and none twice."""
    port, marks = loop_task.allocate(), loop_task.allocate(qlimit=1024)
    right = port.make_send()
    rng = random.Random(seed)

    async def main() -> None:
        seen = list[int]()
        outcome = dict[int, str]()

        async def collect() -> None:
            async for message in marks:
                seen.append(int(message.body))

        async def call(number: int, scope: anyio.CancelScope) -> None:
            moved = loop_task.allocate()
            outcome[number] = "given up"
            with scope, await right.call(b"%d" % number, rights=[moved.move()]) as reply:
                assert int(reply.body) == number and len(reply.rights) == 1
                outcome[number] = "answered"
            if not moved.closed:
                outcome[number] = "came back"
                assert moved.status().msgcount == 0
                moved.close()

        async with anyio.create_task_group() as collecting:
            collecting.start_soon(collect)
            before: list[int] | None = None
            with loop_task.spawn(serve, port.move(), marks.make_send().move()) as child:
                await right.call(b"1000000")
                before = sorted(kind for _, kind in loop_task.calls.mach_port_names(loop_task.name))
                for start in range(0, 1000, 50):
                    async with anyio.create_task_group() as tasks:
                        scopes = [anyio.CancelScope() for _ in range(50)]
                        for number, scope in enumerate(scopes, start):
                            tasks.start_soon(call, number, scope)
                        rng.shuffle(scopes)
                        for scope in scopes[:25]:
                            for _ in range(rng.randrange(6)):
                                await checkpoint()
                            scope.cancel()
                kept = len(loop_task._reply_ports)
                await right.send(b"end")
                assert await child.join(PATIENCE) == 0
            after = sorted(kind for _, kind in loop_task.calls.mach_port_names(loop_task.name))
            while marks.status().msgcount:
                await checkpoint()
            await checkpoint()
            marks.close()
        seen.remove(1000000)
        assert len(seen) == len(set(seen)), "a request was answered twice"
        assert {number for number, how in outcome.items() if how == "answered"} <= set(seen)
        assert not {number for number, how in outcome.items() if how == "came back"} & set(seen)
        assert set(seen) == {number for number, how in outcome.items() if how != "came back"}
        assert len(outcome) == 1000
        assert before is not None
        # The dead child's task and server port are dead names now; reply ports are kept for the next calls.
        receive = 1 << 17
        assert len(after) <= len(before) + kept
        assert after.count(receive) <= before.count(receive) + kept

    run(main)


async def wait_for_ever(port: aio.ReceiveRight, ready: aio.SendRight) -> None:
    await ready.send()
    request = await port.receive()
    await ready.send(b"%d" % request.id)
    await port.receive()


def test_a_server_that_is_killed_is_told_to_all_who_wait_for_it(run: Run, loop_task: aio.Task) -> None:
    """Those whose request it had, those whose request it had not, and those who wait for room."""
    port, ready = loop_task.allocate(qlimit=2), loop_task.allocate()
    right = port.make_send()

    async def main() -> None:
        told = list[int]()
        async with anyio.create_task_group() as tasks:

            async def call(number: int) -> None:
                with pytest.raises(machport.ServerDied):
                    await right.call(id=number)
                told.append(number)

            child = loop_task.spawn(wait_for_ever, port.move(), ready.make_send().move())
            await ready.receive()
            for number in range(5):
                tasks.start_soon(call, number)
            await ready.receive()
            os.kill(child.pid, signal.SIGKILL)
            await right.dead()
            assert await child.join() == -signal.SIGKILL
            assert await child.join() == -signal.SIGKILL
            child.close()
        assert sorted(told) == list(range(5))

    run(main)


def test_a_child_that_is_waited_for_in_vain_goes_on(run: Run, loop_task: aio.Task) -> None:
    port, ready = loop_task.allocate(), loop_task.allocate()

    async def main() -> None:
        with loop_task.spawn(wait_for_ever, port.move(), ready.make_send().move()) as child:
            await ready.receive()
            assert await child.join(0.01) is None
            with anyio.move_on_after(0.01):
                await child.join()
            assert child.exitcode is None
            child.kill()
            assert await child.join() == -signal.SIGKILL

    run(main)


def ordinary(right: machport.SendRight) -> None:
    assert type(right) is machport.SendRight and right.task is machport.task_self()
    right.send(b"not awaited")


async def awaited(right: aio.SendRight) -> None:
    assert type(right) is aio.SendRight and right.task is aio.task_self()
    assert aio.Task.of(machport.task_self()) is aio.task_self()
    await right.send(b"awaited")
    sender = machport.task_self().adopt(right)
    assert isinstance(sender, machport.SendRight)
    sender.send(b"and adopted")


def test_rights_arrive_in_a_child_as_its_function_waits(run: Run, loop_task: aio.Task) -> None:
    """A coroutine function is run by asyncio, an ordinary one as from any task."""
    port = loop_task.allocate()

    async def main() -> None:
        with loop_task.spawn(ordinary, port.make_send().move()) as child:
            assert (await port.receive()).body == b"not awaited"
            assert await child.join() == 0
        with loop_task.spawn(awaited, port.make_send().move()) as child:
            assert [(await port.receive()).body for _ in range(2)] == [b"awaited", b"and adopted"]
            assert await child.join() == 0

    run(main)


def test_what_a_killed_process_waited_for_stays_in_its_queue(run: Run, loop_task: aio.Task) -> None:
    """It has received only what its program took."""
    port, ready, returned = loop_task.allocate(), loop_task.allocate(), loop_task.allocate()
    right = port.make_send()
    port.request_port_destroyed(returned)

    async def main() -> None:
        child = loop_task.spawn(wait_for_ever, port.move(), ready.make_send().move())
        await ready.receive()
        await right.send(id=1)
        assert (await ready.receive()).body == b"1"
        os.kill(child.pid, signal.SIGSTOP)
        await right.send(b"not taken")
        os.kill(child.pid, signal.SIGKILL)
        with await returned.receive() as notice:
            assert isinstance(notice, aio.PortDestroyedNotification)
            assert (await notice.right.receive(0)).body == b"not taken"
        child.close()

    run(main)
