"""What a program inherits that was started with rights: an open file that tells which task is its own, and its rights.

The file's number is in the environment, from which it is taken at first use: what this process starts inherits nothing.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any, Final, NamedTuple

from machport.abi.errors import ProtocolError
from machport.carrier.hello import TICKET_SIZE

VARIABLE: Final = "MACHPORT_INHERITED"
_SIZE_MAX: Final = 1 << 24


class InheritedRight(NamedTuple):
    """A right in the task that waits for the program: its name there, its kind, and whether it brings a data queue."""

    name: int
    kind: int
    brings_queue: bool


class Inheritance(NamedTuple):
    """A task that waits for its program: where its daemon listens, and what the program finds in it."""

    path: Path
    ticket: bytes
    label: str
    rights: dict[str, InheritedRight]
    #: The connection on which hello was said already, with the full label: its descriptor and inode.
    connection: tuple[int, int] | None = None


def leave(inheritance: Inheritance) -> tuple[int, str]:
    """A descriptor for a program to inherit, and what its environment must say of it."""
    import json  # only who starts programs needs it

    path, ticket, label, rights, connection = inheritance
    data = json.dumps([str(path), ticket.hex(), label, rights, connection]).encode()
    descriptor = os.memfd_create("machport-inheritance", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(data)
    except BaseException:
        os.close(descriptor)
        raise
    # Programs in between may have closed the descriptor, and its number may stand for anything by then.
    return descriptor, f"{descriptor}:{os.fstat(descriptor).st_ino}"


def take() -> Inheritance | None:
    """What this process was left, which nobody finds again; None if that is nothing.

    Raises:
        ProtocolError: there is such a file, and something else is in it.
    """
    number, _, inode = os.environ.pop(VARIABLE, "").partition(":")
    if not number.isdecimal() or not inode.isdecimal():
        return None
    descriptor = int(number)
    with contextlib.suppress(OSError, OverflowError):
        if os.fstat(descriptor).st_ino == int(inode) and _is_ours(descriptor):
            data = os.pread(descriptor, _SIZE_MAX, 0)
            os.close(descriptor)
            return _unpack(data)
    return None


def take_connection(inheritance: Inheritance) -> int | None:
    """The descriptor of its connection, which nothing that this process starts inherits; None if it has none."""
    if inheritance.connection is None:
        return None
    descriptor, inode = inheritance.connection
    with contextlib.suppress(OSError, OverflowError):
        if os.fstat(descriptor).st_ino == inode:
            os.set_inheritable(descriptor, False)
            return descriptor
    return None


def _unpack(data: bytes) -> Inheritance:
    """What ``leave`` wrote."""
    import json

    try:
        path, ticket, label, rights, connection = json.loads(data)
        found = {name: InheritedRight(*right) for name, right in rights.items()}
        inheritance = Inheritance(
            Path(path), bytes.fromhex(ticket), label, found, None if connection is None else tuple(connection)
        )
    except (ValueError, TypeError, AttributeError, RecursionError):
        inheritance = None
    if inheritance is None or not _is_sound(inheritance):
        raise ProtocolError(
            "what this process was left by the one that started it is no inheritance; both must have the same machport"
        )
    return inheritance


def _is_sound(inheritance: Inheritance) -> bool:
    """Whether each part is of its kind: the file says what it likes."""
    connection: Any = inheritance.connection
    return (
        (connection is None or (len(connection) == 2 and all(type(number) is int for number in connection)))
        and len(inheritance.ticket) in (0, TICKET_SIZE)
        and isinstance(inheritance.label, str)
        and all(
            isinstance(number, int) and 0 <= number < 1 << 32
            for right in inheritance.rights.values()
            for number in (right.name, right.kind)
        )
    )


def _is_ours(descriptor: int) -> bool:
    return os.readlink(f"/proc/self/fd/{descriptor}").startswith("/memfd:machport-inheritance")
