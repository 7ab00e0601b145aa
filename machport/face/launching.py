"""What a confined program is started by: it joins, confines itself, and becomes the program.

The program could not join by itself, because it may not connect; and nothing can run in a process between its birth and
its program but a program.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any, Final

import machport
from machport.abi.errors import ConfinementUnavailable, MachError
from machport.client import inheritance
from machport.client.ahead import join_ahead

#: Exit code of a process that did not become its program, as shells have it.
_NOT_STARTED: Final = 127


def command(confinement: dict[str, Any], failures: int, argv: list[str]) -> list[str]:
    """The command that becomes ``argv``.

    Args:
        confinement: keywords of ``confinement.applying.apply``.
        failures: descriptor to which is written what went wrong; closed without a word if nothing did.
    """
    place = str(Path(machport.__file__).parents[1])
    # Its own modules, and none that lie about in some directory.
    source = f"import sys; sys.path.append({place!r}); from machport.face.launching import launch; launch()"
    return [sys.executable, "-I", "-c", source, json.dumps([confinement, failures]), *argv]


def launch() -> None:
    """Become the program that the command line says; see ``command``."""
    confinement, failures = json.loads(sys.argv[1])
    argv = sys.argv[2:]
    os.set_inheritable(failures, False)
    try:
        _become(argv, confinement)
    except (OSError, MachError) as error:
        code = (getattr(error, "errno", None) or 0) if not isinstance(error, MachError) else 0
        kind = type(error).__name__ if isinstance(error, ConfinementUnavailable) else ""
        text = error.says if isinstance(error, MachError) else os.strerror(code)
        os.write(failures, json.dumps([kind, code, text]).encode())
    os._exit(_NOT_STARTED)


def _become(argv: list[str], confinement: dict[str, Any]) -> None:
    from machport.confinement.applying import apply

    program = shutil.which(argv[0])
    if program is None:
        code = errno.EACCES if os.path.exists(argv[0]) else errno.ENOENT
        raise OSError(code, os.strerror(code))
    left = inheritance.take()
    assert left is not None
    descriptor, os.environ[inheritance.VARIABLE] = inheritance.leave(join_ahead(left))
    os.set_inheritable(descriptor, True)
    apply(**confinement, program=os.path.abspath(program))
    # Python ignores these, and programs inherit it.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    os.execv(program, argv)
