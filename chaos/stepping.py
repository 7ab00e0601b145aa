"""A process that is stopped at a chosen step of one operation, and killed there.

A step is a system call as it begins or ends, one instruction of the processor, or one line of machport's sources.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final

import machport

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_LIBC.ptrace.restype = ctypes.c_long
_LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_SYSCALL: Final = 24
_SINGLESTEP: Final = 9
_SEIZE: Final = 0x4206
_GET_SYSCALL_INFO: Final = 0x420E
_OPTIONS: Final = 0x100001  # its system calls are told apart from signals, and it ends with its tracer
_INFO_SIZE: Final = 88
_SYSCALL_STOP: Final = signal.SIGTRAP | 0x80
_ENTRY: Final = 1
_SOURCES: Final = str(Path(machport.__file__).parent)
#: The exit status of a process whose operation was over before its step came.
DONE: Final = 42
#: Instructions after a system call within which a process is killed.
INSTRUCTIONS_MAX: Final = 3000

SYSTEM_CALLS: Final = "system calls"
INSTRUCTIONS: Final = "instructions"
LINES: Final = "lines"


def act(how: str, step: int, counted: memoryview, operation: Callable[[], object]) -> None:
    """In the victim: carry the operation out, and be killed at a step of it, or end with ``DONE``.

    Args:
        counted: eight bytes of memory that the tracer shares, for how many lines there were.
    """
    if how == LINES:
        lines = _Lines(step)
        sys.settrace(lines.enter)
        try:
            operation()
        finally:
            sys.settrace(None)
        counted[:] = lines.count.to_bytes(8, "little")
    else:
        os.kill(os.getpid(), signal.SIGSTOP)
        os.getppid()
        operation()
        os.getppid()
    os._exit(DONE)


class _Lines:
    """Counts lines of machport's sources, and ends the process at one of them."""

    def __init__(self, deadly: int) -> None:
        self.count = 0
        self._deadly = deadly

    def enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        return self._line if frame.f_code.co_filename.startswith(_SOURCES) else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            if self.count == self._deadly:
                os.kill(os.getpid(), signal.SIGKILL)
            self.count += 1
        return self._line


class Traced:
    """A child that is about to ``act``, whose steps its parent counts.

    Raises:
        OSError: the system does not let processes be traced.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        _, status = os.waitpid(pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            raise RuntimeError(f"the process ended with {status} before it began")
        self._ptrace(_SEIZE, None, _OPTIONS)
        os.kill(pid, signal.SIGCONT)
        self._signal = 0
        # The first one that it begins marks where the operation does, and where it ends.
        while self._next_call() is None:
            pass
        self._mark = self._number
        self._next_call()

    def go_to(self, step: int) -> int | None:
        """Let it go on until the system call of this number begins or ends; how many there were, if it has no more."""
        count = 0
        while True:
            begins = self._next_call()
            if begins and self._number == self._mark:
                return count
            if count == step:
                return None
            count += 1

    def step(self, instructions: int) -> None:
        """Let it go on by so many instructions."""
        for _ in range(instructions):
            self._resume(_SINGLESTEP)

    def _next_call(self) -> bool | None:
        """Go on to where a system call begins (True) or ends (None)."""
        while True:
            if self._resume(_SYSCALL) == _SYSCALL_STOP:
                info = ctypes.create_string_buffer(_INFO_SIZE)
                self._ptrace(_GET_SYSCALL_INFO, _INFO_SIZE, ctypes.addressof(info))
                if info.raw[0] == _ENTRY:
                    self._number = int.from_bytes(info.raw[24:32], "little")
                    return True
                return None

    def _resume(self, request: int) -> int:
        self._ptrace(request, None, self._signal)
        _, status = os.waitpid(self._pid, 0)
        if not os.WIFSTOPPED(status):
            raise RuntimeError(f"the process ended with {status} at one of its steps")
        stopped_by = os.WSTOPSIG(status)
        # Signals are its own; what ptrace itself says is not.
        self._signal = stopped_by if status >> 16 == 0 and stopped_by not in (signal.SIGTRAP, _SYSCALL_STOP) else 0
        return stopped_by

    def _ptrace(self, request: int, address: int | None, data: int) -> None:
        if _LIBC.ptrace(request, self._pid, address, data) < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
