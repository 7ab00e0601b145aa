"""``machport trace``: a daemon's trace to a file, to the terminal, or as JSON for a viewer."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import time
from collections.abc import Sequence
from typing import NamedTuple, TextIO

from machport.abi import traps as t
from machport.abi.errors import DaemonLost
from machport.client.oversight import Oversight
from machport.tracing.chrome import Exporter

_PIECE = 1 << 16
#: Bytes that a pipe holds at most without privileges: what comes while this program is not run.
_PIPE = 1 << 20


class Recorded(NamedTuple):
    """What came of a trace.

    Attributes:
        steps: how many it has.
        lost: how many of them were dropped.
        ended: why it is over before its time; "" if it is not.
    """

    steps: int
    lost: int
    ended: str


def record(
    oversight: Oversight,
    out: TextIO | None,
    chrome: TextIO | None,
    seconds: float | None,
    *,
    tasks: Sequence[str],
    pid: int,
    calls: Sequence[str],
    ports: Sequence[str],
) -> Recorded:
    """Write a trace until interrupted, or for some seconds.

    Args:
        out: where the transcript goes; None for nowhere.
        chrome: where the events go as JSON; None for nowhere.
    """
    read, write = os.pipe()
    # Who has many of them gets no larger one, and a smaller one does.
    with contextlib.suppress(OSError):
        fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, _PIPE)
    lines: list[str] | None = None if chrome is None else []
    try:
        oversight.trace(write, tasks=tasks, pid=pid, calls=calls, ports=ports)
    finally:
        os.close(write)
    try:
        recorded = _copy(oversight, read, out, lines, seconds)
    finally:
        os.close(read)
    if chrome is not None and lines is not None:
        json.dump({"displayTimeUnit": "ns", "traceEvents": list(Exporter().events(lines))}, chrome)
    return recorded


def _copy(
    oversight: Oversight, read: int, out: TextIO | None, lines: list[str] | None, seconds: float | None
) -> Recorded:
    """Copy what comes until the daemon has ended the trace, which it is asked to when the time has come."""
    end = None if seconds is None else time.monotonic() + seconds
    steps = lost = 0
    rest = ""
    open_ = True
    poll = select.poll()
    poll.register(read, select.POLLIN)
    while True:
        try:
            left = None if end is None or not open_ else max(end - time.monotonic(), 0) * 1000
            if open_ and not poll.poll(left):
                raise KeyboardInterrupt
            data = os.read(read, _PIECE)
        except KeyboardInterrupt:
            # What has been done until now still comes, and then the end.
            open_ = False
            oversight.close()
            continue
        if not data:
            break
        *whole, rest = (rest + data.decode()).split("\n")
        for line in whole:
            steps += line.startswith("> ")
            if line.startswith("# lost "):
                lost += int(line.removeprefix("# lost "))
            if out is not None:
                print(line, file=out)
            if lines is not None:
                lines.append(line)
        if out is not None:
            out.flush()
    return Recorded(steps, lost, _why_ended(oversight) if open_ else "")


def _why_ended(oversight: Oversight) -> str:
    """Why the daemon has ended a trace that nobody asked it to end."""
    try:
        # Connections go on with whoever takes the daemon's place, and traces do not.
        oversight.report(t.REPORT_METRICS)
    except DaemonLost:
        return "the daemon is gone"
    return "another process has taken the daemon's place"
