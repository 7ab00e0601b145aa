"""No compiled operation touches a byte beside the region or the caller's buffers: the system would kill it.

What is done there is in ``ring_fences``; that a fence kills, in ``test_ring_processes``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ring_fences import CONSUME, PRODUCE
from ring_forms import PROJECT

from machport.ring import Ring

PROGRAM = Path(__file__).with_name("ring_fences.py")


def test_no_operation_leaves_memory_that_ends_at_a_fence() -> None:
    """Q8, Q39, Q40, Q41."""
    run = subprocess.run(
        [sys.executable, str(PROGRAM)],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (run.returncode, run.stdout) == (0, "done\n"), run.stdout + run.stderr


def test_every_operation_of_the_ring_is_tried_at_the_fences() -> None:
    """Q39: whatever is added to the ring, it holds for."""
    operations = {name for name in dir(Ring) if not name.startswith("_") and callable(getattr(Ring, name))}
    # These two touch no memory of the ring.
    assert operations == {*PRODUCE, *CONSUME, "state", "resume"}
