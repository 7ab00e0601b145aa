"""What a ``with`` statement closes."""

from __future__ import annotations

from types import TracebackType
from typing import Self


class Closing:
    """An object that is closed at the end of its ``with`` block."""

    __slots__ = ()

    def close(self) -> None:
        """Give up what the object stands for; closing again does nothing."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
