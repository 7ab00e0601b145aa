"""Take a confinement upon this process: no new privileges, no capabilities, Landlock, and a filter of system calls.

Nothing of it can be taken back, and whatever this process starts has it, too.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from machport.abi.errors import ConfinementUnavailable
from machport.confinement import bpf, landlock, programs
from machport.confinement.filters import filter_for
from machport.confinement.syscalls import machine, number

_PR_SET_NO_NEW_PRIVS: Final = 38
_SECCOMP_SET_MODE_FILTER: Final = 1
_SECCOMP_GET_ACTION_AVAIL: Final = 2
_CAPABILITY_VERSION: Final = 0x20080522
#: Devices that everybody may read and write.
_DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/full")


class Available(NamedTuple):
    """What of a confinement this system can enforce.

    Attributes:
        landlock: the version of its Landlock; 0 if there is none.
        seccomp: it filters system calls, and their numbers are known here.
    """

    landlock: int
    seccomp: bool

    @property
    def missing(self) -> tuple[str, ...]:
        """What it lacks that every confinement needs."""
        return (() if self.landlock else ("Landlock",)) + (() if self.seccomp else ("seccomp",))


def available() -> Available:
    """What this system can enforce.

    From Landlock 6 on (Linux 6.12) all is as the documentation says.  Before, signals are held back by the filter,
    which lets processes that a confined one has started signal nobody, not even themselves.
    """
    known = machine()
    if known is None:
        return Available(0, False)
    action = struct.pack("=I", bpf.refuse(0))
    try:
        filters = _call("seccomp", _SECCOMP_GET_ACTION_AVAIL, 0, action) == 0
    except OSError:
        filters = False
    return Available(landlock.version(_call), filters)


def check(confined_by: Available, best_effort: bool) -> None:
    """Refuse what this system cannot enforce.

    Raises:
        ConfinementUnavailable: a part is missing, and less is not enough.
    """
    if confined_by.missing and not best_effort:
        raise ConfinementUnavailable(
            f"this system has no {' and no '.join(confined_by.missing)} to confine a child with; allow less with "
            "Confinement(best_effort=True), or start it without",
            call="spawn",
        )


def apply(
    read: Sequence[str],
    write: Sequence[str],
    execute: Sequence[str],
    network: bool,
    best_effort: bool,
    program: str | None = None,
    system: Available | None = None,
) -> None:
    """Confine this process, for ever.

    Args:
        read, write, execute, network, best_effort: as ``Confinement`` has them.
        program: what it is about to become.
        system: what to make use of; all that there is by default.

    Raises:
        ConfinementUnavailable: the system cannot, or this process has threads that it would not hold for.  It is not
            confined, or not wholly, and must end.
    """
    able = available() if system is None else system
    check(able, best_effort)
    if len(os.listdir("/proc/self/task")) != 1:
        raise ConfinementUnavailable(
            "this process has threads already, for which a confinement would not hold; start them later", call="spawn"
        )
    started = [*execute, *([] if program is None else [program])]
    allowed = [
        *((path, landlock.READ) for path in read),
        *((path, landlock.WRITE) for path in write),
        *((path, landlock.USE) for path in _DEVICES),
        *((path, landlock.EXECUTE) for name in started for path in programs.files_of(name)),
    ]
    try:
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
        if machine() is not None:
            _drop_capabilities()
        if able.landlock:
            landlock.restrict(_call, able.landlock, allowed, network=network)
        if able.seccomp:
            _filter(able.landlock, network=network, executes=bool(started))
    except OSError as error:
        raise ConfinementUnavailable(f"this process cannot be confined: {error}", call="spawn") from error


def _drop_capabilities() -> None:
    # With no new privileges, no program brings them back either.
    _call("capset", struct.pack("=Ii", _CAPABILITY_VERSION, 0), bytes(24))


def _filter(abi: int, *, network: bool, executes: bool) -> None:
    known = machine()
    assert known is not None
    program = filter_for(
        known,
        os.getpid(),
        network=network,
        executes=executes,
        scopes_signals=abi >= landlock.SCOPES,
        sees_truncation=abi >= landlock.TRUNCATION,
    )
    memory = ctypes.create_string_buffer(program, len(program))
    # As the system has it: a short, and at the next multiple of eight an address.
    described = struct.pack("=HxxxxxxQ", bpf.length(program), ctypes.addressof(memory))
    _call("seccomp", _SECCOMP_SET_MODE_FILTER, 0, described)


_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _call(name: str, *arguments: int | bytes | None) -> int:
    """A system call by name.

    Raises:
        OSError: it failed.
    """
    known = machine()
    found = None if known is None else number(name, known.column)
    if found is None:
        raise OSError(f"{name} is not known on this machine")
    words = [ctypes.c_long(word) if isinstance(word, int) else ctypes.c_char_p(word) for word in arguments]
    result: int = _libc.syscall(ctypes.c_long(found), *words)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")
    return result


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)):
        error = ctypes.get_errno()
        raise OSError(error, f"prctl: {os.strerror(error)}")
