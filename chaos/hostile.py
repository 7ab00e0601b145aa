"""Clients that send any bytes to a real daemon: each is answered or cut off, and no other client notices.

Processes connect and send packets with descriptors of all sorts, traps by socket and ring, and write what they like
into the memory of their rings; some are killed in the middle.  Two bystanders make round trips meanwhile, every one of
which must be right and come in time.  The daemon's kernel stays in order, its descriptors come back to what they were,
and its log has no traceback.
"""

from __future__ import annotations

import array
import contextlib
import mmap
import os
import random
import select
import signal
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from chaos.checked_daemon import CheckedDaemon
from chaos.fuzzing.feeding import Feeder
from chaos.processes import Child
from chaos.report import Report
from machport import InvalidName, SendRight, Task
from machport.abi import constants as c
from machport.abi import message as layout
from machport.abi import traps as t
from machport.abi.errors import ProtocolError
from machport.abi.traps import MsgTrap
from machport.carrier import packet
from machport.carrier.hello import Hello
from machport.ring import layout as ring_layout

#: Seconds, unless told otherwise.
AMOUNT: Final = 120.0
UNIT: Final = "seconds"
#: Seconds after which a round trip, an answer or an end counts as missing.
PATIENCE: Final = 15.0
_ATTACKERS: Final = 2
#: Seconds between looks at the daemon's kernel.
_PAUSE: Final = 0.1
_TRIPS, _PACKETS, _TRAPS, _SCRIBBLES, _CONNECTIONS, _ANSWERS, _CUT_OFF = range(7)
_COUNTS: Final = ("round trips", "packets", "traps", "scribbles", "connections", "answers", "cut off")
Counts = memoryview
_NONCE: Final = 0x6E6F6E63655F2121
#: Bytes of the answer to a question for a context: a code, and 64 bits.
_CONTEXT_ANSWER: Final = 12


def run(report: Report) -> None:
    """Attack until the time is over."""
    chance = random.Random(report.seed)
    counts = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("Q")
    kills = 0
    with contextlib.ExitStack() as stack:
        daemon = stack.enter_context(CheckedDaemon())
        server = stack.enter_context(Child(lambda: _serve(daemon.path)))
        client = stack.enter_context(Child(lambda: _call(daemon.path, counts)))
        _await(lambda: counts[_TRIPS] > 100, (server, client))
        before = daemon.look().descriptors
        attackers: list[Child] = []
        end = time.monotonic() + report.amount
        trips, since = counts[_TRIPS], time.monotonic()
        while time.monotonic() < end and len(report.anomalies) < 20:
            while len(attackers) < _ATTACKERS:
                seed = chance.randrange(1 << 32)
                child = Child(lambda seed=seed: _attack(daemon.path, seed, counts))  # type: ignore[misc]
                attackers.append(stack.enter_context(child))
            ended = select.select([child.pidfd for child in (*attackers, server, client)], [], [], _PAUSE)[0]
            if ended:
                report.anomaly(f"a process ended: {_how(attackers, server, client)}")
                break
            view = daemon.look()
            if view.fault:
                report.anomaly(f"the daemon's kernel: {view.fault}")
            if counts[_TRIPS] != trips:
                trips, since = counts[_TRIPS], time.monotonic()
            elif time.monotonic() - since > PATIENCE:
                report.anomaly(f"no round trip for {PATIENCE} seconds")
                break
            if chance.random() < 0.05:
                attackers.pop(chance.randrange(len(attackers))).kill()
                kills += 1
        for child in attackers:
            if child.running:
                child.kill()
        if not report.anomalies:
            try:
                _await(lambda: daemon.look().descriptors <= before, (server, client))
            except TimeoutError:
                report.anomaly(f"{before} descriptors of the daemon became {daemon.look().descriptors}")
        for child in (client, server):
            if child.running:
                child.kill()
        for fault in daemon.close():
            report.anomaly(fault)
    for what, count in zip(_COUNTS, counts, strict=False):
        report.figure(what, f"{count:,}")
    report.figure("attackers killed", kills)
    report.figure("faults", len(report.anomalies), "0", not report.anomalies)


def _await(happened: Callable[[], bool], processes: tuple[Child, ...]) -> None:
    """Until something has happened, unless a process ends first."""
    deadline = time.monotonic() + PATIENCE
    while not happened():
        ended = select.select([process.pidfd for process in processes], [], [], 0.01)[0]
        if (ended or time.monotonic() > deadline) and not happened():
            raise TimeoutError


def _how(attackers: list[Child], server: Child, client: Child) -> str:
    named = [("attacker", child) for child in attackers] + [("server", server), ("client", client)]
    found = []
    for name, child in named:
        status = child.poll()
        if status is not None:
            found.append(f"{name} with {os.waitstatus_to_exitcode(status)}")
    return ", ".join(found)


# The bystanders


def _serve(path: Path) -> None:
    with Task(label="server", path=path) as task:
        port = task.check_in("chaos.hostile.echo")
        while True:
            request = port.receive()
            request.reply(request.body)


def _call(path: Path, counts: Counts) -> None:
    with Task(label="client", path=path) as task:
        right = _look_up(task)
        number = 0
        while True:
            number += 1
            # Some go by the socket, and some by wider rings.
            size = 100_000 if number % 1000 == 0 else 20_000 if number % 100 == 0 else number % 200
            sent = number.to_bytes(8, "little") + bytes(size)
            assert right.call(sent, timeout=PATIENCE).body == sent, f"round trip {number} is wrong"
            counts[_TRIPS] = number


def _look_up(task: Task) -> SendRight:
    while True:
        try:
            return task.look_up("chaos.hostile.echo")
        except InvalidName:
            os.sched_yield()


# The attackers


def _seeds() -> list[bytes]:
    """Traps as an honest task writes them, on names that a new one has."""
    seeds = [
        trap.pack(*[0x103 + 0x100 * (index % 3) for index, field in enumerate(trap.fields) if field != "words"])
        for trap in t.TRAPS.values()
    ]
    for disposition in (c.MACH_MSG_TYPE_COPY_SEND, c.MACH_MSG_TYPE_MAKE_SEND, c.MACH_MSG_TYPE_MAKE_SEND_ONCE):
        for name in (0x103, 0x203, 0x303):
            buffer = layout.pack(
                layout.bits(disposition, c.MACH_MSG_TYPE_MAKE_SEND_ONCE),
                name,
                0x203,
                1,
                descriptors=[layout.port_descriptor(0x203, c.MACH_MSG_TYPE_MAKE_SEND), layout.memory_descriptor(4)],
                inline=b"data",
            )
            option = c.MACH_SEND_MSG | c.MACH_RCV_MSG | c.MACH_SEND_TIMEOUT | c.MACH_RCV_TIMEOUT
            trap = MsgTrap(option, buffer, (b"abcd",), 4096, 0x203)
            seeds += [trap.pack(), t.pack_tag(t.ASYNC.number) + t.pack_tag(1) + trap.pack()]
    seeds.append(t.pack_send_many([buffer] * 3))
    return seeds


#: Traps that are answered whatever their arguments are, and leave the task as it is.
_HONEST: Final = [
    trap for number, trap in t.TRAPS.items() if number > t.FILEPORT_MAKEFD.number and trap is not t.TASK_TERMINATE
]


class _Attacker:
    """One connection of a process that means ill."""

    def __init__(self, path: Path, chance: random.Random, feeder: Feeder, files: list[int], counts: Counts) -> None:
        self._chance = chance
        self._feeder = feeder
        self._files = files
        self._counts = counts
        self._control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(PATIENCE)
        self._control.connect(str(path))
        self._sockets = [self._control]
        self._regions: list[mmap.mmap] = []
        counts[_CONNECTIONS] += 1

    def attack(self) -> None:
        """Join, perhaps, and then do anything; the end must come."""
        if self._chance.random() < 0.9:
            self._join()
        for _ in range(self._chance.randrange(100) if len(self._sockets) > 1 else 0):
            self._send_honest()
        for _ in range(self._chance.randrange(1, 40)):
            self._chance.choice((self._send_trap, self._send_trap, self._send_bytes, self._publish, self._scribble))()
            self._read()
        if self._chance.random() < 0.9:
            self._ask()
            self._end()

    def _join(self) -> None:
        packet.send(self._control, Hello("hostile").pack())
        answer = self._take(self._control)
        assert answer is not None and answer[:4] == bytes(4), "a hello was not answered"
        for trap in (t.TASK_SELF.pack(), t.CONSTRUCT.pack(0x103, c.MPO_INSERT_SEND_RIGHT, 0, _NONCE)):
            packet.send(self._control, trap)
            assert self._take(self._control) is not None, "a trap was not answered"
        for _ in range(self._chance.randrange(3)):
            packet.send(self._control, t.THREAD.pack())
            received = packet.receive(self._control)
            assert received is not None
            if len(received[1]) == 2:
                sock, memory = received[1]
                self._sockets.append(socket.socket(fileno=sock))
                self._regions.append(mmap.mmap(memory, 0))
                os.close(memory)
        for ours in self._sockets:
            ours.setblocking(False)

    def _take(self, sock: socket.socket) -> bytes | None:
        """The next answer; None if the connection has ended."""
        try:
            received = packet.receive(sock)
        except ConnectionError:
            return None
        if received is None:
            return None
        packet.close_all(received[1])
        self._counts[_ANSWERS] += 1
        return bytes(received[0])

    def _read(self) -> None:
        """What has come, now and then: who does not read must be able to stop nobody."""
        if self._chance.random() < 0.5:
            for sock in self._sockets:
                with contextlib.suppress(BlockingIOError, TimeoutError):
                    sock.setblocking(False)
                    while self._take(sock) is not None:
                        pass

    def _send(self, sock: socket.socket, data: bytes) -> None:
        count = self._chance.choice((0, 0, 0, 1, 1, 2, 4, 6))
        files = [self._chance.choice(self._files) for _ in range(count)]
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))] if files else []
        with contextlib.suppress(OSError):
            sock.sendmsg([data], ancillary, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
            self._counts[_PACKETS] += 1

    def _send_trap(self) -> None:
        payload = self._feeder.next()
        self._send(self._chance.choice(self._sockets), struct.pack("<II", 0, len(payload)) + payload)
        self._counts[_TRAPS] += 1

    def _send_honest(self) -> None:
        """A trap that is one, with arguments of any kind, for which no task is cut off."""
        chance = self._chance
        values = (0, 1, 2, 3, 16, 18, 19, 20, 21, 72, 0xFFFFFFFF, 0x103, 0x203, 0x303, 0x403, 0x503)
        trap = chance.choice(_HONEST)
        arguments = [
            chance.choice((-1, 0, 1)) if field in ("delta", "srdelta") else chance.choice(values)
            for field in trap.fields
            if field != "words"
        ]
        if trap.fields[:1] == ("task",):
            arguments[0] = 0x103
        words = [chance.choice(values) for _ in range(chance.randrange(4))] if "words" in trap.fields else []
        packet.post(self._control, trap.pack(*arguments, words=words))
        self._control.settimeout(PATIENCE)
        assert self._take(self._control) is not None, f"{trap.call}{arguments} is answered by cutting its task off"
        self._counts[_TRAPS] += 1

    def _send_bytes(self) -> None:
        data = self._feeder.next()
        kind = self._chance.random()
        if kind < 0.3:
            data = struct.pack("<II", 1, packet.INLINE_MAX + 8)
        elif kind < 0.5:
            data = struct.pack("<II", self._chance.randrange(3), self._chance.randrange(1 << 32)) + data
        elif kind < 0.7:
            data = bytes(8)
        self._send(self._chance.choice(self._sockets), data or b"\0")

    def _publish(self) -> None:
        """Write a trap into a ring, as its thread would, where the daemon looks for the next."""
        if not self._regions:
            return
        index = self._chance.randrange(len(self._regions))
        region, sock = self._regions[index], self._sockets[index + 1]
        payload = self._feeder.next()
        (tail,) = struct.unpack_from("=I", region, _DOWN + ring_layout.SPREAD_TAIL)
        capacity = (len(region) - _DOWN) // 2 - ring_layout.SPREAD_RING
        if tail + len(payload) + 8 > capacity:
            tail = 0
        at = _DOWN + ring_layout.SPREAD_RING + tail
        struct.pack_into("=I", region, at, len(payload))
        region[at + 4 : at + 4 + len(payload)] = payload
        struct.pack_into("=I", region, _DOWN + ring_layout.SPREAD_TAIL, tail + 4 + (len(payload) + 3 & ~3))
        self._send(sock, bytes(8))
        self._counts[_TRAPS] += 1

    def _scribble(self) -> None:
        """Write anything anywhere into the memory of a ring, its indexes and bells above all."""
        if not self._regions:
            return
        index = self._chance.randrange(len(self._regions))
        region = self._regions[index]
        up = _DOWN + (len(region) - _DOWN) // 2
        indexes = [ring + at for ring in (_DOWN, up) for at in (0, ring_layout.SPREAD_TAIL)]
        for _ in range(self._chance.choice((1, 1, 3, 20))):
            at = self._chance.choice((0, 64, *indexes, self._chance.randrange(0, len(region) - 4, 4)))
            struct.pack_into("=I", region, at, self._chance.choice((0, 1, 4, 128, 0x3FFF, 0x4000, 0xFFFFFFFF)))
            self._counts[_SCRIBBLES] += 1
        self._send(self._sockets[index + 1], bytes(8))

    def _ask(self) -> None:
        """The connection answers, or is cut off, or waits for room to answer what was not read."""
        deadline = time.monotonic() + PATIENCE
        asked = False
        while time.monotonic() < deadline:
            try:
                if not asked:
                    packet.post(self._control, t.GET_CONTEXT.pack(0x103, 0x203))
                    asked = True
                self._control.setblocking(True)
                self._control.settimeout(PATIENCE if asked else 0)
                answer = self._take(self._control)
            except BlockingIOError:
                continue
            except TimeoutError:
                break
            except (ConnectionError, ProtocolError):
                return
            if answer is None:
                self._counts[_CUT_OFF] += 1
                return
            # What was sent before may have changed the context, or been refused.
            if asked and (len(answer) == _CONTEXT_ANSWER or answer[:4] != bytes(4)):
                return
        raise AssertionError("a trap was neither answered nor was its connection cut off")

    def _end(self) -> None:
        """The connection ends soon when this side has no more to say."""
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_WR)
            self._control.settimeout(PATIENCE)
            while self._take(self._control) is not None:
                pass

    def close(self) -> None:
        """Let go of everything."""
        for sock in self._sockets:
            sock.close()
        for region in self._regions:
            region.close()


#: Where the ring down begins in the memory of a thread's rings, behind the bells.
_DOWN: Final = 128


def _attack(path: Path, seed: int, counts: Counts) -> None:
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    chance = random.Random(seed)
    feeder = Feeder(_seeds(), seed)
    reading, _ = os.pipe()
    ends = socket.socketpair()
    files = [
        os.open(os.devnull, os.O_RDONLY),
        os.open("/", os.O_RDONLY),
        reading,
        ends[0].fileno(),
        os.pidfd_open(os.getpid()),
        packet._sealed([bytes(packet.INLINE_MAX + 8)]),
        os.memfd_create("unsealed"),
    ]
    while True:
        attacker = _Attacker(path, chance, feeder, files, counts)
        try:
            attacker.attack()
        finally:
            attacker.close()
