"""What a target is, and all of them by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Final, NamedTuple


class Target(NamedTuple):
    """Something that takes any bytes.

    Attributes:
        name: what it is called.
        call: takes bytes, and raises nothing that is not a fault.
        seeds: inputs as honest senders write them.
        share: how many of all inputs are for it, in hundredths.
    """

    name: str
    call: Callable[[bytes], None]
    seeds: Sequence[bytes]
    share: int


#: Modules, each with a function ``targets``, and what they have.
_MODULES: Final = {
    "kernel": ("traps", "messages"),
    "layouts": ("hello", "layouts"),
    "shared": ("rings",),
    "sockets": ("packets", "queue_ends", "introductions"),
    "files": ("inheritance", "transcripts", "settings"),
    "snapshots": ("snapshots",),
}
#: Hundredths of all inputs: most for what every client can reach, and for what is fast.
SHARES: Final = {
    "traps": 17,
    "messages": 7,
    "hello": 15,
    "layouts": 23,
    "rings": 17,
    "packets": 8,
    "queue_ends": 2,
    "introductions": 3,
    "inheritance": 1,
    "settings": 1,
    "transcripts": 3,
    "snapshots": 3,
}


def load(name: str) -> Target:
    """The target of a name, whose world begins now."""
    module = next(module for module, names in _MODULES.items() if name in names)
    call, seeds = getattr(import_module(f"chaos.fuzzing.{module}"), f"new_{name}")()
    return Target(name, call, seeds, SHARES[name])
