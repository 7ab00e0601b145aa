"""How fast the kernel is when it is called directly, compiled and interpreted side by side.

    python bench/kernel_embedded.py [--form compiled|interpreted]

Without an argument both forms are measured, each in a process of its own.  Every figure is the best of some rounds: the
machine's noise only ever adds.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from time import perf_counter_ns

import machport
from machport.abi import constants as c
from machport.abi import message as layout
from machport.kernel import messages, ports, requests, tasks
from machport.kernel.kernel import Kernel
from machport.kernel.task import Task

ROUNDS = 15
BATCH = 2000
BODY = bytes(64)
LARGE = bytes(1 << 20)
LIVE_PORTS = 1_000_000 if machport.is_compiled() else 200_000

SEND = c.MACH_SEND_MSG
RECEIVE = c.MACH_RCV_MSG | c.MACH_RCV_TRAILER_SEQNO << c.MACH_RCV_TRAILER_ELEMENTS_SHIFT
ROOM = 1 << 21


class Pair:
    """A server with a receive right, and a client with a send right to it and a reply port."""

    def __init__(self) -> None:
        self.kernel = Kernel()
        self.server = tasks.create_task(self.kernel, "server")
        self.client = tasks.create_task(self.kernel, "client")
        self.port = ports.mach_port_allocate(self.kernel, self.server, c.MACH_PORT_RIGHT_RECEIVE)
        self.right, _ = ports.mach_port_extract_right(
            self.kernel, self.client, self.server, self.port, c.MACH_MSG_TYPE_MAKE_SEND
        )
        self.reply = ports.mach_port_allocate(self.kernel, self.client, c.MACH_PORT_RIGHT_RECEIVE)

    def message(self, body: bytes) -> bytes:
        bits = layout.bits(c.MACH_MSG_TYPE_COPY_SEND, c.MACH_MSG_TYPE_MAKE_SEND_ONCE)
        return layout.pack(bits, self.right, self.reply, 7, inline=body)


def send_then_receive(body: bytes) -> float:
    pair = Pair()
    kernel, server, client, port, message = pair.kernel, pair.server, pair.client, pair.port, pair.message(body)
    mach_msg, collect = messages.mach_msg, messages.collect
    start = perf_counter_ns()
    for _ in range(BATCH):
        mach_msg(kernel, client, SEND, message)
        collect(kernel)
        mach_msg(kernel, server, RECEIVE, b"", (), ROOM, port)
        collect(kernel)
    return (perf_counter_ns() - start) / BATCH


def send_to_a_waiting_receiver() -> float:
    pair = Pair()
    kernel, server, client, port, message = pair.kernel, pair.server, pair.client, pair.port, pair.message(BODY)
    mach_msg, collect = messages.mach_msg, messages.collect
    start = perf_counter_ns()
    for _ in range(BATCH):
        mach_msg(kernel, server, RECEIVE, b"", (), ROOM, port)
        collect(kernel)
        mach_msg(kernel, client, SEND, message)
        collect(kernel)
    return (perf_counter_ns() - start) / BATCH


def call_and_reply() -> float:
    """Request and reply as ``mach_msg`` with both halves, each to a waiting receiver."""
    pair = Pair()
    kernel, server, client, port, message = pair.kernel, pair.server, pair.client, pair.port, pair.message(BODY)
    mach_msg, collect = messages.mach_msg, messages.collect
    both = SEND | RECEIVE
    waiter = mach_msg(kernel, server, RECEIVE, b"", (), ROOM, port)
    start = perf_counter_ns()
    for _ in range(BATCH):
        mach_msg(kernel, client, both, message, (), ROOM, pair.reply)
        collect(kernel)
        result = waiter.result
        assert result is not None and result.head is not None
        reply = layout.pack(c.MACH_MSG_TYPE_MOVE_SEND_ONCE, int.from_bytes(result.head[8:12], "little"), inline=BODY)
        waiter = mach_msg(kernel, server, both, reply, (), ROOM, port)
        collect(kernel)
    return (perf_counter_ns() - start) / BATCH


def request_and_cancel() -> float:
    pair = Pair()
    kernel, client, right, reply = pair.kernel, pair.client, pair.right, pair.reply
    request = requests.mach_port_request_notification
    make = c.MACH_MSG_TYPE_MAKE_SEND_ONCE
    start = perf_counter_ns()
    for _ in range(BATCH):
        request(kernel, client, client, right, c.MACH_NOTIFY_DEAD_NAME, 0, reply, make)
        request(kernel, client, client, right, c.MACH_NOTIFY_DEAD_NAME, 0, 0, make)
    return (perf_counter_ns() - start) / BATCH


def allocate_and_destroy() -> float:
    pair = Pair()
    kernel, task = pair.kernel, pair.client
    allocate, mod_refs = ports.mach_port_allocate, ports.mach_port_mod_refs
    right = c.MACH_PORT_RIGHT_RECEIVE
    start = perf_counter_ns()
    for _ in range(BATCH):
        mod_refs(kernel, task, allocate(kernel, task, right), right, -1)
    return (perf_counter_ns() - start) / BATCH


def bytes_of_a_live_port() -> float:
    kernel = Kernel(name_limit=LIVE_PORTS)
    task: Task = tasks.create_task(kernel, "many")
    before = _resident()
    for _ in range(LIVE_PORTS):
        ports.mach_port_allocate(kernel, task, c.MACH_PORT_RIGHT_RECEIVE)
    return (_resident() - before) / LIVE_PORTS


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


TIMES: dict[str, Callable[[], float]] = {
    "64 bytes sent, then received": lambda: send_then_receive(BODY),
    "64 bytes sent to a waiting receiver": send_to_a_waiting_receiver,
    "1 MiB sent, then received": lambda: send_then_receive(LARGE),
    "call and reply, both waiting": call_and_reply,
    "dead-name request made and cancelled": request_and_cancel,
    "receive right allocated and destroyed": allocate_and_destroy,
}


def measure() -> dict[str, float]:
    found = {}
    for name, run in TIMES.items():
        gc.collect()
        found[name] = min(run() for _ in range(ROUNDS))
    found["bytes of a live port"] = bytes_of_a_live_port()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--form", choices=["compiled", "interpreted"])
    form = parser.parse_args().form
    if form is not None:
        if machport.is_compiled() != (form == "compiled"):
            sys.exit(f"this is not the {form} form; see MACHPORT_PURE")
        print(json.dumps(measure()))
        return
    found = {}
    for form, pure in ("compiled", "0"), ("interpreted", "1"):
        command = [sys.executable, __file__, "--form", form]
        answer = subprocess.run(command, env=os.environ | {"MACHPORT_PURE": pure}, stdout=subprocess.PIPE, check=True)
        found[form] = json.loads(answer.stdout)
    print(f"{'':40}{'compiled':>12}{'interpreted':>14}{'ratio':>8}")
    for name in found["compiled"]:
        fast, slow = found["compiled"][name], found["interpreted"][name]
        unit = " " if name.startswith("bytes") else " ns"
        print(f"{name:40}{fast:9.0f}{unit:3}{slow:11.0f}{unit:3}{slow / fast:8.1f}")


if __name__ == "__main__":
    main()
