"""Landlock: a process may open only files below given ones, and reach only processes that it started.

The system tells by a number what its Landlock can; each part is used as of the number that brought it.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable, Iterable
from typing import Final

#: What a rule can allow: what a file is opened or used for.
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = (1 << bit for bit in range(4))
_REMOVE_DIR, _REMOVE_FILE, _MAKE_CHAR, _MAKE_DIR, _MAKE_REG = (1 << bit for bit in range(4, 9))
_MAKE_SYM, _REFER, _TRUNCATE = (1 << bit for bit in range(12, 15))
#: How many of the bits each version knows.
_KNOWN_BITS: Final = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
#: Of what is allowed below a directory, that which concerns a file.
_OF_FILES: Final = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE

READ: Final = _READ_FILE | _READ_DIR
WRITE: Final = READ | _WRITE_FILE | _TRUNCATE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _MAKE_SYM | _REFER
EXECUTE: Final = _EXECUTE | _READ_FILE
#: A device like /dev/null, from which is read and to which is written.
USE: Final = _READ_FILE | _WRITE_FILE

#: Versions that brought each part.
TRUNCATION: Final = 3
TCP: Final = 4
SCOPES: Final = 6
_BIND_AND_CONNECT_TCP: Final = 0b11
_ABSTRACT_SOCKETS_AND_SIGNALS: Final = 0b11
_VERSION: Final = 1
_PATH_BENEATH: Final = 1
_RULE: Final = struct.Struct("=Qi")

#: A system call by name, with numbers and memory as arguments; raises OSError.
Call = Callable[..., int]


def version(call: Call) -> int:
    """Which Landlock the system has; 0 if none."""
    try:
        return call("landlock_create_ruleset", None, 0, _VERSION)
    except OSError:
        return 0


def restrict(call: Call, abi: int, allowed: Iterable[tuple[str, int]], *, network: bool) -> None:
    """Let this thread, and what it starts, open only what is allowed.

    Args:
        abi: the system's version.
        allowed: paths and what is allowed there and below.
        network: it may connect and listen by TCP.

    Raises:
        OSError: a path is not there, or the system refuses.
    """
    known = (1 << _KNOWN_BITS[min(abi, max(_KNOWN_BITS))]) - 1
    attributes = struct.pack("=Q", known)
    if abi >= TCP:
        attributes += struct.pack("=Q", 0 if network else _BIND_AND_CONNECT_TCP)
    if abi >= SCOPES:
        attributes += struct.pack("=Q", _ABSTRACT_SOCKETS_AND_SIGNALS)
    ruleset = call("landlock_create_ruleset", attributes, len(attributes), 0)
    try:
        for path, access in allowed:
            _add(call, ruleset, path, access & known)
        call("landlock_restrict_self", ruleset, 0)
    finally:
        os.close(ruleset)


def _add(call: Call, ruleset: int, path: str, access: int) -> None:
    beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISDIR(os.fstat(beneath).st_mode):
            access &= _OF_FILES
        call("landlock_add_rule", ruleset, _PATH_BENEATH, _RULE.pack(access, beneath), 0)
    finally:
        os.close(beneath)
