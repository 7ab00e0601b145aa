"""Interfaces of coroutines: the same wire, many calls at a time, and none goes on for a caller that has gone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import msgspec
import pytest
from actors import PATIENCE, Client
from anyio.lowlevel import checkpoint
from interface_actors import Calculator, Divider, Served, kinds

import machport
from machport import aio
from machport.abi import constants as c
from machport.abi import message as layout
from machport.abi.traps import new_msg
from machport.face.message import pack_body
from machport.interfaces.definition import interface_of

Run = Callable[[Callable[[], Awaitable[Any]]], Any]


@machport.interface(of=Calculator)
class Awaited:
    async def divide(self, a: float, b: float) -> float:
        return a / b

    async def total(self, *, first: int, second: int = 10) -> int:
        return first + second

    @machport.oneway
    async def note(self, text: str) -> None:
        raise ValueError(text)

    async def notes(self) -> list[str]:
        return ["awaited"]


class Waiting:
    """Routines that wait, and carry."""

    async def wait(self) -> str:
        raise NotImplementedError

    async def go_on(self) -> None:
        raise NotImplementedError

    async def keep(self, right: aio.SendRight) -> aio.SendRight:
        raise NotImplementedError

    async def stop(self) -> int:
        raise NotImplementedError

    async def left(self) -> bool:
        raise NotImplementedError


class Waiter:
    def __init__(self) -> None:
        self.gate = anyio.Event()
        self.begun = anyio.Event()
        self.cancelled = anyio.Event()
        self.running = 0
        self.most = 0

    async def wait(self) -> str:
        self.running += 1
        self.most = max(self.most, self.running)
        self.begun.set()
        try:
            await self.gate.wait()
        except BaseException:
            self.cancelled.set()
            raise
        finally:
            self.running -= 1
        return "waited"

    async def go_on(self) -> None:
        self.gate.set()

    async def keep(self, right: aio.SendRight) -> aio.SendRight:
        await right.send(b"kept")
        return right.move()

    async def stop(self) -> int:
        machport.current_call().stop()
        return 3

    async def left(self) -> bool:
        return machport.current_call().deadline is not None


class Serving:
    """A group in which a port is served until the block ends."""

    def __init__(self, task: aio.Task, interface: type, implementation: object, **options: Any) -> None:
        self.port = task.allocate(qlimit=100)
        self.right = self.port.make_send()
        self.ended = anyio.Event()
        self._options = options
        self._what = interface, implementation

    async def _serve(self) -> None:
        await machport.serve(*self._what, self.port, **self._options)
        self.ended.set()

    async def __aenter__(self) -> Serving:
        self.group = await anyio.create_task_group().__aenter__()
        self.group.start_soon(self._serve)
        return self

    async def __aexit__(self, *error: Any) -> None:
        self.port.close()
        await self.group.__aexit__(*error)


def test_coroutines_are_called_and_served(run: Run, loop_task: aio.Task) -> None:
    async def main() -> None:
        async with Serving(loop_task, Awaited, Awaited()) as served:
            proxy = machport.proxy(Awaited, served.right, timeout=PATIENCE)
            assert await proxy.divide(1, 2) == 0.5
            assert await proxy.total(first=1) == 11
            with pytest.raises(ZeroDivisionError):
                await proxy.divide(1, 0)
            with pytest.raises(machport.BadArguments, match="at `a`"):
                await proxy.divide("1", 2)  # type: ignore[arg-type]
            await proxy.note("into the log")
            assert await proxy.notes() == ["awaited"]

    run(main)


def test_both_faces_speak_one_language(run: Run, loop_task: aio.Task, task: machport.Task) -> None:
    async def main() -> None:
        with Served(task, Calculator, Divider()) as served:
            served.port.task.register("calculator", served.right)
            proxy = machport.proxy(Awaited, loop_task.look_up("calculator"), timeout=PATIENCE)
            assert await proxy.divide(1, 2) == 0.5
        async with Serving(loop_task, Awaited, Awaited()) as serving:
            loop_task.register("awaited", serving.right)
            ordinary = machport.proxy(Calculator, task.look_up("awaited"), timeout=PATIENCE)
            assert await anyio.to_thread.run_sync(ordinary.divide, 1, 2) == 0.5

    run(main)


def test_many_calls_run_at_a_time_and_no_more_than_was_asked_for(run: Run, loop_task: aio.Task) -> None:
    async def main() -> None:
        waiter = Waiter()
        async with Serving(loop_task, Waiting, waiter, concurrency=3) as served:
            proxy = machport.proxy(Waiting, served.right, timeout=PATIENCE)
            found: list[str] = []

            async def ask() -> None:
                found.append(await proxy.wait())

            async with anyio.create_task_group() as group:
                for _ in range(5):
                    group.start_soon(ask)
                while waiter.running < 3:
                    await checkpoint()
                for _ in range(20):
                    await checkpoint()
                waiter.gate.set()
            assert found == ["waited"] * 5
            assert waiter.most == 3

    run(main)


def test_rights_travel_and_nothing_is_left(run: Run, loop_task: aio.Task) -> None:
    async def main() -> None:
        async with Serving(loop_task, Waiting, Waiter()) as served:
            proxy = machport.proxy(Waiting, served.right, timeout=PATIENCE)
            port = loop_task.allocate()
            right = port.make_send()
            assert await proxy.left()
            before = kinds(loop_task)  # type: ignore[arg-type]
            back = await proxy.keep(right.copy())
            assert type(back) is aio.SendRight
            assert (await port.receive(PATIENCE)).body == b"kept"
            back.close()
            with machport.deadline(PATIENCE):
                assert await machport.proxy(Waiting, served.right).left()
            assert kinds(loop_task) == before  # type: ignore[arg-type]

    run(main)


def test_a_routine_whose_caller_gives_up_is_cancelled(run: Run, loop_task: aio.Task) -> None:
    async def main() -> None:
        waiter = Waiter()
        async with Serving(loop_task, Waiting, waiter) as served:
            answers = loop_task.allocate()
            number = interface_of(Waiting).routines["wait"].id
            await served.right.send(msgspec.msgpack.encode([None]), id=number, reply_to=answers)
            with anyio.fail_after(PATIENCE):
                await waiter.begun.wait()
                answers.close()
                await waiter.cancelled.wait()
            assert not await machport.proxy(Waiting, served.right).left()

    run(main)


def test_a_routine_whose_caller_is_killed_is_cancelled(
    run: Run, loop_task: aio.Task, new_client: Callable[[str], Client]
) -> None:
    async def main() -> None:
        waiter = Waiter()
        async with Serving(loop_task, Waiting, waiter) as served:
            loop_task.register("waiter", served.right)
            number = interface_of(Waiting).routines["wait"].id
            client = new_client("caller")
            client.begin(f"task.look_up('waiter').call({msgspec.msgpack.encode([None])!r}, id={number})")
            with anyio.fail_after(PATIENCE):
                await waiter.begun.wait()
                client.kill()
                await waiter.cancelled.wait()

    run(main)


def test_no_routine_outlives_the_serving(run: Run, loop_task: aio.Task) -> None:
    async def main() -> None:
        waiter = Waiter()
        port = loop_task.allocate()
        proxy = machport.proxy(Waiting, port.make_send(), timeout=PATIENCE)
        async with anyio.create_task_group() as group:
            group.start_soon(machport.serve, Waiting, waiter, port)

            async def ask() -> None:
                with pytest.raises(machport.ServerDied):
                    await proxy.wait()

            async with anyio.create_task_group() as asking:
                asking.start_soon(ask)
                await waiter.begun.wait()
                group.cancel_scope.cancel()
        assert waiter.cancelled.is_set()
        assert waiter.running == 0

    run(main)


def test_a_routine_may_end_the_serving_and_what_has_begun_is_finished(run: Run, loop_task: aio.Task) -> None:
    async def main() -> None:
        waiter = Waiter()
        async with Serving(loop_task, Waiting, waiter) as served:
            proxy = machport.proxy(Waiting, served.right, timeout=PATIENCE)
            found: list[str] = []

            async def ask() -> None:
                found.append(await proxy.wait())

            async with anyio.create_task_group() as group:
                group.start_soon(ask)
                await waiter.begun.wait()
                assert await proxy.stop() == 3
                waiter.gate.set()
            with anyio.fail_after(PATIENCE):
                await served.ended.wait()
            assert found == ["waited"]
            assert not served.port.closed

    run(main)


def test_serving_ends_when_nobody_can_call_any_more(run: Run, loop_task: aio.Task) -> None:
    async def main() -> None:
        async with Serving(loop_task, Awaited, Awaited(), until_no_senders=True) as served:
            assert await machport.proxy(Awaited, served.right).divide(1, 2) == 0.5
            served.right.close()
            with anyio.fail_after(PATIENCE):
                await served.ended.wait()

    run(main)


def test_what_is_refused_is_answered_and_the_serving_goes_on(run: Run, loop_task: aio.Task) -> None:
    async def main() -> None:
        number = interface_of(Awaited).routines["divide"].id
        async with Serving(loop_task, Awaited, Awaited()) as served:
            for body, id, code in [
                (b"\xc1", number, -300),
                (msgspec.msgpack.encode([None, "a", 1]), number, -300),
                (msgspec.msgpack.encode([1, 1.0, 1.0]), number, 49),
                (b"", 77_777, -303),
            ]:
                answer = await served.right.call(body, id=id, timeout=PATIENCE)
                assert msgspec.msgpack.decode(answer.body)[0] == code
            await served.right.send(b"", id=number)
            assert await machport.proxy(Awaited, served.right, timeout=PATIENCE).divide(1, 2) == 0.5

    run(main)


def test_faces_that_do_not_fit_are_refused_and_told_of_the_twin(
    run: Run, loop_task: aio.Task, task: machport.Task
) -> None:
    class Mixed:
        async def call(self, right: machport.SendRight) -> None: ...

    awaited, ordinary = loop_task.allocate(), task.allocate()
    with pytest.raises(machport.InvalidInterface, match=r"interface\(of=Calculator\)"):
        machport.proxy(Calculator, awaited.make_send())
    with pytest.raises(machport.InvalidInterface, match=r"interface\(of=Calculator\)"):
        _ = machport.serve(Calculator, Divider(), awaited)
    with pytest.raises(machport.InvalidInterface, match=r"interface\(of=Awaited\)"):
        machport.proxy(Awaited, ordinary.make_send())
    with pytest.raises(machport.InvalidInterface, match=r"interface\(of=Awaited\)"):
        machport.serve(Awaited, Awaited(), ordinary)
    with pytest.raises(machport.InvalidInterface, match=r"must say machport\.aio\.SendRight"):
        machport.proxy(Mixed, awaited.make_send())
    for concurrency in (0, True, "3"):
        with pytest.raises(machport.InvalidArgument, match="concurrency"):
            _ = machport.serve(Awaited, Awaited(), awaited, concurrency=concurrency)  # type: ignore[arg-type]
    with pytest.raises(machport.InvalidInterface, match="must be a coroutine"):
        _ = machport.serve(Awaited, Divider(), awaited)
    awaited.close()
    with pytest.raises(machport.ClosedRight):
        _ = machport.serve(Awaited, Awaited(), awaited)


@pytest.mark.parametrize("body", [b"no MessagePack", msgspec.msgpack.encode([None, "raises"])])
def test_a_oneway_request_with_a_send_right_to_a_full_port_does_not_end_the_serving(
    run: Run, loop_task: aio.Task, task: machport.Task, body: bytes
) -> None:
    """A hostile caller costs nobody else anything: a server answers only by rights that no full queue holds up."""
    full = task.allocate(qlimit=0)
    number = interface_of(Awaited).routines["note"].id

    async def main() -> None:
        async with Serving(loop_task, Awaited, Awaited()) as served:
            loop_task.register("attacked", served.right)
            with task.look_up("attacked") as right, full.make_send() as answers:
                send, copy = c.MACH_SEND_MSG, c.MACH_MSG_TYPE_COPY_SEND
                bits = copy | copy << 8
                message = layout.pack(bits, right.name, answers.name, number, inline=pack_body(body))
                assert task.calls.mach_msg(new_msg(send, message)).code == 0
            proxy = machport.proxy(Awaited, served.right, timeout=PATIENCE)
            assert await proxy.notes() == ["awaited"]
            assert not served.ended.is_set()

    run(main)
