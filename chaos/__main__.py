"""``python -m chaos``."""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable
from importlib import import_module

NAMES = ("drain", "scribble", "kills")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m chaos", description="Try to break what data queues promise.")
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=None, help="of what is chosen at random; random itself by default")
    arguments = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 32) if arguments.seed is None else arguments.seed
    run: Callable[[float, int], int] = import_module(f"chaos.{arguments.name}").run
    print(f"{arguments.name} for {arguments.seconds:g} seconds, seed {seed}", flush=True)
    faults = run(arguments.seconds, seed)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
