"""Where in the program under test something was called."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import FrameType
from typing import Final, NamedTuple

#: Code that is nobody's test: this package and Python's own library.
_OTHERS: Final = (str(Path(__file__).parents[1]) + os.sep, os.path.dirname(os.__file__) + os.sep)


class Place(NamedTuple):
    """A line of a program."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{os.path.relpath(self.file)}:{self.line} in {self.function}"


def user_line() -> Place | None:
    """The innermost line that is neither of this package nor of Python's library; None if there is none."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_OTHERS):
        frame = frame.f_back
    return None if frame is None else Place(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)
