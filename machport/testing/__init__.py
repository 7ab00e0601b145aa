"""Tests of your own protocols: the kernel without a daemon, processes that take turns, crashes where you want them.

``World`` is where to begin; ``explore`` runs a scenario under many orders of turns and with a crash at every step.

``machine``     the kernel and its services, call by call      ``world``      tasks, processes, time, and what is left
``scheduler``   threads of which one runs at a time            ``exploring``  many worlds, one after the other
``tasks``       the tasks of a world, and arguments' rights    ``transcript`` what happened, to be played again
``plugin``      fixtures for pytest
``places``      lines of the program under test                ``daemon``     a real one of a test's own
``sendonce``    each send-once right gives one message         ``steps``      the last ones of a world, in words
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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

_PLACES = {"World": "world", "Process": "world", "Held": "world"} | dict.fromkeys(
    ("explore", "replay", "run"), "exploring"
)


def __getattr__(name: str) -> object:
    """Imported at its first use: pytest loads the plugin also where nobody tests with it."""
    if name in __all__:
        return getattr(import_module(f"machport.testing.{_PLACES.get(name, 'errors')}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
