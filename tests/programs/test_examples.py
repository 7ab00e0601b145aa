"""The examples run, and print what they are said to print."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from actors import PATIENCE, DaemonProcess

EXAMPLES = Path(__file__).parents[2] / "examples"
#: What each prints, as a pattern: a call may meet its server just before or just after it is gone.
PRINTED = {
    "killed_server.py": """\
b'HELLO'
ServerDied: the server (is dead, and the request was not sent|died with this request, .*)
DeadNameNotification and the process ended with -9
""",
}


def test_what_every_example_prints_is_written_here() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(PRINTED)


@pytest.mark.parametrize("name", PRINTED)
def test_the_example_prints_what_it_should(daemon: DaemonProcess, name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.stderr, done.returncode) == ("", 0)
    assert re.fullmatch(PRINTED[name], done.stdout), done.stdout
