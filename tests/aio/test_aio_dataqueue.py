"""Data queues in an event loop, whichever it is."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

import machport
from machport import DataQueue, aio

Run = Callable[[Callable[[], Awaitable[Any]]], Any]


def count(queue: DataQueue, number: int) -> None:
    for value in range(number):
        queue.enqueue(b"%d" % value)


def test_entries_come_and_room_is_waited_for(run: Run, loop_task: aio.Task) -> None:
    async def main() -> None:
        with DataQueue(200) as queue, DataQueue(100) as narrow:
            with loop_task.spawn(count, queue.move_producer(), 500):
                assert [int(bytes(entry)) async for entry in queue] == list(range(500))
            with DataQueue.from_fd(narrow.detach_consumer()) as consumer:
                got = list[bytes]()
                async with anyio.create_task_group() as tasks:

                    async def take() -> None:
                        async for entry in consumer:
                            got.append(bytes(entry))

                    tasks.start_soon(take)
                    for value in range(100):
                        await narrow.writable(30)
                        narrow.enqueue(b"%030d" % value, timeout=0)
                    narrow.close()
                assert [int(entry) for entry in got] == list(range(100))

    run(main)


def test_a_cancelled_step_has_taken_nothing(run: Run) -> None:
    """T9."""

    async def main() -> None:
        with DataQueue(1000) as queue:
            for passes in range(8):
                taken = list[bytes]()
                async with anyio.create_task_group() as tasks:
                    scope = anyio.CancelScope()

                    async def step(scope: anyio.CancelScope = scope, taken: list[bytes] = taken) -> None:
                        with scope:
                            taken.append(bytes(await anext(queue)))

                    tasks.start_soon(step)
                    for _ in range(passes):
                        await checkpoint()
                    queue.enqueue(b"entry")
                    scope.cancel()
                assert taken or queue.dequeue(timeout=0) == b"entry"
                assert not queue.data_available()

    run(main)


@pytest.mark.parametrize("how", ["close", "abandon", "detach", "move away"])
def test_who_waits_at_an_end_that_goes_is_told(run: Run, how: str) -> None:
    """T15."""

    async def main() -> None:
        queue = DataQueue(1000)
        producer: DataQueue | None = None
        async with anyio.create_task_group() as tasks:

            async def wait() -> None:
                if how == "move away":
                    await queue.readable()
                else:
                    with pytest.raises(machport.QueueMisuse):
                        await queue.readable()

            tasks.start_soon(wait)
            for _ in range(3):
                await checkpoint()
            with pytest.raises(machport.QueueMisuse, match="another coroutine waits"):
                await queue.readable()
            if how == "detach":
                os.close(queue.detach_consumer())
            elif how == "move away":
                producer = DataQueue.from_fd(queue.detach_producer())
                await checkpoint()
                producer.enqueue(b"entry")
            else:
                getattr(queue, how)()
        queue.close()
        if producer is not None:
            producer.close()

    run(main)
