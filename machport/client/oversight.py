"""A look over the daemon's shoulder: what it reports of itself, and a trace of what it does.

Whoever looks has a task of his own for it, which holds nothing.  No daemon is started to be looked at.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from machport.abi import traps as t
from machport.abi.errors import DaemonUnavailable, error_for
from machport.abi.traps import Buffer
from machport.carrier import packet
from machport.carrier.endpoint import socket_path
from machport.carrier.hello import Hello
from machport.client.connection import Control

#: The serial of a death behind which there is none.
_NO_DEATHS: Final = 0xFFFFFFFF


class Oversight:
    """A connection for it.

    Attributes:
        label: of its task, as the daemon tells it.

    Raises:
        DaemonLost: the daemon ends meanwhile.
        DaemonUnavailable: no daemon runs.
        MachError: it does not want to speak with this process.
    """

    def __init__(self, label: str = "machport") -> None:
        self.path = socket_path()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            sock.connect(str(self.path))
        except OSError as error:
            sock.close()
            raise DaemonUnavailable(f"no daemon runs on {self.path} ({error.strerror})") from None
        self._control = Control(sock)
        self._label = label
        # Elsewhere than in the daemon's namespace of processes it has another number, and sees itself.
        self.label = f"{label}[{os.getpid()}]"
        self._check(self._control.greet(Hello(label).pack(), self.path), "hello")
        # From the first report on the daemon knows that this one only looks, and does not remember its end.
        self.report(t.REPORT_DEATHS, after=_NO_DEATHS)

    def report(self, kind: int, task: int = 0, after: int = 0, most: int = 0) -> Buffer:
        """The answer to REPORT.

        Raises:
            MachError: the daemon refuses.
            DaemonLost: it is gone.
        """
        return self._trap(t.REPORT, t.REPORT.pack(kind, task, after, most))

    def trace(
        self,
        descriptor: int,
        *,
        tasks: Sequence[str] = (),
        pid: int = 0,
        calls: Sequence[str] = (),
        ports: Sequence[str] = (),
    ) -> None:
        """Let the daemon write a trace to a pipe or socket until this connection is closed.  Raises as ``report``."""
        filters = t.pack_texts(*[",".join(listed) for listed in (tasks, calls, ports)])
        self._trap(t.TRACE, t.TRACE.pack(pid, words=filters), (descriptor,))

    def _trap(self, trap: t.Trap, payload: bytes, descriptors: Sequence[int] = ()) -> Buffer:
        answer, came = self._control.trap(payload, descriptors)
        packet.close_all(came)
        self._check(answer, trap.call)
        return answer

    def _check(self, answer: Buffer, call: str) -> None:
        if t.number_of(answer):
            rule, says = t.unpack_refusal(answer)
            raise error_for(t.number_of(answer), says, call=call, task=self._label, rule=rule)

    def close(self) -> None:
        self._control.post(t.CLOSE.pack())
        self._control.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
