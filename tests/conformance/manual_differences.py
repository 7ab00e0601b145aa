"""Which scenarios of the transcripts differ between GNU Mach and the manual, and by which switch of the dialect.

``manual_differences.toml`` lists, for each switch, the themed scenarios that diverge when just that switch is turned
to the manual's value.  After a change of the kernel or of the scenarios, look at what this command changes in it:

    python tests/conformance/manual_differences.py
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Final

from machport.kernel.dialect import GNUMACH, MANUAL, Dialect
from machport.replay.player import play
from machport.replay.transcript import Scenario, read

HERE: Final = Path(__file__).parent
TRANSCRIPTS: Final = HERE / "transcripts"
GOLDEN: Final = HERE / "manual_differences.toml"


def themed() -> list[Scenario]:
    return list(read(TRANSCRIPTS / "themed.txt"))


def without(switches: Iterable[str]) -> Dialect:
    """GNU Mach's dialect with some switches at the manual's value."""
    return replace(GNUMACH, **{switch: getattr(MANUAL, switch) for switch in switches})


def diverges(scenario: Scenario, dialect: Dialect) -> bool:
    return play(scenario, dialect)[1] is not None


def explanation(scenario: Scenario) -> tuple[str, ...]:
    """The smallest set of switches that makes a scenario diverge; a single one unless only an interplay does."""
    switches = GNUMACH.switches()
    for size in range(1, len(switches) + 1):
        for some in combinations(switches, size):
            if diverges(scenario, without(some)):
                return some
    return ()


def differences() -> dict[str, list[str]]:
    """For each switch the names of the themed scenarios that it alone decides."""
    scenarios = themed()
    return {
        switch: [scenario.name for scenario in scenarios if diverges(scenario, without([switch]))]
        for switch in GNUMACH.switches()
    }


def golden() -> dict[str, list[str]]:
    found: dict[str, list[str]] = tomllib.loads(GOLDEN.read_text())
    return found


def _as_toml(found: dict[str, list[str]]) -> str:
    lines = ["# Themed scenarios that diverge when one switch of the dialect is turned to the manual's value."]
    lines.append("# Written by: python tests/conformance/manual_differences.py")
    for switch, names in found.items():
        lines += ["", f"{switch} = ["]
        lines += [f'    "{name}",' for name in names]
        lines.append("]")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    GOLDEN.write_text(_as_toml(differences()))
