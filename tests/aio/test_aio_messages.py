"""Messages in an event loop: what waits is awaited, and everything else is as without one."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from actors import DaemonProcess
from anyio.lowlevel import checkpoint

import machport
from machport import aio
from machport.abi import constants as c

Run = Callable[[Callable[[], Awaitable[Any]]], Any]


async def settled(passes: int = 20) -> None:
    """Let all that can go on go on."""
    for _ in range(passes):
        await checkpoint()


def test_a_request_is_answered(run: Run, loop_task: aio.Task) -> None:
    async def main() -> None:
        port = loop_task.allocate()
        right = port.make_send()
        async with anyio.create_task_group() as tasks:

            async def answer() -> None:
                async for request in port:
                    with request:
                        request.reply(request.body.upper(), rights=[right.copy()])

            tasks.start_soon(answer)
            for number in range(20):
                with await right.call(b"request %d" % number, id=7) as reply:
                    assert (reply.body, reply.id, len(reply.rights)) == (b"REQUEST %d" % number, 107, 1)
                    assert type(reply.rights[0]) is aio.SendRight
            port.close()

    run(main)


def test_a_thousand_calls_at_a_time_leave_few_ports_for_the_next(run: Run, loop_task: aio.Task) -> None:
    async def main() -> None:
        port = loop_task.allocate()
        right = port.make_send()
        before = len(loop_task.calls.mach_port_names(loop_task.name))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(port.serve, lambda request: request.body)
            async with anyio.create_task_group() as calls:
                for number in range(1000):
                    calls.start_soon(right.call, b"%d" % number)
            assert len(loop_task.calls.mach_port_names(loop_task.name)) <= before + 256
            port.close()

    run(main)


@pytest.mark.parametrize("size", [0, 5_000, 50_000, 700_000])
def test_bodies_of_any_length_go_both_ways(run: Run, loop_task: aio.Task, size: int) -> None:
    async def main() -> None:
        port, body = loop_task.allocate(), os.urandom(size)
        right = port.make_send()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(port.serve, lambda request: request.body)
            for _ in range(3):
                assert (await right.call(body)).body == body
            port.close()

    run(main)


def test_a_sender_waits_for_room_while_the_loop_goes_on(run: Run, loop_task: aio.Task) -> None:
    async def main() -> None:
        port, moved = loop_task.allocate(qlimit=1), loop_task.allocate()
        right = port.make_send()
        await right.send(b"first")
        async with anyio.create_task_group() as tasks:

            async def second() -> None:
                await right.send(b"second", rights=[moved.move(), right.copy()])
                assert moved.closed

            tasks.start_soon(second)
            await settled()
            with pytest.raises(machport.ClosedRight, match="sent"):
                moved.status()
            assert (await port.receive()).body == b"first"
        with await port.receive() as message:
            assert message.body == b"second" and len(message.rights) == 2

    run(main)


def test_a_timeout_is_told_and_gives_the_rights_back(run: Run, loop_task: aio.Task) -> None:
    async def main() -> None:
        port, moved, other = loop_task.allocate(qlimit=0), loop_task.allocate(), loop_task.allocate()
        once = other.make_send_once()
        right = port.make_send()
        before = sorted(kind for _, kind in loop_task.calls.mach_port_names(loop_task.name))
        for timeout in (0, 0.01):
            with pytest.raises(machport.TimedOut):
                await right.send(rights=[moved.move(), right.copy(), once.move()], timeout=timeout)
            with pytest.raises(machport.TimedOut):
                await right.call(rights=[moved.move()], timeout=timeout)
            with pytest.raises(machport.TimedOut):
                await port.receive(timeout)
            with pytest.raises(machport.TimedOut):
                await port.receive_many(3, timeout)
        assert not moved.closed and not once.closed
        moved.status()
        after = sorted(kind for _, kind in loop_task.calls.mach_port_names(loop_task.name))
        assert before == after, "the reply ports of calls that failed are gone, too"

    run(main)


def test_many_messages_are_sent_in_order_and_received_together(run: Run, loop_task: aio.Task) -> None:
    async def main() -> None:
        port = loop_task.allocate()
        right = port.make_send()
        bodies = [b"%d" % number * (1 + number % 7 * 2000) for number in range(300)]
        received = list[bytes]()
        async with anyio.create_task_group() as tasks:

            async def receive() -> None:
                while len(received) < len(bodies):
                    received.extend([message.body for message in await port.receive_many(7)])

            tasks.start_soon(receive)
            assert await right.send_many(bodies) == 300
        assert received == bodies
        assert await right.send_many([]) == 0

    run(main)


def test_many_sends_end_with_the_port(run: Run, loop_task: aio.Task) -> None:
    async def main() -> None:
        port = loop_task.allocate(qlimit=3)
        right = port.make_send()
        async with anyio.create_task_group() as tasks:

            async def send() -> None:
                with pytest.raises(machport.DeadPort, match="messages were sent, and not all"):
                    await right.send_many([b"x"] * 200)

            tasks.start_soon(send)
            await settled()
            port.close()

    run(main)


def test_a_server_answers_with_coroutines_and_with_functions(run: Run, loop_task: aio.Task) -> None:
    async def main() -> None:
        port = loop_task.allocate()
        right = port.make_send()
        kept = list[machport.Message]()

        async def answer(request: machport.Message) -> bytes | None:
            await checkpoint()
            if request.id == 1:
                kept.append(request)
                return None
            return request.body + b"!"

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(port.serve, answer)
            await right.send(b"nobody waits for this")
            assert (await right.call(b"now")).body == b"now!"

            async def later() -> None:
                assert (await right.call(b"later", id=1)).body == b"kept"

            tasks.start_soon(later)
            while not kept:
                await checkpoint()
            assert (await right.call(b"meanwhile")).body == b"meanwhile!"
            kept[0].reply(b"kept")
            assert (await right.call(b"again")).body == b"again!"
            port.close()
        with pytest.raises(machport.ClosedRight):
            await port.serve(answer)

    run(main)


def test_what_a_handler_raises_ends_the_serving_and_the_caller_learns_it(run: Run, loop_task: aio.Task) -> None:
    async def main() -> None:
        port = loop_task.allocate()
        right = port.make_send()

        async def answer(request: machport.Message) -> bytes:
            raise ZeroDivisionError

        async with anyio.create_task_group() as tasks:

            async def serve() -> None:
                with pytest.raises(ZeroDivisionError):
                    await port.serve(answer)

            tasks.start_soon(serve)
            with pytest.raises(machport.ServerDied):
                await right.call(b"")

    run(main)


def test_an_answer_to_somebody_who_is_gone_is_dropped_and_the_next_is_received(run: Run, loop_task: aio.Task) -> None:
    async def main() -> None:
        port, reply_port, moved = loop_task.allocate(), loop_task.allocate(), loop_task.allocate()
        right = port.make_send()
        await right.send(reply_to=reply_port)
        request = await port.receive()
        reply_port.close()
        await right.send(b"next")
        assert (await port.reply_and_receive(request, b"", rights=[moved.move()])).body == b"next"
        assert moved.closed
        await right.send(reply_to=(another := loop_task.allocate()))
        request = await port.receive()
        another.close()
        assert isinstance(request.reply_right, machport.SendOnceRight)
        with pytest.raises(machport.TimedOut):
            await port.reply_and_receive(request, b"", timeout=0.01)

    run(main)


def test_a_port_set_is_received_from_in_the_order_of_arrival(run: Run, loop_task: aio.Task) -> None:
    async def main() -> None:
        ports = loop_task.allocate_many(3)
        rights = [port.make_send() for port in ports]
        pset = loop_task.port_set(*ports)
        async with anyio.create_task_group() as tasks:

            async def send() -> None:
                for number in (2, 0, 1):
                    await settled(5)
                    await rights[number].send(b"%d" % number)

            tasks.start_soon(send)
            assert [(await pset.receive()).body for _ in range(3)] == [b"2", b"0", b"1"]
        assert {type(member) for member in pset.members()} == {aio.ReceiveRight}

    run(main)


def test_many_coroutines_at_one_port_get_one_message_each(run: Run, loop_task: aio.Task) -> None:
    async def main() -> None:
        port = loop_task.allocate(qlimit=100)
        right = port.make_send()
        got = list[bytes]()
        async with anyio.create_task_group() as tasks:

            async def receive() -> None:
                got.append((await port.receive()).body)

            for _ in range(30):
                tasks.start_soon(receive)
            await settled()
            assert await right.send_many([b"%d" % number for number in range(30)]) == 30
        assert sorted(got, key=int) == [b"%d" % number for number in range(30)]

    run(main)


def test_a_port_that_goes_while_a_coroutine_waits_ends_its_wait(run: Run, loop_task: aio.Task) -> None:
    """P21, P34: as a thread's."""

    async def main() -> None:
        closed, changed = loop_task.allocate(), loop_task.allocate()
        pset = loop_task.port_set()
        async with anyio.create_task_group() as tasks:

            async def receive(port: aio.ReceiveRight, code: int) -> None:
                with pytest.raises(machport.MachError) as error:
                    await port.receive()
                assert error.value.code == code

            async def loop() -> None:
                assert [message async for message in closed] == []

            tasks.start_soon(receive, closed, c.MACH_RCV_PORT_DIED)
            tasks.start_soon(loop)
            tasks.start_soon(receive, changed, c.MACH_RCV_PORT_CHANGED)
            await settled()
            closed.close()
            pset.add(changed)
        assert [message async for message in closed] == []

    run(main)


def test_a_loop_that_always_finds_a_message_lets_the_others_have_their_turn(run: Run, loop_task: aio.Task) -> None:
    async def main() -> None:
        port = loop_task.allocate(qlimit=1024)
        right = port.make_send()
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:

                async def stop() -> None:
                    await checkpoint()
                    scope.cancel()

                tasks.start_soon(stop)
                while True:
                    await right.send(b"")
                    await port.receive()

    run(main)


def test_bad_arguments_are_refused_where_they_are_given_and_nothing_leaks(run: Run, loop_task: aio.Task) -> None:
    async def main() -> None:
        port = loop_task.allocate()
        right = port.make_send()
        await settled()
        names = loop_task.calls.mach_port_names(loop_task.name)
        for call in (
            lambda: right.send(id=-1),
            lambda: right.send(timeout=-1),
            lambda: right.send(rights=[right]),  # type: ignore[list-item]
            lambda: right.send(reply_to=right),  # type: ignore[arg-type]
            lambda: right.send_many([b"fine", b""], id=-1),
            lambda: right.call(timeout=-1),
            lambda: port.receive(-1),
            lambda: port.receive_many(0),
            lambda: port.receive_many(1, -1),
        ):
            with pytest.raises(machport.InvalidArgument):
                await call()
        with pytest.raises(machport.TimedOut):
            await port.receive(0)
        assert loop_task.calls.mach_port_names(loop_task.name) == names
        with pytest.raises(machport.InvalidArgument):
            await right.call(id=-1)
        right.close()
        with pytest.raises(machport.ClosedRight):
            await right.send()

    run(main)


def test_notifications_are_awaited_and_call_back(run: Run, loop_task: aio.Task) -> None:
    async def main() -> None:
        port = loop_task.allocate()
        right = port.make_send()
        called = list[Any]()
        watch = right.on_dead_name(called.append)
        with pytest.raises(machport.TimedOut):
            await right.dead(0.01)
        async with anyio.create_task_group() as tasks:

            async def dead() -> None:
                assert (await right.dead()).name == right.name

            tasks.start_soon(dead)
            await settled()
            port.close()
        assert called == [await watch]
        with pytest.raises(machport.InvalidArgument, match="await watch"):
            watch.wait()

        other = loop_task.allocate()
        sender = other.make_send()
        with pytest.raises(machport.TimedOut):
            await other.no_senders(timeout=0.01)
        sender.close()
        assert (await other.no_senders()).count == 1

    run(main)


def test_a_watch_that_is_given_up_is_over_for_whoever_awaits_it(run: Run, loop_task: aio.Task) -> None:
    async def main() -> None:
        port = loop_task.allocate()
        right = port.make_send()
        watch = right.on_dead_name()
        async with anyio.create_task_group() as tasks:

            async def wait() -> None:
                with pytest.raises(machport.ClosedRight):
                    await watch

            tasks.start_soon(wait)
            await settled()
            watch.close()

    run(main)


def test_an_error_says_the_same_as_the_ordinary_one(run: Run, loop_task: aio.Task) -> None:
    """Of whose port it was, how it ended, and whether to ask again."""
    ordinary = machport.Task.of(loop_task)

    async def main() -> None:
        for closes in (True, False):
            port = loop_task.allocate(label="the port")
            right = port.make_send()
            sender = ordinary.adopt(right.duplicate())
            assert isinstance(sender, machport.SendRight)
            if closes:
                port.close()
                with pytest.raises(machport.ServerDied) as ours:
                    await right.call()
                with pytest.raises(machport.ServerDied) as theirs:
                    sender.call()
                assert ours.value.retry_safe and str(ours.value) == str(theirs.value)
                assert ours.value.port_label == "the port"
            else:
                async with anyio.create_task_group() as tasks:

                    async def drop(port: aio.ReceiveRight = port) -> None:
                        (await port.receive()).close()

                    tasks.start_soon(drop)
                    with pytest.raises(machport.ServerDied, match="dropped this request") as dropped:
                        await right.call()
                    assert not dropped.value.retry_safe

    run(main)


def test_a_task_that_only_awaits_gives_up_what_it_forgets(
    run: Run, loop_task: aio.Task, task: machport.Task, daemon: DaemonProcess
) -> None:
    """Also what the daemon had no room to hear of when it was forgotten (N37)."""
    port, box = task.allocate(), loop_task.allocate()
    loop_task.register("box", box.make_send())
    with task.look_up("box") as way:
        way.send(rights=[port.make_send().move()])
    watch = port.on_no_senders(sync=1)

    async def main() -> None:
        message = await box.receive()
        right = message.rights.pop()
        assert isinstance(right, aio.SendRight)
        forgotten = [right, *(right.duplicate() for _ in range(3000))]
        del right
        os.kill(daemon.pid, signal.SIGSTOP)
        try:
            forgotten.clear()
        finally:
            os.kill(daemon.pid, signal.SIGCONT)
        while not watch.done:
            with pytest.raises(machport.TimedOut):
                await box.receive(timeout=0)

    run(main)
    assert watch.result().count == 1


def test_who_sleeps_is_woken_though_another_coroutine_finds_his_message(
    run: Run, loop_task: aio.Task, task: machport.Task, daemon: DaemonProcess
) -> None:
    """It comes along with the answer to a call that does not wait, while nobody else looks."""
    port, other = loop_task.allocate(), loop_task.allocate()
    loop_task.register("sleeper", port.make_send())
    right, once = task.look_up("sleeper"), other.make_send_once()

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            received = list[machport.Message]()

            async def sleep() -> None:
                received.append(await port.receive())

            tasks.start_soon(sleep)
            await settled()
            while not getattr(loop_task._loop_calls, "_sleeps", True):
                await checkpoint()
            right.send(b"wake up")
            # So the answer to the next call takes long enough for its thread to sleep, which takes the wake-up along.
            os.kill(daemon.pid, signal.SIGSTOP)
            threading.Timer(0.1, os.kill, (daemon.pid, signal.SIGCONT)).start()
            once.send(b"finds it")
            tasks.cancel_scope.deadline = anyio.current_time() + 10
        assert [message.body for message in received] == [b"wake up"]

    run(main)
