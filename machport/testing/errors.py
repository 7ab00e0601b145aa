"""What a test finds out: each is an ``AssertionError``, because it is the test that failed, and not a call.

So code under test that catches ``MachError`` does not hide them.
"""

from __future__ import annotations

from machport.kernel.invariants import BrokenInvariant

__all__ = ["BrokenInvariant", "Counterexample", "Deadlock", "Divergence", "Killed", "Leak", "Livelock"]


class Deadlock(AssertionError):
    """Nobody can go on: every process waits for another one, for ever."""


class Livelock(AssertionError):
    """The processes made as many steps as their world allows, and were not done."""


class Leak(AssertionError):
    """A task still holds rights at the end of a test."""


class Divergence(AssertionError):
    """What happens now is not what a transcript says."""


class Counterexample(AssertionError):
    """A scenario fails under one seed, perhaps with one crash.

    Attributes:
        seed: of the world in which it fails.
        crash: label of the process that is killed, and before which of its steps; None if nobody is.
        runs: how many worlds were tried.
    """

    def __init__(self, says: str, seed: int, crash: tuple[str, int] | None, runs: int) -> None:
        super().__init__(says)
        self.seed = seed
        self.crash = crash
        self.runs = runs


class Killed(BaseException):
    """Unwinds the thread of a process that was killed; not to be caught."""
