"""What the workers of the tests do."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

import machport
from machport import DataQueue

#: What the initializer was given.
given: dict[str, Any] = {}


def add(first: int, second: int) -> int:
    return first + second


def process(_: object = None) -> int:
    return os.getpid()


def wait_for_ever(out: machport.SendRight | None = None) -> None:
    if out is not None:
        out.send(b"%d" % os.getpid())
    threading.Event().wait()


def wait_for_word(port: machport.ReceiveRight) -> bytes:
    """Until a message comes."""
    return port.receive().body


def say(out: machport.SendRight) -> None:
    out.send(b"%d" % os.getpid())


def say_and_wait(out: machport.SendRight, port: machport.ReceiveRight) -> bytes:
    """Tell that the call has begun, and wait for a word; the number of the process."""
    say(out)
    port.receive()
    return b"%d" % os.getpid()


def say_and_spin(out: machport.SendRight, number: int) -> int:
    """Tell that the call has begun, and let a little time go."""
    say(out)
    spin(0.002)
    return number


def stands_still(out: machport.SendRight) -> None:
    """Nothing but SIGKILL ends it."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    say(out)
    os.kill(os.getpid(), signal.SIGSTOP)


def ends_by_signal() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def ends_by_exit() -> None:
    os._exit(7)


def ends_by_sys_exit() -> None:
    sys.exit(9)


def ends_by_segfault() -> None:
    ctypes.string_at(0)


def fails() -> NoReturn:
    raise LookupError("the reason")


def runs_out_of_memory() -> NoReturn:
    raise MemoryError


def interrupts() -> NoReturn:
    raise KeyboardInterrupt


class Unpicklable(Exception):
    def __init__(self) -> None:
        super().__init__("lock")
        self.lock = threading.Lock()


class Unreadable(Exception):
    """Pickled, and not unpickled: its arguments are others."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__("one argument")


class BreaksWhenUnpickled:
    def __reduce__(self) -> Any:
        return fails, ()


def raises_unpicklable() -> None:
    raise Unpicklable


def raises_unreadable() -> None:
    raise Unreadable(1, 2)


def returns_unpicklable() -> object:
    return threading.Lock()


def returns_unreadable() -> object:
    return BreaksWhenUnpickled()


def size_of(data: bytes) -> int:
    return len(data)


def make_bytes(size: int) -> bytes:
    return bytes(size)


def dies_while_it_answers(size: int) -> bytes:
    """Killed at some point while a long answer is written, or before, or behind it."""
    threading.Timer(0.001, ends_by_signal).start()
    return bytes(size)


def answer(port: machport.ReceiveRight, out: machport.SendRight) -> list[Any]:
    """Use rights among the arguments, and give others back."""
    out.send(port.receive().body + b", by way of a worker")
    given["kept"] = port.task.allocate()
    return [port.move(), given["kept"].make_send().move()]


def receive_kept() -> bytes:
    body: bytes = given["kept"].receive().body
    return body


def count(queue: DataQueue, number: int) -> None:
    for index in range(number):
        queue.enqueue(b"%d" % index)
    queue.close()


def make_queue() -> Any:
    queue = DataQueue(1000)
    queue.enqueue(b"entry")
    return queue.move_consumer()


def return_a_right_as_it_is() -> object:
    return machport.task_self().allocate()


def remember(word: str, **rights: Any) -> None:
    given.update(rights, word=word)


def recall() -> str:
    given["out"].send(b"from the initializer's right")
    return str(given["word"])


def cannot_begin() -> None:
    raise ValueError("no initializer")


def dies_at_start() -> None:
    os._exit(4)


def dies_at_first_start(path: str) -> None:
    """Only the first time."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    os._exit(4)


def spin(seconds: float) -> int:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return os.getpid()


def loses_its_task() -> None:
    """The process lives on, and its task does not."""
    machport.task_self().calls.task_terminate(machport.task_self().name)


def call_through(function: Callable[..., Any]) -> Any:
    return function()
