"""Interfaces and servers for the tests, which are also run by processes of their own."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

from actors import PATIENCE

import machport


class Calculator:
    """A plain class."""

    def divide(self, a: float, b: float) -> float:
        raise NotImplementedError

    def total(self, *, first: int, second: int = 10) -> int:
        raise NotImplementedError

    @machport.oneway
    def note(self, text: str) -> None:
        raise NotImplementedError

    def notes(self) -> list[str]:
        raise NotImplementedError


class Divider:
    """An object with these methods, which is no subclass."""

    def __init__(self) -> None:
        self.noted: list[str] = []

    def divide(self, a: float, b: float) -> float:
        return a / b

    def total(self, *, first: int, second: int) -> int:
        return first + second

    def note(self, text: str) -> None:
        if text == "bad":
            raise ValueError("a bad note")
        self.noted.append(text)

    def notes(self) -> list[str]:
        return self.noted


def serve_calculator(port: machport.ReceiveRight) -> None:
    """A process that serves until it is killed."""
    machport.serve(Calculator, Divider(), port)


class Served(contextlib.ExitStack):
    """A thread that serves, until the block ends, and a right to call it by."""

    def __init__(
        self,
        task: machport.Task,
        interface: type,
        implementation: object,
        port: machport.ReceiveRight | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.task = task
        self.port = task.allocate(qlimit=100) if port is None else port
        if port is None:
            self.right = self.port.make_send()
        self.ended: Future[None] = Future()
        self._thread = threading.Thread(target=self._serve, args=(interface, implementation, options), daemon=True)
        self._thread.start()
        self.callback(self._end)

    def _serve(self, interface: type, implementation: object, options: dict[str, Any]) -> None:
        try:
            machport.serve(interface, implementation, self.port, **options)
        except BaseException as error:
            self.ended.set_exception(error)
            self.port.close()
        else:
            self.ended.set_result(None)

    def _end(self) -> None:
        self.port.close()
        self.ended.result(PATIENCE)


def names(task: machport.Task) -> list[tuple[int, int]]:
    """Everything in a task's space."""
    return sorted(task.calls.mach_port_names(task.name))


@contextlib.contextmanager
def nothing_left(task: machport.Task) -> Iterator[None]:
    """In the block a task gets no rights, and loses none."""
    before = kinds(task)
    yield
    assert kinds(task) == before


def kinds(task: machport.Task) -> list[int]:
    return sorted(kind for _, kind in names(task))
