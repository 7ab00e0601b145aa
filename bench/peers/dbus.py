"""D-Bus with dbus-fast, over a private bus of dbus-daemon."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from bench.harness import Failed, Session
from bench.peers import AsyncRoundTrip, Creation, Death, Peer, load

_NAME = "machport.bench"
_CONFIGURATION = """<busconfig><type>session</type><listen>unix:path={path}</listen>
<policy context="default"><allow send_destination="*"/><allow own="*"/><allow receive_sender="*"/></policy>
<limit name="max_names_per_connection">100000</limit></busconfig>
"""


class _Daemon(Peer):
    modules = ("dbus_fast",)
    programs = ("dbus-daemon",)

    def prepare(self, session: Session, size: int) -> Any:
        path = session.directory / "bus"
        configuration = session.directory / "bus.conf"
        configuration.write_text(_CONFIGURATION.format(path=path))
        bus = session.program("dbus-daemon", "--nofork", "--nopidfile", f"--config-file={configuration}")
        while not path.exists():
            if bus.poll() is not None or not session.left():
                raise Failed("dbus-daemon did not start")
            time.sleep(0.01)
        self.helpers = (bus.pid,)
        return f"unix:path={path}"


async def _connected(address: str) -> Any:
    return await load("dbus_fast.aio").MessageBus(bus_address=address).connect()


class DaemonRoundTrip(_Daemon, AsyncRoundTrip):
    name = "dbus-fast through dbus-daemon"

    async def serve(self, address: Any, ready: Callable[[], object]) -> None:
        dbus = load("dbus_fast")
        bus = await _connected(address)
        done = asyncio.Event()

        def answer(message: Any) -> Any:
            if message.member != "Echo":
                return None
            if len(message.body[0]) == 1:
                asyncio.get_running_loop().call_later(0.05, done.set)
            return dbus.Message.new_method_return(message, "ay", message.body)

        bus.add_message_handler(answer)
        await bus.request_name(_NAME)
        ready()
        await done.wait()

    async def connect(self, address: Any) -> Callable[[bytes], Awaitable[Any]]:
        message = load("dbus_fast").Message
        bus = await _connected(address)

        async def call(body: bytes) -> Any:
            request = message(destination=_NAME, path="/", interface=_NAME, member="Echo", signature="ay", body=[body])
            return (await bus.call(request)).body[0]

        return call


class DaemonOwnerDeath(_Daemon, Death):
    name = "D-Bus NameOwnerChanged"

    def victim(self, address: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._bus = self._loop.run_until_complete(_connected(address))
        self._loop.run_until_complete(self._bus.request_name(_NAME))

    def survivor(self, address: Any, pid: int) -> Callable[[float], object]:
        loop = asyncio.new_event_loop()
        gone = asyncio.Event()
        rule = f"type='signal',member='NameOwnerChanged',arg0='{_NAME}'"

        def look(message: Any) -> None:
            if message.member == "NameOwnerChanged" and message.body[0] == _NAME and not message.body[2]:
                gone.set()

        async def prepare() -> Any:
            bus = await _connected(address)
            bus.add_message_handler(look)
            service = "org.freedesktop.DBus"
            await bus.call(
                load("dbus_fast").Message(
                    destination=service,
                    path="/org/freedesktop/DBus",
                    interface=service,
                    member="AddMatch",
                    signature="s",
                    body=[rule],
                )
            )
            return bus

        async def wait(seconds: float) -> bool:
            try:
                return await asyncio.wait_for(gone.wait(), seconds)
            except TimeoutError:
                return False

        self._bus = loop.run_until_complete(prepare())
        return lambda seconds: loop.run_until_complete(wait(seconds))


class DaemonNameCreation(_Daemon, Creation):
    name = "D-Bus name, one by one"

    def begin(self, address: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._bus = self._loop.run_until_complete(_connected(address))
        self._count = 0

    def make(self, count: int, made: list[Any]) -> list[Any]:
        async def names() -> None:
            for _ in range(count):
                self._count += 1
                name = f"{_NAME}.n{self._count}"
                await self._bus.request_name(name)
                made.append(name)

        self._loop.run_until_complete(names())
        return made

    def unmake(self, made: list[Any]) -> None:
        async def release() -> None:
            for name in made:
                await self._bus.release_name(name)

        self._loop.run_until_complete(release())
