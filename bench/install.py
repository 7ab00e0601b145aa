"""Install what can be compared with: the optional dependencies named ``bench``, one by one.

``make bench`` runs it.  What cannot be installed here is named, and is missing from the tables.
"""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys


def wanted() -> list[str]:
    """The requirements of machport's extra ``bench``, without their condition."""
    requirements = importlib.metadata.requires("machport") or []
    return [line.split(";")[0].strip() for line in requirements if re.search(r"extra\s*==\s*['\"]bench['\"]", line)]


def main() -> None:
    """Install each requirement; always succeeds."""
    for requirement in wanted():
        command = [sys.executable, "-m", "pip", "install", "--quiet", requirement]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            print(f"{requirement} is not installed and will be missing: {reason}")


if __name__ == "__main__":
    main()
