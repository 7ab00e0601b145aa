"""Scenarios under many orders of turns, and with a crash at every step of every process."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from itertools import zip_longest
from pathlib import Path
from typing import Final

from machport.abi.errors import InvalidArgument
from machport.replay import transcript as file_format
from machport.testing.errors import Counterexample, Divergence
from machport.testing.transcript import play
from machport.testing.world import STEP_LIMIT, Process, World

Scenario = Callable[[World], object]
#: A process by its label, and the step (from 1) before which it is killed.
Crash = tuple[str, int]
#: Lines of both sides that are shown of a divergence.
_SHOWN: Final = 200


def run(scenario: Scenario, *, seed: int = 0, crash: Crash | None = None, step_limit: int = STEP_LIMIT) -> World:
    """Let a scenario happen in one world, to its end; the world, which is closed by then.

    ``scenario(world)`` begins processes, runs the world and looks at what came of it.  What it has not run is run
    afterwards, when the rights in its variables have been forgotten.  Then the kernel's invariants are checked.

    Args:
        crash: label of a process, and the step before which it is killed.

    Raises:
        BaseException: what the scenario or one of its processes raised; Deadlock or Livelock.
    """
    with World(seed, step_limit=step_limit) as world:
        if crash is not None:
            world.crash_at(*crash)
        scenario(world)
        world.run()
        world.check()
    return world


def explore(
    scenario: Scenario,
    *,
    seeds: Iterable[int] = range(100),
    crashes: bool | Collection[str] = True,
    step_limit: int = STEP_LIMIT,
) -> int:
    """Run a scenario under many seeds, and under each with every chosen process killed at each of its steps in turn.

    Each run has a world of its own; what the scenario keeps elsewhere must be made anew in it.

    Args:
        crashes: labels of the processes that are killed; all of them if True, none if False.

    Returns:
        How many worlds were run.

    Raises:
        Counterexample: the scenario failed; of the smallest seed, without a crash or with the earliest one.
        InvalidArgument: a label is of no process.
    """
    runs = 0
    labels: set[str] = set()
    for seed in seeds:
        runs += 1
        world = _try(scenario, seed, None, step_limit, runs)
        chosen = _chosen(world.processes, crashes)
        labels.update(process.label for process in world.processes)
        for step in range(1, max((process.steps for process in chosen), default=0) + 1):
            for process in chosen:
                if step <= process.steps:
                    runs += 1
                    _try(scenario, seed, (process.label, step), step_limit, runs)
    if not isinstance(crashes, bool) and runs and set(crashes) - labels:
        raise InvalidArgument(f"no process is called {sorted(set(crashes) - labels)}; there were {sorted(labels)}")
    return runs


def _chosen(processes: list[Process], crashes: bool | Collection[str]) -> list[Process]:
    if isinstance(crashes, bool):
        return processes if crashes else []
    return [process for process in processes if process.label in crashes]


def _try(scenario: Scenario, seed: int, crash: Crash | None, step_limit: int, runs: int) -> World:
    try:
        return run(scenario, seed=seed, crash=crash, step_limit=step_limit)
    except Exception as error:
        name = getattr(scenario, "__name__", repr(scenario))
        killed = "" if crash is None else f" and {crash[0]!r} killed before its step {crash[1]}"
        again = f"run({name}, seed={seed})" if crash is None else f"run({name}, seed={seed}, crash={crash!r})"
        raise Counterexample(
            f"{name} fails with seed {seed}{killed}: {type(error).__name__}: {error}\n"
            f"to repeat it: machport.testing.{again}",
            seed,
            crash,
            runs,
        ) from error


def replay(path: Path | str, scenario: Scenario | None = None) -> int:
    """Hold what happens now against a transcript that ``World.record`` wrote; how many operations were compared.

    Without a scenario the kernel does again what the transcript tells.  With one, the scenario runs with the
    transcript's seed and crash, and must do the same as it did then, trap by trap.

    Raises:
        Divergence: something is otherwise; the text has the first line that is.
        TranscriptError: the file is no transcript of a world.
    """
    count = 0
    for recorded in file_format.read(Path(path)):
        if not recorded.is_world:
            raise file_format.TranscriptError(
                f"{path}, line {recorded.line}: expected 'world NAME'; try machport replay"
            )
        count += len(recorded.steps)
        if scenario is None:
            _, divergence = play(recorded)
            if divergence is not None:
                raise Divergence(f"{path}, {divergence}")
        else:
            _compare(recorded, scenario)
    return count


def _compare(recorded: file_format.Scenario, scenario: Scenario) -> None:
    told = dict(word.split("=", 1) for word in recorded.name.split())
    crash: Crash | None = None
    if "crash" in told:
        label, _, step = told["crash"].rpartition("@")
        crash = label, int(step)
    with World(int(told["seed"])) as world:
        if crash is not None:
            world.crash_at(*crash)
        scenario(world)
        world.run()
        lines = world.transcript()[1:-1]
    then = [line for step in recorded.steps for line in _lines(step)]
    for number, (old, new) in enumerate(zip_longest(then, lines, fillvalue="nothing more")):
        if old != new:
            raise Divergence(
                f"world {recorded.name}, operation or result {number + 1}\n"
                f"  then  {old[:_SHOWN]}\n  now   {new[:_SHOWN]}"
            )


def _lines(step: file_format.Step) -> list[str]:
    return [str(step), f"= {step.expected[0]}", *[f"| {line}" for line in step.expected[1:]]]
