"""Tests of your own protocols: the kernel without a daemon, processes that take turns, crashes where you want them.

``World`` is where to begin; ``explore`` runs a scenario under many orders of turns and with a crash at every step.

``machine``     the kernel and its services, call by call      ``world``      tasks, processes, time, and what is left
``scheduler``   threads of which one runs at a time            ``exploring``  many worlds, one after the other
``tasks``       the tasks of a world, and arguments' rights    ``transcript`` what happened, to be played again
``invariants``  what is true of a kernel between two calls     ``plugin``     fixtures for pytest
"""

from __future__ import annotations

from machport.testing.errors import BrokenInvariant, Counterexample, Deadlock, Divergence, Leak, Livelock
from machport.testing.exploring import explore, replay, run
from machport.testing.world import Held, Process, World

__all__ = [
    "BrokenInvariant",
    "Counterexample",
    "Deadlock",
    "Divergence",
    "Held",
    "Leak",
    "Livelock",
    "Process",
    "World",
    "explore",
    "replay",
    "run",
]
