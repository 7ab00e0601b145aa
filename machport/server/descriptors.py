"""The daemon's own descriptors: as many as may be, and one that is kept for turning somebody away."""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path
from typing import Final

#: What the system allows any process, and the hard limit that processes have unless somebody lowers it.
_HIGHEST_LIMIT: Final = Path("/proc/sys/fs/nr_open")
_USUAL_HARD_LIMIT: Final = 4096


def raise_limit() -> int:
    """Allow this process as many descriptors as may be; how many that is.

    Whoever may raise the hard limit raises it to the system's, unless it is so low that somebody must have meant it.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard >= _USUAL_HARD_LIMIT:
        with contextlib.suppress(OSError, ValueError):
            highest = max(hard, int(_HIGHEST_LIMIT.read_text()))
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest, highest))
            return highest
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


class Spare:
    """A descriptor that stands for nothing, so that there is one when all others are in use."""

    def __init__(self) -> None:
        self._descriptor = -1
        self.take()

    def take(self) -> None:
        """Have it, if there is one to be had and it is not there already."""
        if self._descriptor < 0:
            with contextlib.suppress(OSError):
                self._descriptor = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def release(self) -> None:
        """Let go of it, so that something else may have its place."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
