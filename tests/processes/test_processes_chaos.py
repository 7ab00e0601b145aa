"""Short runs of the programs that make bad days; ``python -m chaos`` runs them for as long as one likes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import chaos

#: Where the machport under test is imported from, and chaos with it.
PROJECT = Path(chaos.__file__).parents[1]

#: Each program, and how long its run is here.
RUNS = {"deaths": 20, "steps": 60, "storms": 60, "leaks": 30, "soak": 2}


@pytest.mark.parametrize("program", RUNS)
def test_a_short_run_finds_nothing_that_is_not_as_promised(program: str) -> None:
    """Promises 1 to 4: kills at any instant and at each step, interrupts, cancellations; nothing lost, nothing left."""
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-m", "chaos", program, "--amount", str(RUNS[program]), "--seed", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=120,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(PROJECT), os.environ.get("PYTHONPATH", "")])},
    )
    assert done.returncode == 0, done.stdout
