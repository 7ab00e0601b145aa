"""What an error or a notification says of the other end: which port it was, who had it, and how they ended.

Asking costs a trap, so it is done only where something has failed.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from machport.abi import constants as c
from machport.abi.errors import DeadPort, MachError, ServerDied, error_for
from machport.client.description import Description
from machport.peer.death import Obituary

if TYPE_CHECKING:
    from machport.face.task import AnyTask


def look(task: AnyTask, name: int) -> Description | None:
    """What is known of a name of the task's; None if it denotes nothing, or nobody can be asked."""
    with contextlib.suppress(MachError):
        return task.calls.describe(name)
    return None


def death_at(task: AnyTask, name: int) -> Obituary | None:
    """How the task ended that the receive right behind a name was lost with."""
    known = look(task, name)
    return None if known is None else known.obituary


def failure(task: AnyTask, code: int, says: str = "", *, call: str, name: int, rule: str = "") -> MachError:
    """The exception of a call on a right that failed; of a dead port it says which it was and who died."""
    error = error_for(code, says, call=call, task=task.label, name=name, rule=rule)
    if isinstance(error, DeadPort):
        _tell(error, look(task, name))
    return error


def server_died(task: AnyTask, name: int, code: int, reply_port: int = c.MACH_PORT_NULL, rule: str = "") -> ServerDied:
    """The exception of a call that gets no answer.

    Args:
        name: the right that was called.
        code: MACH_SEND_INVALID_DEST if nothing was sent.
        reply_port: where the answer was waited for, if something was; nobody has used it since.
    """
    server = look(task, name)
    lost = look(task, reply_port) if reply_port else None
    of = f" of port {server.label!r}" if server is not None and server.label else ""
    error = ServerDied(code=code, call="call", task=task.label, name=name, rule=rule)
    _tell(error, server)
    if code == c.MACH_SEND_INVALID_DEST:
        error.says = f"the server{of} is dead, and the request was not sent"
        error.retry_safe = True
    else:
        # Of those who had the port, perhaps; but it is whoever had the request that matters.
        error.death = None if lost is None else lost.lost_with
        if lost is not None and lost.unreceived:
            error.says = f"the server{of} was gone before it had received the request"
            error.retry_safe = True
        elif error.death is not None:
            error.says = f"the server{of} died with this request, which may have been carried out"
        else:
            who = f" ({error.holder} has the port, if its process is not about to end)" if error.holder else ""
            error.says = f"the server{of} dropped this request{who}, which may have been carried out"
    if error.retry_safe:
        error.advice = "ask again, by a right to a living server"
    return error


def _tell(error: DeadPort, known: Description | None) -> None:
    if known is None:
        return
    error.port_label, error.holder, error.death = known.label, known.holder, known.obituary
    if not error.says and not known.is_dead:
        error.says = "the task has no right of this kind to the port, which lives"
