"""One target, or all of them, in a process of its own: ``python -m chaos.fuzzing.runner``.

``seeded`` inputs come from a seed, and ``fed`` ones from standard input, four bytes of size before each.  With
``coverage`` atheris makes them, from what earlier ones reached, and a second process is fed with the same.  What is
found is told as one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import Any, Final

from chaos.fuzzing.feeding import WORDS, Feeder
from chaos.fuzzing.target import SHARES, Target, load

_SIZE: Final = struct.Struct("<I")
_LONGEST: Final = 600
#: Faults of which the inputs are told.
_TOLD: Final = 5
#: Bytes of inputs that are handed over together.
_BATCH: Final = 1 << 16
#: Seconds after which an input counts as one that hangs.
_PATIENCE: Final = 60


class Tally:
    """What became of inputs.

    Attributes:
        inputs: how many there were.
        faults: the last line of each kind of traceback, with the first input that led there.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._began = time.monotonic()
        self.inputs = 0
        self.faults: dict[str, str] = {}

    def feed(self, data: bytes) -> None:
        """Try an input."""
        self.inputs += 1
        try:
            self._target.call(data)
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{type(error).__name__} in {Path(last.filename).name}, line {last.lineno}: {error}"
            if len(self.faults) < _TOLD:
                self.faults.setdefault(where[:300], data.hex())

    def as_json(self, **more: object) -> str:
        told = {
            "target": self._target.name,
            "inputs": self.inputs,
            "seconds": round(time.monotonic() - self._began, 2),
            "faults": self.faults,
            **more,
        }
        return json.dumps(told)


def run_seeded(name: str, runs: int, seed: int) -> Tally:
    """Inputs by a seed, the honest ones first."""
    target = load(name)
    tally = Tally(target)
    for data in target.seeds:
        tally.feed(data)
    feeder = Feeder(target.seeds, seed)
    while tally.inputs < runs:
        tally.feed(feeder.next())
    return tally


def run_fed(name: str) -> Tally:
    """Inputs from standard input, to its end."""
    tally = Tally(load(name))
    source = sys.stdin.buffer
    while len(head := source.read(_SIZE.size)) == _SIZE.size:
        tally.feed(source.read(_SIZE.unpack(head)[0]))
    return tally


def run_with_coverage(name: str, runs: int, seed: int, directory: Path) -> None:
    """Inputs of atheris; it does not return, but ends the process.

    Args:
        directory: where it keeps inputs that reached something new.
    """
    atheris: Any = import_module("atheris")
    target = load(name)
    _instrument(atheris.instrument_func)
    tally = Tally(target)
    feeds = _Second(name)
    corpus = directory / name
    corpus.mkdir(parents=True, exist_ok=True)
    for index, data in enumerate(target.seeds):
        (corpus / f"seed-{index}").write_bytes(data)
    words = directory / f"{name}.dict"
    words.write_text("".join(f'"{_quoted(_SIZE.pack(word & 0xFFFFFFFF))}"\n' for word in sorted(set(WORDS))))

    def take(data: bytes) -> None:
        tally.feed(data)
        feeds.feed(data)
        if tally.inputs >= runs:
            reached = len(list(corpus.iterdir()))
            print(tally.as_json(corpus=reached, compiled=feeds.end()), flush=True)
            os._exit(0)

    arguments = [
        sys.argv[0],
        str(corpus),
        f"-dict={words}",
        f"-seed={seed & 0x7FFFFFFF or 1}",
        f"-max_len={_LONGEST}",
        f"-timeout={_PATIENCE}",
        "-rss_limit_mb=4096",
        f"-artifact_prefix={directory}/{name}-",
        "-verbosity=0",
        "-print_final_stats=0",
    ]
    atheris.Setup(arguments, take)
    atheris.Fuzz()


def _quoted(data: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in data)


class _Second:
    """A process that tries the same inputs with compiled modules."""

    def __init__(self, name: str) -> None:
        environment = {key: value for key, value in os.environ.items() if key != "MACHPORT_PURE"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "chaos.fuzzing.runner", "fed", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        self._batch = bytearray()

    def feed(self, data: bytes) -> None:
        self._batch += _SIZE.pack(len(data)) + data
        if len(self._batch) >= _BATCH:
            self._flush()

    def _flush(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(self._batch)
        self._batch.clear()

    def end(self) -> Any:
        """What it has found."""
        self._flush()
        out, _ = self._process.communicate()
        return json.loads(out)


def _instrument(instrument: Callable[[FunctionType], object]) -> None:
    """Let every function of machport that is loaded, and interpreted, tell what it reaches."""
    for name, module in list(sys.modules.items()):
        if not name.startswith("machport."):
            continue
        for value in list(vars(module).values()):
            members = list(vars(value).values()) if isinstance(value, type) else [value]
            for member in members:
                function = getattr(member, "__func__", getattr(member, "fget", member))
                if isinstance(function, FunctionType) and function.__module__ == name:
                    instrument(function)


def main() -> None:
    """Run, and tell what was found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("way", choices=("coverage", "fed", "seeded"))
    parser.add_argument("target", choices=(*SHARES, "all"))
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--directory", type=Path)
    options = parser.parse_args()
    if options.way == "coverage":
        run_with_coverage(options.target, options.runs, options.seed, options.directory)
    elif options.way == "fed":
        print(run_fed(options.target).as_json(), flush=True)
    else:
        total = sum(SHARES.values())
        for name in SHARES if options.target == "all" else (options.target,):
            share = SHARES[name] / total if options.target == "all" else 1
            print(run_seeded(name, int(options.runs * share), options.seed).as_json(), flush=True)
    # Nothing is closed one by one.
    os._exit(0)


if __name__ == "__main__":
    main()
