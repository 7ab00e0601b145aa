"""Processes that take of the daemon whatever they can get: each is a function, run by ``python -m chaos.attackers``.

Each prints ``reached N`` when it has what it wanted, or all that it can get, and then goes on, or keeps it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Final

import machport
from machport.abi import constants as c
from machport.abi import traps as t
from machport.carrier import packet, rings
from machport.carrier.endpoint import socket_path
from machport.carrier.hello import Hello

#: Names that are given up in one call.
_MANY: Final = 1000


def reached(number: int) -> None:
    """Tell that there is no more to come."""
    print(f"reached {number}", flush=True)


def burn(amount: int) -> None:
    """So many processes that use a processor and nothing else."""
    for _ in range(amount - 1):
        if not os.fork():
            break
    else:
        reached(0)
    while True:
        sum(range(1000))


def ports(amount: int) -> None:
    """As many ports as wanted, and keep them."""
    task = machport.Task(label="ports")
    made = 0
    with contextlib.suppress(machport.LimitReached):
        while made < amount:
            task.calls.mach_port_allocate(task.name, c.MACH_PORT_RIGHT_RECEIVE)
            made += 1
    reached(made)
    time.sleep(1000)


def notifications(amount: int) -> None:
    """As many notifications as wanted in the queue of one port, which nobody reads."""
    task = machport.Task(label="notifications")
    inbox = task.calls.mach_port_allocate(task.name, c.MACH_PORT_RIGHT_RECEIVE)
    made = 0
    with contextlib.suppress(machport.LimitReached):
        while made < amount:
            once, _ = task.calls.mach_port_extract_right(task.name, inbox, c.MACH_MSG_TYPE_MAKE_SEND_ONCE)
            task.calls.mach_port_deallocate(task.name, once)
            made += 1
    reached(made)
    time.sleep(1000)


def connections(amount: int) -> None:
    """So many processes that connect, silently or with a hello, as often as they can, and keep all until they must."""
    for _ in range(max(1, amount)):
        if not os.fork():
            reached = False
            held: list[socket.socket] = []
            end = time.monotonic() + 1000
            while time.monotonic() < end:
                sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                sock.settimeout(5)
                try:
                    sock.connect(str(socket_path()))
                    if len(held) % 2:
                        packet.send(sock, Hello("bomb").pack())
                        packet.receive(sock)
                    held.append(sock)
                except OSError:
                    sock.close()
                if len(held) >= 500:
                    for sock in held:
                        sock.close()
                    held.clear()
                    if not reached:
                        print("reached 500", flush=True)
                        reached = True
            os._exit(0)
    time.sleep(1000)


def descriptors(amount: int) -> None:
    """Files, threads and connections until the daemon has no descriptor for this process, again and again."""
    task = machport.Task(label="descriptors")
    files: list[machport.Fileport] = []
    with contextlib.suppress(machport.LimitReached):
        while len(files) < amount:
            files.append(task.fileport(0))
    threads = [threading.Thread(target=_try_to_call, args=(task,), daemon=True) for _ in range(50)]
    for thread in threads:
        thread.start()
    reached(len(files))
    while True:
        held = []
        for _ in range(40):
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with contextlib.suppress(OSError):
                sock.connect(str(socket_path()))
                held.append(sock)
        time.sleep(0.01)
        for sock in held:
            sock.close()


def _try_to_call(task: machport.Task) -> None:
    with contextlib.suppress(machport.MachError):
        task.calls.mach_port_names(task.name)
    time.sleep(1000)


def never_reads(amount: int) -> None:
    """A client that asks by its ring and its socket and reads no answer; and a flood to a port that nobody reads."""
    control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    control.connect(str(socket_path()))
    packet.send(control, Hello("never-reads").pack())
    packet.receive(control)
    packet.send(control, t.THREAD.pack())
    received = packet.receive(control)
    assert received is not None
    ours = rings.attach(received[1][1])
    sock = socket.socket(fileno=received[1][0])
    while not ours.down.enqueue(t.TASK_SELF.pack()) & ~1:
        if ours.daemon_bell.ring():
            sock.send(bytes(8))
    control.setblocking(False)
    with contextlib.suppress(OSError):
        while True:
            packet.send(control, t.TASK_SELF.pack())
    task = machport.Task(label="flood")
    port = task.allocate(qlimit=c.MACH_PORT_QLIMIT_MAX)
    right = port.make_send()
    sent = 0
    with contextlib.suppress(machport.TimedOut):
        while True:
            right.send(bytes(1000), timeout=0)
            sent += 1
    reached(sent)
    while True:
        with contextlib.suppress(machport.TimedOut):
            right.send(bytes(1000), timeout=0)


def memory(amount: int) -> None:
    """Large messages in queues that nobody reads, and ports, until the daemon gives no more; and then on."""
    task = machport.Task(label="memory")
    body = bytes(1 << 20)
    sent, first = 0, True
    kept = []
    while True:
        try:
            port = task.allocate()
            kept.append(port)
            right = port.make_send()
            for _ in range(5):
                right.send(body, timeout=0)
                sent += 1
        except (machport.LimitReached, machport.TimedOut):
            if first:
                reached(sent)
                first = False
            time.sleep(0.001)
        except machport.MachError as error:
            print(f"{error}", file=sys.stderr, flush=True)
            raise


def main() -> None:
    """Run the attacker that is named, with its number."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    globals()[sys.argv[1]](int(sys.argv[2]))


if __name__ == "__main__":
    main()
