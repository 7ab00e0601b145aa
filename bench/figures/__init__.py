"""What is asked, one class a figure.  ``python -m bench NAME`` measures one."""

from __future__ import annotations

from typing import Final

from bench.figures.creation import Created, Million
from bench.figures.daemon import BesideIdle, Crowd, Idle
from bench.figures.dataqueue import Burst, DataQueues, IdleReader, InPlace, LargeEntries, QueueRoundTrips, Restarts
from bench.figures.deaths import Deaths
from bench.figures.idle import IdleLoop
from bench.figures.kernel import Replay, Requests
from bench.figures.notices import Notices
from bench.figures.oneway import Messages
from bench.figures.roundtrip import AwaitedRoundTrips, RoundTrips
from bench.figures.start import Start
from bench.figures.tracing import TracedMessages, TracedRoundTrips
from bench.figures.typed import TypedRoundTrips
from bench.results import Figure

FIGURES: Final[dict[str, Figure]] = {
    figure.name: figure
    for figure in (
        RoundTrips(),
        TypedRoundTrips(),
        AwaitedRoundTrips(),
        IdleLoop(),
        Messages(),
        DataQueues(),
        LargeEntries(),
        InPlace(),
        QueueRoundTrips(),
        IdleReader(),
        Burst(),
        Restarts(),
        Notices(),
        Deaths(),
        Requests(),
        Created(),
        Million(),
        Idle(),
        BesideIdle(),
        Crowd(),
        Replay(),
        Start(),
        TracedRoundTrips(),
        TracedMessages(),
    )
}
