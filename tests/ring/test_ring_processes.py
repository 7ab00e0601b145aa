"""The compiled ring between real processes: wake-ups, kills, and a peer that writes what it likes.

The scenes are in ``ring_scenes``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ring_forms import PROJECT

SCENES = Path(__file__).with_name("ring_scenes.py")


def play(scene: str, number: int) -> str:
    """Run one scene to its end in a process of its own."""
    run = subprocess.run(
        [sys.executable, "-X", "faulthandler", str(SCENES), scene, str(number)],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert run.returncode == 0, f"{scene} ended with {run.returncode}:\n{run.stdout}{run.stderr}"
    return run.stdout


def test_no_wake_up_is_lost_between_two_processes() -> None:
    """Q11, Q25 and Q27 against each other, T8 for the full ring: the consumer sleeps, and is always woken."""
    play("wake_ups", 300_000)


def test_no_wake_up_is_lost_when_both_sides_meet_at_the_last_entry() -> None:
    """Q11: the two fences, each of which this needs."""
    play("handshakes", 500_000)


def test_no_wake_up_is_lost_between_batches() -> None:
    play("batches", 100_000)


def test_no_wake_up_is_lost_by_a_doorbell() -> None:
    """The exchange and the fences of the trap path's sleep."""
    play("bells", 100_000)


def test_a_killed_writer_leaves_only_whole_entries() -> None:
    """T6: SIGKILL between any two instructions of a writer."""
    play("killed_writers", 150)


def test_a_byte_beyond_the_ring_would_be_noticed() -> None:
    play("guard_pages_work", 0)


def test_a_peer_that_scribbles_during_the_operations_leads_them_nowhere() -> None:
    """Q39 to Q42, between guard pages."""
    play("scribbler", 30_000)
