"""Cancelled at any of its awaits, a call has taken nothing, and has sent its message whole or not at all (M18).

Each method is begun, let go on for some passes of the loop while something happens to it, and cancelled there.  What
the task has afterwards is what it had before, less what was sent; what was there to be received is still there.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import machport
from machport import aio
from machport.abi import constants as c
from machport.abi import message as layout
from machport.abi.traps import new_msg

Run = Callable[[Callable[[], Awaitable[Any]]], Any]
#: Passes of the loop after which a call is cancelled, and after which what it waits for happens.
PASSES = [*range(9), 20, 60]


def state(task: aio.Task) -> list[int]:
    """The kinds of all rights that the task has, but for reply ports that are kept for the next call."""
    kept = set(task._reply_ports)
    return sorted(kind for name, kind in task.calls.mach_port_names(task.name) if name not in kept)


async def passes(count: int) -> None:
    for _ in range(count):
        await checkpoint()


async def cancelled(
    call: Callable[[], Awaitable[Any]], after: int, event: Callable[[], object], when: int
) -> list[Any]:
    """Begin a call, cancel it after some passes, and let something happen at one of them; its result if it had one."""
    results = list[Any]()
    done = anyio.Event()

    async with anyio.create_task_group() as tasks:
        scope = anyio.CancelScope()

        async def begin() -> None:
            with scope:
                results.append(await call())
            done.set()

        tasks.start_soon(begin)
        for number in range(max(after, when) + 1):
            if number == when:
                event()
            if number == after:
                scope.cancel()
                await done.wait()
            await checkpoint()
    return results


@pytest.mark.parametrize("method", ["receive", "receive_many", "anext", "set"])
def test_a_cancelled_receive_has_taken_nothing(run: Run, loop_task: aio.Task, method: str) -> None:
    """T9: whether the message comes before, at the same time, or behind the cancellation."""
    port = loop_task.allocate()
    pset = loop_task.port_set(port) if method == "set" else None
    right = port.make_send()
    calls: dict[str, Callable[[], Awaitable[Any]]] = {
        "receive": port.receive,
        "receive_many": port.receive_many,
        "anext": lambda: anext(aiter(port)),
        "set": lambda: pset.receive() if pset else port.receive(),
    }
    loop_task.calls.mach_port_names(loop_task.name)

    async def main() -> None:
        before = state(loop_task)
        for after in PASSES:
            for when in PASSES:
                results = await cancelled(calls[method], after, lambda: right_send(right, b"body"), when)
                if not results:
                    assert (await (pset or port).receive(0)).body == b"body"
                assert port.status().msgcount == 0
                assert state(loop_task) == before

    run(main)


def right_send(right: aio.SendRight, body: bytes) -> None:
    """A message of another thread's making: by the ordinary form of the task."""
    with machport.Task.of(right.task).adopt(right.duplicate()) as sender:
        assert isinstance(sender, machport.SendRight)
        sender.send(body, timeout=0)


def drain(port: aio.ReceiveRight) -> machport.Message:
    """Take a message, as another thread would."""
    return port.task.receive(port.name, 0)


def test_a_cancelled_send_was_sent_whole_or_has_come_back_whole(run: Run, loop_task: aio.Task) -> None:
    """M18, M19: the objects say which; what was copied is not lost, and what was moved is in one place."""
    port = loop_task.allocate(qlimit=1)
    right = port.make_send()

    async def main() -> None:
        before = state(loop_task)
        for after in PASSES:
            for when in PASSES:
                right_send(right, b"first")
                moved, other, another = loop_task.allocate_many(3)
                sender, once = other.make_send(), another.make_send_once()
                transfers = [moved.move(), sender.copy(), once.move(), right.copy()]
                taken = list[machport.Message]()
                send = partial(right.send, b"second", rights=transfers)
                results = await cancelled(send, after, lambda taken=taken: taken.append(drain(port)), when)  # type: ignore[misc]
                assert taken[0].body == b"first"
                assert after >= when or not port.status().msgcount, "it was given up before there was room"
                if port.status().msgcount:
                    assert moved.closed and once.closed and not sender.closed
                    with drain(port) as message:
                        assert message.body == b"second" and len(message.rights) == 4
                        assert isinstance(message.rights[0], aio.ReceiveRight)
                        assert message.rights[0].status().msgcount == 0
                else:
                    assert not results
                    assert moved.status().msgcount == 0
                    right_send(sender, b"usable")
                    once.send(b"usable")
                    moved.close()
                for right_of_pass in (sender, other, another):
                    right_of_pass.close()
                assert port.status().msgcount == 0
                assert state(loop_task) == before

    run(main)


@pytest.mark.parametrize("qlimit", [0, 5], ids=["full", "room"])
def test_a_cancelled_call_leaves_no_port_and_no_right_of_its_answer(run: Run, loop_task: aio.Task, qlimit: int) -> None:
    """The request came back, or was sent; then its late answer is thrown away with the rights in it."""
    port, inside = loop_task.allocate(qlimit=qlimit), loop_task.allocate()
    right, given_back = port.make_send(), inside.make_send()

    async def main() -> None:
        before = state(loop_task)
        for after in PASSES:
            for when in PASSES:
                moved = loop_task.allocate()
                transfers = [moved.move()]

                def answer() -> None:
                    try:
                        request = drain(port)
                    except machport.TimedOut:
                        return
                    with request, contextlib.suppress(machport.DeadPort):
                        request.reply(b"answer", rights=[given_back.copy()])

                call = partial(right.call, b"request", rights=transfers)
                results = await cancelled(call, after, answer, when)
                for reply in results:
                    reply.close()
                answer()
                if not moved.closed:
                    assert moved.status().msgcount == 0
                    moved.close()
                else:
                    assert qlimit
                assert state(loop_task) == before, (after, when)

    run(main)


def test_a_cancelled_reply_and_receive_has_answered_and_taken_nothing(run: Run, loop_task: aio.Task) -> None:
    port, reply_port = loop_task.allocate(), loop_task.allocate()
    right = port.make_send()

    async def main() -> None:
        before = state(loop_task)
        for after in PASSES:
            for when in PASSES:
                await right.send(b"request", reply_to=reply_port)
                request = await port.receive()
                results = await cancelled(
                    lambda: port.reply_and_receive(request, b"answer"),  # noqa: B023
                    after,
                    lambda: right_send(right, b"next"),
                    when,
                )
                if not results:
                    assert (await port.receive(0)).body == b"next"
                if request.expects_reply:
                    assert reply_port.status().msgcount == 0
                    request.reply(b"answer")
                assert (await reply_port.receive(0)).body == b"answer"
                assert reply_port.status().msgcount == port.status().msgcount == 0
                assert state(loop_task) == before

    run(main)


def test_an_answer_by_a_send_right_that_waits_for_room_comes_back(run: Run, loop_task: aio.Task) -> None:
    port, full, moved = loop_task.allocate(), loop_task.allocate(qlimit=0), loop_task.allocate()
    right = port.make_send()

    async def main() -> None:
        bits = layout.bits(c.MACH_MSG_TYPE_COPY_SEND, c.MACH_MSG_TYPE_MAKE_SEND)
        assert not loop_task.calls.mach_msg(new_msg(c.MACH_SEND_MSG, layout.pack(bits, right.name, full.name))).code
        request = await port.receive()
        assert isinstance(request.reply_right, aio.SendRight)
        for after in (3, 30):
            results = await cancelled(
                lambda: port.reply_and_receive(request, b"answer", rights=[moved.move()]), after, lambda: None, 0
            )
            assert not results and request.expects_reply and not moved.closed
        full.set_qlimit(1)
        with pytest.raises(machport.TimedOut):
            await port.reply_and_receive(request, b"answer", timeout=0.01)
        assert (await full.receive(0)).body == b"answer"

    run(main)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(after=st.integers(0, 40), room=st.integers(0, 70), count=st.integers(1, 150))
def test_of_many_messages_the_first_were_sent_up_to_one(
    run: Run, loop_task: aio.Task, after: int, room: int, count: int
) -> None:
    """None is sent whose predecessor came back."""
    port = loop_task.allocate(qlimit=room)
    right = port.make_send()

    async def main() -> None:
        before = state(loop_task)
        bodies = [b"%d" % number for number in range(count)]
        taken = list[bytes]()

        def take() -> None:
            while port.status().msgcount and len(taken) < 20:
                taken.append(drain(port).body)

        await cancelled(lambda: right.send_many(bodies), after, take, after // 2)
        while port.status().msgcount:
            taken.append(drain(port).body)
        assert taken == bodies[: len(taken)]
        assert state(loop_task) == before

    run(main)
    right.close()
    port.close()


def test_a_server_that_is_cancelled_in_its_handler_lets_the_caller_know(run: Run, loop_task: aio.Task) -> None:
    port = loop_task.allocate()
    right = port.make_send()

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            began = anyio.Event()
            scope = anyio.CancelScope()

            async def answer(request: machport.Message) -> bytes:
                began.set()
                await anyio.sleep_forever()
                return b""

            async def serve() -> None:
                with scope:
                    await port.serve(answer)

            async def call() -> None:
                with pytest.raises(machport.ServerDied):
                    await right.call()

            tasks.start_soon(serve)
            tasks.start_soon(call)
            await began.wait()
            scope.cancel()
        assert port.status().msgcount == 0

    run(main)


@pytest.mark.parametrize("method", ["dead", "no_senders", "await"])
def test_a_cancelled_wait_for_a_notification_withdraws_the_request(run: Run, loop_task: aio.Task, method: str) -> None:
    port = loop_task.allocate()
    right = port.make_send()

    async def main() -> None:
        before = state(loop_task)
        for after in PASSES:
            watch = right.on_dead_name() if method == "await" else None
            calls: dict[str, Callable[[], Awaitable[Any]]] = {
                "dead": right.dead,
                "no_senders": port.no_senders,
                "await": lambda: wait_for(watch),  # noqa: B023
            }
            assert not await cancelled(calls[method], after, lambda: None, 0)
            if watch is not None:
                watch.close()
            assert state(loop_task) == before
        assert right.request_dead_name(None) is None and port.request_no_senders(None) is None

    run(main)


async def wait_for(watch: machport.Watch | None) -> Any:
    assert watch is not None
    return await watch


def test_coroutines_that_are_all_cancelled_at_once_leave_the_others_alone(run: Run, loop_task: aio.Task) -> None:
    ports = loop_task.allocate_many(20)
    senders = [port.make_send() for port in ports]

    async def main() -> None:
        before = state(loop_task)
        rng = random.Random(1)
        got = list[int]()
        scope = anyio.CancelScope()
        async with anyio.create_task_group() as tasks:

            async def receive(number: int, leaves: bool) -> None:
                with scope if leaves and number == 0 else anyio.CancelScope() as own:
                    if leaves:
                        scopes.append(own)
                    await ports[number].receive()
                    got.append(number)

            scopes = list[anyio.CancelScope]()
            for number in range(20):
                tasks.start_soon(receive, number, number % 2 == 0)
            await passes(20)
            rng.shuffle(scopes)
            for leaving in scopes:
                leaving.cancel()
            await passes(5)
            for sender in senders:
                right_send(sender, b"")
        assert sorted(got) == list(range(1, 20, 2))
        assert [port.status().msgcount for port in ports] == [1, 0] * 10
        assert state(loop_task) == before

    run(main)
