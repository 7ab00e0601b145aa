"""What is timed: roles that measured processes play, one function each.

A role gets its link to the controller, a peer's class and what the peer prepared.  Times are taken with
``perf_counter_ns``, which is one clock for all processes of a Linux machine.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter_ns as now
from typing import Any, Final

from bench.harness import Failed, Link, descriptors, peak_mib, resident_kib
from bench.peers import AsyncRoundTrip, Creation, Death, OneWay, RoundTrip

#: A message of this length ends a series.
LAST: Final = b"."
#: Round trips of a series, at most.
MOST: Final = 20_000
#: One message of a stream in this many is compared with what was sent.
_COMPARED: Final = 64

# Round trips


def answer(link: Link, kind: type[RoundTrip], address: Any) -> float:
    """Send every message back, the last one included; the peak of memory in MiB."""
    peer = kind()
    if isinstance(peer, AsyncRoundTrip):
        asyncio.run(peer.serve(address, lambda: link.say("ready")))
        return peak_mib()
    receive, reply = peer.server(address)
    link.say("ready")
    length = 0
    while length != len(LAST):
        message = receive()
        length = len(message)
        reply(message)
    # The reply may still be on its way in a thread of the library's.
    time.sleep(0.05)
    return peak_mib()


def ask(
    link: Link, kind: type[RoundTrip], address: Any, sizes: Sequence[int], seconds: float, silence: float
) -> tuple[list[list[int]], float]:
    """Ask for so many seconds with each size; the times of the round trips in ns, and the peak of memory in MiB."""
    peer = kind()
    if isinstance(peer, AsyncRoundTrip):
        return asyncio.run(_ask(link, peer, address, sizes, seconds, silence))
    call = peer.client(address)
    link.say("ready")
    link.hear()
    series = []
    for size in sizes:
        body = payload(size)
        timed(call, body, seconds / 5)
        series.append(timed(call, body, seconds, silence))
    if peer.ends:
        call(LAST)
    return series, peak_mib()


def timed(call: Callable[[bytes], Any], body: bytes, seconds: float, silence: float = 0.0) -> list[int]:
    """Call for so many seconds, each time after so many of silence; what each call took, in ns."""
    times: list[int] = []
    end = now() + int(seconds * 1e9)
    after = 0
    while after < end and len(times) < MOST:
        if silence:
            time.sleep(silence)
        before = now()
        answered = call(body)
        after = now()
        times.append(after - before)
    _check(answered, body)
    return times


async def _ask(
    link: Link, peer: AsyncRoundTrip, address: Any, sizes: Sequence[int], seconds: float, silence: float
) -> tuple[list[list[int]], float]:
    call = await peer.connect(address)
    link.say("ready")
    link.hear()
    series = []
    for size in sizes:
        body = payload(size)
        await _timed(call, body, seconds / 5, 0.0)
        series.append(await _timed(call, body, seconds, silence))
    await call(LAST)
    return series, peak_mib()


async def _timed(call: Callable[[bytes], Awaitable[Any]], body: bytes, seconds: float, silence: float) -> list[int]:
    times: list[int] = []
    end = now() + int(seconds * 1e9)
    after = 0
    while after < end and len(times) < MOST:
        if silence:
            # Not asyncio's: the loop sleeps as a whole, as in every other peer.
            time.sleep(silence)
        before = now()
        answered = await call(body)
        after = now()
        times.append(after - before)
    _check(answered, body)
    return times


def payload(size: int) -> bytes:
    """Bytes that are not all the same."""
    return bytes(index * 7 & 0xFF for index in range(size))


def _check(got: bytes, sent: bytes) -> None:
    if bytes(got) != sent:
        raise Failed(f"{len(got)} bytes came that are not the {len(sent)} that were sent")


# One way


def stream(size: int) -> list[bytes]:
    """The messages of a stream, which come again and again in this order."""
    rest = payload(size - 4)
    return [index.to_bytes(4, "little") + rest for index in range(256 if size <= 4096 else 8)]


def take(link: Link, kind: type[OneWay], address: Any, size: int) -> tuple[int, int, float]:
    """Receive a stream to its end: how many messages came, when the last did, and the peak of memory in MiB."""
    peer = kind()
    sent = stream(size)
    get = peer.consumer(address, size)
    link.say("ready")
    count = 0
    if peer.batch(size):
        while True:
            batch = get()
            if not batch:
                continue
            ended = len(batch[-1]) == len(LAST)
            if ended:
                batch.pop()
            if batch:
                _check(batch[0], sent[count % len(sent)])
                count += len(batch)
                _check(batch[-1], sent[(count - 1) % len(sent)])
            if ended:
                return count, now(), peak_mib()
    while True:
        message = get()
        if not count % _COMPARED or len(message) != size:
            if len(message) == len(LAST):
                return count, now(), peak_mib()
            _check(message, sent[count % len(sent)])
        count += 1


def give(link: Link, kind: type[OneWay], address: Any, size: int, seconds: float) -> tuple[int, int, float]:
    """Send for so many seconds: how many messages, when the first began, and the peak of memory in MiB."""
    peer = kind()
    messages = stream(size)
    put = peer.producer(address, size)
    link.say("ready")
    link.hear()
    # Some libraries lose what is sent before the other side has noticed this one.
    time.sleep(0.1)
    batch = peer.batch(size)
    every = max(1, 64 if size <= 4096 else 1)
    count = 0
    begun = now()
    end = begun + int(seconds * 1e9)
    if batch:
        batches = [messages[at : at + batch] for at in range(0, len(messages), batch)]
        while now() < end:
            for some in batches:
                put(some)
                count += len(some)
        put([LAST])
    else:
        length = len(messages)
        while now() < end:
            for _ in range(every):
                put(messages[count % length])
                count += 1
        put(LAST)
    link.say("sent", (count, begun, peak_mib()))
    link.hear()
    return count, begun, peak_mib()


# Death


def die(link: Link, kind: type[Death], address: Any, mib: int) -> None:
    """Touch so many MiB of memory, and wait to be killed."""
    touched = bytearray(mib << 20)
    touched[::4096] = b"\1" * len(touched[::4096])
    peer = kind()
    peer.victim(address)
    link.say("ready")
    link.hear()
    del touched


def survive(link: Link, kind: type[Death], address: Any, pid: int, seconds: float) -> int | None:
    """When the death of the victim was known here, or None if it was not."""
    peer = kind()
    wait = peer.survivor(address, pid)
    link.say("ready")
    return now() if wait(seconds) else None


# Creation


def create(link: Link, kind: type[Creation], address: Any, count: int, helpers: Sequence[int]) -> dict[str, Any]:
    """Make so many endpoints and destroy them; what they cost."""
    peer = kind()
    peer.begin(address)
    peer.unmake(peer.make(2, []))
    processes: list[int | str] = ["self", *helpers]
    open_before = sum(map(descriptors, processes))
    own_before, helpers_before = resident_kib(), sum(map(resident_kib, helpers))
    made: list[Any] = []
    stopped = ""
    begun = now()
    try:
        peer.make(count, made)
    except Exception as error:
        stopped = f"{type(error).__name__}: {error}"
    seconds = (now() - begun) / 1e9
    number = max(1, len(made))
    values = {
        "made": len(made),
        "created": len(made) / seconds,
        "own_bytes": (resident_kib() - own_before) * 1024 / number,
        "helper_bytes": (sum(map(resident_kib, helpers)) - helpers_before) * 1024 / number if helpers else None,
        "descriptors": (sum(map(descriptors, processes)) - open_before) / number,
        "stopped": stopped,
    }
    begun = now()
    peer.unmake(made)
    values["destroyed"] = number / ((now() - begun) / 1e9)
    return values
