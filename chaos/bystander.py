"""A process that means no harm: it measures how long a message to a port of its own and back takes, while others act.

    python -m chaos.bystander

Whoever started it writes a line to begin a measurement and another to end it, and then reads a line of JSON: the
nanoseconds of every round trip.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Final, Self

import machport

#: Seconds between two round trips: what the figures are about is waiting, not load.
_PAUSE: Final = 0.0005
#: Seconds after which a round trip counts as hanging.
_PATIENCE: Final = 30.0


def main() -> None:
    """Measure as told on standard input until that ends."""
    with machport.Task(label="bystander") as task, task.allocate() as port, port.make_send() as right:
        print("ready", flush=True)
        while sys.stdin.readline():
            taken = []
            while not select.select([sys.stdin], [], [], _PAUSE)[0]:
                began = time.perf_counter_ns()
                right.send(b"there and back")
                port.receive(_PATIENCE)
                taken.append(time.perf_counter_ns() - began)
            sys.stdin.readline()
            print(json.dumps(taken), flush=True)


class Bystander:
    """Such a process, from outside."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "chaos.bystander"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._line()

    def tell(self) -> None:
        """Begin, or end, a measurement."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def taken(self) -> list[int]:
        """What was measured."""
        taken: list[int] = json.loads(self._line())
        return taken

    def _line(self) -> str:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], _PATIENCE)
        if not ready or not (line := self.process.stdout.readline()):
            raise RuntimeError("a bystander hangs, or has died")
        return line

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def measure_while(bystanders: Sequence[Bystander], action: object) -> list[int]:
    """What all of them measure together while ``action()`` runs."""
    assert callable(action)
    for bystander in bystanders:
        bystander.tell()
    action()
    for bystander in bystanders:
        bystander.tell()
    return [each for bystander in bystanders for each in bystander.taken()]


if __name__ == "__main__":
    main()
