"""Where a task of ``machport.aio`` may be used, and what its coroutines are told when it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from actors import PATIENCE, DaemonProcess
from anyio.lowlevel import checkpoint

import machport
from machport import aio
from machport.face import loops

Run = Callable[[Callable[[], Awaitable[Any]]], Any]


async def all_wait(task: aio.Task, then: Callable[[], object], kind: type[Exception]) -> None:
    """Coroutines that wait in every way; after ``then`` each of them is told the same."""
    port, full = task.allocate(), task.allocate(qlimit=0)
    right, blocked, other = port.make_send(), full.make_send(), task.allocate()
    told = list[str]()
    async with anyio.create_task_group() as tasks:

        async def wait(name: str, call: Callable[[], Awaitable[Any]]) -> None:
            with pytest.raises(kind):
                await call()
            told.append(name)

        calls: dict[str, Callable[[], Awaitable[Any]]] = {
            "receive": other.receive,
            "receive_many": other.receive_many,
            "send": blocked.send,
            "send_many": lambda: blocked.send_many([b"", b""]),
            "call": blocked.call,
            "answer": right.call,
            "dead": right.dead,
            "no_senders": port.no_senders,
            "serve": lambda: other.serve(lambda request: b""),
        }
        for name, call in calls.items():
            tasks.start_soon(wait, name, call)
        for _ in range(30):
            await checkpoint()
        assert not told
        then()
    assert sorted(told) == sorted(calls)
    with pytest.raises(kind):
        await right.call()
    with pytest.raises(kind):
        await other.receive()


def test_closing_the_task_wakes_all_with_what_a_blocked_thread_gets(run: Run, loop_task: aio.Task) -> None:
    run(lambda: all_wait(loop_task, loop_task.close, machport.DeadTask))


def test_closing_the_task_from_another_thread_does_so_too(run: Run, loop_task: aio.Task) -> None:
    def close() -> None:
        thread = threading.Thread(target=machport.Task.of(loop_task).close)
        thread.start()
        thread.join()

    run(lambda: all_wait(loop_task, close, machport.DeadTask))


def test_the_end_of_the_daemon_reaches_all(run: Run, daemon: DaemonProcess, loop_task: aio.Task) -> None:
    run(lambda: all_wait(loop_task, daemon.kill, machport.DaemonLost))


def test_without_a_loop_it_says_so_at_the_call(loop_task: aio.Task) -> None:
    port = loop_task.allocate()
    right = port.make_send()
    for call in (right.send, right.call, port.receive, port.receive_many, lambda: right.send_many([b""])):
        coroutine = call()
        with pytest.raises(machport.LoopMisuse, match="no event loop runs here"):
            coroutine.send(None)
    with pytest.raises(machport.LoopMisuse, match="no event loop runs here"):
        right.on_dead_name()
    assert port.status().msgcount == 0
    assert right.request_dead_name(None) is None


def test_a_second_loop_is_told_that_the_task_belongs_to_the_first(run: Run, loop_task: aio.Task) -> None:
    """Also one in another thread; and what does not wait may be done there."""
    port = loop_task.allocate()
    right = port.make_send()
    errors = list[BaseException]()

    def in_thread() -> None:
        for call in (right.call, right.send, port.receive):
            try:
                asyncio.run(call())
            except machport.LoopMisuse as error:
                errors.append(error)
        right.duplicate().close()
        port.make_send_once().send(b"from the thread")

    async def main() -> None:
        async with anyio.create_task_group() as tasks:

            async def receive() -> None:
                assert (await port.receive()).body == b"from the thread"

            tasks.start_soon(receive)
            for _ in range(5):
                await checkpoint()
            await anyio.to_thread.run_sync(in_thread)

    run(main)
    assert len(errors) == 3 and all("belongs to another event loop" in str(error) for error in errors)


def test_the_next_loop_may_have_the_task_when_the_first_is_closed(run: Run, loop_task: aio.Task) -> None:
    port = loop_task.allocate()
    right = port.make_send()
    left = list[Any]()

    async def main() -> None:
        await right.send(b"body")
        assert (await port.receive()).body == b"body"
        coroutine = port.receive()
        left.append(coroutine)

    for _ in range(2):
        run(main)
        asyncio.run(main())
    for coroutine in left:
        coroutine.close()


def test_a_coroutine_that_outlives_its_loop_takes_nothing_with_it(loop_task: aio.Task) -> None:
    """It was never cancelled, and ends when nobody has it any more."""
    port = loop_task.allocate()
    right = port.make_send()
    loop = asyncio.new_event_loop()
    waiting = port.receive()
    loop.run_until_complete(asyncio.sleep(0))

    async def step() -> None:
        task = asyncio.current_task()
        assert task is not None
        loop_task.loop_calls()
        waiting.send(None)

    loop.run_until_complete(step())
    loop.close()
    waiting.close()
    machport.Task.of(loop_task).adopt(right.duplicate()).close()
    asyncio.run(right.send(b"still there"))
    assert asyncio.run(port.receive()).body == b"still there"


def test_another_library_is_refused(monkeypatch: pytest.MonkeyPatch, loop_task: aio.Task) -> None:
    import sniffio

    async def main() -> None:
        token = sniffio.current_async_library_cvar.set("curio")
        try:
            with pytest.raises(machport.LoopMisuse, match="not those of curio"):
                loops.running_library()
        finally:
            sniffio.current_async_library_cvar.reset(token)

    asyncio.run(main())


def test_a_task_has_two_forms_and_rights_go_between_them(run: Run, loop_task: aio.Task) -> None:
    ordinary = machport.Task.of(loop_task)
    assert machport.Task.of(loop_task) is ordinary and aio.Task.of(ordinary) is loop_task
    assert ordinary.name == loop_task.name and ordinary.label == loop_task.label

    async def main() -> None:
        port = loop_task.allocate()
        right = port.make_send()
        sender = ordinary.adopt(right)
        assert type(sender) is machport.SendRight and right.closed
        sender.send(b"from the ordinary form")
        assert (await port.receive()).body == b"from the ordinary form"
        back = loop_task.adopt(sender)
        assert type(back) is aio.SendRight
        await back.send(b"and back")
        receiver = ordinary.adopt(port)
        assert isinstance(receiver, machport.ReceiveRight)
        assert receiver.receive(0).body == b"and back"
        with machport.Task() as stranger, pytest.raises(machport.InvalidArgument, match="send it there"):
            stranger.adopt(receiver)
        for kind in (ordinary.port_set(), ordinary.allocate().make_send_once()):
            assert loop_task.adopt(kind).task is loop_task
        with open(os.devnull) as file:
            assert type(loop_task.adopt(ordinary.fileport(file))) is machport.Fileport

    run(main)
    with pytest.raises(machport.InvalidArgument):
        machport.Task.of("task")  # type: ignore[arg-type]
    ordinary.close()
    assert loop_task.closed


def test_a_task_that_nobody_has_any_more_ends(daemon: DaemonProcess) -> None:
    """As one without a loop does; the loop that looked at it does not keep it."""

    async def main() -> None:
        with aio.Task() as watcher:
            port = watcher.check_in("here")

            async def use() -> None:
                task = aio.Task()
                await task.look_up("here").send(rights=[task.allocate().make_send().move()])
                with pytest.raises(machport.TimedOut):
                    await task.allocate().receive(0.01)

            await use()
            with await port.receive() as message:
                right = message.rights[0]
                # It may have died on the way already.
                if isinstance(right, aio.SendRight):
                    await right.dead(PATIENCE)
                else:
                    assert isinstance(right, machport.DeadName)

    asyncio.run(main())


def test_an_interrupt_of_the_program_ends_it_as_usual(loop_task: aio.Task) -> None:
    port = loop_task.allocate()
    before = port.status()

    async def main() -> None:
        asyncio.get_running_loop().call_later(0.01, os.kill, os.getpid(), signal.SIGINT)
        await port.receive()

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert port.status() == before


def test_a_member_that_was_put_in_by_its_name_stays_there_when_its_adopted_object_is_forgotten(
    loop_task: aio.Task,
) -> None:
    """The object stands for a right that somebody else has, in whatever form."""
    port, pset = loop_task.allocate(), loop_task.port_set()
    loop_task.calls.mach_port_move_member(loop_task.name, port.name, pset.name)

    machport.Task.of(loop_task).adopt(pset.members()[0])

    assert port.status().pset is not None


@pytest.mark.parametrize("ending", [SystemExit, KeyboardInterrupt])
def test_a_callback_that_ends_the_program_lets_its_coroutines_come_to_their_end(
    loop_task: aio.Task, ending: type[BaseException]
) -> None:
    """What they still wait for in their ``finally`` is answered, and other callbacks of the same death are called."""
    ended = list[str]()

    async def main() -> None:
        echo, port, other = loop_task.allocate(), loop_task.allocate(), loop_task.allocate()
        echo_right, right, other_right = echo.make_send(), port.make_send(), other.make_send()

        async def serve() -> None:
            try:
                await echo.serve(lambda request: request.body)
            finally:
                with anyio.CancelScope(shield=True):
                    await echo_right.send(b"still here")
                    ended.append((await echo.receive(PATIENCE)).body.decode())

        serving = asyncio.create_task(serve())

        def end(_: object) -> None:
            raise ending

        right.on_dead_name(end)
        right.on_dead_name(lambda _: ended.append("called"))
        other_right.on_dead_name(lambda _: ended.append("told"))
        assert (await echo_right.call(b"there")).body == b"there"
        port.close()
        other.close()
        await asyncio.wait({serving})  # which does not pass a cancellation on

    with pytest.raises(ending):
        asyncio.run(asyncio.wait_for(main(), PATIENCE))
    assert ended == ["called", "told", "still here"]


def test_a_watch_goes_on_in_the_next_loop(run: Run, loop_task: aio.Task) -> None:
    """Whoever watches the same right there, and whoever awaits what was begun before, is told."""
    port = loop_task.allocate()
    right = port.make_send()
    called = list[str]()

    async def begin() -> machport.Watch:
        return right.on_dead_name(lambda _: called.append("in the first"))

    async def go_on() -> None:
        again = right.on_dead_name(lambda _: called.append("in the second"))
        port.close()
        assert (await again).name == right.name
        assert (await watch).name == right.name

    watch = run(begin)
    run(go_on)
    assert called == ["in the first", "in the second"]


def test_a_watch_of_the_last_loop_is_awaited_in_the_next(run: Run, loop_task: aio.Task) -> None:
    port = loop_task.allocate()
    right = port.make_send()

    async def begin() -> machport.Watch:
        return right.on_dead_name()

    async def go_on() -> None:
        assert (await watch).name == right.name

    watch = run(begin)
    port.close()
    run(go_on)


@pytest.mark.parametrize("new_loop", [False, True])
def test_a_forked_child_is_told_that_it_is_one_and_its_parent_goes_on(
    run: Run, loop_task: aio.Task, new_loop: bool
) -> None:
    """T11: in the middle of a coroutine, whether it goes on there or begins a loop of its own."""
    port = loop_task.allocate()
    right = port.make_send()

    async def send() -> None:
        await right.send(b"by the child")

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(right.call, b"request")
            with await port.receive(PATIENCE) as request:
                said = await forked(send, new_loop)
                request.reply()
        assert said == "ForkedTask"

    run(main)


async def forked(send: Callable[[], Awaitable[None]], new_loop: bool) -> str:
    """What a forked child of this process is told when it sends."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        said = "nothing"
        try:
            if new_loop:
                asyncio.run(send())  # type: ignore[arg-type]
            else:
                await send()
        except BaseException as error:
            said = type(error).__name__
        finally:
            os.write(writing, said.encode())
            os._exit(0)
    os.close(writing)
    with open(reading) as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    return said
