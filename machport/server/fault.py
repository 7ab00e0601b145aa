"""The steps at which tests let a daemon die that is being replaced, or let it stand still.

``MACHPORT_FAULT`` in a daemon's environment names a file with ``kill STEP`` or ``stop STEP`` in it.  Who reaches the
step takes the file away and sends itself that signal.  Whoever can set a daemon's environment can kill it anyway.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import Final

VARIABLE: Final = "MACHPORT_FAULT"
#: Those of the daemon that is replaced, and those of the one that takes its place, in their order.
OLD_STEPS: Final = ("old saves", "old sends", "old has sent", "old is told ready", "old says go", "old is told taken")
NEW_STEPS: Final = ("new begins", "new has received", "new has restored", "new is ready", "new is told go", "new takes")
_SIGNALS: Final = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


def reached(step: str) -> None:
    """This step is next."""
    path = os.environ.get(VARIABLE)
    if path is None:
        return
    with contextlib.suppress(FileNotFoundError):
        how, _, where = Path(path).read_text().strip().partition(" ")
        if where == step:
            Path(path).unlink()
            os.kill(os.getpid(), _SIGNALS[how])
