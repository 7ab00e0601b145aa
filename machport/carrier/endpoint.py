"""Where the daemon of a user listens, and that nobody else can be there.

``MACHPORT_SOCKET`` names a socket; otherwise it is ``machport/daemon.sock`` in the user's runtime directory, which is
``XDG_RUNTIME_DIR`` or a directory in the temporary one that belongs to the user alone.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from machport.abi.errors import DaemonUnavailable

VARIABLE: Final = "MACHPORT_SOCKET"
#: Bytes of a path in ``sockaddr_un``, without the closing zero.
_PATH_MAX: Final = 107


def socket_path() -> Path:
    """The path of the daemon's socket, its directory made and checked.

    Raises:
        DaemonUnavailable: the path is too long, or its directory is not private to this user.
    """
    chosen = os.environ.get(VARIABLE)
    path = Path(chosen) if chosen else _runtime_directory() / "daemon.sock"
    path = path.absolute()
    length = len(os.fsencode(path))
    if length > _PATH_MAX:
        raise DaemonUnavailable(
            f"the socket path {path} has {length} bytes and a socket address holds {_PATH_MAX}; "
            f"set {VARIABLE} to a shorter one"
        )
    if not chosen:
        _make_private(path.parent)
    elif not path.parent.is_dir():
        raise DaemonUnavailable(f"{path.parent} is not a directory; make it, or set {VARIABLE} to another path")
    return path


def _runtime_directory() -> Path:
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.path.isabs(runtime) and os.path.isdir(runtime):
        return Path(runtime) / "machport"
    # Imported only here: with a directory of the user's own it is not needed.
    import tempfile

    return Path(tempfile.gettempdir()) / f"machport-{os.getuid()}"


def _make_private(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        status = directory.lstat()
    except OSError as error:
        raise DaemonUnavailable(
            f"cannot make the runtime directory {directory}: {error.strerror}; set {VARIABLE} to a path of yours"
        ) from None
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise DaemonUnavailable(
            f"{directory} must be a directory of user {os.getuid()} with mode 0700; "
            f"it is of user {status.st_uid} with mode {stat.S_IMODE(status.st_mode):04o}: correct it or remove it"
        )
