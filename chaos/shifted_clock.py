"""A time of day that can be set for some processes: no machine's clock is touched."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path
from typing import Final

_SOURCE: Final = Path(__file__).with_suffix(".c")
DAY: Final = 86_400
#: The compiler that is needed.
COMPILER: Final = shutil.which("cc") or shutil.which("gcc")


class ShiftedClock:
    """The time of day of all processes that are started with its ``environment``.

    Args:
        directory: where it keeps what it needs, as long as they live.
    """

    def __init__(self, directory: Path) -> None:
        assert COMPILER is not None
        library = directory / "shifted_clock.so"
        subprocess.run([COMPILER, "-shared", "-fPIC", "-O2", "-o", library, _SOURCE], check=True)
        self._file = directory / "shift"
        self._file.write_bytes(struct.pack("=q", 0))
        self.environment = {"LD_PRELOAD": str(library), "SHIFTED_CLOCK": str(self._file)}

    def set(self, seconds: int) -> None:
        """From now on it is so much later than by the machine's clock, or earlier."""
        with self._file.open("r+b", buffering=0) as file:
            file.write(struct.pack("=q", seconds))
