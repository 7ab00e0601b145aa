"""Asking the daemon to be replaced by a new process, over a connection of its own."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from machport.abi import traps as t
from machport.abi.errors import error_for
from machport.carrier.hello import Hello
from machport.client.connection import Control, connect


class Upgraded(NamedTuple):
    """What was replaced by what.

    Attributes:
        old_pid, new_pid: the process that was the daemon, and the one that is.
        old_version, new_version: of their programs.
        stall_us: how long nobody was served, in microseconds.
    """

    old_pid: int
    new_pid: int
    old_version: str
    new_version: str
    stall_us: int


def upgrade(path: Path, *, chosen: bool = False) -> Upgraded:
    """Let a new process, with the program as it is installed now, take the place of the daemon on a socket.

    Args:
        chosen: the path is not the user's own place, or that of the environment.

    Returns when the new one serves.  The daemon's tasks notice nothing but that a call took longer.

    Raises:
        DaemonUnavailable: no daemon listens there.
        MachError: the daemon was not replaced, and goes on; the text says why.
        DaemonLost: the daemon died.
    """
    control = Control(connect(path, start=False, chosen=chosen))
    try:
        answer: t.Buffer = control.greet(Hello("upgrade").pack(), path)
        if not t.number_of(answer):
            answer, _ = control.trap(t.UPGRADE.pack())
        if t.number_of(answer):
            rule, says = t.unpack_refusal(answer)
            raise error_for(t.number_of(answer), says, call="upgrade", rule=rule)
        (old_pid, new_pid, stall), words = t.UPGRADE.unpack_answer(answer)
        old_version, new_version = t.unpack_texts(words, 2)
        return Upgraded(old_pid, new_pid, old_version, new_version, stall)
    finally:
        control.post(t.CLOSE.pack())
        control.close()
