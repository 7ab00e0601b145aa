"""asyncio's own streams over a local socket."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from typing import Any

from bench.loops import LAST
from bench.peers import AsyncRoundTrip

_LENGTH = struct.Struct("<I")


async def _read(reader: asyncio.StreamReader) -> bytes:
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    return await reader.readexactly(length)


def _write(writer: asyncio.StreamWriter, body: bytes) -> None:
    writer.write(_LENGTH.pack(len(body)) + body)


class StreamRoundTrip(AsyncRoundTrip):
    name = "asyncio unix streams"

    async def serve(self, address: Any, ready: Callable[[], object]) -> None:
        ended = asyncio.Event()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            body = b""
            while len(body) != len(LAST):
                body = await _read(reader)
                _write(writer, body)
            await writer.drain()
            writer.close()
            ended.set()

        async with await asyncio.start_unix_server(answer, address):
            ready()
            await ended.wait()

    async def connect(self, address: Any) -> Callable[[bytes], Awaitable[Any]]:
        reader, writer = await asyncio.open_unix_connection(address)

        async def call(body: bytes) -> bytes:
            _write(writer, body)
            return await _read(reader)

        return call
