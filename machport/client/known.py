"""Objects that are known as long as somebody else has them.

The weak collections of the library run a function of Python whenever something in them goes, in the middle of anything;
an interrupt that came just then would be lost, because nothing can be raised there.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from typing import Final, Generic, TypeVar

T = TypeVar("T")
#: Objects below which it is not looked whether some are gone.
_FEW: Final = 16


class Known(Generic[T]):
    """Objects, in the order in which they came."""

    def __init__(self) -> None:
        self._references: list[weakref.ref[T]] = []
        self._most = _FEW
        self._tidying = threading.Lock()

    def add(self, thing: T) -> None:
        """Know one more."""
        if len(self._references) >= self._most:
            self._tidy()
        self._references.append(weakref.ref(thing))

    def _tidy(self) -> None:
        """Forget those that are gone, unless another thread does, or the one that a handler of signals came into."""
        if not self._tidying.acquire(blocking=False):
            return
        try:
            before = list(self._references)
            living = [reference for reference in before if reference() is not None]
            # At once: others may have added some behind them.
            self._references[: len(before)] = living
            self._most = 2 * len(living) + _FEW
        finally:
            self._tidying.release()

    def __iter__(self) -> Iterator[T]:
        """Those that there are."""
        for reference in list(self._references):
            thing = reference()
            if thing is not None:
                yield thing
