"""The last steps of a world, for whoever reads that it did not come to an end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from machport.testing.places import Place

#: Steps that are told of.
LAST: Final = 50


class Step:
    """One step of a thread.

    Attributes:
        label: whose step.
        line: of the call with which it begins; None for the beginning of the thread.
        says: the call in words; "" while it made none.
        error: name of the exception that the call was answered with, "" for none.
    """

    __slots__ = ("error", "label", "line", "says")

    def __init__(self, label: str, line: Place | None) -> None:
        self.label = label
        self.line = line
        self.says: Callable[[], str] = str
        self.error: Callable[[], str] = str


def tell(steps: Iterable[Step]) -> list[str]:
    """Who made steps at which call, and what came of it: a sentence for each call of each line of each thread."""
    groups: dict[tuple[str, Place | None, str], list[Step]] = {}
    for step in steps:
        groups.setdefault((step.label, step.line, step.says()), []).append(step)
    return [_sentence(*key, group) for key, group in groups.items()]


def _sentence(label: str, line: Place | None, says: str, steps: list[Step]) -> str:
    if line is None:
        return f"{label} began"
    text = f"{label} made {len(steps)} {says}".rstrip() + f", at {line}"
    # A call that waited has several steps.
    errors = [step.error() for step in dict.fromkeys(steps)]
    failed = [error for error in errors if error]
    if failed:
        names = " or ".join(sorted(set(failed)))
        how_many = "all" if len(failed) == len(errors) else len(failed)
        text += f"; {how_many} of its {len(errors)} calls failed with {names}"
    return text
