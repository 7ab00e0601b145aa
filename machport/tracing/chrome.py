"""A trace as JSON for viewers of traces: Perfetto, or the one in Chrome.

A task is a process there, named by its label, and each of its threads a thread.  A call is a complete event; one that
waited has its time of waiting inside it.  A message is a flow from the call that sent it to the one that received it.
Notifications and deaths are instants.  The format is `Trace Event Format
<https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU>`_; times are in microseconds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final
from urllib.parse import unquote

_INTRODUCED: Final = re.compile(r"# t(\d+) is (\S+) process (\d+)")
_AT: Final = re.compile(r"# at ([\d.]+)(.*)")
_FINISHED: Final = re.compile(r"# w(\d+) at ([\d.]+)(.*)")
_NOTIFIES: Final = re.compile(r"# notifies (\S+)(?: port (\S+))? to t(\d+)")
_STEP: Final = re.compile(r"> t(\d+) (\S+)(.*)")
_WAITS: Final = re.compile(r"= waits w(\d+)")
#: Steps that are nobody's calls.
_SILENT: Final = frozenset(("collect", "lost", "state", "task", "claimed", "end", "take_back", "forget"))
#: Microseconds that a step takes at least, so that it can be seen.
_SHORTEST: Final = 0.1

Event = dict[str, Any]


class Exporter:
    """Turns the lines of a trace into events, as they come."""

    def __init__(self) -> None:
        self._at = 0.0
        self._about: dict[str, str] = {}
        self._waiting: dict[int, Event] = {}
        self._last: Event | None = None
        #: The last time that was told.
        self._clock = 0.0

    def events(self, lines: Iterable[str]) -> Iterator[Event]:
        """All events of a trace, or of a world that ``machport.testing`` recorded: there a step takes a microsecond."""
        for line in lines:
            yield from self._read(line.rstrip("\n"))
        for event in self._waiting.values():
            # It waits still.
            event["dur"] = max(self._clock - event["ts"], _SHORTEST)
            event["args"]["waits"] = True
            yield event

    def _read(self, line: str) -> Iterator[Event]:
        if introduced := _INTRODUCED.fullmatch(line):
            yield _metadata("process_name", int(introduced[1]), 0, unquote(introduced[2]))
        elif at := _AT.fullmatch(line):
            self._at = float(at[1])
            self._clock = max(self._clock, self._at)
            words = at[2].split()
            self._about = dict(zip(words[::2], words[1::2], strict=False))
        elif notice := _NOTIFIES.fullmatch(line):
            yield _instant(f"notification {notice[1]}", int(notice[3]), self._clock, unquote(notice[2] or ""))
        elif step := _STEP.fullmatch(line):
            yield from self._step(int(step[1]), step[2], step[3])
        elif line.startswith("= "):
            yield from self._result(line)
        elif finished := _FINISHED.fullmatch(line):
            yield from self._finish(int(finished[1]), float(finished[2]), finished[3])

    def _step(self, task: int, operation: str, arguments: str) -> Iterator[Event]:
        if not self._about:
            # A world has no times.
            self._clock += 1
            self._at = self._clock
        if operation == "task":
            yield _metadata("process_name", task, 0, unquote(arguments.split()[0]))
        if operation == "end":
            yield _instant("death", task, self._at, "")
        if operation in _SILENT:
            self._last = None
            return
        self._last = {
            "name": operation,
            "cat": "call",
            "ph": "X",
            "ts": self._at,
            "dur": max(float(self._about.get("took", 0)), _SHORTEST),
            "pid": task,
            "tid": int(self._about.get("thread", 0)),
            "args": {"arguments": arguments.strip()[:200], "port": unquote(self._about.get("port", ""))},
        }
        if "sends" in self._about:
            first, _, last = self._about["sends"].partition("-")
            for number in range(int(first), int(last or first) + 1):
                yield _flow("s", number, self._last, self._at)
        if "receives" in self._about:
            yield _flow("f", int(self._about["receives"]), self._last, self._at + self._last["dur"])
        self._about = {}

    def _result(self, line: str) -> Iterator[Event]:
        event, self._last = self._last, None
        if event is None:
            return
        if waits := _WAITS.fullmatch(line):
            self._waiting[int(waits[1])] = event
        else:
            event["args"]["result"] = line[2:].split()[0]
            yield event

    def _finish(self, number: int, at: float, about: str) -> Iterator[Event]:
        self._clock = max(self._clock, at)
        event = self._waiting.pop(number, None)
        if event is None:
            return
        worked = event["dur"]
        event["dur"] = max(at - event["ts"], _SHORTEST)
        yield event
        if event["dur"] > worked:
            yield {
                "name": "blocked",
                "cat": "wait",
                "ph": "X",
                "ts": event["ts"] + worked,
                "dur": event["dur"] - worked,
                "pid": event["pid"],
                "tid": event["tid"],
            }
        words = about.split()
        if words[:1] == ["receives"]:
            yield _flow("f", int(words[1]), event, at)


def _metadata(name: str, pid: int, tid: int, value: str) -> Event:
    return {"name": name, "ph": "M", "ts": 0, "pid": pid, "tid": tid, "args": {"name": value}}


def _instant(name: str, pid: int, at: float, port: str) -> Event:
    return {"name": name, "cat": "kernel", "ph": "i", "ts": at, "pid": pid, "tid": 0, "s": "p", "args": {"port": port}}


def _flow(phase: str, number: int, event: Event, at: float) -> Event:
    """One end of the arrow from a send to its reception, which lies within the event of the call."""
    flow = {
        "name": "message",
        "cat": "message",
        "ph": phase,
        "id": number,
        "ts": at,
        "pid": event["pid"],
        "tid": event["tid"],
    }
    return flow | {"bp": "e"} if phase == "f" else flow
