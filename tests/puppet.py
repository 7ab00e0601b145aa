"""The process behind ``actors.Puppet``: carries out the Python that comes in, and tells what came of each piece.

What it is told may use ``machport``, ``mach``, ``os``, ``signal``, ``threading`` and the functions below.  It ends
when its orders do, so that no test leaves one behind.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import machport
from machport import mach  # noqa: F401
from machport.abi.traps import Payload
from machport.client import connection
from machport.client.channel import Answer, Channel


def mark() -> None:
    """Let the test know that this point is reached."""
    answers.send(("mark", None))


def die() -> None:
    """End here, without another instruction."""
    os.kill(os.getpid(), signal.SIGKILL)


class HookedChannel(Channel):
    """A channel at whose steps something can be done: traps are written to its ring, and answers read from another."""

    __slots__ = ()

    def _publish(self, payload: Payload) -> None:
        _take_hook("before_writing")
        super()._publish(payload)
        _take_hook("after_writing")

    def _answer(self) -> Answer:
        _take_hook("before_reading")
        answer = super()._answer()
        _take_hook("after_reading")
        return answer

    def _sleep(self) -> None:
        _take_hook("before_sleeping")
        super()._sleep()


hooks: dict[str, Callable[[], None]] = {}


def _take_hook(step: str) -> None:
    hooks.pop(step, lambda: None)()


def before_writing(action: Callable[[], None]) -> None:
    """Do something when the next trap is about to be written."""
    hooks["before_writing"] = action


def after_writing(action: Callable[[], None]) -> None:
    """Do something when the next trap is written, whether its answers are read one by one or not."""
    hooks["after_writing"] = action


def before_sleeping(action: Callable[[], None]) -> None:
    """Do something when a call that is written finds no answer for a while, and begins to sleep."""
    hooks["before_sleeping"] = action


def before_reading(action: Callable[[], None]) -> None:
    """Do something when the next trap is written, before its answer is read."""
    hooks["before_reading"] = action


def after_reading(action: Callable[[], None]) -> None:
    """Do something when the next answer has been read, before anybody looks at it."""
    hooks["after_reading"] = action


def in_thread(task: machport.Task, call: Callable[[], object]) -> None:
    """Let a thread of its own make a call, and return when its trap is written."""
    written = threading.Event()

    def run() -> None:
        task.calls.mach_port_names(task.name)  # so that the next trap is not the one for a channel
        before_reading(written.set)
        call()

    threading.Thread(target=run, daemon=True).start()
    written.wait()


def interrupt_when_it_sleeps(task: machport.Task, call: Callable[[], object]) -> object:
    """Make a call that another thread interrupts as soon as it waits; ``mark()`` when it waits again."""
    thread = threading.get_ident()

    def interrupt() -> None:
        task.calls.mach_port_names(task.name)  # once this is carried out, the call is
        before_sleeping(mark)
        task.calls.thread_abort(thread)

    before_sleeping(threading.Thread(target=interrupt).start)
    return call()


def hold_sockets() -> int:
    """Start a child that holds every socket of this process open; its process number."""
    held = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{number}").startswith("socket:"):
                held.append(int(number))
    return subprocess.Popen(["sleep", "1000"], pass_fds=held).pid


def carry_out(source: str, names: dict[str, Any]) -> Any:
    try:
        code = compile(source, "<order>", "eval")
    except SyntaxError:
        exec(compile(source, "<order>", "exec"), names)
        return None
    return eval(code, names)


connection.Channel = HookedChannel  # type: ignore[attr-defined]


def main() -> None:
    """Carry out orders until there are no more."""
    names = dict(globals())
    while True:
        try:
            source = orders.recv()
        except EOFError:
            return
        try:
            answers.send(("done", carry_out(source, names)))
        except BaseException:
            answers.send(("failed", traceback.format_exc()))


if __name__ == "__main__":
    orders, answers = (Connection(int(number)) for number in sys.argv[1:3])
    main()
